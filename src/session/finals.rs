//! Finals in whole runs. A kernel timed alone can mislead: its inputs lie in other caches, its neighbours want the same
//! memory. So the best few of each kernel are timed once more in the runs that they are for, all kernels at once and
//! in turns with the defaults, and then the whole as it would be, against the whole as it was.

use std::sync::Arc;
use std::time::Instant;

use super::jobs::Job;
use super::prepared::Prepared;
use super::recorded::Run;
use super::rig::Pace;
use crate::error::Result;
use crate::gpu::Device;
use crate::kernel::{KernelSpec, Schedule};
use crate::plan::{Plan, SymbolValues};
use crate::tune::{Status, Trial, clearly_faster, finalists, winner};

/// Candidates of one kernel in the finals, the default included.
const FINALISTS: usize = 3;
/// Rounds over all of them.
const ROUNDS: usize = 3;
/// Rounds of the whole against the default, and more where the first leave doubt.
const WHOLE: [usize; 2] = [5, 5];
/// A whole that is slower by less than this is as fast: so much do whole runs differ.
const EQUAL: f64 = 1.02;

/// The finals of one run's kernels.
pub struct Finals<'a> {
    device: &'a Device,
    plan: Arc<Plan>,
    jobs: &'a [Job],
    /// The finalists of each job, the default first.
    lists: Vec<Vec<Schedule>>,
    /// When to leave it at the rounds there were.
    deadline: Option<Instant>,
}

impl<'a> Finals<'a> {
    /// Of the plan's `jobs`, with these trials.
    pub fn new(
        device: &'a Device,
        plan: &Arc<Plan>,
        jobs: &'a [Job],
        trials: &[Vec<Trial>],
        deadline: Option<Instant>,
    ) -> Finals<'a> {
        let list = |trials: &Vec<Trial>| -> Vec<Schedule> {
            finalists(trials, FINALISTS).into_iter().map(|trial| trial.schedule.clone()).collect()
        };
        Finals { device, plan: plan.clone(), jobs, lists: trials.iter().map(list).collect(), deadline }
    }

    /// The schedules that take part, by job and without the defaults.
    pub fn entrants(&self) -> impl Iterator<Item = (&'a Job, &Schedule)> {
        let jobs = self.jobs.iter().zip(&self.lists);
        jobs.flat_map(|(job, list)| list.iter().skip(1).map(move |schedule| (job, schedule)))
    }

    /// Commands of a run in which each job has the finalist of that number, and every other kernel what it has anyway.
    pub fn commands(&self, prepared: &mut Prepared, at: &SymbolValues, numbers: &[usize]) -> Result<Run> {
        let wish = |spec: &KernelSpec, sizes: &[i64]| {
            let same = |job: &Job| job.sizes == sizes && job.spec == *spec;
            let job = self.jobs.iter().position(same)?;
            self.lists[job].get(numbers[job]).cloned()
        };
        prepared.record_as(self.device, at, &wish)
    }

    /// A job's finalist of that number.
    pub fn finalist(&self, job: usize, number: usize) -> Option<&Schedule> {
        self.lists.get(job)?.get(number)
    }

    /// The number of a job's finalist.
    pub fn position(&self, job: usize, schedule: &Schedule) -> Option<usize> {
        self.lists.get(job)?.iter().position(|finalist| finalist == schedule)
    }

    /// The commands of the rounds: set n gives each job its finalist n, or its last.
    pub fn sets(&self, prepared: &mut Prepared, at: &SymbolValues) -> Result<Vec<Run>> {
        let sets = self.lists.iter().map(Vec::len).max().unwrap_or(0);
        // Without times by dispatch, only all against none can be told.
        let sets = if self.device.caps().timestamps { sets } else { sets.min(2) };
        (0..sets)
            .map(|set| {
                let numbers: Vec<usize> =
                    self.lists.iter().map(|list| set.min(list.len().saturating_sub(1))).collect();
                self.commands(prepared, at, &numbers)
            })
            .collect()
    }

    /// Time the sets in turns; by job and set, the best time of all the job's dispatches.
    pub fn rounds(&self, sets: &[Run], pace: &dyn Pace) -> Result<Vec<Vec<u64>>> {
        let mut best = vec![vec![u64::MAX; sets.len()]; self.jobs.len()];
        if sets.len() < 2 {
            return Ok(best);
        }
        // Some drivers compile at the first dispatch.
        for run in sets {
            pace.wait()?;
            self.device.run(&run.recording)?;
        }
        for round in 0..ROUNDS {
            if round > 0 && self.is_late() {
                break;
            }
            for (set, run) in sets.iter().enumerate() {
                let times = loop {
                    pace.wait()?;
                    let times = self.device.profile(&run.recording)?;
                    if pace.undisturbed() {
                        break times;
                    }
                };
                let Some(times) = times else { return Ok(best) };
                let mut now = vec![0; self.jobs.len()];
                for (&step, ns) in run.recorded.steps.iter().zip(times) {
                    if let Some(total) = self.job_of(run, step).and_then(|job| now.get_mut(job)) {
                        *total += ns;
                    }
                }
                for (best, now) in best.iter_mut().zip(now) {
                    best[set] = best[set].min(now);
                }
            }
        }
        Ok(best)
    }

    /// The job that a step of the plan belongs to.
    fn job_of(&self, run: &Run, step: usize) -> Option<usize> {
        let step = &self.plan.steps[step];
        let sizes = run.recorded.sizes(step);
        self.jobs.iter().position(|job| job.kernel == step.kernel && job.sizes == sizes)
    }

    /// The number of the finalist that each job should have, by the times of the rounds.
    pub fn choice(&self, times: &[Vec<u64>]) -> Vec<usize> {
        let choose = |(list, times): (&Vec<Schedule>, &Vec<u64>)| chosen(list.len(), times);
        self.lists.iter().zip(times).map(choose).collect()
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }

    /// Time a run of the defaults and, in turns with it, one of the chosen by the host's clock: the best of each. More
    /// rounds where the second seems slower.
    pub fn whole(&self, default: &Run, chosen: Option<&Run>, pace: &dyn Pace) -> Result<[u64; 2]> {
        let mut best = [u64::MAX; 2];
        let runs = [default, chosen.unwrap_or(default)];
        let runs = if chosen.is_some() { &runs[..] } else { &runs[..1] };
        for run in runs {
            pace.wait()?;
            self.device.run(&run.recording)?;
        }
        for (stage, rounds) in WHOLE.into_iter().enumerate() {
            for round in 0..rounds {
                if stage + round > 1 && self.is_late() {
                    break;
                }
                for (best, run) in best.iter_mut().zip(runs) {
                    *best = self.timed(run, pace)?.min(*best);
                }
            }
            if best[1] <= best[0] || chosen.is_none() {
                break;
            }
        }
        Ok(if chosen.is_some() { best } else { [best[0]; 2] })
    }

    /// Nanoseconds of a run that nothing disturbed.
    fn timed(&self, run: &Run, pace: &dyn Pace) -> Result<u64> {
        loop {
            pace.wait()?;
            let start = Instant::now();
            self.device.run(&run.recording)?;
            let elapsed_ns = start.elapsed().as_nanos() as u64;
            if pace.undisturbed() {
                return Ok(elapsed_ns);
            }
        }
    }
}

/// The fastest finalist in whole runs, where it is clearly faster than the default, number 0.
fn chosen(finalists: usize, times: &[u64]) -> usize {
    let own = &times[..finalists.min(times.len())];
    let Some((fastest, &ns)) = own.iter().enumerate().min_by_key(|(_, ns)| **ns) else { return 0 };
    // Without times by dispatch, the winners stand and fall together.
    if own.iter().all(|ns| *ns == u64::MAX) {
        return usize::from(finalists > 1);
    }
    if clearly_faster(ns, own[0]) { fastest } else { 0 }
}

/// Whether a whole run has become slower.
pub fn is_slower(whole_ns: [u64; 2]) -> bool {
    whole_ns[1] as f64 > whole_ns[0] as f64 * EQUAL
}

/// Turn the trials so that `schedule` is their winner: what was faster alone is rejected, for `why`.
pub fn settle(trials: &mut [Trial], schedule: &Schedule, why: &dyn Fn(&Schedule) -> String) {
    while let Some(fastest) = winner(trials).map(|trial| trial.schedule.clone()) {
        if fastest == *schedule || trials.first().is_some_and(|default| default.schedule == fastest) {
            break;
        }
        let reason = why(&fastest);
        for trial in trials.iter_mut().filter(|trial| trial.schedule == fastest) {
            trial.status = Status::Rejected(reason.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::MapSchedule;

    fn schedule(workgroup: u32) -> Schedule {
        Schedule::Map(MapSchedule { workgroup, per_invocation: 1, vector: 1 })
    }

    #[test]
    fn only_what_is_clearly_faster_in_whole_runs_is_chosen() {
        for (finalists, times, want) in [
            (3, vec![100, 80, 70], 2),
            (3, vec![100, 70, 80], 1),
            (3, vec![100, 97, 120], 0),
            (2, vec![100, 120, 10], 0),
            (1, vec![100, 90, 90], 0),
            (2, vec![u64::MAX; 2], 1),
            (1, vec![u64::MAX; 2], 0),
        ] {
            assert_eq!(chosen(finalists, &times), want, "{finalists} {times:?}");
        }
        assert!(is_slower([100, 103]) && !is_slower([100, 102]) && !is_slower([100, 50]));
    }

    #[test]
    fn a_winner_that_makes_the_whole_slower_is_recorded_as_such() {
        let trial =
            |n, ns| Trial { status: Status::Measured, samples_ns: vec![ns], ..Trial::new(schedule(n)) };
        let all = vec![trial(0, 100), trial(1, 50), trial(2, 60), trial(3, 99)];
        for (choice, rejected) in [(0, vec![1, 2]), (2, vec![1]), (1, vec![])] {
            let mut trials = all.clone();
            settle(&mut trials, &schedule(choice), &|_| "slower".into());
            assert_eq!(winner(&trials).map(|t| t.schedule.clone()), Some(schedule(choice)));
            let now: Vec<u32> =
                (0..4).filter(|&i| matches!(trials[i as usize].status, Status::Rejected(_))).collect();
            assert_eq!(now, rejected);
        }
    }
}
