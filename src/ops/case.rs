//! One operator on the CPU, for the tests of operators: with all sizes known, and with every size a symbol.

use std::collections::BTreeMap;

use super::{Known, lower};
use crate::graph::{Attribute, Dim, Graph, Node, ValueInfo};
use crate::ir::Stop;
use crate::tensor::{DType, Element, Tensor};

pub fn t<T: Element>(shape: &[usize], values: &[T]) -> Tensor {
    Tensor::from_slice(shape, values).unwrap()
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

pub struct Case<'a> {
    pub op: &'a str,
    pub opset: i64,
    pub attributes: Vec<(&'a str, Attribute)>,
    pub inputs: Vec<Tensor>,
    pub outputs: usize,
}

impl<'a> Case<'a> {
    pub fn new(op: &'a str, attributes: &[(&'a str, Attribute)], inputs: impl Into<Vec<Tensor>>) -> Self {
        Case { op, opset: 24, attributes: attributes.to_vec(), inputs: inputs.into(), outputs: 1 }
    }

    pub fn outputs(mut self, count: usize) -> Self {
        self.outputs = count;
        self
    }

    fn graph(&self, symbolic: bool) -> Graph {
        let dim = |i: usize, axis: usize, size: usize| match symbolic {
            true => Dim::Symbol(format!("n{i}_{axis}")),
            false => Dim::Static(size),
        };
        let inputs = self.inputs.iter().enumerate().map(|(i, tensor)| {
            let dims = tensor.shape().iter().enumerate().map(|(axis, &size)| dim(i, axis, size)).collect();
            ValueInfo { name: format!("x{i}"), dtype: tensor.dtype(), shape: Some(dims) }
        });
        let inputs = inputs.collect();
        let names: Vec<String> = (0..self.outputs).map(|i| format!("y{i}")).collect();
        let node = Node {
            name: "node".into(),
            domain: String::new(),
            op: self.op.into(),
            inputs: (0..self.inputs.len()).map(|i| format!("x{i}")).collect(),
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
            opsets: BTreeMap::from([(String::new(), self.opset)]),
        }
    }

    /// The outputs; contents that decide shapes are given when asked for, as a session does.
    fn run(&self, symbolic: bool) -> Result<Vec<Tensor>, Stop> {
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
                Err(stop) => return Err(stop),
                Ok(lowered) => {
                    let ids: Vec<_> = lowered.outputs.iter().map(|output| output.1).collect();
                    return Ok(lowered.program.evaluate(&self.inputs, &ids)?);
                }
            }
        }
    }

    /// Both with known sizes and with symbols, the outputs are these.
    pub fn gives(&self, wanted: impl Into<Vec<Tensor>>) {
        let wanted = wanted.into();
        self.check(false, &wanted);
        self.check(true, &wanted);
    }

    /// For what symbols are not supported for.
    pub fn gives_if_sizes_are_known(&self, wanted: impl Into<Vec<Tensor>>) {
        self.check(false, &wanted.into());
    }

    fn check(&self, symbolic: bool, wanted: &[Tensor]) {
        let place = format!("{} {:?} {:?} symbolic={symbolic}", self.op, self.attributes, self.inputs);
        let got = self.run(symbolic).unwrap_or_else(|stop| panic!("{place}: {stop:?}"));
        for (got, want) in got.iter().zip(wanted) {
            assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{place}");
            assert_eq!(got.bytes(), want.bytes(), "{place}");
        }
    }
}
