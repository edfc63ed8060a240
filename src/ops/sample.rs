//! Sampling an image where a grid says, and the grid of an affine map.

use super::math::{Lowering, op};
use super::reduce::float_for;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, Unary, vars};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op(
        "GridSample",
        16,
        "x at the positions of a grid, nearest or interpolated linearly or by cubics",
        grid_sample,
    ),
    op("AffineGrid", 20, "the grid whose positions are theta times those of an even grid", affine_grid),
];

/// How positions outside are read.
#[derive(Clone, Copy, PartialEq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// One spatial axis.
struct Axis {
    len: Idx,
    padding: Padding,
    align: bool,
    /// What positions and weights are computed in.
    dtype: DType,
}

/// A tap: its weight, where it is, and whether that is inside.
struct Tap {
    weight: Expr,
    at: Idx,
    inside: Expr,
}

impl Axis {
    fn number(&self, less: f64) -> Expr {
        Expr::index(self.len.clone(), DType::I64).cast(self.dtype) - less
    }

    /// The ends of the range that reflection mirrors at.
    fn ends(&self) -> (Expr, Expr) {
        let low = if self.align { 0.0 } else { -0.5 };
        (Expr::float(self.dtype, low), self.number(if self.align { 1.0 } else { 0.5 }))
    }

    /// `x` from -1..1 to positions.
    fn position(&self, x: &Expr) -> Expr {
        if self.align {
            (x + 1.0) * 0.5 * self.number(1.0)
        } else {
            ((x + 1.0) * self.number(0.0) - 1.0) * 0.5
        }
    }

    /// `x` mirrored at the ends until it is between them.
    fn reflected(&self, x: &Expr) -> Expr {
        let (low, high) = self.ends();
        let range = (&high - &low).larger(1e-6);
        let below = x.below(&low);
        let past = below.select(&(&low - x), &(x - &high));
        let turns = (&past / &range).unary(Unary::Trunc);
        let rest = &past - &turns * &range;
        let even = (&turns - (&turns * 0.5).unary(Unary::Trunc) * 2.0).equals(0.0);
        let from_low = &low + &rest;
        let from_high = &high - &rest;
        let mirrored = below.select(&even.select(&from_low, &from_high), &even.select(&from_high, &from_low));
        self.outside(x).select(&mirrored, x)
    }

    fn outside(&self, x: &Expr) -> Expr {
        let (low, high) = self.ends();
        x.below(&low).or(high.below(x))
    }

    /// `x` moved inside as the padding wants it.
    fn padded(&self, x: &Expr) -> Expr {
        match self.padding {
            Padding::Zeros => x.clone(),
            Padding::Border => self.outside(x).select(&x.larger(0.0).smaller(self.number(1.0)), x),
            Padding::Reflection => self.reflected(x),
        }
    }

    /// The tap at the whole number `x`.
    fn tap(&self, x: &Expr, weight: Expr) -> Tap {
        let last = self.number(1.0);
        let inside = match self.padding {
            Padding::Zeros => Expr::float(self.dtype, 0.0).at_most(x).and(x.at_most(&last)),
            Padding::Border | Padding::Reflection => Expr::bool(true),
        };
        let x = if self.padding == Padding::Reflection { self.reflected(x) } else { x.clone() };
        let at = x.larger(0.0).smaller(last).cast(DType::I32).to_position(&self.len);
        Tap { weight, at, inside }
    }

    fn taps(&self, x: &Expr, mode: &str) -> Option<Vec<Tap>> {
        let one = Expr::float(self.dtype, 1.0);
        if mode == "nearest" {
            return Some(vec![self.tap(&self.padded(&x.rounded()), one)]);
        }
        let x = self.padded(x);
        let base = x.unary(Unary::Floor);
        let f = &x - &base;
        let (first, weights) = match mode {
            "linear" | "bilinear" => (0.0, vec![&one - &f, f]),
            "cubic" | "bicubic" => (-1.0, cubic(&f)),
            _ => return None,
        };
        let tap = |(i, weight)| self.tap(&(&base + (first + i as f64)), weight);
        Some(weights.into_iter().enumerate().map(tap).collect())
    }
}

/// The weights of four taps for the fraction `f`, by cubic convolution with a = -3/4.
fn cubic(f: &Expr) -> Vec<Expr> {
    const A: f64 = -0.75;
    let inner = |x: &Expr| ((x * (A + 2.0)) - (A + 3.0)) * x * x + 1.0;
    let outer = |x: &Expr| ((x * A - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let rest = Expr::float(f.dtype(), 1.0) - f;
    vec![outer(&(f + 1.0)), inner(f), inner(&rest), outer(&(&rest + 1.0))]
}

fn grid_sample(cx: &mut Cx) -> Lowering {
    let (x, grid) = (cx.input(0)?, cx.input(1)?);
    let (shape, grid_shape) = (cx.program.shape(x).to_vec(), cx.program.shape(grid).to_vec());
    let count = shape.len().saturating_sub(2);
    if count == 0 || grid_shape.len() != shape.len() {
        return Err(cx.error(format!("a grid of {} axes for a tensor of {}", grid_shape.len(), shape.len())));
    }
    let coordinates = grid_shape[count + 1].clone();
    cx.program.equate(&coordinates, &Idx::from(count), "coordinates of the grid and spatial axes")?;
    let padding = match cx.string_or("padding_mode", "zeros")?.as_str() {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        other => return Err(cx.error(format!("padding_mode {other:?} is not known"))),
    };
    let mode = cx.string_or("mode", "linear")?;
    let align = cx.int_or("align_corners", 0)? != 0;
    let out = [&shape[..2], &grid_shape[1..=count]].concat();
    let at = vars(0, &out);
    let dtype = cx.program.dtype(x);
    let wide = float_for(if dtype == DType::F64 { dtype } else { cx.program.dtype(grid) });
    let mut taps = Vec::new();
    for axis in 0..count {
        // The grid names the last axis first.
        let place = [&at[..1], &at[2..], &[Idx::from(count - 1 - axis)]].concat();
        let coordinate = cx.program.load(grid, &place).cast(wide);
        let axis = Axis { len: shape[axis + 2].clone(), padding, align, dtype: wide };
        let found = axis.taps(&axis.position(&coordinate), &mode);
        taps.push(found.ok_or_else(|| cx.unsupported(format!("mode {mode:?}")))?);
    }
    let zero = Expr::float(wide, 0.0);
    let mut sum: Option<Expr> = None;
    for number in 0..taps.iter().map(Vec::len).product() {
        let (mut rest, mut source) = (number, at[..2].to_vec());
        let (mut weight, mut inside): (Option<Expr>, _) = (None, Expr::bool(true));
        for axis in &taps {
            let tap = &axis[rest % axis.len()];
            rest /= axis.len();
            source.push(tap.at.clone());
            inside = inside.and(&tap.inside);
            weight = Some(weight.map_or(tap.weight.clone(), |w| w * &tap.weight));
        }
        let element = inside.select(&cx.program.load(x, &source).cast(wide), &zero);
        let term = weight.map_or(element.clone(), |w| element * w);
        sum = Some(sum.map_or(term.clone(), |sum| sum + term));
    }
    let body = sum.unwrap_or(zero).cast(dtype);
    Ok(vec![cx.program.map(out, body)])
}

fn affine_grid(cx: &mut Cx) -> Lowering {
    let theta = cx.input(0)?;
    let size = cx.program.sizes(cx.input(1)?)?;
    let align = cx.int_or("align_corners", 0)? != 0;
    if !(4..=5).contains(&size.len()) {
        return Err(cx.error(format!("size wants 4 or 5 numbers, got {}", size.len())));
    }
    let count = size.len() - 2;
    let shape = [&size[..1], &size[2..], &[Idx::from(count)]].concat();
    let at = vars(0, &shape);
    let dtype = cx.program.dtype(theta);
    let coordinate = |axis: usize| {
        let i = Expr::index(at[axis + 1].clone(), DType::I64).cast(dtype);
        let len = Expr::index(size[axis + 2].clone(), DType::I64).cast(dtype);
        if align { i * 2.0 / (len - 1.0).larger(1.0) - 1.0 } else { (i * 2.0 + 1.0) / len - 1.0 }
    };
    let row = |k: usize| cx.program.load(theta, &[at[0].clone(), at[count + 1].clone(), Idx::from(k)]);
    // Theta's columns are for the last axis first, and the last one is added as it is.
    let body = (0..count).fold(row(count), |sum, k| sum + row(k) * coordinate(count - 1 - k));
    Ok(vec![cx.program.map(shape, body)])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, f32s, int, ints, text};

    /// A row of 0, 1, 2, 3 at one position, given by its place between the outer edges.
    #[test]
    fn positions_and_paddings() {
        let x = count(&[1, 1, 1, 4]);
        for (mode, padding, align, at, want) in [
            ("linear", "zeros", 0, 0.0, 1.5),
            ("linear", "zeros", 1, 1.0, 3.0),
            ("linear", "zeros", 0, 1.0, 1.5),
            ("linear", "border", 0, 1.0, 3.0),
            ("nearest", "border", 0, -3.0, 0.0),
            ("nearest", "reflection", 0, 1.5, 3.0),
            ("linear", "reflection", 1, -2.0, 1.5),
            ("cubic", "border", 1, -1.0, 0.0),
        ] {
            let grid = f32s(&[1, 1, 1, 2], &[at, 0.0]);
            let attributes =
                [("mode", text(mode)), ("padding_mode", text(padding)), ("align_corners", int(align))];
            Case::new("GridSample", &attributes, [x.clone(), grid])
                .gives_about([f32s(&[1, 1, 1, 1], &[want])]);
        }
    }

    #[test]
    fn an_identity_is_an_even_grid() {
        let theta = f32s(&[1, 2, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let want = f32s(&[1, 1, 2, 2], &[-0.5, 0.0, 0.5, 0.0]);
        Case::new("AffineGrid", &[], [theta, ints(&[1, 1, 1, 2])]).gives_if_sizes_are_known([want]);
    }
}
