//! The one public error type: what failed, where, what was found and what was wanted.

use std::path::PathBuf;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed. Every message names the place, what was found and what was wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },

    /// Bytes that are no valid model file: truncated, damaged, or of another format.
    #[error("{place}: {message}")]
    Parse {
        /// The file, or the part of it.
        place: String,
        /// What was found and what was wanted.
        message: String,
    },

    /// A model that is well-formed as a file and wrong as a graph: a cycle, a missing initializer,
    /// shapes that do not fit.
    #[error("{place}: {message}")]
    Model {
        /// The node, value or file, as `Conv "stem.0"`.
        place: String,
        /// What was found and what was wanted.
        message: String,
    },

    /// The model uses something this version cannot run. All of it is listed at once.
    #[error("unsupported: {}", items.join("; "))]
    Unsupported {
        /// One sentence each, as `Loop (opset 16) in node "decoder"`.
        items: Vec<String>,
    },

    /// An input of a run that does not fit the model.
    #[error("input {name:?}: {message}")]
    Input {
        /// The input's name as given.
        name: String,
        /// What was found and what was wanted.
        message: String,
    },

    /// A host tensor that cannot be made or read as asked.
    #[error("tensor: {0}")]
    Tensor(String),

    /// No adapter, or none of the name that was asked for.
    #[error("{0}")]
    Adapter(String),

    /// The device cannot do what the model needs: a limit, a feature, a value out of range.
    #[error("{place}: {message}")]
    Limit {
        /// The tensor, node or kernel.
        place: String,
        /// What was needed and what the device has.
        message: String,
    },

    /// The device ran out of memory.
    #[error("out of device memory: {0}")]
    OutOfMemory(String),

    /// The device or its driver refused a kernel or a command.
    #[error("device error in {place}: {message}")]
    Device {
        /// The kernel or the command.
        place: String,
        /// What the driver said, with the source line where there is one.
        message: String,
    },
}

impl Error {
    /// An [`Error::Model`].
    pub(crate) fn model(place: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Model { place: place.into(), message: message.into() }
    }

    /// An [`Error::Parse`].
    pub(crate) fn parse(place: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Parse { place: place.into(), message: message.into() }
    }

    /// An [`Error::Input`].
    pub(crate) fn input(name: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Input { name: name.into(), message: message.into() }
    }

    /// An [`Error::Limit`].
    pub(crate) fn limit(place: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Limit { place: place.into(), message: message.into() }
    }
}
