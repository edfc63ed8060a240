//! Which file of tuning records a command uses.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tilewright::Error;
use tilewright::tune::Store;

use crate::failure::{Failure, Result, say};
use crate::tuning_args::RecordsFlags;

impl RecordsFlags {
    /// The file to read; `None` for none. One that the user did not name and that cannot be read is told and
    /// passed over: a run works without.
    pub fn to_read(&self) -> Option<PathBuf> {
        if self.no_records || self.records.is_some() {
            return self.records.clone();
        }
        let path = Store::default_path()?;
        match File::open(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                say(&format!("without tuning records: {}: {error}", path.display()));
                None
            }
            Ok(_) | Err(_) => Some(path),
        }
    }

    /// The file to keep records in, made where it is missing, so that a long search does not end in vain.
    ///
    /// # Errors
    /// [`Failure::Failed`] for a file that the user named and that cannot be written; another is told and
    /// passed over.
    pub fn to_write(&self) -> Result<Option<PathBuf>> {
        if self.no_records {
            return Ok(None);
        }
        let Some(path) = self.records.clone().or_else(Store::default_path) else {
            say("what is found is not kept: this user has no cache folder; --records FILE names a file");
            return Ok(None);
        };
        match writable(&path) {
            Ok(()) => Ok(Some(path)),
            Err(source) if self.records.is_some() => Err(Error::Io { path, source }.into()),
            Err(error) => {
                say(&format!("what is found is not kept: {}: {error}", path.display()));
                Ok(None)
            }
        }
    }

    /// The store to look things up in, empty with `--no-records`.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(&self) -> Result<Store> {
        Ok(self.to_read().as_deref().map(Store::open).transpose()?.unwrap_or_default())
    }
}

/// The store of `tilewright store`.
///
/// # Errors
/// [`Failure::Failed`] where there is no default.
pub fn path(given: Option<&PathBuf>) -> Result<PathBuf> {
    let none = || Failure::Failed("this user has no cache folder; --records FILE names a file".into());
    given.cloned().or_else(Store::default_path).ok_or_else(none)
}

fn writable(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(path).map(|_| ())
}
