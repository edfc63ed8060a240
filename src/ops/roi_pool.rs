//! The largest elements of the bins of regions of interest, whose edges are elements.

use super::Cx;
use super::math::Lowering;
use super::reduce::float_for;
use crate::expr::{Expr, Idx, Unary, vars};
use crate::ir::{Combine, Program, ValueId};
use crate::tensor::DType;

/// The regions along one axis, whose ends are their columns `first` and `first + 2`.
struct Side {
    rois: ValueId,
    first: i64,
    /// Into how many bins each is cut.
    bins: i64,
    /// How long the axis is.
    len: Idx,
    scale: f64,
    /// What coordinates are computed in.
    dtype: DType,
}

/// `x` rounded, halves away from zero.
fn rounded(x: &Expr) -> Expr {
    x.below(0.0).select(&(x - 0.5).unary(Unary::Ceil), &(x + 0.5).unary(Unary::Floor))
}

impl Side {
    /// The first element of a bin and how many it has, as int32. Bins overlap where a region does not divide evenly.
    fn bin(&self, p: &Program, roi: &Idx, bin: &Idx) -> (Expr, Expr) {
        let edge = |column: i64| {
            let edge = p.load(self.rois, &[roi.clone(), Idx::from(column)]).cast(self.dtype);
            rounded(&(edge * self.scale))
        };
        let start = edge(self.first);
        let each = (edge(self.first + 2) - &start + 1.0).larger(1.0) / self.bins as f64;
        let len = Expr::number(&self.len).cast(self.dtype);
        let place = |offset: Expr| (offset + &start).larger(0.0).smaller(&len).cast(DType::I32);
        let number = Expr::number(bin).cast(self.dtype);
        let low = place((&number * &each).unary(Unary::Floor));
        let high = place(((&number + 1.0) * &each).unary(Unary::Ceil));
        (low.clone(), high - low)
    }
}

/// `out[r, c, i, j] = max of x[n, c, y, x]` over the elements of bin `(i, j)` of region `r`, 0 where it has none. Rows of
/// rois are `n, x1, y1, x2, y2`.
pub(super) fn max_roi_pool(cx: &mut Cx) -> Lowering {
    let (x, rois) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.program.shape(x).to_vec();
    let [batch, channels, height, width] = shape.as_slice() else {
        return Err(cx.error("x wants four axes"));
    };
    let [regions, _] = cx.program.shape(rois) else { return Err(cx.error("rois want two axes")) };
    let regions = regions.clone();
    let pooled = cx.ints("pooled_shape")?.unwrap_or_default();
    let [rows, columns] = match pooled[..] {
        [rows, columns] if rows > 0 && columns > 0 => [rows, columns],
        _ => return Err(cx.error(format!("pooled_shape wants two positive numbers, got {pooled:?}"))),
    };
    let scale = cx.float_or("spatial_scale", 1.0)?;
    let dtype = float_for(cx.program.dtype(rois));
    let side = |first, bins, len: &Idx| Side { rois, first, bins, len: len.clone(), scale, dtype };
    let (vertical, horizontal) = (side(2, rows, height), side(1, columns, width));
    let p = &mut *cx.program;
    // The elements of a bin are numbered row by row, and a bin leaves out those beyond its own.
    let bins = vec![regions.clone(), rows.into(), columns.into()];
    let most = p.reduction(vec![], bins, Combine::Max, |p, _, r| {
        vertical.bin(p, &r[0], &r[1]).1 * horizontal.bin(p, &r[0], &r[2]).1
    });
    let most = p.unary(most, |most| most.larger(1.0));
    let most = p.computed_size(most)?;
    let none = Combine::Max.identity(p.dtype(x));
    let out = vec![regions, channels.clone(), rows.into(), columns.into()];
    let largest = p.reduction(out.clone(), vec![most], Combine::Max, |p, at, k| {
        let ((top, rows), (left, columns)) =
            (vertical.bin(p, &at[0], &at[2]), horizontal.bin(p, &at[0], &at[3]));
        let (number, in_row) = (Expr::number(&k[0]), columns.larger(1.0));
        let row = &number / &in_row;
        let column = &number - &row * &in_row;
        let within = |at: Expr, len: &Idx| at.smaller(Expr::number(len) - 1.0).to_position(len);
        let image = p.load(rois, &[at[0].clone(), Idx::from(0i64)]).cast(DType::I32).to_position(batch);
        let place = [image, at[1].clone(), within(top + row, height), within(left + column, width)];
        number.below(rows * columns).select(&p.load(x, &place), &none)
    });
    let at = vars(0, &out);
    let is_empty = |side: &Side, bin: &Idx| side.bin(p, &at[0], bin).1.equals(0.0);
    let empty = is_empty(&vertical, &at[2]).or(is_empty(&horizontal, &at[3]));
    let body = empty.select(&Expr::float(p.dtype(x), 0.0), &p.load(largest, &at));
    Ok(vec![p.map(out, body)])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, f32s, list};

    /// Rows of 0, 1, 2, 3: the elements 1 to 3, in two bins that share one; none.
    #[test]
    fn the_largest_of_each_bin() {
        let rois = f32s(&[2, 5], &[0.0, 1.0, 0.0, 3.0, 0.0, 0.0, 8.0, 0.0, 9.0, 0.0]);
        let case = Case::new("MaxRoiPool", &[("pooled_shape", list(&[1, 2]))], [count(&[1, 1, 1, 4]), rois]);
        case.gives([f32s(&[2, 1, 1, 2], &[2.0, 3.0, 0.0, 0.0])]);
    }
}
