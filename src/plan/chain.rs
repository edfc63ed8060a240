//! What a map costs per element, and what it costs together with the maps that only it reads: so much is done again
//! for every read of it, once it is folded into a kernel.

use std::collections::{BTreeMap, BTreeSet};

use crate::expr::{Expr, Node, Unary};
use crate::ir::{Def, Program, ValueId};

/// The work for one element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub loads: usize,
    /// Arithmetic.
    pub steps: usize,
    /// Whether some of it is more than an instruction or two.
    pub heavy: bool,
}

impl Cost {
    /// Of an expression, a load counted as one.
    pub fn of(expr: &Expr) -> Cost {
        Cost::with_loads(expr, &|_| Cost { loads: 1, ..Cost::default() })
    }

    fn with_loads(expr: &Expr, load: &dyn Fn(ValueId) -> Cost) -> Cost {
        let mut cost = Cost::default();
        expr.visit(&mut |e| match e.node() {
            Node::Load { source, .. } => {
                let more = load(*source);
                cost.loads += more.loads;
                cost.steps += more.steps;
                cost.heavy |= more.heavy;
            }
            Node::Unary(op, _) => {
                cost.steps += 1;
                cost.heavy |= !matches!(op, Unary::Neg | Unary::Abs | Unary::Not);
            }
            Node::Binary(..) => cost.steps += 1,
            Node::Select(..)
            | Node::Cast(..)
            | Node::Bits(..)
            | Node::Const(_)
            | Node::Index(..)
            | Node::Arg(..) => {}
        });
        cost
    }
}

/// The cost of every map with the maps that only it reads and that are not `kept` in memory anyway.
pub fn chains(
    program: &Program,
    users: &BTreeMap<ValueId, BTreeSet<ValueId>>,
    kept: impl Fn(ValueId) -> bool,
) -> BTreeMap<ValueId, Cost> {
    let mut chains: BTreeMap<ValueId, Cost> = BTreeMap::new();
    for &id in users.keys() {
        let cost = match &program.value(id).def {
            Def::Map(body) => Cost::with_loads(body, &|source| of_read(users, &chains, &kept, source)),
            Def::Reshape(source) => of_read(users, &chains, &kept, *source),
            Def::Input(_)
            | Def::Weight(_)
            | Def::Reduce { .. }
            | Def::Contract { .. }
            | Def::TopK { .. }
            | Def::Stacked { .. } => {
                continue;
            }
        };
        chains.insert(id, cost);
    }
    chains
}

/// The cost of reading `source`: what it takes to make it, where it is made for this reader alone.
fn of_read(
    users: &BTreeMap<ValueId, BTreeSet<ValueId>>,
    chains: &BTreeMap<ValueId, Cost>,
    kept: &impl Fn(ValueId) -> bool,
    source: ValueId,
) -> Cost {
    let alone = users.get(&source).is_some_and(|readers| readers.len() == 1) && !kept(source);
    let chain = chains.get(&source).filter(|_| alone);
    chain.copied().unwrap_or(Cost { loads: 1, ..Cost::default() })
}
