//! Calling the program.

use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tilewright");

/// What came of a call.
#[derive(Debug)]
pub struct Call {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Call {
    fn from(output: Output) -> Call {
        let utf8 = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let call = Call {
            status: output.status.code().expect("an exit status"),
            stdout: utf8(output.stdout),
            stderr: utf8(output.stderr),
        };
        assert!(!call.stderr.contains("panicked"), "{}", call.stderr);
        call
    }
}

impl Call {
    /// Wants this exit status, and these texts on the standard error.
    #[track_caller]
    pub fn fails(self, status: i32, texts: &[&str]) -> Call {
        assert_eq!(self.status, status, "{self:?}");
        for text in texts {
            assert!(self.stderr.contains(text), "want {text:?} in {}", self.stderr);
        }
        self
    }

    /// Wants success, and gives the standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Json {
        assert_eq!(self.status, 0, "{self:?}");
        self.parsed()
    }

    #[track_caller]
    pub fn parsed(&self) -> Json {
        assert_eq!(self.stdout.lines().count(), 1, "JSON is one line: {self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// The program, which sees no tuning records but those that a test names.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null());
    command.env("TILEWRIGHT_RECORDS", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-records.jsonl"));
    command
}

pub fn call(arguments: &[&str]) -> Call {
    command(arguments).output().expect("the program").into()
}

/// Without any Vulkan driver: Linux has adapters from no other source.
#[cfg(target_os = "linux")]
pub fn call_without_adapter(arguments: &[&str]) -> Call {
    let mut command = command(arguments);
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        command.env(variable, "/nonexistent");
    }
    command.output().expect("the program").into()
}

/// `tilewright run`, on the adapter under test.
pub fn run(arguments: &[&str]) -> Call {
    on_device("run", arguments)
}

/// A command on the adapter under test.
pub fn on_device(name: &str, arguments: &[&str]) -> Call {
    let adapter = std::env::var("TILEWRIGHT_ADAPTER");
    let mut all = vec![name];
    all.extend(arguments);
    if let Ok(name) = &adapter {
        all.extend(["--adapter", name]);
    }
    call(&all)
}

/// Whether to pass over a test that needs a device.
pub fn skip_gpu() -> bool {
    let skip = std::env::var("TILEWRIGHT_SKIP_GPU").is_ok_and(|value| value == "1");
    if skip {
        eprintln!("not run: TILEWRIGHT_SKIP_GPU=1");
    }
    skip
}
