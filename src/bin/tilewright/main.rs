//! `tilewright`: list devices, run ONNX models, show how they are run.
//!
//! Results go to the standard output, everything else to the standard error. The program ends with 0, with 1
//! where something failed, with 2 where it was called wrongly.

mod args;
mod devices;
mod failure;
mod fill;
mod inspect;
mod npy;
mod planned;
mod progress;
mod report;
mod run;
mod stats;
mod table;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. That nobody reads it is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    let done = match &cli.command {
        Command::Devices(args) => devices::devices(args),
        Command::Run(args) => run::run(args),
        Command::Inspect(args) => inspect::inspect(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure::say(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}
