//! Model-local functions.

use std::collections::BTreeMap;

use tilewright::Tensor;
use tilewright::onnx::proto::*;

use crate::build::*;

/// `scaled(a, b) = (a + b) * f, a`, where `f` is an attribute of default 2, by way of a second function.
fn with_functions() -> ModelProto {
    let reference = |name: &str| AttributeProto {
        name: name.into(),
        ref_attr_name: "f".into(),
        ..AttributeProto::default()
    };
    let constant =
        NodeProto { attribute: vec![reference("value_float")], ..node("Constant", "", &[], &["k"]) };
    let mut call = node("times", "inner", &["sum"], &["out"]);
    (call.domain, call.attribute) = ("local".into(), vec![reference("f")]);
    let function = |name: &str, inputs: &[&str], outputs: &[&str], node: Vec<NodeProto>| FunctionProto {
        name: name.into(),
        domain: "local".into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        node,
        attribute_proto: vec![AttributeProto { f: Some(2.0), ..attribute("f", AttributeType::Float) }],
        opset_import: vec![opset("", 18), opset("other", 1)],
        ..FunctionProto::default()
    };
    let sum = node("Add", "", &["a", "b"], &["sum"]);
    let call_of = |name: &str, inputs: &[&str], outputs: &[&str]| NodeProto {
        domain: "local".into(),
        ..node("scaled", name, inputs, outputs)
    };
    let mut second = call_of("second", &["y1", "x"], &["y2", "copy"]);
    second.attribute.push(AttributeProto { f: Some(5.0), ..attribute("f", AttributeType::Float) });
    let mut m = model(graph(vec![call_of("first", &["x", "x"], &["y1"]), second], &["x"], &["y2", "copy"]));
    m.functions = vec![
        function("scaled", &["a", "b"], &["out", "a"], vec![sum, call]),
        function("times", &["v"], &["p"], vec![constant, node("Mul", "", &["v", "k"], &["p"])]),
    ];
    m
}

#[test]
fn functions_are_replaced_by_their_nodes() {
    let g = read(&with_functions()).unwrap();
    assert_eq!(
        ops(&g),
        ["first/Add_0", "first/inner/Mul_1", "second/Add_0", "second/inner/Mul_1", "second/Identity_2"]
    );
    assert_eq!(g.nodes[1].outputs, ["y1"]);
    assert_eq!(g.nodes[2].inputs, ["y1", "x"]);
    assert_eq!((&g.nodes[4].inputs[0][..], &g.nodes[4].outputs[0][..]), ("y1", "copy"));
    let scalar = |value: f32| Tensor::from_slice(&[], &[value]).unwrap();
    assert_eq!(g.initializers[&g.nodes[1].inputs[1]], scalar(2.0)); // the default
    assert_eq!(g.initializers[&g.nodes[3].inputs[1]], scalar(5.0));
    assert_eq!(g.opsets, BTreeMap::from([("".to_string(), 20), ("other".to_string(), 1)]));
}

#[test]
fn functions_out_of_bounds_are_refused() {
    type Edit = fn(&mut ModelProto);
    let cases: &[(Edit, &str)] = &[
        (|m| m.functions[1].node[1].op_type = "none".into(), ""),
        (
            |m| m.functions[0].input.truncate(1),
            r#"scaled "first": function "scaled" wants at most 1 inputs, got 2"#,
        ),
        (|m| m.functions[0].name = "times".into(), "two functions have the same domain, name and overload"),
        (
            |m| m.functions[1].node[1] = m.functions[0].node[1].clone(),
            r#"times "first/inner/inner": function "times" calls itself"#,
        ),
        (
            // f0 calls f1 twice, f1 calls f2 twice, and so on: 2^40 nodes.
            |m| {
                m.functions.extend((0..40).map(|i| {
                    let mut call = node(&format!("f{}", i + 1), "", &["a"], &["out"]);
                    call.domain = "local".into();
                    let mut second = call.clone();
                    second.output = vec!["out2".into()];
                    let (name, domain) = (format!("f{i}"), "local".into());
                    let (input, output) = (vec!["a".into()], vec!["out".into()]);
                    FunctionProto {
                        name,
                        domain,
                        input,
                        output,
                        node: vec![call, second],
                        ..Default::default()
                    }
                }));
                graph_of(m).node[0].op_type = "f0".into();
                graph_of(m).node[0].input.truncate(1);
            },
            "function calls grow to more than 64 MiB of nodes",
        ),
    ];
    for (edit, wanted) in cases {
        let mut model = with_functions();
        edit(&mut model);
        let error = read(&model).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(wanted), "wanted {wanted}\n   got {error}");
    }
}
