//! What was learned: a text file with one JSON object a line, one line per tuned kernel, every trial kept.
//!
//! ```text
//! {"format":1,"key":{"kernel":"..","bucket":[128],"adapter":"..",..},"label":"gemm [128, 1536]",
//!  "trials":[{"schedule":{"Contract":{..}},"status":"Measured","samples_ns":[..]}, ..],"unix_seconds":..}
//! ```
//!
//! The first trial is the default. Later lines win over earlier ones of the same key, so a union of two files is
//! a merge. A line that cannot be read is reported and kept in the file. Lines are appended whole under a lock,
//! so several processes may write at the same time.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::key::Key;
use super::search::{Trial, winner};
use crate::error::{Error, Result};
use crate::kernel::Schedule;

/// The version of the line format.
pub const FORMAT: u32 = 1;

/// One tuned kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// What it holds for.
    pub key: Key,
    /// The kernel in words, for people.
    pub label: String,
    /// Every candidate, the default first.
    pub trials: Vec<Trial>,
    /// When.
    pub unix_seconds: u64,
}

/// Records by key, and the file they are kept in.
#[derive(Debug, Default)]
pub struct Store {
    path: Option<PathBuf>,
    records: HashMap<Key, Record>,
    /// Lines that could not be read: number and reason.
    pub damaged: Vec<(usize, String)>,
}

impl Store {
    /// The store in a file, which need not exist yet.
    ///
    /// # Errors
    /// [`Error::Io`] when the file exists and cannot be read. Damaged lines are no error: see [`Store::damaged`].
    pub fn open(path: &Path) -> Result<Store> {
        let mut store = Store { path: Some(path.into()), ..Store::default() };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(store),
            Err(source) => return Err(Error::Io { path: path.into(), source }),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|source| Error::Io { path: path.into(), source })?;
        store.read(&String::from_utf8_lossy(&bytes));
        for (line, reason) in &store.damaged {
            tracing::warn!(path = %path.display(), line, reason, "a tuning record cannot be read and is passed over");
        }
        Ok(store)
    }

    /// Where records are kept unless told otherwise: `tilewright/records.jsonl` in the user's cache folder.
    pub fn default_path() -> Option<PathBuf> {
        dirs::cache_dir().map(|folder| folder.join("tilewright").join("records.jsonl"))
    }

    /// Take in the lines of another store.
    pub fn read(&mut self, text: &str) {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match serde_json::from_str::<Record>(line) {
                Ok(record) if record.format == FORMAT => {
                    self.records.insert(record.key.clone(), record);
                }
                Ok(record) => {
                    self.damaged
                        .push((number + 1, format!("format {}, this version reads {FORMAT}", record.format)));
                }
                Err(error) => self.damaged.push((number + 1, error.to_string())),
            }
        }
    }

    /// Add a record, and append it to the file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written; the record is kept in memory all the same.
    pub fn add(&mut self, record: Record) -> Result<()> {
        let line =
            serde_json::to_string(&record).map_err(|e| Error::parse("tuning record", e.to_string()))?;
        self.records.insert(record.key.clone(), record);
        let Some(path) = &self.path else { return Ok(()) };
        append(path, &line).map_err(|source| Error::Io { path: path.clone(), source })
    }

    /// The record of a key.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// The fastest schedule measured for a key.
    pub fn winner(&self, key: &Key) -> Option<&Schedule> {
        winner(&self.get(key)?.trials).map(|trial| &trial.schedule)
    }

    /// Whether nothing has been learned.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }
}

/// Append a line in one write under the file's lock.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    file.lock()?;
    // A writer that was stopped half way leaves no newline: do not continue its line.
    let mut all = Vec::new();
    file.read_to_end(&mut all)?;
    let start = if all.last().is_none_or(|&b| b == b'\n') { "" } else { "\n" };
    file.write_all(format!("{start}{line}\n").as_bytes())?;
    file.unlock()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::MapSchedule;
    use crate::tune::Status;

    fn record(kernel: &str, ns: &[u64]) -> Record {
        let trial = |(i, &ns): (usize, &u64)| Trial {
            schedule: Schedule::Map(MapSchedule { workgroup: 1 << i, per_invocation: 1 }),
            status: Status::Measured,
            samples_ns: vec![ns],
        };
        let key = Key {
            kernel: kernel.into(),
            bucket: vec![64],
            adapter: "a".into(),
            backend: "vulkan".into(),
            driver: "d 1".into(),
            compiler: "naga 30".into(),
            generator: 1,
        };
        let trials = ns.iter().enumerate().map(trial).collect();
        Record { format: FORMAT, key, label: "map".into(), trials, unix_seconds: 0 }
    }

    #[test]
    fn what_is_written_is_read_and_damage_costs_its_line_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/records.jsonl");
        let mut store = Store::open(&path).unwrap();
        store.add(record("one", &[30, 20, 25])).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"half a li").unwrap();
        store.add(record("two", &[10, 20])).unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(store.records().count(), 2);
        assert_eq!(store.damaged.len(), 1);
        assert_eq!(store.damaged[0].0, 2);
        let winner = |kernel: &str| match store.winner(&record(kernel, &[]).key) {
            Some(Schedule::Map(schedule)) => schedule.workgroup,
            other => panic!("{other:?}"),
        };
        assert_eq!((winner("one"), winner("two")), (2, 1));
    }

    #[test]
    fn writers_side_by_side_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    let mut store = Store::open(path).unwrap();
                    for i in 0..25 {
                        store.add(record(&format!("{thread}.{i}"), &[1])).unwrap();
                    }
                });
            }
        });
        let store = Store::open(&path).unwrap();
        assert_eq!((store.records().count(), store.damaged.len()), (100, 0));
    }
}
