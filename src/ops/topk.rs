//! The largest or smallest elements of an axis, in order.

use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Idx, vars};
use crate::ir::{Program, Relation, ValueId, join, split};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[op(
    "TopK",
    1,
    "the k largest or smallest along an axis, in order, and their positions; NaN counts as the largest number",
    top_k,
)];

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
    cx.program.relate(&k, Relation::AtMost, &shape[axis], "k against the length of its axis")?;
    let positions = first(cx.program, x, axis, k, largest);
    let out = cx.program.shape(positions).to_vec();
    let at = vars(0, &out);
    let mut source = at.clone();
    source[axis] = cx.program.load(positions, &at).to_position(&shape[axis]);
    let values = cx.program.load(x, &source);
    let values = cx.program.map(out, values);
    Ok(vec![values, cx.program.cast(positions, DType::I64)])
}

/// The positions of the `k` largest or smallest elements along `axis`, in order, as int32.
pub(super) fn first(p: &mut Program, x: ValueId, axis: usize, k: Idx, largest: bool) -> ValueId {
    let (rows, extent) = split(p.shape(x), &[axis]);
    let found = p.top_k(rows, extent[0].clone(), k.clone(), largest, |p, at| {
        let (row, place) = at.split_at(at.len() - 1);
        p.load(x, &join(row, place, &[axis]))
    });
    let mut out = p.shape(x).to_vec();
    out[axis] = k;
    p.view(found, out, |at| {
        let (row, place) = split(at, &[axis]);
        [row, place].concat()
    })
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
        assert!(case.refusal().contains("k against the length of its axis: 3 must be at most 2"));
    }
}
