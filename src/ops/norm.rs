//! Normalisations. Statistics are computed in float32 for 16-bit inputs.

use super::batch_norm::batch_normalization;
use super::pool::{norm_root, norm_term};
use super::reduce::widen;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, vars};
use crate::ir::{Combine, Program, Stop, ValueId};
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
    op(
        "BatchNormalization",
        1,
        "(x - mean) / sqrt(var + e) * scale + bias by channel; in training mode with the batch's own statistics",
        batch_normalization,
    ),
    op("InstanceNormalization", 1, "normalised over the spatial axes, by channel scale and bias", |cx| {
        let x = cx.input(0)?;
        let axes: Vec<usize> = (2..cx.program.rank(x)).collect();
        let epsilon = cx.float_or("epsilon", 1e-5)?;
        let y = normalised(cx.program, x, &axes, epsilon)?.0;
        by_channel(cx, y)
    }),
    op(
        "GroupNormalization",
        18,
        "normalised over groups of channels; scale and bias by group before opset 21, by channel since",
        group,
    ),
    op(
        "LayerNormalization",
        1,
        "normalised over the axes from `axis` on, then scale and bias; mean and 1 / deviation",
        |cx| {
            let x = cx.input(0)?;
            layer(cx, x, 1, 2, true)
        },
    ),
    op("RMSNormalization", 23, "x / sqrt(mean of x^2 + e) over the axes from `axis` on, then scale", |cx| {
        let x = cx.input(0)?;
        layer(cx, x, 1, 2, false)
    }),
    op("LpNormalization", 1, "x / (sum of |x|^p)^(1/p) along an axis; 0 where the norm is 0", |cx| {
        let x = cx.input(0)?;
        let axes = [cx.axis(cx.int_or("axis", -1)?, cx.program.rank(x))?];
        let power = cx.int_or("p", 2)? as f64;
        let (x, dtype) = widen(cx.program, x);
        let sum = cx.program.reduce(x, &axes, false, Combine::Sum, |e| norm_term(e, power))?;
        let norm = cx.program.unary(sum, |e| norm_root(e, power));
        let y = cx.program.along(x, &axes, &[norm], |x, norm| {
            let zero = Expr::int(x.dtype(), 0);
            norm[0].equals(&zero).select(&zero, &(x / &norm[0]))
        });
        Ok(vec![cx.program.cast(y, dtype)])
    }),
    op(
        "MeanVarianceNormalization",
        9,
        "(x - mean) / (deviation + 1e-9) over axes, [0, 2, 3] unless told",
        |cx| {
            let x = cx.input(0)?;
            let axes = cx.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
            let axes = cx.axes(&axes, cx.program.rank(x))?;
            let (x, dtype) = widen(cx.program, x);
            let (centred, variance, _) = centre(cx.program, x, &axes)?;
            let y = cx.program.along(centred, &axes, &[variance], |x, v| x / (v[0].sqrt() + 1e-9));
            Ok(vec![cx.program.cast(y, dtype)])
        },
    ),
    op("LRN", 1, "x / (bias + alpha / size * sum of x^2 over `size` channels around)^beta", lrn),
    ms("SkipLayerNormalization", "layer normalisation of input + skip + bias", |cx| skip_layer(cx, true)),
    ms("SkipSimplifiedLayerNormalization", "RMS normalisation of input + skip + bias", |cx| {
        skip_layer(cx, false)
    }),
    op("SimplifiedLayerNormalization", 1, "RMS normalisation, as exporters write it into ai.onnx", |cx| {
        let x = cx.input(0)?;
        layer(cx, x, 1, 2, false)
    }),
    ms("SimplifiedLayerNormalization", "RMS normalisation", |cx| {
        let x = cx.input(0)?;
        layer(cx, x, 1, 2, false)
    }),
];

/// `x - mean`, the variance and the mean of `x` over `axes`.
pub(super) fn centre(
    p: &mut Program,
    x: ValueId,
    axes: &[usize],
) -> Result<(ValueId, ValueId, ValueId), Stop> {
    let mean = p.mean(x, axes)?;
    let centred = p.along(x, axes, &[mean], |x, mean| x - &mean[0]);
    let count = p.count(x, axes);
    let sum = p.reduce(centred, axes, false, Combine::Sum, |d| d * d)?;
    let variance = p.unary(sum, |e| e / &count);
    Ok((centred, variance, mean))
}

/// `1 / sqrt(x + epsilon)`.
fn inverse_root(p: &mut Program, x: ValueId, epsilon: f64) -> ValueId {
    p.unary(x, |e| Expr::int(e.dtype(), 1) / (e + epsilon).sqrt())
}

/// `(x - mean) / sqrt(variance + epsilon)` in `x`'s dtype, and in the wide dtype the mean and the inverse
/// deviation.
pub(super) fn normalised(
    p: &mut Program,
    x: ValueId,
    axes: &[usize],
    epsilon: f64,
) -> Result<(ValueId, ValueId, ValueId), Stop> {
    let (wide, dtype) = widen(p, x);
    let (centred, variance, mean) = centre(p, wide, axes)?;
    let inverse = inverse_root(p, variance, epsilon);
    let y = p.along(centred, axes, &[inverse], |x, inverse| (x * &inverse[0]).cast(dtype));
    Ok((y, mean, inverse))
}

/// `y[n, c, ..] * scale[c] + bias[c]`, inputs 1 and 2.
fn by_channel(cx: &mut Cx, y: ValueId) -> Lowering {
    let (scale, bias) = (cx.input(1)?, cx.input(2)?);
    let shape = cx.program.shape(y).to_vec();
    let at = vars(0, &shape);
    let p = &mut *cx.program;
    let dtype = p.dtype(y);
    let body = p.load(y, &at) * p.load(scale, &at[1..2]).cast(dtype) + p.load(bias, &at[1..2]).cast(dtype);
    Ok(vec![p.map(shape, body)])
}

fn group(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let groups = Idx::from(cx.int_or("num_groups", 1)?);
    let epsilon = cx.float_or("epsilon", 1e-5)?;
    let shape = cx.program.shape(x).to_vec();
    let each = shape[1].div(&groups);
    let grouped: Vec<Idx> =
        [shape[0].clone(), groups, each.clone()].into_iter().chain(shape[2..].iter().cloned()).collect();
    let axes: Vec<usize> = (2..grouped.len()).collect();
    let split = cx.program.reshape(x, grouped)?;
    let y = normalised(cx.program, split, &axes, epsilon)?.0;
    let y = cx.program.reshape(y, shape.clone())?;
    if cx.opset >= 21 {
        return by_channel(cx, y);
    }
    let (scale, bias) = (cx.input(1)?, cx.input(2)?);
    let at = vars(0, &shape);
    let group = [at[1].div(&each)];
    let body = cx.program.load(y, &at) * cx.program.load(scale, &group) + cx.program.load(bias, &group);
    Ok(vec![cx.program.map(shape, body)])
}

/// Layer (`centred`) or RMS normalisation of `x`, with scale and bias at the inputs given.
fn layer(cx: &mut Cx, x: ValueId, scale: usize, bias: usize, centred: bool) -> Lowering {
    let rank = cx.program.rank(x);
    let axes: Vec<usize> = (cx.axis(cx.int_or("axis", -1)?, rank)?..rank).collect();
    // Those with a skip connection have another default.
    let default = if cx.node.op.starts_with("Skip") { 1e-12 } else { 1e-5 };
    let epsilon = cx.float_or("epsilon", default)?;
    let (scale, bias) = (cx.optional(scale), cx.optional(bias));
    let p = &mut *cx.program;
    let (y, mean, inverse) = if centred {
        let (y, mean, inverse) = normalised(p, x, &axes, epsilon)?;
        (y, Some(mean), inverse)
    } else {
        let (wide, dtype) = widen(p, x);
        let count = p.count(wide, &axes);
        let sum = p.reduce(wide, &axes, false, Combine::Sum, |x| x * x)?;
        let square = p.unary(sum, |e| e / &count);
        let inverse = inverse_root(p, square, epsilon);
        (p.along(wide, &axes, &[inverse], |x, inverse| (x * &inverse[0]).cast(dtype)), None, inverse)
    };
    let operands: Vec<ValueId> = [Some(y), scale, bias].into_iter().flatten().collect();
    let y = match (scale, bias) {
        (None, None) => y,
        (Some(_), None) => p.elementwise(&operands, |e| scaled(&e[0], &e[1]))?,
        (None, Some(_)) => p.elementwise(&operands, |e| &e[0] + e[1].cast(e[0].dtype()))?,
        (Some(_), Some(_)) => p.elementwise(&operands, |e| {
            let y = scaled(&e[0], &e[1]);
            &y + e[2].cast(y.dtype())
        })?,
    };
    let mut outputs = vec![y];
    if let Some(mean) = mean {
        outputs.push(p.keep_axes(x, mean, &axes)?);
    }
    outputs.push(p.keep_axes(x, inverse, &axes)?);
    Ok(outputs)
}

/// `x * scale` in the scale's dtype.
fn scaled(x: &Expr, scale: &Expr) -> Expr {
    x.cast(scale.dtype()) * scale
}

/// Inputs: input, skip, gamma, then beta where `centred`, then bias. Outputs: the result, mean, inverse
/// deviation, input + skip + bias.
fn skip_layer(cx: &mut Cx, centred: bool) -> Lowering {
    let bias = if centred { 4 } else { 3 };
    let mut operands = vec![cx.input(0)?, cx.input(1)?];
    operands.extend(cx.optional(bias));
    let sum = cx.program.elementwise(&operands, |e| e[1..].iter().fold(e[0].clone(), |a, b| &a + b))?;
    // Input 3 is the bias of the sum where there is no beta: past the inputs means none.
    let mut outputs = layer(cx, sum, 2, if centred { 3 } else { usize::MAX }, centred)?;
    if !centred {
        outputs.insert(1, outputs[1]);
    }
    outputs.push(sum);
    Ok(outputs)
}

fn lrn(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let size = cx.int_or("size", 1)?;
    if size < 1 {
        return Err(cx.error(format!("attribute \"size\" wants a positive integer, got {size}")));
    }
    let (alpha, beta, bias) =
        (cx.float_or("alpha", 1e-4)?, cx.float_or("beta", 0.75)?, cx.float_or("bias", 1.0)?);
    let (x, dtype) = widen(cx.program, x);
    let shape = cx.program.shape(x).to_vec();
    let channels = Expr::index(shape[1].clone(), DType::I64);
    // What is farther away than all channels adds nothing.
    let reach = |channels_away: i64| Idx::from(channels_away).smaller(&shape[1]);
    let (before, after) = (reach((size - 1) / 2), reach(size / 2));
    let window = &(&before + &after) + &Idx::from(1i64);
    let sum = cx.program.reduction(shape, vec![window], Combine::Sum, |p, at, k| {
        let mut at = at.to_vec();
        at[1] = &(&at[1] + &k[0]) - &before;
        let channel = Expr::index(at[1].clone(), DType::I64);
        let inside = Expr::int(DType::I64, 0).at_most(&channel).and(channel.below(channels));
        let element = p.load(x, &at);
        inside.select(&(&element * &element), &Expr::int(element.dtype(), 0))
    });
    let y =
        cx.program.elementwise(&[x, sum], |e| &e[0] / (&e[1] * (alpha / size as f64) + bias).power(beta))?;
    Ok(vec![cx.program.cast(y, dtype)])
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, f32s, list, run};
    use crate::graph::Attribute::{Float, Int};

    /// Every pair of rows: mean 2 and variance 1, mean 0 and variance 4.
    const X: [f32; 4] = [1.0, 3.0, -2.0, 2.0];

    #[test]
    fn rows_of_mean_zero_and_variance_one() {
        let x = f32s(&[2, 2], &X);
        let (scale, bias) = (f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[0.0, 10.0]));
        let exact = [("epsilon", Float(0.0))];
        let want = f32s(&[2, 2], &[-1.0, 12.0, -1.0, 12.0]);
        check("LayerNormalization", 17, &exact, &[x.clone(), scale.clone(), bias.clone()], &want);
        let outputs = run("LayerNormalization", 17, &exact, &[x.clone(), scale.clone(), bias.clone()], 3);
        assert_eq!(outputs[1], f32s(&[2, 1], &[2.0, 0.0]));
        assert_eq!(outputs[2], f32s(&[2, 1], &[1.0, 0.5]));
        let skip = f32s(&[2, 2], &[0.0; 4]);
        check(
            "com.microsoft.SkipLayerNormalization",
            17,
            &exact,
            &[x.clone(), skip, scale.clone(), bias],
            &want,
        );
        let root = 5f32.sqrt();
        let want = f32s(&[2, 2], &[1.0 / root, 6.0 / root, -1.0, 2.0]);
        check("RMSNormalization", 23, &exact, &[x, scale], &want);
    }

    #[test]
    fn channels_and_groups() {
        let x = f32s(&[1, 2, 2], &X);
        let (scale, bias) = (f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[0.0, 10.0]));
        let exact = ("epsilon", Float(0.0));
        let want = f32s(&[1, 2, 2], &[-1.0, 1.0, 8.0, 12.0]);
        let inputs = [x.clone(), scale.clone(), bias.clone()];
        check("InstanceNormalization", 6, std::slice::from_ref(&exact), &inputs, &want);
        for opset in [18, 21] {
            check("GroupNormalization", opset, &[exact.clone(), ("num_groups", Int(2))], &inputs, &want);
        }
        let inputs = [x, scale, bias, f32s(&[2], &[2.0, 0.0]), f32s(&[2], &[1.0, 4.0])];
        check("BatchNormalization", 15, &[exact], &inputs, &want);
    }

    #[test]
    fn norms_along_an_axis() {
        let x = f32s(&[2, 2], &[3.0, -4.0, 0.0, 0.0]);
        for (p, want) in [(1, [3.0 / 7.0, -4.0 / 7.0, 0.0, 0.0]), (2, [0.6, -0.8, 0.0, 0.0])] {
            check("LpNormalization", 1, &[("p", Int(p))], std::slice::from_ref(&x), &f32s(&[2, 2], &want));
        }
        let x = f32s(&[1, 1, 2], &[1.0, 3.0]);
        check(
            "MeanVarianceNormalization",
            13,
            &[("axes", list(&[2]))],
            &[x],
            &f32s(&[1, 1, 2], &[-1.0, 1.0]),
        );
    }

    #[test]
    fn squares_of_the_channels_around() {
        let x = f32s(&[1, 3, 1], &[1.0, 2.0, 3.0]);
        let attributes =
            [("size", Int(3)), ("alpha", Float(3.0)), ("beta", Float(1.0)), ("bias", Float(0.0))];
        check("LRN", 13, &attributes, &[x], &f32s(&[1, 3, 1], &[1.0 / 5.0, 2.0 / 14.0, 3.0 / 13.0]));
    }
}
