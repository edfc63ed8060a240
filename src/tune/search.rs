//! The order of work over the candidates of one kernel, as a machine without a device: it says what to do next and is
//! told what came of it. Who measures, and how, is for its driver: [`super::Race`] natively, a page in the browser.
//!
//! The default comes first: it is the reference for every other output. Then each candidate is compiled, checked
//! and sampled once; then rounds over those still in the race, dropping what is clearly slower, until two rounds
//! gain nothing, the best is as fast as the device can be, or the budget is spent (the method of CubeCL's
//! autotuning). The default is never dropped: one cold sample of it would make every speed-up look larger than it is.

use std::time::Duration;

use super::trial::{Status, Trial, winner};
use crate::kernel::Schedule;

/// How long, and how many.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// Time for one kernel; the default is always measured.
    pub budget: Duration,
    /// Candidates tried, the default included.
    pub most_candidates: usize,
    /// A time that cannot be beaten by much: two samples within it end the search, unless they are so much faster that
    /// it cannot be right.
    pub enough_ns: Option<u64>,
    /// How long a candidate may take, to its first result or for a sample; the default has ten times as long, and the
    /// others at least three times what the default took.
    pub limit: Duration,
    /// What a unit of cost takes to compile, as far as it is known from other kernels; see [`Search::with_costs`].
    pub compile_ns: f64,
}

impl Default for SearchOptions {
    fn default() -> Self {
        let (budget, limit) = (Duration::from_secs(30), Duration::from_secs(10));
        SearchOptions { budget, most_candidates: 16, enough_ns: None, limit, compile_ns: 0.0 }
    }
}

/// What to do with a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Compile it, run it once from poisoned memory, and compare its output with the default's.
    Check,
    /// Time it. `guess_ns` is what it took before, if anything did.
    Sample {
        /// Nanoseconds of one dispatch, about.
        guess_ns: Option<u64>,
    },
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The candidate's number; 0 is the default.
    pub trial: usize,
    /// The candidate.
    pub schedule: Schedule,
    /// What to do with it.
    pub task: Task,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Of [`Task::Check`].
    Checked {
        /// How the output differs from the default's, where it does.
        difference: Option<String>,
        /// Time until it was there.
        compile_ns: u64,
    },
    /// Of [`Task::Sample`]: nanoseconds of one dispatch.
    Sampled(u64),
    /// It could not be compiled or run: why.
    Failed(String),
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Each candidate in turn.
    First {
        trial: usize,
    },
    /// Round after round; `next` is whose turn it is.
    Rounds {
        round: usize,
        next: usize,
    },
    /// Sample the default and the winner until both are known well enough to be compared.
    Confirm,
    Done,
}

/// The race of a kernel's candidates.
#[derive(Clone, Debug)]
pub struct Search {
    options: SearchOptions,
    trials: Vec<Trial>,
    /// What compiling each costs, in any unit; empty where nothing is known of it.
    costs: Vec<u64>,
    /// A first sample of the default, which says how often to repeat the next and is thrown away: memory was cold.
    cold_ns: Option<u64>,
    /// Which trials had their first sample thrown away.
    warmed: Vec<bool>,
    phase: Phase,
    best_ns: u64,
    idle_rounds: usize,
}

impl Search {
    /// A race of `candidates`, the default first.
    pub fn new(candidates: &[Schedule], options: SearchOptions) -> Search {
        let trials: Vec<Trial> =
            candidates.iter().take(options.most_candidates.max(1)).cloned().map(Trial::new).collect();
        Search {
            options,
            costs: Vec::new(),
            cold_ns: None,
            warmed: vec![false; trials.len()],
            phase: if trials.is_empty() { Phase::Done } else { Phase::First { trial: 0 } },
            trials,
            best_ns: u64::MAX,
            idle_rounds: 0,
        }
    }

    /// Costs of compiling the candidates, as the lengths of their texts, in order. With them, a candidate that would take
    /// more time to compile than the budget has left has no turn, and smaller ones after it do: on CPU adapters the
    /// largest tiles compile for seconds.
    pub fn with_costs(mut self, costs: Vec<u64>) -> Search {
        self.costs = costs;
        self
    }

    /// The trials so far.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// The trials.
    pub fn into_trials(self) -> Vec<Trial> {
        self.trials
    }

    /// Leave it at what was measured so far.
    pub fn stop(&mut self) {
        self.phase = Phase::Done;
    }

    /// What to do next, when `spent` was spent so far; `None` when the race is over. The same again until
    /// [`Search::record`] is told what came of it.
    pub fn next(&mut self, spent: Duration) -> Option<Step> {
        loop {
            match self.phase {
                Phase::First { trial } => {
                    let over = spent >= self.options.budget.mul_f64(FIRST_PASS) || self.enough();
                    match self.first(trial) {
                        // What is begun is finished: a checked candidate without a sample cannot win.
                        Some(task)
                            if trial == 0
                                || !(over || self.is_too_costly(trial, spent))
                                || self.is_begun(trial) =>
                        {
                            return Some(self.step(trial, task));
                        }
                        Some(_) if over => self.begin_rounds(),
                        Some(_) | None if trial + 1 < self.trials.len() => {
                            self.phase = Phase::First { trial: trial + 1 }
                        }
                        Some(_) | None => self.begin_rounds(),
                    }
                }
                Phase::Rounds { round, next } => {
                    let over = spent >= self.options.budget || self.enough();
                    let racing = |i: &usize| self.trials[*i].status == Status::Measured;
                    match (next..self.trials.len()).find(racing).filter(|_| !over) {
                        Some(trial) => {
                            self.phase = Phase::Rounds { round, next: trial };
                            return Some(self.again(trial));
                        }
                        None => self.end_round(round, over),
                    }
                }
                Phase::Confirm => match self.unsure() {
                    Some(trial) => return Some(self.again(trial)),
                    None => self.phase = Phase::Done,
                },
                Phase::Done => return None,
            }
        }
    }

    /// Take in what came of a step that [`Search::next`] gave.
    pub fn record(&mut self, step: &Step, outcome: Outcome) {
        let Some(trial) = self.trials.get_mut(step.trial) else { return };
        match (outcome, step.task) {
            (Outcome::Failed(why), _) => trial.status = Status::Failed(why),
            (Outcome::Checked { difference, compile_ns }, _) => {
                trial.compile_ns = compile_ns.max(1);
                if let Some(difference) = difference {
                    trial.status = Status::Wrong(difference);
                }
            }
            (Outcome::Sampled(ns), Task::Sample { guess_ns: None }) => self.cold_ns = Some(ns),
            (Outcome::Sampled(ns), _) => {
                trial.status = Status::Measured;
                trial.samples_ns.push(ns);
                if trial.samples_ns.len() == 3 && !self.warmed[step.trial] {
                    trial.samples_ns.remove(0);
                    self.warmed[step.trial] = true;
                }
            }
        }
        if let Phase::Rounds { round, next } = self.phase {
            self.phase = Phase::Rounds { round, next: next + 1 };
        }
    }

    /// What a unit of cost took to compile, for each candidate that was compiled.
    pub fn compile_rates(&self) -> impl Iterator<Item = f64> {
        let known = self.trials.iter().zip(&self.costs).filter(|(trial, _)| trial.compile_ns > 0);
        known.map(|(trial, &cost)| trial.compile_ns as f64 / cost.max(1) as f64)
    }

    fn is_begun(&self, trial: usize) -> bool {
        self.trials[trial].compile_ns > 0
    }

    /// Whether compiling a candidate would take more than what is left for first turns, going by those compiled so far.
    fn is_too_costly(&self, trial: usize, spent: Duration) -> bool {
        let dearest = self.compile_rates().fold(self.options.compile_ns, f64::max);
        let left = self.options.budget.mul_f64(FIRST_PASS).saturating_sub(spent);
        self.costs.get(trial).is_some_and(|&cost| dearest * cost as f64 > left.as_nanos() as f64)
    }

    fn step(&self, trial: usize, task: Task) -> Step {
        Step { trial, schedule: self.trials[trial].schedule.clone(), task }
    }

    fn again(&self, trial: usize) -> Step {
        self.step(trial, Task::Sample { guess_ns: self.trials[trial].best_ns() })
    }

    /// What a candidate's first turn still lacks.
    fn first(&self, number: usize) -> Option<Task> {
        let trial = &self.trials[number];
        match trial.status {
            Status::Unmeasured if trial.compile_ns == 0 => Some(Task::Check),
            Status::Unmeasured if number == 0 => Some(Task::Sample { guess_ns: self.cold_ns }),
            Status::Unmeasured => Some(Task::Sample { guess_ns: self.trials[0].best_ns().or(self.cold_ns) }),
            // Where the default is as fast as can be, nothing else need be tried: make sure of it.
            Status::Measured if number == 0 && trial.samples_ns.len() == 1 && self.within(trial) == 1 => {
                Some(Task::Sample { guess_ns: trial.best_ns() })
            }
            Status::Measured
            | Status::Dropped
            | Status::Wrong(_)
            | Status::Failed(_)
            | Status::Rejected(_) => None,
        }
    }

    fn begin_rounds(&mut self) {
        self.best_ns = self.fastest();
        self.drop_slow();
        self.phase = Phase::Rounds { round: 0, next: 0 };
    }

    fn end_round(&mut self, round: usize, over: bool) {
        let now = self.fastest();
        let gained = (now as f64) < self.best_ns as f64 * (1.0 - GAIN);
        self.idle_rounds = if gained { 0 } else { self.idle_rounds + 1 };
        self.best_ns = now;
        self.phase = if over || self.idle_rounds == 2 || round + 1 == ROUNDS {
            Phase::Confirm
        } else {
            self.drop_slow();
            Phase::Rounds { round: round + 1, next: 0 }
        };
    }

    fn fastest(&self) -> u64 {
        self.trials.iter().filter_map(Trial::best_ns).min().unwrap_or(u64::MAX)
    }

    /// Whether a candidate is as fast as the device can be, twice.
    fn enough(&self) -> bool {
        self.trials.iter().any(|trial| trial.best_ns().is_some() && self.within(trial) >= 2)
    }

    /// Samples that are as fast as the device can be.
    fn within(&self, trial: &Trial) -> usize {
        // What is much faster than the device can be shows that the limit is not where it was thought to be.
        let enough_ns = self.options.enough_ns.unwrap_or(0);
        let range = enough_ns - enough_ns / 4..=enough_ns;
        trial.samples_ns.iter().filter(|ns| range.contains(*ns)).count()
    }

    fn unsure(&self) -> Option<usize> {
        let fastest = winner(&self.trials)?.schedule.clone();
        let unsure = |(i, trial): &(usize, &Trial)| {
            (*i == 0 || trial.schedule == fastest)
                && trial.status == Status::Measured
                && trial.samples_ns.len() < SURE
        };
        self.trials.iter().enumerate().find(unsure).map(|(i, _)| i)
    }

    fn drop_slow(&mut self) {
        let best = self.fastest();
        // The default stays, for the speed-up to be true.
        let mut racing: Vec<usize> =
            (1..self.trials.len()).filter(|&i| self.trials[i].status == Status::Measured).collect();
        racing.sort_by_key(|&i| self.trials[i].best_ns());
        for &i in racing.iter().skip(KEEP) {
            if self.trials[i].best_ns().is_some_and(|ns| ns as f64 > best as f64 * DROP_RATIO) {
                self.trials[i].status = Status::Dropped;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::MapSchedule;

    fn candidates(count: u32) -> Vec<Schedule> {
        (0..count)
            .map(|n| Schedule::Map(MapSchedule { workgroup: n, per_invocation: 1, vector: 1 }))
            .collect()
    }

    fn options(budget_ms: u64) -> SearchOptions {
        let budget = Duration::from_millis(budget_ms);
        SearchOptions { budget, most_candidates: usize::MAX, ..SearchOptions::default() }
    }

    /// Drive a race on a made-up device where a check takes 10 ms, a sample 1 ms; the steps taken.
    fn race(search: &mut Search, answer: &mut dyn FnMut(&Step) -> Outcome) -> Vec<(usize, Task)> {
        let (mut spent, mut steps) = (Duration::ZERO, Vec::new());
        while let Some(step) = search.next(spent) {
            assert_eq!(search.next(spent), Some(step.clone()), "the same until it is answered");
            spent += Duration::from_millis(if step.task == Task::Check { 10 } else { 1 });
            search.record(&step, answer(&step));
            steps.push((step.trial, step.task));
            assert!(steps.len() < 1000, "it ends");
        }
        steps
    }

    fn times(ns: &[u64]) -> impl FnMut(&Step) -> Outcome {
        move |step: &Step| match step.task {
            Task::Check => Outcome::Checked { difference: None, compile_ns: 5 },
            Task::Sample { .. } => Outcome::Sampled(ns[step.trial]),
        }
    }

    #[test]
    fn slow_candidates_are_dropped_and_two_kept() {
        let mut search = Search::new(&candidates(5), options(10_000));
        let steps = race(&mut search, &mut times(&[500, 300, 100, 160, 400]));
        assert_eq!(
            steps[..3],
            [
                (0, Task::Check),
                (0, Task::Sample { guess_ns: None }),
                (0, Task::Sample { guess_ns: Some(500) })
            ]
        );
        assert_eq!(steps[3..5], [(1, Task::Check), (1, Task::Sample { guess_ns: Some(500) })]);
        let statuses: Vec<bool> = search.trials().iter().map(|t| t.status == Status::Measured).collect();
        assert_eq!(statuses, [true, false, true, true, false]);
        assert_eq!(winner(search.trials()).map(|t| &t.schedule), Some(&candidates(5)[2]));
        assert!(search.trials().iter().all(|t| t.compile_ns == 5));
    }

    #[test]
    fn a_budget_ends_the_first_turns_and_leaves_the_rest_unmeasured() {
        // Of 60 ms, 36 are for first turns: the default takes 12, each other 11, and what is begun is finished.
        let mut search = Search::new(&candidates(20), options(60));
        race(&mut search, &mut times(&[9; 20]));
        let measured = search.trials().iter().filter(|t| !t.samples_ns.is_empty()).count();
        assert_eq!(measured, 4);
        let mut search = Search::new(&candidates(3), options(0));
        race(&mut search, &mut times(&[9; 3]));
        let statuses: Vec<&Status> = search.trials().iter().map(|t| &t.status).collect();
        assert_eq!(statuses, [&Status::Measured, &Status::Unmeasured, &Status::Unmeasured]);
        assert!(search.trials()[0].samples_ns.len() >= SURE - 1);
    }

    #[test]
    fn the_roofline_ends_the_race() {
        let enough = SearchOptions { enough_ns: Some(105), ..options(10_000) };
        let mut search = Search::new(&candidates(4), enough.clone());
        let steps = race(&mut search, &mut times(&[100, 50, 50, 50]));
        // Twice the default, and no other candidate's turn is begun after that.
        assert!(steps.len() <= 6, "{steps:?}");
        // A limit that is beaten by half is none.
        let mut search = Search::new(&candidates(4), enough);
        race(&mut search, &mut times(&[50, 50, 50, 50]));
        assert!(search.trials().iter().all(|trial| !trial.samples_ns.is_empty()));
    }

    #[test]
    fn what_takes_too_long_to_compile_makes_way_for_what_does_not() {
        // 60 ms are for first turns, and what costs 10 takes 1 ms to compile, what costs 1000 a tenth of a second.
        let mut search = Search::new(&candidates(4), options(100)).with_costs(vec![10, 1000, 20, 10]);
        race(&mut search, &mut |step| match step.task {
            Task::Check => Outcome::Checked { difference: None, compile_ns: 1_000_000 },
            Task::Sample { .. } => Outcome::Sampled(10),
        });
        let tried: Vec<bool> = search.trials().iter().map(|trial| trial.compile_ns > 0).collect();
        assert_eq!(tried, [true, false, true, true]);
    }

    #[test]
    fn what_is_wrong_or_fails_is_not_sampled_again() {
        let mut search = Search::new(&candidates(4), options(10_000));
        let steps = race(&mut search, &mut |step| match (step.trial, step.task) {
            (1, _) => Outcome::Failed("no".into()),
            (2, Task::Check) => Outcome::Checked { difference: Some("element 0".into()), compile_ns: 1 },
            (3, Task::Sample { .. }) => Outcome::Failed("lost".into()),
            (_, Task::Check) => Outcome::Checked { difference: None, compile_ns: 1 },
            (_, Task::Sample { .. }) => Outcome::Sampled(10),
        });
        for trial in 1..4 {
            assert_eq!(steps.iter().filter(|(t, _)| *t == trial).count(), if trial == 3 { 2 } else { 1 });
        }
        assert_eq!(winner(search.trials()), Some(&search.trials()[0]));
    }

    #[test]
    fn a_race_that_is_stopped_is_over() {
        let mut search = Search::new(&candidates(4), options(10_000));
        assert!(search.next(Duration::ZERO).is_some());
        search.stop();
        assert_eq!(search.next(Duration::ZERO), None);
        assert_eq!(Search::new(&[], options(1)).next(Duration::ZERO), None);
    }
}
