//! Pooling over regions of interest.

use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, Unary};
use crate::ir::{Combine, Program, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[op(
    "RoiAlign",
    10,
    "the mean or largest of sampling points in the bins of regions; sampling_ratio 0 is not supported",
    roi_align,
)];

/// A coordinate along one axis: between which elements it is, with what weights, and whether it counts.
struct Point {
    low: Idx,
    high: Idx,
    weights: [Expr; 2],
    inside: Expr,
}

fn point(x: &Expr, len: &Idx) -> Point {
    let size = Expr::index(len.clone(), DType::I64).cast(DType::F32);
    let inside = Expr::float(DType::F32, -1.0).at_most(x).and(x.at_most(&size));
    let x = x.larger(0.0).smaller(&size - 1.0);
    let low = x.unary(Unary::Floor);
    let part = &x - &low;
    let rest = Expr::float(DType::F32, 1.0) - &part;
    let at = low.cast(DType::I32);
    let next = (&at + Expr::int(DType::I32, 1)).to_position(len);
    Point { low: at.to_position(len), high: next, weights: [rest, part], inside }
}

fn roi_align(cx: &mut Cx) -> Lowering {
    let (x, rois, batches) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let shape = cx.program.shape(x).to_vec();
    let [_, channels, height, width] = shape.as_slice() else { return Err(cx.error("x wants four axes")) };
    let samples = cx.int_or("sampling_ratio", 0)?;
    if samples < 1 {
        return Err(cx.unsupported("sampling_ratio 0, which makes as many points as a region is large"));
    }
    let (rows, columns) = (cx.int_or("output_height", 1)?, cx.int_or("output_width", 1)?);
    let scale = cx.float_or("spatial_scale", 1.0)?;
    let largest = match cx.string_or("mode", "avg")?.as_str() {
        "avg" => false,
        "max" => true,
        other => return Err(cx.error(format!("mode {other:?} is not known"))),
    };
    let default = if cx.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let half_pixel = cx.string_or("coordinate_transformation_mode", default)? == "half_pixel";
    // Sampling point `k` of bin `o` of `bins` along the axis that the roi's columns `first` and `first + 2` bound.
    let coordinate = |p: &Program, roi: &Idx, first: i64, o: &Idx, bins: i64, k: &Idx| {
        let offset = if half_pixel { 0.5 } else { 0.0 };
        let edge =
            |column: i64| p.load(rois, &[roi.clone(), Idx::from(column)]).cast(DType::F32) * scale - offset;
        let (start, end) = (edge(first), edge(first + 2));
        let mut size = &end - &start;
        if !half_pixel {
            size = size.larger(1.0);
        }
        let number = |i: &Idx| Expr::index(i.clone(), DType::I64).cast(DType::F32);
        start + size / bins as f64 * (number(o) + (number(k) + 0.5) / samples as f64)
    };
    let out = vec![cx.program.shape(rois)[0].clone(), channels.clone(), rows.into(), columns.into()];
    let combine = if largest { Combine::Max } else { Combine::Sum };
    let zero = Expr::float(DType::F32, 0.0);
    let extents = vec![Idx::from(samples); 2];
    let pooled: ValueId = cx.program.reduction(out, extents, combine, |p, at, k| {
        let batch = p.load(batches, &at[..1]).to_position(&shape[0]);
        let y = point(&coordinate(p, &at[0], 1, &at[2], rows, &k[0]), height);
        let x_point = point(&coordinate(p, &at[0], 0, &at[3], columns, &k[1]), width);
        let mut terms = Vec::new();
        for (row, a) in [&y.low, &y.high].into_iter().zip(&y.weights) {
            for (column, b) in [&x_point.low, &x_point.high].into_iter().zip(&x_point.weights) {
                let place = [batch.clone(), at[1].clone(), row.clone(), column.clone()];
                terms.push(a * b * p.load(x, &place).cast(DType::F32));
            }
        }
        // Largest means the largest of the weighted elements, not of their sums.
        let combined = |a: Expr, b: Expr| if largest { a.larger(b) } else { a + b };
        let sum = terms.into_iter().reduce(combined).unwrap_or_else(|| zero.clone());
        y.inside.and(x_point.inside).select(&sum, &zero)
    });
    let dtype = cx.program.dtype(x);
    let count = if largest { 1.0 } else { (samples * samples) as f64 };
    Ok(vec![cx.program.unary(pooled, |e| (e / count).cast(dtype))])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, f32s, int, t, text};

    #[test]
    fn the_centre_of_a_region() {
        let x = count(&[1, 1, 4, 4]);
        let inputs = [x, f32s(&[1, 4], &[0.0, 0.0, 3.0, 3.0]), t(&[1], &[0i64])];
        for (mode, pixel, want) in
            [("avg", "half_pixel", 5.0), ("avg", "output_half_pixel", 7.5), ("max", "output_half_pixel", 2.5)]
        {
            let attributes = [
                ("mode", text(mode)),
                ("coordinate_transformation_mode", text(pixel)),
                ("sampling_ratio", int(1)),
            ];
            Case::new("RoiAlign", &attributes, inputs.clone()).gives_about([f32s(&[1, 1, 1, 1], &[want])]);
        }
    }
}
