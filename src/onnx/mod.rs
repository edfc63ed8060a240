//! ONNX bytes to a [`Graph`].
//!
//! What comes out has been checked as a graph: every name that is read exists, no value is produced
//! twice, nodes are in topological order, every initializer has the size its shape says. Whether the
//! operators exist, and whether shapes fit them, is for later stages.
//!
//! Weights are not copied: a tensor's bytes are a slice of the model file, or of its external file,
//! which [`open`] maps into memory. (Values in typed fields, as `float_data`, are decoded once.)
//!
//! `Constant` nodes become initializers. Model-local functions are replaced by their nodes.
//!
//! | file | what |
//! |---|---|
//! | `sniff` | is it ONNX, and is it whole |
//! | `proto` | the protobuf messages |
//! | `functions` | calls of model-local functions, replaced by their nodes |
//! | `read`, `attribute`, `types`, `tensor` | messages to the graph's types |
//! | `external` | weights in other files |
//! | `check` | names, order |

use std::collections::BTreeMap;
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

use bytes::Bytes;
use prost::Message;

mod attribute;
mod check;
mod external;
mod functions;
#[doc(hidden)]
pub mod proto;
mod read;
mod sniff;
mod sparse;
mod tensor;
mod types;

#[cfg(not(target_arch = "wasm32"))]
pub use external::Folder;
pub use external::{Elsewhere, External, NoExternal};

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::tensor::Tensor;
use proto::{FunctionProto, ModelProto, OperatorSetIdProto, TensorProto};
use read::{Reader, normalised_domain};

/// The first opset of ai.onnx that is read.
pub const OPSET_MIN: i64 = 1;
/// The last opset of ai.onnx that is read.
pub const OPSET_MAX: i64 = 28;

/// Domains that a model may import: each subgraph holds the list, which must not multiply.
const MAX_DOMAINS: usize = 256;

/// Reads the model file at `path`, mapping it and its external data into memory.
///
/// The files must not be changed while the graph or a tensor of it is in use: the operating system may
/// then end the program.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, and all that [`parse`] gives.
#[cfg(not(target_arch = "wasm32"))]
pub fn open(path: &Path) -> Result<Graph> {
    let bytes = external::map_file(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    load(&path.display().to_string(), bytes, &Folder::of(path)?)
}

/// Reads a model that has no external data.
///
/// # Errors
/// [`Error::Model`] for a tensor with external data, and all that [`parse`] gives.
pub fn parse_bytes(bytes: Bytes) -> Result<Graph> {
    parse(bytes, &NoExternal)
}

/// Reads a model whose external data, if any, comes from `external`.
///
/// # Errors
/// - [`Error::Parse`]: not an ONNX model, cut off, or damaged.
/// - [`Error::Model`]: no graph, an opset outside [`OPSET_MIN`]..=[`OPSET_MAX`], a name that exists
///   nowhere or twice, a cycle, a tensor without data or of another size than its shape says.
/// - [`Error::Unsupported`]: string tensors, inputs and outputs that are no tensors; all of them at once.
///
/// ```
/// use tilewright::onnx;
/// let error = onnx::parse(b"not a model".as_slice().into(), &onnx::NoExternal).unwrap_err();
/// assert_eq!(error.to_string(), "model: not an ONNX model: this looks like text");
/// ```
pub fn parse(bytes: Bytes, external: &dyn External) -> Result<Graph> {
    load("model", bytes, external)
}

/// Reads a serialized `TensorProto`, as ONNX's test data has: its name and the tensor. External data is
/// refused.
///
/// # Errors
/// [`Error::Parse`] when the bytes are no `TensorProto`, [`Error::Model`] when its data does not fit its
/// shape, [`Error::Unsupported`] for strings.
pub fn parse_tensor(bytes: Bytes) -> Result<(String, Tensor)> {
    let proto = TensorProto::decode(bytes)
        .map_err(|error| Error::parse("tensor", format!("not a TensorProto: {error}")))?;
    let name = proto.name.clone();
    let tensor = tensor::read(&format!("tensor {name:?}"), proto, &NoExternal)?;
    Ok((name, tensor))
}

/// `place` names the model in messages.
fn load(place: &str, bytes: Bytes, external: &dyn External) -> Result<Graph> {
    sniff::check_model(place, &bytes)?;
    let len_bytes = bytes.len();
    let model = ModelProto::decode(bytes)
        .map_err(|error| Error::parse(place, format!("damaged ONNX model: {error}")))?;
    let Some(mut graph) = model.graph else {
        return Err(Error::model(place, format!("has no graph in its {len_bytes} bytes")));
    };
    let opsets = opsets(place, &model.opset_import, &model.functions)?;
    functions::inline(&mut graph, model.functions)?;
    if graph.output.is_empty() {
        return Err(Error::model(place, "the graph has no outputs"));
    }
    let mut graph = Reader::new(external, &opsets).read(graph)?;
    check::names(&graph)?;
    check::sort(&mut graph)?;
    tracing::debug!(
        nodes = graph.nodes.len(),
        initializers = graph.initializers.len(),
        ir_version = model.ir_version,
        producer = model.producer_name,
        "parsed {place}"
    );
    Ok(graph)
}

/// Opset versions by domain. Functions may import domains that the model does not; of a domain that
/// both import, ONNX wants the operators used to be the same in both versions, and the model's is taken.
fn opsets(
    place: &str,
    model: &[OperatorSetIdProto],
    functions: &[FunctionProto],
) -> Result<BTreeMap<String, i64>> {
    let highest = |imports: &mut dyn Iterator<Item = &OperatorSetIdProto>| {
        let mut found = BTreeMap::<String, i64>::new();
        for import in imports {
            let version = found.entry(normalised_domain(import.domain.clone())).or_insert(import.version);
            *version = import.version.max(*version);
        }
        found
    };
    let mut opsets = highest(&mut functions.iter().flat_map(|function| &function.opset_import));
    opsets.extend(highest(&mut model.iter()));
    if opsets.len() > MAX_DOMAINS {
        let got = opsets.len();
        return Err(Error::model(
            place,
            format!("opset_import wants at most {MAX_DOMAINS} domains, got {got}"),
        ));
    }
    match opsets.get("") {
        // Without an ai.onnx, only nodes of other domains are read: see `Reader`.
        None | Some(OPSET_MIN..=OPSET_MAX) => Ok(opsets),
        Some(found) => Err(Error::model(
            place,
            format!("opset wants {OPSET_MIN} to {OPSET_MAX}, got {found} of ai.onnx"),
        )),
    }
}
