//! Graphs as they come out.

use std::collections::BTreeMap;

use bytes::Bytes;
use tilewright::graph::{Attribute, Dim};
use tilewright::onnx::proto::*;
use tilewright::{DType, Tensor};

use crate::build::*;

#[test]
fn a_graph_keeps_names_order_and_types() {
    let mut m = small();
    let g = graph_of(&mut m);
    g.node.reverse();
    g.node.push(node("Neg", "", &["s", ""], &["", "n"]));
    g.input.push(value("w")); // as before IR version 4
    let dims = [
        DimensionValue::DimParam("batch".into()),
        DimensionValue::DimValue(0),
        DimensionValue::DimParam("".into()),
    ];
    g.input.push(of_type("z", tensor_type(&dims)));
    g.output.push(value("w"));
    g.output[0].r#type = None;
    g.value_info.push(value("y"));
    m.opset_import.extend([opset("ai.onnx", 21), opset("com.example", 3)]);
    g_domain(&mut m);
    let g = read(&m).unwrap();
    assert_eq!(ops(&g), ["add", "relu", "Neg_2"]);
    assert_eq!(g.nodes[2].domain, "");
    assert_eq!(
        (&g.nodes[2].inputs[..], &g.nodes[2].outputs[..]),
        (&["s".into(), "".to_string()][..], &["".into(), "n".to_string()][..])
    );
    assert_eq!(g.inputs.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["x", "z"]);
    assert_eq!(g.inputs[1].shape, Some(vec![Dim::Symbol("batch".into()), Dim::Static(0), Dim::Unknown]));
    assert_eq!((g.outputs[0].dtype, g.outputs.len()), (DType::F32, 2));
    assert_eq!(g.initializers["w"], Tensor::from_slice(&[2], &[1.0f32, 2.0]).unwrap());
    assert_eq!(g.opsets, BTreeMap::from([("".to_string(), 21), ("com.example".to_string(), 3)]));
}

fn g_domain(m: &mut ModelProto) {
    graph_of(m).node[2].domain = "ai.onnx".into();
}

#[test]
fn attributes_of_every_kind() {
    let text = |bytes: &'static [u8]| AttributeProto {
        s: Some(Bytes::from_static(bytes)),
        ..attribute("a", AttributeType::String)
    };
    let untyped = AttributeProto { i: Some(7), ..attribute("a", AttributeType::Undefined) };
    let list = AttributeProto { ints: vec![1, -2], floats: vec![], ..attribute("a", AttributeType::Ints) };
    let some = AttributeProto {
        t: Some(Box::new(floats("", &[], &[3.0]))),
        ..attribute("a", AttributeType::Tensor)
    };
    let strings = AttributeProto { t: Some(Box::new(tensor("", DType::String, &[1]))), ..some.clone() };
    let cases = [
        (AttributeProto { f: Some(0.5), ..attribute("a", AttributeType::Float) }, "Float(0.5)"),
        (attribute("a", AttributeType::Int), "Int(0)"),
        (untyped, "Int(7)"),
        (text(b"same"), r#"String("same")"#),
        (text(b"\xff"), r#"Other("STRING that is not UTF-8")"#),
        (list, "Ints([1, -2])"),
        (attribute("a", AttributeType::Floats), "Floats([])"),
        (attribute("a", AttributeType::Strings), "Strings([])"),
        (some, "Tensor(Tensor(float32 [], 4 bytes))"),
        (strings, r#"Other("TENSOR of strings")"#),
        (attribute("a", AttributeType::Graphs), r#"Other("GRAPHS")"#),
        (attribute("a", AttributeType::TypeProto), r#"Other("TYPE_PROTO")"#),
    ];
    for (attribute, wanted) in cases {
        let mut m = small();
        graph_of(&mut m).node[0].attribute.push(attribute);
        assert_eq!(format!("{:?}", read(&m).unwrap().nodes[0].attributes["a"]), wanted);
    }
}

#[test]
fn constants_become_initializers() {
    let some = AttributeProto {
        t: Some(Box::new(floats("", &[1, 2], &[3.0, 4.0]))),
        ..attribute("value", AttributeType::Tensor)
    };
    let cases = [
        (some, Tensor::from_slice(&[1, 2], &[3.0f32, 4.0])),
        (
            AttributeProto { f: Some(2.5), ..attribute("value_float", AttributeType::Float) },
            Tensor::from_slice(&[], &[2.5f32]),
        ),
        (
            AttributeProto { i: Some(-3), ..attribute("value_int", AttributeType::Int) },
            Tensor::from_slice(&[], &[-3i64]),
        ),
        (
            AttributeProto { floats: vec![1.0], ..attribute("value_floats", AttributeType::Floats) },
            Tensor::from_slice(&[1], &[1.0f32]),
        ),
        (
            AttributeProto { ints: vec![4, 5], ..attribute("value_ints", AttributeType::Ints) },
            Tensor::from_slice(&[2], &[4i64, 5]),
        ),
        (attribute("value_ints", AttributeType::Ints), Tensor::from_slice::<i64>(&[0], &[])),
    ];
    for (attribute, wanted) in cases {
        let mut m = small();
        let g = graph_of(&mut m);
        g.initializer.clear();
        g.node.push(NodeProto { attribute: vec![attribute], ..node("Constant", "", &[], &["w"]) });
        let g = read(&m).unwrap();
        assert_eq!(ops(&g), ["add", "relu"]);
        assert_eq!(g.initializers["w"], wanted.unwrap());
    }
}

/// `y = If(c) { Relu(s) } else { nothing but t }`, where `s` and `t` come from outside, and late.
fn branching(then_reads: &str) -> ModelProto {
    let mut branch = node("If", "if", &["c"], &["y"]);
    branch
        .attribute
        .push(subgraph("then_branch", graph(vec![node("Relu", "", &[then_reads], &["r"])], &[], &["r"])));
    branch.attribute.push(subgraph("else_branch", graph(vec![], &[], &["t"])));
    let nodes = vec![branch, node("Neg", "neg", &["x"], &["s"]), node("Abs", "abs", &["x"], &["t"])];
    model(graph(nodes, &["x", "c"], &["y"]))
}

#[test]
fn subgraphs_capture_outer_values() {
    let g = read(&branching("s")).unwrap();
    assert_eq!(ops(&g), ["neg", "abs", "if"]);
    let Attribute::Graph(then) = &g.nodes[2].attributes["then_branch"] else { panic!("{:?}", g.nodes[2]) };
    assert_eq!((ops(then), then.opsets[""]), (vec!["Relu_0"], 20));

    let error = read(&branching("q")).unwrap_err().to_string();
    assert!(error.starts_with(r#"Relu "Relu_0": input 0 "q" exists nowhere"#), "{error}");
    let error = read(&branching("y")).unwrap_err().to_string();
    assert!(error.contains(r#"the graph has a cycle: If "if" -> If "if""#), "{error}");
}
