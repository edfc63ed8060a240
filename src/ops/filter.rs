//! Operators whose contents decide the shape of their result. They are computed on the device; how many elements
//! there are is read back, and the rest of the plan is for any number.

use super::math::{Lowering, op};
use super::prefix::positions;
use super::topk::{before, same};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, numel, unflatten, vars};
use crate::ir::{Combine, Program, Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("Compress", 9, "the slices of an axis whose condition holds", compress),
    op("NonZero", 9, "the positions of what is not zero", non_zero),
    op(
        "Unique",
        11,
        "the different elements or slices, their first positions, inverse and counts; n^2 comparisons",
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

/// Slices are compared pair by pair; of equal ones the first stands for all.
fn unique(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let (x, axis) = axis_or_flat(cx, x)?;
    let sorted = cx.int_or("sorted", 1)? != 0;
    let p = &mut *cx.program;
    let mut order: Vec<usize> = (0..p.rank(x)).filter(|&a| a != axis).collect();
    order.insert(0, axis);
    let turned = p.transpose(x, &order);
    let (len, inner) = (p.shape(turned)[0].clone(), numel(&p.shape(turned)[1..]));
    let rows = p.reshape(turned, vec![len.clone(), inner.clone()])?;
    let pair = Pair::new(p, rows, &len, &inner);
    let number = |i: &Idx| Expr::index(i.clone(), DType::I32);
    let (zero, one) = (Expr::int(DType::I32, 0), Expr::int(DType::I32, 1));
    let every = |p: &mut Program, combine, f: &dyn Fn(&Program, &Idx, &Idx) -> Expr| {
        p.reduction(vec![len.clone()], vec![len.clone()], combine, |p, at, r| f(p, &at[0], &r[0]))
    };
    // Where the first slice like this one is.
    let first = every(p, Combine::Min, &|p, a, b| pair.same(p, a, b).select(&number(b), &number(a)));
    let is_first = {
        let at = vars(0, std::slice::from_ref(&len));
        let body = p.load(first, &at).equals(number(&at[0]));
        p.map(vec![len.clone()], body)
    };
    // How many different ones come before it.
    let rank = every(p, Combine::Sum, &|p, a, b| {
        let earlier = match sorted {
            true => pair.before(p, b, a),
            false => number(b).below(p.load(first, std::slice::from_ref(a))),
        };
        p.load(is_first, std::slice::from_ref(b)).and(earlier).select(&one, &zero)
    });
    let ones = p.cast(is_first, DType::I32);
    let total = p.reduce(ones, &[0], false, Combine::Sum, Expr::clone)?;
    let count = p.computed_size(total)?;
    let ranked = |p: &mut Program, combine, f: &dyn Fn(&Program, &Idx, &Expr) -> Expr| {
        p.reduction(vec![count.clone()], vec![len.clone()], combine, |p, at, r| {
            let here = p.load(rank, r).equals(number(&at[0]));
            f(p, &r[0], &here)
        })
    };
    let places = ranked(p, Combine::Max, &|p, i, here| {
        here.and(p.load(is_first, std::slice::from_ref(i))).select(&number(i), &zero)
    });
    let counts = ranked(p, Combine::Sum, &|_, _, here| here.select(&one, &zero));
    let y = pick(p, x, axis, places);
    Ok(vec![y, p.cast(places, DType::I64), p.cast(rank, DType::I64), p.cast(counts, DType::I64)])
}

/// Compares the rows of a matrix.
struct Pair {
    rows: ValueId,
    inner: Idx,
    /// For every two rows, the first column in which they differ; rows of one element need none.
    difference: Option<ValueId>,
}

impl Pair {
    fn new(p: &mut Program, rows: ValueId, len: &Idx, inner: &Idx) -> Pair {
        let column = |i: &Idx| Expr::index(i.clone(), DType::I32);
        let difference = (!inner.is(1)).then(|| {
            let pairs = vec![len.clone(), len.clone()];
            p.reduction(pairs, vec![inner.clone()], Combine::Min, |p, at, r| {
                let element = |row: &Idx| p.load(rows, &[row.clone(), r[0].clone()]);
                same(&element(&at[0]), &element(&at[1])).select(&column(inner), &column(&r[0]))
            })
        });
        Pair { rows, inner: inner.clone(), difference }
    }

    /// The elements of both rows that decide.
    fn elements(&self, p: &Program, a: &Idx, b: &Idx) -> (Expr, Expr) {
        let column = match self.difference {
            Some(difference) => p.load(difference, &[a.clone(), b.clone()]).to_position(&self.inner),
            None => Idx::from(0i64),
        };
        let element = |row: &Idx| p.load(self.rows, &[row.clone(), column.clone()]);
        (element(a), element(b))
    }

    fn same(&self, p: &Program, a: &Idx, b: &Idx) -> Expr {
        match self.difference {
            Some(difference) => p
                .load(difference, &[a.clone(), b.clone()])
                .equals(Expr::index(self.inner.clone(), DType::I32)),
            None => {
                let (a, b) = self.elements(p, a, b);
                same(&a, &b)
            }
        }
    }

    fn before(&self, p: &Program, a: &Idx, b: &Idx) -> Expr {
        let (x, y) = self.elements(p, a, b);
        before(&x, &y, false)
    }
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
