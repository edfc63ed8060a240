//! A candidate, its samples, and which candidate wins.

use serde::{Deserialize, Serialize};

use crate::kernel::{KernelSpec, Schedule};

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Status {
    /// Measured until the end.
    Measured,
    /// Measured, and dropped as clearly slower.
    Dropped,
    /// Its output differs from the default's: how.
    Wrong(String),
    /// It could not be compiled or run: why.
    Failed(String),
    /// Fast alone, and slower than another where it counts, in runs of the whole model: by how much.
    Rejected(String),
    /// The budget was spent before its turn.
    Unmeasured,
}

/// A candidate and its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The candidate.
    pub schedule: Schedule,
    /// What became of it.
    pub status: Status,
    /// Nanoseconds of each sample.
    pub samples_ns: Vec<u64>,
    /// Nanoseconds until its first result was there: rendering, compiling, one dispatch. 0 where it was not tried.
    #[serde(default)]
    pub compile_ns: u64,
}

impl Trial {
    /// One that had no turn yet.
    pub fn new(schedule: Schedule) -> Trial {
        Trial { schedule, status: Status::Unmeasured, samples_ns: Vec::new(), compile_ns: 0 }
    }

    /// The best sample of a trial that may win.
    pub fn best_ns(&self) -> Option<u64> {
        match self.status {
            Status::Measured | Status::Dropped => self.samples_ns.iter().min().copied(),
            Status::Wrong(_) | Status::Failed(_) | Status::Rejected(_) | Status::Unmeasured => None,
        }
    }
}

/// A candidate must beat the default by this much: less is noise.
pub const MARGIN: f64 = 0.05;

/// Whether `ns` is less than `than_ns` by more than noise.
pub fn clearly_faster(ns: u64, than_ns: u64) -> bool {
    (ns as f64) < than_ns as f64 * (1.0 - MARGIN)
}

/// The fastest trial; the default, which is the first, where none is clearly faster.
pub fn winner(trials: &[Trial]) -> Option<&Trial> {
    let fastest = trials.iter().filter(|t| t.best_ns().is_some()).min_by_key(|t| t.best_ns())?;
    let default = trials.first().filter(|t| t.best_ns().is_some());
    let clear =
        |default: &Trial| fastest.best_ns().zip(default.best_ns()).is_some_and(|(f, d)| clearly_faster(f, d));
    Some(default.filter(|default| !clear(default)).unwrap_or(fastest))
}

/// The trials that are worth a comparison in runs of the whole model: the default, then what was clearly faster than
/// it and at most a quarter slower than the fastest, `most` in all.
pub fn finalists(trials: &[Trial], most: usize) -> Vec<&Trial> {
    let Some(default) = trials.first() else { return Vec::new() };
    let default_ns = default.best_ns().unwrap_or(u64::MAX);
    let mut others: Vec<(u64, &Trial)> =
        trials[1..].iter().filter_map(|trial| Some((trial.best_ns()?, trial))).collect();
    others.retain(|(ns, _)| clearly_faster(*ns, default_ns));
    others.sort_by_key(|(ns, _)| *ns);
    let limit = others.first().map_or(0, |(ns, _)| ns + ns / 4);
    let near = others.into_iter().filter(|(ns, _)| *ns <= limit).map(|(_, trial)| trial);
    [default].into_iter().chain(near).take(most).collect()
}

/// Largest difference of outputs, relative to the default's largest value: sums are taken in another order.
const TOLERANCE: f64 = 1e-3;
/// The same where sums may be taken in f16, which keeps three digits of each partial sum.
const F16_TOLERANCE: f64 = 3e-2;

/// Elements among which one may be a step off, where sums of floats are rounded to integers: those near a half.
const PER_STEP: usize = 64;

/// How `got` differs from `want`, when it does, as outputs of `spec`. What the default leaves untouched must stay
/// untouched.
pub fn difference(spec: &KernelSpec, want: &[f64], got: &[f64]) -> Option<String> {
    if want.len() != got.len() {
        return Some(format!("{} elements, the default schedule gives {}", got.len(), want.len()));
    }
    let largest = want.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let tolerance = if spec.has_f16_sums() { F16_TOLERANCE } else { TOLERANCE };
    let close = |w: f64, g: f64| w == g || (w.is_nan() && g.is_nan()) || (w - g).abs() <= tolerance * largest;
    let mut steps = if spec.rounds_sums() { want.len().div_ceil(PER_STEP) } else { 0 };
    let mut is_step = |w: f64, g: f64| {
        let is_step = (w - g).abs() == 1.0 && steps > 0;
        steps -= usize::from(is_step);
        is_step
    };
    let mut pairs = want.iter().zip(got).enumerate();
    let (at, (w, g)) = pairs.find(|(_, (w, g))| !close(**w, **g) && !is_step(**w, **g))?;
    Some(format!("element {at} is {g}, the default schedule gives {w}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Expr, Idx};
    use crate::ir::Combine;
    use crate::kernel::{Body, MapSchedule, RowResult, Stage};
    use crate::tensor::DType;

    fn trial(number: u32, ns: u64) -> Trial {
        let schedule = Schedule::Map(MapSchedule { workgroup: number, per_invocation: 1, vector: 1 });
        Trial { status: Status::Measured, samples_ns: vec![ns], ..Trial::new(schedule) }
    }

    #[test]
    fn differences_are_relative_to_the_largest_value() {
        let body = Body::Map { len: 2i64.into(), value: Expr::float(DType::F32, 0.0) };
        let mut spec = KernelSpec { inputs: Vec::new(), output: DType::F32, params: 0, body };
        for (want, got, same) in [
            (vec![1000.0, 0.0], vec![1000.5, 0.9], true),
            (vec![1000.0, 0.0], vec![1000.0, 1.5], false),
            (vec![f64::NAN, 1.0], vec![f64::NAN, 1.0], true),
            (vec![f64::NAN, 1.0], vec![0.0, 1.0], false),
            (vec![1.0, 2.0], vec![1.0, f64::NAN], false),
            (vec![1.0, 2.0], vec![1.0], false),
            (vec![f64::INFINITY], vec![f64::INFINITY], true),
        ] {
            assert_eq!(difference(&spec, &want, &got).is_none(), same, "{want:?} {got:?}");
        }

        // A sum of floats may round to either neighbour.
        let value = Expr::load(0, DType::F32, vec![Idx::var(1, &4i64.into())]);
        let stages = vec![Stage { extent: 4i64.into(), combine: Combine::Sum, value }];
        let result = RowResult::PerRow(Expr::arg(0, DType::F32).rounded().cast(DType::I8));
        spec.body = Body::Reduce { rows: 128i64.into(), stages, result };
        for (output, off, by, same) in [
            (DType::I8, 2, 1.0, true),
            (DType::I8, 3, 1.0, false),
            (DType::I8, 1, 2.0, false),
            (DType::F32, 2, 1.0, false),
        ] {
            spec.output = output;
            let (want, mut got) = (vec![100.0; 128], vec![100.0; 128]);
            got[..off].iter_mut().for_each(|value| *value += by);
            assert_eq!(difference(&spec, &want, &got).is_none(), same, "{output}, {off} off by {by}");
        }
    }

    #[test]
    fn a_winner_is_clearly_faster_and_was_not_rejected() {
        let mut trials: Vec<Trial> = (0..).zip([100, 96, 50, 60, 70]).map(|(n, ns)| trial(n, ns)).collect();
        assert_eq!(winner(&trials), Some(&trials[2]));
        let near: Vec<u64> = finalists(&trials, 3).iter().filter_map(|t| t.best_ns()).collect();
        assert_eq!(near, [100, 50, 60]);
        assert_eq!(finalists(&trials[..2], 3), [&trials[0]]);
        trials[2].status = Status::Rejected("slower".into());
        assert_eq!(winner(&trials), Some(&trials[3]));
        assert_eq!(winner(&trials[..2]), Some(&trials[0]));
    }
}
