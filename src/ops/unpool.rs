//! The way back from windows: sums of columns, and maxima put back in their places.

use super::conv::source;
use super::math::{Lowering, op};
use super::window::{Window, kernel_shape, pads, per_axis};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, flatten, numel, vars};
use crate::ir::Combine;
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("Col2Im", 18, "the sum of the blocks whose elements the columns hold", col2im),
    op("MaxUnpool", 9, "x at the positions that MaxPool reported, 0 elsewhere", max_unpool),
];

/// `out[n, c, i] = sum over taps k of x[n, (c, k), o]` with `o * stride + k * dilation - pad = i`.
fn col2im(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let image = cx.program.sizes(cx.input(1)?)?;
    let block = cx.program.sizes(cx.input(2)?)?;
    let count = image.len();
    let (strides, dilations) = (per_axis(cx, "strides", count)?, per_axis(cx, "dilations", count)?);
    let pads = pads(cx, count)?;
    let shape = cx.program.shape(x).to_vec();
    let [n, rows, columns] = shape.as_slice() else { return Err(cx.error("wants three axes")) };
    if block.len() != count {
        return Err(cx.error(format!("a block of {} axes in an image of {count}", block.len())));
    }
    let one = Idx::from(1i64);
    let windows: Vec<Window> = (0..count)
        .map(|axis| {
            let span = &(&(&block[axis] - &one) * &Idx::from(dilations[axis])) + &one;
            let (before, after) = (Idx::from(pads[axis].0), Idx::from(pads[axis].1));
            let free = &(&(&image[axis] + &before) + &after) - &span;
            Window {
                input: &free.div(&Idx::from(strides[axis])) + &one,
                output: image[axis].clone(),
                kernel: block[axis].clone(),
                stride: strides[axis],
                dilation: dilations[axis],
                before,
                after,
                overrun: false,
            }
        })
        .collect();
    let steps: Vec<Idx> = windows.iter().map(|w| w.input.clone()).collect();
    cx.program.equate(columns, &numel(&steps), "columns and the blocks of the image")?;
    let channels = rows.div(&numel(&block));
    let out = [&[n.clone(), channels.clone()], image.as_slice()].concat();
    let y = cx.program.reduction(out, block.clone(), Combine::Sum, |p, at, k| {
        let (mut places, mut inside) = (Vec::new(), Expr::bool(true));
        for ((window, o), k) in windows.iter().zip(&at[2..]).zip(k) {
            let (place, ok) = source(window, o, k);
            places.push(place);
            inside = inside.and(ok);
        }
        let row = &(&at[1] * &numel(&block)) + &flatten(k, &block);
        let element = p.load(x, &[at[0].clone(), row, flatten(&places, &steps)]);
        inside.select(&element, &Expr::int(element.dtype(), 0))
    });
    Ok(vec![y])
}

/// The positions count the elements of the whole unpooled tensor, of the shape that the attributes say;
/// another output shape is that one cut or filled up with zeros.
fn max_unpool(cx: &mut Cx) -> Lowering {
    let (x, positions) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.program.shape(x).to_vec();
    let count = shape.len().saturating_sub(2);
    let kernel = kernel_shape(cx, count)?;
    let (strides, pads) = (per_axis(cx, "strides", count)?, pads(cx, count)?);
    let mut unpooled = shape[..2].to_vec();
    for axis in 0..count {
        let steps = &(&shape[axis + 2] - &Idx::from(1i64)) * &Idx::from(strides[axis]);
        unpooled.push(&steps + &Idx::from(kernel[axis] - pads[axis].0 - pads[axis].1));
    }
    let out = match cx.optional(2) {
        Some(sizes) => cx.program.sizes(sizes)?,
        None => unpooled.clone(),
    };
    let zero = Expr::int(DType::I32, 0);
    // One more than the place in the channel of the last element that goes here.
    let extents = shape[2..].to_vec();
    let found = cx.program.reduction(unpooled.clone(), extents.clone(), Combine::Max, |p, at, r| {
        let here = Expr::index(flatten(at, &unpooled), DType::I64);
        let goes = p.load(positions, &[&at[..2], r].concat()).cast(DType::I64).equals(here);
        goes.select(&Expr::index(&flatten(r, &extents) + &Idx::from(1i64), DType::I32), &zero)
    });
    let at = vars(0, &out);
    let mut inside = Expr::bool(true);
    for (i, size) in at.iter().zip(&unpooled) {
        inside = inside.and(Expr::index(i.clone(), DType::I64).below(Expr::index(size.clone(), DType::I64)));
    }
    let flat = cx.program.reshape(x, vec![shape[0].clone(), shape[1].clone(), numel(&extents)])?;
    let place = cx.program.load(found, &at);
    let index = (&place - Expr::int(DType::I32, 1)).to_position(&numel(&extents));
    let element = cx.program.load(flat, &[at[0].clone(), at[1].clone(), index]);
    let nothing = Expr::int(element.dtype(), 0);
    let body = inside.select(&place.equals(&zero).select(&nothing, &element), &nothing);
    Ok(vec![cx.program.map(out, body)])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, f32s, ints, list, t};

    #[test]
    fn blocks_that_overlap_are_added() {
        let inputs = [count(&[1, 2, 3]), ints(&[1, 4]), ints(&[1, 2])];
        let want = f32s(&[1, 1, 1, 4], &[0.0, 4.0, 6.0, 5.0]);
        Case::new("Col2Im", &[], inputs).gives_if_sizes_are_known([want]);
    }

    #[test]
    fn maxima_go_back() {
        let inputs = [f32s(&[1, 1, 2], &[5.0, 7.0]), t(&[1, 1, 2], &[1i64, 2])];
        let attributes = [("kernel_shape", list(&[2])), ("strides", list(&[2]))];
        Case::new("MaxUnpool", &attributes, inputs).gives([f32s(&[1, 1, 4], &[0.0, 5.0, 7.0, 0.0])]);
    }
}
