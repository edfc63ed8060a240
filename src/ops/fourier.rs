//! Discrete Fourier transforms, as products with a matrix of cosines and sines: `n^2` steps for `n` numbers.

use super::math::{Lowering, op};
use super::reduce::floats;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx};
use crate::ir::{Axes, Program, Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("DFT", 17, "the discrete Fourier transform along an axis, or its inverse", dft),
    op("STFT", 17, "the Fourier transforms of the windows of a signal", stft),
    op("MelWeightMatrix", 17, "the triangular weights of mel bins over the bins of a spectrum", mel),
];

/// Elements that the table of a transform has at most.
const MOST_IN_TABLE: usize = 1 << 24;

/// The cosines and sines of one turn in `n` steps.
struct Circle {
    cos: ValueId,
    sin: ValueId,
    n: Idx,
}

impl Circle {
    /// # Errors
    /// [`Stop::NeedsShapes`]: in float32, the device would make the angles of a table of unknown length too coarse.
    fn new(p: &mut Program, n: &Idx, dtype: DType) -> Result<Circle, Stop> {
        let len = p.known_size(n)?;
        if len > MOST_IN_TABLE {
            return Err(p.error(format!("wants a transform of at most {MOST_IN_TABLE} numbers, got {len}")));
        }
        let mut table = |f: fn(f64) -> f64| -> Result<ValueId, Stop> {
            let angle = |i: usize| std::f64::consts::TAU * i as f64 / len as f64;
            let values: Vec<f64> = (0..len).map(|i| f(angle(i))).collect();
            Ok(p.weight(floats(&[len], &values, dtype)?))
        };
        Ok(Circle { cos: table(f64::cos)?, sin: table(f64::sin)?, n: n.clone() })
    }

    /// What part `from` (0 real, 1 imaginary) of number `i` adds to part `to` of `e^(-+2 pi j i k / n)` times it.
    fn factor(&self, p: &Program, i: &Idx, k: &Idx, from: &Idx, to: &Idx, inverse: bool) -> Expr {
        let at = [(i * k).rem(&self.n)];
        let (cos, sin) = (p.load(self.cos, &at), p.load(self.sin, &at));
        let part = |x: &Idx| Expr::index(x.clone(), DType::I32);
        let (forward, backward) = (sin.negated(), sin);
        let (plus, minus) = if inverse { (backward, forward) } else { (forward, backward) };
        // (a + bj)(cos + sj) = (a cos - b s) + (a s + b cos)j
        let crossed = part(to).equals(Expr::int(DType::I32, 1)).select(&plus, &minus);
        part(from).equals(part(to)).select(&cos, &crossed)
    }
}

/// `n / 2 + 1`.
fn half(n: &Idx) -> Idx {
    &n.div(&Idx::from(2i64)) + &Idx::from(1i64)
}

fn dft(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    let (inverse, onesided) = (cx.int_or("inverse", 0)? != 0, cx.int_or("onesided", 0)? != 0);
    let axis = match cx.optional(2) {
        Some(axis) => cx.program.integers(axis)?.first().copied().unwrap_or(-2),
        None if cx.opset >= 20 => -2,
        None => cx.int_or("axis", 1)?,
    };
    let axis = cx.axis(axis, shape.len())?;
    let last = shape.len() - 1;
    if axis == last {
        return Err(cx.error("the last axis is that of real and imaginary parts"));
    }
    let mirrored = inverse && onesided;
    let n = match cx.optional(1) {
        Some(len) => {
            cx.program.sizes(len)?.first().cloned().ok_or_else(|| cx.error("dft_length is empty"))?
        }
        // A half spectrum of m numbers is that of 2 (m - 1).
        None if mirrored => &(&shape[axis] - &Idx::from(1i64)) * &Idx::from(2i64),
        None => shape[axis].clone(),
    };
    let p = &mut *cx.program;
    let (x, dtype) = super::reduce::to_float(p, x);
    let circle = Circle::new(p, &n, p.dtype(x))?;
    let others: Vec<usize> = (0..last).filter(|&a| a != axis).collect();
    let read = if mirrored { half(&n) } else { n.clone() };
    let frequencies = if onesided && !inverse { half(&n) } else { n.clone() };
    let extents = Axes {
        m: others.iter().map(|&a| shape[a].clone()).collect(),
        n: vec![frequencies, Idx::from(if mirrored { 1i64 } else { 2 })],
        k: vec![shape[axis].smaller(&read), shape[last].clone()],
        ..Axes::default()
    };
    let y = p.contract(extents, |p, at| {
        let mut source = vec![Idx::from(0i64); shape.len()];
        others.iter().zip(&at.m).for_each(|(&a, i)| source[a] = i.clone());
        (source[axis], source[last]) = (at.k[0].clone(), at.k[1].clone());
        let mut factor = circle.factor(p, &at.k[0], &at.n[0], &at.k[1], &at.n[1], inverse);
        if mirrored {
            // The other half of the spectrum is this one's conjugate: all but its ends count twice.
            let number = |i: &Idx| Expr::index(i.clone(), DType::I64);
            let twice = &at.k[0] * &Idx::from(2i64);
            let end = number(&at.k[0]).equals(Expr::int(DType::I64, 0)).or(number(&twice).equals(number(&n)));
            factor =
                &factor * end.select(&Expr::float(factor.dtype(), 1.0), &Expr::float(factor.dtype(), 2.0));
        }
        (p.load(x, &source), factor)
    });
    let y = if inverse { p.unary(y, |e| e / Expr::index(n.clone(), DType::I64).cast(e.dtype())) } else { y };
    // The transformed axis goes back from behind the others to its place.
    let mut order: Vec<usize> = (0..others.len()).collect();
    order.insert(axis, others.len());
    order.push(others.len() + 1);
    let y = p.transpose(y, &order);
    Ok(vec![p.cast(y, dtype)])
}

fn stft(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    let scalar = |cx: &Cx, i: usize| -> Result<Option<Idx>, Stop> {
        let Some(id) = cx.optional(i) else { return Ok(None) };
        Ok(cx.program.sizes(id)?.into_iter().next())
    };
    let step = scalar(cx, 1)?.ok_or_else(|| cx.error("frame_step wants a number"))?;
    if step.as_const().is_some_and(|step| step < 1) {
        return Err(cx.error(format!("frame_step wants to be at least 1, got {step}")));
    }
    let window = cx.optional(2);
    let n = match (scalar(cx, 3)?, window) {
        (Some(len), _) => len,
        (None, Some(window)) => cx.program.shape(window)[0].clone(),
        (None, None) => return Err(cx.error("neither a window nor a frame_length is given")),
    };
    let onesided = cx.int_or("onesided", 1)? != 0;
    let p = &mut *cx.program;
    let (x, dtype) = super::reduce::to_float(p, x);
    let circle = Circle::new(p, &n, p.dtype(x))?;
    let frames = &(&shape[1] - &n).div(&step) + &Idx::from(1i64);
    let parts = shape.get(2).cloned().unwrap_or_else(|| Idx::from(1i64));
    let extents = Axes {
        m: vec![shape[0].clone(), frames],
        n: vec![if onesided { half(&n) } else { n.clone() }, Idx::from(2i64)],
        k: vec![n, parts],
        ..Axes::default()
    };
    let y = p.contract(extents, |p, at| {
        let place = &(&at.m[1] * &step) + &at.k[0];
        let source = [at.m[0].clone(), place, at.k[1].clone()];
        let mut element = p.load(x, &source[..shape.len()]);
        if let Some(window) = window {
            element = &element * p.load(window, &at.k[..1]).cast(element.dtype());
        }
        let factor = circle.factor(p, &at.k[0], &at.n[0], &at.k[1], &at.n[1], false);
        (element, factor)
    });
    Ok(vec![p.cast(y, dtype)])
}

fn mel(cx: &mut Cx) -> Lowering {
    let number = |i: usize| -> Result<f64, Stop> {
        let all = cx.program.constants(cx.input(i)?)?;
        all.first().map(|v| v.to_f64()).ok_or_else(|| cx.error(format!("input {i} is empty")))
    };
    let (bins, len, rate) = (number(0)? as usize, number(1)? as usize, number(2)?);
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let (low, high) = (mel(number(3)?), mel(number(4)?));
    let step = (high - low) / (bins + 2) as f64;
    let edge = |i: usize| {
        let hertz = 700.0 * (10f64.powf((low + step * i as f64) / 2595.0) - 1.0);
        ((len + 1) as f64 * hertz / rate).floor()
    };
    let spectrum = len / 2 + 1;
    let count = spectrum.checked_mul(bins).filter(|&count| count <= MOST_IN_TABLE);
    let count = count.ok_or_else(|| {
        cx.error(format!(
            "wants at most {MOST_IN_TABLE} weights, got {bins} bins over {spectrum} frequencies"
        ))
    })?;
    let mut weights = vec![0f64; count];
    for bin in 0..bins {
        let (left, centre, right) = (edge(bin), edge(bin + 1), edge(bin + 2));
        for row in 0..spectrum {
            let j = row as f64;
            let weight = match () {
                _ if j == centre && centre == left && right <= centre => 1.0,
                _ if j >= centre && j < right => (right - j) / (right - centre),
                _ if j >= left && j <= centre && centre > left => (j - left) / (centre - left),
                _ if j == centre => 1.0,
                _ => 0.0,
            };
            weights[row * bins + bin] = weight;
        }
    }
    let dtype = cx.dtype_attribute("output_datatype")?.unwrap_or(DType::F32);
    let matrix = cx.program.weight(floats(&[spectrum, bins], &weights, dtype)?);
    Ok(vec![cx.program.cast(matrix, dtype)])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, f32s, int, t};

    #[test]
    fn four_numbers_and_back() {
        let x = f32s(&[1, 4, 1], &[1.0, 2.0, 4.0, 8.0]);
        let full = [15.0, 0.0, -3.0, 6.0, -5.0, 0.0, -3.0, -6.0];
        Case::new("DFT", &[], [x.clone()]).gives_about([f32s(&[1, 4, 2], &full)]);
        let half = f32s(&[1, 3, 2], &full[..6]);
        let one = ("onesided", int(1));
        Case::new("DFT", std::slice::from_ref(&one), [x.clone()]).gives_about([half.clone()]);
        Case::new("DFT", &[one, ("inverse", int(1))], [half]).gives_about([x]);
    }

    #[test]
    fn windows_of_a_signal() {
        let x = f32s(&[1, 4, 1], &[1.0, 2.0, 4.0, 8.0]);
        let inputs = [x, t(&[], &[2i64]), f32s(&[2], &[1.0, 0.5])];
        let want = f32s(&[1, 2, 2, 2], &[2.0, 0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0]);
        Case::new("STFT", &[], inputs).gives_if_sizes_are_known([want]);
    }
}
