//! Drives a [`Search`] with a [`Bench`].

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::bench::Bench;
use super::search::{Outcome, Search, SearchOptions, Step, Task};
use super::trial::{Trial, difference};
use crate::error::Result;
use crate::kernel::Schedule;

/// A race of a kernel's candidates on a device, step by step.
pub struct Race<'r, 'a> {
    bench: &'r mut Bench<'a>,
    search: Search,
    limit: Duration,
    /// The default's output.
    reference: Vec<f64>,
    /// Time at work: a race may be paused between steps.
    spent: Duration,
}

impl<'r, 'a> Race<'r, 'a> {
    /// A race of `candidates`, the default first.
    pub fn new(bench: &'r mut Bench<'a>, candidates: &[Schedule], options: SearchOptions) -> Self {
        let limit = options.limit;
        let (candidates, costs) = distinct(bench, candidates, options.most_candidates);
        let search = Search::new(&candidates, options).with_costs(costs);
        Race { bench, search, limit, reference: Vec::new(), spent: Duration::ZERO }
    }

    /// The trials so far.
    pub fn trials(&self) -> &[Trial] {
        self.search.trials()
    }

    /// Time at work so far.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// What a unit of cost took to compile, for each candidate that was compiled.
    pub fn compile_rates(&self) -> impl Iterator<Item = f64> {
        self.search.compile_rates()
    }

    /// The trials.
    pub fn into_trials(self) -> Vec<Trial> {
        self.search.into_trials()
    }

    /// Do one thing, a check or a sample; `false` when there is nothing left to do. A step for which `counts` then
    /// says no is done again: something else ran meanwhile.
    ///
    /// # Errors
    /// When the default itself cannot run; other candidates' failures are recorded in their trials.
    pub fn step(&mut self, counts: &dyn Fn() -> bool) -> Result<bool> {
        let Some(step) = self.search.next(self.spent) else { return Ok(false) };
        let default_took = Duration::from_nanos(self.trials().first().map_or(0, |trial| trial.compile_ns));
        let limit = if step.trial == 0 { self.limit * 10 } else { self.limit.max(default_took * 3) };
        self.bench.set_limit(limit);
        let start = Instant::now();
        let outcome = self.done(&step);
        let is_usable = outcome.is_ok() || self.bench.is_usable();
        self.spent += start.elapsed();
        match outcome {
            Err(error) if step.trial == 0 => return Err(error),
            Err(error) => {
                self.search.record(&step, Outcome::Failed(error.to_string()));
                if !is_usable {
                    // A driver that kills what hangs, or a kernel that does not end: there is nothing to measure on.
                    tracing::warn!(schedule = %step.schedule, %error, "a candidate took the device with it");
                    self.search.stop();
                }
            }
            Ok(Outcome::Sampled(_)) if !counts() => {}
            Ok(outcome) => self.search.record(&step, outcome),
        }
        Ok(true)
    }

    fn done(&mut self, step: &Step) -> Result<Outcome> {
        match step.task {
            Task::Check => {
                let start = Instant::now();
                let output = self.bench.output(&step.schedule)?;
                let compile_ns = start.elapsed().as_nanos() as u64;
                let mut differs = None;
                if step.trial == 0 {
                    self.reference = output;
                } else {
                    differs = difference(self.bench.spec(), &self.reference, &output);
                }
                Ok(Outcome::Checked { difference: differs, compile_ns })
            }
            Task::Sample { guess_ns } => Ok(Outcome::Sampled(self.bench.sample(&step.schedule, guess_ns)?)),
        }
    }
}

/// The first `most` candidates that differ in what the device is given, and what compiling them costs by the lengths of their texts. One that cannot
/// be rendered stays: its trial will say why.
fn distinct(bench: &Bench, candidates: &[Schedule], most: usize) -> (Vec<Schedule>, Vec<u64>) {
    let (mut kept, mut costs, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for schedule in candidates {
        if kept.len() >= most.max(1) {
            break;
        }
        let identity = bench.identity(schedule).unwrap_or_default();
        // On lavapipe, three times the text takes five times as long: unrolled tiles are one long block.
        let cost = identity.iter().map(|(text, _)| (text.len() as f64).powf(1.5) as u64).sum();
        if identity.is_empty() || seen.insert(identity) {
            kept.push(schedule.clone());
            costs.push(cost);
        }
    }
    (kept, costs)
}

/// Measure `candidates`, the default first. `done` is told of every trial as it changes.
///
/// # Errors
/// As [`Race::step`].
pub fn search(
    bench: &mut Bench,
    candidates: &[Schedule],
    options: &SearchOptions,
    done: &mut dyn FnMut(&[Trial]),
) -> Result<Vec<Trial>> {
    let mut race = Race::new(bench, candidates, options.clone());
    while race.step(&|| true)? {
        done(race.trials());
    }
    Ok(race.into_trials())
}
