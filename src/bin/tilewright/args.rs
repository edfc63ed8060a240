//! The flags. Other programs call this one: what is here stays.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tilewright::AdapterChoice;
use tilewright::ops::Precision;

use crate::tuning_args::{BenchArgs, EmitArgs, ExplainArgs, RecordsFlags, StoreArgs, TuneArgs};

const EXAMPLES: &str = "\
Examples:
  tilewright devices
  tilewright run resnet18.onnx --dim batch=1 --repeat 10
  tilewright run model.onnx --input ids=ids.npy --output-dir out
  tilewright inspect model.onnx --plan
  tilewright tune model.onnx --dim batch=1 --report tuned.html

Exit status: 0, 1 where something failed, 2 for wrong usage.";

const RUN_EXAMPLES: &str = "\
Inputs that are not given are filled with random values: floats from the normal
distribution of mean 0 and variance 1, integers 0 or 1, bools. A symbolic
dimension that neither --dim nor an input file gives is 1. The standard error
says what was filled in.

Outputs of a dtype that .npy files lack are saved in one that holds their
values: bfloat16 and 8-bit floats as float32, 4- and 2-bit integers as int8 or
uint8. Input files for such dtypes are converted back.

Times are in milliseconds. A run ends when the outputs are in host memory; the
first one also compiles the kernels. Kernels that `tilewright tune` measured on
this adapter use what it found.

Examples:
  tilewright run resnet18.onnx --dim batch=4 --repeat 20 --json
  tilewright run encoder.onnx --input ids=ids.npy --output-dir out
  tilewright run model.onnx --adapter llvmpipe --profile";

const INSPECT_EXAMPLES: &str = "\
Needs no GPU: without an adapter it plans for the limits that WebGPU promises
everywhere, and says so. A symbolic dimension without --dim stays symbolic in
the plan; sizes, schedules and texts are those for 1.

Examples:
  tilewright inspect model.onnx
  tilewright inspect model.onnx --plan --dim batch=8
  tilewright inspect model.onnx --wgsl gemm_3 > gemm_3.wgsl";

/// Runs ONNX networks on any WebGPU device.
#[derive(Debug, Parser)]
#[command(name = "tilewright", bin_name = "tilewright", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the adapters of this machine, best first
    Devices(DevicesArgs),
    /// Run a model, and time it
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Show a model's inputs, operators, plan and kernels
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
    /// Measure the candidates of every kernel of a model on the device, and keep the fastest
    #[command(after_help = crate::tuning_args::TUNE_EXAMPLES)]
    Tune(TuneArgs),
    /// Show what is known of each kernel of a model or an operation, and which schedule a run uses
    Explain(ExplainArgs),
    /// Look at the records of tuning, merge, move and clear them
    Store(StoreArgs),
    /// Print the WGSL of one operation under a schedule
    #[command(after_help = crate::tuning_args::EMIT_EXAMPLES)]
    Emit(EmitArgs),
    /// Time every kernel family over a fixed list of shapes
    Bench(BenchArgs),
}

/// Flags of `devices`.
#[derive(Args, Debug)]
pub struct DevicesArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// When `run` tunes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tune {
    /// Never: stored winners and defaults
    Off,
    /// After the first answer, while no run is going on
    Background,
    /// Before the first run, for at most about 30 seconds
    Full,
}

/// Flags of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The ONNX file
    pub model: PathBuf,
    /// An input's values from a NumPy file; may be given again for other inputs
    #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = named_file)]
    pub inputs: Vec<(String, PathBuf)>,
    /// The size of a symbolic dimension; may be given again for others
    #[arg(long = "dim", value_name = "NAME=N", value_parser = named_size)]
    pub dims: Vec<(String, usize)>,
    /// Save the outputs of the last run there, as NAME.npy
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// How many runs to time after the first
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub repeat: usize,
    /// The adapter: a part of its name, or its number in `tilewright devices` [default: the best]
    #[arg(long, value_name = "NAME|INDEX")]
    pub adapter: Option<AdapterChoice>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// What may be computed less exactly
    #[command(flatten)]
    pub precision: PrecisionFlags,
    /// Seed of the random inputs
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Time every kernel in one more run
    #[arg(long)]
    pub profile: bool,
    /// When to tune kernels that have no record: never, between runs, or before the first
    #[arg(long, value_name = "MODE", default_value = "off")]
    pub tune: Tune,
    /// Where tuned schedules come from
    #[command(flatten)]
    pub records: RecordsFlags,
}

/// Flags of `inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// The ONNX file
    pub model: PathBuf,
    /// Print the plan: its steps, and where tensors lie in memory
    #[arg(long)]
    pub plan: bool,
    /// Print the WGSL of one kernel, or of all
    #[arg(long, value_name = "KERNEL", num_args = 0..=1)]
    pub wgsl: Option<Option<String>>,
    /// The size of a symbolic dimension; may be given again for others
    #[arg(long = "dim", value_name = "NAME=N", value_parser = named_size)]
    pub dims: Vec<(String, usize)>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// What may be computed less exactly
    #[command(flatten)]
    pub precision: PrecisionFlags,
}

/// What may be computed less exactly than the model says.
#[derive(Args, Clone, Copy, Debug)]
pub struct PrecisionFlags {
    /// Compute float64 tensors in float32
    #[arg(long)]
    pub allow_f64_as_f32: bool,
    /// Add up products of float16 in float16, where the device has it
    #[arg(long)]
    pub f16_sums: bool,
}

impl From<PrecisionFlags> for Precision {
    fn from(flags: PrecisionFlags) -> Precision {
        Precision { f64_as_f32: flags.allow_f64_as_f32, f16_sums: flags.f16_sums }
    }
}

/// `NAME=FILE`.
pub fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.into(), file.into())),
        _ => Err("wants NAME=FILE.npy".into()),
    }
}

/// `NAME=N`. Split at the last `=`: sizes have none, and exporters name dimensions by formulas.
pub fn named_size(text: &str) -> Result<(String, usize), String> {
    match text.rsplit_once('=') {
        Some((name, size)) if !name.is_empty() => match size.parse() {
            Ok(size) => Ok((name.into(), size)),
            Err(_) => Err(format!("wants NAME=N with a whole number N, got {size:?}")),
        },
        _ => Err("wants NAME=N".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn names_may_hold_most_characters() {
        assert_eq!(named_file("a/b:0=x=y.npy"), Ok(("a/b:0".into(), "x=y.npy".into())));
        assert_eq!(named_size("past + s=1=7"), Ok(("past + s=1".into(), 7)));
        for wrong in ["", "x", "=f", "x="] {
            assert!(named_file(wrong).is_err(), "{wrong}");
            assert!(named_size(wrong).is_err(), "{wrong}");
        }
        assert!(named_size("n=-1").is_err());
    }
}
