//! The walk over a whole graph, in passes where something depends on computed values.
//!
//! A node that cannot go on without such a value waits for the next pass, and so do those that read what it makes; all
//! others go first. So a stage of a run computes all that its end, the first pass for which not all is given, asks for: a
//! detector's ninety classes are counted together. Each stage goes through the passes before it alike, whatever is
//! given, so values keep their numbers: what was asked for in a pass is known from the next one on, and a node that
//! waited finds the values again that it had made.
//!
//! Nodes with subgraphs do not wait. The pass ends at them, and they go on where they were.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::scope::{Scope, initializers, live, lower_node, reads, subgraphs};
use super::{Known, Next};
use crate::error::Error;
use crate::graph::{Graph, Node};
use crate::ir::{Def, Given, Needed, Program, Stop, ValueId};

/// A node that is not lowered, and the values that it made so far.
struct Waiting<'a> {
    node: &'a Node,
    made: Vec<ValueId>,
}

/// Add the values of `graph`'s initializers and nodes; what the rest must know, where `known` lacks it.
pub(super) fn walk(
    program: &mut Program,
    graph: &Graph,
    scope: &mut Scope,
    known: &Known,
) -> Result<Option<Next>, Stop> {
    initializers(program, graph, scope);
    let mut waiting: Vec<Waiting> =
        graph.nodes.iter().map(|node| Waiting { node, made: Vec::new() }).collect();
    while !waiting.is_empty() {
        let (asked, still) = pass(program, graph, scope, known, waiting)?;
        let (known_now, unknown): (Vec<Needed>, Vec<Needed>) =
            asked.into_iter().partition(|needed| answers(known, needed));
        if !unknown.is_empty() {
            let mut kept: BTreeSet<ValueId> = unknown.iter().flat_map(|needed| needed.live.clone()).collect();
            kept.extend(live(graph, still.iter().map(|waiting| waiting.node), scope));
            kept.extend(still.iter().flat_map(|waiting| costly(program, &waiting.made)));
            // Several nodes may ask for one value.
            let mut asked = BTreeMap::new();
            for needed in unknown {
                *asked.entry(needed.value).or_insert(true) &= needed.is_count;
            }
            return Ok(Some(Next { asked: asked.into_iter().collect(), live: kept }));
        }
        let before = program.given.len();
        let opened = known_now.iter().filter_map(|needed| known.given.get_key_value(&needed.value));
        program.given.extend(opened.map(|(&id, given)| (id, given.clone())));
        if let Some(waiting) = still.first().filter(|_| program.given.len() == before) {
            return Err(Error::model(waiting.node.place(), "asks for what it was given").into());
        }
        waiting = still;
    }
    Ok(None)
}

/// Lower the nodes that can be; what the others ask for, and those, in order.
fn pass<'a>(
    program: &mut Program,
    graph: &Graph,
    scope: &mut Scope,
    known: &Known,
    nodes: Vec<Waiting<'a>>,
) -> Result<(Vec<Needed>, Vec<Waiting<'a>>), Stop> {
    let (mut asked, mut still) = (Vec::new(), Vec::new());
    let mut missing: HashSet<&str> = HashSet::new();
    let mut nodes = nodes.into_iter();
    while let Some(Waiting { node, mut made }) = nodes.next() {
        let outputs = node.outputs.iter().map(String::as_str).filter(|name| !name.is_empty());
        if reads(node).iter().any(|name| missing.contains(name)) {
            missing.extend(outputs);
            still.push(Waiting { node, made });
            continue;
        }
        let at_once = subgraphs(node).next().is_some();
        program.answers = if at_once { known.given.clone() } else { BTreeMap::new() };
        program.again = made.iter().copied().collect();
        let first = program.values.len() as ValueId;
        match lower_node(program, graph, node, scope, known) {
            Ok(()) => {}
            Err(Stop::NeedsValue(needed)) => {
                made.extend(first..program.values.len() as ValueId);
                missing.extend(outputs);
                still.push(Waiting { node, made });
                asked.push(needed);
                if at_once {
                    still.extend(nodes);
                    break;
                }
            }
            Err(stop) => return Err(stop),
        }
    }
    Ok((asked, still))
}

/// Of the values that a waiting node made, those that are not to be computed a second time when it goes on: orders, and
/// what repetitions end with.
fn costly(program: &Program, made: &[ValueId]) -> Vec<ValueId> {
    let ends: HashSet<ValueId> = program
        .repeats
        .iter()
        .flat_map(|r| r.states.iter().map(|&(old, _)| old).chain(r.stacks.clone()))
        .collect();
    let is_costly = |id: &&ValueId| ends.contains(*id) || matches!(program.value(**id).def, Def::TopK { .. });
    made.iter().filter(is_costly).copied().collect()
}

/// Whether what an earlier stage computed is what is asked for: a count that is a symbol has no elements.
fn answers(known: &Known, needed: &Needed) -> bool {
    match known.given.get(&needed.value) {
        Some(Given::Elements(_)) => true,
        Some(Given::Count) => needed.is_count,
        None => false,
    }
}
