//! `tilewright explain`: what is known of each kernel of a model or an operation, and which schedule a run uses.

use serde_json::{Value as Json, json};
use tilewright::AdapterInfo;
use tilewright::kernel::{Peaks, Schedule, Work};
use tilewright::tune::{Key, Record, Store, winner};

use crate::failure::{Failure, Result, print, print_json};
use crate::planned::{Machine, Space};
use crate::roofline::{limit_name, percent};
use crate::store::{date, short_hash};
use crate::subject::Subject;
use crate::table::shape;
use crate::tuning_args::ExplainArgs;
use crate::{devices, trials};

/// A kernel, its record, and what follows for a run.
struct Explained<'a> {
    space: &'a Space,
    key: Key,
    record: Option<&'a Record>,
    schedule: &'a Schedule,
    why: String,
    /// Records of the same kernel that do not apply, in words.
    others: Vec<String>,
    work: Work,
    /// What the adapter can do at best, where it was measured.
    peaks: Option<&'a Peaks>,
}

impl Explained<'_> {
    /// Time of the winner.
    fn best_ns(&self) -> Option<u64> {
        winner(&self.record?.trials)?.best_ns()
    }
}

/// Explain every kernel, or the one asked for.
pub fn explain(args: &ExplainArgs) -> Result<()> {
    let subject = Subject::open(&args.subject)?;
    let machine = Machine::of(Some(&args.adapter.clone().unwrap_or_default()))?;
    let no_adapter = || Failure::Failed("records are by adapter, and this machine has none".into());
    let adapter = machine.adapter.as_ref().ok_or_else(no_adapter)?;
    let planned = subject.plan(args.precision, &machine)?;
    let store = args.records.open()?;
    let mut spaces = planned.spaces(&machine.caps);
    if let Some(wanted) = &args.kernel {
        if !spaces.iter().any(|space| space.label == *wanted) {
            let labels: Vec<&str> = spaces.iter().map(|space| space.label.as_str()).collect();
            let there = if labels.is_empty() { "none".into() } else { labels.join(", ") };
            let message = format!("--kernel: the plan has no kernel {wanted:?}; there are: {there}");
            return Err(Failure::Usage(message));
        }
        spaces.retain(|space| space.label == *wanted);
    }
    let explained: Vec<Explained> =
        spaces.iter().map(|space| one(space, &store, adapter)).collect::<Result<_>>()?;
    if args.json {
        let list: Vec<Json> = explained.iter().map(to_json).collect();
        return print_json(&json!({
            "subject": subject.name,
            "adapter": devices::short_json(adapter),
            "kernels": list,
        }));
    }
    let mut texts = vec![format!("{adapter}\n")];
    texts.extend(explained.iter().map(to_text));
    print(&texts.join("\n"))
}

/// As a session decides.
fn one<'a>(space: &'a Space, store: &'a Store, adapter: &AdapterInfo) -> Result<Explained<'a>> {
    let key = Key::new(&space.spec, &space.sizes, &adapter.into());
    let record = store.get(&key);
    let default = space.default()?;
    let stored = record.map(|record| winner(&record.trials).map(|trial| (record, &trial.schedule)));
    let (schedule, why) = match stored {
        None => (default, "the default, as no record applies".to_owned()),
        Some(None) => (default, "the default, as no trial of its record may win".to_owned()),
        Some(Some((record, winner))) if space.candidates.contains(winner) => {
            let speed_up = trials::speed_up(&record.trials).map_or(String::new(), |ratio| {
                format!(", {} as fast as the default", trials::ratio_text(ratio))
            });
            (winner, format!("the stored winner of {}{speed_up}", date(record.unix_seconds)))
        }
        Some(Some((_, winner))) => {
            (default, format!("the default, as the stored winner {winner} is not legal at these sizes"))
        }
    };
    let others = if record.is_some() { Vec::new() } else { others(&key, store) };
    let work = space.work(adapter.caps.floats());
    let peaks = store.peaks(&adapter.into());
    Ok(Explained { space, key, record, schedule, why, others, work, peaks })
}

fn others(key: &Key, store: &Store) -> Vec<String> {
    let differs = |other: &Key| {
        let mut parts = Vec::new();
        if other.bucket != key.bucket {
            parts.push(format!("for sizes up to {}", shape(&other.bucket)));
        }
        let pairs = [
            ("on", &other.adapter, &key.adapter),
            ("through", &other.backend, &key.backend),
            ("with driver", &other.driver, &key.driver),
            ("compiled by", &other.compiler, &key.compiler),
        ];
        let parts_of = pairs.iter().filter(|(_, other, own)| other != own);
        parts.extend(parts_of.map(|(word, other, _)| format!("{word} {other}")));
        if other.generator != key.generator {
            parts.push(format!("of generator {}", other.generator));
        }
        parts.join(", ")
    };
    let same = store.records().filter(|record| record.key.kernel == key.kernel);
    let mut list: Vec<String> = same.map(|record| differs(&record.key)).collect();
    list.sort();
    list
}

fn to_text(explained: &Explained) -> String {
    let Explained { space, key, record, schedule, why, others, work, peaks } = explained;
    let steps = match (space.steps, space.once) {
        (1, false) => "1 dispatch".to_owned(),
        (n, false) => format!("{n} dispatches"),
        (n, true) => format!("{n} when loading"),
    };
    let sizes = if space.sizes.is_empty() {
        String::new()
    } else {
        format!("; sizes {}, recorded up to {}", shape(&space.sizes), shape(&key.bucket))
    };
    let hash = short_hash(&key.kernel);
    let mut text = format!("{} {}: {steps}; hash {hash}{sizes}\n", space.label, space.output);
    text += &format!("  uses {schedule}: {why}\n");
    text += &format!("  must do {:.3} GFLOP and move {:.3} MB", work.flops / 1e9, work.bytes / 1e6);
    text += &match (peaks, explained.best_ns()) {
        (Some(peaks), Some(ns)) => format!(
            ": bound by {}, at {} of the measured peak\n",
            limit_name(peaks.limit(work)),
            percent(peaks.share(work, ns))
        ),
        (Some(peaks), None) => format!(": bound by {}\n", limit_name(peaks.limit(work))),
        (None, _) => "; what the adapter can do at best is not measured yet\n".into(),
    };
    if let Some([default, best]) = record.and_then(|record| record.in_model_ns) {
        text += &format!(
            "  in whole runs, all its dispatches: {} ms by default, {} ms as it is\n",
            trials::ms_text(trials::ms(default)),
            trials::ms_text(trials::ms(best))
        );
    }
    match record {
        Some(record) => text += &trials::text(&record.trials),
        None => text += &format!("  {} legal candidates, none measured\n", space.candidates.len()),
    }
    for other in others {
        text += &format!("  there is a record {other}\n");
    }
    text
}

fn to_json(explained: &Explained) -> Json {
    let Explained { space, key, record, schedule, why, others, work, peaks } = explained;
    json!({
        "kernel": space.label,
        "output": space.output,
        "steps": space.steps,
        "at_load": space.once,
        "sizes": space.sizes,
        "key": key,
        "schedule": schedule.to_string(),
        "why": why,
        "candidates": space.candidates.len(),
        "flops": work.flops,
        "bytes": work.bytes,
        "bound_by": peaks.map(|peaks| limit_name(peaks.limit(work))),
        "share_of_peak": peaks.zip(explained.best_ns()).map(|(peaks, ns)| peaks.share(work, ns)),
        "in_model_ns": record.and_then(|record| record.in_model_ns),
        "trials": record.map(|record| trials::json(&record.trials)),
        "other_records": others,
    })
}
