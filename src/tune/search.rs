//! The order of work over the candidates of one kernel.
//!
//! The default comes first: it is the reference for every other output. Then each candidate is compiled, checked
//! and sampled once; then rounds over those still in the race, dropping what is clearly slower, until two rounds
//! gain nothing or the budget is spent (the method of CubeCL's autotuning). The default is never dropped: one cold
//! sample of it would make every speed-up look larger than it is.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::bench::Bench;
use crate::error::Result;
use crate::kernel::Schedule;

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
}

impl Trial {
    /// The best sample of a trial that may win.
    pub fn best_ns(&self) -> Option<u64> {
        match self.status {
            Status::Measured | Status::Dropped => self.samples_ns.iter().min().copied(),
            Status::Wrong(_) | Status::Failed(_) | Status::Unmeasured => None,
        }
    }
}

/// How long, and how many.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// Time for one kernel; the default is always measured.
    pub budget: Duration,
    /// Candidates tried, the default included.
    pub most_candidates: usize,
}

/// A candidate this much slower than the best is dropped ...
const DROP_RATIO: f64 = 1.5;
/// ... as long as this many remain.
const KEEP: usize = 2;
/// Rounds after the first.
const ROUNDS: usize = 6;
/// The part of the budget for trying every candidate once; the rest is for the rounds, without which a winner is
/// the luck of one sample.
const FIRST_PASS: f64 = 0.6;
/// Samples of the default and the winner at the least, whatever the budget.
const SURE: usize = 3;
/// A round that gains less than this is one of the last two.
const GAIN: f64 = 0.02;
/// Largest difference of outputs, relative to the default's largest value: sums are taken in another order.
const TOLERANCE: f64 = 1e-3;

/// Measure `candidates`, the default first. `done` is told of every trial as it changes.
///
/// # Errors
/// When the default itself cannot run; other candidates' failures are recorded in their trials.
pub fn search(
    bench: &mut Bench,
    candidates: &[Schedule],
    options: &SearchOptions,
    done: &mut dyn FnMut(&[Trial]),
) -> Result<Vec<Trial>> {
    let start = Instant::now();
    let blank = |schedule: &Schedule| Trial {
        schedule: schedule.clone(),
        status: Status::Unmeasured,
        samples_ns: Vec::new(),
    };
    let mut trials: Vec<Trial> = candidates.iter().take(options.most_candidates).map(blank).collect();
    let Some(first) = trials.first_mut() else { return Ok(trials) };
    let reference = bench.output(&first.schedule)?;
    // The first sample pays for cold memory and says how often to repeat the second.
    let cold_ns = bench.sample(&first.schedule, None)?;
    first.samples_ns.push(bench.sample(&first.schedule, Some(cold_ns))?);
    first.status = Status::Measured;
    done(&trials);
    for i in 1..trials.len() {
        if start.elapsed() >= options.budget.mul_f64(FIRST_PASS) {
            break;
        }
        let schedule = trials[i].schedule.clone();
        let guess = trials[0].samples_ns[0];
        trials[i].status = match try_one(bench, &schedule, &reference, guess, &mut trials[i].samples_ns) {
            Ok(None) => Status::Measured,
            Ok(Some(difference)) => Status::Wrong(difference),
            Err(error) => Status::Failed(error.to_string()),
        };
        done(&trials);
    }
    let mut best = fastest(&trials);
    let mut idle_rounds = 0;
    for _ in 0..ROUNDS {
        drop_slow(&mut trials);
        for trial in trials.iter_mut().filter(|trial| trial.status == Status::Measured) {
            if start.elapsed() >= options.budget {
                break;
            }
            match bench.sample(&trial.schedule, trial.best_ns()) {
                Ok(ns) => trial.samples_ns.push(ns),
                Err(error) => trial.status = Status::Failed(error.to_string()),
            }
        }
        done(&trials);
        let now = fastest(&trials);
        idle_rounds = if (now as f64) < best as f64 * (1.0 - GAIN) { 0 } else { idle_rounds + 1 };
        best = now;
        if idle_rounds == 2 || start.elapsed() >= options.budget {
            break;
        }
    }
    confirm(bench, &mut trials);
    done(&trials);
    Ok(trials)
}

/// Sample the default and the winner until both are known well enough to be compared.
fn confirm(bench: &mut Bench, trials: &mut [Trial]) {
    while let Some(fastest) = winner(trials).map(|trial| trial.schedule.clone()) {
        let unsure = |(i, trial): &(usize, &mut Trial)| {
            (*i == 0 || trial.schedule == fastest)
                && trial.status == Status::Measured
                && trial.samples_ns.len() < SURE
        };
        let Some((_, trial)) = trials.iter_mut().enumerate().find(unsure) else { break };
        match bench.sample(&trial.schedule, trial.best_ns()) {
            Ok(ns) => trial.samples_ns.push(ns),
            Err(error) => trial.status = Status::Failed(error.to_string()),
        }
    }
}

/// Check and sample one candidate; the difference of its output, if there is one.
fn try_one(
    bench: &mut Bench,
    schedule: &Schedule,
    reference: &[f64],
    guess_ns: u64,
    samples_ns: &mut Vec<u64>,
) -> Result<Option<String>> {
    let output = bench.output(schedule)?;
    if let Some(difference) = differ(reference, &output) {
        return Ok(Some(difference));
    }
    samples_ns.push(bench.sample(schedule, Some(guess_ns))?);
    Ok(None)
}

/// How `got` differs from `want`, when it does. What the default leaves untouched must stay untouched.
pub(super) fn differ(want: &[f64], got: &[f64]) -> Option<String> {
    let largest = want.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let close = |w: f64, g: f64| w == g || (w.is_nan() && g.is_nan()) || (w - g).abs() <= TOLERANCE * largest;
    let (at, (w, g)) = want.iter().zip(got).enumerate().find(|(_, (w, g))| !close(**w, **g))?;
    Some(format!("element {at} is {g}, the default schedule gives {w}"))
}

fn fastest(trials: &[Trial]) -> u64 {
    trials.iter().filter_map(Trial::best_ns).min().unwrap_or(u64::MAX)
}

fn drop_slow(trials: &mut [Trial]) {
    let best = fastest(trials);
    // The default stays, for the speed-up to be true.
    let mut racing: Vec<usize> =
        (1..trials.len()).filter(|&i| trials[i].status == Status::Measured).collect();
    racing.sort_by_key(|&i| trials[i].best_ns());
    for &i in racing.iter().skip(KEEP) {
        if trials[i].best_ns().is_some_and(|ns| ns as f64 > best as f64 * DROP_RATIO) {
            trials[i].status = Status::Dropped;
        }
    }
}

/// A candidate must beat the default by this much: less is noise.
const MARGIN: f64 = 0.05;

/// The fastest trial; the default, which is the first, where none is clearly faster.
pub fn winner(trials: &[Trial]) -> Option<&Trial> {
    let fastest = trials.iter().filter(|t| t.best_ns().is_some()).min_by_key(|t| t.best_ns())?;
    let default = trials.first().filter(|t| t.best_ns().is_some());
    let clear = |default: &Trial| {
        fastest.best_ns().zip(default.best_ns()).is_some_and(|(f, d)| (f as f64) < d as f64 * (1.0 - MARGIN))
    };
    Some(default.filter(|default| !clear(default)).unwrap_or(fastest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_value() {
        for (want, got, same) in [
            (vec![1000.0, 0.0], vec![1000.5, 0.9], true),
            (vec![1000.0, 0.0], vec![1000.0, 1.5], false),
            (vec![f64::NAN, 1.0], vec![f64::NAN, 1.0], true),
            (vec![f64::NAN, 1.0], vec![0.0, 1.0], false),
            (vec![1.0, 2.0], vec![1.0, f64::NAN], false),
            (vec![f64::INFINITY], vec![f64::INFINITY], true),
        ] {
            assert_eq!(differ(&want, &got).is_none(), same, "{want:?} {got:?}");
        }
    }

    #[test]
    fn slow_candidates_are_dropped_and_two_kept() {
        let trial = |ns: u64| Trial {
            schedule: Schedule::Map(crate::kernel::MapSchedule { workgroup: ns as u32, per_invocation: 1 }),
            status: Status::Measured,
            samples_ns: vec![ns],
        };
        let mut trials: Vec<Trial> = [500, 300, 100, 160, 400].map(trial).into();
        drop_slow(&mut trials);
        let kept: Vec<bool> = trials.iter().map(|t| t.status == Status::Measured).collect();
        assert_eq!(kept, [true, false, true, true, false]);
        assert_eq!(winner(&trials).and_then(Trial::best_ns), Some(100));
    }
}
