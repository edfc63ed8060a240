//! Activation functions, element by element.

use super::math::compose;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, Unary};
use crate::ir::{Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn op(name: &'static str, since: i64, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("", name, since, doc, lower)
}

const fn ms(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("com.microsoft", name, 1, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    op("Relu", 1, "max(x, 0)", |cx| function(cx, |x| x.larger(0.0))),
    op("LeakyRelu", 1, "x < 0 ? alpha * x : x", |cx| {
        let alpha = cx.float_or("alpha", 0.01)?;
        function(cx, |x| x.below(0.0).select(&(x * alpha), x))
    }),
    op("PRelu", 1, "x < 0 ? slope * x : x", |cx| {
        let (x, mut slope) = (cx.input(0)?, cx.input(1)?);
        // Before opset 7 a vector of slopes belongs to axis 1.
        let behind = cx.program.rank(x).saturating_sub(2);
        if cx.opset < 7 && cx.program.rank(slope) == 1 {
            let mut shape = cx.program.shape(slope).to_vec();
            shape.extend(vec![Idx::from(1i64); behind]);
            slope = cx.program.reshape(slope, shape)?;
        }
        let y = cx.program.elementwise(&[x, slope], |e| e[0].below(0.0).select(&(&e[0] * &e[1]), &e[0]))?;
        Ok(vec![y])
    }),
    op("Elu", 1, "x < 0 ? alpha * (e^x - 1) : x", |cx| {
        let alpha = cx.float_or("alpha", 1.0)?;
        function(cx, |x| x.below(0.0).select(&((x.exp() - 1.0) * alpha), x))
    }),
    op("Selu", 1, "x > 0 ? gamma * x : gamma * alpha * (e^x - 1)", |cx| {
        let alpha = cx.float_or("alpha", 1.673_263_2)?;
        let gamma = cx.float_or("gamma", 1.050_701)?;
        function(cx, |x| x.at_most(0.0).select(&((x.exp() - 1.0) * alpha), x) * gamma)
    }),
    op("Celu", 12, "max(x, 0) + min(alpha * (e^(x / alpha) - 1), 0)", |cx| {
        let alpha = cx.float_or("alpha", 1.0)?;
        function(cx, |x| x.larger(0.0) + (((x / alpha).exp() - 1.0) * alpha).smaller(0.0))
    }),
    op("Gelu", 20, "x * Phi(x), exactly or by tanh", |cx| {
        match cx.string_or("approximate", "none")?.as_str() {
            "none" => function(cx, gelu),
            "tanh" => function(cx, gelu_tanh),
            other => Err(cx.error(format!("approximate wants none or tanh, got {other:?}"))),
        }
    }),
    op("Sigmoid", 1, "1 / (1 + e^-x)", |cx| function(cx, sigmoid)),
    op("HardSigmoid", 1, "min(max(alpha * x + beta, 0), 1)", |cx| {
        let (alpha, beta) = (cx.float_or("alpha", 0.2)?, cx.float_or("beta", 0.5)?);
        function(cx, |x| hard_sigmoid(x, alpha, beta))
    }),
    op("HardSwish", 14, "x * min(max(x / 6 + 1/2, 0), 1)", |cx| {
        function(cx, |x| x * hard_sigmoid(x, 1.0 / 6.0, 0.5))
    }),
    op("Softplus", 1, "ln(1 + e^x)", |cx| function(cx, softplus)),
    op("Softsign", 1, "x / (1 + |x|)", |cx| function(cx, |x| x / (x.abs() + 1.0))),
    op("Mish", 18, "x * tanh(ln(1 + e^x))", |cx| function(cx, |x| x * softplus(x).tanh())),
    op("Swish", 24, "x / (1 + e^(-alpha * x))", |cx| {
        let alpha = cx.float_or("alpha", 1.0)?;
        function(cx, |x| x * sigmoid(&(x * alpha)))
    }),
    op("SwiGLU", 28, "a / (1 + e^(-alpha * a)) * b", |cx| {
        let (a, b, alpha) = (cx.input(0)?, cx.input(1)?, cx.float_or("alpha", 1.0)?);
        Ok(vec![cx.program.elementwise(&[a, b], |e| &e[0] * sigmoid(&(&e[0] * alpha)) * &e[1])?])
    }),
    op("ThresholdedRelu", 1, "x > alpha ? x : 0", |cx| {
        let alpha = cx.float_or("alpha", 1.0)?;
        function(cx, |x| x.at_most(alpha).select(&Expr::float(x.dtype(), 0.0), x))
    }),
    op("Shrink", 9, "x shrunk by bias outside of [-lambd, lambd], 0 inside", |cx| {
        let (bias, lambd) = (cx.float_or("bias", 0.0)?, cx.float_or("lambd", 0.5)?);
        function(cx, |x| {
            let high =
                Expr::float(x.dtype(), lambd).below(x).select(&(x - bias), &Expr::float(x.dtype(), 0.0));
            x.below(-lambd).select(&(x + bias), &high)
        })
    }),
    ms("Gelu", "x * Phi(x)", |cx| function(cx, gelu)),
    ms("FastGelu", "x * Phi(x) by tanh, of x + bias", |cx| biased(cx, gelu_tanh)),
    ms("BiasGelu", "x * Phi(x) of x + bias", |cx| biased(cx, gelu)),
    ms("QuickGelu", "x / (1 + e^(-alpha * x))", |cx| {
        let alpha = cx.float_or("alpha", 1.702)?;
        function(cx, |x| x * sigmoid(&(x * alpha)))
    }),
];

fn function(cx: &mut Cx, f: impl FnOnce(&Expr) -> Expr) -> Lowering {
    compose(cx, |x| Ok(f(x)))
}

/// `f(x + bias)`, the bias optional.
fn biased(cx: &mut Cx, f: fn(&Expr) -> Expr) -> Lowering {
    let x = cx.input(0)?;
    let Some(bias) = cx.optional(1) else { return function(cx, f) };
    Ok(vec![cx.program.elementwise(&[x, bias], |e| f(&(&e[0] + &e[1])))?])
}

/// A function of one number.
pub(super) type Function = Box<dyn Fn(&Expr) -> Expr>;

/// The activation function that recurrent networks call `name`, in any case of letters; `parameters(n)` gives
/// the alpha, and from 2 on the beta, that the node says.
pub(super) fn activation(
    name: &str,
    parameters: &mut dyn FnMut(usize) -> (Option<f64>, Option<f64>),
) -> Option<Function> {
    Some(match name.to_ascii_lowercase().as_str() {
        "relu" => Box::new(|x| x.larger(0.0)),
        "tanh" => Box::new(Expr::tanh),
        "softsign" => Box::new(|x| x / (x.abs() + 1.0)),
        "softplus" => Box::new(softplus),
        "leakyrelu" => {
            let alpha = parameters(1).0.unwrap_or(0.01);
            Box::new(move |x| x.below(0.0).select(&(x * alpha), x))
        }
        "thresholdedrelu" => {
            let alpha = parameters(1).0.unwrap_or(1.0);
            Box::new(move |x| x.below(alpha).select(&Expr::float(x.dtype(), 0.0), x))
        }
        "elu" => {
            let alpha = parameters(1).0.unwrap_or(1.0);
            Box::new(move |x| x.below(0.0).select(&((x.exp() - 1.0) * alpha), x))
        }
        "hardsigmoid" => {
            let (alpha, beta) = parameters(2);
            let (alpha, beta) = (alpha.unwrap_or(0.2), beta.unwrap_or(0.5));
            Box::new(move |x| hard_sigmoid(x, alpha, beta))
        }
        "affine" => {
            let (alpha, beta) = parameters(2);
            let (alpha, beta) = (alpha.unwrap_or(1.0), beta.unwrap_or(0.0));
            Box::new(move |x| x * alpha + beta)
        }
        "scaledtanh" => {
            let (alpha, beta) = parameters(2);
            let (alpha, beta) = (alpha.unwrap_or(1.0), beta.unwrap_or(1.0));
            Box::new(move |x| (x * beta).tanh() * alpha)
        }
        _ => return None,
    })
}

/// `1 / (1 + e^-x)`.
pub(super) fn sigmoid(x: &Expr) -> Expr {
    Expr::int(x.dtype(), 1) / (x.unary(Unary::Neg).exp() + 1.0)
}

fn hard_sigmoid(x: &Expr, alpha: f64, beta: f64) -> Expr {
    (x * alpha + beta).larger(0.0).smaller(1.0)
}

/// `ln(1 + e^x)` as `max(x, 0) + ln(1 + e^-|x|)`, which never overflows.
fn softplus(x: &Expr) -> Expr {
    x.larger(0.0) + log1p(&x.abs().negated().exp())
}

/// `ln(1 + y)` for `0 <= y <= 1`, not from `1 + y`, which would lose digits of small `y` (and what adds them again,
/// drivers take for nothing): in float64 by the series of `2 artanh(y / (2 + y))`, in float32 near zero by its own.
fn log1p(y: &Expr) -> Expr {
    if y.dtype() == DType::F64 {
        const TERMS: u32 = 17;
        let s = y / (y + 2.0);
        let squared = &s * &s;
        let number = |k: u32| Expr::float(DType::F64, 2.0 / f64::from(2 * k + 1));
        return s * (0..TERMS - 1).rev().fold(number(TERMS - 1), |sum, k| number(k) + &squared * sum);
    }
    let series = y * (((y * (1.0 / 3.0) - 0.5) * y) + 1.0);
    y.below(0.01).select(&series, &(y + 1.0).log())
}

/// `x / 2 * (1 + erf(x / sqrt 2))`.
pub(super) fn gelu(x: &Expr) -> Expr {
    x * 0.5 * ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0)
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
pub(super) fn gelu_tanh(x: &Expr) -> Expr {
    let root = (2.0 / std::f64::consts::PI).sqrt();
    x * 0.5 * (((x * x * x * 0.044715 + x) * root).tanh() + 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, f32s};
    use crate::graph::Attribute::{Float, String};

    #[test]
    fn at_minus_one_zero_and_two() {
        let x = f32s(&[3], &[-1.0, 0.0, 2.0]);
        // From the formulas of the operators' documentation, worked out in float64.
        let rows: &[(&str, [f32; 3])] = &[
            ("Relu", [0.0, 0.0, 2.0]),
            ("LeakyRelu", [-0.01, 0.0, 2.0]),
            ("Elu", [-0.632_120_56, 0.0, 2.0]),
            ("Selu", [-1.111_330_7, 0.0, 2.101_402]),
            ("Celu", [-0.632_120_56, 0.0, 2.0]),
            ("Gelu", [-0.158_655_25, 0.0, 1.954_499_7]),
            ("Sigmoid", [0.268_941_42, 0.5, 0.880_797_1]),
            ("HardSigmoid", [0.3, 0.5, 0.9]),
            ("HardSwish", [-0.333_333_34, 0.0, 1.666_666_6]),
            ("Softplus", [0.313_261_7, std::f32::consts::LN_2, 2.126_928]),
            ("Softsign", [-0.5, 0.0, 0.666_666_7]),
            ("Mish", [-0.303_401_46, 0.0, 1.943_959]),
            ("ThresholdedRelu", [0.0, 0.0, 2.0]),
            ("Shrink", [-1.0, 0.0, 2.0]),
            ("com.microsoft.QuickGelu", [-0.154_206_8, 0.0, 1.935_658_5]),
            ("com.microsoft.FastGelu", [-0.158_808, 0.0, 1.954_597_7]),
        ];
        for (op, want) in rows {
            check(op, 22, &[], std::slice::from_ref(&x), &f32s(&[3], want));
        }
        let attributes = [("approximate", String("tanh".into()))];
        check("Gelu", 20, &attributes, &[x], &f32s(&[3], &[-0.158_808, 0.0, 1.954_597_7]));
    }

    #[test]
    fn slopes_and_biases_broadcast() {
        let x = f32s(&[2, 2], &[-1.0, 2.0, -3.0, 4.0]);
        let slope = f32s(&[2, 1], &[0.5, 2.0]);
        check("PRelu", 16, &[], &[x.clone(), slope], &f32s(&[2, 2], &[-0.5, 2.0, -6.0, 4.0]));
        check(
            "Shrink",
            9,
            &[("lambd", Float(2.5)), ("bias", Float(1.0))],
            &[x],
            &f32s(&[2, 2], &[0.0, 0.0, -2.0, 3.0]),
        );
    }
}
