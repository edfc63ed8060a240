//! `tilewright bench`: time every kernel family by default and as tuned; compare two results.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tilewright::Error;
use tilewright::gpu::Device;
use tilewright::kernel::{Peaks, Schedule};
use tilewright::tune::{Bench, Key, Store, peaks};

use crate::failure::{Failure, Result, print, print_json};
use crate::one_op::OneOp;
use crate::planned::{self, Space};
use crate::rate::Rate;
use crate::roofline::percent;
use crate::table::{Align, table};
use crate::trials::{ms, ms_text, ratio_text};
use crate::tuning_args::BenchArgs;
use crate::{corpus, devices};

/// Results that are closer than this are equal.
pub const NOISE: f64 = 0.15;
/// Samples of one schedule at the least and at the most, and when to stop between.
const SAMPLES: (usize, usize) = (3, 10);
const PATIENCE: Duration = Duration::from_millis(500);

/// One operation's times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// The operation in words; results are compared by it.
    name: String,
    kernels: usize,
    default_ns: u64,
    default_gflops: Option<f64>,
    default_gbytes_per_s: f64,
    /// Of the roofline.
    #[serde(default)]
    default_share: Option<f64>,
    /// Under the stored winners; `None` where there is no record.
    tuned_ns: Option<u64>,
    tuned_gflops: Option<f64>,
    tuned_gbytes_per_s: Option<f64>,
    #[serde(default)]
    tuned_share: Option<f64>,
    /// The stored winners, one per kernel.
    schedules: Vec<String>,
}

impl Entry {
    /// What a run takes.
    fn best_ns(&self) -> u64 {
        self.tuned_ns.unwrap_or(self.default_ns)
    }
}

/// What `--compare` reads.
#[derive(Deserialize)]
struct Results {
    entries: Vec<Entry>,
}

/// Measure, or compare.
pub fn bench(args: &BenchArgs) -> Result<()> {
    if let Some([old, new]) = args.compare.as_deref() {
        return compare(old, new, args.json);
    }
    let device = Device::open_with(&args.adapter.clone().unwrap_or_default(), args.checks.into())?;
    let store = args.records.open()?;
    let peaks = match store.peaks(&device.info().into()) {
        Some(peaks) => peaks.clone(),
        None => peaks(&device, &|| Ok(()))?,
    };
    let bar = crate::progress::counted("benchmarks");
    let mut entries = Vec::new();
    let operations = corpus::operations(args.op)?;
    bar.set_length(operations.len() as u64);
    for op in &operations {
        bar.set_message(op.describe());
        entries.push(measure(&device, &store, &peaks, op)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if args.json {
        let adapter = devices::short_json(device.info());
        let unchecked = device.info().checks.are_off();
        return print_json(
            &json!({ "adapter": adapter, "unchecked": unchecked, "peaks": peaks, "entries": entries }),
        );
    }
    let peak = crate::tune::peaks_text(&peaks);
    print(&format!("{}\npeak: {peak}\n\n{}", device.info(), to_text(&entries)))
}

fn measure(device: &Device, store: &Store, peaks: &Peaks, op: &OneOp) -> Result<Entry> {
    let spaces = planned::of_op(op, device.caps())?.spaces(device.caps());
    let (mut default_ns, mut tuned_ns, mut schedules) = (0, 0, Vec::new());
    for space in &spaces {
        let stored = store.winner(&Key::new(&space.spec, &space.sizes, &device.info().into()));
        let stored = stored.filter(|winner| space.candidates.contains(winner));
        let lens = &space.input_lens;
        let mut bench = Bench::new(device, &space.label, &space.spec, &space.sizes, lens, space.output_len)?;
        let default = space.default()?;
        let ns = best_of(&mut bench, default)?;
        default_ns += ns * space.steps as u64;
        tuned_ns += space.steps as u64
            * match stored {
                Some(winner) if winner != default => best_of(&mut bench, winner)?,
                Some(_) | None => ns,
            };
        schedules.extend(stored.map(ToString::to_string));
    }
    let tuned_ns = (!schedules.is_empty()).then_some(tuned_ns);
    let caps = device.caps();
    let default = Rate::of(op, caps, Some(peaks), default_ns);
    let tuned = tuned_ns.map(|ns| Rate::of(op, caps, Some(peaks), ns));
    Ok(Entry {
        name: op.describe(),
        kernels: spaces.iter().map(|space: &Space| space.steps).sum(),
        default_ns,
        default_gflops: default.gflops,
        default_gbytes_per_s: default.gbytes,
        default_share: default.share,
        tuned_ns,
        tuned_gflops: tuned.and_then(|rate| rate.gflops),
        tuned_gbytes_per_s: tuned.map(|rate| rate.gbytes),
        tuned_share: tuned.and_then(|rate| rate.share),
        schedules,
    })
}

/// The best of a few samples, after one that also compiles.
fn best_of(bench: &mut Bench, schedule: &Schedule) -> Result<u64, Error> {
    let mut best = bench.sample(schedule, None)?;
    let start = Instant::now();
    for done in 0..SAMPLES.1 {
        if done >= SAMPLES.0 && start.elapsed() > PATIENCE {
            break;
        }
        best = best.min(bench.sample(schedule, Some(best))?);
    }
    Ok(best)
}

fn to_text(entries: &[Entry]) -> String {
    use Align::{Left, Right};
    let head = [
        "operation",
        "default ms",
        "GFLOP/s",
        "GB/s",
        "of peak",
        "tuned ms",
        "GFLOP/s",
        "GB/s",
        "of peak",
        "speed-up",
    ];
    let share = |share: Option<f64>| share.map_or("-".into(), percent);
    let mut rows = vec![head.map(String::from).to_vec()];
    let rate = |rate: Option<f64>| rate.map_or("-".into(), |rate| format!("{rate:.1}"));
    for entry in entries {
        rows.push(vec![
            entry.name.clone(),
            ms_text(ms(entry.default_ns)),
            rate(entry.default_gflops),
            rate(Some(entry.default_gbytes_per_s)),
            share(entry.default_share),
            entry.tuned_ns.map_or("-".into(), |ns| ms_text(ms(ns))),
            rate(entry.tuned_gflops),
            rate(entry.tuned_gbytes_per_s),
            share(entry.tuned_share),
            entry
                .tuned_ns
                .map_or("no record".into(), |ns| ratio_text(entry.default_ns as f64 / ns.max(1) as f64)),
        ]);
    }
    table(&[Left, Right, Right, Right, Right, Right, Right, Right, Right, Right], &rows)
}

/// How a time changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Faster,
    Slower,
    WithinNoise,
}

impl Change {
    fn of(old_ns: u64, new_ns: u64) -> Change {
        let ratio = new_ns.max(1) as f64 / old_ns.max(1) as f64;
        match ratio {
            _ if ratio > 1.0 + NOISE => Change::Slower,
            _ if ratio < 1.0 / (1.0 + NOISE) => Change::Faster,
            _ => Change::WithinNoise,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Change::Faster => "faster",
            Change::Slower => "SLOWER",
            Change::WithinNoise => "within noise",
        }
    }
}

fn results(path: &Path) -> Result<Vec<Entry>> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let results: Results = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::Failed(format!("{}: not a result of `tilewright bench --json`: {error}", path.display()))
    })?;
    Ok(results.entries)
}

fn compare(old_path: &Path, new_path: &Path, as_json: bool) -> Result<()> {
    use Align::{Left, Right};
    let (old, new) = (results(old_path)?, results(new_path)?);
    let pairs: Vec<(&Entry, &Entry)> =
        new.iter().filter_map(|n| Some((old.iter().find(|o| o.name == n.name)?, n))).collect();
    let only = |a: &[Entry], b: &[Entry]| -> Vec<String> {
        let missing = a.iter().filter(|x| !b.iter().any(|y| y.name == x.name));
        missing.map(|entry| entry.name.clone()).collect()
    };
    let (only_old, only_new) = (only(&old, &new), only(&new, &old));
    let times = |(old, new): &(&Entry, &Entry)| {
        [("default", old.default_ns, new.default_ns), ("run", old.best_ns(), new.best_ns())]
    };
    if as_json {
        let one = |pair: &(&Entry, &Entry)| {
            let parts = times(pair).map(|(what, old_ns, new_ns)| {
                let change = Change::of(old_ns, new_ns).name().to_lowercase();
                (what, json!({ "old_ns": old_ns, "new_ns": new_ns, "change": change }))
            });
            json!({ "name": pair.1.name, parts[0].0: parts[0].1, parts[1].0: parts[1].1 })
        };
        let list: Vec<serde_json::Value> = pairs.iter().map(one).collect();
        return print_json(&json!({
            "noise": NOISE, "entries": list, "only_old": only_old, "only_new": only_new,
        }));
    }
    let head = ["operation", "schedule", "old ms", "new ms", "new / old", ""].map(String::from).to_vec();
    let (mut rows, mut beyond) = (vec![head], [0, 0]);
    for pair in &pairs {
        for (what, old_ns, new_ns) in times(pair) {
            // A line about the run only where it is not the default's.
            if what == "run" && pair.0.tuned_ns.is_none() && pair.1.tuned_ns.is_none() {
                continue;
            }
            let change = Change::of(old_ns, new_ns);
            beyond[0] += usize::from(change == Change::Slower);
            beyond[1] += usize::from(change == Change::Faster);
            rows.push(vec![
                pair.1.name.clone(),
                if what == "run" { "tuned".into() } else { what.into() },
                ms_text(ms(old_ns)),
                ms_text(ms(new_ns)),
                ratio_text(new_ns as f64 / old_ns.max(1) as f64),
                change.name().into(),
            ]);
        }
    }
    let [slower, faster] = beyond;
    let mut text = table(&[Left, Left, Right, Right, Right, Left], &rows);
    text += &format!(
        "\nbeyond noise of {:.0}%: {slower} slower, {faster} faster, of {} times\n",
        NOISE * 100.0,
        rows.len() - 1
    );
    for (names, file) in [(only_old, old_path), (only_new, new_path)] {
        for name in names {
            text += &format!("only in {}: {name}\n", file.display());
        }
    }
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_below_the_noise_are_none() {
        for (old, new, want) in [
            (100, 114, Change::WithinNoise),
            (100, 116, Change::Slower),
            (100, 88, Change::WithinNoise),
            (100, 86, Change::Faster),
            (0, 0, Change::WithinNoise),
        ] {
            assert_eq!(Change::of(old, new), want, "{old} {new}");
        }
    }
}
