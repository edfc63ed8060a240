//! The trials of a kernel, for people and for other programs.

use serde_json::{Value as Json, json};
use tilewright::tune::{Status, Trial, winner};

use crate::table::{Align, table};

/// Samples of one trial, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Samples {
    /// The best, which counts.
    pub min_ms: f64,
    /// The middle one.
    pub median_ms: f64,
    /// From the best to the worst, relative to the middle one.
    pub spread: f64,
    /// How many.
    pub count: usize,
}

impl Samples {
    /// Of a trial; `None` where it has none.
    pub fn of(trial: &Trial) -> Option<Samples> {
        let mut sorted = trial.samples_ns.clone();
        sorted.sort_unstable();
        let (least, most, upper) = (*sorted.first()?, *sorted.last()?, *sorted.get(sorted.len() / 2)?);
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        let median = (lower as f64 + upper as f64) / 2.0;
        let spread = (most - least) as f64 / median.max(1.0);
        Some(Samples { min_ms: ms(least), median_ms: median / 1e6, spread, count: sorted.len() })
    }

    /// The spread for people; one sample has none.
    pub fn spread_text(&self) -> String {
        if self.count > 1 { format!("{:.0}%", self.spread * 100.0) } else { "-".into() }
    }
}

/// Nanoseconds in milliseconds.
pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// A time for people, in milliseconds.
pub fn ms_text(ms: f64) -> String {
    match ms {
        _ if ms >= 100.0 => format!("{ms:.0}"),
        _ if ms >= 1.0 => format!("{ms:.2}"),
        _ => format!("{ms:.4}"),
    }
}

/// A ratio, as `1.43x`.
pub fn ratio_text(ratio: f64) -> String {
    format!("{ratio:.2}x")
}

/// How much faster the winner is than the default, the first trial.
pub fn speed_up(trials: &[Trial]) -> Option<f64> {
    let default = trials.first()?.best_ns()?;
    let best = winner(trials)?.best_ns()?;
    Some(default as f64 / best.max(1) as f64)
}

/// How many had their turn.
pub fn tried(trials: &[Trial]) -> usize {
    trials.iter().filter(|trial| trial.status != Status::Unmeasured).count()
}

/// The winner first, then by time; what cannot win comes last, in the order of the search.
pub fn sorted(trials: &[Trial]) -> Vec<&Trial> {
    let mut sorted: Vec<&Trial> = trials.iter().collect();
    sorted.sort_by_key(|trial| (!is_winner(trial, trials), trial.best_ns().unwrap_or(u64::MAX)));
    sorted
}

/// What became of a trial, in one word.
pub fn status(trial: &Trial, trials: &[Trial]) -> &'static str {
    match trial.status {
        Status::Measured | Status::Dropped if is_winner(trial, trials) => "winner",
        Status::Measured if is_tie(trial, trials) => "tie",
        Status::Measured => "slower",
        Status::Dropped => "dropped",
        Status::Wrong(_) => "wrong",
        Status::Failed(_) => "failed",
        Status::Rejected(_) => "rejected",
        Status::Unmeasured => "not tried",
    }
}

/// Whether it is the one that runs use.
pub fn is_winner(trial: &Trial, trials: &[Trial]) -> bool {
    winner(trials).is_some_and(|winner| winner.schedule == trial.schedule)
}

/// Whether it was faster than the winner, which is then the default, by too little to count.
fn is_tie(trial: &Trial, trials: &[Trial]) -> bool {
    let best = winner(trials).and_then(Trial::best_ns);
    trial.best_ns().zip(best).is_some_and(|(ns, best)| ns <= best)
}

/// Why a trial did not win; what distinguishes the default and the winner.
pub fn reason(trial: &Trial, trials: &[Trial]) -> String {
    let default = trials.first().is_some_and(|first| first.schedule == trial.schedule);
    let best_ns = winner(trials).and_then(Trial::best_ns);
    let slower = match (trial.best_ns(), best_ns) {
        (Some(ns), Some(best)) => format!("{} the winner's time", ratio_text(ns as f64 / best.max(1) as f64)),
        _ => String::new(),
    };
    let why = match &trial.status {
        Status::Measured | Status::Dropped if is_winner(trial, trials) => String::new(),
        Status::Measured | Status::Dropped if is_tie(trial, trials) => {
            format!("{slower}: too close to count")
        }
        Status::Measured | Status::Dropped => slower,
        Status::Wrong(why) | Status::Failed(why) | Status::Rejected(why) => {
            why.lines().next().unwrap_or_default().to_owned()
        }
        Status::Unmeasured => "the time was spent before its turn".into(),
    };
    match (default, why.is_empty()) {
        (true, true) => "the default".into(),
        (true, false) => format!("the default; {why}"),
        (false, _) => why,
    }
}

/// One line per trial.
pub fn text(trials: &[Trial]) -> String {
    use Align::{Left, Right};
    let head = ["", "schedule", "status", "min ms", "median ms", "spread", "samples", ""];
    let mut rows = vec![head.map(String::from).to_vec()];
    for trial in sorted(trials) {
        let mark = if is_winner(trial, trials) { "  *" } else { "" };
        let mut row = vec![mark.to_owned(), trial.schedule.to_string(), status(trial, trials).to_owned()];
        row.extend(match Samples::of(trial) {
            Some(s) => [ms_text(s.min_ms), ms_text(s.median_ms), s.spread_text(), s.count.to_string()],
            None => ["-", "-", "-", "0"].map(String::from),
        });
        row.push(reason(trial, trials));
        rows.push(row);
    }
    table(&[Left, Left, Left, Right, Right, Right, Right, Left], &rows)
}

/// The same for other programs, in the same order.
pub fn json(trials: &[Trial]) -> Vec<Json> {
    let one = |trial: &Trial| {
        let samples = Samples::of(trial);
        json!({
            "schedule": trial.schedule.to_string(),
            "status": status(trial, trials),
            "reason": reason(trial, trials),
            "default": trials.first().is_some_and(|first| first.schedule == trial.schedule),
            "samples_ns": trial.samples_ns,
            "min_ms": samples.map(|s| s.min_ms),
            "median_ms": samples.map(|s| s.median_ms),
            "spread": samples.map(|s| s.spread),
        })
    };
    sorted(trials).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tilewright::kernel::{MapSchedule, Schedule};

    fn trial(workgroup: u32, status: Status, samples_ns: &[u64]) -> Trial {
        let schedule = Schedule::Map(MapSchedule { workgroup, per_invocation: 1, vector: 1 });
        Trial { status, samples_ns: samples_ns.to_vec(), ..Trial::new(schedule) }
    }

    #[test]
    fn samples_are_summed_up() {
        let samples = Samples::of(&trial(1, Status::Measured, &[4_000_000, 2_000_000, 3_000_000, 5_000_000]));
        let want = Samples { min_ms: 2.0, median_ms: 3.5, spread: 3.0 / 3.5, count: 4 };
        assert_eq!(samples, Some(want));
        assert_eq!(Samples::of(&trial(1, Status::Unmeasured, &[])), None);
    }

    #[test]
    fn losers_are_told_why() {
        let trials = [
            trial(64, Status::Measured, &[300, 200]),
            trial(32, Status::Measured, &[100]),
            trial(16, Status::Dropped, &[400]),
            trial(8, Status::Wrong("element 0 is 1".into()), &[]),
            trial(4, Status::Failed("no such thing\nline 2".into()), &[50]),
            trial(2, Status::Unmeasured, &[]),
        ];
        let told: Vec<(&str, String)> =
            sorted(&trials).iter().map(|t| (status(t, &trials), reason(t, &trials))).collect();
        let want = [
            ("winner", ""),
            ("slower", "the default; 2.00x the winner's time"),
            ("dropped", "4.00x the winner's time"),
            ("wrong", "element 0 is 1"),
            ("failed", "no such thing"),
            ("not tried", "the time was spent before its turn"),
        ];
        assert_eq!(told, want.map(|(status, reason)| (status, reason.to_owned())));
        assert_eq!((tried(&trials), speed_up(&trials)), (5, Some(2.0)));
    }
}
