//! Operators: one [`OpDef`] row each, in tables by family, and the walk that lowers a graph through them.
//!
//! A row's `lower` turns a node into values of the [`Program`]. Most are compositions of its few forms, so
//! a new operator is a new row and nothing else.

mod activation;
mod attend;
mod attention;
mod batch_norm;
#[cfg(test)]
mod case;
mod cast;
mod context;
#[cfg(test)]
mod contrib_tests;
mod control;
mod conv;
mod deform;
mod det;
mod einsum;
mod experts;
mod fill;
mod filter;
mod fourier;
mod fused;
mod fused_attention;
mod group_query;
mod index;
mod join;
mod kv_codes;
mod linear_attention;
mod loss;
mod masks;
mod math;
mod matmul;
mod moe;
mod nbits;
mod ngrams;
mod norm;
mod pad;
mod passes;
mod pool;
mod prefix;
mod qlinear;
mod quantize;
mod random;
mod recurrent;
mod reduce;
mod resize;
mod roi;
mod roi_pool;
mod rotary;
mod rounds;
mod routing;
mod sample;
mod scatter;
mod scope;
mod shape;
mod softmax;
mod suppress;
mod topk;
mod unpool;
mod window;

pub use context::Cx;
pub use scope::Scope;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::expr::Idx;
use crate::graph::{Dim, Graph, ValueInfo};
use crate::ir::{Def, Given, Program, Stop, ValueId};
use crate::tensor::{DType, Tensor};

/// One operator.
pub struct OpDef {
    /// The operator's name.
    pub name: &'static str,
    /// Its domain; empty for ai.onnx.
    pub domain: &'static str,
    /// The first opset of the domain that has it.
    pub since: i64,
    /// What it computes, in one line; what is not supported of it.
    pub doc: &'static str,
    /// The values of its outputs, in order. Outputs that nobody reads may be left out at the end.
    pub lower: fn(&mut Cx) -> Result<Vec<ValueId>, Stop>,
}

impl OpDef {
    /// A row.
    pub const fn new(
        domain: &'static str,
        name: &'static str,
        since: i64,
        doc: &'static str,
        lower: fn(&mut Cx) -> Result<Vec<ValueId>, Stop>,
    ) -> OpDef {
        // The package for browsers is to stay small, and nobody reads the table there.
        let doc = if cfg!(target_arch = "wasm32") { "" } else { doc };
        OpDef { name, domain, since, doc, lower }
    }
}

/// All operators, by family.
pub const FAMILIES: &[(&str, &[OpDef])] = &[
    ("Arithmetic", math::OPS),
    ("Conversion", cast::OPS),
    ("Shapes", shape::OPS),
    ("Joining and splitting", join::OPS),
    ("Gathering", index::OPS),
    ("Scattering", scatter::OPS),
    ("Resizing", resize::OPS),
    ("Padding", pad::OPS),
    ("Generated tensors", fill::OPS),
    ("Activations", activation::OPS),
    ("Attention", attention::OPS),
    ("Convolutions", conv::OPS),
    ("Einstein summation", einsum::OPS),
    ("Losses", loss::OPS),
    ("Matrix products", matmul::OPS),
    ("Normalisations", norm::OPS),
    ("Pools", pool::OPS),
    ("Quantization", quantize::OPS),
    ("Reductions", reduce::OPS),
    ("Rotary embeddings", rotary::OPS),
    ("Softmax", softmax::OPS),
    ("Order", topk::OPS),
    ("Sampling", sample::OPS),
    ("Fourier transforms", fourier::OPS),
    ("Regions of interest", roi::OPS),
    ("Inverses of windows", unpool::OPS),
    ("Selections by contents", filter::OPS),
    ("Suppression", suppress::OPS),
    ("Random numbers", random::OPS),
    ("N-grams", ngrams::OPS),
    ("Determinants", det::OPS),
    ("Linear attention", linear_attention::OPS),
    ("Deformable convolutions", deform::OPS),
    ("Fusions", fused::OPS),
    ("Fused attention", fused_attention::OPS),
    ("Attention over caches", group_query::OPS),
    ("Weights in blocks", nbits::OPS),
    ("Mixtures of experts", moe::OPS),
    ("Quantized operators", qlinear::OPS),
    ("Control flow", control::OPS),
    ("Recurrent networks", recurrent::OPS),
];

/// The row of an operator.
pub fn find(domain: &str, name: &str) -> Option<&'static OpDef> {
    FAMILIES.iter().flat_map(|(_, ops)| *ops).find(|op| op.name == name && op.domain == domain)
}

/// What the user allows to be computed less exactly than the model says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Precision {
    /// Float64 in float32.
    pub f64_as_f32: bool,
    /// Sums of products of float16 in float16.
    pub f16_sums: bool,
}

/// What is known beyond the graph when it is lowered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Symbolic dimensions with fixed sizes.
    pub dims: BTreeMap<String, usize>,
    /// Input shapes by input number; others stay as declared.
    pub shapes: BTreeMap<usize, Vec<usize>>,
    /// Input contents by input number, for inputs whose contents decide shapes.
    pub contents: BTreeMap<usize, Tensor>,
    /// What may be computed less exactly.
    pub precision: Precision,
    /// What earlier stages of the run computed, and this one is planned for.
    pub given: BTreeMap<ValueId, Given>,
    /// What earlier stages computed and left on the device, with the dtype it is held as.
    pub resident: Vec<(ValueId, DType)>,
}

/// A lowered graph.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The values.
    pub program: Program,
    /// The graph inputs' values, in order.
    pub inputs: Vec<ValueId>,
    /// The graph outputs' names and values, in order; none where this is not the last stage.
    pub outputs: Vec<(String, ValueId)>,
    /// What the next stage must know; `None` in the last one.
    pub next: Option<Next>,
}

/// What the next stage of a run depends on.
#[derive(Clone, Debug)]
pub struct Next {
    /// Values that this stage computes, and whether each only counts something.
    pub asked: Vec<(ValueId, bool)>,
    /// Values that what comes afterwards may read.
    pub live: BTreeSet<ValueId>,
}

/// The operators of `graph` that no row serves, one sentence each.
pub fn unsupported(graph: &Graph) -> Vec<String> {
    let mut nodes: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    let mut all = Vec::new();
    scope::all_nodes(graph, &mut all);
    for node in all {
        let known = find(&node.domain, &node.op).is_some_and(|op| {
            op.since <= graph.opsets.get(&node.domain).copied().unwrap_or(1) || !node.domain.is_empty()
        });
        if !known {
            nodes.entry((node.domain.clone(), node.op.clone())).or_default().push(&node.name);
        }
    }
    nodes
        .into_iter()
        .map(|((domain, op), names)| {
            let domain = if domain.is_empty() { "ai.onnx".to_string() } else { domain };
            let opset = graph.opsets.get(if domain == "ai.onnx" { "" } else { &domain });
            let opset = opset.map(|v| format!(" opset {v}")).unwrap_or_default();
            let names: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
            format!("operator {op} of {domain}{opset} in node {}", names.join(", "))
        })
        .collect()
}

/// Lower every node of `graph`.
///
/// # Errors
/// [`Error::Unsupported`] with all unknown operators at once; [`Error::Model`] where shapes, dtypes or
/// attributes do not fit; [`Stop::NeedsInputs`] when a shape depends on what an input contains. Where something
/// depends on what is computed, the result is the part before that.
pub fn lower(graph: &Graph, known: &Known) -> Result<Lowered, Stop> {
    let items = unsupported(graph);
    if !items.is_empty() {
        return Err(Error::Unsupported { items }.into());
    }
    let mut program = Program::default();
    let mut scope = Scope::default();
    let mut inputs = Vec::new();
    for (number, info) in graph.inputs.iter().enumerate() {
        let id = input(&mut program, number, info, known)?;
        inputs.push(id);
        scope.insert(&info.name, id);
    }
    let next = passes::walk(&mut program, graph, &mut scope, known)?;
    if next.is_some() {
        return Ok(Lowered { program, inputs, outputs: Vec::new(), next });
    }
    let mut outputs = Vec::new();
    for info in &graph.outputs {
        let id = scope.get(&info.name);
        let id = id.ok_or_else(|| Error::model(info.name.clone(), "no node makes this graph output"))?;
        outputs.push((info.name.clone(), id));
    }
    Ok(Lowered { program, inputs, outputs, next: None })
}

/// The value of a graph input.
fn input(program: &mut Program, number: usize, info: &ValueInfo, known: &Known) -> Result<ValueId, Stop> {
    program.place = format!("input {:?}", info.name);
    if let Some(tensor) = known.contents.get(&number) {
        return Ok(program.weight(tensor.clone()));
    }
    let shape = match (known.shapes.get(&number), &info.shape) {
        (Some(shape), _) => shape.iter().map(|&d| Idx::from(d)).collect(),
        (None, Some(dims)) => dims
            .iter()
            .enumerate()
            .map(|(axis, dim)| {
                let name = match dim {
                    Dim::Static(size) => return Idx::from(*size),
                    Dim::Symbol(name) => name.clone(),
                    Dim::Unknown => format!("{}.{axis}", info.name),
                };
                known.dims.get(&name).map_or_else(|| Idx::sym(&name), |&size| Idx::from(size))
            })
            .collect(),
        (None, None) => return Err(Stop::NeedsInputs(BTreeSet::from([number]))),
    };
    let id = program.add(info.dtype, shape, Def::Input(number));
    program.values[id as usize].name = info.name.clone();
    Ok(id)
}
