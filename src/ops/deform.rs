//! Convolution whose taps are moved by offsets that the network computes.

use super::conv::add_bias;
use super::math::{Lowering, op};
use super::window::{Window, windows};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, Unary, flatten, numel, vars};
use crate::ir::{Axes, Program, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[op(
    "DeformConv",
    19,
    "convolution in two dimensions at offset positions, interpolated linearly",
    deform,
)];

/// The element of plane `at` of `x` at the position `(y, x)`, 0 outside.
fn bilinear(p: &Program, x: ValueId, plane: &[Idx], position: [Expr; 2]) -> Expr {
    let size = |axis: usize| p.shape(x)[axis + 2].clone();
    let mut taps: Vec<(Expr, Vec<Idx>, Expr)> =
        vec![(Expr::float(DType::F32, 1.0), plane.to_vec(), Expr::bool(true))];
    for (axis, at) in position.into_iter().enumerate() {
        let low = at.unary(Unary::Floor);
        let part = &at - &low;
        let len = Expr::index(size(axis), DType::I64).cast(DType::F32);
        let mut next = Vec::new();
        for (weight, place, inside) in taps {
            for (step, factor) in [(0.0, Expr::float(DType::F32, 1.0) - &part), (1.0, part.clone())] {
                let here = &low + step;
                let fits = Expr::float(DType::F32, 0.0).at_most(&here).and(here.below(&len));
                let index = here.larger(0.0).smaller(&len - 1.0).cast(DType::I32).to_position(&size(axis));
                let place = [place.clone(), vec![index]].concat();
                next.push((&weight * &factor, place, inside.and(fits)));
            }
        }
        taps = next;
    }
    let zero = Expr::float(DType::F32, 0.0);
    taps.into_iter().fold(zero.clone(), |sum, (weight, place, inside)| {
        sum + weight * inside.select(&p.load(x, &place).cast(DType::F32), &zero)
    })
}

fn deform(cx: &mut Cx) -> Lowering {
    let (x, w, offset, mask) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.optional(4));
    let (x_shape, w_shape) = (cx.program.shape(x).to_vec(), cx.program.shape(w).to_vec());
    if x_shape.len() != 4 || w_shape.len() != 4 {
        return Err(cx.unsupported(format!("an input of {} axes; 4 is", x_shape.len())));
    }
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
    let (batch, channel, taps_at, output_at) = (&at[0], &at[1], &at[2..4], &at[4..6]);
    let tap = &(&channel.div(&per_offset) * &taps) + &flatten(taps_at, &w_shape[2..]);
    let position = [0usize, 1].map(|axis| {
        let row = &(&tap * &Idx::from(2i64)) + &Idx::from(axis);
        let place = [batch.clone(), row, output_at[0].clone(), output_at[1].clone()];
        let even = Expr::index(windows[axis].position(&output_at[axis], &taps_at[axis]), DType::I32);
        even.cast(DType::F32) + p.load(offset, &place).cast(DType::F32)
    });
    let mut element = bilinear(p, x, &[batch.clone(), channel.clone()], position);
    if let Some(mask) = mask {
        let place = [batch.clone(), tap, output_at[0].clone(), output_at[1].clone()];
        element = element * p.load(mask, &place).cast(DType::F32);
    }
    let dtype = p.dtype(w);
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
    }
}
