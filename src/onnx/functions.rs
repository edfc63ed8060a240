//! Model-local functions: each call is replaced by the function's nodes, with the values renamed.

use std::collections::{HashMap, HashSet};

use prost::Message;

use super::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto};
use super::read::{node_name, normalised_domain};
use crate::error::{Error, Result};

/// Calls and subgraphs within each other, at most: bounds the recursion over what comes of them. Decoding
/// bounds the subgraphs of a file to 33.
const MAX_DEPTH: usize = 64;

/// What all inlined nodes may take, about, as [`Definition`] counts: a file of a few KB can call its way to
/// 2^30 nodes, and real ones stay under a hundredth of this.
const MAX_INLINED_BYTES: usize = 64 << 20;

/// What a node takes in memory beside its encoded fields, about.
const NODE_BYTES: usize = 128;

/// A function's domain, name and overload.
type Key = (String, String, String);

/// Replaces every call in `graph` and its subgraphs.
///
/// # Errors
/// [`Error::Model`] for a function that calls itself, is defined twice, is called with too many inputs or
/// outputs, or grows out of bounds.
pub(super) fn inline(graph: &mut GraphProto, functions: Vec<FunctionProto>) -> Result<()> {
    if functions.is_empty() {
        return Ok(());
    }
    let mut by_key = HashMap::new();
    for function in functions {
        let domain = normalised_domain(function.domain.clone());
        let key = (domain, function.name.clone(), function.overload.clone());
        if by_key.insert(key, Definition::of(function)).is_some() {
            return Err(Error::model("functions", "two functions have the same domain, name and overload"));
        }
    }
    let mut taken = HashSet::new();
    each_name(graph, &mut |name| {
        taken.insert(name.clone());
    });
    let mut inliner = Inliner { functions: &by_key, taken, calls: Vec::new(), depth: 0, spent_bytes: 0 };
    inliner.graph(graph)
}

struct Inliner<'f> {
    functions: &'f HashMap<Key, Definition>,
    /// Every value name in use, so that a new one is new everywhere.
    taken: HashSet<String>,
    /// The calls around the current one.
    calls: Vec<&'f Key>,
    /// Calls and subgraphs around.
    depth: usize,
    spent_bytes: usize,
}

impl<'f> Inliner<'f> {
    fn graph(&mut self, graph: &mut GraphProto) -> Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(Error::model(
                format!("graph {:?}", graph.name),
                format!("functions and subgraphs are nested deeper than {MAX_DEPTH}"),
            ));
        }
        self.depth += 1;
        graph.node = self.nodes(std::mem::take(&mut graph.node))?;
        self.depth -= 1;
        Ok(())
    }

    fn nodes(&mut self, nodes: Vec<NodeProto>) -> Result<Vec<NodeProto>> {
        let mut out = Vec::with_capacity(nodes.len());
        for (index, mut node) in nodes.into_iter().enumerate() {
            node.name = node_name(&node, index); // positions change below
            for attribute in &mut node.attribute {
                for graph in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
                    self.graph(graph)?;
                }
            }
            let key = (normalised_domain(node.domain.clone()), node.op_type.clone(), node.overload.clone());
            match self.functions.get_key_value(&key) {
                None => out.push(node),
                Some((key, definition)) => out.extend(self.call(&node, key, definition)?),
            }
        }
        Ok(out)
    }

    /// The nodes that stand for `call`, with the calls in them replaced too.
    fn call(&mut self, call: &NodeProto, key: &'f Key, definition: &Definition) -> Result<Vec<NodeProto>> {
        let function = &definition.function;
        let place = || format!("{} {:?}", call.op_type, call.name);
        if self.calls.contains(&key) {
            return Err(Error::model(place(), format!("function {:?} calls itself", key.1)));
        }
        if self.depth == MAX_DEPTH {
            return Err(Error::model(place(), format!("functions are nested deeper than {MAX_DEPTH}")));
        }
        for (what, wanted, got) in [
            ("inputs", function.input.len(), call.input.len()),
            ("outputs", function.output.len(), call.output.len()),
        ] {
            if got > wanted {
                return Err(Error::model(
                    place(),
                    format!("function {:?} wants at most {wanted} {what}, got {got}", key.1),
                ));
            }
        }
        let longest = call.input.iter().chain(&call.output).chain([&call.name]).map(String::len).max();
        let names_bytes = definition.names.saturating_mul(longest.unwrap_or(0));
        self.spend(call, definition.weight_bytes.saturating_add(names_bytes))?;
        let body = self.body(call, function)?;
        self.calls.push(key);
        self.depth += 1;
        let nodes = self.nodes(body)?;
        self.depth -= 1;
        self.calls.pop();
        Ok(nodes)
    }

    /// The function's nodes with the call's names and attributes.
    fn body(&mut self, call: &NodeProto, function: &FunctionProto) -> Result<Vec<NodeProto>> {
        let mut names: HashMap<String, String> = HashMap::from([(String::new(), String::new())]);
        let actual = |names: &[String], index: usize| names.get(index).cloned().unwrap_or_default();
        for (index, formal) in function.input.iter().enumerate() {
            names.insert(formal.clone(), actual(&call.input, index));
        }
        let mut copies = Vec::new();
        for (index, formal) in function.output.iter().enumerate() {
            match actual(&call.output, index) {
                name if name.is_empty() => {}
                // An input handed through has the caller's name already: this is a second one.
                name if names.contains_key(formal) => copies.push((names[formal].clone(), name)),
                name => {
                    names.insert(formal.clone(), name);
                }
            }
        }
        let mut nodes = function.node.clone();
        for (index, node) in nodes.iter_mut().enumerate() {
            node.name = format!("{}/{}", call.name, node_name(node, index));
        }
        let mut rename = |name: &mut String| {
            let new = names.entry(name.clone()).or_insert_with(|| {
                let mut new = format!("{}/{name}", call.name);
                while !self.taken.insert(new.clone()) {
                    new.push('\'');
                }
                new
            });
            name.clone_from(new);
        };
        nodes.iter_mut().for_each(|node| each_name_of(node, &mut rename));
        // After the renaming: the caller's subgraphs speak of the caller's values.
        let mut bound_bytes = 0;
        nodes.iter_mut().for_each(|node| bind_attributes(node, call, function, &mut bound_bytes));
        nodes.extend(copies.into_iter().enumerate().map(|(index, (from, to))| NodeProto {
            name: format!("{}/Identity_{}", call.name, function.node.len() + index),
            op_type: "Identity".into(),
            input: vec![from],
            output: vec![to],
            ..NodeProto::default()
        }));
        self.spend(call, bound_bytes)?;
        Ok(nodes)
    }

    fn spend(&mut self, call: &NodeProto, more_bytes: usize) -> Result<()> {
        self.spent_bytes = self.spent_bytes.saturating_add(more_bytes);
        if self.spent_bytes <= MAX_INLINED_BYTES {
            return Ok(());
        }
        Err(Error::model(
            format!("{} {:?}", call.op_type, call.name),
            format!("function calls grow to more than {} MiB of nodes", MAX_INLINED_BYTES >> 20),
        ))
    }
}

/// A function with what a call of it costs.
struct Definition {
    function: FunctionProto,
    weight_bytes: usize,
    /// Names in the body, each of which a call may make longer.
    names: usize,
}

impl Definition {
    fn of(mut function: FunctionProto) -> Definition {
        let mut names = function.node.len(); // their own names
        function.node.iter_mut().for_each(|node| each_name_of(node, &mut |_| names += 1));
        Definition { weight_bytes: weight_bytes(&function), function, names }
    }
}

/// Replaces references to the function's attributes by the call's, or by their defaults; one with neither
/// is left out, so that the operator's own default holds.
fn bind_attributes(
    node: &mut NodeProto,
    call: &NodeProto,
    function: &FunctionProto,
    bound_bytes: &mut usize,
) {
    node.attribute.retain_mut(|attribute| {
        if attribute.ref_attr_name.is_empty() {
            let graphs = attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs);
            for node in graphs.flat_map(|graph| &mut graph.node) {
                bind_attributes(node, call, function, bound_bytes);
            }
            return true;
        }
        let mut given = call.attribute.iter().chain(&function.attribute_proto);
        let Some(value) = given.find(|a| a.name == attribute.ref_attr_name) else { return false };
        *bound_bytes = bound_bytes.saturating_add(value.encoded_len() - raw_bytes_of(value));
        // Once over, the call fails: no need to copy any more.
        if *bound_bytes <= MAX_INLINED_BYTES {
            *attribute = AttributeProto { name: std::mem::take(&mut attribute.name), ..value.clone() };
        }
        true
    });
}

/// About what one copy of the nodes takes in memory; `raw_data` is shared and so not counted.
fn weight_bytes(function: &FunctionProto) -> usize {
    function.node.iter().map(node_weight_bytes).sum()
}

fn node_weight_bytes(node: &NodeProto) -> usize {
    let raw_bytes: usize = node.attribute.iter().map(raw_bytes_of).sum();
    NODE_BYTES * nodes_within(node) + node.encoded_len() - raw_bytes
}

fn nodes_within(node: &NodeProto) -> usize {
    let graphs = node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs));
    1 + graphs.flat_map(|graph| &graph.node).map(nodes_within).sum::<usize>()
}

fn raw_bytes_of(attribute: &AttributeProto) -> usize {
    let of = |tensor: &TensorProto| tensor.raw_data.len();
    let own = attribute.t.as_deref().into_iter().chain(&attribute.tensors).map(of).sum::<usize>();
    let graphs = attribute.g.as_deref().into_iter().chain(&attribute.graphs);
    let within = |graph: &GraphProto| -> usize {
        let initializers = graph.initializer.iter().map(of).sum::<usize>();
        initializers + graph.node.iter().flat_map(|node| &node.attribute).map(raw_bytes_of).sum::<usize>()
    };
    own + graphs.map(within).sum::<usize>()
}

/// Calls `visit` with every value name in the graph and its subgraphs.
fn each_name(graph: &mut GraphProto, visit: &mut impl FnMut(&mut String)) {
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    values.for_each(|value| visit(&mut value.name));
    graph.initializer.iter_mut().for_each(|tensor| visit(&mut tensor.name));
    graph.node.iter_mut().for_each(|node| each_name_of(node, visit));
}

/// Calls `visit` with every value name in the node and its subgraphs.
fn each_name_of(node: &mut NodeProto, visit: &mut impl FnMut(&mut String)) {
    node.input.iter_mut().chain(&mut node.output).for_each(&mut *visit);
    for attribute in &mut node.attribute {
        let graphs = attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs);
        graphs.for_each(|graph| each_name(graph, visit));
    }
}
