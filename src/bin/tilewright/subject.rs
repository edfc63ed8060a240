//! What is tuned or explained: a model with its sizes, or one operation.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tilewright::graph::Graph;
use tilewright::{Error, ModelSource, onnx, ops};

use crate::args::PrecisionFlags;
use crate::failure::{Failure, Result};
use crate::fill::{self, Input};
use crate::one_op::OneOp;
use crate::planned::{self, Machine, Outcome, Planned};
use crate::table::quoted;
use crate::tuning_args::SubjectFlags;

/// A subject that was opened.
pub struct Subject<'a> {
    /// The model's path, or the operation in words.
    pub name: String,
    /// The operation, where it is one.
    pub op: Option<OneOp>,
    /// What a session loads.
    pub source: ModelSource,
    /// What it says.
    pub graph: Graph,
    /// Sizes of symbolic dimensions.
    pub dims: BTreeMap<String, usize>,
    files: BTreeMap<&'a str, &'a PathBuf>,
}

impl<'a> Subject<'a> {
    /// Open what the flags name.
    pub fn open(flags: &'a SubjectFlags) -> Result<Subject<'a>> {
        let op = match (flags.op, &flags.shape) {
            (Some(op), Some(shape)) => Some(OneOp::new(op, shape, flags.dtype.into())?),
            _ => None,
        };
        let (source, graph, name) = match (&op, &flags.model) {
            (Some(op), _) => {
                let bytes = op.model();
                (ModelSource::from(bytes.clone()), onnx::parse_bytes(bytes.into())?, op.describe())
            }
            (None, Some(path)) => (ModelSource::from(path), onnx::open(path)?, path.display().to_string()),
            (None, None) => return Err(Failure::Usage("give a MODEL, or --op and --shape".into())),
        };
        let dims = fill::sizes(&graph.inputs, &flags.dims)?;
        let files = fill::files(&graph.inputs, &flags.inputs)?;
        Ok(Subject { name, op, source, graph, dims, files })
    }

    /// Values for all inputs, from their files or random; `note` is told of the latter.
    pub fn fill(&self, seed: u64, note: &mut dyn FnMut(&str)) -> Result<Vec<Input>> {
        fill::fill(&self.graph.inputs, &self.files, &self.dims, seed, note)
    }

    /// The plan at these sizes; the files' shapes count where there are any.
    pub fn plan(&self, precision: PrecisionFlags, machine: &Machine) -> Result<Box<Planned>> {
        let unsupported = ops::unsupported(&self.graph);
        if !unsupported.is_empty() {
            return Err(Error::Unsupported { items: unsupported }.into());
        }
        let mut shapes = Vec::new();
        if !self.files.is_empty() {
            let filled = self.fill(0, &mut |_| {})?;
            shapes.extend(filled.iter().map(|input| input.tensor.shape().to_vec()));
        }
        match planned::make_at(&self.graph, &self.dims, &shapes, precision.into(), &machine.caps) {
            Outcome::Planned(planned) => Ok(planned),
            Outcome::Failed(error) => Err(error.into()),
            Outcome::NeedsInputs(names) => {
                let message = format!("no plan: it depends on what a run gives as {}", quoted(&names));
                Err(Failure::Failed(message))
            }
        }
    }
}
