//! Names and order: every value is produced once and before it is read.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::error::{Error, Result};
use crate::graph::{Attribute, Graph, Node};

/// How many nodes of a cycle a message names.
const NAMED_NODES: usize = 8;

/// Names that a graph's nodes can read; those of the graphs around it too.
struct Scope<'a> {
    names: HashSet<&'a str>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn has(&self, name: &str) -> bool {
        self.names.contains(name) || self.outer.is_some_and(|outer| outer.has(name))
    }
}

/// Checks that every name that is read exists, and that none is produced twice, in `graph` and its
/// subgraphs.
///
/// # Errors
/// [`Error::Model`] naming the node and the value.
pub(super) fn names(graph: &Graph) -> Result<()> {
    names_within(graph, None)
}

fn names_within(graph: &Graph, outer: Option<&Scope<'_>>) -> Result<()> {
    let mut names: HashSet<&str> = graph.initializers.keys().map(String::as_str).collect();
    for input in &graph.inputs {
        let place = || format!("graph input {:?}", input.name);
        if input.name.is_empty() {
            return Err(Error::model(place(), "wants a name, got none"));
        }
        if !names.insert(&input.name) {
            return Err(Error::model(place(), "the name is given to two inputs"));
        }
    }
    for node in &graph.nodes {
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            if !names.insert(output) {
                let message = match graph
                    .nodes
                    .iter()
                    .find(|n| !std::ptr::eq(*n, node) && n.outputs.contains(output))
                {
                    Some(other) => format!("output {output:?} is also produced by {}", other.place()),
                    None if graph.initializers.contains_key(output) => {
                        format!("output {output:?} is also an initializer or Constant")
                    }
                    None if graph.inputs.iter().any(|input| input.name == *output) => {
                        format!("output {output:?} is also a graph input")
                    }
                    None => format!("output {output:?} is listed twice"),
                };
                return Err(Error::model(node.place(), message));
            }
        }
    }
    let scope = Scope { names, outer };
    for node in &graph.nodes {
        for (index, input) in node.inputs.iter().enumerate() {
            if !input.is_empty() && !scope.has(input) {
                return Err(Error::model(
                    node.place(),
                    format!(
                        "input {index} {input:?} exists nowhere: \
                         no node, initializer or graph input has this name"
                    ),
                ));
            }
        }
        for graph in subgraphs(node) {
            names_within(graph, Some(&scope))?;
        }
    }
    for output in &graph.outputs {
        if !scope.has(&output.name) {
            return Err(Error::model(
                format!("graph output {:?}", output.name),
                "nothing produces it: no node, initializer or graph input has this name",
            ));
        }
    }
    Ok(())
}

/// Puts the nodes of `graph` and its subgraphs in topological order. Nodes keep the file's order as far
/// as possible: of those that are ready, the first comes first.
///
/// # Errors
/// [`Error::Model`] with the nodes of a cycle.
pub(super) fn sort(graph: &mut Graph) -> Result<()> {
    for node in &mut graph.nodes {
        for attribute in node.attributes.values_mut() {
            if let Attribute::Graph(graph) = attribute {
                sort(graph)?;
            }
        }
    }
    let Some(order) = order(&graph.nodes)? else { return Ok(()) };
    tracing::debug!(graph = graph.name, "nodes were not in topological order: sorted");
    let mut nodes: Vec<_> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.into_iter().filter_map(|index| nodes[index].take()).collect();
    Ok(())
}

/// The order to put `nodes` in, `None` where they are in order.
fn order(nodes: &[Node]) -> Result<Option<Vec<usize>>> {
    let mut producer = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        producer
            .extend(node.outputs.iter().filter(|name| !name.is_empty()).map(|name| (name.as_str(), index)));
    }
    let reads_from: Vec<Vec<usize>> = nodes
        .iter()
        .map(|node| reads(node).into_iter().filter_map(|name| producer.get(name).copied()).collect())
        .collect();
    if reads_from.iter().enumerate().all(|(index, from)| from.iter().all(|&f| f < index)) {
        return Ok(None);
    }

    let mut waits_for: Vec<usize> = reads_from.iter().map(Vec::len).collect();
    let mut read_by = vec![Vec::new(); nodes.len()];
    for (index, from) in reads_from.iter().enumerate() {
        from.iter().for_each(|&f| read_by[f].push(index));
    }
    let mut ready: BinaryHeap<_> = (0..nodes.len()).filter(|&i| waits_for[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for &reader in &read_by[index] {
            waits_for[reader] -= 1;
            if waits_for[reader] == 0 {
                ready.push(Reverse(reader));
            }
        }
    }
    match waits_for.iter().position(|&count| count > 0) {
        None => Ok(Some(order)),
        Some(start) => Err(cycle(nodes, &reads_from, &waits_for, start)),
    }
}

/// The error for a cycle, found by going from `start`, which waits, to nodes it waits for.
fn cycle(nodes: &[Node], reads_from: &[Vec<usize>], waits_for: &[usize], start: usize) -> Error {
    let mut path = vec![start];
    let mut position = HashMap::from([(start, 0)]);
    let mut at = start;
    // A node that waits reads from one that waits, so this ends in a repetition.
    let first = loop {
        let Some(&from) = reads_from[at].iter().find(|&&f| waits_for[f] > 0) else { break 0 };
        if let Some(&first) = position.get(&from) {
            break first;
        }
        position.insert(from, path.len());
        path.push(from);
        at = from;
    };
    // In the direction of the data, from the node that the file gives first.
    let mut indices: Vec<_> = path[first..].iter().rev().copied().collect();
    if let Some(earliest) = (0..indices.len()).min_by_key(|&i| indices[i]) {
        indices.rotate_left(earliest);
    }
    let mut members: Vec<_> = indices.iter().map(|&index| nodes[index].place()).collect();
    let (count, begin) = (members.len(), nodes[indices[0]].place());
    members.truncate(NAMED_NODES);
    let more =
        if count > NAMED_NODES { format!(" -> ({} more)", count - NAMED_NODES) } else { String::new() };
    Error::model(&begin, format!("the graph has a cycle: {}{more} -> {begin}", members.join(" -> ")))
}

/// Every value that `node` reads, those that its subgraphs capture included.
fn reads(node: &Node) -> Vec<&str> {
    let mut names: Vec<&str> =
        node.inputs.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    subgraphs(node).for_each(|graph| names.extend(captures(graph)));
    names
}

/// The values that `graph` reads from the graphs around it.
fn captures(graph: &Graph) -> Vec<&str> {
    let mut own: HashSet<&str> = graph.initializers.keys().map(String::as_str).collect();
    own.extend(graph.inputs.iter().map(|input| input.name.as_str()));
    own.extend(graph.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str));
    let outputs = graph.outputs.iter().map(|output| output.name.as_str());
    let read = graph.nodes.iter().flat_map(reads).chain(outputs);
    read.filter(|name| !own.contains(name)).collect()
}

fn subgraphs(node: &Node) -> impl Iterator<Item = &Graph> {
    node.attributes.values().filter_map(|attribute| match attribute {
        Attribute::Graph(graph) => Some(&**graph),
        Attribute::Float(_)
        | Attribute::Int(_)
        | Attribute::String(_)
        | Attribute::Tensor(_)
        | Attribute::Floats(_)
        | Attribute::Ints(_)
        | Attribute::Strings(_)
        | Attribute::Other(_) => None,
    })
}
