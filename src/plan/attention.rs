//! Finding attention: a contraction with values, whose left operand is the softmax of what a contraction of queries and
//! keys gives.
//!
//! The operand is written out in terms of reductions and contractions alone, through all maps and views between. Its
//! form then tells: `mean(exp(score - top), sum)`, where `top` and `sum` reduce over the keys just what stands there.
//! That a row's statistics are of that row is seen by writing out what they reduce, too: it must be the same expression.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::expr::{Atom, Binary, Expr, Idx, Node, Rewrite, Unary, Value, flatten, numel, unflatten};
use crate::ir::{Combine, Def, Program, ValueId};
use crate::tensor::DType;

/// Most columns of values: an invocation keeps a row of sums in registers.
const MOST_COLUMNS: i64 = 256;

/// What was found.
#[derive(Clone, Debug)]
pub struct Attention {
    /// The contraction of queries and keys.
    pub scores: ValueId,
    /// Whether its right operand is the queries.
    pub swapped: bool,
    /// Where it is read: its batch axes, its axes of M, its axes of N, over the variables of the contraction with the
    /// values.
    pub at: Vec<Idx>,
    /// What depends on it and is computed within the kernel: maps, views and the two reductions.
    pub inner: BTreeSet<ValueId>,
}

/// The softmax in the operand.
pub struct Softmax {
    /// The score, in float32.
    pub score: Expr,
    /// The weighted mean: argument 0 is `exp(score - top)` or a sum of it, argument 1 the sum of all.
    pub mean: Expr,
    exp: Expr,
    sum: Expr,
    top: Expr,
}

/// The sizes of a contraction's four groups of axes, and its axes' indices over one variable for each group.
pub fn axes(program: &Program, contract: ValueId) -> Option<([Idx; 4], Vec<Idx>)> {
    let value = program.value(contract);
    let Def::Contract { batch, m, k, .. } = &value.def else { return None };
    let (batch, rest) = value.shape.split_at(*batch);
    let (m, n) = rest.split_at(*m);
    let groups = [batch, m, n, k.as_slice()];
    let sizes = groups.map(numel);
    let variables = sizes.iter().enumerate().map(|(i, size)| Idx::var(i as u32, size));
    let at = variables.zip(groups).flat_map(|(var, group)| unflatten(&var, group)).collect();
    Some((sizes, at))
}

/// The attention that ends with the contraction `mixed`, if it is that and nothing else needs what is between.
pub fn find(
    program: &Program,
    outputs: &BTreeSet<ValueId>,
    users: &BTreeMap<ValueId, BTreeSet<ValueId>>,
    mixed: ValueId,
) -> Option<Attention> {
    let Def::Contract { a, b, .. } = &program.value(mixed).def else { return None };
    if !reaches_softmax(program, a) {
        return None;
    }
    let ([_, _, columns, keys], at) = axes(program, mixed)?;
    let few = columns.as_const().is_some_and(|n| (1..=MOST_COLUMNS).contains(&n));
    if !few || !is_single(program.dtype(mixed)) {
        return None;
    }
    let mut inline = Inline { program, memo: HashMap::new() };
    let softmax = softmax(&inline.body(a, &at))?;
    let key = Idx::var(3, &keys);
    if !inline.reduces(&softmax.sum, Combine::Sum, &key, &softmax.exp)
        || !inline.reduces(&softmax.top, Combine::Max, &key, &softmax.score)
    {
        return None;
    }
    let (sum, _) = read(&softmax.sum)?;
    let (top, _) = read(&softmax.top)?;
    for (scores, offset) in contractions(program, &softmax.score) {
        let Some((swapped, at)) = operands(program, scores, &offset) else { continue };
        let Some(inner) = between(program, scores, a) else { continue };
        let within = |id: ValueId| {
            let readers = users.get(&id);
            !outputs.contains(&id)
                && readers.is_some_and(|all| all.iter().all(|r| *r == mixed || inner.contains(r)))
        };
        let known = |id: ValueId| match program.value(id).def {
            Def::Map(_) | Def::Reshape(_) => true,
            Def::Reduce { .. } => id == top || id == sum,
            Def::Input(_)
            | Def::Weight(_)
            | Def::Contract { .. }
            | Def::TopK { .. }
            | Def::Stacked { .. } => false,
        };
        let mut elsewhere = false;
        b.visit(&mut |e| elsewhere |= read(e).is_some_and(|(id, _)| id == scores || inner.contains(&id)));
        if !elsewhere && within(scores) && inner.iter().all(|&id| within(id) && known(id)) {
            return Some(Attention { scores, swapped, at, inner });
        }
    }
    None
}

/// Floats that kernels compute in float32.
fn is_single(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// Whether maps and views lead from `operand` to a sum and to a maximum: a cheap look before the thorough one.
fn reaches_softmax(program: &Program, operand: &Expr) -> bool {
    let (mut stack, mut seen, mut found) = (Vec::new(), BTreeSet::new(), [false; 2]);
    let push = |expr: &Expr, stack: &mut Vec<ValueId>| {
        expr.visit(&mut |e| stack.extend(read(e).map(|(id, _)| id)));
    };
    push(operand, &mut stack);
    while let Some(id) = stack.pop() {
        if !seen.insert(id) {
            continue;
        }
        match &program.value(id).def {
            Def::Map(body) => push(body, &mut stack),
            Def::Reshape(source) => stack.push(*source),
            Def::Reduce { combine: Combine::Sum, .. } => found[0] = true,
            Def::Reduce { combine: Combine::Max, .. } => found[1] = true,
            Def::Reduce { .. }
            | Def::Input(_)
            | Def::Weight(_)
            | Def::Contract { .. }
            | Def::TopK { .. }
            | Def::Stacked { .. } => {}
        }
    }
    found == [true; 2]
}

/// The value behind a load or an argument, and the load's offset.
fn read(expr: &Expr) -> Option<(ValueId, Option<&Idx>)> {
    match expr.node() {
        Node::Load { source, at, .. } => Some((*source, at.first())),
        Node::Arg(number, _) => Some((*number, None)),
        _ => None,
    }
}

/// The parts of a softmax: loads or arguments stand for its statistics.
pub fn softmax(operand: &Expr) -> Option<Softmax> {
    let mut exp = None;
    find_exp(operand, &mut exp);
    let exp = exp?;
    let Node::Unary(Unary::Exp, shifted) = exp.node() else { return None };
    let Node::Binary(Binary::Sub, score, shift) = without_casts(shifted).node() else { return None };
    let top = match without_casts(shift).node() {
        // Rows that are hidden altogether are shifted by nothing.
        Node::Select(condition, zero, top) if is_zero(zero) => {
            let Node::Unary(Unary::IsNegInf, same) = condition.node() else { return None };
            (same == top).then_some(top)?
        }
        _ => without_casts(shift),
    };
    let top = without_casts(top);
    read(top)?;
    let score = without_casts(score);
    if !is_single(score.dtype()) {
        return None;
    }
    let mut sum = None;
    let mean = linear(operand, &exp, &mut sum)?;
    let top = top.clone();
    Some(Softmax { score: score.cast(DType::F32), mean, exp, sum: sum?, top })
}

/// The first exponential on the way down.
fn find_exp(expr: &Expr, found: &mut Option<Expr>) {
    expr.visit(&mut |e| {
        if found.is_none() && matches!(e.node(), Node::Unary(Unary::Exp, _)) {
            *found = Some(e.clone());
        }
    });
}

fn without_casts(expr: &Expr) -> &Expr {
    match expr.node() {
        Node::Cast(dtype, x) if is_single(*dtype) && is_single(x.dtype()) => without_casts(x),
        _ => expr,
    }
}

fn is_zero(expr: &Expr) -> bool {
    matches!(expr.as_const(), Some(Value::F(0.0)))
}

/// `expr`, which must be proportional to `exp` along a row, with argument 0 in its place and argument 1 for the sum.
fn linear(expr: &Expr, exp: &Expr, sum: &mut Option<Expr>) -> Option<Expr> {
    if expr == exp {
        return Some(Expr::arg(0, DType::F32));
    }
    match expr.node() {
        Node::Cast(dtype, x) if is_single(*dtype) => linear(x, exp, sum),
        Node::Binary(op @ (Binary::Div | Binary::Mul), x, y) => {
            let (left, right) = (linear(x, exp, sum), linear(y, exp, sum));
            match (left, right, op) {
                (Some(x), None, _) => Some(x.binary(*op, &of_row(y, exp, sum)?)),
                (None, Some(y), Binary::Mul) => Some(of_row(x, exp, sum)?.binary(*op, &y)),
                _ => None,
            }
        }
        Node::Select(condition, x, y) => {
            let condition = of_row(condition, exp, sum)?;
            let zero = Expr::float(DType::F32, 0.0);
            match (is_zero(x), is_zero(y)) {
                (true, false) => Some(condition.select(&zero, &linear(y, exp, sum)?)),
                (false, true) => Some(condition.select(&linear(x, exp, sum)?, &zero)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// `expr`, which must be the same all along a row.
fn of_row(expr: &Expr, exp: &Expr, sum: &mut Option<Expr>) -> Option<Expr> {
    match expr.node() {
        // No weight is a number where the sum is none, or nothing; compilers take zero over zero for zero.
        Node::Unary(Unary::IsNan, x) if linear(x, exp, sum).is_some() && sum.is_some() => {
            let sum = Expr::arg(1, DType::F32);
            Some(sum.unary(Unary::IsNan).binary(Binary::Or, &sum.equals(Expr::float(DType::F32, 0.0))))
        }
        Node::Const(c) if is_single(c.dtype) => Some(expr.cast(DType::F32)),
        Node::Const(_) => Some(expr.clone()),
        Node::Load { .. } | Node::Arg(..) => {
            let same = sum.get_or_insert_with(|| expr.clone()) == expr;
            same.then(|| Expr::arg(1, DType::F32))
        }
        Node::Unary(op @ (Unary::IsNan | Unary::IsNegInf | Unary::IsPosInf | Unary::Not), x) => {
            Some(of_row(x, exp, sum)?.unary(*op))
        }
        Node::Binary(op @ (Binary::Eq | Binary::Lt | Binary::Le | Binary::Div), x, y) => {
            Some(of_row(x, exp, sum)?.binary(*op, &of_row(y, exp, sum)?))
        }
        Node::Cast(dtype, x) if is_single(*dtype) => of_row(x, exp, sum),
        _ => None,
    }
}

/// The contractions that `score` reads, each at one place.
fn contractions(program: &Program, score: &Expr) -> Vec<(ValueId, Idx)> {
    let mut found: BTreeMap<ValueId, BTreeSet<Idx>> = BTreeMap::new();
    score.visit(&mut |e| {
        if let Some((id, Some(offset))) = read(e)
            && matches!(program.value(id).def, Def::Contract { .. })
        {
            found.entry(id).or_default().insert(offset.clone());
        }
    });
    let one = |(id, places): (ValueId, BTreeSet<Idx>)| {
        let mut places = places.into_iter();
        places.next().filter(|_| places.len() == 0).map(|offset| (id, offset))
    };
    found.into_iter().filter_map(one).collect()
}

/// How the contraction `scores`, read at `offset`, is made of queries and keys: whether its right operand is the
/// queries, and its axes there. One operand must not change with the key, the other not with the query.
fn operands(program: &Program, scores: ValueId, offset: &Idx) -> Option<(bool, Vec<Idx>)> {
    let value = program.value(scores);
    let Def::Contract { batch, m, .. } = value.def else { return None };
    let at = unflatten(offset, &value.shape);
    let (batch, rest) = at.split_at(batch);
    let (left, right) = rest.split_at(m);
    let (query, key) = (1, 3);
    let free = |parts: [&[Idx]; 2], var: u32| !parts.concat().iter().any(|idx| varies_with(idx, var));
    let swapped = if free([batch, left], key) && free([batch, right], query) {
        false
    } else if free([batch, right], key) && free([batch, left], query) {
        true
    } else {
        return None;
    };
    (is_single(value.dtype) && free([&at, &[]], 2)).then_some((swapped, at))
}

/// Whether the loop variable `var`, or something read from memory, occurs in `idx`.
fn varies_with(idx: &Idx, var: u32) -> bool {
    let mut found = false;
    idx.visit(&mut |atom| match atom {
        Atom::Var(v) => found |= v.id == var,
        Atom::Data(..) => found = true,
        Atom::Sym(_) | Atom::Div(..) | Atom::Mod(..) | Atom::Min(..) | Atom::Max(..) => {}
    });
    found
}

/// The values on the way from `scores` to the operand that depend on it.
fn between(program: &Program, scores: ValueId, operand: &Expr) -> Option<BTreeSet<ValueId>> {
    let mut depends: HashMap<ValueId, bool> = HashMap::from([(scores, true)]);
    let mut roots = BTreeSet::new();
    operand.visit(&mut |e| roots.extend(read(e).map(|(id, _)| id)));
    // Values come after those they read: all of these lie between.
    for &root in &roots {
        walk(program, scores, root, &mut depends);
    }
    depends.remove(&scores);
    Some(depends.into_iter().filter(|(_, yes)| *yes).map(|(id, _)| id).collect())
}

fn walk(program: &Program, scores: ValueId, id: ValueId, depends: &mut HashMap<ValueId, bool>) -> bool {
    if let Some(&known) = depends.get(&id) {
        return known;
    }
    let mut found = false;
    if id > scores {
        for source in program.value(id).sources() {
            found |= walk(program, scores, source, depends);
        }
    }
    depends.insert(id, found);
    found
}

/// Writes definitions out in terms of inputs, weights, reductions and contractions, read by offset.
struct Inline<'a> {
    program: &'a Program,
    /// By value, and its axes' indices or one offset.
    memo: HashMap<(ValueId, Vec<Idx>), Expr>,
}

impl Inline<'_> {
    fn body(&mut self, body: &Expr, at: &[Idx]) -> Expr {
        body.rewrite(&mut Written { inline: self, at })
    }

    fn map(&mut self, id: ValueId, body: &Expr, at: Vec<Idx>) -> Expr {
        let key = (id, at);
        if let Some(done) = self.memo.get(&key) {
            return done.clone();
        }
        let done = self.body(body, &key.1);
        self.memo.insert(key, done.clone());
        done
    }

    fn value(&mut self, id: ValueId, dtype: DType, offset: Idx) -> Expr {
        let value = self.program.value(id);
        match &value.def {
            Def::Reshape(source) => self.value(*source, dtype, offset),
            Def::Map(body) => self.map(id, body, unflatten(&offset, &value.shape)),
            Def::Input(_)
            | Def::Weight(_)
            | Def::Reduce { .. }
            | Def::Contract { .. }
            | Def::TopK { .. }
            | Def::Stacked { .. } => Expr::load(id, dtype, vec![offset]),
        }
    }

    /// Whether `statistic`, a load, combines over the keys what stands at `key` in `element`.
    fn reduces(&mut self, statistic: &Expr, combine: Combine, key: &Idx, element: &Expr) -> bool {
        let Some((id, Some(offset))) = read(statistic) else { return false };
        let value = self.program.value(id);
        let Def::Reduce { extents, combine: how, body } = &value.def else { return false };
        let Some(Atom::Var(var)) = key.as_atom() else { return false };
        if *how != combine || numel(extents) != var.extent {
            return false;
        }
        let mut at = unflatten(offset, &value.shape);
        at.extend(unflatten(key, extents));
        let reduced = self.body(body, &at);
        without_casts(&reduced) == without_casts(element)
    }
}

struct Written<'a, 'b> {
    inline: &'a mut Inline<'b>,
    at: &'a [Idx],
}

impl Rewrite for Written<'_, '_> {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        let value = self.inline.program.value(source);
        match &value.def {
            Def::Map(body) => self.inline.map(source, body, at),
            _ => self.inline.value(source, dtype, flatten(&at, &value.shape)),
        }
    }

    fn atom(&mut self, atom: &Atom) -> Option<Idx> {
        match atom {
            Atom::Var(var) => self.at.get(var.id as usize).cloned(),
            _ => None,
        }
    }
}
