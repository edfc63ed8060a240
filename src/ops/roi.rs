//! Pooling over regions of interest.

use super::math::{Lowering, op};
use super::reduce::float_for;
use super::roi_pool::max_roi_pool;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, Unary, vars};
use crate::ir::{Combine, Program, ValueId};
use crate::tensor::DType;

/// Points of a bin along an axis: indices are 32-bit.
const MOST_SAMPLES: i64 = 46_340;

/// The family.
pub const OPS: &[OpDef] = &[
    op("RoiAlign", 10, "the mean or largest of sampling points in the bins of regions", roi_align),
    op("MaxRoiPool", 1, "the largest elements of the bins of regions", max_roi_pool),
];

/// A coordinate along one axis: between which elements it is, with what weights, and whether it counts.
struct Point {
    low: Idx,
    high: Idx,
    weights: [Expr; 2],
    inside: Expr,
}

fn point(x: &Expr, len: &Idx) -> Point {
    let size = Expr::index(len.clone(), DType::I64).cast(x.dtype());
    let inside = Expr::float(x.dtype(), -1.0).at_most(x).and(x.at_most(&size));
    let x = x.larger(0.0).smaller(&size - 1.0);
    let low = x.unary(Unary::Floor);
    let part = &x - &low;
    let rest = Expr::float(x.dtype(), 1.0) - &part;
    let at = low.cast(DType::I32);
    let next = (&at + Expr::int(DType::I32, 1)).to_position(len);
    Point { low: at.to_position(len), high: next, weights: [rest, part], inside }
}

/// The regions along one axis, whose ends are their columns `first` and `first + 2`.
struct Side {
    rois: ValueId,
    first: i64,
    /// Into how many bins each is cut.
    bins: i64,
    /// Sampling points of a bin; 0 for as many as it is elements long, rounded up.
    samples: i64,
    scale: f64,
    half_pixel: bool,
    /// What coordinates are computed in.
    dtype: DType,
}

impl Side {
    /// Where a region begins, and how long it is.
    fn span(&self, p: &Program, roi: &Idx) -> (Expr, Expr) {
        let offset = if self.half_pixel { 0.5 } else { 0.0 };
        let edge = |column: i64| {
            let edge = p.load(self.rois, &[roi.clone(), Idx::from(column)]).cast(self.dtype);
            edge * self.scale - offset
        };
        let start = edge(self.first);
        let size = edge(self.first + 2) - &start;
        (start, if self.half_pixel { size } else { size.larger(1.0) })
    }

    /// The number of sampling points in each bin of a region, as int32.
    fn points(&self, p: &Program, roi: &Idx) -> Expr {
        match self.samples {
            0 => (self.span(p, roi).1 / self.bins as f64).unary(Unary::Ceil).larger(0.0).cast(DType::I32),
            samples => Expr::int(DType::I32, samples),
        }
    }

    /// The coordinate of sampling point `number` of the bin `bin` of a region.
    fn coordinate(&self, p: &Program, roi: &Idx, bin: &Idx, number: &Expr) -> Expr {
        let (start, size) = self.span(p, roi);
        let part = (number.cast(self.dtype) + 0.5) / self.points(p, roi).cast(self.dtype);
        start + size / self.bins as f64 * (Expr::number(bin).cast(self.dtype) + part)
    }
}

fn roi_align(cx: &mut Cx) -> Lowering {
    let (x, rois, batches) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let shape = cx.program.shape(x).to_vec();
    let [_, channels, height, width] = shape.as_slice() else { return Err(cx.error("x wants four axes")) };
    let [regions, _] = cx.program.shape(rois) else { return Err(cx.error("rois want two axes")) };
    let regions = regions.clone();
    let samples = cx.int_or("sampling_ratio", 0)?;
    let (rows, columns) = (cx.int_or("output_height", 1)?, cx.int_or("output_width", 1)?);
    if !(0..=MOST_SAMPLES).contains(&samples) || rows < 1 || columns < 1 {
        return Err(cx.error(format!("sampling_ratio {samples} for an output of {rows} by {columns}")));
    }
    let scale = cx.float_or("spatial_scale", 1.0)?;
    let largest = match cx.string_or("mode", "avg")?.as_str() {
        "avg" => false,
        "max" => true,
        other => return Err(cx.error(format!("mode {other:?} is not known"))),
    };
    let default = if cx.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let half_pixel = cx.string_or("coordinate_transformation_mode", default)? == "half_pixel";
    let p = &mut *cx.program;
    let dtype = p.dtype(x);
    let wide = float_for(dtype);
    let side = |first, bins| Side { rois, first, bins, samples, scale, half_pixel, dtype: wide };
    let (vertical, horizontal) = (side(1, rows), side(0, columns));
    let points = |p: &Program, roi: &Idx| vertical.points(p, roi) * horizontal.points(p, roi);
    // The points of a bin are numbered row by row, and a region leaves out those beyond its own.
    let most = match samples {
        0 => {
            let most = p.reduction(vec![], vec![regions.clone()], Combine::Max, |p, _, r| points(p, &r[0]));
            let most = p.unary(most, |most| most.larger(1.0));
            p.computed_size(most)?
        }
        samples => Idx::from(samples * samples),
    };
    let out = vec![regions, channels.clone(), rows.into(), columns.into()];
    let combine = if largest { Combine::Max } else { Combine::Sum };
    let (zero, none) = (Expr::float(wide, 0.0), combine.identity(wide));
    let pooled: ValueId = p.reduction(out, vec![most], combine, |p, at, k| {
        let (roi, number) = (&at[0], Expr::number(&k[0]));
        let in_row = horizontal.points(p, roi).larger(1.0);
        let row = &number / &in_row;
        let column = &number - &row * &in_row;
        let batch = p.load(batches, &at[..1]).to_position(&shape[0]);
        let y = point(&vertical.coordinate(p, roi, &at[2], &row), height);
        let x_point = point(&horizontal.coordinate(p, roi, &at[3], &column), width);
        let mut terms = Vec::new();
        for (row, a) in [&y.low, &y.high].into_iter().zip(&y.weights) {
            for (column, b) in [&x_point.low, &x_point.high].into_iter().zip(&x_point.weights) {
                let place = [batch.clone(), at[1].clone(), row.clone(), column.clone()];
                terms.push(a * b * p.load(x, &place).cast(wide));
            }
        }
        // Largest means the largest of the weighted elements, not of their sums.
        let combined = |a: Expr, b: Expr| if largest { a.larger(b) } else { a + b };
        let sum = terms.into_iter().reduce(combined).unwrap_or_else(|| zero.clone());
        let value = y.inside.and(x_point.inside).select(&sum, &zero);
        number.below(points(p, roi)).select(&value, &none)
    });
    let shape = p.shape(pooled).to_vec();
    let at = vars(0, &shape);
    let (value, number) = (p.load(pooled, &at), points(p, &at[0]));
    let value = match largest {
        true => Expr::int(DType::I32, 0).below(&number).select(&value, &zero),
        false => value / number.larger(1.0).cast(wide),
    };
    Ok(vec![p.map(shape, value.cast(dtype))])
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

    /// Of a row 0, 1, 2, 3: the points 0.5; 0.5, 1.5 and 2.5; none.
    #[test]
    fn as_many_points_as_a_region_is_long() {
        let rois = f32s(&[3, 4], &[0.5, 0.0, 1.5, 1.0, 0.5, 0.0, 3.5, 1.0, 2.0, 0.0, 1.0, 1.0]);
        let inputs = [count(&[1, 1, 1, 4]), rois, t(&[3], &[0i64; 3])];
        for (mode, want) in [("avg", [0.5, 1.5, 0.0]), ("max", [0.5, 1.5, 0.0])] {
            let case = Case::new("RoiAlign", &[("mode", text(mode))], inputs.clone());
            case.gives_about([f32s(&[3, 1, 1, 1], &want)]);
        }
    }

    #[test]
    fn no_regions() {
        let inputs = [count(&[1, 1, 1, 4]), f32s(&[0, 4], &[]), t::<i64>(&[0], &[])];
        Case::new("RoiAlign", &[], inputs).gives([f32s(&[0, 1, 1, 1], &[])]);
    }
}
