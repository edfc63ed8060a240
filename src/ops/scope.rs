//! The walk over a graph's nodes, and the names that they see: their own graph's, and those of the graphs
//! around it.

use std::collections::HashMap;

use super::{Cx, Known, find};
use crate::error::Error;
use crate::graph::{Attribute, Graph, Node};
use crate::ir::{Program, Stop, ValueId};

/// Values by name.
#[derive(Debug, Default)]
pub struct Scope<'a> {
    names: HashMap<String, ValueId>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    /// The value called `name` here or, if there is none, further out.
    pub fn get(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied().or_else(|| self.outer?.get(name))
    }

    /// Name a value; the name hides one further out.
    pub fn insert(&mut self, name: &str, id: ValueId) {
        self.names.insert(name.into(), id);
    }
}

/// Add the values of a subgraph's initializers and nodes.
fn walk(program: &mut Program, graph: &Graph, scope: &mut Scope, known: &Known) -> Result<(), Stop> {
    initializers(program, graph, scope);
    for (position, node) in graph.nodes.iter().enumerate() {
        match lower_node(program, graph, node, scope, known) {
            Err(stop @ Stop::NeedsValue(_)) => {
                return Err(stop.keeping(live(graph, &graph.nodes[position..], scope)));
            }
            lowered => lowered?,
        }
    }
    Ok(())
}

/// Add the values of the initializers.
pub(super) fn initializers(program: &mut Program, graph: &Graph, scope: &mut Scope) {
    for (name, tensor) in &graph.initializers {
        program.place = name.clone();
        let id = program.weight(tensor.clone());
        scope.insert(name, id);
    }
}

/// Add the values of a node, and name its outputs.
pub(super) fn lower_node(
    program: &mut Program,
    graph: &Graph,
    node: &Node,
    scope: &mut Scope,
    known: &Known,
) -> Result<(), Stop> {
    program.place = node.place();
    let at = |name: &String| match name.as_str() {
        "" => Ok(None),
        name => scope
            .get(name)
            .map(Some)
            .ok_or_else(|| Error::model(node.place(), format!("input {name:?} does not exist"))),
    };
    let inputs = node.inputs.iter().map(at).collect::<Result<Vec<_>, _>>()?;
    let op = find(&node.domain, &node.op).ok_or_else(|| Error::model(node.place(), "unknown operator"))?;
    let opset = graph.opsets.get(&node.domain).copied().unwrap_or(1);
    let outputs = (op.lower)(&mut Cx { program, node, opset, inputs, known, scope })?;
    for (name, &id) in node.outputs.iter().zip(&outputs) {
        if program.values[id as usize].name == node.place() {
            program.values[id as usize].name = name.clone();
        }
        scope.insert(name, id);
    }
    let missing = node.outputs.iter().skip(outputs.len()).find(|name| !name.is_empty());
    if let Some(name) = missing {
        let item = format!("output {name:?} of {}", node.place());
        return Err(Error::Unsupported { items: vec![item] }.into());
    }
    Ok(())
}

/// What `nodes`, which are not lowered yet, read, and the graph's outputs.
pub(super) fn live<'a>(
    graph: &Graph,
    nodes: impl IntoIterator<Item = &'a Node>,
    scope: &Scope,
) -> Vec<ValueId> {
    let mut names: Vec<&str> = graph.outputs.iter().map(|info| info.name.as_str()).collect();
    nodes.into_iter().for_each(|node| names.extend(reads(node)));
    names.into_iter().filter_map(|name| scope.get(name)).collect()
}

/// The names that a node reads, its subgraphs' included.
pub(super) fn reads(node: &Node) -> Vec<&str> {
    let mut nodes = vec![node];
    let mut names = Vec::new();
    for inner in subgraphs(node) {
        all_nodes(inner, &mut nodes);
        names.extend(inner.outputs.iter().map(|info| info.name.as_str()));
    }
    names.extend(nodes.iter().flat_map(|node| &node.inputs).map(String::as_str));
    names
}

/// The graphs among a node's attributes.
pub(super) fn subgraphs(node: &Node) -> impl Iterator<Item = &Graph> {
    node.attributes.values().filter_map(|attribute| match attribute {
        Attribute::Graph(graph) => Some(graph.as_ref()),
        _ => None,
    })
}

/// The outputs of the subgraph `graph` of `cx`'s node, given its inputs.
pub(super) fn body(cx: &mut Cx, graph: &Graph, inputs: &[ValueId]) -> Result<Vec<ValueId>, Stop> {
    if graph.inputs.len() != inputs.len() {
        return Err(cx.error(format!("a subgraph of {} inputs got {}", graph.inputs.len(), inputs.len())));
    }
    let mut scope = Scope { names: HashMap::new(), outer: Some(cx.scope) };
    for (info, &id) in graph.inputs.iter().zip(inputs) {
        scope.insert(&info.name, id);
    }
    walk(cx.program, graph, &mut scope, cx.known)?;
    cx.program.place = cx.node.place();
    let missing = |name: &str| cx.error(format!("no node makes the subgraph's output {name:?}"));
    graph.outputs.iter().map(|info| scope.get(&info.name).ok_or_else(|| missing(&info.name))).collect()
}

/// All nodes of `graph`, those of the graphs in its nodes' attributes included.
pub(super) fn all_nodes<'a>(graph: &'a Graph, found: &mut Vec<&'a Node>) {
    for node in &graph.nodes {
        found.push(node);
        for inner in subgraphs(node) {
            all_nodes(inner, found);
        }
    }
}
