//! Building small models.

use prost::Message;
use tilewright::graph::Graph;
use tilewright::onnx::{parse_bytes, proto::*};
use tilewright::{DType, Error};

pub fn tensor(name: &str, dtype: DType, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: dtype.to_onnx(),
        dims: dims.to_vec(),
        ..TensorProto::default()
    }
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto { float_data: values.to_vec(), ..tensor(name, DType::F32, dims) }
}

pub fn of_type(name: &str, value: TypeValue) -> ValueInfoProto {
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { value: Some(value) }) }
}

pub fn tensor_type(dims: &[DimensionValue]) -> TypeValue {
    let dim = dims.iter().map(|d| DimensionProto { value: Some(d.clone()) }).collect();
    TypeValue::Tensor(TensorTypeProto { elem_type: 1, shape: Some(TensorShapeProto { dim }) })
}

pub fn value(name: &str) -> ValueInfoProto {
    of_type(name, tensor_type(&[DimensionValue::DimValue(2)]))
}

pub fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: name.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        ..NodeProto::default()
    }
}

pub fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: r#type as i32, ..AttributeProto::default() }
}

pub fn subgraph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(Box::new(graph)), ..attribute(name, AttributeType::Graph) }
}

pub fn graph(nodes: Vec<NodeProto>, inputs: &[&str], outputs: &[&str]) -> GraphProto {
    GraphProto {
        name: "g".into(),
        node: nodes,
        input: inputs.iter().map(|n| value(n)).collect(),
        output: outputs.iter().map(|n| value(n)).collect(),
        ..GraphProto::default()
    }
}

pub fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: domain.into(), version }
}

pub fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 10,
        graph: Some(graph),
        opset_import: vec![opset("", 20)],
        ..ModelProto::default()
    }
}

/// `y = Relu(Add(x, w))`
pub fn small() -> ModelProto {
    let nodes = vec![node("Add", "add", &["x", "w"], &["s"]), node("Relu", "relu", &["s"], &["y"])];
    let mut graph = graph(nodes, &["x"], &["y"]);
    graph.initializer.push(floats("w", &[2], &[1.0, 2.0]));
    model(graph)
}

pub fn read(model: &ModelProto) -> Result<Graph, Error> {
    parse_bytes(model.encode_to_vec().into())
}

pub fn graph_of(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

pub fn ops(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|n| n.name.as_str()).collect()
}
