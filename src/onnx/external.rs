//! Where weights outside the model file come from.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use crate::tensor::Place;

/// Resolves the files that a model's tensors name as `external_data`.
pub trait External {
    /// All bytes of the file at `location`, a path relative to the model's folder, as the model gives
    /// it. The model is not trusted: an implementation decides what it may name. Called once a tensor,
    /// so an implementation should share one buffer between calls.
    ///
    /// # Errors
    /// Whatever keeps the file from being read. The reader adds the tensor's name.
    fn file(&self, location: &str) -> io::Result<Bytes>;

    /// The same without reading: where the elements of a tensor are that are not to be held in memory. `None`, the
    /// default, holds all.
    fn place(&self, _location: &str, _offset_bytes: u64, _len_bytes: u64) -> Option<Place> {
        None
    }
}

/// Refuses all external data: for models that are given as bytes and so have no folder.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoExternal;

impl External for NoExternal {
    fn file(&self, _location: &str) -> io::Result<Bytes> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a model given as bytes has no folder to find it in; load the model by path",
        ))
    }
}

/// Files already in memory, by location: for browsers, and for tests.
impl External for BTreeMap<String, Bytes> {
    fn file(&self, location: &str) -> io::Result<Bytes> {
        self.get(location).cloned().ok_or_else(|| {
            let have: Vec<_> = self.keys().take(8).collect();
            io::Error::new(io::ErrorKind::NotFound, format!("not among the files given, which are {have:?}"))
        })
    }
}

/// All external data stays where it is, of files that are not opened: for hosts that upload weights themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elsewhere;

impl External for Elsewhere {
    fn file(&self, _location: &str) -> io::Result<Bytes> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "its contents are not held in memory"))
    }

    fn place(&self, location: &str, offset_bytes: u64, len_bytes: u64) -> Option<Place> {
        Some(Place { file: location.into(), offset_bytes, len_bytes })
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub use folder::{Folder, map_file};

#[cfg(not(target_arch = "wasm32"))]
mod folder {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io;
    use std::path::{Component, Path, PathBuf};

    use bytes::Bytes;

    use super::External;
    use crate::error::{Error, Result};

    /// The folder of a model file. Each file in it is memory-mapped once, on first use.
    ///
    /// Refused: absolute locations, locations with `..`, and links that leave the folder. A model file
    /// that is itself a link may also use files beside its target, as download caches lay them out.
    #[derive(Debug)]
    pub struct Folder {
        /// Where locations start from.
        base: PathBuf,
        /// Where a resolved location may lie; canonical.
        allowed: Vec<PathBuf>,
        mapped: RefCell<BTreeMap<PathBuf, Bytes>>,
    }

    impl Folder {
        /// The folder that the model file `model` lies in.
        ///
        /// # Errors
        /// [`Error::Io`] when the file does not exist.
        pub fn of(model: &Path) -> Result<Folder> {
            let canonical = |path: &Path| {
                path.canonicalize().map_err(|source| Error::Io { path: path.to_path_buf(), source })
            };
            let parent = |path: &Path| match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
                Some(_) | None => PathBuf::from("."),
            };
            let base = canonical(&parent(model))?;
            let allowed = vec![base.clone(), parent(&canonical(model)?)];
            Ok(Folder { base, allowed, mapped: RefCell::default() })
        }

        fn resolve(&self, location: &str) -> io::Result<PathBuf> {
            let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            for component in Path::new(location).components() {
                match component {
                    Component::Normal(_) | Component::CurDir => {}
                    Component::ParentDir => return refuse("the location must not contain \"..\""),
                    Component::Prefix(_) | Component::RootDir => {
                        return refuse(
                            "the location must be relative to the model's folder, got an absolute path",
                        );
                    }
                }
            }
            let path = self.base.join(location);
            let resolved = path
                .canonicalize()
                .map_err(|source| io::Error::new(source.kind(), format!("{}: {source}", path.display())))?;
            if !self.allowed.iter().any(|folder| resolved.starts_with(folder)) {
                return refuse(&format!(
                    "it is a link to {}, outside the model's folder {}",
                    resolved.display(),
                    self.base.display()
                ));
            }
            Ok(resolved)
        }
    }

    impl External for Folder {
        fn file(&self, location: &str) -> io::Result<Bytes> {
            let path = self.resolve(location)?;
            if let Some(bytes) = self.mapped.borrow().get(&path) {
                return Ok(bytes.clone());
            }
            let bytes = map_file(&path)?;
            self.mapped.borrow_mut().insert(path, bytes.clone());
            Ok(bytes)
        }
    }

    /// A file's contents, memory-mapped: nothing is read before it is used.
    ///
    /// # Errors
    /// Whatever the operating system says; a folder is refused.
    pub fn map_file(path: &Path) -> io::Result<Bytes> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "this is a folder, wanted a file"));
        }
        if metadata.len() == 0 {
            return Ok(Bytes::new()); // not every system maps an empty file
        }
        // SAFETY: the map is read-only and lives as long as the bytes. What it asks beyond that, that
        // nobody changes the file meanwhile, no program can promise; it is documented at `open`.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Bytes::from_owner(map))
    }
}
