//! One node at a time, on the CPU: what the families' tests are made of.

use std::collections::BTreeMap;

use super::{Known, lower};
use crate::error::Error;
use crate::graph::{Attribute, Dim, Graph, Node, ValueInfo};
use crate::ir::Stop;
use crate::tensor::Tensor;

/// A float32 tensor.
pub fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape, values).unwrap()
}

/// 0, 1, 2, ... as a float32 tensor.
pub fn range(shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32).collect();
    f32s(shape, &values)
}

/// Integers as an attribute.
pub fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

/// The outputs of a node, with constant shapes and again with every size but 1 a symbol; both must agree.
/// `op` may name its domain, as `com.microsoft.Gelu`.
pub fn run(
    op: &str,
    opset: i64,
    attributes: &[(&str, Attribute)],
    inputs: &[Tensor],
    outputs: usize,
) -> Vec<Tensor> {
    let fixed = evaluate(op, opset, attributes, inputs, outputs, false).unwrap();
    let symbolic = evaluate(op, opset, attributes, inputs, outputs, true).unwrap();
    assert_eq!(fixed, symbolic, "{op} with symbolic sizes");
    fixed
}

/// Why a node is refused.
pub fn refusal(op: &str, opset: i64, attributes: &[(&str, Attribute)], inputs: &[Tensor]) -> String {
    evaluate(op, opset, attributes, inputs, 1, false).unwrap_err().to_string()
}

/// The one float32 output of a node must be `want`, to a relative and absolute 1e-5.
pub fn check(op: &str, opset: i64, attributes: &[(&str, Attribute)], inputs: &[Tensor], want: &Tensor) {
    let got = &run(op, opset, attributes, inputs, 1)[0];
    assert_eq!(got.shape(), want.shape(), "{op} {attributes:?}");
    let (got, want) = (got.to_vec::<f32>().unwrap(), want.to_vec::<f32>().unwrap());
    let close = |(g, w): (&f32, &f32)| g == w || (g - w).abs() <= 1e-5 + 1e-5 * w.abs();
    assert!(got.iter().zip(&want).all(close), "{op} {attributes:?}: got {got:?}, want {want:?}");
}

fn evaluate(
    op: &str,
    opset: i64,
    attributes: &[(&str, Attribute)],
    inputs: &[Tensor],
    outputs: usize,
    symbolic: bool,
) -> Result<Vec<Tensor>, Error> {
    let (domain, op) = op.rsplit_once('.').unwrap_or(("", op));
    let names = |prefix: &str, count: usize| (0..count).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>();
    let dim = |input: usize, axis: usize, size: usize| match size {
        _ if !symbolic => Dim::Static(size),
        1 => Dim::Static(1),
        _ => Dim::Symbol(format!("s{input}_{axis}")),
    };
    let info = |i: usize, tensor: &Tensor| {
        let shape = tensor.shape().iter().enumerate().map(|(axis, &size)| dim(i, axis, size)).collect();
        ValueInfo { name: format!("x{i}"), dtype: tensor.dtype(), shape: Some(shape) }
    };
    let y = |name: String| ValueInfo { name, dtype: inputs[0].dtype(), shape: None };
    let graph = Graph {
        nodes: vec![Node {
            name: "node".into(),
            domain: domain.into(),
            op: op.into(),
            inputs: names("x", inputs.len()),
            outputs: names("y", outputs),
            attributes: attributes.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        }],
        inputs: inputs.iter().enumerate().map(|(i, tensor)| info(i, tensor)).collect(),
        outputs: names("y", outputs).into_iter().map(y).collect(),
        opsets: BTreeMap::from([
            (String::new(), opset),
            (domain.to_string(), if domain.is_empty() { opset } else { 1 }),
        ]),
        ..Graph::default()
    };
    let mut known = Known::default();
    let lowered = loop {
        match lower(&graph, &known) {
            Ok(lowered) => break lowered,
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::NeedsInputs(wanted)) => {
                known.contents.extend(wanted.into_iter().map(|i| (i, inputs[i].clone())));
            }
        }
    };
    let wanted: Vec<_> = lowered.outputs.iter().map(|(_, id)| *id).collect();
    lowered.program.evaluate(inputs, &wanted)
}
