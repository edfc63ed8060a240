//! Tensor data: typed fields and raw bytes.

use bytes::Bytes;
use prost::Message;
use tilewright::DType;
use tilewright::onnx::{NoExternal, parse, parse_tensor, proto::*};

use crate::build::*;

#[test]
fn every_dtype_from_its_typed_field() {
    use DType::*;
    let ints = |dtype, dims: &[i64], values: &[i32]| TensorProto {
        int32_data: values.to_vec(),
        ..tensor("t", dtype, dims)
    };
    let uints =
        |dtype, values: &[u64]| TensorProto { uint64_data: values.to_vec(), ..tensor("t", dtype, &[1]) };
    let doubles =
        |dtype, values: &[f64]| TensorProto { double_data: values.to_vec(), ..tensor("t", dtype, &[1]) };
    let complex = [1.0f64.to_le_bytes(), 2.0f64.to_le_bytes()].concat();
    let cases: &[(TensorProto, &[u8])] = &[
        (floats("t", &[1], &[1.0]), &[0, 0, 0x80, 0x3f]),
        (
            TensorProto { data_type: Complex64.to_onnx(), ..floats("t", &[1], &[1.0, 0.0]) },
            &[0, 0, 0x80, 0x3f, 0, 0, 0, 0],
        ),
        (doubles(F64, &[1.0]), &complex[..8]),
        (doubles(Complex128, &[1.0, 2.0]), &complex),
        (TensorProto { int64_data: vec![-2], ..tensor("t", I64, &[1]) }, &(-2i64).to_le_bytes()),
        (uints(U64, &[u64::MAX]), &[255; 8]),
        (uints(U32, &[0x8000_0001]), &[1, 0, 0, 0x80]),
        (ints(I32, &[1], &[-1]), &[255; 4]),
        (ints(I16, &[2], &[-2, 1]), &[254, 255, 1, 0]),
        (ints(U16, &[1], &[65535]), &[255, 255]),
        (ints(I8, &[2], &[-1, 127]), &[255, 127]),
        (ints(U8, &[2], &[0, 255]), &[0, 255]),
        (ints(Bool, &[3], &[0, 1, 7]), &[0, 1, 1]),
        (ints(F16, &[2], &[0x3c00, 0xbc00]), &[0, 0x3c, 0, 0xbc]),
        (ints(BF16, &[1], &[0xbf80 - 0x1_0000]), &[0x80, 0xbf]), // sign-extended
        (ints(F8E4M3FN, &[1], &[0x81]), &[0x81]),
        (ints(F8E4M3FNUZ, &[1], &[0x81]), &[0x81]),
        (ints(F8E5M2, &[1], &[0x81]), &[0x81]),
        (ints(F8E5M2FNUZ, &[1], &[0x81]), &[0x81]),
        (ints(F8E8M0, &[1], &[0x7f]), &[0x7f]),
        (ints(U4, &[3], &[0x21, 0x03]), &[0x21, 0x03]),
        (ints(I4, &[3], &[0xf8, 0x07]), &[0xf8, 0x07]),
        (ints(F4E2M1, &[2], &[0x21]), &[0x21]),
        (ints(U2, &[5], &[0b11_10_01_00, 1]), &[0b11_10_01_00, 1]),
        (ints(I2, &[4], &[0b11_10_01_00]), &[0b11_10_01_00]),
        (tensor("t", F32, &[0, 3]), &[]),
    ];
    for (proto, wanted) in cases {
        // In the typed field, and the same as raw data.
        let empty = || tensor("t", DType::from_onnx(proto.data_type).unwrap(), &proto.dims);
        let raw = TensorProto { raw_data: wanted.to_vec().into(), ..empty() };
        for proto in [proto, &raw] {
            let (name, tensor) = parse_tensor(proto.encode_to_vec().into()).unwrap();
            assert_eq!((&name[..], &tensor.bytes()[..]), ("t", *wanted), "{proto:?}");
            assert_eq!(tensor.dtype().to_onnx(), proto.data_type);
        }
    }
}

#[test]
fn a_wrong_tensor_is_refused_with_both_figures() {
    let ints =
        |dtype, values: &[i32]| TensorProto { int32_data: values.to_vec(), ..tensor("t", dtype, &[2]) };
    let raw = |len| TensorProto { raw_data: vec![0; len].into(), ..tensor("t", DType::F32, &[2, 3]) };
    let huge = [i64::MAX, 2];
    let cases = [
        (raw(20), "float32 of shape [2, 3] wants 24 bytes, got 20 in raw_data"),
        (raw(25), "float32 of shape [2, 3] wants 24 bytes, got 25 in raw_data"),
        (raw(0), r#"tensor "t" (float32 [2, 3]): has no data"#),
        (floats("t", &[2], &[1.0]), "float32 of shape [2] wants 8 bytes, got 4 in float_data"),
        (floats("t", &[0], &[1.0]), "float32 of shape [0] wants 0 bytes, got 4 in float_data"),
        (ints(DType::U8, &[1, 256]), "uint8 in int32_data: element 1 wants 0 to 255, got 256"),
        (ints(DType::I8, &[-129, 0]), "int8 in int32_data: element 0 wants -128 to 127, got -129"),
        (ints(DType::F32, &[1, 2]), "float32 wants its data in raw_data or float_data, got it in int32_data"),
        (
            TensorProto { raw_data: vec![0; 8].into(), ..floats("t", &[2], &[1.0; 2]) },
            "got it in raw_data and float_data",
        ),
        (
            TensorProto { uint64_data: vec![1 << 32], ..tensor("t", DType::U32, &[1]) },
            "element 0 wants 0 to 4294967295, got 4294967296",
        ),
        (tensor("t", DType::F32, &huge), "has more elements than fit in memory"),
        (TensorProto { data_location: 2, ..floats("t", &[1], &[1.0]) }, "data_location wants 0 or 1, got 2"),
        (
            TensorProto { segment: Some(Segment::default()), ..floats("t", &[1], &[1.0]) },
            "is stored in segments",
        ),
        (TensorProto { data_type: 0, ..floats("t", &[1], &[1.0]) }, "declares no dtype"),
        (TensorProto { data_type: -1, ..floats("t", &[1], &[1.0]) }, "dtype number wants 1 to 28, got -1"),
    ];
    for (proto, wanted) in cases {
        let error = parse_tensor(proto.encode_to_vec().into()).unwrap_err().to_string();
        assert!(error.contains(wanted), "wanted {wanted}\n   got {error}");
    }
}

/// A sparse tensor of these values at these indices.
fn sparse(dims: &[i64], values: TensorProto, shape: &[i64], indices: &[i64]) -> SparseTensorProto {
    let indices = TensorProto { int64_data: indices.to_vec(), ..tensor("", DType::I64, shape) };
    SparseTensorProto { values: Some(values), indices: Some(indices), dims: dims.to_vec() }
}

#[test]
fn sparse_tensors_are_made_dense() {
    let values = || floats("w", &[2], &[1.0, 2.0]);
    let codes = || TensorProto { int32_data: vec![0x21], ..tensor("w", DType::U4, &[2]) };
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let cases: &[(SparseTensorProto, &[usize], Vec<u8>)] = &[
        (sparse(&[2, 3], values(), &[2], &[1, 5]), &[2, 3], floats(&[0., 1., 0., 0., 0., 2.])),
        (sparse(&[2, 3], values(), &[2, 2], &[0, 2, 1, 0]), &[2, 3], floats(&[0., 0., 1., 2., 0., 0.])),
        (sparse(&[5], codes(), &[2, 1], &[1, 4]), &[5], vec![0x10, 0x00, 0x02]),
        (sparse(&[0, 3], tensor("w", DType::F32, &[0]), &[0, 2], &[]), &[0, 3], vec![]),
    ];
    for (proto, shape, bytes) in cases {
        let mut m = small();
        graph_of(&mut m).initializer.clear();
        graph_of(&mut m).sparse_initializer.push(proto.clone());
        let g = read(&m).unwrap();
        assert_eq!((g.initializers["w"].shape(), &g.initializers["w"].bytes()[..]), (*shape, &bytes[..]));
        // The same as a Constant.
        let value = AttributeProto {
            sparse_tensor: Some(Box::new(proto.clone())),
            ..attribute("sparse_value", AttributeType::SparseTensor)
        };
        let constant = NodeProto { attribute: vec![value], ..node("Constant", "c", &[], &["w"]) };
        graph_of(&mut m).sparse_initializer.clear();
        graph_of(&mut m).node.insert(0, constant);
        assert_eq!(&read(&m).unwrap().initializers["w"].bytes()[..], &bytes[..]);
    }
}

#[test]
fn a_wrong_sparse_tensor_is_refused() {
    let values = || floats("w", &[2], &[1.0, 2.0]);
    let cases = [
        (sparse(&[2, 3], values(), &[2], &[1, 6]), "index 1 wants to be within [6], got [6]"),
        (
            sparse(&[2, 3], values(), &[2, 2], &[0, -1, 1, 0]),
            "index 0 wants to be within [2, 3], got [0, -1]",
        ),
        (sparse(&[2, 3], values(), &[2], &[1, 1]), "indices want an ascending order, got [1] at 1"),
        (sparse(&[2, 3], values(), &[3], &[1, 2, 3]), "indices [n] or [n, 2], got [2] and [3]"),
        (sparse(&[1 << 20, 1 << 20], values(), &[2], &[1, 2]), "more than 1073741824 bytes when dense"),
        (sparse(&[-1], values(), &[2], &[1, 2]), "dimension 0 wants 0 to"),
        (SparseTensorProto { indices: None, ..sparse(&[2], values(), &[0], &[]) }, "without indices"),
    ];
    for (proto, wanted) in cases {
        let mut m = small();
        graph_of(&mut m).initializer.clear();
        graph_of(&mut m).sparse_initializer.push(proto);
        let error = read(&m).unwrap_err().to_string();
        assert!(
            error.starts_with("initializer \"w\"") && error.contains(wanted),
            "wanted {wanted}\n   got {error}"
        );
    }
}

#[test]
fn raw_data_is_not_copied() {
    let raw = TensorProto { raw_data: vec![1; 4096].into(), ..tensor("w", DType::F32, &[1024]) };
    let mut m = small();
    graph_of(&mut m).initializer[0] = raw;
    let bytes: Bytes = m.encode_to_vec().into();
    let g = parse(bytes.clone(), &NoExternal).unwrap();
    assert!(bytes.as_ptr_range().contains(&g.initializers["w"].bytes().as_ptr()));
}
