//! `AttributeProto` to [`Attribute`].

use bytes::Bytes;

use super::proto::{AttributeProto, AttributeType};
use super::read::Reader;
use super::tensor;
use crate::error::{Error, Result};
use crate::graph::Attribute;
use crate::tensor::DType;

/// What a string attribute that is no UTF-8 becomes; ONNX says it is UTF-8, few writers check.
const NOT_UTF8: Attribute = Attribute::Other("STRING that is not UTF-8");

impl Reader<'_> {
    /// The attribute of the node at `place`.
    pub(super) fn attribute(&mut self, place: &str, proto: AttributeProto) -> Result<Attribute> {
        let name = proto.name.clone();
        let wrong = |message: &str| Err(Error::model(place, format!("attribute {name:?} {message}")));
        if name.is_empty() {
            return Err(Error::model(place, "an attribute has no name"));
        }
        if !proto.ref_attr_name.is_empty() {
            return wrong(&format!(
                "refers to attribute {:?} of a function, got no function around it",
                proto.ref_attr_name
            ));
        }
        // A scalar that is absent is its default: writers of the proto3 kind leave zeros out.
        Ok(match type_of(&proto) {
            Ok(AttributeType::Float) => Attribute::Float(proto.f.unwrap_or(0.0)),
            Ok(AttributeType::Int) => Attribute::Int(proto.i.unwrap_or(0)),
            Ok(AttributeType::String) => {
                text(proto.s.unwrap_or_default()).map_or(NOT_UTF8, Attribute::String)
            }
            Ok(AttributeType::Floats) => Attribute::Floats(proto.floats),
            Ok(AttributeType::Ints) => Attribute::Ints(proto.ints),
            Ok(AttributeType::Strings) => proto
                .strings
                .into_iter()
                .map(text)
                .collect::<Option<_>>()
                .map_or(NOT_UTF8, Attribute::Strings),
            Ok(AttributeType::Tensor) => match proto.t {
                None => return wrong("holds no tensor"),
                // A table of strings in an operator this crate does not have: the operator is the news.
                Some(tensor) if tensor.data_type == DType::String.to_onnx() => {
                    Attribute::Other("TENSOR of strings")
                }
                Some(tensor) => {
                    let place = format!("{place} attribute {name:?}");
                    let found = tensor::read(&place, *tensor, self.external);
                    self.collect(found)?.map_or(Attribute::Other("TENSOR"), Attribute::Tensor)
                }
            },
            Ok(AttributeType::Graph) => match proto.g {
                None => return wrong("holds no graph"),
                Some(graph) => {
                    let place = format!("{place} attribute {name:?}");
                    Attribute::Graph(Box::new(self.graph(Some(&place), *graph)?))
                }
            },
            Ok(AttributeType::Tensors) => Attribute::Other("TENSORS"),
            Ok(AttributeType::Graphs) => Attribute::Other("GRAPHS"),
            Ok(AttributeType::SparseTensor) => Attribute::Other("SPARSE_TENSOR"),
            Ok(AttributeType::SparseTensors) => Attribute::Other("SPARSE_TENSORS"),
            Ok(AttributeType::TypeProto) => Attribute::Other("TYPE_PROTO"),
            Ok(AttributeType::TypeProtos) => Attribute::Other("TYPE_PROTOS"),
            Ok(AttributeType::Undefined) => return wrong("has neither a type nor a value"),
            Err(number) => return wrong(&format!("type number wants 1 to 14, got {number}")),
        })
    }
}

/// The declared type or, where it is not declared (IR version 1), that of the field in use.
fn type_of(proto: &AttributeProto) -> Result<AttributeType, i32> {
    let declared = AttributeType::try_from(proto.r#type).map_err(|_| proto.r#type)?;
    if declared != AttributeType::Undefined {
        return Ok(declared);
    }
    let in_use = [
        (proto.f.is_some(), AttributeType::Float),
        (proto.i.is_some(), AttributeType::Int),
        (proto.s.is_some(), AttributeType::String),
        (proto.t.is_some(), AttributeType::Tensor),
        (proto.g.is_some(), AttributeType::Graph),
        (!proto.floats.is_empty(), AttributeType::Floats),
        (!proto.ints.is_empty(), AttributeType::Ints),
        (!proto.strings.is_empty(), AttributeType::Strings),
        (!proto.tensors.is_empty(), AttributeType::Tensors),
        (!proto.graphs.is_empty(), AttributeType::Graphs),
    ];
    Ok(in_use.into_iter().find(|(used, _)| *used).map_or(AttributeType::Undefined, |(_, kind)| kind))
}

fn text(bytes: Bytes) -> Option<String> {
    String::from_utf8(bytes.into()).ok()
}
