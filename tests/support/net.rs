//! Building small models in a few lines.

use prost::Message;
use tilewright::graph::Graph;
use tilewright::kernel::Caps;
use tilewright::onnx::{parse_bytes, proto::*};
use tilewright::ops::{self, Known};
use tilewright::plan::{Plan, plan};
use tilewright::{DType, Session, Tensor};

/// A model being put together. Shapes are text, as `"batch 12 seq 64"`: numbers and symbols.
#[derive(Clone, Default)]
pub struct Net(pub GraphProto);

/// A name with the attribute's value.
pub type Attribute = AttributeProto;

fn attribute(name: &str, kind: AttributeType) -> Attribute {
    AttributeProto { name: name.into(), r#type: kind as i32, ..AttributeProto::default() }
}

/// An integer attribute.
pub fn int(name: &str, value: i64) -> Attribute {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

/// A graph.
pub fn graph(name: &str, net: &Net) -> Attribute {
    AttributeProto { g: Some(Box::new(net.0.clone())), ..attribute(name, AttributeType::Graph) }
}

/// A list of integers.
pub fn ints(name: &str, values: &[i64]) -> Attribute {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

/// A float attribute.
pub fn float(name: &str, value: f32) -> Attribute {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

/// A string attribute.
pub fn text(name: &str, value: &str) -> Attribute {
    AttributeProto { s: Some(value.as_bytes().to_vec().into()), ..attribute(name, AttributeType::String) }
}

fn value_info(name: &str, dtype: DType, dims: Option<&str>) -> ValueInfoProto {
    let dim = |word: &str| {
        let value = match word.parse() {
            Ok(size) => Some(DimensionValue::DimValue(size)),
            Err(_) if word == "?" => None,
            Err(_) => Some(DimensionValue::DimParam(word.into())),
        };
        DimensionProto { value }
    };
    let shape = dims.map(|dims| TensorShapeProto { dim: dims.split_whitespace().map(dim).collect() });
    let tensor = TensorTypeProto { elem_type: dtype.to_onnx(), shape };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)) }) }
}

impl Net {
    /// An empty model.
    pub fn new() -> Net {
        Net(GraphProto { name: "net".into(), ..GraphProto::default() })
    }

    /// A graph input.
    pub fn input(mut self, name: &str, dtype: DType, dims: &str) -> Net {
        self.0.input.push(value_info(name, dtype, Some(dims)));
        self
    }

    /// A graph input of unknown rank.
    pub fn input_of_any_rank(mut self, name: &str, dtype: DType) -> Net {
        self.0.input.push(value_info(name, dtype, None));
        self
    }

    /// A constant.
    pub fn weight(mut self, name: &str, tensor: &Tensor) -> Net {
        self.0.initializer.push(TensorProto {
            name: name.into(),
            data_type: tensor.dtype().to_onnx(),
            dims: tensor.shape().iter().map(|&d| d as i64).collect(),
            raw_data: tensor.bytes().clone(),
            ..TensorProto::default()
        });
        self
    }

    /// A float constant of made-up values.
    pub fn floats(self, name: &str, shape: &[usize]) -> Net {
        let seed = name.bytes().map(u32::from).sum();
        self.weight(name, &made_up(shape, seed))
    }

    /// A float scalar.
    pub fn scalar(self, name: &str, value: f32) -> Net {
        self.weight(name, &Tensor::from_slice(&[], &[value]).unwrap())
    }

    /// A constant vector of int64.
    pub fn list(self, name: &str, values: &[i64]) -> Net {
        self.weight(name, &Tensor::from_slice(&[values.len()], values).unwrap())
    }

    /// A node; inputs and outputs are words. Named after its first output. `op` may name its domain, as
    /// `com.microsoft.MoE`.
    pub fn node(mut self, op: &str, inputs: &str, outputs: &str, attributes: &[Attribute]) -> Net {
        // `-` is an omitted input.
        let words = |text: &str| -> Vec<String> {
            text.split_whitespace()
                .map(|word| if word == "-" { String::new() } else { word.into() })
                .collect()
        };
        let output = words(outputs);
        let (domain, op) = op.rsplit_once('.').unwrap_or(("", op));
        self.0.node.push(NodeProto {
            op_type: op.into(),
            domain: domain.into(),
            name: output.first().cloned().unwrap_or_default(),
            input: words(inputs),
            output,
            attribute: attributes.to_vec(),
            ..NodeProto::default()
        });
        self
    }

    /// A graph output.
    pub fn output(mut self, name: &str, dtype: DType) -> Net {
        self.0.output.push(value_info(name, dtype, None));
        self
    }

    /// The model file.
    pub fn bytes(&self) -> Vec<u8> {
        // The operator Attention came late.
        let late = self.0.node.iter().any(|node| node.op_type == "Attention" && node.domain.is_empty());
        self.bytes_of_opset(if late { 23 } else { 20 })
    }

    /// The model file, of that opset of ai.onnx.
    pub fn bytes_of_opset(&self, version: i64) -> Vec<u8> {
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        let opset_import = vec![opset("", version), opset("com.microsoft", 1)];
        let graph = Some(self.0.clone());
        ModelProto { ir_version: 9, graph, opset_import, ..ModelProto::default() }.encode_to_vec()
    }

    /// The model as the reader gives it.
    pub fn graph(&self) -> Graph {
        parse_bytes(self.bytes().into()).unwrap()
    }

    /// Its plan for a device with `caps`.
    pub fn plan(&self, caps: &Caps) -> Plan {
        plan(&self.graph(), &Known::default(), caps).unwrap()
    }

    /// A session on the device under test.
    pub fn session(&self) -> tilewright::Result<Session> {
        Session::load(self.bytes(), &super::options())
    }

    /// What the model gives for `inputs`, on the CPU, element by element.
    pub fn evaluate(&self, inputs: &[Tensor]) -> tilewright::Result<Vec<Tensor>> {
        let shapes = inputs.iter().map(|t| t.shape().to_vec()).enumerate().collect();
        let contents = std::collections::BTreeMap::new();
        let mut known = Known { shapes, contents, ..Known::default() };
        let lowered = loop {
            match ops::lower(&self.graph(), &known) {
                Ok(lowered) => match &lowered.next {
                    None => break lowered,
                    Some(next) => {
                        let ids: Vec<_> = next.asked.iter().map(|&(id, _)| id).collect();
                        let values = lowered.program.evaluate(inputs, &ids)?;
                        let values = values.into_iter().map(tilewright::ir::Given::Elements);
                        known.given.extend(ids.into_iter().zip(values));
                    }
                },
                Err(tilewright::ir::Stop::Error(error)) => return Err(error),
                Err(tilewright::ir::Stop::NeedsInputs(needed)) => {
                    known.contents.extend(needed.into_iter().map(|i| (i, inputs[i].clone())));
                }
                Err(tilewright::ir::Stop::NeedsShapes | tilewright::ir::Stop::NeedsValue(_)) => {
                    let item = "a size that is not known though all shapes are given";
                    return Err(tilewright::Error::Unsupported { items: vec![item.into()] });
                }
            }
        };
        let wanted: Vec<_> = lowered.outputs.iter().map(|(_, id)| *id).collect();
        lowered.program.evaluate(inputs, &wanted)
    }
}

/// Floats in -1..1 that look random and are the same everywhere.
pub fn made_up(shape: &[usize], seed: u32) -> Tensor {
    let len: usize = shape.iter().product();
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..len).map(|_| next()).collect();
    Tensor::from_slice(shape, &values).unwrap()
}
