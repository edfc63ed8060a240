//! ONNX Runtime's operators on quantized tensors: dequantized, computed, quantized again.

use super::activation::sigmoid;
use super::join::join;
use super::matmul::matmul;
use super::quantize::{centred, saturated};
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr};
use crate::ir::{Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn ms(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("com.microsoft", name, 1, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    ms("QLinearAdd", "a + b of quantized operands, quantized", |cx| binary(cx, Binary::Add)),
    ms("QLinearMul", "a * b of quantized operands, quantized", |cx| binary(cx, Binary::Mul)),
    ms("QLinearSigmoid", "sigmoid of a quantized tensor, quantized", |cx| {
        let x = real(cx, 0)?;
        let y = cx.program.unary(x, sigmoid);
        quantized(cx, y, 3)
    }),
    ms("QLinearLeakyRelu", "LeakyRelu of a quantized tensor, quantized", |cx| {
        let (x, alpha) = (real(cx, 0)?, cx.float_or("alpha", 0.01)?);
        let y = cx.program.unary(x, |x| x.below(0.0).select(&(x * alpha), x));
        quantized(cx, y, 3)
    }),
    ms("QLinearGlobalAveragePool", "mean over all spatial axes of a quantized tensor, quantized", |cx| {
        let x = real(cx, 0)?;
        let rank = cx.program.rank(x);
        let axes: Vec<usize> = match cx.int_or("channels_last", 0)? {
            0 => (2..rank).collect(),
            _ => (1..rank.saturating_sub(1)).collect(),
        };
        let mean = cx.program.mean(x, &axes)?;
        let mean = cx.program.keep_axes(x, mean, &axes)?;
        quantized(cx, mean, 3)
    }),
    ms("QLinearConcat", "quantized tensors one after another along an axis, quantized", |cx| {
        let parts = (2..cx.inputs.len()).step_by(3).map(|i| real(cx, i)).collect::<Result<Vec<_>, _>>()?;
        let Some(&first) = parts.first() else { return Err(cx.error("wants at least one tensor")) };
        let axis = cx.axis(cx.int_or("axis", 1)?, cx.program.rank(first))?;
        let y = join(cx.program, parts, axis);
        quantized(cx, y, 0)
    }),
    ms("QGemm", "alpha * A * B + C of quantized operands, quantized where a scale is given", gemm),
];

/// Input `i`, whose scale and zero point follow it, as real numbers.
fn real(cx: &mut Cx, i: usize) -> Result<ValueId, Stop> {
    let (x, scale) = (cx.input(i)?, cx.input(i + 1)?);
    match cx.optional(i + 2) {
        Some(zero) => cx.program.elementwise(&[x, scale, zero], |e| {
            centred(&[e[0].clone(), e[2].clone()]).cast(DType::F32) * &e[1]
        }),
        None => cx.program.elementwise(&[x, scale], |e| e[0].cast(DType::F32) * &e[1]),
    }
}

/// When the zero point is added, which decides ties where it is odd.
#[derive(PartialEq)]
enum Shift {
    BeforeRounding,
    AfterRounding,
}

fn quantized(cx: &mut Cx, y: ValueId, i: usize) -> Lowering {
    quantized_by(cx, y, i, Shift::AfterRounding)
}

/// `y` by the scale and zero point that are inputs `i` and `i + 1`; without a zero point, the first input's dtype.
fn quantized_by(cx: &mut Cx, y: ValueId, i: usize, shift: Shift) -> Lowering {
    let (scale, zero) = (cx.input(i)?, cx.optional(i + 1));
    let dtype = match zero {
        Some(zero) => cx.program.dtype(zero),
        None => cx.program.dtype(cx.input(0)?),
    };
    let operands: Vec<ValueId> = [y, scale].into_iter().chain(zero).collect();
    let quantize = |e: &[Expr]| {
        let steps = &e[0] / &e[1];
        let shifted = match (e.get(2).map(|zero| zero.cast(DType::F32)), &shift) {
            (Some(zero), Shift::BeforeRounding) => (steps + zero).rounded(),
            (Some(zero), Shift::AfterRounding) => steps.rounded() + zero,
            (None, _) => steps.rounded(),
        };
        saturated(shifted, dtype)
    };
    Ok(vec![cx.program.elementwise(&operands, quantize)?])
}

/// As ONNX Runtime does it, which has the zero point added before it rounds.
fn binary(cx: &mut Cx, op: Binary) -> Lowering {
    let (a, b) = (real(cx, 0)?, real(cx, 3)?);
    let y = cx.program.binary(op, a, b)?;
    quantized_by(cx, y, 6, Shift::BeforeRounding)
}

/// Inputs: A, its scale and zero point, B, its scales and zero points (one, or one per column), C in int32, y's scale
/// and zero point. The sum is of integers, exactly.
fn gemm(cx: &mut Cx) -> Lowering {
    let alpha = cx.float_or("alpha", 1.0)?;
    let operand = |cx: &mut Cx, i: usize, transposed: &str| -> Result<ValueId, Stop> {
        let x = cx.input(i)?;
        let turned = cx.int_or(transposed, 0)? != 0;
        let x = if turned { cx.program.transpose(x, &[1, 0]) } else { x };
        match cx.optional(i + 2) {
            Some(zero) => cx.program.elementwise(&[x, zero], centred),
            None => Ok(cx.program.cast(x, DType::I32)),
        }
    };
    let (a, b) = (operand(cx, 0, "transA")?, operand(cx, 3, "transB")?);
    let sum = matmul(cx.program, a, b)?;
    let sum = match cx.optional(6) {
        Some(c) => cx.program.binary(Binary::Add, sum, c)?,
        None => sum,
    };
    let scales = [cx.input(1)?, cx.input(4)?];
    let y = cx
        .program
        .elementwise(&[sum, scales[0], scales[1]], |e| e[0].cast(DType::F32) * (&e[1] * &e[2] * alpha))?;
    match cx.optional(7) {
        Some(_) => quantized(cx, y, 7),
        None => Ok(vec![y]),
    }
}
