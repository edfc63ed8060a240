//! Non-maximum suppression: of boxes that overlap, the one with the highest score.
//!
//! Every step takes, for all batches and classes at once, the best box that is left, and drops those that overlap it:
//! two kernels a step. What was taken is moved together at the end.

use super::filter::compact;
use super::join::join;
use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, Unary, numel, unflatten, vars};
use crate::ir::{Combine, Program, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[op(
    "NonMaxSuppression",
    10,
    "the boxes with the highest scores that overlap no better one, at most 512 of a class",
    suppress,
)];

/// Boxes of a class at the most, each of which is a step.
const MOST: usize = 512;

fn suppress(cx: &mut Cx) -> Lowering {
    let (boxes, scores) = (cx.input(0)?, cx.input(1)?);
    let most = match cx.optional(2) {
        Some(most) => cx.program.integers(most)?.first().copied().unwrap_or(0).max(0),
        None => 0,
    };
    let scalar = |cx: &Cx, i: usize| {
        let id = cx.optional(i)?;
        Some(cx.program.load(id, &vec![Idx::from(0i64); cx.program.rank(id)]))
    };
    let overlap_limit = scalar(cx, 3).unwrap_or(Expr::float(DType::F32, 0.0));
    let score_limit = scalar(cx, 4);
    let form = match cx.int_or("center_point_box", 0)? {
        0 => corners,
        1 => centre,
        other => return Err(cx.error(format!("center_point_box wants 0 or 1, got {other}"))),
    };
    let shape = cx.program.shape(scores).to_vec();
    let [batches, classes, len] = shape.as_slice() else {
        return Err(cx.error(format!("scores want three axes, got {}", shape.len())));
    };
    let most = match usize::try_from(most) {
        Ok(most) if most <= MOST => most,
        _ => cx.program.known_size(len)?.min(most as usize),
    };
    if most > MOST {
        return Err(cx.unsupported(format!("{most} boxes of a class; at most {MOST}")));
    }
    let p = &mut *cx.program;
    if most == 0 {
        return Ok(vec![p.map(vec![Idx::from(0i64), Idx::from(3i64)], Expr::int(DType::I64, 0))]);
    }
    let number = |i: &Idx| Expr::index(i.clone(), DType::I32);
    let at = vars(0, &shape);
    let passes = match &score_limit {
        Some(limit) => limit.below(p.load(scores, &at)),
        None => Expr::bool(true),
    };
    let mut left = p.map(shape.clone(), passes);
    let mut taken = Vec::new();
    for _ in 0..most {
        let best = p.reduction(shape[..2].to_vec(), vec![len.clone()], Combine::Max, |p, at, r| {
            let here = [at, r].concat();
            let score = p.load(scores, &here);
            p.load(left, &here).select(&score, &Combine::Max.identity(score.dtype()))
        });
        // Beyond the end where none is left.
        let place = p.reduction(shape[..2].to_vec(), vec![len.clone()], Combine::Min, |p, at, r| {
            let here = [at, r].concat();
            let is_best = p.load(left, &here).and(p.load(scores, &here).equals(p.load(best, at)));
            is_best.select(&number(&r[0]), &number(len))
        });
        let found = p.load(place, &at[..2]);
        let other = found.to_position(len);
        let overlap = overlaps(p, boxes, &at[0], &at[2], &other, form, &overlap_limit);
        let stays = p.load(left, &at).and(number(&at[2]).equals(&found).or(overlap).unary(Unary::Not));
        left = p.map(shape.clone(), stays);
        taken.push(p.reshape(place, vec![batches.clone(), classes.clone(), Idx::from(1i64)])?);
    }
    let taken = join(p, taken, 2);
    let all = p.shape(taken).to_vec();
    let wanted = p.unary(taken, |place| place.below(number(len)));
    let wanted = p.reshape(wanted, vec![numel(&all)])?;
    let selected = compact(p, wanted, 3, |p, row| {
        let at = unflatten(row, &all);
        let place = p.load(taken, &at).to_position(len);
        vec![at[0].clone(), at[1].clone(), place]
    })?;
    Ok(vec![selected])
}

/// A box's lower and upper end along one axis, from its four numbers.
type Form = fn(&dyn Fn(usize) -> Expr, usize) -> (Expr, Expr);

/// Two corners, in any order.
fn corners(coordinate: &dyn Fn(usize) -> Expr, axis: usize) -> (Expr, Expr) {
    let (a, b) = (coordinate(axis), coordinate(axis + 2));
    (a.smaller(&b), a.larger(&b))
}

/// The centre and the size.
fn centre(coordinate: &dyn Fn(usize) -> Expr, axis: usize) -> (Expr, Expr) {
    let (middle, half) = (coordinate(axis), coordinate(axis + 2) / 2.0);
    (&middle - &half, &middle + &half)
}

/// Whether the intersection of two boxes is more than `limit` of their union.
fn overlaps(p: &Program, boxes: ValueId, batch: &Idx, a: &Idx, b: &Idx, form: Form, limit: &Expr) -> Expr {
    let ends = |which: &Idx, axis: usize| {
        form(&|i| p.load(boxes, &[batch.clone(), which.clone(), Idx::from(i)]), axis)
    };
    let zero = Expr::float(p.dtype(boxes), 0.0);
    let area = |axes: &[(Expr, Expr)]| (&axes[0].1 - &axes[0].0) * (&axes[1].1 - &axes[1].0);
    let [first, second] = [a, b].map(|which| [0, 1].map(|axis| ends(which, axis)));
    let common = [0, 1].map(|axis| {
        let ((low, high), (other_low, other_high)) = (&first[axis], &second[axis]);
        (low.larger(other_low), high.smaller(other_high))
    });
    let (intersection, areas) = (area(&common), [area(&first), area(&second)]);
    let union = &(&areas[0] + &areas[1]) - &intersection;
    let positive = |e: &Expr| zero.below(e);
    let meet = common.iter().fold(Expr::bool(true), |all, (low, high)| all.and(low.below(high)));
    let sizes = [&intersection, &areas[0], &areas[1], &union];
    let proper = sizes.into_iter().fold(meet, |all, size| all.and(positive(size)));
    proper.and(limit.binary(Binary::Lt, &(&intersection / &union)))
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, f32s, t};

    /// Two boxes that overlap by half, and one apart.
    #[test]
    fn the_best_of_those_that_overlap() {
        let boxes = f32s(&[1, 3, 4], &[0., 0., 1., 1., 0., 0., 1., 0.5, 5., 5., 6., 6.]);
        let scores = f32s(&[1, 1, 3], &[0.5, 0.9, 0.2]);
        let limit = |v: f32| t(&[1], &[v]);
        for (most, overlap, score, want) in [
            (3, 0.4, 0.0, vec![0i64, 0, 1, 0, 0, 2]),
            (3, 0.6, 0.0, vec![0, 0, 1, 0, 0, 0, 0, 0, 2]),
            (1, 0.6, 0.0, vec![0, 0, 1]),
            (3, 0.6, 0.4, vec![0, 0, 1, 0, 0, 0]),
            (0, 0.6, 0.0, vec![]),
        ] {
            let inputs =
                [boxes.clone(), scores.clone(), t(&[1], &[most as i64]), limit(overlap), limit(score)];
            Case::new("NonMaxSuppression", &[], inputs).gives([t(&[want.len() / 3, 3], &want)]);
        }
    }
}
