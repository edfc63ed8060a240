//! Sliding windows, shared by convolutions and pools: for every spatial axis, where tap `k` of output `o`
//! reads, `o * stride + k * dilation - pad`, and whether that is inside.

use super::Cx;
use crate::expr::{Expr, Idx};
use crate::ir::Stop;
use crate::tensor::DType;

/// The windows of one spatial axis.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Size of the input.
    pub input: Idx,
    /// Number of windows.
    pub output: Idx,
    /// Number of taps.
    pub kernel: Idx,
    /// Distance between windows.
    pub stride: i64,
    /// Distance between taps.
    pub dilation: i64,
    /// Padding before the input.
    pub before: Idx,
    /// Padding after it.
    pub after: Idx,
    /// Whether windows may reach past the padding.
    pub overrun: bool,
}

impl Window {
    /// The position that tap `k` of window `o` reads, which may be outside.
    pub fn position(&self, o: &Idx, k: &Idx) -> Idx {
        let scaled = |i: &Idx, by: i64| i * &Idx::from(by);
        &(&scaled(o, self.stride) + &scaled(k, self.dilation)) - &self.before
    }

    /// Whether `position` is inside the input.
    pub fn inside(&self, position: &Idx) -> Expr {
        let low = if self.before.is(0) { Expr::bool(true) } else { at_least_zero(position) };
        low.and(self.not_past(position, &self.input, self.after.is(0)))
    }

    /// Whether `position` is inside the input or its padding.
    pub fn inside_padded(&self, position: &Idx) -> Expr {
        self.not_past(position, &(&self.input + &self.after), true)
    }

    /// Whether `position` is below `end`, which it is anyway where windows do not overrun and `certain`.
    fn not_past(&self, position: &Idx, end: &Idx, certain: bool) -> Expr {
        if certain && !self.overrun {
            return Expr::bool(true);
        }
        Expr::index(position.clone(), DType::I64).below(Expr::index(end.clone(), DType::I64))
    }

    /// The size that the taps span.
    fn span(kernel: &Idx, dilation: i64) -> Idx {
        &(&(kernel - &Idx::from(1i64)) * &Idx::from(dilation)) + &Idx::from(1i64)
    }
}

fn at_least_zero(position: &Idx) -> Expr {
    Expr::int(DType::I64, 0).at_most(Expr::index(position.clone(), DType::I64))
}

/// Positions of all taps, and whether all are inside.
pub(super) fn taps(windows: &[Window], o: &[Idx], k: &[Idx]) -> (Vec<Idx>, Expr) {
    let at: Vec<Idx> = windows.iter().zip(o).zip(k).map(|((w, o), k)| w.position(o, k)).collect();
    let inside = windows.iter().zip(&at).fold(Expr::bool(true), |all, (w, i)| all.and(w.inside(i)));
    (at, inside)
}

/// Window sizes, strides, dilations and pads: of 31 bits, so that no sum of them leaves 64.
const MOST: i64 = i32::MAX as i64;

/// One integer per spatial axis from an attribute; 1 each where it is missing.
pub(super) fn per_axis(cx: &Cx, name: &str, count: usize) -> Result<Vec<i64>, Stop> {
    let values = cx.ints(name)?.unwrap_or_else(|| vec![1; count]);
    if values.len() != count || values.iter().any(|v| !(1..=MOST).contains(v)) {
        return Err(
            cx.error(format!("attribute {name:?} wants {count} integers from 1 to {MOST}, got {values:?}"))
        );
    }
    Ok(values)
}

/// The size of a pool's windows along every spatial axis.
pub(super) fn kernel_shape(cx: &Cx, count: usize) -> Result<Vec<i64>, Stop> {
    if cx.ints("kernel_shape")?.is_none() {
        return Err(cx.error("attribute \"kernel_shape\" is missing"));
    }
    per_axis(cx, "kernel_shape", count)
}

/// The pads before and after every spatial axis from attribute `pads`; 0 where it is missing.
pub(super) fn pads(cx: &Cx, count: usize) -> Result<Vec<(i64, i64)>, Stop> {
    let pads = cx.ints("pads")?.unwrap_or_else(|| vec![0; 2 * count]);
    if pads.len() != 2 * count || pads.iter().any(|v| !(0..=MOST).contains(v)) {
        return Err(
            cx.error(format!("attribute \"pads\" wants {} sizes from 0 to {MOST}, got {pads:?}", 2 * count))
        );
    }
    Ok(pads[..count].iter().copied().zip(pads[count..].iter().copied()).collect())
}

/// The windows over axes of sizes `input`, from the node's attributes.
pub(super) fn windows(cx: &Cx, input: &[Idx], kernel: &[Idx]) -> Result<Vec<Window>, Stop> {
    let count = input.len();
    if kernel.len() != count {
        return Err(cx.error(format!("a kernel of {} axes over {count} spatial axes", kernel.len())));
    }
    let (strides, dilations) = (per_axis(cx, "strides", count)?, per_axis(cx, "dilations", count)?);
    let (pads, auto) = (pads(cx, count)?, cx.string_or("auto_pad", "NOTSET")?);
    let ceil = cx.int_or("ceil_mode", 0)? != 0;
    let (zero, one) = (Idx::from(0i64), Idx::from(1i64));
    let window = |axis: usize| {
        let (input, kernel) = (input[axis].clone(), kernel[axis].clone());
        let (stride, dilation) = (strides[axis], dilations[axis]);
        let span = Window::span(&kernel, dilation);
        let step = Idx::from(stride);
        let mut window = Window {
            input,
            output: zero.clone(),
            kernel,
            stride,
            dilation,
            before: zero.clone(),
            after: zero.clone(),
            overrun: false,
        };
        match auto.as_str() {
            "SAME_UPPER" | "SAME_LOWER" => {
                window.output = window.input.div_ceil(&step);
                let covered = &(&(&window.output - &one) * &step) + &span;
                let total = (&covered - &window.input).larger(&zero);
                let less = total.div(&Idx::from(2i64));
                let more = &total - &less;
                (window.before, window.after) =
                    if auto == "SAME_UPPER" { (less, more) } else { (more, less) };
                return Ok(window);
            }
            "VALID" => {}
            "NOTSET" | "" => (window.before, window.after) = (pads[axis].0.into(), pads[axis].1.into()),
            other => return Err(cx.error(format!("auto_pad {other:?} is not known"))),
        }
        let padded = &(&window.input + &window.before) + &window.after;
        if padded.as_const().zip(span.as_const()).is_some_and(|(have, want)| have < want) {
            return Err(
                cx.error(format!("a window of {span} does not fit an axis of {padded} with its padding"))
            );
        }
        let free = &padded - &span;
        window.output = if ceil && stride > 1 {
            // No window starts past the input and the padding before it.
            let starts = (&(&window.input + &window.before) - &one).div(&step);
            window.overrun = !free.rem(&step).is(0);
            &free.div_ceil(&step).smaller(&starts) + &one
        } else {
            &free.div(&step) + &one
        };
        Ok(window)
    };
    (0..count).map(window).collect()
}
