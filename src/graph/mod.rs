//! A model as its file says it: nodes, named values, attributes, initializers, symbolic dimensions.
//! Nothing here knows the file format, and nothing here has been interpreted yet.

use std::collections::BTreeMap;

use crate::tensor::{DType, Tensor};

/// One dimension of a declared shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A constant.
    Static(usize),
    /// A symbol, as `batch`; equal names mean equal sizes.
    Symbol(String),
    /// Nothing is said.
    Unknown,
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dim::Static(n) => write!(f, "{n}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// A graph input or output as declared: name, dtype, shape (`None` where the rank is not declared).
#[derive(Clone, Debug, PartialEq)]
pub struct ValueInfo {
    /// The value's name.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The shape, or `None` when not even the rank is declared.
    pub shape: Option<Vec<Dim>>,
}

/// An attribute's value.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // ONNX's own names
pub enum Attribute {
    Float(f32),
    Int(i64),
    String(String),
    Tensor(Tensor),
    Graph(Box<Graph>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Strings(Vec<String>),
    /// A kind that the reader knows and this crate does not use, by name.
    Other(&'static str),
}

/// One operator application.
#[derive(Clone, Debug)]
pub struct Node {
    /// The node's name, or one made from its operator and position when the file gives none.
    pub name: String,
    /// The operator's domain; empty for ai.onnx.
    pub domain: String,
    /// The operator, as `MatMul`.
    pub op: String,
    /// Input value names; an empty name is an omitted optional input.
    pub inputs: Vec<String>,
    /// Output value names; an empty name is an output nobody reads.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

impl Node {
    /// The node for messages, as `Conv "stem.0"`.
    pub fn place(&self) -> String {
        format!("{} {:?}", self.op, self.name)
    }
}

/// A graph: nodes in topological order.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The graph's name.
    pub name: String,
    /// Nodes, each after those whose outputs it reads.
    pub nodes: Vec<Node>,
    /// Inputs that a run must give, in order (initializers that are also inputs are not listed).
    pub inputs: Vec<ValueInfo>,
    /// Outputs, in order.
    pub outputs: Vec<ValueInfo>,
    /// Weights and constants by name.
    pub initializers: BTreeMap<String, Tensor>,
    /// Opset version by domain; empty domain for ai.onnx.
    pub opsets: BTreeMap<String, i64>,
}
