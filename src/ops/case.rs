//! One operator on the CPU, for the tests of operators: with all sizes known, and with every size a symbol.

use std::collections::BTreeMap;

use super::{Known, lower};
use crate::error::Error;
use crate::graph::{Attribute, Dim, Graph, Node, ValueInfo};
use crate::ir::{Given, Stop};
use crate::tensor::{DType, Element, Tensor};

pub fn t<T: Element>(shape: &[usize], values: &[T]) -> Tensor {
    Tensor::from_slice(shape, values).unwrap()
}

/// A float32 tensor.
pub fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    t(shape, values)
}

/// A vector of int64.
pub fn ints(values: &[i64]) -> Tensor {
    t(&[values.len()], values)
}

/// 0, 1, 2, .. as float32.
pub fn count(shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32).collect();
    t(shape, &values)
}

pub fn int(value: i64) -> Attribute {
    Attribute::Int(value)
}
pub fn list(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}
pub fn text(value: &str) -> Attribute {
    Attribute::String(value.into())
}

/// One node. `op` may name its domain, as `com.microsoft.Gelu`.
pub struct Case<'a> {
    pub op: &'a str,
    pub opset: i64,
    pub attributes: Vec<(&'a str, Attribute)>,
    pub inputs: Vec<Tensor>,
    pub outputs: usize,
    /// Where the node leaves inputs out, among them and behind.
    pub omitted: Vec<usize>,
    /// How many inputs at the end are read by the node's subgraphs alone.
    pub captured: usize,
}

impl<'a> Case<'a> {
    pub fn new(op: &'a str, attributes: &[(&'a str, Attribute)], inputs: impl Into<Vec<Tensor>>) -> Self {
        Case {
            op,
            opset: 24,
            attributes: attributes.to_vec(),
            inputs: inputs.into(),
            outputs: 1,
            omitted: vec![],
            captured: 0,
        }
    }

    /// These inputs; `None` is one that the node leaves out.
    pub fn with_optional(mut self, inputs: Vec<Option<Tensor>>) -> Self {
        let missing = inputs.iter().enumerate().filter(|(_, input)| input.is_none());
        self.omitted = missing.map(|(i, _)| i).collect();
        self.inputs = inputs.into_iter().flatten().collect();
        self
    }

    pub fn captured(mut self, count: usize) -> Self {
        self.captured = count;
        self
    }

    pub fn outputs(mut self, count: usize) -> Self {
        self.outputs = count;
        self
    }

    fn graph(&self, symbolic: bool) -> Graph {
        // A size of 1 is mostly one that broadcasts, which a symbol cannot say.
        let dim = |i: usize, axis: usize, size: usize| match size {
            _ if !symbolic => Dim::Static(size),
            1 => Dim::Static(1),
            _ => Dim::Symbol(format!("n{i}_{axis}")),
        };
        let inputs = self.inputs.iter().enumerate().map(|(i, tensor)| {
            let dims = tensor.shape().iter().enumerate().map(|(axis, &size)| dim(i, axis, size)).collect();
            ValueInfo { name: format!("x{i}"), dtype: tensor.dtype(), shape: Some(dims) }
        });
        let inputs = inputs.collect();
        let (domain, op) = self.op.rsplit_once('.').unwrap_or(("", self.op));
        let names: Vec<String> = (0..self.outputs).map(|i| format!("y{i}")).collect();
        let mut wired: Vec<String> = (0..self.inputs.len()).map(|i| format!("x{i}")).collect();
        self.omitted.iter().for_each(|&i| wired.insert(i, String::new()));
        wired.truncate(wired.len() - self.captured);
        let node = Node {
            name: "node".into(),
            domain: domain.into(),
            op: op.into(),
            inputs: wired,
            outputs: names.clone(),
            attributes: self
                .attributes
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect(),
        };
        let output = |name| ValueInfo { name, dtype: DType::F32, shape: None };
        Graph {
            name: "case".into(),
            nodes: vec![node],
            inputs,
            outputs: names.into_iter().map(output).collect(),
            initializers: BTreeMap::new(),
            opsets: BTreeMap::from([("com.microsoft".into(), 1), (String::new(), self.opset)]),
        }
    }

    /// The outputs; contents that decide shapes are given when asked for, as a session does.
    fn run(&self, symbolic: bool) -> Result<Vec<Tensor>, Error> {
        let mut known = Known::default();
        let graph = self.graph(symbolic);
        loop {
            match lower(&graph, &known) {
                Err(Stop::NeedsInputs(numbers)) => {
                    for number in numbers {
                        let again = known.contents.insert(number, self.inputs[number].clone());
                        assert!(again.is_none(), "input {number} asked for twice");
                    }
                }
                Err(Stop::NeedsShapes) => {
                    assert!(known.shapes.is_empty(), "shapes asked for twice");
                    known.shapes =
                        self.inputs.iter().enumerate().map(|(i, x)| (i, x.shape().to_vec())).collect();
                }
                Err(Stop::NeedsValue(needed)) => panic!("{needed:?} is no stage"),
                Err(Stop::Error(error)) => return Err(error),
                Ok(lowered) if lowered.next.is_some() => {
                    let asked = lowered.next.expect("checked").asked;
                    let ids: Vec<_> = asked.iter().map(|&(id, _)| id).collect();
                    for (id, value) in ids.iter().zip(lowered.program.evaluate(&self.inputs, &ids)?) {
                        let again = known.given.insert(*id, Given::Elements(value));
                        assert!(again.is_none(), "value {id} asked for twice");
                    }
                }
                Ok(lowered) => {
                    let ids: Vec<_> = lowered.outputs.iter().map(|output| output.1).collect();
                    return lowered.program.evaluate(&self.inputs, &ids);
                }
            }
        }
    }

    /// The outputs with known sizes.
    pub fn run_with_known_sizes(&self) -> Vec<Tensor> {
        self.run(false).unwrap_or_else(|error| panic!("{}: {error}", self.place(false)))
    }

    /// Why the node is refused.
    pub fn refusal(&self) -> String {
        self.run(false).map(|_| ()).unwrap_err().to_string()
    }

    /// Both with known sizes and with symbols, the outputs are these.
    pub fn gives(&self, wanted: impl Into<Vec<Tensor>>) {
        let wanted = wanted.into();
        self.check(false, &wanted, same);
        self.check(true, &wanted, same);
    }

    /// As [`Case::gives`], float32 outputs to a relative and absolute 1e-5.
    pub fn gives_about(&self, wanted: impl Into<Vec<Tensor>>) {
        let wanted = wanted.into();
        self.check(false, &wanted, close);
        self.check(true, &wanted, close);
    }

    /// For what symbols are not supported for.
    pub fn gives_if_sizes_are_known(&self, wanted: impl Into<Vec<Tensor>>) {
        self.check(false, &wanted.into(), close);
    }

    fn place(&self, symbolic: bool) -> String {
        format!("{} {:?} {:?} symbolic={symbolic}", self.op, self.attributes, self.inputs)
    }

    fn check(&self, symbolic: bool, wanted: &[Tensor], agree: fn(&Tensor, &Tensor) -> bool) {
        let place = self.place(symbolic);
        let got = self.run(symbolic).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert!(got.len() >= wanted.len(), "{place}: {} outputs", got.len());
        for (got, want) in got.iter().zip(wanted) {
            assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{place}");
            let values = |tensor: &Tensor| tensor.to_vec::<f32>().unwrap_or_default();
            let (seen, hoped) = (values(got), values(want));
            assert!(agree(got, want), "{place}: got {got:?} {seen:?}, want {want:?} {hoped:?}");
        }
    }
}

fn same(got: &Tensor, want: &Tensor) -> bool {
    got.bytes() == want.bytes()
}

fn close(got: &Tensor, want: &Tensor) -> bool {
    let (Ok(g), Ok(w)) = (got.to_vec::<f32>(), want.to_vec::<f32>()) else { return same(got, want) };
    g.iter().zip(&w).all(|(g, w)| g == w || (g - w).abs() <= 1e-5 + 1e-5 * w.abs())
}

/// The outputs of a node, with known sizes and with symbols; both must agree.
pub fn run(
    op: &str,
    opset: i64,
    attributes: &[(&str, Attribute)],
    inputs: &[Tensor],
    outputs: usize,
) -> Vec<Tensor> {
    let case = Case { opset, ..Case::new(op, attributes, inputs) }.outputs(outputs);
    let got = case.run_with_known_sizes();
    case.gives(got.clone());
    got
}

/// Why a node is refused.
pub fn refusal(op: &str, opset: i64, attributes: &[(&str, Attribute)], inputs: &[Tensor]) -> String {
    Case { opset, ..Case::new(op, attributes, inputs) }.refusal()
}

/// The one output of a node must be `want`, float32 to a relative and absolute 1e-5.
pub fn check(op: &str, opset: i64, attributes: &[(&str, Attribute)], inputs: &[Tensor], want: &Tensor) {
    Case { opset, ..Case::new(op, attributes, inputs) }.gives_about([want.clone()]);
}
