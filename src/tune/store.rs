//! The file of records: see `record` for its lines. Lines are appended whole under a lock, so several processes may
//! write at the same time; one that cannot be read is reported, passed over, and kept in the file.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::key::{Key, Platform};
use super::record::{Line, Record, Records};
use crate::error::{Error, Result};
use crate::kernel::{AdapterKind, Peaks, Schedule};

/// Damaged lines of a file that are named one by one.
const MOST_NAMED: usize = 3;

/// Records by key, and the file they are kept in.
#[derive(Debug, Default)]
pub struct Store {
    path: Option<PathBuf>,
    records: Records,
}

impl Store {
    /// The store in a file, which need not exist yet.
    ///
    /// # Errors
    /// [`Error::Io`] when the file exists and cannot be read; [`Error::Parse`] when it is of another kind, so that nothing
    /// is appended to a model. Damaged lines are no error: see [`Store::damaged`].
    pub fn open(path: &Path) -> Result<Store> {
        let mut store = Store { path: Some(path.into()), ..Store::default() };
        let bytes = match read_whole(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(store),
            Err(source) => return Err(Error::Io { path: path.into(), source }),
        };
        let mut begins = lines(&bytes).map(|line| line.trim_ascii_start().first());
        if begins.next().is_some_and(|first| first != Some(&b'{'))
            && !begins.any(|first| first == Some(&b'{'))
        {
            return Err(Error::parse(
                path.display().to_string(),
                "not a file of tuning records: wants a JSON object a line",
            ));
        }
        store.records.read(&String::from_utf8_lossy(&bytes));
        let path = path.display();
        for (line, reason) in store.damaged().iter().take(MOST_NAMED) {
            tracing::warn!("{path}: line {line} is passed over: {reason}");
        }
        if let Some(more) = store.damaged().len().checked_sub(MOST_NAMED).filter(|&more| more > 0) {
            tracing::warn!("{path}: {more} more lines are passed over");
        }
        Ok(store)
    }

    /// Where records are kept unless told otherwise: the file that the environment's `TILEWRIGHT_RECORDS` names, or
    /// `tilewright/records.jsonl` in the user's cache folder.
    pub fn default_path() -> Option<PathBuf> {
        if let Some(path) = std::env::var_os("TILEWRIGHT_RECORDS").filter(|path| !path.is_empty()) {
            return Some(path.into());
        }
        dirs::cache_dir().map(|folder| folder.join("tilewright").join("records.jsonl"))
    }

    /// Lines that could not be read: number and reason.
    pub fn damaged(&self) -> &[(usize, String)] {
        &self.records.damaged
    }

    /// Add a line, and append it to the file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written; the record is kept in memory all the same.
    pub fn add(&mut self, line: Line) -> Result<()> {
        let text = line.text()?;
        self.records.insert(line);
        let Some(path) = &self.path else { return Ok(()) };
        append(path, |_| text.into_bytes()).map_err(|source| Error::Io { path: path.clone(), source })
    }

    /// Add the lines of another store's file that this one lacks, those that cannot be read among them: another
    /// version may read them. Where both have a record of a key, the added one counts.
    ///
    /// # Errors
    /// [`Error::Parse`] where `bytes` has lines and none of them is a record; [`Error::Io`] when the file cannot be
    /// written.
    pub fn merge(&mut self, bytes: &[u8]) -> Result<Merged> {
        let text = String::from_utf8_lossy(bytes);
        let mut other = Records::default();
        other.read(&text);
        if other.is_empty() && !text.trim().is_empty() {
            return Err(Error::parse("tuning records", "not one line is a record"));
        }
        let records = other.kernels().count();
        let damaged = std::mem::take(&mut other.damaged);
        let mut added = 0;
        if let Some(path) = &self.path {
            append(path, |there| {
                let mut known: HashSet<&[u8]> = lines(there).collect();
                let new: Vec<&[u8]> = lines(bytes).filter(|line| known.insert(line)).collect();
                added = new.len();
                new.join(&b'\n')
            })
            .map_err(|source| Error::Io { path: path.clone(), source })?;
        }
        self.records.extend(other);
        Ok(Merged { records, added, damaged })
    }

    /// Delete every record, those in the file too, damaged lines among them.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        self.records = Records::default();
        let Some(path) = &self.path else { return Ok(()) };
        // The file stays: a process that waits for its lock would write to one that is gone.
        let empty = || -> std::io::Result<()> {
            let file = OpenOptions::new().write(true).open(path)?;
            file.lock()?;
            file.set_len(0)?;
            file.unlock()
        };
        match empty() {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Io { path: path.clone(), source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The record of a key.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// The fastest schedule measured for a key.
    pub fn winner(&self, key: &Key) -> Option<&Schedule> {
        self.records.winner(key)
    }

    /// The measured peaks of an adapter.
    pub fn peaks(&self, platform: &Platform) -> Option<&Peaks> {
        self.records.peaks(platform)
    }

    /// As [`Records::priors`].
    pub fn priors(&self, key: &Key, kind: AdapterKind) -> Vec<&Schedule> {
        self.records.priors(key, kind)
    }

    /// As [`Records::fail`]; the record is appended to the file as it is now.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn fail(&mut self, key: &Key, schedule: &Schedule, why: &str) -> Result<()> {
        match self.records.fail(key, schedule, why).cloned() {
            Some(record) => self.add(Line::Kernel(record)),
            None => Ok(()),
        }
    }

    /// Whether nothing has been learned.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.kernels()
    }
}

/// What [`Store::merge`] took in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Records in the other file, each key once.
    pub records: usize,
    /// Lines that the store did not have.
    pub added: usize,
    /// Lines that could not be read: number and reason.
    pub damaged: Vec<(usize, String)>,
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = bytes.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    line.filter(|line| !line.trim_ascii().is_empty())
}

/// The file's bytes, all of a line or nothing of it.
fn read_whole(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    // Where files cannot be locked, a line read half is reported as damaged, and read the next time.
    let locked = file.lock_shared().is_ok();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if locked {
        file.unlock()?;
    }
    Ok(bytes)
}

/// Append what `new` makes of the file's bytes, whole lines without the last newline, in one write under the
/// file's lock.
fn append(path: &Path, new: impl FnOnce(&[u8]) -> Vec<u8>) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    file.lock()?;
    // A writer that was stopped half way leaves no newline: do not continue its line.
    let mut all = Vec::new();
    file.read_to_end(&mut all)?;
    let mut text = if all.last().is_none_or(|&b| b == b'\n') { Vec::new() } else { vec![b'\n'] };
    let new = new(&all);
    if !new.is_empty() {
        text.extend(new);
        text.push(b'\n');
        file.write_all(&text)?;
    }
    file.unlock()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::MapSchedule;
    use crate::tune::{FORMAT, Status, Trial};

    fn kernel(kernel: &str, ns: &[u64]) -> Record {
        let trial = |(i, &ns): (usize, &u64)| Trial {
            status: Status::Measured,
            samples_ns: vec![ns],
            ..Trial::new(Schedule::Map(MapSchedule { workgroup: 1 << i, per_invocation: 1, vector: 1 }))
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
        let kind = AdapterKind::Cpu;
        Record { format: FORMAT, key, kind, label: "map".into(), trials, in_model_ns: None, unix_seconds: 0 }
    }

    fn record(name: &str, ns: &[u64]) -> Line {
        Line::Kernel(kernel(name, ns))
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
        assert_eq!(store.damaged().len(), 1);
        assert_eq!(store.damaged()[0].0, 2);
        let winner = |kernel: &str| match store.winner(&self::kernel(kernel, &[]).key) {
            Some(Schedule::Map(schedule)) => schedule.workgroup,
            other => panic!("{other:?}"),
        };
        assert_eq!((winner("one"), winner("two")), (2, 1));
    }

    #[test]
    fn files_of_another_kind_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (bytes, refused) in [
            (&b"\x08\x0a\x12\x04 a model"[..], true),
            (b"# a page\n\nof text\n", true),
            (b"", false),
            (b"\n\n", false),
            (b"{\"half a li", false),
            (b"alf a line\"}\n{\"another\"}\n", false),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let opened = Store::open(&path);
            assert_eq!(opened.is_err(), refused, "{opened:?}");
        }
    }

    #[test]
    fn a_merge_is_a_union_and_the_added_record_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (folder.path().join("here"), folder.path().join("there"));
        let mut store = Store::open(&here).unwrap();
        store.add(record("one", &[30, 20])).unwrap();
        let mut other = Store::open(&there).unwrap();
        other.add(record("one", &[10, 20])).unwrap();
        other.add(record("two", &[1])).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(&there)
            .unwrap()
            .write_all(b"\xff from tomorrow")
            .unwrap();
        let bytes = std::fs::read(&there).unwrap();
        let merged = store.merge(&bytes).unwrap();
        assert_eq!((merged.records, merged.added, merged.damaged[0].0), (2, 3, 3));
        assert_eq!(store.merge(&bytes).unwrap().added, 0);
        let read = Store::open(&here).unwrap();
        assert_eq!((read.records().count(), read.damaged().len()), (2, 1));
        let key = kernel("one", &[]).key;
        assert_eq!(read.get(&key), other.get(&key));
        assert_eq!(read.get(&key), store.get(&key));
        let all = std::fs::read(&here).unwrap();
        assert_eq!(lines(&all).count(), 4);
        assert!(lines(&all).any(|line| line == b"\xff from tomorrow"));
        assert!(store.merge(b"no record\n").is_err());
        assert_eq!(std::fs::read(&here).unwrap(), all);
        store.clear().unwrap();
        assert!(Store::open(&here).unwrap().is_empty() && here.exists());
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
        assert_eq!((store.records().count(), store.damaged().len()), (100, 0));
    }
}
