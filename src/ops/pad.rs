//! Elements added around a tensor, or taken away.

use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, Value, vars};
use crate::ir::{Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("Pad", 1, "elements added before and after each axis; negative numbers of them are taken away", pad),
    op("CenterCropPad", 18, "cut or padded with zeros around the centre, to given sizes", center_crop_pad),
];

/// Elements to add along one axis.
#[derive(Clone)]
struct Border {
    before: Idx,
    after: Idx,
}

fn pad(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let dtype = cx.program.dtype(x);
    let shape = cx.program.shape(x).to_vec();
    let sizes = cx
        .sizes_at(1, if cx.opset < 2 { "paddings" } else { "pads" })?
        .ok_or_else(|| cx.error("pads are missing"))?;
    let axes: Vec<usize> = match cx.ints_at(3, "axes")? {
        None => (0..shape.len()).collect(),
        Some(axes) => axes.iter().map(|&axis| cx.axis(axis, shape.len())).collect::<Result<_, Stop>>()?,
    };
    if sizes.len() != 2 * axes.len() {
        return Err(cx.error(format!("wants two pads for each of {} axes, got {}", axes.len(), sizes.len())));
    }
    let zero = Idx::from(0i64);
    let mut borders = vec![Border { before: zero.clone(), after: zero }; shape.len()];
    let (before, after) = sizes.split_at(axes.len());
    for ((axis, before), after) in axes.into_iter().zip(before).zip(after) {
        borders[axis] = Border { before: before.clone(), after: after.clone() };
    }
    let value = match cx.optional(2) {
        Some(value) => cx.program.load(value, &vec![Idx::from(0i64); cx.program.rank(value)]),
        None => Expr::constant(dtype, Value::F(cx.float_or("value", 0.0)?)),
    };
    let source: fn(&Idx, &Idx, &Border) -> Idx = match cx.string_or("mode", "constant")?.as_str() {
        "constant" => return Ok(vec![surround(cx, x, &borders, &value)]),
        "edge" => |i, d, _| i.larger(&Idx::from(0i64)).smaller(&(d - &Idx::from(1i64))),
        "reflect" => reflect,
        "wrap" => |i, d, border| (i + &(d * &border.before.div_ceil(d))).rem(d),
        other => return Err(cx.error(format!("mode {other:?} is none of constant, reflect, edge, wrap"))),
    };
    Ok(vec![cx.program.view(x, padded(&shape, &borders), |i| {
        let place = |((i, d), border): ((&Idx, &Idx), &Border)| {
            let inside = i - &border.before;
            let stays = border.before.is(0) && inside.is_below(d);
            if stays { inside } else { source(&inside, d, border) }
        };
        i.iter().zip(&shape).zip(&borders).map(place).collect()
    })])
}

/// Position `i` of an axis of size `d` that goes on as its mirror image at both ends.
fn reflect(i: &Idx, d: &Idx, border: &Border) -> Idx {
    let last = d - &Idx::from(1i64);
    let period = &last * &Idx::from(2i64);
    let distance = i.larger(&(&Idx::from(0i64) - i));
    // Borders no longer than the axis meet one mirror at most.
    let once = border.before.is_at_most(&last) && border.after.is_at_most(&last);
    let distance = if once { distance } else { distance.rem(&period) };
    distance.smaller(&(&period - &distance))
}

fn padded(shape: &[Idx], borders: &[Border]) -> Vec<Idx> {
    shape.iter().zip(borders).map(|(d, border)| &(&border.before + d) + &border.after).collect()
}

/// `x` with `value` around it.
fn surround(cx: &mut Cx, x: ValueId, borders: &[Border], value: &Expr) -> ValueId {
    let shape = cx.program.shape(x).to_vec();
    let out = padded(&shape, borders);
    let at: Vec<Idx> = vars(0, &out).iter().zip(borders).map(|(i, border)| i - &border.before).collect();
    let number = |idx: &Idx| Expr::index(idx.clone(), DType::I64);
    let inside = at.iter().zip(&shape).fold(Expr::bool(true), |all, (i, d)| {
        let from = Expr::int(DType::I64, 0).binary(Binary::Le, &number(i));
        all.binary(Binary::And, &from).binary(Binary::And, &number(i).binary(Binary::Lt, &number(d)))
    });
    let body = inside.select(&cx.program.load(x, &at), value);
    cx.program.map(out, body)
}

fn center_crop_pad(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    let sizes = cx.program.sizes(cx.input(1)?)?;
    let axes = cx.ints("axes")?.unwrap_or_else(|| (0..shape.len() as i64).collect());
    let (zero, two) = (Idx::from(0i64), Idx::from(2i64));
    let mut borders = vec![Border { before: zero.clone(), after: zero.clone() }; shape.len()];
    for (axis, size) in axes.iter().zip(&sizes) {
        let axis = cx.axis(*axis, shape.len())?;
        let d = &shape[axis];
        // Half of what is missing goes before, rounded down; of what is too much likewise.
        let missing = (size - d).larger(&zero).div(&two);
        let excess = (d - size).larger(&zero).div(&two);
        let before = &missing - &excess;
        borders[axis] = Border { after: &(size - d) - &before, before };
    }
    let value = Expr::int(cx.program.dtype(x), 0);
    Ok(vec![surround(cx, x, &borders, &value)])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, ints, t, text};

    #[test]
    fn every_mode() {
        for (mode, before, after, want) in [
            ("constant", 1, 2, vec![9f32, 0., 1., 2., 9., 9.]),
            ("constant", -1, 1, vec![1., 2., 9.]),
            ("edge", 2, 1, vec![0., 0., 0., 1., 2., 2.]),
            ("reflect", 2, 2, vec![2., 1., 0., 1., 2., 1., 0.]),
            ("reflect", 5, 0, vec![1., 0., 1., 2., 1., 0., 1., 2.]),
            ("wrap", 4, 2, vec![2., 0., 1., 2., 0., 1., 2., 0., 1.]),
            ("wrap", -1, 2, vec![1., 2., 0., 1.]),
        ] {
            let inputs = [count(&[3]), ints(&[before, after]), t(&[], &[9f32])];
            Case::new("Pad", &[("mode", text(mode))], &inputs).gives([t(&[want.len()], &want)]);
        }
    }

    #[test]
    fn only_the_axes_named() {
        let inputs = [count(&[2, 1]), ints(&[0, 1]), t(&[], &[0f32]), ints(&[-1])];
        Case::new("Pad", &[], &inputs).gives([t(&[2, 2], &[0f32, 0., 1., 0.])]);
    }

    #[test]
    fn around_the_centre() {
        let x = count(&[2, 4]);
        let want = t(&[3, 3], &[0f32, 1., 2., 4., 5., 6., 0., 0., 0.]);
        Case::new("CenterCropPad", &[], [x, ints(&[3, 3])]).gives([want]);
    }
}
