//! Writing at positions that a tensor names. A position finds its update by looking through all that may
//! hit it, which needs no atomic operations and has one order; the cost is positions times updates. In place, an update
//! finds its position. Updates that are combined find each other first, where there are no more of them than positions:
//! then each knows what becomes of the element that it reaches.

use super::index::from_front;
use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, flatten, numel, unflatten, vars};
use crate::ir::{Combine, Def, Stop, Update, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("Scatter", 9, "ScatterElements by its older name", scatter_elements),
    op(
        "ScatterElements",
        11,
        "x with elements of an axis replaced by, or combined with, updates",
        scatter_elements,
    ),
    op("ScatterND", 11, "x with slices replaced by, or combined with, updates", scatter_nd),
    op("TensorScatter", 24, "a cache with a sequence written at each batch's position", tensor_scatter),
];

/// How updates meet the element that is there, and each other.
fn reduction(cx: &Cx) -> Result<Option<Combine>, Stop> {
    match cx.string_or("reduction", "none")?.as_str() {
        "none" => Ok(None),
        "add" => Ok(Some(Combine::Sum)),
        "mul" => Ok(Some(Combine::Prod)),
        "max" => Ok(Some(Combine::Max)),
        "min" => Ok(Some(Combine::Min)),
        other => Err(cx.error(format!("reduction {other:?} is none of none, add, mul, max, min"))),
    }
}

type Hits<'a> = dyn Fn(&Cx, &[Idx], &[Idx]) -> Expr + 'a;
type Source<'a> = dyn Fn(&[Idx], &[Idx]) -> Vec<Idx> + 'a;
type Place<'a> = dyn Fn(&Cx, &[Idx]) -> (Vec<Idx>, Expr) + 'a;

/// A scatter: which update reaches which element.
struct Scatter<'a> {
    x: ValueId,
    updates: ValueId,
    /// Extents of what is looked through.
    extents: Vec<Idx>,
    /// How many positions one set of them has to choose from.
    line: Idx,
    /// The leading axes of `x` on which it depends whether an update hits.
    depth: usize,
    /// Whether update `r` hits the element at `i`.
    hits: &'a Hits<'a>,
    /// Where in `updates` the value for the element at `i` from update `r` is.
    source: &'a Source<'a>,
    /// Where in `x` the element at `i` of `updates` goes, and whether there is such a place.
    place: &'a Place<'a>,
}

impl Scatter<'_> {
    fn lower(&self, cx: &mut Cx) -> Lowering {
        match reduction(cx)? {
            // To look through the updates for each of them costs less than for each position.
            Some(combine) if numel(&self.extents).is_at_most(&self.line) => {
                let merged = self.merged(cx, combine);
                self.replaced(cx, merged)
            }
            Some(combine) => {
                let shape = cx.program.shape(self.x).to_vec();
                let i = vars(0, &shape);
                let all = self.combined(cx, &shape, &i, combine);
                let body = cx.program.load(self.x, &i).binary(combine.binary(), &cx.program.load(all, &i));
                Ok(vec![cx.program.map(shape, body)])
            }
            None => self.replaced(cx, self.updates),
        }
    }

    /// For each element of a tensor of shape `shape`, all updates of the element at `place` of `x`.
    fn combined(&self, cx: &mut Cx, shape: &[Idx], place: &[Idx], combine: Combine) -> ValueId {
        let r = vars(shape.len() as u32, &self.extents);
        let update = cx.program.load(self.updates, &(self.source)(place, &r));
        let dtype = update.dtype();
        let body = (self.hits)(cx, place, &r).select(&update, &combine.identity(dtype));
        let extents = self.extents.clone();
        cx.program.add(dtype, shape.to_vec(), Def::Reduce { extents, combine, body })
    }

    /// For each update, what the element that it reaches becomes: those of one place are equal.
    fn merged(&self, cx: &mut Cx, combine: Combine) -> ValueId {
        let shape = cx.program.shape(self.updates).to_vec();
        let own = vars(0, &shape);
        let (at, _) = (self.place)(cx, &own);
        let all = self.combined(cx, &shape, &at, combine);
        let body = cx.program.load(self.x, &at).binary(combine.binary(), &cx.program.load(all, &own));
        cx.program.map(shape, body)
    }

    /// `x` with elements of `values`, which has the shape of the updates, in it; the last where several have one place.
    fn replaced(&self, cx: &mut Cx, values: ValueId) -> Lowering {
        let shape = cx.program.shape(self.x).to_vec();
        let i = vars(0, &shape);
        // The number of the last update that hits, counted from 1; 0 where none does.
        let outer = &shape[..self.depth];
        let r = vars(self.depth as u32, &self.extents);
        let number = flatten(&r, &self.extents);
        let hit = (self.hits)(cx, &i[..self.depth], &r);
        let counted = Expr::index(&number + &Idx::from(1i64), DType::I32);
        let body = hit.select(&counted, &Expr::int(DType::I32, 0));
        let reduce = Def::Reduce { extents: self.extents.clone(), combine: Combine::Max, body };
        let last = cx.program.add(DType::I32, outer.to_vec(), reduce);
        let last = cx.program.load(last, &i[..self.depth]);
        let one = Expr::int(DType::I32, 1);
        let len = numel(&self.extents);
        let r = unflatten(&last.binary(Binary::Sub, &one).to_position(&len), &self.extents);
        let update = cx.program.load(values, &(self.source)(&i, &r));
        let body = one.binary(Binary::Le, &last).select(&update, &cx.program.load(self.x, &i));
        let extents = cx.program.shape(self.updates).to_vec();
        let own = vars(0, &extents);
        let (at, when) = (self.place)(cx, &own);
        let value = cx.program.load(values, &own);
        let update = Update { base: self.x, extents, at, when, value };
        Ok(vec![cx.program.map_or_update(shape, body, update)])
    }
}

/// Whether the index, an element of `indices`, is position `i` of an axis of `size` elements.
fn is_at(index: &Expr, i: &Idx, size: &Idx) -> Expr {
    from_front(index, size).binary(Binary::Eq, &Expr::index(i.clone(), index.dtype()))
}

/// The position on an axis of `size` elements that the index says, and whether there is one.
fn position(index: &Expr, size: &Idx) -> (Idx, Expr) {
    let index = from_front(index, size);
    let end = Expr::index(size.clone(), index.dtype());
    let is_there = Expr::int(index.dtype(), 0).at_most(&index).and(index.below(end));
    (index.to_position(size), is_there)
}

fn scatter_elements(cx: &mut Cx) -> Lowering {
    let (x, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (shape, given) = (cx.program.shape(x).to_vec(), cx.program.shape(indices).to_vec());
    let axis = cx.axis(cx.int_or("axis", 0)?, shape.len())?;
    if given.len() != shape.len() || cx.program.shape(updates) != given.as_slice() {
        return Err(cx.error("indices and updates want one shape, of the rank of x"));
    }
    let source = |i: &[Idx], r: &[Idx]| {
        let mut at = i.to_vec();
        at[axis] = r[0].clone();
        at
    };
    let hits = |cx: &Cx, i: &[Idx], r: &[Idx]| {
        let number = |idx: &Idx| Expr::index(idx.clone(), DType::I64);
        // The other axes of the indices may be shorter than those of x.
        let others = (0..shape.len()).filter(|&other| other != axis);
        let covered = others.fold(Expr::bool(true), |all, other| {
            all.binary(Binary::And, &number(&i[other]).binary(Binary::Lt, &number(&given[other])))
        });
        let hit = is_at(&cx.program.load(indices, &source(i, r)), &i[axis], &shape[axis]);
        covered.select(&hit, &Expr::bool(false))
    };
    let place = |cx: &Cx, i: &[Idx]| {
        let number = |idx: &Idx| Expr::index(idx.clone(), DType::I64);
        let (to, is_there) = position(&cx.program.load(indices, i), &shape[axis]);
        let others = (0..shape.len()).filter(|&other| other != axis);
        let is_there = others.fold(is_there, |all, o| all.and(number(&i[o]).below(number(&shape[o]))));
        let mut at = i.to_vec();
        at[axis] = to;
        (at, is_there)
    };
    let (extents, line, depth) = (vec![given[axis].clone()], shape[axis].clone(), shape.len());
    Scatter { x, updates, extents, line, depth, hits: &hits, source: &source, place: &place }.lower(cx)
}

fn scatter_nd(cx: &mut Cx) -> Lowering {
    let (x, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (shape, given) = (cx.program.shape(x).to_vec(), cx.program.shape(indices).to_vec());
    let depth = given.last().and_then(Idx::as_const).and_then(|depth| usize::try_from(depth).ok());
    let Some(depth) = depth.filter(|&depth| depth <= shape.len()) else {
        return Err(cx.error("the last axis of the indices must have a constant size, at most the rank of x"));
    };
    let extents = given[..given.len() - 1].to_vec();
    let wanted = [&extents, &shape[depth..]].concat();
    if cx.program.rank(updates) != wanted.len() {
        return Err(cx.error(format!(
            "updates want rank {}, got {}",
            wanted.len(),
            cx.program.rank(updates)
        )));
    }
    for (axis, d) in wanted.iter().enumerate() {
        let have = cx.program.shape(updates)[axis].clone();
        cx.program.equate(&have, d, &format!("axis {axis} of the updates"))?;
    }
    let hits = |cx: &Cx, i: &[Idx], r: &[Idx]| {
        (0..depth).fold(Expr::bool(true), |all, axis| {
            let mut at = r.to_vec();
            at.push(Idx::from(axis));
            all.binary(Binary::And, &is_at(&cx.program.load(indices, &at), &i[axis], &shape[axis]))
        })
    };
    let source = |i: &[Idx], r: &[Idx]| [r, &i[depth..]].concat();
    let place = |cx: &Cx, i: &[Idx]| {
        let (r, rest) = i.split_at(given.len() - 1);
        let on_axis =
            |axis| position(&cx.program.load(indices, &[r, &[Idx::from(axis)]].concat()), &shape[axis]);
        let (at, there): (Vec<Idx>, Vec<Expr>) = (0..depth).map(on_axis).unzip();
        let is_there = there.into_iter().fold(Expr::bool(true), |all, one| all.and(one));
        ([at.as_slice(), rest].concat(), is_there)
    };
    let line = numel(&shape[..depth]);
    Scatter { x, updates, extents, line, depth, hits: &hits, source: &source, place: &place }.lower(cx)
}

fn tensor_scatter(cx: &mut Cx) -> Lowering {
    let (past, update) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.program.shape(past).to_vec();
    let axis = cx.axis(cx.int_or("axis", -2)?, shape.len())?;
    if axis == 0 || cx.program.rank(update) != shape.len() {
        return Err(cx.error("past and update want one rank and an axis after the batch's"));
    }
    let wraps = match cx.string_or("mode", "linear")?.as_str() {
        "linear" => false,
        "circular" => true,
        other => return Err(cx.error(format!("mode wants linear or circular, got {other:?}"))),
    };
    let i = vars(0, &shape);
    let number = |idx: &Idx| Expr::index(idx.clone(), DType::I64);
    let start = match cx.optional(2) {
        Some(starts) => cx.program.load(starts, &i[..1]),
        None => Expr::int(DType::I64, 0),
    };
    let offset = number(&i[axis]).binary(Binary::Sub, &start);
    let offset = if wraps { offset.binary(Binary::Mod, &number(&shape[axis])) } else { offset };
    let len = cx.program.shape(update)[axis].clone();
    let from = Expr::int(DType::I64, 0).binary(Binary::Le, &offset);
    let inside = from.binary(Binary::And, &offset.binary(Binary::Lt, &number(&len)));
    let mut at = i.clone();
    at[axis] = offset.to_position(&len);
    let body = inside.select(&cx.program.load(update, &at), &cx.program.load(past, &i));
    // The same, from where an element comes to where it goes.
    let extents = cx.program.shape(update).to_vec();
    let mut place = vars(0, &extents);
    let value = cx.program.load(update, &place);
    let position = number(&place[axis]) + &start;
    let position = if wraps { position.binary(Binary::Mod, &number(&shape[axis])) } else { position };
    let inside = Expr::int(DType::I64, 0).at_most(&position).and(position.below(number(&shape[axis])));
    place[axis] = position.to_position(&shape[axis]);
    let update = Update { base: past, extents, at: place, when: inside, value };
    Ok(vec![cx.program.map_or_update(shape, body, update)])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, int, ints, t, text};

    #[test]
    fn elements() {
        let x = count(&[2, 3]);
        let (indices, updates) = (t(&[1, 3], &[1i64, 1, -3]), t(&[1, 3], &[10f32, 20., 30.]));
        for (reduction, want) in [
            ("none", [30f32, 20., 2., 3., 4., 5.]),
            ("add", [30., 31., 2., 3., 4., 5.]),
            ("mul", [0., 200., 2., 3., 4., 5.]),
            ("max", [30., 20., 2., 3., 4., 5.]),
            ("min", [0., 1., 2., 3., 4., 5.]),
        ] {
            let attributes = [("axis", int(1)), ("reduction", text(reduction))];
            let inputs = [x.clone(), indices.clone(), updates.clone()];
            Case::new("ScatterElements", &attributes, &inputs).gives_if_sizes_are_known([t(&[2, 3], &want)]);
        }
    }

    #[test]
    fn slices() {
        let inputs = [count(&[3, 2]), t(&[2, 1], &[2i64, -3]), t(&[2, 2], &[10f32, 11., 20., 21.])];
        for (reduction, want) in
            [("none", [20f32, 21., 2., 3., 10., 11.]), ("add", [20., 22., 2., 3., 14., 16.])]
        {
            let case = Case::new("ScatterND", &[("reduction", text(reduction))], &inputs);
            case.gives_if_sizes_are_known([t(&[3, 2], &want)]);
        }
    }

    #[test]
    fn a_cache_is_written_at_each_batch_s_position() {
        let inputs = [t(&[2, 3, 1], &[0f32; 6]), t(&[2, 2, 1], &[1f32, 2., 3., 4.]), ints(&[1, 2])];
        for (mode, want) in [("circular", [0f32, 1., 2., 4., 0., 3.]), ("linear", [0., 1., 2., 0., 0., 3.])] {
            Case::new("TensorScatter", &[("mode", text(mode))], &inputs).gives([t(&[2, 3, 1], &want)]);
        }
    }
}
