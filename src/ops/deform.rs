//! Convolution whose taps are moved by offsets that the network computes.

use super::conv::add_bias;
use super::math::{Lowering, op};
use super::reduce::float_for;
use super::window::{Window, windows};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, Unary, flatten, numel, vars};
use crate::ir::{Axes, Program, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] =
    &[op("DeformConv", 19, "convolution at offset positions, interpolated linearly", deform)];

/// The element of plane `at` of `x` at a position, one number for each spatial axis, 0 outside; in their dtype.
fn interpolated(p: &Program, x: ValueId, plane: &[Idx], position: &[Expr], dtype: DType) -> Expr {
    let mut taps: Vec<(Expr, Vec<Idx>, Expr)> =
        vec![(Expr::float(dtype, 1.0), plane.to_vec(), Expr::bool(true))];
    for (at, size) in position.iter().zip(&p.shape(x)[2..]) {
        let low = at.unary(Unary::Floor);
        let part = at - &low;
        let len = Expr::index(size.clone(), DType::I64).cast(dtype);
        let mut next = Vec::new();
        for (weight, place, inside) in taps {
            for (step, factor) in [(0.0, Expr::float(dtype, 1.0) - &part), (1.0, part.clone())] {
                let here = &low + step;
                let fits = Expr::float(dtype, 0.0).at_most(&here).and(here.below(&len));
                let index = here.larger(0.0).smaller(&len - 1.0).cast(DType::I32).to_position(size);
                let place = [place.clone(), vec![index]].concat();
                next.push((&weight * &factor, place, inside.and(fits)));
            }
        }
        taps = next;
    }
    let zero = Expr::float(dtype, 0.0);
    taps.into_iter().fold(zero.clone(), |sum, (weight, place, inside)| {
        sum + weight * inside.select(&p.load(x, &place).cast(dtype), &zero)
    })
}

fn deform(cx: &mut Cx) -> Lowering {
    let (x, w, offset, mask) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.optional(4));
    let (x_shape, w_shape) = (cx.program.shape(x).to_vec(), cx.program.shape(w).to_vec());
    if x_shape.len() < 3 || w_shape.len() != x_shape.len() {
        let [x, w] = [x_shape.len(), w_shape.len()];
        return Err(cx.error(format!("X and W want as many axes, 3 at least, got {x} and {w}")));
    }
    let count = x_shape.len() - 2;
    let windows: Vec<Window> = windows(cx, &x_shape[2..], &w_shape[2..])?;
    let group = Idx::from(cx.int_or("group", 1)?);
    let offset_groups = Idx::from(cx.int_or("offset_group", 1)?);
    let (in_channels, out_channels) = (w_shape[1].clone(), w_shape[0].div(&group));
    let per_offset = x_shape[1].div(&offset_groups);
    let taps = numel(&w_shape[2..]);
    let extents = Axes {
        batch: vec![x_shape[0].clone(), group],
        m: vec![out_channels.clone()],
        n: windows.iter().map(|w| w.output.clone()).collect(),
        k: w_shape[1..].to_vec(),
    };
    // The moved elements are made once, `[batch, channel, taps.., outputs..]`: each is read by all output channels.
    let outputs = windows.iter().map(|w| w.output.clone());
    let moved: Vec<Idx> = x_shape[..2].iter().chain(&w_shape[2..]).cloned().chain(outputs).collect();
    let at = vars(0, &moved);
    let p = &cx.program;
    let (batch, channel, taps_at, output_at) = (&at[0], &at[1], &at[2..2 + count], &at[2 + count..]);
    let tap = &(&channel.div(&per_offset) * &taps) + &flatten(taps_at, &w_shape[2..]);
    let dtype = p.dtype(w);
    let wide = float_for(dtype);
    let at_output = |first: Idx| [&[batch.clone(), first], output_at].concat();
    let axes = windows.iter().zip(output_at).zip(taps_at).enumerate();
    let position = axes.map(|(axis, ((window, output), at))| {
        let row = &(&tap * &Idx::from(count)) + &Idx::from(axis);
        let even = Expr::number(&window.position(output, at));
        even.cast(wide) + p.load(offset, &at_output(row)).cast(wide)
    });
    let position: Vec<Expr> = position.collect();
    let mut element = interpolated(p, x, &[batch.clone(), channel.clone()], &position, wide);
    if let Some(mask) = mask {
        element = element * p.load(mask, &at_output(tap)).cast(wide);
    }
    let moved = cx.program.map(moved, element.cast(dtype));
    let y = cx.program.contract(extents, |p, at| {
        let m = &(&at.batch[1] * &out_channels) + &at.m[0];
        let channel = &(&at.batch[1] * &in_channels) + &at.k[0];
        let place = [&[at.batch[0].clone(), channel], &at.k[1..], &at.n[..]].concat();
        (p.load(w, &[vec![m], at.k.clone()].concat()), p.load(moved, &place))
    });
    let outputs = windows.iter().map(|w| w.output.clone());
    let shape = [x_shape[0].clone(), w_shape[0].clone()].into_iter().chain(outputs).collect();
    let y = cx.program.reshape(y, shape)?;
    add_bias(cx, y, 3)
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, f32s};

    #[test]
    fn a_tap_moved_by_half() {
        let offset = f32s(&[1, 2, 1, 2], &[0.0, 0.0, 0.5, -0.5]);
        let inputs = [count(&[1, 1, 1, 2]), f32s(&[1, 1, 1, 1], &[2.0]), offset];
        Case::new("DeformConv", &[], inputs).gives_if_sizes_are_known([f32s(&[1, 1, 1, 2], &[1.0, 1.0])]);
        let inputs = [count(&[1, 1, 2]), f32s(&[1, 1, 1], &[2.0]), f32s(&[1, 1, 2], &[0.5, -0.5])];
        Case::new("DeformConv", &[], inputs).gives_if_sizes_are_known([f32s(&[1, 1, 2], &[1.0, 1.0])]);
    }
}
