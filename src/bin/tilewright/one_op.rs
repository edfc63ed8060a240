//! Models of one node, for tuning and reading a kernel on its own.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::ValueEnum;
use prost::Message as _;
use tilewright::DType;
use tilewright::onnx::proto::{
    AttributeProto, AttributeType, DimensionProto, DimensionValue, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorShapeProto, TensorTypeProto, TypeProto, TypeValue, ValueInfoProto,
};

use crate::failure::{Failure, Result};

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Op {
    /// A matrix product
    Gemm,
    /// A two-dimensional convolution
    Conv,
    /// Softmax attention
    Attention,
    /// Softmax over rows
    Softmax,
    /// Layer normalisation over rows
    Layernorm,
    /// One expression per element
    Map,
    /// Matrices with rows and columns exchanged
    Transpose,
}

/// The sizes of `--shape`, as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(Vec<(String, usize)>);

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let size = |part: &str| match part.split_once('=').map(|(name, n)| (name.trim(), n.trim().parse())) {
            Some((name, Ok(n))) if !name.is_empty() => Ok((name.to_uppercase(), n)),
            _ => Err(format!("wants NAME=N,NAME=N with whole numbers N, got {part:?}")),
        };
        text.split(',').map(size).collect::<Result<_, _>>().map(Shape)
    }
}

impl Op {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Op::Gemm => "gemm",
            Op::Conv => "conv",
            Op::Attention => "attention",
            Op::Softmax => "softmax",
            Op::Layernorm => "layernorm",
            Op::Map => "map",
            Op::Transpose => "transpose",
        }
    }

    /// The sizes that it has; those with a value need not be given.
    fn sizes(self) -> &'static [(&'static str, Option<usize>)] {
        match self {
            Op::Gemm => &[("M", None), ("N", None), ("K", None), ("B", Some(1))],
            Op::Conv => &[
                ("N", None),
                ("C", None),
                ("H", None),
                ("W", None),
                ("O", None),
                ("K", None),
                ("S", Some(1)),
                ("P", Some(0)),
                ("G", Some(1)),
            ],
            Op::Attention => &[("M", None), ("K", None), ("B", Some(1)), ("D", Some(64))],
            Op::Softmax | Op::Layernorm => &[("ROWS", None), ("COLS", None)],
            Op::Map => &[("N", None)],
            Op::Transpose => &[("ROWS", None), ("COLS", None), ("B", Some(1))],
        }
    }
}

/// An operation at sizes.
#[derive(Clone, Debug)]
pub struct OneOp {
    /// The operation.
    pub op: Op,
    /// Its element type.
    pub dtype: DType,
    sizes: BTreeMap<&'static str, usize>,
}

impl OneOp {
    /// # Errors
    /// [`Failure::Usage`] for sizes that are missing, unknown, given twice, or that make no sense together.
    pub fn new(op: Op, shape: &Shape, dtype: DType) -> Result<OneOp> {
        let wanted: Vec<String> = op
            .sizes()
            .iter()
            .map(|(name, default)| match default {
                None => format!("{name}="),
                Some(default) => format!("[{name}={default}]"),
            })
            .collect();
        let wrong = |what: String| {
            Failure::Usage(format!("--shape: {what}; {} wants {}", op.name(), wanted.join(",")))
        };
        let mut sizes = BTreeMap::new();
        for (name, size) in &shape.0 {
            let Some((known, _)) = op.sizes().iter().find(|(known, _)| known == name) else {
                return Err(wrong(format!("unknown size {name}")));
            };
            if *size == 0 && name != "P" {
                return Err(wrong(format!("{name} is 0")));
            }
            if sizes.insert(*known, *size).is_some() {
                return Err(wrong(format!("{name} is given twice")));
            }
        }
        for (name, default) in op.sizes() {
            if let (None, Some(default)) = (sizes.get(name), default) {
                sizes.insert(name, *default);
            } else if !sizes.contains_key(name) {
                return Err(wrong(format!("{name} is missing")));
            }
        }
        let made = OneOp { op, dtype, sizes };
        if op == Op::Conv {
            let [c, o, g, k, p] = ["C", "O", "G", "K", "P"].map(|name| made.size(name));
            if c % g != 0 || o % g != 0 {
                return Err(wrong(format!("C={c} and O={o} must be multiples of G={g}")));
            }
            if made.size("H").min(made.size("W")) + 2 * p < k {
                return Err(wrong(format!("a window of {k} does not fit")));
            }
        }
        Ok(made)
    }

    fn size(&self, name: &str) -> usize {
        self.sizes.get(name).copied().unwrap_or(1)
    }

    /// Height and width of a convolution's output.
    fn outputs(&self) -> [usize; 2] {
        ["H", "W"].map(|name| {
            (self.size(name) + 2 * self.size("P")).saturating_sub(self.size("K")) / self.size("S") + 1
        })
    }

    /// The sizes, as `M=64,N=64,K=64`, without those that are as by default.
    pub fn shape_text(&self) -> String {
        let changed = self.op.sizes().iter().filter(|(name, default)| *default != Some(self.size(name)));
        let texts: Vec<String> = changed.map(|(name, _)| format!("{name}={}", self.size(name))).collect();
        texts.join(",")
    }

    /// In words, as `gemm M=64,N=64,K=64 float32`.
    pub fn describe(&self) -> String {
        format!("{} {} {}", self.op.name(), self.shape_text(), self.dtype)
    }

    /// Shapes of the inputs, and of the output, which stands last.
    fn shapes(&self) -> Vec<Vec<usize>> {
        let s = |name| self.size(name);
        match self.op {
            Op::Gemm if s("B") == 1 => {
                vec![vec![s("M"), s("K")], vec![s("K"), s("N")], vec![s("M"), s("N")]]
            }
            Op::Gemm => {
                vec![vec![s("B"), s("M"), s("K")], vec![s("B"), s("K"), s("N")], vec![s("B"), s("M"), s("N")]]
            }
            Op::Conv => {
                let [height, width] = self.outputs();
                vec![
                    vec![s("N"), s("C"), s("H"), s("W")],
                    vec![s("O"), s("C") / s("G"), s("K"), s("K")],
                    vec![s("N"), s("O"), height, width],
                ]
            }
            Op::Attention => {
                let heads = |len: usize| vec![1, s("B"), len, s("D")];
                vec![heads(s("M")), heads(s("K")), heads(s("K")), heads(s("M"))]
            }
            Op::Softmax => vec![vec![s("ROWS"), s("COLS")]; 2],
            Op::Layernorm => {
                let rows = vec![s("ROWS"), s("COLS")];
                vec![rows.clone(), vec![s("COLS")], vec![s("COLS")], rows]
            }
            Op::Map => vec![vec![s("N")]; 2],
            Op::Transpose => vec![vec![s("B"), s("ROWS"), s("COLS")], vec![s("B"), s("COLS"), s("ROWS")]],
        }
    }

    /// Multiplications and additions; `None` for operations that move more than they compute.
    pub fn flops(&self) -> Option<f64> {
        let product = |names: &[&str]| names.iter().map(|name| self.size(name) as f64).product::<f64>();
        match self.op {
            Op::Gemm => Some(2.0 * product(&["B", "M", "N", "K"])),
            Op::Conv => {
                let [height, width] = self.outputs().map(|n| n as f64);
                Some(2.0 * height * width * product(&["N", "O", "C", "K", "K"]) / product(&["G"]))
            }
            Op::Attention => Some(4.0 * product(&["B", "M", "K", "D"])),
            Op::Softmax | Op::Layernorm | Op::Map | Op::Transpose => None,
        }
    }

    /// Bytes of inputs and output, each once.
    pub fn bytes(&self, floats: tilewright::expr::Floats) -> f64 {
        let elements: f64 = self.shapes().iter().map(|s| s.iter().map(|&n| n as f64).product::<f64>()).sum();
        elements * tilewright::kernel::storage_bytes(self.dtype, floats) as f64
    }

    /// The model's file.
    pub fn model(&self) -> Vec<u8> {
        let (op_type, inputs): (_, &[&str]) = match self.op {
            Op::Gemm => ("MatMul", &["a", "b"]),
            Op::Conv => ("Conv", &["x", "w"]),
            Op::Attention => ("Attention", &["q", "k", "v"]),
            Op::Softmax => ("Softmax", &["x"]),
            Op::Layernorm => ("LayerNormalization", &["x", "scale", "bias"]),
            Op::Map => ("Gelu", &["x"]),
            Op::Transpose => ("Transpose", &["x"]),
        };
        let attribute = match self.op {
            Op::Conv => {
                let (s, p, g) = (self.size("S") as i64, self.size("P") as i64, self.size("G") as i64);
                vec![ints("strides", &[s, s]), ints("pads", &[p, p, p, p]), int("group", g)]
            }
            Op::Transpose => vec![ints("perm", &[0, 2, 1])],
            Op::Gemm | Op::Attention | Op::Softmax | Op::Layernorm | Op::Map => Vec::new(),
        };
        let mut values: Vec<ValueInfoProto> = inputs
            .iter()
            .chain(&["y"])
            .zip(self.shapes())
            .map(|(name, dims)| value(name, self.dtype, &dims))
            .collect();
        let output = values.split_off(inputs.len());
        let node = NodeProto {
            op_type: op_type.into(),
            name: self.op.name().into(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec!["y".into()],
            attribute,
            ..NodeProto::default()
        };
        let graph = GraphProto {
            name: self.op.name().into(),
            node: vec![node],
            input: values,
            output,
            ..GraphProto::default()
        };
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 23 }];
        ModelProto { ir_version: 9, graph: Some(graph), opset_import, ..ModelProto::default() }
            .encode_to_vec()
    }
}

fn value(name: &str, dtype: DType, dims: &[usize]) -> ValueInfoProto {
    let dim = |&n: &usize| DimensionProto { value: Some(DimensionValue::DimValue(n as i64)) };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = TensorTypeProto { elem_type: dtype.to_onnx(), shape };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)) }) }
}

fn int(name: &str, value: i64) -> AttributeProto {
    let kind = AttributeType::Int as i32;
    AttributeProto { name: name.into(), i: Some(value), r#type: kind, ..AttributeProto::default() }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let kind = AttributeType::Ints as i32;
    AttributeProto { name: name.into(), ints: values.into(), r#type: kind, ..AttributeProto::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked() {
        for (op, shape, want) in [
            (Op::Gemm, "M=1,N=2", "K is missing; gemm wants M=,N=,K=,[B=1]"),
            (Op::Map, "N=4,M=1", "unknown size M"),
            (Op::Map, "N=0", "N is 0"),
            (Op::Map, "N=1,n=1", "N is given twice"),
            (Op::Conv, "N=1,C=3,H=8,W=8,O=4,K=3,G=2", "multiples of G=2"),
            (Op::Conv, "N=1,C=3,H=2,W=8,O=4,K=3", "does not fit"),
        ] {
            let error = OneOp::new(op, &shape.parse().unwrap(), DType::F32).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        assert!("N".parse::<Shape>().is_err() && "N=x".parse::<Shape>().is_err());
    }

    #[test]
    fn models_are_what_they_say() {
        for (op, shape, flops, bytes, output) in [
            (Op::Gemm, "M=2,N=3,K=4", Some(48.0), 4.0 * 26.0, "[2, 3]"),
            (Op::Gemm, "M=2,N=3,K=4,B=5", Some(240.0), 20.0 * 26.0, "[5, 2, 3]"),
            (Op::Conv, "N=1,C=2,H=4,W=5,O=6,K=3,S=2,P=1,G=2", Some(648.0), 4.0 * 130.0, "[1, 6, 2, 3]"),
            (Op::Attention, "M=2,K=3,B=5,D=8", Some(960.0), 4.0 * 400.0, "[1, 5, 2, 8]"),
            (Op::Softmax, "ROWS=2,COLS=3", None, 48.0, "[2, 3]"),
            (Op::Layernorm, "ROWS=2,COLS=3", None, 72.0, "[2, 3]"),
            (Op::Map, "N=7", None, 56.0, "[7]"),
            (Op::Transpose, "ROWS=2,COLS=3,B=5", None, 240.0, "[5, 3, 2]"),
        ] {
            let op = OneOp::new(op, &shape.parse().unwrap(), DType::F32).unwrap();
            assert_eq!((op.flops(), op.bytes(Default::default())), (flops, bytes), "{}", op.describe());
            assert_eq!(op.shape_text(), shape);
            let graph = tilewright::onnx::parse_bytes(op.model().into()).unwrap();
            assert!(tilewright::ops::unsupported(&graph).is_empty());
            let known = tilewright::ops::Known::default();
            let caps = tilewright::kernel::Caps::default();
            let plan = tilewright::plan::plan(&graph, &known, &caps).unwrap();
            assert_eq!(crate::table::shape(&plan.outputs[0].shape), output, "{}", op.describe());
        }
    }
}
