//! `tilewright store`: the records of tuning as a file to look at, merge and move.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use tilewright::Error;
use tilewright::tune::{Record, Store, Trial, winner};

use crate::failure::{Failure, Result, print, print_json, say};
use crate::records;
use crate::table::{Align, shape, table};
use crate::trials::{self, ms, ms_text, ratio_text};
use crate::tuning_args::{StoreArgs, StoreCommand};

/// Do it.
pub fn store(args: &StoreArgs) -> Result<()> {
    let path = records::path(args.records.as_ref())?;
    match &args.command {
        StoreCommand::Path => print(&format!("{}\n", path.display())),
        StoreCommand::List { json } => list(&path, *json),
        StoreCommand::Show { prefix } => show(&path, prefix),
        StoreCommand::Merge { files } => merge(&path, files),
        StoreCommand::Import { file } => merge(&path, std::slice::from_ref(file)),
        StoreCommand::Export { file } => export(&path, file),
        StoreCommand::Clear { yes } => clear(&path, *yes),
    }
}

/// The records by adapter and name, so that a listing is the same every time.
fn ordered(store: &Store) -> Vec<&Record> {
    let mut records: Vec<&Record> = store.records().collect();
    records.sort_by(|a, b| {
        let order = |r: &Record| (r.key.adapter.clone(), r.label.clone());
        order(a).cmp(&order(b)).then_with(|| a.key.cmp(&b.key))
    });
    records
}

/// The hash as people type it.
pub fn short_hash(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

fn list(path: &Path, as_json: bool) -> Result<()> {
    use Align::{Left, Right};
    let store = Store::open(path)?;
    let records = ordered(&store);
    if as_json {
        let list: Vec<Json> = records.iter().map(|record| record_json(record)).collect();
        let damaged: Vec<Json> =
            store.damaged().iter().map(|(line, reason)| json!({ "line": line, "reason": reason })).collect();
        let path = path.display().to_string();
        return print_json(&json!({ "path": path, "records": list, "damaged": damaged }));
    }
    if records.is_empty() {
        return print(&format!("no records in {}\n", path.display()));
    }
    let head = ["kernel", "what", "bucket", "adapter", "tried", "default ms", "best ms", "speed-up", "date"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for record in records {
        let time =
            |trial: Option<&Trial>| trial.and_then(Trial::best_ns).map_or("-".into(), |ns| ms_text(ms(ns)));
        rows.push(vec![
            short_hash(&record.key.kernel).into(),
            record.label.clone(),
            shape(&record.key.bucket),
            record.key.adapter.clone(),
            trials::tried(&record.trials).to_string(),
            time(record.trials.first()),
            time(winner(&record.trials)),
            trials::speed_up(&record.trials).map_or("-".into(), ratio_text),
            date(record.unix_seconds),
        ]);
    }
    print(&table(&[Left, Left, Left, Left, Right, Right, Right, Right, Left], &rows))
}

fn record_json(record: &Record) -> Json {
    json!({
        "key": record.key,
        "label": record.label,
        "tried": trials::tried(&record.trials),
        "default_ns": record.trials.first().and_then(Trial::best_ns),
        "best_ns": winner(&record.trials).and_then(Trial::best_ns),
        "speed_up": trials::speed_up(&record.trials),
        "schedule": winner(&record.trials).map(|trial| trial.schedule.to_string()),
        "unix_seconds": record.unix_seconds,
    })
}

fn show(path: &Path, prefix: &str) -> Result<()> {
    let store = Store::open(path)?;
    let prefix = prefix.to_lowercase();
    let mut texts = Vec::new();
    for record in ordered(&store).into_iter().filter(|r| r.key.kernel.starts_with(&prefix)) {
        let key = &record.key;
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let rows = [
            row("kernel", key.kernel.clone()),
            row("what", record.label.clone()),
            row("bucket", shape(&key.bucket)),
            row("adapter", format!("{} ({}, {})", key.adapter, key.backend, key.driver)),
            row("compiler", format!("{}, generator {}", key.compiler, key.generator)),
            row("date", date(record.unix_seconds)),
        ];
        texts.push(table(&[Align::Left; 2], &rows) + "\n" + &trials::text(&record.trials));
    }
    if texts.is_empty() {
        let message = format!("{}: no kernel's hash begins with {prefix:?}", path.display());
        return Err(Failure::Failed(message));
    }
    print(&texts.join("\n"))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    Ok(std::fs::read(file).map_err(|source| Error::Io { path: file.into(), source })?)
}

fn merge(path: &Path, files: &[PathBuf]) -> Result<()> {
    // All are read before anything is written: a name typed wrong leaves the store as it is.
    let read: Vec<(&PathBuf, Vec<u8>)> =
        files.iter().map(|file| Ok((file, read(file)?))).collect::<Result<_>>()?;
    let mut store = Store::open(path)?;
    for (file, bytes) in read {
        let merged = store.merge(&bytes).map_err(|error| match error {
            Error::Parse { message, .. } => Failure::Failed(format!("{}: {message}", file.display())),
            error => error.into(),
        })?;
        for (line, reason) in &merged.damaged {
            say(&format!("{}: line {line} is no record, and kept as it is: {reason}", file.display()));
        }
        say(&format!("{}: {} records, {} new lines", file.display(), merged.records, merged.added));
    }
    print(&format!("{}: {} records\n", path.display(), store.records().count()))
}

fn export(path: &Path, to: &Path) -> Result<()> {
    let store = Store::open(path)?;
    let bytes = read(path)?;
    if to == Path::new("-") {
        let written = std::io::stdout().lock().write_all(&bytes);
        return written.map_err(|error| Failure::Failed(format!("standard output: {error}")));
    }
    let io = |source| Error::Io { path: to.into(), source };
    if let (Ok(from), Ok(to)) = (path.canonicalize(), to.canonicalize())
        && from == to
    {
        return Err(Failure::Usage(format!("{} is the store itself", to.display())));
    }
    // Beside the file, so that the rename stays on one file system.
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = to.with_file_name(name);
    std::fs::write(&part, &bytes).map_err(io)?;
    if let Err(source) = std::fs::rename(&part, to) {
        let _ = std::fs::remove_file(&part);
        return Err(io(source).into());
    }
    print(&format!("{}: {} records\n", to.display(), store.records().count()))
}

fn clear(path: &Path, yes: bool) -> Result<()> {
    let mut store = Store::open(path)?;
    let count = store.records().count();
    if !yes && !confirmed(&format!("delete {count} records in {}?", path.display()))? {
        return Err(Failure::Failed("nothing is deleted".into()));
    }
    store.clear()?;
    print(&format!("{}: {count} records deleted\n", path.display()))
}

fn confirmed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("clear: nobody can be asked here; --yes deletes without asking".into()));
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The day in UTC, as `2025-01-31`; by Hinnant's `civil_from_days`.
pub fn date(unix_seconds: u64) -> String {
    let days = unix_seconds / 86400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, want) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_735_689_599, "2024-12-31"),
            (4_102_444_800, "2100-01-01"),
        ] {
            assert_eq!(date(seconds), want);
        }
    }
}
