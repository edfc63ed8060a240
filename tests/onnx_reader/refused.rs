//! What is refused, and what the messages say.

use prost::Message;
use tilewright::onnx::{OPSET_MAX, OPSET_MIN, parse_bytes, proto::*};
use tilewright::{DType, Error};

use crate::build::*;

#[test]
fn other_files_and_damaged_ones_are_named() {
    let whole = small().encode_to_vec();
    let mut deep = graph(vec![node("Relu", "", &["x"], &["y"])], &[], &["y"]);
    for _ in 0..60 {
        let mut outer = node("If", "", &["c"], &["y"]);
        outer.attribute.push(subgraph("then_branch", deep));
        deep = graph(vec![outer], &[], &["y"]);
    }
    let random: Vec<u8> = (0..300u32).map(|i| (i.wrapping_mul(2654435761) >> 13) as u8).collect();
    let mut wrong_inside = whole.clone();
    let at = wrong_inside.windows(3).position(|w| w == b"add").unwrap();
    wrong_inside[at - 1] = 0xff; // the length of the node's name
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("empty", vec![], "model: not an ONNX model: the file is empty"),
        ("text", b"BERT model card\n".to_vec(), "not an ONNX model: this looks like text"),
        ("text, UTF-8", "Modèle de langue".into(), "not an ONNX model: this looks like text"),
        ("PNG", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), "not an ONNX model: this is a PNG image"),
        ("zip", b"PK\x03\x04\0\0".to_vec(), "not an ONNX model: this is a ZIP archive"),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "this is a Git LFS pointer"),
        ("safetensors", b"\x40\0\0\0\0\0\0\0{\"w\":{}}".to_vec(), "this is a safetensors file"),
        ("random", random, "not an ONNX model: "),
        ("zeros", vec![0; 64], "not an ONNX model: ModelProto has no field 0, as at byte 0"),
        ("half", whole[..whole.len() / 2].to_vec(), "the file is cut off or damaged: field graph wants"),
        (
            "one byte short",
            whole[..whole.len() - 1].to_vec(),
            "cut off or damaged: field opset_import wants 2",
        ),
        (
            "without its end",
            whole[..whole.len() - 4].to_vec(),
            "opset_import wants a version of ai.onnx, got",
        ),
        ("damaged inside", wrong_inside, "damaged ONNX model: "),
        ("deep", model(deep).encode_to_vec(), "recursion limit reached"),
        ("a tensor", floats("w", &[1], &[1.0]).encode_to_vec(), "not an ONNX model: "),
        ("no graph", ModelProto { graph: None, ..small() }.encode_to_vec(), "has no graph"),
    ];
    for (name, bytes, wanted) in cases {
        let error = parse_bytes(bytes.clone().into()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{name}: {error}");
    }
    for len in 0..whole.len() {
        assert!(parse_bytes(whole[..len].to_vec().into()).is_err(), "the first {len} bytes");
    }
}

#[test]
fn a_wrong_graph_is_refused_with_place_and_name() {
    type Edit = fn(&mut ModelProto);
    let cases: &[(Edit, &str)] = &[
        (|m| m.opset_import[0].version = OPSET_MIN - 1, "model: opset wants 1 to 28, got 0 of ai.onnx"),
        (|m| m.opset_import[0].version = OPSET_MAX + 1, "model: opset wants 1 to 28, got 29 of ai.onnx"),
        (
            |m| m.opset_import = vec![opset("a", 1)],
            r#"Add "add": opset_import wants a version of ai.onnx, got domains ["a"]"#,
        ),
        (
            |m| graph_of(m).initializer.clear(),
            r#"Add "add": input 1 "w" exists nowhere: no node, initializer or graph input has this name"#,
        ),
        (|m| graph_of(m).input.clear(), r#"Add "add": input 0 "x" exists nowhere"#),
        (|m| graph_of(m).output.push(value("z")), r#"graph output "z": nothing produces it"#),
        (|m| graph_of(m).output.clear(), "model: the graph has no outputs"),
        (|m| graph_of(m).input.push(value("x")), r#"graph input "x": the name is given to two inputs"#),
        (|m| graph_of(m).input.push(value("")), r#"graph input "": wants a name, got none"#),
        (
            |m| graph_of(m).node[1].output.push("s".into()),
            r#"Relu "relu": output "s" is also produced by Add "add""#,
        ),
        (|m| graph_of(m).node[1].output.push("y".into()), r#"Relu "relu": output "y" is listed twice"#),
        (
            |m| graph_of(m).node[1].output.push("w".into()),
            r#"Relu "relu": output "w" is also an initializer"#,
        ),
        (|m| graph_of(m).node[1].output.push("x".into()), r#"Relu "relu": output "x" is also a graph input"#),
        (
            |m| graph_of(m).node[0].input[0] = "y".into(),
            r#"the graph has a cycle: Add "add" -> Relu "relu" -> Add "add""#,
        ),
        (
            |m| graph_of(m).node[1].input[0] = "y".into(),
            r#"the graph has a cycle: Relu "relu" -> Relu "relu""#,
        ),
        (|m| graph_of(m).node[1].op_type.clear(), r#"node "relu": node 1 has no operator"#),
        (
            |m| graph_of(m).initializer.push(floats("w", &[], &[1.0])),
            r#"initializer "w": value "w" is already an initializer or Constant"#,
        ),
        (|m| graph_of(m).initializer.push(floats("", &[], &[1.0])), r#"initializer "": wants a value name"#),
        (|m| graph_of(m).initializer[0].dims = vec![-2], r#"initializer "w": dimension 0 wants 0 to"#),
        (
            |m| graph_of(m).initializer[0].data_type = 99,
            r#"initializer "w": dtype number wants 1 to 28, got 99"#,
        ),
        (
            |m| graph_of(m).input[0] = of_type("x", tensor_type(&[DimensionValue::DimValue(-1)])),
            r#"graph input "x": dimension 0 wants 0 to 9223372036854775807, got -1"#,
        ),
        (|m| graph_of(m).input[0].r#type = None, r#"graph input "x": declares no type"#),
        (
            |m| graph_of(m).node[1].attribute = vec![attribute("a", AttributeType::Int); 2],
            r#"Relu "relu": attribute "a" is given twice"#,
        ),
        (
            |m| graph_of(m).node[1].attribute.push(attribute("a", AttributeType::Undefined)),
            r#"Relu "relu": attribute "a" has neither a type nor a value"#,
        ),
        (
            |m| {
                graph_of(m).node[1]
                    .attribute
                    .push(AttributeProto { r#type: 15, ..attribute("a", AttributeType::Int) })
            },
            r#"Relu "relu": attribute "a" type number wants 1 to 14, got 15"#,
        ),
        (
            |m| graph_of(m).node[1].attribute.push(attribute("a", AttributeType::Tensor)),
            r#"Relu "relu": attribute "a" holds no tensor"#,
        ),
        (
            |m| {
                let reference =
                    AttributeProto { ref_attr_name: "b".into(), ..attribute("a", AttributeType::Int) };
                graph_of(m).node[1].attribute.push(reference);
            },
            r#"Relu "relu": attribute "a" refers to attribute "b" of a function, got no function"#,
        ),
        (
            |m| graph_of(m).node.push(node("Constant", "c", &[], &["k"])),
            r#"Constant "c": wants one attribute"#,
        ),
    ];
    assert!(read(&small()).is_ok());
    for (edit, wanted) in cases {
        let mut model = small();
        edit(&mut model);
        let error = read(&model).unwrap_err().to_string();
        assert!(error.contains(wanted), "wanted {wanted}\n   got {error}");
    }
}

#[test]
fn unsupported_things_are_reported_together() {
    let mut m = small();
    let g = graph_of(&mut m);
    let element = TypeProto { value: Some(tensor_type(&[])) };
    let boxed = || Box::new(ElementTypeProto { elem_type: Some(Box::new(element.clone())) });
    let map = MapTypeProto { key_type: 7, value_type: Some(Box::new(element.clone())) };
    g.input.push(of_type("in", TypeValue::Sequence(boxed())));
    g.input.push(of_type("map", TypeValue::Map(Box::new(map))));
    g.output.push(of_type("out", TypeValue::Optional(boxed())));
    g.initializer.push(tensor("names", DType::String, &[1]));
    g.initializer.push(TensorProto { data_type: 27, ..tensor("f6", DType::F32, &[1]) });
    g.node.push(NodeProto {
        attribute: vec![attribute("value_strings", AttributeType::Strings)],
        ..node("Constant", "value_strings", &[], &["value_strings"])
    });
    let Err(Error::Unsupported { items }) = read(&m) else { panic!("{:?}", read(&m)) };
    assert_eq!(
        items,
        [
            r#"initializer "names" is a tensor of strings"#,
            r#"initializer "f6" has dtype float6e2m3"#,
            r#"graph input "in" is no tensor but seq(tensor(float32))"#,
            r#"graph input "map" is no tensor but map(int64, tensor(float32))"#,
            r#"graph output "out" is no tensor but optional(tensor(float32))"#,
            r#"Constant "value_strings" is a tensor of strings"#,
        ]
    );
}

#[test]
fn tensors_without_data_are_listed() {
    let mut m = small();
    graph_of(&mut m).initializer.extend((0..6).map(|i| tensor(&format!("t{i}"), DType::F32, &[3, i])));
    let error = read(&m).unwrap_err().to_string();
    // The first, t0, has no element.
    assert!(error.starts_with(r#"initializer "t1" (float32 [3, 1]): has no data"#), "{error}");
    assert!(error.ends_with(r#"nor has initializer "t4" (float32 [3, 4]); and 1 more"#), "{error}");
}
