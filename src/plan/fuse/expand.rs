//! The kernel of a root as it stands: everything that is folded into it written out.

use std::collections::HashMap;

use super::{Draft, Expanded, ExpandedStage, Fusion, POSITION, ROW, Role, Scores};
use crate::expr::{Atom, Expr, Idx, Node, Rewrite, flatten, numel, rewrite_idx, unflatten, vars};
use crate::ir::{ConvVar, Convolution, Def, Update, ValueId};
use crate::plan::attention::{self, Attention};
use crate::tensor::DType;

impl Fusion<'_> {
    pub(super) fn rows(&self, root: ValueId) -> Idx {
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

    /// The kernel that makes of an update's base what `root` is; `None` where that needs a result of the kernel of `root`.
    pub fn expand_update(&self, root: ValueId, update: &Update) -> Option<Expanded> {
        let mut expander = Expander { fusion: self, memo: HashMap::new() };
        let own = vars(0, &update.extents);
        let at = flatten(&update.at, self.program.shape(root));
        let at = rewrite_idx(&at, &mut At { expander: &mut expander, at: &own }, &mut HashMap::new());
        let (when, value) = (expander.body(&update.when, &own), expander.body(&update.value, &own));
        let mut is_whole = true;
        let mut look = |e: &Expr| is_whole &= !matches!(e.node(), Node::Arg(..));
        when.visit(&mut look);
        value.visit(&mut look);
        Expr::index(at.clone(), DType::I32).visit(&mut look);
        is_whole.then(|| Expanded::Update { extents: update.extents.clone(), at, when, value })
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
