//! The largest or smallest elements of an axis, in order.
//!
//! The rank of an element is the number of elements that come before it, by value and then by position. Ranks
//! are a permutation, so the element of rank `r` is found by looking for it: `n^2` comparisons per row, and
//! `k * n` more. That is good for thousands of elements, and for [`MOST`] at the most.

use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, Unary, vars};
use crate::ir::{Combine, Program, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[op(
    "TopK",
    1,
    "the k largest or smallest along an axis, in order, and their positions; at most 131,072 elements a row",
    top_k,
)];

/// Elements of a row at the most: 17 billion comparisons.
const MOST: i64 = 1 << 17;

fn top_k(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    let axis = cx.axis(cx.int_or("axis", -1)?, shape.len())?;
    let k = match cx.sizes_at(1, "k")? {
        Some(sizes) if sizes.len() == 1 => sizes[0].clone(),
        _ => match cx.int("k")? {
            Some(k) => Idx::from(k),
            None => return Err(cx.error("k wants one number")),
        },
    };
    let largest = cx.int_or("largest", 1)? != 0;
    if let Some(len) = shape[axis].as_const().filter(|&len| len > MOST) {
        return Err(cx.unsupported(format!("the order of {len} elements; at most {MOST} are supported")));
    }
    if k.as_const().zip(shape[axis].as_const()).is_some_and(|(k, len)| k > len) {
        return Err(cx.error(format!("k={k} of an axis of {}", shape[axis])));
    }
    let positions = first(cx.program, x, axis, k, largest);
    let out = cx.program.shape(positions).to_vec();
    let at = vars(0, &out);
    let mut source = at.clone();
    source[axis] = cx.program.load(positions, &at).to_position(&shape[axis]);
    let values = cx.program.load(x, &source);
    let values = cx.program.map(out, values);
    Ok(vec![values, cx.program.cast(positions, DType::I64)])
}

/// The positions of the `k` largest or smallest elements of each row, in order, as int32.
pub(super) fn first(p: &mut Program, x: ValueId, axis: usize, k: Idx, largest: bool) -> ValueId {
    let ranks = ranks(p, x, axis, largest);
    let mut out = p.shape(x).to_vec();
    let len = std::mem::replace(&mut out[axis], k);
    p.reduction(out, vec![len], Combine::Max, |p, o, r| {
        let mut at = o.to_vec();
        at[axis] = r[0].clone();
        let found = p.load(ranks, &at).equals(Expr::index(o[axis].clone(), DType::I32));
        found.select(&Expr::index(r[0].clone(), DType::I32), &Expr::int(DType::I32, 0))
    })
}

/// How many elements of its row come before each element.
fn ranks(p: &mut Program, x: ValueId, axis: usize, largest: bool) -> ValueId {
    let shape = p.shape(x).to_vec();
    p.reduction(shape.clone(), vec![shape[axis].clone()], Combine::Sum, |p, here, r| {
        let mut at = here.to_vec();
        at[axis] = r[0].clone();
        let (mine, other) = (p.load(x, here), p.load(x, &at));
        let number = |i: &Idx| Expr::index(i.clone(), DType::I32);
        let earlier = number(&r[0]).below(number(&here[axis]));
        let ahead = before(&other, &mine, largest).or(same(&other, &mine).and(earlier));
        ahead.select(&Expr::int(DType::I32, 1), &Expr::int(DType::I32, 0))
    })
}

/// Whether `a` comes before `b` by value. NaN counts as the largest number, as in numpy.
pub(super) fn before(a: &Expr, b: &Expr, largest: bool) -> Expr {
    if a.dtype() == DType::Bool {
        let (a, b) = (a.cast(DType::I32), b.cast(DType::I32));
        return before(&a, &b, largest);
    }
    let (low, high) = if largest { (b, a) } else { (a, b) };
    if !a.dtype().is_float() {
        return low.below(high);
    }
    let (low_nan, high_nan) = (low.unary(Unary::IsNan), high.unary(Unary::IsNan));
    // Comparisons with NaN are not used: WGSL leaves open what they give.
    low_nan.select(&Expr::bool(false), &high_nan.select(&Expr::bool(true), &low.below(high)))
}

pub(super) fn same(a: &Expr, b: &Expr) -> Expr {
    if !a.dtype().is_float() {
        return a.equals(b);
    }
    let (left, right) = (a.unary(Unary::IsNan), b.unary(Unary::IsNan));
    left.select(&right, &right.select(&Expr::bool(false), &a.equals(b)))
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, int, ints, t};

    #[test]
    fn in_order_with_ties_and_nan() {
        let x = t(&[2, 4], &[1f32, 3., 3., 2., f32::NAN, -1., f32::INFINITY, -1.]);
        for (largest, values, positions) in
            [(1, [3f32, 3., f32::NAN, f32::INFINITY], [1i64, 2, 0, 2]), (0, [1., 2., -1., -1.], [0, 3, 1, 3])]
        {
            let attributes = [("largest", int(largest)), ("axis", int(1))];
            let want = [t(&[2, 2], &values), t(&[2, 2], &positions)];
            Case::new("TopK", &attributes, [x.clone(), ints(&[2])]).outputs(2).gives(want);
        }
    }

    #[test]
    fn more_than_there_are() {
        let case = Case::new("TopK", &[], [t(&[2], &[1f32, 2.]), ints(&[3])]);
        assert!(case.refusal().contains("k=3 of an axis of 2"));
    }
}
