//! Reductions over axes, and the positions of extremes.

use super::prefix::{prefix, reversed, shifted};
use super::{Cx, OpDef};
use crate::error::Error;
use crate::expr::{Expr, Unary};
use crate::ir::{Combine, Program, Stop, ValueId, join, split};
use crate::tensor::{DType, Tensor};

type Lowering = Result<Vec<ValueId>, Stop>;

const fn op(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("", name, 1, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    op("ReduceSum", "sum over axes", |cx| {
        over_axes(cx, |p, x, axes| {
            let (wide, dtype) = widen(p, x);
            let sum = p.reduce(wide, axes, false, Combine::Sum, Expr::clone)?;
            Ok(p.cast(sum, dtype))
        })
    }),
    op("ReduceMean", "mean over axes; integers truncate", |cx| {
        over_axes(cx, |p, x, axes| {
            let (wide, dtype) = widen(p, x);
            let mean = p.mean(wide, axes)?;
            Ok(p.cast(mean, dtype))
        })
    }),
    op("ReduceProd", "product over axes", |cx| {
        over_axes(cx, |p, x, axes| {
            let (wide, dtype) = widen(p, x);
            let product = p.reduce(wide, axes, false, Combine::Prod, Expr::clone)?;
            Ok(p.cast(product, dtype))
        })
    }),
    op("ReduceMax", "largest over axes", |cx| {
        over_axes(cx, |p, x, axes| p.reduce(x, axes, false, Combine::Max, Expr::clone))
    }),
    op("ReduceMin", "smallest over axes", |cx| {
        over_axes(cx, |p, x, axes| p.reduce(x, axes, false, Combine::Min, Expr::clone))
    }),
    op("ReduceL1", "sum of |x| over axes", |cx| summed(cx, Expr::abs)),
    op("ReduceL2", "sqrt of the sum of x^2 over axes", |cx| composed(cx, |x| x * x, Expr::sqrt)),
    op("ReduceSumSquare", "sum of x^2 over axes", |cx| summed(cx, |x| x * x)),
    op("ReduceLogSum", "ln of the sum over axes", |cx| composed(cx, Expr::clone, Expr::log)),
    op("ReduceLogSumExp", "ln of the sum of e^x over axes", |cx| over_axes(cx, log_sum_exp)),
    op("ArgMax", "position of the largest along an axis", |cx| arg_extreme(cx, Combine::Max)),
    op("ArgMin", "position of the smallest along an axis", |cx| arg_extreme(cx, Combine::Min)),
    op("CumSum", "running sum along an axis", cum_sum),
    op("CumProd", "running product along an axis", |cx| running(cx, Combine::Prod)),
];

/// `x` in the dtype that sums of it are kept in, and the dtype to go back to.
pub(super) fn widen(p: &mut Program, x: ValueId) -> (ValueId, DType) {
    let dtype = p.dtype(x);
    let wide = if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype };
    (p.cast(x, wide), dtype)
}

/// The floating-point dtype that functions of `dtype` are computed in.
pub(super) fn float_for(dtype: DType) -> DType {
    if dtype == DType::F64 { dtype } else { DType::F32 }
}

/// Numbers in the dtype that functions of `dtype` are computed in.
pub(super) fn floats(shape: &[usize], values: &[f64], dtype: DType) -> Result<Tensor, Error> {
    match float_for(dtype) {
        DType::F64 => Tensor::from_slice(shape, values),
        _ => Tensor::from_slice(shape, &values.iter().map(|&v| v as f32).collect::<Vec<_>>()),
    }
}

/// `x` in the dtype that functions of it are computed in, and the dtype to go back to.
pub(super) fn to_float(p: &mut Program, x: ValueId) -> (ValueId, DType) {
    let dtype = p.dtype(x);
    (p.cast(x, float_for(dtype)), dtype)
}

/// A reduction, by axes from an input or an attribute.
fn over_axes(
    cx: &mut Cx,
    f: impl FnOnce(&mut Program, ValueId, &[usize]) -> Result<ValueId, Stop>,
) -> Lowering {
    let x = cx.input(0)?;
    let rank = cx.program.rank(x);
    let given = cx.ints_at(1, "axes")?.filter(|axes| !axes.is_empty());
    let axes = match given {
        Some(axes) => cx.axes(&axes, rank)?,
        None if cx.int_or("noop_with_empty_axes", 0)? != 0 => vec![],
        None => (0..rank).collect(),
    };
    let reduced = f(cx.program, x, &axes)?;
    let keep = cx.int_or("keepdims", 1)? != 0;
    Ok(vec![if keep { cx.program.keep_axes(x, reduced, &axes)? } else { reduced }])
}

/// `sum over axes of before(x)`; exact in integers.
fn summed(cx: &mut Cx, before: fn(&Expr) -> Expr) -> Lowering {
    over_axes(cx, |p, x, axes| {
        let (wide, dtype) = widen(p, x);
        let sum = p.reduce(wide, axes, false, Combine::Sum, before)?;
        Ok(p.cast(sum, dtype))
    })
}

/// `after(sum over axes of before(x))`, in floating point.
fn composed(cx: &mut Cx, before: fn(&Expr) -> Expr, after: fn(&Expr) -> Expr) -> Lowering {
    over_axes(cx, |p, x, axes| {
        let (wide, dtype) = to_float(p, x);
        let sum = p.reduce(wide, axes, false, Combine::Sum, before)?;
        let y = p.unary(sum, after);
        Ok(p.cast(y, dtype))
    })
}

/// `m + ln(sum of e^(x - m))`, `m` the largest where that is finite, else 0.
fn log_sum_exp(p: &mut Program, x: ValueId, axes: &[usize]) -> Result<ValueId, Stop> {
    let (wide, dtype) = to_float(p, x);
    let top = p.reduce(wide, axes, false, Combine::Max, Expr::clone)?;
    let shift = p.unary(top, |e| {
        let infinite = e.unary(Unary::IsPosInf).or(e.unary(Unary::IsNegInf));
        infinite.select(&Expr::float(e.dtype(), 0.0), e)
    });
    let powers = p.along(wide, axes, &[shift], |x, m| (x - &m[0]).exp());
    let sum = p.reduce(powers, axes, false, Combine::Sum, Expr::clone)?;
    let y = p.elementwise(&[sum, shift], |e| e[0].log() + &e[1])?;
    Ok(p.cast(y, dtype))
}

fn arg_extreme(cx: &mut Cx, combine: Combine) -> Lowering {
    let x = cx.input(0)?;
    let axis = cx.axis(cx.int_or("axis", 0)?, cx.program.rank(x))?;
    let last = cx.int_or("select_last_index", 0)? != 0;
    let at = position_of(cx.program, x, axis, combine, last)?;
    let keep = cx.int_or("keepdims", 1)? != 0;
    Ok(vec![if keep { cx.program.keep_axes(x, at, &[axis])? } else { at }])
}

/// The first (or last) position along `axis` where `x` is as large (or small) as it gets.
pub(super) fn position_of(
    p: &mut Program,
    x: ValueId,
    axis: usize,
    combine: Combine,
    last: bool,
) -> Result<ValueId, Stop> {
    let extreme = p.reduce(x, &[axis], false, combine, Expr::clone)?;
    let (kept, extents) = split(p.shape(x), &[axis]);
    let pick = if last { Combine::Max } else { Combine::Min };
    let position = p.reduction(kept, extents, pick, |p, outer, inner| {
        let here = p.load(x, &join(outer, inner, &[axis])).equals(p.load(extreme, outer));
        here.select(&Expr::index(inner[0].clone(), DType::I32), &pick.identity(DType::I32))
    });
    Ok(p.cast(position, DType::I64))
}

fn cum_sum(cx: &mut Cx) -> Lowering {
    running(cx, Combine::Sum)
}

/// `out[i] = combine over j <= i of x[j]` along an axis; `j < i` where exclusive, from the end where reverse.
fn running(cx: &mut Cx, combine: Combine) -> Lowering {
    let x = cx.input(0)?;
    let axis = cx.program.integers(cx.input(1)?)?;
    let axis = cx.axis(axis.first().copied().unwrap_or(0), cx.program.rank(x))?;
    let (exclusive, reverse) = (cx.int_or("exclusive", 0)? != 0, cx.int_or("reverse", 0)? != 0);
    let (x, dtype) = widen(cx.program, x);
    let p = &mut *cx.program;
    let turned = if reverse { reversed(p, x, axis) } else { x };
    let mut y = prefix(p, turned, axis, combine);
    if exclusive {
        y = shifted(p, y, axis, &combine.identity(p.dtype(x)));
    }
    let y = if reverse { reversed(p, y, axis) } else { y };
    Ok(vec![cx.program.cast(y, dtype)])
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, count, f32s, list, run};
    use crate::graph::Attribute::{self, Int};
    use crate::tensor::Tensor;

    #[test]
    fn reductions_over_the_last_axis() {
        let x = f32s(&[2, 2], &[1.0, -2.0, 3.0, 4.0]);
        let rows: &[(&str, [f32; 2])] = &[
            ("ReduceSum", [-1.0, 7.0]),
            ("ReduceMean", [-0.5, 3.5]),
            ("ReduceProd", [-2.0, 12.0]),
            ("ReduceMax", [1.0, 4.0]),
            ("ReduceMin", [-2.0, 3.0]),
            ("ReduceL1", [3.0, 7.0]),
            ("ReduceL2", [5f32.sqrt(), 5.0]),
            ("ReduceSumSquare", [5.0, 25.0]),
            ("ReduceLogSumExp", [1.048_587_4, 4.313_262]),
        ];
        for (op, want) in rows {
            for (keep, shape) in [(1, vec![2, 1]), (0, vec![2])] {
                let attributes = [("axes", list(&[-1])), ("keepdims", Int(keep))];
                check(op, 11, &attributes, std::slice::from_ref(&x), &f32s(&shape, want));
            }
        }
    }

    #[test]
    fn empty_axes_reduce_all_or_nothing() {
        let x = count(&[2, 3]);
        let axes = Tensor::from_slice::<i64>(&[0], &[]).unwrap();
        check("ReduceSum", 13, &[], &[x.clone(), axes.clone()], &f32s(&[1, 1], &[15.0]));
        check("ReduceSum", 13, &[("noop_with_empty_axes", Int(1))], &[x.clone(), axes], &x);
    }

    #[test]
    fn infinities_survive_log_sum_exp() {
        let inf = f32::INFINITY;
        let x = f32s(&[3, 2], &[-inf, -inf, inf, 1.0, 500.0, 500.0]);
        let want = f32s(&[3], &[-inf, inf, 500.693_15]);
        check("ReduceLogSumExp", 11, &[("axes", list(&[1])), ("keepdims", Int(0))], &[x], &want);
    }

    #[test]
    fn positions_of_ties() {
        let x = f32s(&[2, 3], &[2.0, 1.0, 2.0, 0.0, 0.0, 5.0]);
        let rows: [(&str, i64, [i64; 2]); 4] =
            [("ArgMax", 0, [0, 2]), ("ArgMax", 1, [2, 2]), ("ArgMin", 0, [1, 0]), ("ArgMin", 1, [1, 1])];
        for (op, last, want) in rows {
            let attributes = [("axis", Int(1)), ("keepdims", Int(0)), ("select_last_index", Int(last))];
            let got = run(op, 13, &attributes, std::slice::from_ref(&x), 1);
            assert_eq!(got[0].to_vec::<i64>().unwrap(), want, "{op}, last: {last}");
        }
    }

    #[test]
    fn running_sums() {
        let x = f32s(&[3], &[1.0, 2.0, 4.0]);
        let axis = Tensor::from_slice(&[], &[0i64]).unwrap();
        for (exclusive, reverse, want) in [
            (0, 0, [1.0, 3.0, 7.0]),
            (1, 0, [0.0, 1.0, 3.0]),
            (0, 1, [7.0, 6.0, 4.0]),
            (1, 1, [6.0, 4.0, 0.0]),
        ] {
            let attributes: [(&str, Attribute); 2] =
                [("exclusive", Int(exclusive)), ("reverse", Int(reverse))];
            check("CumSum", 14, &attributes, &[x.clone(), axis.clone()], &f32s(&[3], &want));
        }
    }
}
