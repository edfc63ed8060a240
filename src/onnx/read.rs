//! `GraphProto` to [`Graph`]: nodes, attributes, initializers, as the file says them. Names are not
//! checked here (see [`super::check`]).

use std::collections::BTreeMap;

use super::External;
use super::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use super::sparse;
use super::tensor::{self, Fault};
use super::types;
use crate::error::{Error, Result};
use crate::graph::{Graph, Node};
use crate::tensor::Tensor;

/// How many tensors without data a message names.
const NAMED_TENSORS: usize = 4;

/// Reads graphs and collects what is to be reported at once.
pub(super) struct Reader<'a> {
    pub(super) external: &'a dyn External,
    opsets: &'a BTreeMap<String, i64>,
    unsupported: Vec<String>,
    without_data: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(external: &'a dyn External, opsets: &'a BTreeMap<String, i64>) -> Self {
        Reader { external, opsets, unsupported: Vec::new(), without_data: Vec::new() }
    }

    /// The model's graph.
    ///
    /// # Errors
    /// The first thing that is wrong; else everything unsupported; else the tensors without data.
    pub(super) fn read(mut self, proto: GraphProto) -> Result<Graph> {
        let graph = self.graph(None, proto)?;
        if !self.unsupported.is_empty() {
            return Err(Error::Unsupported { items: self.unsupported });
        }
        if let Some((first, others)) = self.without_data.split_first() {
            let mut message = "has no data, neither in the file nor external".to_string();
            for other in others.iter().take(NAMED_TENSORS - 1) {
                message += &format!("; nor has {other}");
            }
            if others.len() >= NAMED_TENSORS {
                message += &format!("; and {} more", others.len() + 1 - NAMED_TENSORS);
            }
            return Err(Error::model(first, message));
        }
        Ok(graph)
    }

    /// A graph, `within` the attribute of that place or the model's own.
    pub(super) fn graph(&mut self, within: Option<&str>, proto: GraphProto) -> Result<Graph> {
        let (of, within) = (within.unwrap_or("graph"), within.is_some());
        let mut graph = Graph { name: proto.name, opsets: self.opsets.clone(), ..Graph::default() };
        for tensor in proto.initializer {
            let place = format!("initializer {:?}", tensor.name);
            let name = tensor.name.clone();
            self.initializer(&mut graph, place, name, tensor)?;
        }
        for proto in proto.sparse_initializer {
            let name = proto.values.as_ref().map(|values| values.name.clone()).unwrap_or_default();
            let place = format!("initializer {name:?}");
            let found = sparse::read(&place, proto, self.external);
            if let Some(tensor) = self.collect(found)? {
                insert(&mut graph, &place, name, tensor)?;
            }
        }
        let declared: BTreeMap<_, _> = proto.value_info.into_iter().map(|v| (v.name, v.r#type)).collect();
        let with_type = |value: ValueInfoProto| match &value.r#type {
            Some(r#type) if types::is_declared(r#type) => value,
            Some(_) | None => {
                ValueInfoProto { r#type: declared.get(&value.name).cloned().flatten(), ..value }
            }
        };
        for input in proto.input {
            // Before IR version 4 every initializer had to be listed among the inputs as well.
            if !graph.initializers.contains_key(&input.name) {
                let place = format!("{of} input {:?}", input.name);
                let found = types::value_info(&place, within, with_type(input));
                graph.inputs.extend(self.collect(found)?);
            }
        }
        for output in proto.output {
            let place = format!("{of} output {:?}", output.name);
            let found = types::value_info(&place, within, with_type(output));
            graph.outputs.extend(self.collect(found)?);
        }
        for (index, node) in proto.node.into_iter().enumerate() {
            self.node(&mut graph, index, node)?;
        }
        Ok(graph)
    }

    /// Keeps unsupported things and missing data for later; other faults end the reading.
    pub(super) fn collect<T>(&mut self, found: Result<T, Fault>) -> Result<Option<T>> {
        match found {
            Ok(value) => Ok(Some(value)),
            Err(Fault::Unsupported(item)) => {
                self.unsupported.push(item);
                Ok(None)
            }
            Err(Fault::NoData(tensor)) => {
                self.without_data.push(tensor);
                Ok(None)
            }
            Err(Fault::Wrong(error)) => Err(error),
        }
    }

    fn initializer(
        &mut self,
        graph: &mut Graph,
        place: String,
        name: String,
        proto: TensorProto,
    ) -> Result<()> {
        let found = tensor::read(&place, proto, self.external);
        if let Some(tensor) = self.collect(found)? {
            insert(graph, &place, name, tensor)?;
        }
        Ok(())
    }

    fn node(&mut self, graph: &mut Graph, index: usize, proto: NodeProto) -> Result<()> {
        let name = node_name(&proto, index);
        let place = format!("{} {name:?}", proto.op_type);
        if proto.op_type.is_empty() {
            return Err(Error::model(
                format!("node {:?}", proto.name),
                format!("node {index} has no operator"),
            ));
        }
        let domain = normalised_domain(proto.domain);
        if domain.is_empty() && !self.opsets.contains_key("") {
            let got: Vec<_> = self.opsets.keys().collect();
            let message = format!("opset_import wants a version of ai.onnx, got domains {got:?}");
            return Err(Error::model(place, message));
        }
        if domain.is_empty() && proto.op_type == "Constant" {
            return self.constant(graph, place, proto.output, proto.attribute);
        }
        let mut attributes = BTreeMap::new();
        for attribute in proto.attribute {
            let name = attribute.name.clone();
            let value = self.attribute(&place, attribute)?;
            if attributes.insert(name.clone(), value).is_some() {
                return Err(Error::model(place, format!("attribute {name:?} is given twice")));
            }
        }
        let (op, inputs, outputs) = (proto.op_type, proto.input, proto.output);
        graph.nodes.push(Node { name, domain, op, inputs, outputs, attributes });
        Ok(())
    }

    /// A `Constant` node becomes an initializer under the name of its output.
    fn constant(
        &mut self,
        graph: &mut Graph,
        place: String,
        outputs: Vec<String>,
        attributes: Vec<AttributeProto>,
    ) -> Result<()> {
        let found = match (<[String; 1]>::try_from(outputs), <[AttributeProto; 1]>::try_from(attributes)) {
            (Ok([output]), Ok([attribute])) => self.constant_value(&place, attribute).map(|v| (output, v)),
            (Err(outputs), _) => {
                Err(Fault::Wrong(Error::model(&place, format!("wants one output, got {}", outputs.len()))))
            }
            (Ok(_), Err(attributes)) => {
                let names: Vec<_> = attributes.iter().map(|a| &a.name).collect();
                let message = format!("wants one attribute, which holds its value, got {names:?}");
                Err(Fault::Wrong(Error::model(&place, message)))
            }
        };
        if let Some((output, tensor)) = self.collect(found)? {
            insert(graph, &place, output, tensor)?;
        }
        Ok(())
    }

    fn constant_value(&self, place: &str, attribute: AttributeProto) -> Result<Tensor, Fault> {
        let wrong = |message: &str| Fault::Wrong(Error::model(place, message));
        let scalar_or_list = |tensor: Result<Tensor>| tensor.map_err(Fault::Wrong);
        match attribute.name.as_str() {
            "value" => match attribute.t {
                Some(tensor) => tensor::read(place, *tensor, self.external),
                None => Err(wrong("attribute \"value\" holds no tensor")),
            },
            "value_float" => scalar_or_list(Tensor::from_slice(&[], &[attribute.f.unwrap_or(0.0)])),
            "value_int" => scalar_or_list(Tensor::from_slice(&[], &[attribute.i.unwrap_or(0)])),
            "value_floats" => {
                scalar_or_list(Tensor::from_slice(&[attribute.floats.len()], &attribute.floats))
            }
            "value_ints" => scalar_or_list(Tensor::from_slice(&[attribute.ints.len()], &attribute.ints)),
            "value_string" | "value_strings" => {
                Err(Fault::Unsupported(format!("{place} is a tensor of strings")))
            }
            "sparse_value" => match attribute.sparse_tensor {
                Some(proto) => sparse::read(place, *proto, self.external),
                None => Err(wrong("attribute \"sparse_value\" holds no sparse tensor")),
            },
            other => Err(wrong(&format!("has no attribute {other:?}"))),
        }
    }
}

/// The node's own name, or one of its operator and position.
pub(super) fn node_name(proto: &NodeProto, index: usize) -> String {
    if proto.name.is_empty() { format!("{}_{index}", proto.op_type) } else { proto.name.clone() }
}

/// The domain as the graph has it: empty for ai.onnx.
pub(super) fn normalised_domain(domain: String) -> String {
    if domain == "ai.onnx" { String::new() } else { domain }
}

fn insert(graph: &mut Graph, place: &str, name: String, tensor: Tensor) -> Result<()> {
    if name.is_empty() {
        return Err(Error::model(place, "wants a value name, got none"));
    }
    match graph.initializers.insert(name.clone(), tensor) {
        None => Ok(()),
        Some(_) => Err(Error::model(place, format!("value {name:?} is already an initializer or Constant"))),
    }
}
