//! Softmax and its relatives. Before opset 13 they ran over all axes from `axis` on, as one row.

use super::reduce::{position_of, widen};
use super::{Cx, OpDef};
use crate::expr::{Expr, Unary, vars};
use crate::ir::{Combine, Program, Stop, ValueId, split};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn op(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("", name, 1, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    op("Softmax", "e^x / sum of e^x along an axis", |cx| along_axis(cx, softmax)),
    op("LogSoftmax", "x - ln(sum of e^x) along an axis", |cx| along_axis(cx, log_softmax)),
    op("Hardmax", "1 at the first largest along an axis, 0 elsewhere", hardmax),
];

/// The axes that make a row.
fn axes(cx: &Cx, x: ValueId) -> Result<Vec<usize>, Stop> {
    let rank = cx.program.rank(x);
    if cx.opset >= 13 {
        return Ok(vec![cx.axis(cx.int_or("axis", -1)?, rank)?]);
    }
    Ok((cx.axis(cx.int_or("axis", 1)?, rank)?..rank).collect())
}

fn along_axis(cx: &mut Cx, f: fn(&mut Program, ValueId, &[usize]) -> Result<ValueId, Stop>) -> Lowering {
    let x = cx.input(0)?;
    let axes = axes(cx, x)?;
    let (wide, dtype) = widen(cx.program, x);
    let y = f(cx.program, wide, &axes)?;
    Ok(vec![cx.program.cast(y, dtype)])
}

/// `e^(x - m) / sum of e^(x - m)`, `m` the largest of the row.
pub(super) fn softmax(p: &mut Program, x: ValueId, axes: &[usize]) -> Result<ValueId, Stop> {
    let top = p.reduce(x, axes, false, Combine::Max, Expr::clone)?;
    let powers = p.along(x, axes, &[top], |x, m| (x - &m[0]).exp());
    let sum = p.reduce(powers, axes, false, Combine::Sum, Expr::clone)?;
    Ok(p.along(powers, axes, &[sum], |e, sum| e / &sum[0]))
}

/// The softmax of rows that may be all minus infinity, which give 0.
pub(super) fn softmax_masked(p: &mut Program, x: ValueId, axes: &[usize]) -> Result<ValueId, Stop> {
    let top = p.reduce(x, axes, false, Combine::Max, Expr::clone)?;
    let shift = p.unary(top, |e| e.unary(Unary::IsNegInf).select(&Expr::float(e.dtype(), 0.0), e));
    let powers = p.along(x, axes, &[shift], |x, m| (x - &m[0]).exp());
    let sum = p.reduce(powers, axes, false, Combine::Sum, Expr::clone)?;
    Ok(p.along(powers, axes, &[sum], |e, sum| {
        let zero = Expr::float(e.dtype(), 0.0);
        sum[0].equals(&zero).select(&zero, &(e / &sum[0]))
    }))
}

/// `x - m - ln(sum of e^(x - m))`, `m` the largest of the row.
pub(super) fn log_softmax(p: &mut Program, x: ValueId, axes: &[usize]) -> Result<ValueId, Stop> {
    let top = p.reduce(x, axes, false, Combine::Max, Expr::clone)?;
    let centred = p.along(x, axes, &[top], |x, m| x - &m[0]);
    let sum = p.reduce(centred, axes, false, Combine::Sum, Expr::exp)?;
    Ok(p.along(centred, axes, &[sum], |x, sum| x - sum[0].log()))
}

fn hardmax(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let axes = axes(cx, x)?;
    let shape = cx.program.shape(x).to_vec();
    // Several axes become one, so that the first largest is one position.
    let (mut rows, inner) = split(&shape, &axes);
    let several = axes.len() > 1;
    let axis = if several { rows.len() } else { axes[0] };
    rows.push(crate::expr::numel(&inner));
    let flat = if several { cx.program.reshape(x, rows)? } else { x };
    let at = position_of(cx.program, flat, axis, Combine::Max, false)?;
    let i = vars(0, cx.program.shape(flat))[axis].clone();
    let dtype = cx.program.dtype(x);
    let y = cx.program.along(flat, &[axis], &[at], |_, at| {
        let here = Expr::index(i, DType::I64).equals(&at[0]);
        here.select(&Expr::int(dtype, 1), &Expr::int(dtype, 0))
    });
    Ok(vec![cx.program.reshape(y, shape)?])
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, count, f32s};
    use crate::graph::Attribute::Int;

    #[test]
    fn one_axis_since_13_all_from_it_before() {
        let x = f32s(&[1, 2, 2], &[0.0, 0.0, 0.0, 3f32.ln()]);
        check(
            "Softmax",
            13,
            &[("axis", Int(1))],
            std::slice::from_ref(&x),
            &f32s(&[1, 2, 2], &[0.5, 0.25, 0.5, 0.75]),
        );
        let sixth = 1.0 / 6.0;
        check("Softmax", 11, &[], std::slice::from_ref(&x), &f32s(&[1, 2, 2], &[sixth, sixth, sixth, 0.5]));
        let logs = [sixth.ln(), sixth.ln(), sixth.ln(), 0.5f32.ln()];
        check("LogSoftmax", 11, &[], &[x], &f32s(&[1, 2, 2], &logs));
    }

    #[test]
    fn large_numbers_do_not_overflow() {
        let x = f32s(&[1, 2], &[10_000.0, 10_000.0]);
        check("Softmax", 13, &[], &[x], &f32s(&[1, 2], &[0.5, 0.5]));
    }

    #[test]
    fn hardmax_takes_the_first() {
        let x = f32s(&[2, 3], &[1.0, 3.0, 3.0, 2.0, 0.0, 1.0]);
        let want = f32s(&[2, 3], &[0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
        check("Hardmax", 13, &[], &[x], &want);
        let want = f32s(&[1, 2, 2], &[0.0, 0.0, 0.0, 1.0]);
        check("Hardmax", 11, &[], &[count(&[1, 2, 2])], &want);
    }
}
