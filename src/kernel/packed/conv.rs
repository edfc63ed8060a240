//! The parts of a packed convolution: words lie along input channels.
//!
//! The words of the input have its padding with them, of the zero point's code, so that every window has all of its taps
//! and the sum of the weights' codes is one for each output channel.

use super::Parts;
use super::operand::{Operand, Pair, SIGNED, UNSIGNED, fits};
use super::words::{Axis, Packing, at};
use crate::expr::{Expr, Idx};
use crate::ir::{ConvAxis, ConvVar};
use crate::kernel::spec::{Body, ConvBody, KernelSpec};
use crate::tensor::DType;

pub fn parts(spec: &KernelSpec, body: &ConvBody) -> Option<Parts> {
    if body.in_channels.is(1) {
        return None;
    }
    let axis = |var: ConvVar, extent: &Idx| (var as u32, extent.clone());
    let spatial = |var: ConvVar, extents: [Idx; 3]| -> Vec<Axis> { (var as u32..).zip(extents).collect() };
    let taps = spatial(ConvVar::Tap, body.axes.each_ref().map(|axis| Idx::from(axis.kernel)));
    let axes = body.axes.each_ref().map(padded);
    let positions = spatial(ConvVar::At, axes.each_ref().map(|axis| axis.input.clone()));
    let outputs = spatial(ConvVar::At, axes.each_ref().map(|axis| axis.output.clone()));
    let [batch, group] = [axis(ConvVar::Batch, &body.batch), axis(ConvVar::Group, &body.groups)];
    let (out, channels) = (axis(ConvVar::Out, &body.out_channels), axis(ConvVar::In, &body.in_channels));

    let within = [vec![channels.clone()], taps.clone(), positions.clone()].concat();
    let summed: Vec<u32> = within.iter().map(|(var, _)| *var).collect();
    let mut pair = Pair::of(&body.w, &body.x, body.sum, &summed)?;
    pair.right = with_padding(pair.right, body, &axes, pair.byte)?;
    let mut packing = Packing::new(spec, channels, pair.byte);
    let w = packing.words(&pair.left, &[group.clone(), out.clone()], &taps);
    let x = packing.words(&pair.right, &[batch.clone(), group.clone()], &positions);
    let window = [vec![packing.axis()], taps.clone()].concat();
    let sums = [
        pair.right.zero.is_some().then(|| packing.sums(&w, &[group.clone(), out], &window)),
        pair.left.zero.is_some().then(|| {
            let steps = axes.iter().zip(&outputs).zip(&taps);
            let read = steps.map(|((axis, (var, output)), (tap, kernel))| {
                let start = &Idx::var(*var, output) * &Idx::from(axis.stride);
                (*var, &start + &(&Idx::var(*tap, kernel) * &Idx::from(axis.dilation)))
            });
            let windowed = at(&x, read.collect());
            packing.sums(&windowed, &[vec![batch, group], outputs.clone()].concat(), &window)
        }),
    ];
    let count: i64 = body.axes.iter().map(|axis| axis.kernel).product();
    let terms = &body.in_channels * &Idx::from(count);
    let epilogue = pair.epilogue(spec, &body.epilogue, &terms, sums);
    let convolution = ConvBody {
        in_channels: packing.axis().1,
        axes,
        w,
        x,
        product: pair.product(),
        sum: DType::I32,
        epilogue,
        ..body.clone()
    };
    Some(Parts::new(packing, Body::Conv(convolution), terms, pair.most_terms))
}

/// An axis whose windows lie inside of the input, padding included.
fn padded(axis: &ConvAxis) -> ConvAxis {
    let one = Idx::from(1i64);
    let last = &(&axis.output - &one) * &Idx::from(axis.stride);
    let reach = &last + &Idx::from((axis.kernel - 1) * axis.dilation + 1);
    match axis.before.is(0) && reach.is_at_most(&axis.input) {
        true => axis.clone(),
        false => ConvAxis { input: reach, before: Idx::from(0i64), ..axis.clone() },
    }
}

/// The codes of the input at positions of padded axes.
fn with_padding(x: Operand, body: &ConvBody, axes: &[ConvAxis; 3], byte: DType) -> Option<Operand> {
    let (mut places, mut inside) = (Vec::new(), Expr::bool(true));
    for (var, (old, new)) in (ConvVar::At as u32..).zip(body.axes.iter().zip(axes)) {
        let place = &Idx::var(var, &new.input) - &old.before;
        if old != new {
            let low = Expr::int(DType::I32, 0).at_most(Expr::number(&place));
            inside = inside.and(low).and(Expr::number(&place).below(Expr::number(&old.input)));
        }
        places.push((var, place));
    }
    let zero = x.zero.clone().unwrap_or_else(|| Expr::int(DType::I32, 0));
    let range = if byte == DType::U8 { UNSIGNED } else { SIGNED };
    fits(&zero, range).then(|| Operand { codes: inside.select(&at(&x.codes, places), &zero), ..x })
}
