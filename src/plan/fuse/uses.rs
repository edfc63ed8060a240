//! How values are used, before it is decided what becomes of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::expr::{Expr, Node, flatten, numel, vars};
use crate::ir::{Def, Program, ValueId};
use crate::plan::quantized::is_dequantization;

/// Values that `outputs` depend on, with those that read each.
pub fn users(program: &Program, outputs: &BTreeSet<ValueId>) -> BTreeMap<ValueId, BTreeSet<ValueId>> {
    let mut users: BTreeMap<ValueId, BTreeSet<ValueId>> =
        outputs.iter().map(|&id| (id, BTreeSet::new())).collect();
    for id in (0..program.values.len() as ValueId).rev() {
        if users.contains_key(&id) {
            for source in program.value(id).sources() {
                users.entry(source).or_default().insert(id);
            }
        }
    }
    users
}

/// The maps that end the same-size elementwise work after a contraction: each becomes the epilogue,
/// rather than being recomputed by every pass of a row kernel that reads it.
pub fn epilogue_tails(
    program: &Program,
    outputs: &BTreeSet<ValueId>,
    users: &BTreeMap<ValueId, BTreeSet<ValueId>>,
) -> BTreeSet<ValueId> {
    let contracts = users.keys().filter(|&&id| matches!(program.value(id).def, Def::Contract { .. }));
    contracts.filter_map(|&start| epilogue_tail(program, outputs, users, start)).collect()
}

/// The last map that everything computed from `start`, element for element, comes together in. Branches that
/// meet again are followed, as in `x * (1 + erf(x))`.
fn epilogue_tail(
    program: &Program,
    outputs: &BTreeSet<ValueId>,
    users: &BTreeMap<ValueId, BTreeSet<ValueId>>,
    start: ValueId,
) -> Option<ValueId> {
    let (mut chain, mut open) = (BTreeSet::from([start]), users.get(&start)?.clone());
    let mut tail = None;
    // The earliest reader comes first: what it reads has been visited.
    while let Some(user) = open.pop_first() {
        if chain.iter().any(|id| outputs.contains(id)) {
            break;
        }
        let may_end = match &program.value(user).def {
            Def::Reshape(_) => false,
            Def::Map(body) if chain.iter().all(|&id| reads_in_place(program, body, user, id)) => {
                outputs.contains(&user) || !is_dequantization(program, user, body)
            }
            _ => break,
        };
        open.extend(users.get(&user)?);
        chain.insert(user);
        if may_end && sole_end(&chain, users, user) {
            tail = Some(user);
        }
    }
    tail
}

/// Whether `end` is the only value of `chain` that others read.
fn sole_end(chain: &BTreeSet<ValueId>, users: &BTreeMap<ValueId, BTreeSet<ValueId>>, end: ValueId) -> bool {
    let within = |id: &ValueId| users.get(id).is_some_and(|readers| readers.is_subset(chain));
    chain.iter().all(|id| *id == end || within(id))
}

/// What updates write that is made of their bases: it is there before they begin, as a kernel cannot read what it writes.
pub fn made_of_bases(program: &Program) -> BTreeSet<ValueId> {
    let mut made = BTreeSet::new();
    for update in program.values.iter().filter_map(|value| value.update.as_ref()) {
        update.value.visit(&mut |e| {
            if let Node::Load { source, .. } = e.node()
                && program.value(*source).sources().contains(&update.base)
            {
                made.insert(*source);
            }
        });
    }
    made
}

/// The maps that a reduction leads to through maps alone: the results of row kernels.
pub fn after_reductions(
    program: &Program,
    users: &BTreeMap<ValueId, BTreeSet<ValueId>>,
) -> BTreeSet<ValueId> {
    let mut after = BTreeSet::new();
    for &id in users.keys() {
        let leads = |source: &ValueId| {
            after.contains(source) || matches!(program.value(*source).def, Def::Reduce { .. })
        };
        let passes = matches!(program.value(id).def, Def::Map(_) | Def::Reshape(_));
        if passes && program.value(id).sources().iter().any(leads) {
            after.insert(id);
        }
    }
    after
}

/// Whether `body`, the map of `user`, reads `source` element for element.
fn reads_in_place(program: &Program, body: &Expr, user: ValueId, source: ValueId) -> bool {
    let shape = program.shape(user);
    let own = flatten(&vars(0, shape), shape);
    let mut in_place = true;
    body.visit(&mut |e| {
        if let Node::Load { source: s, at, .. } = e.node()
            && *s == source
        {
            in_place &=
                numel(shape) == numel(program.shape(source)) && flatten(at, program.shape(source)) == own;
        }
    });
    in_place
}
