//! Whether a value may be folded into the kernel that reads it: tried on the kernel as it would then stand.

use std::collections::{BTreeMap, BTreeSet};

use super::{Expanded, Fusion, ROW, Role, Use};
use crate::expr::{Atom, Expr, Idx, Node, flatten, numel, vars};
use crate::ir::{Def, ValueId};
use crate::plan::attention;
use crate::plan::chain::Cost;
use crate::plan::quantized::is_dequantization;

impl Fusion<'_> {
    pub(super) fn may_inline(
        &mut self,
        id: ValueId,
        body: &Expr,
        reading: &BTreeSet<(ValueId, Use)>,
    ) -> bool {
        self.worth_inlining(id, body, reading) && {
            self.roles.insert(id, Role::Inline);
            reading.iter().all(|(root, _)| self.binds(*root))
        }
    }

    /// How many stored values, and values not decided on yet, the kernel of `root` reads.
    fn inputs(&self, root: ValueId) -> usize {
        let mut sources = BTreeSet::new();
        for expr in self.expand(root).exprs() {
            expr.visit(&mut |e| {
                if let Node::Load { source, .. } = e.node() {
                    sources.insert(*source);
                }
            });
        }
        sources.len()
    }

    /// Whether the device binds all that the kernel of `root` reads. Attention has an operand more that may be bound
    /// a second time.
    fn binds(&self, root: ValueId) -> bool {
        let operands = self.drafts.get(&root).is_some_and(|draft| draft.attention.is_some()) as usize;
        self.inputs(root) + operands <= self.most_inputs
    }

    fn worth_inlining(&self, id: ValueId, body: &Expr, reading: &BTreeSet<(ValueId, Use)>) -> bool {
        let own = Cost::of(body);
        // Views, and numbers made from indices alone, cost less than a trip through memory.
        if own.loads == 0 || (own.loads == 1 && own.steps == 0 && !own.heavy) {
            return true;
        }
        let one_kernel = reading.len() == 1;
        // What is dequantized is read as its codes wherever it is read.
        if is_dequantization(self.program, id, body) {
            return true;
        }
        match reading.first() {
            // Read again for every tile: only what costs a few instructions with all that it would draw in, and no row
            // kernel's result, whose statistics would be left in a kernel of their own.
            Some((_, Use::Operand)) => {
                let Cost { loads, steps, heavy } = self.chains.get(&id).copied().unwrap_or(own);
                one_kernel && !self.after_reductions.contains(&id) && loads <= 2 && steps <= 3 && !heavy
            }
            Some((root, Use::Body)) => {
                let passes = self.drafts.get(root).map_or(1, |d| d.stages.len() + 1);
                one_kernel && (passes == 1 || own.loads <= 2)
            }
            None => true,
        }
    }

    /// Whether `id` would be computed as often with `root` as it is alone: all that repeats the one repeats the other.
    pub(super) fn is_as_often(&self, id: ValueId, root: ValueId) -> bool {
        let mut repeats = self.program.repeats.iter().filter(|repeat| repeat.values.contains(&root));
        repeats.all(|repeat| repeat.values.contains(&id))
    }

    /// Fold the reduction `id` into the rows of `root`, where every read of it is of the row at hand.
    pub(super) fn add_stage(&mut self, id: ValueId, root: ValueId) -> bool {
        let Some(draft) = self.drafts.get(&root) else { return false };
        if draft.core.is_some() {
            return false;
        }
        let saved = draft.clone();
        let reduced = numel(self.program.shape(id));
        if draft.row_axes.is_none() {
            let axes = match &self.program.value(root).def {
                Def::Reduce { .. } => (0..self.program.rank(root)).collect(),
                Def::Map(_) => self.row_axes(id, root),
                Def::Input(_)
                | Def::Weight(_)
                | Def::Reshape(_)
                | Def::Contract { .. }
                | Def::TopK { .. }
                | Def::Stacked { .. } => return false,
            };
            self.drafts.entry(root).or_default().row_axes = Some(axes);
        }
        let rows = self.rows(root);
        let own_row = Idx::var(ROW, &rows);
        let mut fits = reduced == rows;
        for expr in self.expand(root).exprs() {
            expr.visit(&mut |e| {
                if let Node::Load { source, at, .. } = e.node()
                    && *source == id
                {
                    fits &= at.as_slice() == [own_row.clone()];
                }
            });
        }
        if fits {
            self.drafts.entry(root).or_default().stages.insert(id);
            self.roles.insert(id, Role::Part(root));
            fits = self.binds(root);
        }
        if !fits {
            self.drafts.insert(root, saved);
        }
        fits
    }

    /// The axes of the map `root` whose variables the reads of `id` depend on.
    fn row_axes(&self, id: ValueId, root: ValueId) -> Vec<usize> {
        let mut axes = BTreeSet::new();
        for expr in self.expand(root).exprs() {
            expr.visit(&mut |e| {
                if let Node::Load { source, at, .. } = e.node()
                    && *source == id
                {
                    at.iter().for_each(|idx| {
                        idx.visit(&mut |atom| {
                            if let Atom::Var(var) = atom {
                                axes.insert(var.id as usize);
                            }
                        })
                    });
                }
            });
        }
        axes.into_iter().collect()
    }

    /// Make `root` the epilogue of the contraction `id`, where it reads it element for element.
    pub(super) fn add_core(&mut self, id: ValueId, root: ValueId) -> bool {
        let program = self.program;
        let Some(draft) = self.drafts.get(&root) else { return false };
        let is_plain_map = matches!(program.value(root).def, Def::Map(_)) && draft.row_axes.is_none();
        if !is_plain_map || draft.core.is_some() || numel(program.shape(root)) != numel(program.shape(id)) {
            return false;
        }
        let shape = program.shape(root);
        let own = flatten(&vars(0, shape), shape);
        let mut fits = true;
        for expr in self.expand(root).exprs() {
            expr.visit(&mut |e| {
                if let Node::Load { source, at, .. } = e.node()
                    && *source == id
                {
                    fits &= at.as_slice() == [own.clone()];
                }
            });
        }
        if fits {
            let saved = draft.clone();
            self.drafts.entry(root).or_default().core = Some(id);
            self.roles.insert(id, Role::Part(root));
            fits = self.binds(root);
            if !fits {
                self.drafts.insert(root, saved);
            }
        }
        fits
    }

    /// Make `root`, which the contraction `mixed` is the core of, attention, where that is what it ends.
    pub(super) fn add_attention(
        &mut self,
        mixed: ValueId,
        root: ValueId,
        outputs: &BTreeSet<ValueId>,
        users: &BTreeMap<ValueId, BTreeSet<ValueId>>,
    ) {
        let program = self.program;
        let Some(found) = attention::find(program, outputs, users, mixed) else { return };
        let inside: Vec<ValueId> = found.inner.iter().copied().chain([found.scores]).collect();
        for &id in &inside {
            let role = match &program.value(id).def {
                Def::Map(_) => Role::Inline,
                Def::Reduce { .. } | Def::Contract { .. } => Role::Part(root),
                Def::Input(_) | Def::Weight(_) | Def::Reshape(_) | Def::TopK { .. } | Def::Stacked { .. } => {
                    continue;
                }
            };
            self.roles.insert(id, role);
        }
        self.drafts.entry(root).or_default().attention = Some(found);
        if !matches!(self.expand(root), Expanded::Attention { .. }) || !self.binds(root) {
            self.drafts.entry(root).or_default().attention = None;
            self.roles.retain(|id, _| !inside.contains(id));
        }
    }
}
