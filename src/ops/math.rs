//! Elementwise arithmetic, comparison and logic. All broadcast as numpy does.

use super::reduce::float_for;
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, Unary, Value};
use crate::ir::{Stop, ValueId};

pub(super) type Lowering = Result<Vec<ValueId>, Stop>;

/// A row of ai.onnx.
pub(super) const fn op(
    name: &'static str,
    since: i64,
    doc: &'static str,
    lower: fn(&mut Cx) -> Lowering,
) -> OpDef {
    OpDef::new("", name, since, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    op("Add", 1, "a + b", |cx| binary(cx, Binary::Add)),
    op("Sub", 1, "a - b", |cx| binary(cx, Binary::Sub)),
    op("Mul", 1, "a * b", |cx| binary(cx, Binary::Mul)),
    op("Div", 1, "a / b; integers truncate", |cx| binary(cx, Binary::Div)),
    op("Mod", 10, "a mod b with the divisor's sign, or fmod", |cx| {
        let op = if cx.int_or("fmod", 0)? != 0 { Binary::Rem } else { Binary::Mod };
        binary(cx, op)
    }),
    op("Pow", 1, "a ^ b in a's dtype", pow),
    op("Max", 1, "largest of all inputs", |cx| variadic(cx, Binary::Max)),
    op("Min", 1, "smallest of all inputs", |cx| variadic(cx, Binary::Min)),
    op("Sum", 1, "sum of all inputs", |cx| variadic(cx, Binary::Add)),
    op("Mean", 1, "mean of all inputs", |cx| {
        let sum = variadic(cx, Binary::Add)?[0];
        let count = cx.number(sum, cx.inputs.len() as f64);
        Ok(vec![cx.program.unary(sum, |e| e.binary(Binary::Div, &count))])
    }),
    op("Equal", 1, "a = b", |cx| binary(cx, Binary::Eq)),
    op("Less", 1, "a < b", |cx| binary(cx, Binary::Lt)),
    op("LessOrEqual", 12, "a <= b", |cx| binary(cx, Binary::Le)),
    op("Greater", 1, "a > b", |cx| swapped(cx, Binary::Lt)),
    op("GreaterOrEqual", 12, "a >= b", |cx| swapped(cx, Binary::Le)),
    op("And", 1, "a and b", |cx| binary(cx, Binary::And)),
    op("Or", 1, "a or b", |cx| binary(cx, Binary::Or)),
    op("Xor", 1, "a xor b", |cx| binary(cx, Binary::Xor)),
    op("Not", 1, "not a", |cx| unary(cx, Unary::Not)),
    op("BitwiseAnd", 18, "a & b", |cx| binary(cx, Binary::BitAnd)),
    op("BitwiseOr", 18, "a | b", |cx| binary(cx, Binary::BitOr)),
    op("BitwiseXor", 18, "a ^ b", |cx| binary(cx, Binary::BitXor)),
    op("BitwiseNot", 18, "~a", |cx| unary(cx, Unary::BitNot)),
    op("BitShift", 11, "a << b or a >> b; counts of the width or more give 0", |cx| {
        match cx.string_or("direction", "")?.as_str() {
            "LEFT" => binary(cx, Binary::Shl),
            "RIGHT" => binary(cx, Binary::Shr),
            other => Err(cx.error(format!("direction wants LEFT or RIGHT, got {other:?}"))),
        }
    }),
    op("Neg", 1, "-a", |cx| unary(cx, Unary::Neg)),
    op("Abs", 1, "|a|", |cx| unary(cx, Unary::Abs)),
    op("Sign", 9, "-1, 0 or 1", |cx| unary(cx, Unary::Sign)),
    op("Floor", 1, "rounded down", |cx| unary(cx, Unary::Floor)),
    op("Ceil", 1, "rounded up", |cx| unary(cx, Unary::Ceil)),
    op("Round", 11, "rounded, halves to even", |cx| unary(cx, Unary::Round)),
    op("Exp", 1, "e^a", |cx| unary(cx, Unary::Exp)),
    op("Log", 1, "ln a", |cx| unary(cx, Unary::Log)),
    op("Sqrt", 1, "square root", |cx| unary(cx, Unary::Sqrt)),
    op("Reciprocal", 1, "1 / a", |cx| compose(cx, |x| Ok(one(x).binary(Binary::Div, x)))),
    op("Sin", 7, "sine", |cx| unary(cx, Unary::Sin)),
    op("Cos", 7, "cosine", |cx| unary(cx, Unary::Cos)),
    op("Tan", 7, "tangent", |cx| unary(cx, Unary::Tan)),
    op("Asin", 7, "arc sine", |cx| unary(cx, Unary::Asin)),
    op("Acos", 7, "arc cosine", |cx| unary(cx, Unary::Acos)),
    op("Atan", 7, "arc tangent", |cx| unary(cx, Unary::Atan)),
    op("Sinh", 9, "hyperbolic sine", |cx| unary(cx, Unary::Sinh)),
    op("Cosh", 9, "hyperbolic cosine", |cx| unary(cx, Unary::Cosh)),
    op("Tanh", 1, "hyperbolic tangent", |cx| unary(cx, Unary::Tanh)),
    op("Asinh", 9, "inverse hyperbolic sine", |cx| unary(cx, Unary::Asinh)),
    op("Acosh", 9, "inverse hyperbolic cosine", |cx| unary(cx, Unary::Acosh)),
    op("Atanh", 9, "inverse hyperbolic tangent", |cx| unary(cx, Unary::Atanh)),
    op("Erf", 9, "error function", |cx| unary(cx, Unary::Erf)),
    op("IsNaN", 9, "whether a is NaN", |cx| unary(cx, Unary::IsNan)),
    op("IsInf", 10, "whether a is infinite, of the signs asked for", |cx| {
        let (positive, negative) =
            (cx.int_or("detect_positive", 1)? != 0, cx.int_or("detect_negative", 1)? != 0);
        compose(cx, |x| {
            let test = |on: bool, op| if on { x.unary(op) } else { Expr::bool(false) };
            Ok(test(positive, Unary::IsPosInf).binary(Binary::Or, &test(negative, Unary::IsNegInf)))
        })
    }),
    op("Identity", 1, "a", |cx| Ok(vec![cx.input(0)?])),
    op("Where", 9, "condition ? a : b", |cx| {
        let operands = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
        Ok(vec![cx.program.elementwise(&operands, |e| e[0].select(&e[1], &e[2]))?])
    }),
    op("Clip", 1, "min(max(a, low), high); bounds are attributes before opset 11", clip),
];

/// 1 in the dtype of `x`.
pub(super) fn one(x: &Expr) -> Expr {
    Expr::int(x.dtype(), 1)
}

fn unary(cx: &mut Cx, op: Unary) -> Lowering {
    let x = cx.input(0)?;
    Ok(vec![cx.program.apply(op, x)])
}

/// One output, computed from the first input's elements.
pub(super) fn compose(cx: &mut Cx, f: impl FnOnce(&Expr) -> Result<Expr, Stop>) -> Lowering {
    let x = cx.input(0)?;
    let mut failure = None;
    let y = cx.program.unary(x, |e| {
        f(e).unwrap_or_else(|stop| {
            failure = Some(stop);
            e.clone()
        })
    });
    failure.map_or(Ok(vec![y]), Err)
}

/// The two operands, of one dtype. Before opset 7, attribute `axis` says where the second one's axes lie
/// among the first one's.
fn pair(cx: &mut Cx) -> Result<(ValueId, ValueId), Stop> {
    let (a, mut b) = (cx.input(0)?, cx.input(1)?);
    if let (..7, Some(axis)) = (cx.opset, cx.int("axis")?) {
        let behind =
            cx.program.rank(a).saturating_sub(cx.axis(axis, cx.program.rank(a))? + cx.program.rank(b));
        let mut shape = cx.program.shape(b).to_vec();
        shape.extend(vec![Idx::from(1i64); behind]);
        b = cx.program.reshape(b, shape)?;
    }
    let (left, right) = (cx.program.dtype(a), cx.program.dtype(b));
    if left != right {
        return Err(cx.error(format!("operands want one dtype, got {left} and {right}")));
    }
    Ok((a, b))
}

fn binary(cx: &mut Cx, op: Binary) -> Lowering {
    let (a, b) = pair(cx)?;
    Ok(vec![cx.program.binary(op, a, b)?])
}

fn swapped(cx: &mut Cx, op: Binary) -> Lowering {
    let (a, b) = pair(cx)?;
    Ok(vec![cx.program.binary(op, b, a)?])
}

/// All inputs combined pair by pair; fusion makes as few kernels of it as the device's bindings allow.
fn variadic(cx: &mut Cx, op: Binary) -> Lowering {
    let operands = cx.all_inputs()?;
    let Some((&first, rest)) = operands.split_first() else {
        return Err(cx.error("wants at least one input"));
    };
    let value = rest.iter().try_fold(first, |left, &right| cx.program.binary(op, left, right))?;
    Ok(vec![value])
}

fn pow(cx: &mut Cx) -> Lowering {
    let operands = [cx.input(0)?, cx.input(1)?];
    let value = cx.program.elementwise(&operands, |e| {
        let (base, exponent) = (&e[0], &e[1]);
        match (base.dtype().is_float(), exponent.dtype().is_float()) {
            // An integer to a fractional power is computed as a float and truncated.
            (false, true) => {
                let float = float_for(exponent.dtype());
                base.cast(float).binary(Binary::Pow, &exponent.cast(float)).cast(base.dtype())
            }
            _ => base.binary(Binary::Pow, &exponent.cast(base.dtype())),
        }
    })?;
    Ok(vec![value])
}

fn clip(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let dtype = cx.program.dtype(x);
    let (mut low, mut high) = (None, None);
    if cx.opset >= 11 {
        low = cx.optional(1).map(|v| cx.program.load(v, &[]));
        high = cx.optional(2).map(|v| cx.program.load(v, &[]));
    } else {
        low = low.or(Some(Expr::constant(dtype, Value::F(cx.float_or("min", f32::MIN)?))));
        high = high.or(Some(Expr::constant(dtype, Value::F(cx.float_or("max", f32::MAX)?))));
    }
    compose(cx, |e| {
        let e = low.iter().fold(e.clone(), |e, low| e.binary(Binary::Max, low));
        Ok(high.iter().fold(e, |e, high| e.binary(Binary::Min, high)))
    })
}
