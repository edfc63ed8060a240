//! Which values become kernels, and what is folded into each.
//!
//! Values are visited from the outputs backwards. A value that only one kernel reads is folded into it where
//! the kernel's form allows: maps by substitution, reductions as statistics of the kernel's rows, a
//! contraction as the core whose epilogue the kernel becomes. Views are folded wherever they are read.
//! What remains is a *root*: it gets a kernel and memory of its own.

mod expand;
mod expanded;
mod fold;
mod uses;

pub use expanded::{Expanded, ExpandedStage, Scores};

use std::collections::{BTreeMap, BTreeSet, HashMap};

use self::uses::{after_reductions, epilogue_tails, made_of_bases, users};
use crate::ir::{Def, Program, ValueId};
use crate::plan::attention::Attention;
use crate::plan::chain::{Cost, chains};

/// Loop variable of the row, and of the position within it, in row form.
const ROW: u32 = 0;
const POSITION: u32 = 1;

/// A kernel being put together around its root.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Axes of the root that number the rows, once a reduction has been folded in.
    pub row_axes: Option<Vec<usize>>,
    /// Reductions folded in, in the order of their values.
    pub stages: BTreeSet<ValueId>,
    /// The contraction whose epilogue this is.
    pub core: Option<ValueId>,
    /// What makes its contraction, or itself, attention.
    pub attention: Option<Attention>,
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// In memory: an input, a weight, or the output of a kernel.
    Stored,
    /// Substituted into those who read it.
    Inline,
    /// A statistic or the core of the kernel with this root.
    Part(ValueId),
}

/// How a kernel reads a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// Once per element of its output or rows.
    Body,
    /// As an operand of its contraction or a key, many times per element.
    Operand,
}

/// The decisions: the roots with their drafts, in order.
pub struct Fusion<'a> {
    program: &'a Program,
    /// Stored values that one kernel may read.
    most_inputs: usize,
    after_reductions: BTreeSet<ValueId>,
    chains: BTreeMap<ValueId, Cost>,
    roles: HashMap<ValueId, Role>,
    /// Kernels by root.
    pub drafts: BTreeMap<ValueId, Draft>,
}

/// Decide for all values that `outputs` depend on. Values in `outputs`, none of which is a reshape, are stored.
pub fn fuse<'a>(program: &'a Program, outputs: &BTreeSet<ValueId>, most_inputs: usize) -> Fusion<'a> {
    let users = users(program, outputs);
    let mut tails = epilogue_tails(program, outputs, &users);
    tails.extend(made_of_bases(program));
    let after_reductions = after_reductions(program, &users);
    let chains = chains(program, &users, |id| outputs.contains(&id) || tails.contains(&id));
    let (roles, drafts) = (HashMap::new(), BTreeMap::new());
    let mut fusion = Fusion { program, most_inputs, after_reductions, chains, roles, drafts };
    let mut readers: BTreeMap<ValueId, BTreeSet<(ValueId, Use)>> = BTreeMap::new();
    for id in (0..program.values.len() as ValueId).rev() {
        let wanted = outputs.contains(&id);
        let reading = readers.remove(&id).unwrap_or_default();
        if !wanted && reading.is_empty() {
            continue;
        }
        let value = program.value(id);
        if let Def::Reshape(source) = &value.def {
            // Transparent: whoever reads it reads the source.
            readers.entry(*source).or_default().extend(reading);
            continue;
        }
        // The inside of attention was decided on where it ends.
        let inside = fusion.roles.get(&id).copied();
        let role = inside.unwrap_or_else(|| match &value.def {
            Def::Input(_) | Def::Weight(_) | Def::Reshape(_) | Def::TopK { .. } | Def::Stacked { .. } => {
                Role::Stored
            }
            Def::Map(body) => {
                let forced = wanted || tails.contains(&id);
                if !forced && fusion.may_inline(id, body, &reading) { Role::Inline } else { Role::Stored }
            }
            Def::Reduce { .. } => match sole(&reading) {
                Some(root) if !wanted && fusion.is_as_often(id, root) && fusion.add_stage(id, root) => {
                    Role::Part(root)
                }
                _ => Role::Stored,
            },
            Def::Contract { .. } => match sole(&reading) {
                Some(root) if !wanted && fusion.is_as_often(id, root) && fusion.add_core(id, root) => {
                    Role::Part(root)
                }
                _ => Role::Stored,
            },
        });
        fusion.roles.insert(id, role);
        let is_constant = matches!(value.def, Def::Input(_) | Def::Weight(_));
        if role == Role::Stored && !is_constant {
            fusion.drafts.entry(id).or_default();
        }
        let is_contract = matches!(value.def, Def::Contract { .. });
        if is_contract && inside.is_none() {
            let root = if let Role::Part(root) = role { root } else { id };
            fusion.add_attention(id, root, outputs, &users);
        }
        let is_again = is_contract || matches!(value.def, Def::TopK { .. });
        let how = if is_again { Use::Operand } else { Use::Body };
        for source in value.sources() {
            let entry = readers.entry(source).or_default();
            match role {
                Role::Stored => entry.extend([(id, how)]),
                Role::Part(root) => entry.extend([(root, how)]),
                // A score is made once, however often the operands are read.
                Role::Inline if inside.is_some() => {
                    entry.extend(reading.iter().map(|(root, _)| (*root, how)))
                }
                Role::Inline => entry.extend(reading.iter().copied()),
            }
        }
    }
    fusion
}

/// The one kernel that reads a value, when it reads it in its body only.
fn sole(reading: &BTreeSet<(ValueId, Use)>) -> Option<ValueId> {
    match reading.iter().collect::<Vec<_>>().as_slice() {
        [(root, Use::Body)] => Some(*root),
        _ => None,
    }
}
