//! Reductions over axes, and the positions of extremes.

use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, Unary};
use crate::ir::{Combine, Program, Stop, ValueId, join, split};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn op(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef { name, domain: "", since: 1, doc, lower }
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
    op("ReduceL1", "sum of |x| over axes", |cx| composed(cx, Expr::abs, Expr::clone)),
    op("ReduceL2", "sqrt of the sum of x^2 over axes", |cx| composed(cx, |x| x * x, Expr::sqrt)),
    op("ReduceSumSquare", "sum of x^2 over axes", |cx| composed(cx, |x| x * x, Expr::clone)),
    op("ReduceLogSum", "ln of the sum over axes", |cx| composed(cx, Expr::clone, Expr::log)),
    op("ReduceLogSumExp", "ln of the sum of e^x over axes", |cx| over_axes(cx, log_sum_exp)),
    op("ArgMax", "position of the largest along an axis", |cx| arg_extreme(cx, Combine::Max)),
    op("ArgMin", "position of the smallest along an axis", |cx| arg_extreme(cx, Combine::Min)),
    op("CumSum", "running sum along an axis; every output sums its own prefix, n^2 additions", cum_sum),
    op("CumProd", "running product along an axis; every output multiplies its own prefix", |cx| {
        running(cx, Combine::Prod)
    }),
];

/// `x` in the dtype that sums of it are kept in, and the dtype to go back to.
pub(super) fn widen(p: &mut Program, x: ValueId) -> (ValueId, DType) {
    let dtype = p.dtype(x);
    let wide = if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype };
    (p.cast(x, wide), dtype)
}

/// `x` in a floating-point dtype that functions of it can be computed in, and the dtype to go back to.
pub(super) fn to_float(p: &mut Program, x: ValueId) -> (ValueId, DType) {
    let dtype = p.dtype(x);
    let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
    (p.cast(x, wide), dtype)
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

/// `after(sum over axes of before(x))`.
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
    Ok(p.reduction(kept, extents, pick, |p, outer, inner| {
        let here = p.load(x, &join(outer, inner, &[axis])).equals(p.load(extreme, outer));
        here.select(&Expr::index(inner[0].clone(), DType::I64), &pick.identity(DType::I64))
    }))
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
    let shape = cx.program.shape(x).to_vec();
    let extent = vec![shape[axis].clone()];
    let y = cx.program.reduction(shape, extent, combine, |p, outer, inner| {
        let mut at = outer.to_vec();
        at[axis] = inner[0].clone();
        let number = |i: &Idx| Expr::index(i.clone(), DType::I64);
        let (here, there) = (number(&outer[axis]), number(&inner[0]));
        let (early, late) = if reverse { (here, there) } else { (there, here) };
        let included = if exclusive { early.below(late) } else { early.at_most(late) };
        let element = p.load(x, &at);
        included.select(&element, &combine.identity(element.dtype()))
    });
    Ok(vec![cx.program.cast(y, dtype)])
}
