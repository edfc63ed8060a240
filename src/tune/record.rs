//! What was learned, as text: one JSON object a line, every trial kept.
//!
//! ```text
//! {"format":1,"key":{"kernel":"..","bucket":[128],"adapter":"..",..},"kind":"cpu","label":"gemm [128, 1536]",
//!  "trials":[{"schedule":{"Contract":{..}},"status":"Measured","samples_ns":[..],"compile_ns":..}, ..],
//!  "in_model_ns":[820000,610000],"unix_seconds":..}
//! {"format":1,"platform":{"adapter":"..",..},"peaks":{"copy_bytes_per_ns":9.1,..},"unix_seconds":..}
//! ```
//!
//! A line is a tuned kernel or an adapter's peaks. The first trial is the default. Later lines win over earlier ones of
//! the same key, so a union of two texts is a merge. A line that cannot be read is reported and passed over.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::key::{Key, Platform};
use super::trial::{Status, Trial, winner};
use crate::error::{Error, Result};
use crate::kernel::{AdapterKind, Peaks, Schedule};

/// The version of the line format.
pub const FORMAT: u32 = 1;

/// One tuned kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// What it holds for.
    pub key: Key,
    /// What the adapter is; [`AdapterKind::Other`] in records of earlier versions.
    #[serde(default)]
    pub kind: AdapterKind,
    /// The kernel in words, for people.
    pub label: String,
    /// Every candidate, the default first.
    pub trials: Vec<Trial>,
    /// Time of all its dispatches in a run of the whole model, by default and under the winner, where it was
    /// compared there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_model_ns: Option<[u64; 2]>,
    /// When.
    pub unix_seconds: u64,
}

impl Record {
    /// The fastest trial.
    pub fn winner(&self) -> Option<&Trial> {
        winner(&self.trials)
    }

    /// Whether the winner is worth compiling before a first run: whether it saves more there than its compiling takes.
    /// The default's compiling does not count, as kernels that differ in sizes alone share it.
    pub fn pays_at_once(&self) -> bool {
        let Some(winner) = self.winner() else { return false };
        let alone = || Some([self.trials.first()?.best_ns()?, winner.best_ns()?]);
        let saved = |[default, winner]: [u64; 2]| default.saturating_sub(winner);
        self.in_model_ns.or_else(alone).is_some_and(|pair| saved(pair) >= winner.compile_ns)
    }
}

/// What an adapter can do at best, as measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeaksRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// The adapter.
    pub platform: Platform,
    /// Its peaks.
    pub peaks: Peaks,
    /// When.
    pub unix_seconds: u64,
}

/// A line of the format.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A tuned kernel.
    Kernel(Record),
    /// An adapter's peaks.
    Peaks(PeaksRecord),
}

impl Line {
    /// Read a line.
    ///
    /// # Errors
    /// In words, for a line of another form or format.
    pub fn parse(line: &str) -> Result<Line, String> {
        let (format, line) = match serde_json::from_str::<Record>(line) {
            Ok(record) => (record.format, Line::Kernel(record)),
            // What is neither is told of as a record: they are the most.
            Err(error) => match serde_json::from_str::<PeaksRecord>(line) {
                Ok(record) => (record.format, Line::Peaks(record)),
                Err(_) => return Err(error.to_string()),
            },
        };
        if format == FORMAT { Ok(line) } else { Err(format!("format {format}, this version reads {FORMAT}")) }
    }

    /// The line as text, without the newline.
    ///
    /// # Errors
    /// [`Error::Parse`] where a number has no JSON form.
    pub fn text(&self) -> Result<String> {
        let text = match self {
            Line::Kernel(record) => serde_json::to_string(record),
            Line::Peaks(record) => serde_json::to_string(record),
        };
        text.map_err(|error| Error::parse("tuning record", error.to_string()))
    }
}

/// What was learned, by what it holds for.
#[derive(Clone, Debug, Default)]
pub struct Records {
    kernels: HashMap<Key, Record>,
    peaks: HashMap<Platform, PeaksRecord>,
    /// Lines that could not be read: number and reason.
    pub damaged: Vec<(usize, String)>,
}

impl Records {
    /// Take in the lines of a text.
    pub fn read(&mut self, text: &str) {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match Line::parse(line) {
                Ok(line) => self.insert(line),
                Err(why) => self.damaged.push((number + 1, why)),
            }
        }
    }

    /// Take in a line, in place of an earlier one of the same key.
    pub fn insert(&mut self, line: Line) {
        match line {
            Line::Kernel(record) => drop(self.kernels.insert(record.key.clone(), record)),
            Line::Peaks(record) => drop(self.peaks.insert(record.platform.clone(), record)),
        }
    }

    /// Take in all of another's.
    pub fn extend(&mut self, other: Records) {
        self.kernels.extend(other.kernels);
        self.peaks.extend(other.peaks);
    }

    /// The record of a key.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.kernels.get(key)
    }

    /// The fastest schedule measured for a key.
    pub fn winner(&self, key: &Key) -> Option<&Schedule> {
        self.get(key)?.winner().map(|trial| &trial.schedule)
    }

    /// The measured peaks of an adapter.
    pub fn peaks(&self, platform: &Platform) -> Option<&Peaks> {
        self.peaks.get(platform).map(|record| &record.peaks)
    }

    /// All tuned kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &Record> {
        self.kernels.values()
    }

    /// Whether nothing has been learned.
    pub fn is_empty(&self) -> bool {
        self.kernels.is_empty() && self.peaks.is_empty()
    }

    /// A schedule that won here before and turned out not to run: it cannot win again. The changed record, where
    /// there is one.
    pub fn fail(&mut self, key: &Key, schedule: &Schedule, why: &str) -> Option<&Record> {
        let record = self.kernels.get_mut(key)?;
        let trial = record.trials.iter_mut().find(|trial| trial.schedule == *schedule)?;
        trial.status = Status::Failed(why.to_owned());
        Some(record)
    }

    /// What won for this kernel elsewhere, the nearest adapter and size first: an order for trying candidates,
    /// nothing more. What a CPU pretending to be a GPU found says nothing about a GPU, nor the other way round.
    pub fn priors(&self, key: &Key, kind: AdapterKind) -> Vec<&Schedule> {
        let elsewhere = self.kernels.values().filter(|record| {
            record.key.kernel == key.kernel
                && record.key != *key
                && (record.key.adapter == key.adapter
                    || (record.kind == AdapterKind::Cpu) == (kind == AdapterKind::Cpu))
        });
        let mut near: Vec<(Distance, &Record)> =
            elsewhere.map(|record| (distance(key, kind, record), record)).collect();
        // Equal distances in an order that does not depend on the map's.
        near.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.key.cmp(&b.1.key)));
        let mut schedules: Vec<&Schedule> = Vec::new();
        for (_, record) in near {
            match record.winner() {
                Some(trial) if !schedules.contains(&&trial.schedule) => schedules.push(&trial.schedule),
                Some(_) | None => {}
            }
        }
        schedules
    }
}

/// Another adapter, vendor or kind; another driver, API or compiler; how far the sizes are, in powers of two.
type Distance = ([bool; 3], [bool; 4], u64);

fn distance(key: &Key, kind: AdapterKind, record: &Record) -> Distance {
    let other = &record.key;
    // Names begin with the vendor's.
    let vendor = |name: &str| name.split_whitespace().next().unwrap_or_default().to_lowercase();
    let log = |size: &i64| u64::from(size.max(&1).ilog2());
    let apart = key.bucket.iter().zip(&other.bucket).map(|(a, b)| log(a).abs_diff(log(b))).sum();
    let device = [
        record.kind != kind && other.adapter != key.adapter,
        vendor(&other.adapter) != vendor(&key.adapter),
        other.adapter != key.adapter,
    ];
    let software = [
        other.generator != key.generator,
        other.backend != key.backend,
        other.driver != key.driver,
        other.compiler != key.compiler,
    ];
    (device, software, apart)
}

/// The candidates in the order in which they are tried: the default, which stands first, then what won elsewhere and is
/// legal here, also where the estimate here left it out, then the rest as it was.
pub fn with_priors(
    candidates: &[Schedule],
    priors: &[&Schedule],
    is_legal: impl Fn(&Schedule) -> bool,
) -> Vec<Schedule> {
    let Some((default, rest)) = candidates.split_first() else { return Vec::new() };
    let wanted = |prior: &&&Schedule| **prior != default && is_legal(prior);
    let first = priors.iter().filter(wanted).map(|prior| (*prior).clone());
    let others = rest.iter().filter(|schedule| !priors.contains(schedule)).cloned();
    [default.clone()].into_iter().chain(first).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::MapSchedule;

    fn schedule(workgroup: u32) -> Schedule {
        Schedule::Map(MapSchedule { workgroup, per_invocation: 1, vector: 1 })
    }

    fn record(adapter: &str, kind: AdapterKind, driver: &str, bucket: i64, won: u32) -> Record {
        let trial = |workgroup, ns| Trial {
            status: Status::Measured,
            samples_ns: vec![ns],
            ..Trial::new(schedule(workgroup))
        };
        let key = Key {
            kernel: "k".into(),
            bucket: vec![bucket],
            adapter: adapter.into(),
            backend: "vulkan".into(),
            driver: driver.into(),
            compiler: "naga 30".into(),
            generator: 1,
        };
        let trials = vec![trial(64, 100), trial(won, 50)];
        Record { format: FORMAT, key, kind, label: "map".into(), trials, in_model_ns: None, unix_seconds: 0 }
    }

    #[test]
    fn the_nearest_adapter_comes_first_and_a_cpu_says_nothing_about_a_gpu() {
        use AdapterKind::{Cpu, Discrete, Integrated, Other};
        let mut records = Records::default();
        for planted in [
            record("llvmpipe (LLVM 15)", Cpu, "22", 64, 1),
            record("Intel UHD", Integrated, "7", 64, 2),
            record("NVIDIA H200", Discrete, "580", 64, 3),
            record("NVIDIA H100", Discrete, "570", 64, 4),
            record("NVIDIA H100", Discrete, "580", 1024, 5),
            record("NVIDIA H100", Discrete, "580", 128, 6),
            record("AMD 7900", Discrete, "580", 64, 7),
            record("of an earlier version", Other, "1", 64, 8),
        ] {
            records.insert(Line::Kernel(planted));
        }
        let here = record("NVIDIA H100", Discrete, "580", 64, 9);
        records.insert(Line::Kernel(here.clone()));
        let priors: Vec<Schedule> = records.priors(&here.key, Discrete).into_iter().cloned().collect();
        assert_eq!(priors, [6, 5, 4, 3, 7, 2, 8].map(schedule));
        let cpu = record("SwiftShader", Cpu, "5", 64, 9);
        assert_eq!(records.priors(&cpu.key, Cpu), [&schedule(1)]);
        assert_eq!(records.winner(&cpu.key), None, "a prior is no winner");
        let order =
            with_priors(&[32, 1, 2, 3, 5].map(schedule), &[&schedule(5), &schedule(99), &schedule(2)], |s| {
                *s != schedule(99)
            });
        assert_eq!(order, [32, 5, 2, 1, 3].map(schedule));
    }

    #[test]
    fn a_winner_that_fails_gives_way_to_the_next() {
        let mut records = Records::default();
        let mut record = record("a", AdapterKind::Cpu, "1", 64, 1);
        record.trials.push(Trial {
            status: Status::Measured,
            samples_ns: vec![70],
            ..Trial::new(schedule(2))
        });
        let key = record.key.clone();
        records.insert(Line::Kernel(record));
        assert_eq!(records.winner(&key), Some(&schedule(1)));
        assert!(records.fail(&key, &schedule(1), "lost").is_some());
        assert_eq!(records.winner(&key), Some(&schedule(2)));
        assert!(records.fail(&key, &schedule(7), "lost").is_none());
    }

    #[test]
    fn a_winner_that_saves_less_than_its_compiling_takes_can_wait() {
        let mut record = record("a", AdapterKind::Cpu, "1", 64, 1);
        // Alone 100 and 50, in a run of the whole model `pair`.
        for (compile_ns, pair, want) in [
            (50, None, true),
            (51, None, false),
            (300, Some([900, 600]), true),
            (301, Some([900, 600]), false),
        ] {
            record.trials[1].compile_ns = compile_ns;
            record.in_model_ns = pair;
            assert_eq!(record.pays_at_once(), want, "{compile_ns} {pair:?}");
        }
    }

    #[test]
    fn lines_of_earlier_versions_are_read() {
        let old = r#"{"format":1,"key":{"kernel":"k","bucket":[],"adapter":"a","backend":"b","driver":"d","compiler":"c","generator":1},"label":"l","trials":[{"schedule":{"Map":{"workgroup":64,"per_invocation":1}},"status":"Measured","samples_ns":[3]}],"unix_seconds":5}"#;
        let Ok(Line::Kernel(record)) = Line::parse(old) else { panic!("a record") };
        assert_eq!(
            (record.kind, record.in_model_ns, record.trials[0].compile_ns),
            (AdapterKind::Other, None, 0)
        );
        let platform = Platform {
            adapter: "a".into(),
            kind: AdapterKind::Cpu,
            backend: "b".into(),
            driver: "d".into(),
            compiler: "c".into(),
        };
        let peaks =
            Peaks { copy_bytes_per_ns: 1.5, f32_flops_per_ns: 2.0, f16_flops_per_ns: None, launch_ns: 3.0 };
        let line = Line::Peaks(PeaksRecord { format: FORMAT, platform, peaks, unix_seconds: 1 });
        assert_eq!(Line::parse(&line.text().unwrap()), Ok(line));
        let next = old.replacen("format\":1", "format\":9", 1);
        assert!(Line::parse(&next).unwrap_err().contains("format 9"));
        assert!(Line::parse("{}").is_err());
    }
}
