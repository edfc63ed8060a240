//! `tilewright`: list devices, run ONNX models, show how they are run, tune their kernels.
//!
//! Results go to the standard output, everything else to the standard error. The program ends with 0, with 1
//! where something failed, with 2 where it was called wrongly.

mod args;
mod bench;
mod corpus;
mod devices;
mod emit;
mod explain;
mod failure;
mod fill;
mod html;
mod inspect;
mod npy;
mod one_op;
mod planned;
mod progress;
mod rate;
mod records;
mod report;
mod roofline;
mod run;
mod space;
mod stats;
mod store;
mod subject;
mod table;
mod trace;
mod trials;
mod tune;
mod tuning_args;

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
    let listens = trace::listen();
    let done = listens.and_then(|()| match &cli.command {
        Command::Devices(args) => devices::devices(args),
        Command::Run(args) => run::run(args),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Tune(args) => tune::tune(args),
        Command::Explain(args) => explain::explain(args),
        Command::Store(args) => store::store(args),
        Command::Emit(args) => emit::emit(args),
        Command::Bench(args) => bench::bench(args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure::say(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}
