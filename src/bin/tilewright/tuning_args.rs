//! The flags of the commands around tuning.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use tilewright::{AdapterChoice, DType};

use crate::args::{PrecisionFlags, named_file, named_size};
use crate::one_op::{Op, Shape};

/// After the help of `tune`.
pub const TUNE_EXAMPLES: &str = "\
A candidate wins only if its output agrees with the default schedule's. What was
measured is kept, and later runs use the winners. Kernels are tuned at the sizes
of the inputs, which are filled as by `tilewright run`. A record holds for all
sizes with the same next power of two, but a dimension that --dim fixes becomes a
part of the kernel: run with the same --dim.

Examples:
  tilewright tune resnet18.onnx --dim batch=1
  tilewright tune encoder.onnx --dim seq=128 --exhaustive --report encoder.html
  tilewright tune --op gemm --shape M=1024,N=1024,K=1024 --dtype f16
  tilewright tune --op conv --shape N=1,C=64,H=56,W=56,O=64,K=3,P=1 --space";

/// After the help of `emit`.
pub const EMIT_EXAMPLES: &str = "\
Knobs that --schedule does not name are those of the first candidate that has the
named ones. `tilewright tune --op OP --shape SHAPE --space` lists the candidates.

Examples:
  tilewright emit --op softmax --shape ROWS=64,COLS=1000
  tilewright emit --op gemm --shape M=512,N=512,K=512 --schedule micro_m=4,micro_n=8";

const SHAPE_HELP: &str = "The operation's sizes, by its --op:
  gemm       M=,N=,K=[,B=]                       C[m,n] = sum over k of A[m,k] * B[k,n], B times
  conv       N=,C=,H=,W=,O=,K=[,S=,P=,G=]        K by K windows, stride S, padding P, G groups
  attention  M=,K=[,B=,D=]                       M queries, K keys of size D, B heads
  softmax    ROWS=,COLS=                         over each row
  layernorm  ROWS=,COLS=                         over each row
  map        N=                                  gelu of each element
  transpose  ROWS=,COLS=[,B=]                    rows and columns exchanged, B times";

/// Which file of records is used.
#[derive(Args, Clone, Debug, Default)]
pub struct RecordsFlags {
    /// The file of tuning records [default: that of `tilewright store path`]
    #[arg(long, value_name = "FILE", conflicts_with = "no_records")]
    pub records: Option<PathBuf>,
    /// Neither read nor keep tuning records
    #[arg(long)]
    pub no_records: bool,
}

/// The element type of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ElementType {
    /// 32-bit floats
    #[default]
    F32,
    /// 16-bit floats
    F16,
}

impl From<ElementType> for DType {
    fn from(element: ElementType) -> DType {
        match element {
            ElementType::F32 => DType::F32,
            ElementType::F16 => DType::F16,
        }
    }
}

/// A model with its sizes, or one operation.
#[derive(Args, Debug)]
pub struct SubjectFlags {
    /// The ONNX file
    #[arg(required_unless_present = "op")]
    pub model: Option<PathBuf>,
    /// An input's values from a NumPy file; may be given again for other inputs
    #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = named_file)]
    pub inputs: Vec<(String, PathBuf)>,
    /// The size of a symbolic dimension; may be given again for others
    #[arg(long = "dim", value_name = "NAME=N", value_parser = named_size)]
    pub dims: Vec<(String, usize)>,
    /// One operation instead of a model
    #[arg(long, requires = "shape", conflicts_with_all = ["model", "inputs", "dims"])]
    pub op: Option<Op>,
    #[arg(long, value_name = "NAME=N,...", requires = "op", help = SHAPE_HELP)]
    #[allow(missing_docs)] // clap takes a comment for the help
    pub shape: Option<Shape>,
    /// The operation's element type
    #[arg(long, requires = "op", default_value = "f32")]
    pub dtype: ElementType,
}

/// Flags of `tune`.
#[derive(Args, Debug)]
pub struct TuneArgs {
    /// What is tuned.
    #[command(flatten)]
    pub subject: SubjectFlags,
    /// List the legal candidates of every kernel and the rules that removed the others, and measure nothing
    #[arg(long)]
    pub space: bool,
    /// Time to spend on all kernels together
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds, conflicts_with = "exhaustive")]
    pub budget: f64,
    /// Measure all candidates, however long it takes
    #[arg(long)]
    pub exhaustive: bool,
    /// The adapter: a part of its name, or its number in `tilewright devices` [default: the best]
    #[arg(long, value_name = "NAME|INDEX")]
    pub adapter: Option<AdapterChoice>,
    /// Where results are kept
    #[command(flatten)]
    pub records: RecordsFlags,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write a page about the results there
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// What may be computed less exactly
    #[command(flatten)]
    pub precision: PrecisionFlags,
    /// Seed of the random inputs
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// Flags of `explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// What is explained.
    #[command(flatten)]
    pub subject: SubjectFlags,
    /// Of this kernel alone
    #[arg(long, value_name = "LABEL")]
    pub kernel: Option<String>,
    /// The adapter: a part of its name, or its number in `tilewright devices` [default: the best]
    #[arg(long, value_name = "NAME|INDEX")]
    pub adapter: Option<AdapterChoice>,
    /// Which records
    #[command(flatten)]
    pub records: RecordsFlags,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// What may be computed less exactly
    #[command(flatten)]
    pub precision: PrecisionFlags,
}

/// Flags of `store`.
#[derive(Args, Debug)]
pub struct StoreArgs {
    /// The file of tuning records [default: that of `tilewright store path`]
    #[arg(long, value_name = "FILE", global = true)]
    pub records: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What to do with the records.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Print where the records are
    Path,
    /// List the records
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the trials of the kernels whose hash begins so
    Show {
        /// The beginning of a kernel's hash, as `store list` gives it
        #[arg(value_name = "KERNELHASH-PREFIX")]
        prefix: String,
    },
    /// Add the lines of other files; where both have a record of a kernel, the added one counts
    Merge {
        /// Files of records
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Copy all lines to a file
    Export {
        /// The file, which is replaced; `-` is the standard output
        file: PathBuf,
    },
    /// Add the lines of one file, as merge does
    Import {
        /// A file of records
        file: PathBuf,
    },
    /// Delete all records
    Clear {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// The compiler a text is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TextTarget {
    /// naga, in this program
    #[default]
    Naga,
    /// Browsers
    Browser,
}

/// Flags of `emit`.
#[derive(Args, Debug)]
pub struct EmitArgs {
    /// The operation
    #[arg(long)]
    pub op: Op,
    #[arg(long, value_name = "NAME=N,...", help = SHAPE_HELP)]
    #[allow(missing_docs)] // clap takes a comment for the help
    pub shape: Shape,
    /// Its element type
    #[arg(long, default_value = "f32")]
    pub dtype: ElementType,
    /// Knobs, as `group_m=4,micro_n=8` [default: the first candidate's]
    #[arg(long, value_name = "KNOB=N,...")]
    pub schedule: Option<String>,
    /// The compiler that will read the text
    #[arg(long, default_value = "naga")]
    pub target: TextTarget,
    /// The adapter: a part of its name, or its number in `tilewright devices` [default: the best, or none]
    #[arg(long, value_name = "NAME|INDEX")]
    pub adapter: Option<AdapterChoice>,
}

/// Flags of `bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Of this operation alone
    #[arg(long)]
    pub op: Option<Op>,
    /// Compare two results of `bench --json`, and measure nothing
    #[arg(long, num_args = 2, value_names = ["OLD.json", "NEW.json"], conflicts_with_all = ["op", "adapter", "records", "no_records"])]
    pub compare: Option<Vec<PathBuf>>,
    /// The adapter: a part of its name, or its number in `tilewright devices` [default: the best]
    #[arg(long, value_name = "NAME|INDEX")]
    pub adapter: Option<AdapterChoice>,
    /// Which records
    #[command(flatten)]
    pub records: RecordsFlags,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..1e9).contains(&seconds) => Ok(seconds),
        _ => Err("wants a number of seconds".into()),
    }
}
