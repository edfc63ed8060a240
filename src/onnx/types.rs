//! Declared types: `ValueInfoProto` to [`ValueInfo`].

use super::proto::{DimensionValue, TensorShapeProto, TypeProto, TypeValue, ValueInfoProto};
use super::tensor::{Fault, dim_of, dtype_of};
use crate::error::Error;
use crate::graph::{Dim, ValueInfo};
use crate::tensor::DType;

/// The declared input or output. `place` names it in messages. `within` a subgraph, ONNX does not demand
/// a type.
pub(super) fn value_info(place: &str, within: bool, proto: ValueInfoProto) -> Result<ValueInfo, Fault> {
    let ValueInfoProto { name, r#type } = proto;
    match r#type.filter(is_declared).and_then(|t| t.value) {
        Some(TypeValue::Tensor(tensor)) => {
            let dtype = dtype_of(place, tensor.elem_type)?;
            let shape = tensor.shape.map(|shape| dims(place, shape)).transpose().map_err(Fault::Wrong)?;
            match dtype {
                DType::String => Err(Fault::Unsupported(format!("{place} is a tensor of strings"))),
                dtype => Ok(ValueInfo { name, dtype, shape }),
            }
        }
        Some(
            other @ (TypeValue::SparseTensor(_)
            | TypeValue::Sequence(_)
            | TypeValue::Optional(_)
            | TypeValue::Map(_)
            | TypeValue::Opaque(_)),
        ) => Err(Fault::Unsupported(format!("{place} is no tensor but {}", describe(&other)))),
        // What the value turns out to be decides; nobody reads this dtype.
        None if within => Ok(ValueInfo { name, dtype: DType::F32, shape: None }),
        None => Err(Fault::Wrong(Error::model(place, "declares no type"))),
    }
}

/// Whether anything is said: some writers give an empty type, or dtype 0, for nothing.
pub(super) fn is_declared(r#type: &TypeProto) -> bool {
    match &r#type.value {
        None => false,
        Some(TypeValue::Tensor(tensor)) => tensor.elem_type != 0,
        Some(
            TypeValue::SparseTensor(_)
            | TypeValue::Sequence(_)
            | TypeValue::Optional(_)
            | TypeValue::Map(_)
            | TypeValue::Opaque(_),
        ) => true,
    }
}

fn dims(place: &str, shape: TensorShapeProto) -> Result<Vec<Dim>, Error> {
    let dim = |(axis, dim): (usize, Option<DimensionValue>)| match dim {
        Some(DimensionValue::DimValue(n)) => Ok(Dim::Static(dim_of(place, axis, n)?)),
        Some(DimensionValue::DimParam(name)) if !name.is_empty() => Ok(Dim::Symbol(name)),
        Some(DimensionValue::DimParam(_)) | None => Ok(Dim::Unknown),
    };
    shape.dim.into_iter().map(|d| d.value).enumerate().map(dim).collect()
}

/// A type for messages in ONNX's notation, as `seq(tensor(float32))`.
fn describe(value: &TypeValue) -> String {
    let dtype = |number: i32| DType::from_onnx(number).map_or("undefined", DType::name);
    let element = |element: &Option<Box<TypeProto>>| match element.as_ref().and_then(|t| t.value.as_ref()) {
        Some(value) => describe(value),
        None => "undefined".into(),
    };
    match value {
        TypeValue::Tensor(t) => format!("tensor({})", dtype(t.elem_type)),
        TypeValue::SparseTensor(t) => format!("sparse_tensor({})", dtype(t.elem_type)),
        TypeValue::Sequence(s) => format!("seq({})", element(&s.elem_type)),
        TypeValue::Optional(o) => format!("optional({})", element(&o.elem_type)),
        TypeValue::Map(m) => format!("map({}, {})", dtype(m.key_type), element(&m.value_type)),
        TypeValue::Opaque(o) => format!("opaque({:?})", o.name),
    }
}
