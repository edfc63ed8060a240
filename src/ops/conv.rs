//! Convolutions, as contractions over channels and taps.

use super::activation::sigmoid;
use super::window::{Window, pads, per_axis, taps, windows};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, numel, vars};
use crate::ir::{Axes, Combine, ConvAxis, ConvVar, Convolution, Program, Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn op(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("", name, 1, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    op(
        "Conv",
        "out[n, g, m, o] = sum_{c, k} W[g, m, c, k] * X[n, g, c, o * stride + k * dilation - pad] + B[g, m]",
        |cx| {
            let (x, w) = (cx.input(0)?, cx.input(1)?);
            let y = convolve(cx, x, w)?;
            add_bias(cx, y, 2)
        },
    ),
    op("ConvInteger", "convolution of 8-bit integers less their zero points, in int32", |cx| {
        let (x, w) = (cx.input(0)?, cx.input(1)?);
        let x = centred(cx, x, cx.optional(2))?;
        let w = centred(cx, w, cx.optional(3))?;
        Ok(vec![convolve(cx, x, w)?])
    }),
    OpDef::new(
        "",
        "CausalConvWithState",
        27,
        "depthwise convolution over the past and present of a sequence, and the new past",
        causal,
    ),
    op("ConvTranspose", "the transposed convolution; taps that fall between inputs add zero", transposed),
];

/// Channels of a convolution: per group, `out_channels` of the result and `in_channels` of the input.
struct Groups {
    count: i64,
    in_channels: Idx,
    out_channels: Idx,
}

impl Groups {
    /// The batch axes: `N`, and the groups where there are several.
    fn batch(&self, n: &Idx) -> Vec<Idx> {
        if self.count == 1 { vec![n.clone()] } else { vec![n.clone(), self.count.into()] }
    }

    /// The channel `i` of the group at `batch`, of `each` per group.
    fn channel(batch: &[Idx], each: &Idx, i: &Idx) -> Idx {
        batch.get(1).map_or_else(|| i.clone(), |g| &(g * each) + i)
    }
}

/// `x`, `[N, C, ..]`, convolved with `w`, `[M, C / group, ..]`, by the node's attributes; without bias.
pub(super) fn convolve(cx: &mut Cx, x: ValueId, w: ValueId) -> Result<ValueId, Stop> {
    let (x_shape, w_shape) = (cx.program.shape(x).to_vec(), cx.program.shape(w).to_vec());
    if x_shape.len() < 3 || x_shape.len() != w_shape.len() {
        let message = format!(
            "wants input and weight of one rank, 3 or more; got {} and {}",
            x_shape.len(),
            w_shape.len()
        );
        return Err(cx.error(message));
    }
    let count = cx.int_or("group", 1)?;
    let divides = |d: &Idx| d.as_const().is_none_or(|d| count > 0 && d % count == 0);
    if !divides(&x_shape[1]) || !divides(&w_shape[0]) {
        return Err(cx.error(format!(
            "group={count} must divide {} input and {} output channels",
            x_shape[1], w_shape[0]
        )));
    }
    let group = Idx::from(count);
    cx.program.equate(&x_shape[1], &(&w_shape[1] * &group), "input channels and the weight's times group")?;
    let windows = windows(cx, &x_shape[2..], &w_shape[2..])?;
    let groups = Groups { count, in_channels: w_shape[1].clone(), out_channels: w_shape[0].div(&group) };
    let extents = Axes {
        batch: groups.batch(&x_shape[0]),
        m: vec![groups.out_channels.clone()],
        n: windows.iter().map(|w| w.output.clone()).collect(),
        k: w_shape[1..].to_vec(),
    };
    let structure = structure(cx.program, x, w, &windows, &groups);
    let y = cx.program.convolution(extents, structure, |p, at| {
        let (c, k) = (&at.k[0], &at.k[1..]);
        let m = Groups::channel(&at.batch, &groups.out_channels, &at.m[0]);
        let weight = p.load(w, &[vec![m], at.k.clone()].concat());
        let (position, inside) = taps(&windows, &at.n, k);
        let channel = Groups::channel(&at.batch, &groups.in_channels, c);
        let element = p.load(x, &[vec![at.batch[0].clone(), channel], position].concat());
        let zero = Expr::int(element.dtype(), 0);
        (weight, inside.select(&element, &zero))
    });
    let outputs = windows.iter().map(|w| w.output.clone());
    cx.program.reshape(y, [x_shape[0].clone(), w_shape[0].clone()].into_iter().chain(outputs).collect())
}

/// Terms of a sum from which on a convolution is computed as any contraction is, which may split its sum: lavapipe leaves
/// the loops of an invocation after 65,535 turns.
const LONG_SUM: i64 = 60_000;

/// The convolution by its windows, where it is more than a product of matrices, has at most three axes, taps that can be
/// counted, and sums that are not too long.
fn structure(
    p: &Program,
    x: ValueId,
    w: ValueId,
    windows: &[Window],
    groups: &Groups,
) -> Option<Convolution> {
    let skip = 3usize.checked_sub(windows.len())?;
    let mut axes = [(); 3].map(|()| ConvAxis::none());
    for (axis, window) in axes[skip..].iter_mut().zip(windows) {
        *axis = ConvAxis {
            input: window.input.clone(),
            output: window.output.clone(),
            kernel: window.kernel.as_const()?,
            stride: window.stride,
            dilation: window.dilation,
            before: window.before.clone(),
        };
    }
    numel(&p.shape(w)[1..]).as_const().filter(|&terms| terms < LONG_SUM)?;
    let count = Idx::from(groups.count);
    let batch = [ConvVar::Batch.over(&p.shape(x)[0]), ConvVar::Group.over(&count)];
    let m = Groups::channel(&batch, &groups.out_channels, &ConvVar::Out.over(&groups.out_channels));
    let c = ConvVar::In.over(&groups.in_channels);
    let taps = axes.each_ref().map(|axis| Idx::from(axis.kernel));
    let taps = ConvVar::Tap.over_axes(taps.each_ref());
    let at = ConvVar::At.over_axes(axes.each_ref().map(|axis| &axis.input));
    let channel = Groups::channel(&batch, &groups.in_channels, &c);
    let weight = p.load(w, &[vec![m, c], taps[skip..].to_vec()].concat());
    let input = p.load(x, &[vec![batch[0].clone(), channel], at[skip..].to_vec()].concat());
    let structure = Convolution {
        groups: count,
        in_channels: groups.in_channels.clone(),
        out_channels: groups.out_channels.clone(),
        axes,
        w: weight,
        x: input,
    };
    (!structure.is_pointwise()).then_some(structure)
}

/// `y[n, m, ..] + bias[m]`, the bias being input `i`.
pub(super) fn add_bias(cx: &mut Cx, y: ValueId, i: usize) -> Lowering {
    let Some(bias) = cx.optional(i) else { return Ok(vec![y]) };
    let shape = cx.program.shape(y).to_vec();
    cx.program.equate(&shape[1], &cx.program.shape(bias)[0].clone(), "output channels and the bias")?;
    let at = vars(0, &shape);
    let sum = cx.program.load(y, &at) + cx.program.load(bias, &at[1..2]).cast(cx.program.dtype(y));
    Ok(vec![cx.program.map(shape, sum)])
}

/// `x` less its zero point, as int32. A zero point with one axis runs along axis 0.
pub(super) fn centred(cx: &mut Cx, x: ValueId, zero: Option<ValueId>) -> Result<ValueId, Stop> {
    let Some(zero) = zero else { return Ok(cx.program.cast(x, DType::I32)) };
    let shape = cx.program.shape(x).to_vec();
    let at = vars(0, &shape);
    let single = cx.program.shape(zero).iter().all(|d| d.is(1));
    let zeros = if single { vec![Idx::from(0i64); cx.program.rank(zero)] } else { at[..1].to_vec() };
    let zero = cx.program.load(zero, &zeros).cast(DType::I32);
    let body = cx.program.load(x, &at).cast(DType::I32) - zero;
    Ok(cx.program.map(shape, body))
}

/// `out[n, g, m, o] = sum_{c, k} W[g, c, m, k] * X[n, g, c, i]` over the taps with
/// `i * stride + k * dilation - pad = o`.
fn transposed(cx: &mut Cx) -> Lowering {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let (x_shape, w_shape) = (cx.program.shape(x).to_vec(), cx.program.shape(w).to_vec());
    if x_shape.len() < 3 || x_shape.len() != w_shape.len() {
        let message = format!(
            "wants input and weight of one rank, 3 or more; got {} and {}",
            x_shape.len(),
            w_shape.len()
        );
        return Err(cx.error(message));
    }
    let count = cx.int_or("group", 1)?;
    let group = Idx::from(count);
    cx.program.equate(&x_shape[1], &w_shape[0], "input channels and the weight's")?;
    let windows = transposed_windows(cx, &x_shape[2..], &w_shape[2..])?;
    let groups = Groups { count, in_channels: w_shape[0].div(&group), out_channels: w_shape[1].clone() };
    let extents = Axes {
        batch: groups.batch(&x_shape[0]),
        m: vec![groups.out_channels.clone()],
        n: windows.iter().map(|w| w.output.clone()).collect(),
        k: [vec![groups.in_channels.clone()], w_shape[2..].to_vec()].concat(),
    };
    let y = cx.program.contract(extents, |p, at| {
        let (c, k) = (&at.k[0], &at.k[1..]);
        let channel = Groups::channel(&at.batch, &groups.in_channels, c);
        let weight = p.load(w, &[vec![channel.clone(), at.m[0].clone()], k.to_vec()].concat());
        let (mut position, mut inside) = (vec![at.batch[0].clone(), channel], Expr::bool(true));
        for ((window, o), k) in windows.iter().zip(&at.n).zip(k) {
            let (i, ok) = source(window, o, k);
            position.push(i);
            inside = inside.and(ok);
        }
        let element = p.load(x, &position);
        let zero = Expr::int(element.dtype(), 0);
        (weight, inside.select(&element, &zero))
    });
    let out_channels = &groups.out_channels * &group;
    let outputs = windows.iter().map(|w| w.output.clone());
    let shape = [x_shape[0].clone(), out_channels].into_iter().chain(outputs).collect();
    let y = cx.program.reshape(y, shape)?;
    add_bias(cx, y, 2)
}

/// The input position `(o + pad - k * dilation) / stride`, and whether it exists.
pub(super) fn source(window: &Window, o: &Idx, k: &Idx) -> (Idx, Expr) {
    let stride = Idx::from(window.stride);
    // Shifted by whole strides so that what is divided is never negative.
    let reach = &(&window.kernel - &Idx::from(1i64)) * &Idx::from(window.dilation);
    let shift = reach.div_ceil(&stride);
    let offset = &(&(o + &window.before) - &(k * &Idx::from(window.dilation))) + &(&shift * &stride);
    let position = &offset.div(&stride) - &shift;
    let number = |i: &Idx| Expr::index(i.clone(), DType::I64);
    let whole = number(&offset.rem(&stride)).equals(Expr::int(DType::I64, 0));
    let low = Expr::int(DType::I64, 0).at_most(number(&position));
    let high = number(&position).below(number(&window.input));
    (position, whole.and(low).and(high))
}

/// Windows of the convolution that this is the transpose of; `input` is what is read here.
fn transposed_windows(cx: &Cx, input: &[Idx], kernel: &[Idx]) -> Result<Vec<Window>, Stop> {
    let count = input.len();
    let (strides, dilations) = (per_axis(cx, "strides", count)?, per_axis(cx, "dilations", count)?);
    let (pads, auto) = (pads(cx, count)?, cx.string_or("auto_pad", "NOTSET")?);
    let extra = cx.ints("output_padding")?.unwrap_or_else(|| vec![0; count]);
    let wanted = cx.ints("output_shape")?;
    let (zero, one) = (Idx::from(0i64), Idx::from(1i64));
    let same = matches!(auto.as_str(), "SAME_UPPER" | "SAME_LOWER");
    let window = |axis: usize| {
        let (stride, dilation) = (Idx::from(strides[axis]), Idx::from(dilations[axis]));
        let extra = Idx::from(extra.get(axis).copied().unwrap_or(0));
        let span = &(&(&kernel[axis] - &one) * &dilation) + &one;
        let full = &(&(&stride * &(&input[axis] - &one)) + &extra) + &span;
        let wanted = wanted.as_ref().and_then(|shape| shape.get(shape.len().saturating_sub(count) + axis));
        let wanted = wanted.map(|&size| Idx::from(size)).or_else(|| same.then(|| &input[axis] * &stride));
        let (output, before) = match wanted {
            Some(output) => {
                let total = (&full - &output).larger(&zero);
                let half = total.div(&Idx::from(2i64));
                let before = if auto == "SAME_UPPER" { half } else { &total - &half };
                (output, before)
            }
            None if auto == "VALID" => (full, zero.clone()),
            None => {
                let (before, after) = (Idx::from(pads[axis].0), Idx::from(pads[axis].1));
                (&(&full - &before) - &after, before)
            }
        };
        Window {
            input: input[axis].clone(),
            output,
            kernel: kernel[axis].clone(),
            stride: strides[axis],
            dilation: dilations[axis],
            before,
            after: zero.clone(),
            overrun: true,
        }
    };
    Ok((0..count).map(window).collect())
}

/// `out[b, c, t] = act(sum_k W[c, 0, k] * P[b, c, t + k] + bias[c])`, `P` being the input after the past state.
fn causal(cx: &mut Cx) -> Lowering {
    let (x, w, past) = (cx.input(0)?, cx.input(1)?, cx.optional(3));
    let activation = cx.string_or("activation", "none")?;
    let p = &mut *cx.program;
    let (shape, kernel) = (p.shape(x).to_vec(), p.shape(w)[2].clone());
    let kept = &kernel - &Idx::from(1i64);
    let padded = |p: &Program, at: &[Idx], t: &Idx| {
        let number = |i: &Idx| Expr::index(i.clone(), DType::I64);
        let new = p.load(x, &[at[0].clone(), at[1].clone(), t - &kept]);
        let zero = Expr::int(new.dtype(), 0);
        let old = past.map_or(zero, |past| p.load(past, &[at[0].clone(), at[1].clone(), t.clone()]));
        number(t).below(number(&kept)).select(&old, &new)
    };
    let (wide, dtype) = (DType::F32, p.dtype(x));
    let y = p.reduction(shape.clone(), vec![kernel], Combine::Sum, |p, at, k| {
        let tap = p.load(w, &[at[1].clone(), Idx::from(0i64), k[0].clone()]);
        tap.cast(wide) * padded(p, at, &(&at[2] + &k[0])).cast(wide)
    });
    let state = vec![shape[0].clone(), shape[1].clone(), kept.clone()];
    let at = vars(0, &state);
    let last = padded(p, &at, &(&at[2] + &shape[2]));
    let state = p.map(state, last);
    let y = add_bias(cx, y, 2)?[0];
    let y = match activation.as_str() {
        "none" => cx.program.cast(y, dtype),
        "silu" | "swish" => cx.program.unary(y, |e| (e * sigmoid(e)).cast(dtype)),
        other => return Err(cx.error(format!("activation wants none, silu or swish, got {other:?}"))),
    };
    Ok(vec![y, state])
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, count, f32s, list, refusal};
    use crate::graph::Attribute::{Int, String};

    #[test]
    fn three_by_three_with_and_without_padding() {
        // The example of Conv in ONNX's operator documentation.
        let (x, w) = (count(&[1, 1, 5, 5]), f32s(&[1, 1, 3, 3], &[1.0; 9]));
        let padded = [
            12.0, 21.0, 27.0, 33.0, 24.0, 33.0, 54.0, 63.0, 72.0, 51.0, 63.0, 99.0, 108.0, 117.0, 81.0, 93.0,
            144.0, 153.0, 162.0, 111.0, 72.0, 111.0, 117.0, 123.0, 84.0,
        ];
        let inputs = [x, w];
        check("Conv", 11, &[("pads", list(&[1; 4]))], &inputs, &f32s(&[1, 1, 5, 5], &padded));
        check(
            "Conv",
            11,
            &[("auto_pad", String("SAME_LOWER".into()))],
            &inputs,
            &f32s(&[1, 1, 5, 5], &padded),
        );
        let valid = [54.0, 63.0, 72.0, 99.0, 108.0, 117.0, 144.0, 153.0, 162.0];
        check("Conv", 11, &[], &inputs, &f32s(&[1, 1, 3, 3], &valid));
        let strided = [12.0, 27.0, 24.0, 63.0, 108.0, 81.0, 72.0, 117.0, 84.0];
        let attributes = [("pads", list(&[1; 4])), ("strides", list(&[2, 2]))];
        check("Conv", 11, &attributes, &inputs, &f32s(&[1, 1, 3, 3], &strided));
    }

    #[test]
    fn groups_dilation_and_bias() {
        let (x, w) = (count(&[1, 2, 4]), f32s(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0]));
        let attributes = [("group", Int(2)), ("dilations", list(&[2]))];
        let want = f32s(&[1, 2, 2], &[14.0, 17.0, 26.0, 33.0]);
        check("Conv", 11, &attributes, &[x, w, f32s(&[2], &[10.0, -10.0])], &want);
    }

    #[test]
    fn a_group_that_does_not_divide_is_refused() {
        let error = refusal("Conv", 11, &[("group", Int(2))], &[count(&[1, 3, 4]), count(&[2, 1, 2])]);
        assert_eq!(error, "Conv \"node\": group=2 must divide 3 input and 2 output channels");
    }

    #[test]
    fn transposed_with_stride_and_padding() {
        let (x, w) = (f32s(&[1, 1, 3], &[1.0, 2.0, 3.0]), f32s(&[1, 1, 3], &[1.0, 10.0, 100.0]));
        let inputs = [x, w];
        check("ConvTranspose", 11, &[], &inputs, &f32s(&[1, 1, 5], &[1.0, 12.0, 123.0, 230.0, 300.0]));
        let want = [1.0, 10.0, 102.0, 20.0, 203.0, 30.0, 300.0];
        check("ConvTranspose", 11, &[("strides", list(&[2]))], &inputs, &f32s(&[1, 1, 7], &want));
        let attributes = [("strides", list(&[2])), ("pads", list(&[1, 2]))];
        check("ConvTranspose", 11, &attributes, &inputs, &f32s(&[1, 1, 4], &want[1..5]));
    }
}
