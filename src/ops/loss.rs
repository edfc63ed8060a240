//! Losses over classes.

use super::reduce::widen;
use super::softmax::log_softmax;
use super::{Cx, OpDef};
use crate::expr::{Expr, vars};
use crate::ir::{Combine, Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn op(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("", name, 12, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    op(
        "NegativeLogLikelihoodLoss",
        "-x[n, target, ..] * weight[target], summed or averaged on demand",
        |cx| {
            let x = cx.input(0)?;
            Ok(vec![loss(cx, x)?])
        },
    ),
    op(
        "SoftmaxCrossEntropyLoss",
        "the negative log-likelihood loss of log softmax(x), and the latter",
        |cx| {
            let x = cx.input(0)?;
            let (wide, dtype) = widen(cx.program, x);
            let log = log_softmax(cx.program, wide, &[1])?;
            let log = cx.program.cast(log, dtype);
            Ok(vec![loss(cx, log)?, log])
        },
    ),
];

/// The loss of log probabilities `x`, with targets at input 1 and weights of classes at input 2.
fn loss(cx: &mut Cx, x: ValueId) -> Result<ValueId, Stop> {
    let (target, weight) = (cx.input(1)?, cx.optional(2));
    let ignored = cx.int("ignore_index")?;
    let reduction = cx.string_or("reduction", "mean")?;
    let p = &mut *cx.program;
    let shape = p.shape(target).to_vec();
    let classes = p.shape(x)[1].clone();
    let dtype = p.dtype(x);
    let at = vars(0, &shape);
    let class = p.load(target, &at);
    let position = class.to_position(&classes);
    let weight = weight.map_or(Expr::int(dtype, 1), |weight| p.load(weight, std::slice::from_ref(&position)));
    let zero = Expr::int(dtype, 0);
    let counted = ignored.map_or(weight.clone(), |ignored| {
        class.cast(DType::I64).equals(Expr::int(DType::I64, ignored)).select(&zero, &weight)
    });
    let x_at = [&at[..1], &[position], &at[1..]].concat();
    let element = p.load(x, &x_at).negated() * &counted;
    let losses = p.map(shape.clone(), element);
    let axes: Vec<usize> = (0..shape.len()).collect();
    match reduction.as_str() {
        "none" => Ok(losses),
        "sum" => p.reduce(losses, &axes, false, Combine::Sum, Expr::clone),
        "mean" => {
            let weights = p.map(shape, counted);
            let sum = p.reduce(losses, &axes, false, Combine::Sum, Expr::clone)?;
            let count = p.reduce(weights, &axes, false, Combine::Sum, Expr::clone)?;
            p.elementwise(&[sum, count], |e| &e[0] / &e[1])
        }
        other => Err(p.error(format!("reduction wants none, sum or mean, got {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, f32s};
    use crate::graph::Attribute::{Int, String};
    use crate::tensor::Tensor;

    #[test]
    fn weights_and_ignored_targets() {
        let x = f32s(&[3, 2], &[-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]);
        let target = Tensor::from_slice(&[3], &[0i64, 1, 1]).unwrap();
        let weight = f32s(&[2], &[1.0, 10.0]);
        let by = |name: &str| ("reduction", String(name.into()));
        let inputs = [x, target, weight];
        let op = "NegativeLogLikelihoodLoss";
        check(op, 13, &[by("none")], &inputs, &f32s(&[3], &[1.0, 40.0, 60.0]));
        check(op, 13, &[by("sum")], &inputs, &f32s(&[], &[101.0]));
        check(op, 13, &[], &inputs, &f32s(&[], &[101.0 / 21.0]));
        check(op, 13, &[by("sum"), ("ignore_index", Int(1))], &inputs, &f32s(&[], &[1.0]));
    }

    #[test]
    fn cross_entropy_of_even_odds() {
        let target = Tensor::from_slice(&[1], &[1i32]).unwrap();
        let inputs = [f32s(&[1, 2], &[3.0, 3.0]), target];
        check("SoftmaxCrossEntropyLoss", 13, &[], &inputs, &f32s(&[], &[std::f32::consts::LN_2]));
    }
}
