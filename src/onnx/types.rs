//! Declared types: `ValueInfoProto` to [`ValueInfo`].

use super::proto::{DimensionValue, TensorShapeProto, TypeProto, TypeValue, ValueInfoProto};
use super::tensor::{Fault, dim_of, dtype_of};
use crate::error::Error;
use crate::graph::{Dim, ValueInfo};
use crate::tensor::DType;

/// The declared input or output. `place` names it in messages.
pub(super) fn value_info(place: &str, proto: ValueInfoProto) -> Result<ValueInfo, Fault> {
    let ValueInfoProto { name, r#type } = proto;
    match r#type.and_then(|t| t.value) {
        Some(TypeValue::Tensor(tensor)) => {
            let dtype = dtype_of(place, tensor.elem_type)?;
            let shape = tensor.shape.map(|shape| dims(place, shape)).transpose().map_err(Fault::Wrong)?;
            match dtype {
                DType::String => Err(Fault::Unsupported(format!("{place} is a tensor of strings"))),
                dtype => Ok(ValueInfo { name, dtype, shape }),
            }
        }
        Some(other) => Err(Fault::Unsupported(format!("{place} is {}", describe(&other)))),
        None => Err(Fault::Wrong(Error::model(place, "declares no type"))),
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

/// A type for messages, as `a sequence of float32 tensors`.
fn describe(value: &TypeValue) -> String {
    let dtype = |number: i32| DType::from_onnx(number).map_or("undefined", DType::name);
    let element = |element: &Option<Box<TypeProto>>| match element.as_ref().and_then(|t| t.value.as_ref()) {
        Some(value) => describe(value),
        None => "an undeclared type".into(),
    };
    match value {
        TypeValue::Tensor(t) => format!("a {} tensor", dtype(t.elem_type)),
        TypeValue::SparseTensor(t) => format!("a sparse {} tensor", dtype(t.elem_type)),
        TypeValue::Sequence(s) => format!("a sequence of {}", element(&s.elem_type)),
        TypeValue::Optional(o) => format!("an optional of {}", element(&o.elem_type)),
        TypeValue::Map(m) => format!("a map from {} to {}", dtype(m.key_type), element(&m.value_type)),
        TypeValue::Opaque(o) => format!("an opaque {:?}", o.name),
    }
}
