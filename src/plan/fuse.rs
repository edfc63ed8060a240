//! Which values become kernels, and what is folded into each.
//!
//! Values are visited from the outputs backwards. A value that only one kernel reads is folded into it where
//! the kernel's form allows: maps by substitution, reductions as statistics of the kernel's rows, a
//! contraction as the core whose epilogue the kernel becomes. Views are folded wherever they are read.
//! What remains is a *root*: it gets a kernel and memory of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::attention::{self, Attention};
use super::chain::{Cost, chains};
use super::pack::is_packable;
use super::through_reshapes;
use crate::expr::{Atom, Expr, Idx, Node, Rewrite, flatten, numel, unflatten, vars};
use crate::ir::{ConvAxis, ConvVar, Convolution, Def, Program, ValueId};
use crate::tensor::DType;

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

/// A row kernel whose rows are all of the tensor, and longer than this, is left in two kernels: one
/// workgroup would have to walk it alone.
const LONGEST_LONE_ROW: i64 = 1 << 13;

/// Decide for all values that `outputs` depend on. Values in `outputs`, none of which is a reshape, are stored.
pub fn fuse<'a>(program: &'a Program, outputs: &BTreeSet<ValueId>, most_inputs: usize) -> Fusion<'a> {
    let users = users(program, outputs);
    let tails = epilogue_tails(program, outputs, &users);
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
                Some(root) if !wanted && fusion.add_stage(id, root) => Role::Part(root),
                _ => Role::Stored,
            },
            Def::Contract { .. } => match sole(&reading) {
                Some(root) if !wanted && fusion.add_core(id, root) => Role::Part(root),
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

/// Values that `outputs` depend on, with those that read each.
fn users(program: &Program, outputs: &BTreeSet<ValueId>) -> BTreeMap<ValueId, BTreeSet<ValueId>> {
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
fn epilogue_tails(
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
        let is_map = match &program.value(user).def {
            Def::Reshape(_) => false,
            Def::Map(body) if chain.iter().all(|&id| reads_in_place(program, body, user, id)) => true,
            _ => break,
        };
        open.extend(users.get(&user)?);
        chain.insert(user);
        if is_map && sole_end(&chain, users, user) {
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

/// The maps that a reduction leads to through maps alone: the results of row kernels.
fn after_reductions(program: &Program, users: &BTreeMap<ValueId, BTreeSet<ValueId>>) -> BTreeSet<ValueId> {
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

impl<'a> Fusion<'a> {
    fn may_inline(&mut self, id: ValueId, body: &Expr, reading: &BTreeSet<(ValueId, Use)>) -> bool {
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
        // A constant that is dequantized is read at its size wherever it is read.
        let packed = |&source: &ValueId| {
            let source = through_reshapes(self.program, source);
            is_packable(self.program, source)
                && numel(self.program.shape(source)) == numel(self.program.shape(id))
        };
        if own.loads <= 3
            && own.steps <= 4
            && !own.heavy
            && self.program.value(id).sources().iter().any(packed)
        {
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

    /// Fold the reduction `id` into the rows of `root`, where every read of it is of the row at hand.
    fn add_stage(&mut self, id: ValueId, root: ValueId) -> bool {
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
        let mut fits = reduced == rows && !self.is_long_lone_row(root, id, &rows);
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

    fn is_long_lone_row(&self, root: ValueId, id: ValueId, rows: &Idx) -> bool {
        let long = |n: Option<i64>| n.is_some_and(|n| n > LONGEST_LONE_ROW);
        let reduced = match &self.program.value(id).def {
            Def::Reduce { extents, .. } => numel(extents).as_const(),
            _ => None,
        };
        rows.is(1) && (long(numel(self.program.shape(root)).as_const()) || long(reduced))
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
    fn add_core(&mut self, id: ValueId, root: ValueId) -> bool {
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
    fn add_attention(
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

    fn rows(&self, root: ValueId) -> Idx {
        let shape = self.program.shape(root);
        match self.drafts.get(&root).and_then(|d| d.row_axes.as_ref()) {
            Some(axes) => axes.iter().map(|&a| &shape[a]).fold(Idx::from(1i64), |n, d| &n * d),
            None => numel(shape),
        }
    }

    /// The kernel of `root` as it stands, everything inlined into it.
    pub fn expand(&self, root: ValueId) -> Expanded {
        let program = self.program;
        let value = program.value(root);
        let draft = self.drafts.get(&root).cloned().unwrap_or_default();
        let mut expander = Expander { fusion: self, memo: HashMap::new() };
        if let Some(core) = draft.core {
            return self.expand_contract(core, Some(root), &mut expander);
        }
        match &value.def {
            Def::Contract { .. } => self.expand_contract(root, None, &mut expander),
            Def::Reduce { .. } => {
                let rows = numel(&value.shape);
                let mut stages = self.expand_stages(&draft, &rows, &mut expander);
                stages.push(self.expand_stage(root, &rows, &mut expander));
                let result = Expr::arg(root, value.dtype);
                Expanded::Rows { rows, stages, extent: None, at: Idx::var(ROW, &numel(&value.shape)), result }
            }
            Def::Map(body) => match &draft.row_axes {
                Some(axes) => {
                    let rows = self.rows(root);
                    let stages = self.expand_stages(&draft, &rows, &mut expander);
                    let other: Vec<usize> = (0..value.shape.len()).filter(|a| !axes.contains(a)).collect();
                    let pick =
                        |axes: &[usize]| axes.iter().map(|&a| value.shape[a].clone()).collect::<Vec<_>>();
                    let (outer, inner) = (pick(axes), pick(&other));
                    let extent = numel(&inner);
                    let outer = unflatten(&Idx::var(ROW, &rows), &outer);
                    let inner = unflatten(&Idx::var(POSITION, &extent), &inner);
                    let at: Vec<Idx> = (0..value.shape.len())
                        .map(|a| match axes.iter().position(|&x| x == a) {
                            Some(i) => outer[i].clone(),
                            None => inner[other.iter().position(|&x| x == a).unwrap_or(0)].clone(),
                        })
                        .collect();
                    let result = expander.body(body, &at);
                    let at = flatten(&at, &value.shape);
                    Expanded::Rows { rows, stages, extent: Some(extent), at, result }
                }
                None => {
                    let at = vars(0, &value.shape);
                    Expanded::Map { shape: value.shape.clone(), value: expander.body(body, &at) }
                }
            },
            Def::Stacked { at: number, body } => {
                let slice = &value.shape[1..];
                let rows = numel(slice);
                let mut at = unflatten(&Idx::var(ROW, &rows), slice);
                let result = expander.body(body, &at);
                at.insert(0, number.clone());
                let at = flatten(&at, &value.shape);
                Expanded::Rows { rows, stages: vec![], extent: Some(Idx::from(1i64)), at, result }
            }
            Def::TopK { extent, key, largest } => {
                let (outer, k) = value.shape.split_at(value.shape.len() - 1);
                let rows = numel(outer);
                let mut at = unflatten(&Idx::var(ROW, &rows), outer);
                at.push(Idx::var(POSITION, extent));
                let (extent, key) = (extent.clone(), expander.body(key, &at));
                Expanded::TopK { rows, extent, k: k[0].clone(), key, largest: *largest }
            }
            Def::Input(_) | Def::Weight(_) | Def::Reshape(_) => {
                let offset = flatten(&vars(0, &value.shape), &value.shape);
                Expanded::Map {
                    shape: value.shape.clone(),
                    value: expander.stored(root, value.dtype, offset),
                }
            }
        }
    }

    fn expand_stages(&self, draft: &Draft, rows: &Idx, expander: &mut Expander) -> Vec<ExpandedStage> {
        draft.stages.iter().map(|&id| self.expand_stage(id, rows, expander)).collect()
    }

    fn expand_stage(&self, id: ValueId, rows: &Idx, expander: &mut Expander) -> ExpandedStage {
        let value = self.program.value(id);
        let (extents, combine, body) = match &value.def {
            Def::Reduce { extents, combine, body } => (extents.clone(), *combine, body.clone()),
            _ => (vec![], crate::ir::Combine::Sum, Expr::int(value.dtype, 0)),
        };
        let extent = numel(&extents);
        let mut at = unflatten(&Idx::var(ROW, rows), &value.shape);
        at.extend(unflatten(&Idx::var(POSITION, &extent), &extents));
        ExpandedStage { id, extent, combine, value: expander.body(&body, &at) }
    }

    fn expand_contract(&self, core: ValueId, root: Option<ValueId>, expander: &mut Expander) -> Expanded {
        let value = self.program.value(core);
        if let Def::Contract { windows: Some(windows), .. } = &value.def {
            return self.expand_conv(core, root, windows, expander);
        }
        let (Def::Contract { a, b, .. }, Some((sizes, at))) =
            (&value.def, attention::axes(self.program, core))
        else {
            return Expanded::Map { shape: value.shape.clone(), value: Expr::int(value.dtype, 0) };
        };
        let (a, b) = (expander.body(a, &at), expander.body(b, &at));
        let attention = self.drafts.get(&root.unwrap_or(core)).and_then(|draft| draft.attention.as_ref());
        let inside = attention.and_then(|found| self.expand_scores(found, &a, expander));
        let flat: Vec<Idx> = (0..3).map(|i| Idx::var(i as u32, &sizes[i])).collect();
        let offset = &(&(&(&flat[0] * &sizes[1]) + &flat[1]) * &sizes[2]) + &flat[2];
        let epilogue = self.epilogue(core, root, &offset, expander);
        let [batch, m, n, k] = sizes;
        match inside {
            Some(scores) => Expanded::Attention { core, batch, m, n, k, scores, value: b, epilogue },
            None => Expanded::Contract { core, batch, m, n, k, a, b, epilogue },
        }
    }

    /// The inside of attention, whose contraction with the values has the left operand `weights`.
    fn expand_scores(&self, found: &Attention, weights: &Expr, expander: &mut Expander) -> Option<Scores> {
        let softmax = attention::softmax(weights)?;
        let Def::Contract { k, a, b, .. } = &self.program.value(found.scores).def else { return None };
        let d = numel(k);
        let at = [found.at.clone(), unflatten(&Idx::var(4, &d), k)].concat();
        let (query, key) = if found.swapped { (b, a) } else { (a, b) };
        let (query, key) = (expander.body(query, &at), expander.body(key, &at));
        Some(Scores { id: found.scores, d, query, key, score: softmax.score, mean: softmax.mean })
    }

    fn expand_conv(
        &self,
        core: ValueId,
        root: Option<ValueId>,
        windows: &Convolution,
        expander: &mut Expander,
    ) -> Expanded {
        let batch = self.program.shape(core)[0].clone();
        let Convolution { groups, in_channels, out_channels, axes, w, x } = windows;
        let taps = axes.each_ref().map(|axis| Idx::from(axis.kernel));
        let outer = [
            ConvVar::Batch.over(&batch),
            ConvVar::Group.over(groups),
            ConvVar::Out.over(out_channels),
            ConvVar::In.over(in_channels),
        ];
        let taps = ConvVar::Tap.over_axes(taps.each_ref());
        let input = ConvVar::At.over_axes(axes.each_ref().map(|axis| &axis.input));
        let at = [outer.as_slice(), &taps, &input].concat();
        let (w, x) = (expander.body(w, &at), expander.body(x, &at));
        let output = ConvVar::At.over_axes(axes.each_ref().map(|axis| &axis.output));
        let extents = axes.each_ref().map(|axis| axis.output.clone());
        let shape = [[batch.clone(), groups.clone(), out_channels.clone()].as_slice(), &extents].concat();
        let offset = flatten(&[&outer[..3], output.as_slice()].concat(), &shape);
        let epilogue = self.epilogue(core, root, &offset, expander);
        let sizes = [batch, groups.clone(), out_channels.clone(), in_channels.clone()];
        Expanded::Conv { core, sizes, axes: axes.clone(), w, x, epilogue }
    }

    /// What the kernel of `root` stores at `offset`, from the result of `core`.
    fn epilogue(&self, core: ValueId, root: Option<ValueId>, offset: &Idx, expander: &mut Expander) -> Expr {
        match root.map(|root| (root, &self.program.value(root).def)) {
            Some((root, Def::Map(body))) => {
                expander.memo.clear();
                expander.body(body, &unflatten(offset, self.program.shape(root)))
            }
            _ => Expr::arg(core, self.program.dtype(core)),
        }
    }
}

/// A statistic with everything inlined.
pub struct ExpandedStage {
    /// The reduction; later expressions name its result as the argument of this number.
    pub id: ValueId,
    /// Number of positions.
    pub extent: Idx,
    /// How two are combined.
    pub combine: crate::ir::Combine,
    /// What is combined.
    pub value: Expr,
}

/// What attention makes of queries and keys, with everything inlined.
pub struct Scores {
    /// The contraction; the score names its result as the argument of this number.
    pub id: ValueId,
    /// The head size.
    pub d: Idx,
    /// The queries.
    pub query: Expr,
    /// The keys.
    pub key: Expr,
    /// The score.
    pub score: Expr,
    /// The mean, as in [`crate::kernel::AttentionResult`].
    pub mean: Expr,
}

/// A kernel with everything inlined. Loads name stored values, by row-major offset; arguments name the
/// reduction or contraction whose result they are.
#[allow(missing_docs)]
pub enum Expanded {
    Map {
        shape: Vec<Idx>,
        value: Expr,
    },
    Rows {
        rows: Idx,
        stages: Vec<ExpandedStage>,
        extent: Option<Idx>,
        at: Idx,
        result: Expr,
    },
    Contract {
        core: ValueId,
        batch: Idx,
        m: Idx,
        n: Idx,
        k: Idx,
        a: Expr,
        b: Expr,
        epilogue: Expr,
    },
    /// Sizes: batch, groups, output and input channels of each.
    Conv {
        core: ValueId,
        sizes: [Idx; 4],
        axes: [ConvAxis; 3],
        w: Expr,
        x: Expr,
        epilogue: Expr,
    },
    Attention {
        core: ValueId,
        batch: Idx,
        m: Idx,
        n: Idx,
        k: Idx,
        scores: Scores,
        value: Expr,
        epilogue: Expr,
    },
    TopK {
        rows: Idx,
        extent: Idx,
        k: Idx,
        key: Expr,
        largest: bool,
    },
}

impl Expanded {
    /// All expressions.
    pub fn exprs(&self) -> Vec<&Expr> {
        match self {
            Expanded::Map { value, .. } | Expanded::TopK { key: value, .. } => vec![value],
            Expanded::Rows { stages, result, .. } => {
                stages.iter().map(|s| &s.value).chain([result]).collect()
            }
            Expanded::Contract { a, b, epilogue, .. } => vec![a, b, epilogue],
            Expanded::Conv { w, x, epilogue, .. } => vec![w, x, epilogue],
            Expanded::Attention { scores, value, epilogue, .. } => {
                vec![&scores.query, &scores.key, &scores.score, value, epilogue]
            }
        }
    }
}

struct Expander<'a> {
    fusion: &'a Fusion<'a>,
    /// Expressions done, by value and place: its axes' indices, or one offset.
    memo: HashMap<(ValueId, Vec<Idx>), Expr>,
}

impl Expander<'_> {
    /// A definition's expression at `at`, its loads resolved.
    fn body(&mut self, body: &Expr, at: &[Idx]) -> Expr {
        body.rewrite(&mut At { expander: self, at })
    }

    /// A read of value `id` at a row-major offset.
    fn stored(&mut self, id: ValueId, dtype: DType, offset: Idx) -> Expr {
        let key = (id, vec![offset.clone()]);
        if let Some(done) = self.memo.get(&key) {
            return done.clone();
        }
        let program = self.fusion.program;
        let value = program.value(id);
        let done = match (&value.def, self.fusion.roles.get(&id)) {
            (Def::Reshape(source), _) => self.stored(*source, dtype, offset),
            (Def::Map(body), Some(Role::Inline)) => self.body(body, &unflatten(&offset, &value.shape)),
            (_, Some(Role::Part(_))) => Expr::arg(id, dtype),
            _ => Expr::load(id, dtype, vec![offset]),
        };
        self.memo.insert(key, done.clone());
        done
    }
}

struct At<'a, 'b> {
    expander: &'a mut Expander<'b>,
    at: &'a [Idx],
}

impl Rewrite for At<'_, '_> {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        let program = self.expander.fusion.program;
        let value = program.value(source);
        // A map that is inlined keeps its axes; anything else is addressed by offset.
        if let (Def::Map(body), Some(Role::Inline)) = (&value.def, self.expander.fusion.roles.get(&source)) {
            let key = (source, at.clone());
            if let Some(done) = self.expander.memo.get(&key) {
                return done.clone();
            }
            let done = self.expander.body(body, &at);
            self.expander.memo.insert(key, done.clone());
            return done;
        }
        self.expander.stored(source, dtype, flatten(&at, &value.shape))
    }

    fn atom(&mut self, atom: &Atom) -> Option<Idx> {
        match atom {
            Atom::Var(var) => self.at.get(var.id as usize).cloned(),
            _ => None,
        }
    }
}
