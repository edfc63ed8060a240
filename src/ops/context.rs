//! What an operator's lowering sees: its node's inputs and attributes, and the program to add to.

use crate::error::Error;
use crate::expr::{Expr, Idx};
use crate::graph::{Attribute, Node};
use crate::ir::{Program, Stop, ValueId};
use crate::ops::{Known, Scope};
use crate::tensor::{DType, Tensor};

/// The node being lowered.
pub struct Cx<'a> {
    /// The program that values are added to.
    pub program: &'a mut Program,
    /// The node.
    pub node: &'a Node,
    /// The opset version of the node's domain.
    pub opset: i64,
    /// The inputs' values; `None` where an optional one is omitted.
    pub inputs: Vec<Option<ValueId>>,
    /// What is known beyond the graph.
    pub known: &'a Known,
    /// The names that the node's subgraphs see.
    pub scope: &'a Scope<'a>,
}

impl Cx<'_> {
    /// Input `i`, which must be there.
    pub fn input(&self, i: usize) -> Result<ValueId, Stop> {
        self.optional(i)
            .ok_or_else(|| self.error(format!("input {i} is missing, {} given", self.inputs.len())))
    }

    /// Input `i`, when it is there.
    pub fn optional(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// Whether somebody may read output `i`.
    pub fn gives(&self, i: usize) -> bool {
        self.node.outputs.get(i).is_some_and(|name| !name.is_empty())
    }

    /// All inputs, which must all be there.
    pub fn all_inputs(&self) -> Result<Vec<ValueId>, Stop> {
        (0..self.inputs.len()).map(|i| self.input(i)).collect()
    }

    /// An error at this node.
    pub fn error(&self, message: impl Into<String>) -> Stop {
        Stop::Error(Error::model(self.node.place(), message))
    }

    /// An error that says that a variant of the operator is not supported.
    pub fn unsupported(&self, what: impl std::fmt::Display) -> Stop {
        Stop::Error(Error::Unsupported { items: vec![format!("{}: {what}", self.node.place())] })
    }

    fn wrong(&self, name: &str, wanted: &str, got: &Attribute) -> Stop {
        self.error(format!("attribute {name:?} wants {wanted}, got {got:?}"))
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Result<Option<i64>, Stop> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Int(v)) => Ok(Some(*v)),
            Some(other) => Err(self.wrong(name, "an integer", other)),
        }
    }

    /// An integer attribute or its default.
    pub fn int_or(&self, name: &str, default: i64) -> Result<i64, Stop> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, Stop> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Ints(v)) => Ok(Some(v.clone())),
            Some(other) => Err(self.wrong(name, "integers", other)),
        }
    }

    /// A float attribute or its default.
    pub fn float_or(&self, name: &str, default: f32) -> Result<f64, Stop> {
        match self.node.attributes.get(name) {
            None => Ok(default as f64),
            Some(Attribute::Float(v)) => Ok(*v as f64),
            Some(other) => Err(self.wrong(name, "a float", other)),
        }
    }

    /// A list of floats.
    pub fn floats(&self, name: &str) -> Result<Option<Vec<f32>>, Stop> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Floats(v)) => Ok(Some(v.clone())),
            Some(other) => Err(self.wrong(name, "floats", other)),
        }
    }

    /// A string attribute or its default.
    pub fn string_or(&self, name: &str, default: &str) -> Result<String, Stop> {
        match self.node.attributes.get(name) {
            None => Ok(default.into()),
            Some(Attribute::String(v)) => Ok(v.clone()),
            Some(other) => Err(self.wrong(name, "a string", other)),
        }
    }

    /// A list of strings.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<String>>, Stop> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Strings(v)) => Ok(Some(v.clone())),
            Some(other) => Err(self.wrong(name, "strings", other)),
        }
    }

    /// A tensor attribute.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>, Stop> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Tensor(v)) => Ok(Some(v.clone())),
            Some(other) => Err(self.wrong(name, "a tensor", other)),
        }
    }

    /// A dtype attribute.
    pub fn dtype_attribute(&self, name: &str) -> Result<Option<DType>, Stop> {
        let Some(number) = self.int(name)? else { return Ok(None) };
        let dtype = i32::try_from(number).ok().and_then(DType::from_onnx);
        dtype.map(Some).ok_or_else(|| self.error(format!("attribute {name:?}: {number} is no dtype")))
    }

    /// Axis `axis` of `rank`, counted from the end where negative.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, Stop> {
        let wrapped = if axis < 0 { axis + rank as i64 } else { axis };
        let fits = (0..rank as i64).contains(&wrapped);
        if fits {
            Ok(wrapped as usize)
        } else {
            Err(self.error(format!("axis {axis} of a tensor of rank {rank}")))
        }
    }

    /// Several axes, sorted, each once.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, Stop> {
        let mut found = axes.iter().map(|&a| self.axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
        found.sort_unstable();
        if found.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(self.error(format!("axes {axes:?} name one twice")));
        }
        Ok(found)
    }

    /// Integers from input `i` (newer opsets) or else from attribute `name` (older ones).
    pub fn ints_at(&self, i: usize, name: &str) -> Result<Option<Vec<i64>>, Stop> {
        match self.optional(i) {
            Some(id) => self.program.integers(id).map(Some),
            None => self.ints(name),
        }
    }

    /// Sizes from input `i` (newer opsets) or else from attribute `name` (older ones).
    pub fn sizes_at(&self, i: usize, name: &str) -> Result<Option<Vec<Idx>>, Stop> {
        match self.optional(i) {
            Some(id) => self.program.sizes(id).map(Some),
            None => Ok(self.ints(name)?.map(|v| v.into_iter().map(Idx::from).collect())),
        }
    }

    /// A scalar of `x`'s dtype.
    pub fn number(&self, x: ValueId, value: f64) -> Expr {
        Expr::float(self.program.dtype(x), value)
    }
}
