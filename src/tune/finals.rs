//! Finals in whole runs. A kernel timed alone can mislead: its inputs lie in other caches, its neighbours want the same
//! memory. So the best few of each kernel are timed once more in the runs that they are for, all kernels at once and
//! in turns with the defaults, and then the whole as it would be, against the whole as it was.
//!
//! Like [`super::Search`] this knows no device: it says which run to time and is told how long it took.

use super::trial::{Status, Trial, clearly_faster, finalists, winner};
use crate::kernel::Schedule;

/// Candidates of one kernel in the finals, the default included.
const FINALISTS: usize = 3;
/// Rounds over all of them, after one that warms up: some drivers compile at the first dispatch.
const ROUNDS: usize = 3;
/// Rounds of the whole against the default, after one that warms up, and how many there are where these leave doubt.
const WHOLE_ROUNDS: [usize; 2] = [5, 10];
/// A whole that is slower by less than this is as fast: so much do whole runs differ.
const EQUAL: f64 = 1.02;
/// A time that is not known.
const UNKNOWN: u64 = u64::MAX;

/// What to time of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// The dispatches of each job.
    Jobs,
    /// The whole.
    Whole,
}

/// A whole run to time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heat {
    /// By job, the number of the finalist that its dispatches have; 0 is the default.
    pub finalists: Vec<usize>,
    /// What to time.
    pub timing: Timing,
}

impl Heat {
    /// Whether it is the run with nothing but defaults.
    pub fn is_default(&self) -> bool {
        self.finalists.iter().all(|finalist| *finalist == 0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Set n has each job's finalist n, or its last.
    Jobs {
        round: usize,
        set: usize,
    },
    /// The defaults, then the choice.
    Whole {
        round: usize,
        of_choice: bool,
    },
    Done,
}

/// The finals of a run's kernels.
#[derive(Clone, Debug)]
pub struct Finals {
    /// The finalists of each job, the default first.
    lists: Vec<Vec<Schedule>>,
    /// From where on times of a job's dispatches say something; `None` where they cannot be timed.
    shortest_ns: Option<u64>,
    phase: Phase,
    /// By job and set, the best time of all the job's dispatches.
    times: Vec<Vec<u64>>,
    /// By job, the number of the finalist that it is to have.
    choice: Vec<usize>,
    /// Where that is the default because of the whole: why.
    overruled: Option<String>,
    whole_ns: [u64; 2],
}

impl Finals {
    /// Of jobs with these trials. Times of a job's dispatches below `shortest_ns` say nothing, as they are no more than
    /// a few steps of the clock; with `None` there are no such times. What is not known, the whole decides.
    pub fn new(trials: &[Vec<Trial>], shortest_ns: Option<u64>) -> Finals {
        let list = |trials: &Vec<Trial>| -> Vec<Schedule> {
            finalists(trials, FINALISTS).into_iter().map(|trial| trial.schedule.clone()).collect()
        };
        let lists: Vec<Vec<Schedule>> = trials.iter().map(list).collect();
        let sets = lists.iter().map(Vec::len).max().unwrap_or(0);
        let mut finals = Finals {
            times: vec![vec![UNKNOWN; sets]; lists.len()],
            choice: vec![0; lists.len()],
            lists,
            shortest_ns,
            phase: Phase::Jobs { round: 0, set: 0 },
            overruled: None,
            whole_ns: [UNKNOWN; 2],
        };
        if sets < 2 || shortest_ns.is_none() {
            finals.choose();
        }
        finals
    }

    /// The schedules that take part besides the defaults: job and schedule.
    pub fn entrants(&self) -> impl Iterator<Item = (usize, &Schedule)> {
        let jobs = self.lists.iter().enumerate();
        jobs.flat_map(|(job, list)| list.iter().skip(1).map(move |schedule| (job, schedule)))
    }

    /// A job's finalist of that number.
    pub fn finalist(&self, job: usize, number: usize) -> Option<&Schedule> {
        self.lists.get(job)?.get(number)
    }

    /// The next run to time; with `is_late` as few as a fair comparison takes. `None` when all is decided. The same again
    /// until [`Finals::record`] or [`Finals::fail`] is told what came of it.
    pub fn next(&mut self, is_late: bool) -> Option<Heat> {
        if let Phase::Jobs { round, set: 0 } = self.phase
            && (round > ROUNDS || (is_late && round > 1))
        {
            self.choose();
        }
        if let Phase::Whole { round, of_choice: false } = self.phase {
            let [enough, most] = WHOLE_ROUNDS;
            let in_doubt = self.whole_ns[1] > self.whole_ns[0] && self.has_choice();
            if round > most || (round > enough && !in_doubt) || (is_late && round > 2) {
                self.finish();
            }
        }
        match self.phase {
            Phase::Jobs { set, .. } => {
                let finalist = |list: &Vec<Schedule>| set.min(list.len().saturating_sub(1));
                Some(Heat { finalists: self.lists.iter().map(finalist).collect(), timing: Timing::Jobs })
            }
            Phase::Whole { of_choice: true, .. } => {
                Some(Heat { finalists: self.choice.clone(), timing: Timing::Whole })
            }
            Phase::Whole { of_choice: false, .. } => {
                Some(Heat { finalists: vec![0; self.lists.len()], timing: Timing::Whole })
            }
            Phase::Done => None,
        }
    }

    /// Take in the nanoseconds of the run that [`Finals::next`] gave: of each job's dispatches together, or one number
    /// for the whole.
    pub fn record(&mut self, times_ns: &[u64]) {
        match self.phase {
            Phase::Jobs { round, set } => {
                for (best, &ns) in self.times.iter_mut().zip(times_ns).filter(|_| round > 0) {
                    best[set] = best[set].min(ns);
                }
                let sets = self.times.first().map_or(0, Vec::len);
                self.phase = if set + 1 < sets {
                    Phase::Jobs { round, set: set + 1 }
                } else {
                    Phase::Jobs { round: round + 1, set: 0 }
                };
            }
            Phase::Whole { round, of_choice } => {
                if let Some(&ns) = times_ns.first().filter(|_| round > 0) {
                    let best = &mut self.whole_ns[usize::from(of_choice)];
                    *best = ns.min(*best);
                }
                self.phase = if !of_choice && self.has_choice() {
                    Phase::Whole { round, of_choice: true }
                } else {
                    Phase::Whole { round: round + 1, of_choice: false }
                };
            }
            Phase::Done => {}
        }
    }

    /// The run that [`Finals::next`] gave does not work, and not because of the defaults: they stay.
    pub fn fail(&mut self, why: &str) {
        self.overrule(format!("whole runs with it among the winners fail: {why}"));
        self.phase = Phase::Whole { round: 0, of_choice: false };
    }

    /// Time of a whole run by default and under the choice.
    pub fn whole_ns(&self) -> [u64; 2] {
        self.whole_ns
    }

    /// Why the defaults stay, where the whole decided so.
    pub fn overruled(&self) -> Option<&str> {
        self.overruled.as_deref()
    }

    /// Turn the jobs' trials so that what was chosen wins: what was faster alone is rejected, with the reason. By job, the
    /// time of its dispatches in a run by default and as chosen, where both are known.
    pub fn settle(&self, trials: &mut [Vec<Trial>]) -> Vec<Option<[u64; 2]>> {
        let known =
            |job: usize, finalist: usize| self.times[job].get(finalist).copied().filter(|ns| *ns != UNKNOWN);
        let mut in_model_ns = Vec::new();
        for (job, trials) in trials.iter_mut().enumerate() {
            let choice = self.choice[job];
            let default_ns = known(job, 0);
            let why = |schedule: &Schedule| {
                if let Some(why) = &self.overruled {
                    return why.clone();
                }
                let own = self.lists[job].iter().position(|finalist| finalist == schedule);
                match own.and_then(|own| known(job, own)).zip(known(job, choice)) {
                    Some((own, chosen)) => {
                        let ratio = own as f64 / chosen.max(1) as f64;
                        let other = if choice == 0 { "default" } else { "winner" };
                        format!("in whole runs it takes {ratio:.2}x the {other}'s time")
                    }
                    None => "others as fast alone were slower in whole runs".into(),
                }
            };
            if let Some(schedule) = self.finalist(job, choice) {
                reject_faster(trials, schedule, &why);
            }
            in_model_ns.push(default_ns.zip(known(job, choice)).map(|(default, chosen)| [default, chosen]));
        }
        in_model_ns
    }

    fn has_choice(&self) -> bool {
        self.choice.iter().any(|finalist| *finalist > 0)
    }

    /// Choose by the times there are, and go on to the whole.
    fn choose(&mut self) {
        for (job, list) in self.lists.iter().enumerate() {
            let times = &mut self.times[job];
            let is_short = |shortest: u64| times.first().is_some_and(|default| *default < shortest);
            if self.shortest_ns.is_some_and(is_short) {
                times.fill(UNKNOWN);
            }
            self.choice[job] = chosen(list.len(), times);
        }
        self.phase = Phase::Whole { round: 0, of_choice: false };
    }

    fn finish(&mut self) {
        self.phase = Phase::Done;
        let [default, chosen] = self.whole_ns;
        if self.has_choice() && is_slower(self.whole_ns) {
            let ratio = chosen as f64 / default.max(1) as f64;
            self.overrule(format!("with it among the winners whole runs take {ratio:.2}x the time"));
        }
        if !self.has_choice() {
            self.whole_ns[1] = default;
        }
    }

    fn overrule(&mut self, why: String) {
        self.choice.fill(0);
        self.overruled = Some(why);
    }
}

/// The fastest finalist in whole runs, where it is clearly faster than the default, number 0.
fn chosen(finalists: usize, times: &[u64]) -> usize {
    let own = &times[..finalists.min(times.len())];
    let Some((fastest, &ns)) = own.iter().enumerate().min_by_key(|(_, ns)| **ns) else { return 0 };
    // Where no times are known, the winners stand and fall together.
    if ns == UNKNOWN {
        return usize::from(finalists > 1);
    }
    if clearly_faster(ns, own[0]) { fastest } else { 0 }
}

/// Whether a whole run has become slower.
fn is_slower(whole_ns: [u64; 2]) -> bool {
    whole_ns[1] as f64 > whole_ns[0] as f64 * EQUAL
}

/// Turn the trials so that `schedule` is their winner: what was faster alone is rejected, for `why`.
fn reject_faster(trials: &mut [Trial], schedule: &Schedule, why: &dyn Fn(&Schedule) -> String) {
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

    /// Trials with these times alone.
    fn trials(times: &[u64]) -> Vec<Trial> {
        let trial =
            |(n, &ns)| Trial { status: Status::Measured, samples_ns: vec![ns], ..Trial::new(schedule(n)) };
        (0..).zip(times).map(trial).collect()
    }

    /// The times of a heat.
    type Clock = dyn Fn(&Heat) -> Option<Vec<u64>>;

    /// Play the finals with these times; a heat without one fails.
    fn play(finals: &mut Finals, time: &Clock) -> Vec<Heat> {
        let mut heats = Vec::new();
        while let Some(heat) = finals.next(false) {
            match time(&heat) {
                Some(times) => finals.record(&times),
                None => finals.fail("no memory"),
            }
            heats.push(heat);
            assert!(heats.len() < 100);
        }
        heats
    }

    fn winners(trials: &[Vec<Trial>]) -> Vec<Option<Schedule>> {
        trials.iter().map(|trials| winner(trials).map(|trial| trial.schedule.clone())).collect()
    }

    #[test]
    fn only_what_is_clearly_faster_in_whole_runs_is_chosen() {
        for (finalists, times, want) in [
            (3, vec![100, 80, 70], 2),
            (3, vec![100, 70, 80], 1),
            (3, vec![100, 97, 120], 0),
            (2, vec![100, 120, 10], 0),
            (1, vec![100, 90, 90], 0),
            (2, vec![UNKNOWN; 2], 1),
            (1, vec![UNKNOWN; 2], 0),
        ] {
            assert_eq!(chosen(finalists, &times), want, "{finalists} {times:?}");
        }
        assert!(is_slower([100, 103]) && !is_slower([100, 102]) && !is_slower([100, 50]));
    }

    #[test]
    fn a_winner_that_makes_the_whole_slower_is_recorded_as_such() {
        let all = trials(&[100, 50, 60, 99]);
        for (choice, rejected) in [(0, vec![1, 2]), (2, vec![1]), (1, vec![])] {
            let mut trials = all.clone();
            reject_faster(&mut trials, &schedule(choice), &|_| "slower".into());
            assert_eq!(winner(&trials).map(|t| t.schedule.clone()), Some(schedule(choice)));
            let now: Vec<u32> =
                (0..4).filter(|&i| matches!(trials[i as usize].status, Status::Rejected(_))).collect();
            assert_eq!(now, rejected);
        }
    }

    #[test]
    fn each_kernel_keeps_what_is_fastest_in_whole_runs() {
        // The first job's fastest is slower than the default in whole runs, its second is not; the second job has none.
        let mut all = vec![trials(&[100, 50, 60]), trials(&[30, 40])];
        let mut finals = Finals::new(&all, Some(0));
        assert_eq!(
            finals.entrants().map(|(job, s)| (job, s.clone())).collect::<Vec<_>>(),
            [(0, schedule(1)), (0, schedule(2))]
        );
        let heats = play(&mut finals, &|heat| match heat.timing {
            Timing::Jobs => Some(vec![[100, 120, 70][heat.finalists[0]], 30]),
            Timing::Whole => Some(vec![[1000, 0, 900][heat.finalists[0]]]),
        });
        let jobs = heats.iter().filter(|heat| heat.timing == Timing::Jobs).count();
        assert_eq!((jobs, heats.len() - jobs), (3 * (ROUNDS + 1), 2 * (WHOLE_ROUNDS[0] + 1)));
        assert_eq!(finals.settle(&mut all), [Some([100, 70]), Some([30, 30])]);
        assert_eq!(finals.whole_ns(), [1000, 900]);
        assert_eq!(winners(&all), [Some(schedule(2)), Some(schedule(0))]);
        let why = "in whole runs it takes 1.71x the winner's time";
        assert_eq!(all[0][1].status, Status::Rejected(why.into()));
    }

    #[test]
    fn the_whole_overrules_what_each_kernel_says() {
        let slower = |heat: &Heat| Some(vec![if heat.is_default() { 1000 } else { 1100 }]);
        let fails = |heat: &Heat| heat.is_default().then(|| vec![1000]);
        let cases: [(&Clock, &str); 2] = [
            (&slower, "with it among the winners whole runs take 1.10x the time"),
            (&fails, "whole runs with it among the winners fail: no memory"),
        ];
        for (time, why) in cases {
            let mut all = vec![trials(&[100, 50, 90])];
            let mut finals = Finals::new(&all, None);
            play(&mut finals, time);
            assert_eq!(finals.settle(&mut all), [None]);
            assert_eq!((finals.whole_ns(), finals.overruled()), ([1000, 1000], Some(why)));
            assert_eq!(winners(&all), [Some(schedule(0))]);
            assert_eq!(all[0][1].status, Status::Rejected(why.into()));
        }
    }

    #[test]
    fn what_the_clock_cannot_tell_the_whole_decides() {
        let mut all = vec![trials(&[100, 50]), trials(&[1000, 500])];
        let mut finals = Finals::new(&all, Some(200));
        play(&mut finals, &|heat| match heat.timing {
            Timing::Jobs => Some(vec![0, [1000, 2000][heat.finalists[1]]]),
            Timing::Whole => Some(vec![if heat.is_default() { 1100 } else { 1050 }]),
        });
        assert_eq!(finals.settle(&mut all), [None, Some([1000, 1000])]);
        assert_eq!(winners(&all), [Some(schedule(1)), Some(schedule(0))]);
    }

    #[test]
    fn who_is_late_plays_the_least_and_without_finalists_only_the_whole_is_timed() {
        let mut finals = Finals::new(&[trials(&[100, 50])], Some(0));
        let mut heats = 0;
        while let Some(heat) = finals.next(true) {
            finals.record(if heat.is_default() { &[100] } else { &[50] });
            heats += 1;
        }
        assert_eq!(heats, 2 * 2 + 2 * 3);
        let mut finals = Finals::new(&[trials(&[100]), Vec::new()], Some(0));
        let heats = play(&mut finals, &|_| Some(vec![7]));
        assert!(heats.len() == WHOLE_ROUNDS[0] + 1 && heats.iter().all(Heat::is_default));
        assert_eq!((finals.whole_ns(), Finals::new(&[], None).entrants().count()), ([7, 7], 0));
    }
}
