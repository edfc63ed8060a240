//! Operators whose contents decide the shape of their result. They are computed on the device; how many elements
//! there are is read back, and the rest of the plan is for any number.

use super::math::{Lowering, op};
use super::prefix::{positions, prefix};
use super::topk::first;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, Unary, numel, unflatten, vars};
use crate::ir::{Combine, Program, Stop, ValueId, before};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("Compress", 9, "the slices of an axis whose condition holds", compress),
    op("NonZero", 9, "the positions of what is not zero", non_zero),
    op(
        "Unique",
        11,
        "the different elements or slices, their first positions, inverse and counts; n^2 comparisons of slices",
        unique,
    ),
];

fn flat(p: &mut Program, x: ValueId) -> Result<ValueId, Stop> {
    let len = numel(p.shape(x));
    p.reshape(x, vec![len])
}

/// The slices of `axis` at `places`, a vector.
fn pick(p: &mut Program, x: ValueId, axis: usize, places: ValueId) -> ValueId {
    let mut shape = p.shape(x).to_vec();
    let size = std::mem::replace(&mut shape[axis], p.shape(places)[0].clone());
    let mut at = vars(0, &shape);
    at[axis] = p.load(places, &at[axis..=axis]).to_position(&size);
    let body = p.load(x, &at);
    p.map(shape, body)
}

/// The axis that an attribute names, or `x` as a vector.
fn axis_or_flat(cx: &mut Cx, x: ValueId) -> Result<(ValueId, usize), Stop> {
    match cx.int("axis")? {
        Some(axis) => Ok((x, cx.axis(axis, cx.program.rank(x))?)),
        None => Ok((flat(cx.program, x)?, 0)),
    }
}

fn compress(cx: &mut Cx) -> Lowering {
    let (x, condition) = (cx.input(0)?, cx.input(1)?);
    let (x, axis) = axis_or_flat(cx, x)?;
    let (_, places) = positions(cx.program, condition)?;
    Ok(vec![pick(cx.program, x, axis, places)])
}

fn non_zero(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let p = &mut *cx.program;
    let shape = p.shape(x).to_vec();
    let wanted = p.cast(x, DType::Bool);
    let wanted = flat(p, wanted)?;
    let (count, places) = positions(p, wanted)?;
    let out = vec![Idx::from(shape.len()), count];
    let at = vars(0, &out);
    let place = p.load(places, &at[1..]).to_position(&numel(&shape));
    let along = unflatten(&place, &shape);
    let body = chosen(&along, &at[0]);
    Ok(vec![p.map(out, body)])
}

/// The index numbered `which`, as int64.
fn chosen(all: &[Idx], which: &Idx) -> Expr {
    let which = Expr::index(which.clone(), DType::I32);
    let numbered = all.iter().enumerate();
    numbered.fold(Expr::int(DType::I64, 0), |other, (number, index)| {
        let here = which.equals(Expr::int(DType::I32, number as i64));
        here.select(&Expr::index(index.clone(), DType::I64), &other)
    })
}

/// Equal slices stand side by side once all are in order, the first of them in front.
fn unique(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let (x, axis) = axis_or_flat(cx, x)?;
    let sorted = cx.int_or("sorted", 1)? != 0;
    let p = &mut *cx.program;
    let mut axes: Vec<usize> = (0..p.rank(x)).filter(|&a| a != axis).collect();
    axes.insert(0, axis);
    let turned = p.transpose(x, &axes);
    let (len, inner) = (p.shape(turned)[0].clone(), numel(&p.shape(turned)[1..]));
    let slices = p.reshape(turned, vec![len.clone(), inner.clone()])?;
    let order = if inner.is(1) {
        let elements = flat(p, slices)?;
        ascending(p, elements)
    } else {
        let places = places(p, slices);
        ascending(p, places)
    };
    let (zero, one) = (Expr::int(DType::I32, 0), Expr::int(DType::I32, 1));
    let is_new = p.reduction(vec![len.clone()], vec![inner], Combine::Max, |p, at, r| {
        let slice = |place: &Idx| {
            let slice = p.load(order, std::slice::from_ref(place)).to_position(&len);
            p.load(slices, &[slice, r[0].clone()])
        };
        let here = slice(&at[0]);
        let previous = slice(&(&at[0] - &Idx::from(1i64)).larger(&Idx::from(0i64)));
        let is_first = Expr::number(&at[0]).equals(&zero);
        is_first.or(same(&here, &previous).unary(Unary::Not)).select(&one, &zero)
    });
    let group = prefix(p, is_new, 0, Combine::Sum);
    let wanted = p.cast(is_new, DType::Bool);
    let (count, starts) = positions(p, wanted)?;
    let at = vars(0, std::slice::from_ref(&count));
    let start = p.load(starts, &at);
    let first = p.load(order, &[start.to_position(&len)]);
    let mut firsts = p.map(vec![count.clone()], first);
    let next = &at[0] + &Idx::from(1i64);
    let is_last = Expr::number(&next).equals(Expr::number(&count));
    let end =
        is_last.select(&Expr::number(&len), &p.load(starts, &[next.smaller(&(&count - &Idx::from(1i64)))]));
    let mut counts = p.map(vec![count.clone()], end - start);
    let place = ascending(p, order);
    let mut inverse = p.map(vec![len.clone()], {
        let place = p.load(place, &vars(0, std::slice::from_ref(&len))).to_position(&len);
        p.load(group, &[place]) - one
    });
    if !sorted {
        let by_first = ascending(p, firsts);
        (firsts, counts) = (pick(p, firsts, 0, by_first), pick(p, counts, 0, by_first));
        let numbers = ascending(p, by_first);
        inverse = pick(p, numbers, 0, inverse);
    }
    let y = pick(p, x, axis, firsts);
    Ok(vec![y, p.cast(firsts, DType::I64), p.cast(inverse, DType::I64), p.cast(counts, DType::I64)])
}

/// The positions of the elements of a vector in ascending order: of a permutation, its inverse.
fn ascending(p: &mut Program, x: ValueId) -> ValueId {
    let len = p.shape(x)[0].clone();
    first(p, x, 0, len, false)
}

/// Where the rows of a matrix stand in lexicographic order, equal ones in their own: how many come before each. All pairs
/// are compared.
fn places(p: &mut Program, rows: ValueId) -> ValueId {
    let (len, inner) = (p.shape(rows)[0].clone(), p.shape(rows)[1].clone());
    let element = |p: &Program, row: &Idx, column: &Idx| p.load(rows, &[row.clone(), column.clone()]);
    // The first column in which two rows differ.
    let pairs = vec![len.clone(), len.clone()];
    let column = p.reduction(pairs, vec![inner.clone()], Combine::Min, |p, at, r| {
        let equal = same(&element(p, &at[0], &r[0]), &element(p, &at[1], &r[0]));
        equal.select(&Expr::number(&inner), &Expr::number(&r[0]))
    });
    p.reduction(vec![len.clone()], vec![len], Combine::Sum, |p, at, r| {
        let column = p.load(column, &[at[0].clone(), r[0].clone()]);
        let place = column.to_position(&inner);
        let (mine, other) = (element(p, &at[0], &place), element(p, &r[0], &place));
        let is_equal = column.equals(Expr::number(&inner));
        let comes =
            is_equal.select(&Expr::number(&r[0]).below(Expr::number(&at[0])), &before(&other, &mine, false));
        comes.select(&Expr::int(DType::I32, 1), &Expr::int(DType::I32, 0))
    })
}

fn same(a: &Expr, b: &Expr) -> Expr {
    before(a, b, false).or(before(b, a, false)).unary(Unary::Not)
}

/// A matrix with a row of `width` numbers for every true element of the vector `wanted`: `f` of its position.
pub(super) fn compact(
    p: &mut Program,
    wanted: ValueId,
    width: usize,
    f: impl FnOnce(&Program, &Idx) -> Vec<Idx>,
) -> Result<ValueId, Stop> {
    let len = p.shape(wanted)[0].clone();
    let (count, places) = positions(p, wanted)?;
    let out = vec![count, Idx::from(width)];
    let at = vars(0, &out);
    let place = p.load(places, &at[..1]).to_position(&len);
    let body = chosen(&f(p, &place), &at[1]);
    Ok(p.map(out, body))
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, int, ints, t};

    #[test]
    fn slices_that_are_wanted() {
        let inputs = [count(&[2, 3]), t(&[3], &[true, false, true])];
        let want = t(&[2, 2], &[0f32, 2., 3., 5.]);
        Case::new("Compress", &[("axis", int(1))], inputs).gives([want]);
    }

    #[test]
    fn places_of_what_is_not_zero() {
        let x = t(&[2, 2], &[1f32, 0., 3., 4.]);
        Case::new("NonZero", &[], [x]).gives([t(&[2, 3], &[0i64, 1, 1, 0, 0, 1])]);
        Case::new("NonZero", &[], [t(&[3], &[0i64; 3])]).gives([t::<i64>(&[1, 0], &[])]);
        Case::new("NonZero", &[], [t::<f32>(&[0], &[])]).gives([t::<i64>(&[1, 0], &[])]);
    }

    #[test]
    fn different_elements() {
        let x = t(&[5], &[2f32, 1., 1., 3., 2.]);
        for (sorted, y, first, inverse, counts) in [
            (1, [1f32, 2., 3.], [1i64, 0, 3], [1i64, 0, 0, 2, 1], [2i64, 2, 1]),
            (0, [2., 1., 3.], [0, 1, 3], [0, 1, 1, 2, 0], [2, 2, 1]),
        ] {
            let want = [t(&[3], &y), ints(&first), ints(&inverse), ints(&counts)];
            Case::new("Unique", &[("sorted", int(sorted))], [x.clone()]).outputs(4).gives(want);
        }
    }

    #[test]
    fn different_slices() {
        let x = t(&[3, 2], &[1f32, 5., 1., 4., 1., 5.]);
        let want = [t(&[2, 2], &[1f32, 4., 1., 5.]), ints(&[1, 0]), ints(&[1, 0, 1]), ints(&[1, 2])];
        Case::new("Unique", &[("axis", int(0))], [x]).outputs(4).gives(want);
    }
}
