//! How the program fails: what it says, and its exit status.

use std::fmt;
use std::io::{ErrorKind, Write as _};

use tilewright::Error;

/// Exit status for wrong usage, as clap's.
pub const USAGE: u8 = 2;
const FAILED: u8 = 1;

/// Why the program stops.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong for this model.
    Usage(String),
    /// Something failed.
    Failed(String),
}

/// A result whose error is [`Failure`].
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// The exit status.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => USAGE,
            Failure::Failed(_) => FAILED,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message) | Failure::Failed(message) => f.write_str(message),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        if let Some(hint) = hint(&error) {
            message = format!("{message}\n  hint: {hint}");
        }
        Failure::Failed(message)
    }
}

/// What the user could do about it, where that is not in the message.
fn hint(error: &Error) -> Option<&'static str> {
    match error {
        Error::Parse { message, .. } if message.starts_with("not an ONNX model") => {
            Some("MODEL is an .onnx file; other formats must be exported to ONNX first")
        }
        Error::Unsupported { items } if items.iter().any(|item| item.contains("float64")) => {
            Some("--allow-f64-as-f32 computes float64 tensors in float32")
        }
        Error::OutOfMemory(_) => {
            Some("smaller sizes with --dim, or another of `tilewright devices` with --adapter")
        }
        _ => None,
    }
}

/// Print to the standard output. A reader that has seen enough, as `head`, is no failure.
///
/// # Errors
/// [`Failure::Failed`] when it cannot be written for another reason, as a full disk.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::Failed(format!("standard output: {error}"))),
    }
}

/// Print a JSON value on one line, as [`print`]: tools read the last line of what comes.
pub fn print_json(value: &serde_json::Value) -> Result<()> {
    print(&format!("{value}\n"))
}

/// A line on the standard error; nothing can be done where that is closed.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "tilewright: {message}");
}
