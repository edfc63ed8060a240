//! Resizing by interpolation, one axis after another. The source positions and weights of each output
//! position are worked out when the graph is planned, and read from tables.

use super::math::{Lowering, op};
use super::reduce::{float_for, floats};
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, vars};
use crate::ir::{Combine, Def, Stop, ValueId};
use crate::tensor::Tensor;

/// The family.
pub const OPS: &[OpDef] = &[
    op(
        "Resize",
        10,
        "nearest, linear or cubic interpolation; planned for each size of a symbolic axis, but by whole factors, nearest",
        resize,
    ),
    op("Upsample", 1, "nearest or linear interpolation by constant factors", resize),
];

/// At most this many source positions are written out; more are a loop.
const UNROLLED_TAPS: usize = 4;

/// The attributes.
struct Style {
    mode: String,
    transform: String,
    nearest: String,
    cubic_a: f64,
    antialias: bool,
    exclude_outside: bool,
    extrapolation: f64,
}

/// One axis: its sizes, and where the output's ends lie in the input (of 1) when a region is cut out.
struct Axis {
    axis: usize,
    have: Idx,
    want: Idx,
    scale: f64,
    region: (f64, f64),
}

fn resize(cx: &mut Cx) -> Lowering {
    // Opset 10 and Upsample know one way only.
    let modern = cx.node.op == "Resize" && cx.opset >= 11;
    let text = |name: &str, modern_default: &str, old: &str| {
        if modern { cx.string_or(name, modern_default) } else { Ok(old.to_string()) }
    };
    let style = Style {
        mode: cx.string_or("mode", "nearest")?.replace("bilinear", "linear"),
        transform: text("coordinate_transformation_mode", "half_pixel", "asymmetric")?,
        nearest: text("nearest_mode", "round_prefer_floor", "floor")?,
        cubic_a: cx.float_or("cubic_coeff_a", -0.75)?,
        antialias: cx.int_or("antialias", 0)? != 0,
        exclude_outside: cx.int_or("exclude_outside", 0)? != 0,
        extrapolation: cx.float_or("extrapolation_value", 0.0)?,
    };
    let x = cx.input(0)?;
    let axes = targets(cx, x, modern, &style)?;
    let dtype = cx.program.dtype(x);
    let wide = float_for(dtype);
    let nearest = style.mode == "nearest";
    let mut y = if nearest { x } else { cx.program.cast(x, wide) };
    for axis in axes {
        let same = axis.have == axis.want && axis.scale == 1.0 && axis.region == (0.0, 1.0);
        if !same {
            y = if nearest {
                nearest_axis(cx, y, &axis, &style)?
            } else {
                weighted_axis(cx, y, &axis, &style)?
            };
        }
    }
    Ok(vec![if nearest { y } else { cx.program.cast(y, dtype) }])
}

/// The axes to resize, with sizes and scales.
fn targets(cx: &Cx, x: ValueId, modern: bool, style: &Style) -> Result<Vec<Axis>, Stop> {
    let shape = cx.program.shape(x).to_vec();
    let axes = match cx.ints("axes")? {
        None => (0..shape.len()).collect(),
        Some(axes) => axes.iter().map(|&axis| cx.axis(axis, shape.len())).collect::<Result<Vec<_>, _>>()?,
    };
    let given = |i: usize| cx.optional(i).filter(|&id| !cx.program.shape(id).iter().any(|d| d.is(0)));
    let numbers = |id: ValueId| -> Result<Vec<f64>, Stop> {
        Ok(cx.program.constants(id)?.into_iter().map(|v| v.to_f64()).collect())
    };
    let region = match given(1) {
        Some(region) if modern && style.transform == "tf_crop_and_resize" => numbers(region)?,
        _ => axes.iter().map(|_| 0.0).chain(axes.iter().map(|_| 1.0)).collect(),
    };
    let mut scales = match (given(if modern { 2 } else { 1 }), cx.floats("scales")?) {
        (Some(id), _) => numbers(id)?,
        (None, Some(scales)) => scales.into_iter().map(f64::from).collect(),
        // Of images, before opset 7.
        (None, None) if cx.opset < 7 => {
            vec![1.0, 1.0, cx.float_or("height_scale", 1.0)?, cx.float_or("width_scale", 1.0)?]
        }
        (None, None) => vec![],
    };
    let have: Vec<Idx> = axes.iter().map(|&axis| shape[axis].clone()).collect();
    let mut want = vec![];
    if let Some(sizes) = given(3).filter(|_| scales.is_empty()) {
        want = cx.program.sizes(sizes)?;
        scales = have.iter().zip(&want).map(|(have, want)| ratio(have, want)).collect::<Result<_, _>>()?;
        let shared = match cx.string_or("keep_aspect_ratio_policy", "stretch")?.as_str() {
            "stretch" => None,
            "not_larger" => scales.iter().copied().reduce(f64::min),
            "not_smaller" => scales.iter().copied().reduce(f64::max),
            other => return Err(cx.error(format!("keep_aspect_ratio_policy {other:?} is unknown"))),
        };
        if let Some(scale) = shared {
            scales.fill(scale);
            let rounded = have.iter().map(|have| scaled(have, scale, 0.5));
            want = rounded.collect::<Result<_, _>>()?;
        }
    } else if scales.len() == axes.len() {
        let floored = have.iter().zip(&scales).map(|(have, &scale)| scaled(have, scale, 0.0));
        want = floored.collect::<Result<_, _>>()?;
    }
    if [want.len(), scales.len(), region.len() / 2] != [axes.len(); 3] {
        return Err(cx.error(format!("wants a scale or a size for each of {} axes", axes.len())));
    }
    let parts = axes.into_iter().zip(have).zip(want).zip(scales).enumerate();
    let axis = |(i, (((axis, have), want), scale))| {
        let region = (region[i], region[region.len() / 2 + i]);
        Axis { axis, have, want, scale, region }
    };
    Ok(parts.map(axis).collect())
}

/// `want / have`, where it is a constant.
fn ratio(have: &Idx, want: &Idx) -> Result<f64, Stop> {
    match (have.as_const(), want.as_const(), want.div(have).as_const()) {
        (Some(have), Some(want), _) => Ok(want as f64 / have as f64),
        (_, _, Some(factor)) if have * &Idx::from(factor) == *want => Ok(factor as f64),
        _ => Err(Stop::NeedsShapes),
    }
}

/// `have * scale + bias`, rounded down.
fn scaled(have: &Idx, scale: f64, bias: f64) -> Result<Idx, Stop> {
    match have.as_const() {
        Some(have) => Ok(Idx::from((have as f64 * scale + bias).floor() as i64)),
        None if scale == scale.trunc() => Ok(have * &Idx::from(scale as i64)),
        None => Err(Stop::NeedsShapes),
    }
}

impl Axis {
    /// Where output position `i` lies in the input, for every `i`.
    fn positions(&self, cx: &Cx, style: &Style) -> Result<(i64, Vec<f64>), Stop> {
        let (Some(have), Some(want)) = (self.have.as_const(), self.want.as_const()) else {
            return Err(Stop::NeedsShapes);
        };
        let (last, exact) = (have as f64 - 1.0, have as f64 * self.scale);
        let (start, end) = self.region;
        let at = |i: f64| match style.transform.as_str() {
            "half_pixel" => Some((i + 0.5) / self.scale - 0.5),
            "half_pixel_symmetric" => {
                let offset = have as f64 / 2.0 * (1.0 - want as f64 / exact);
                Some(offset + (i + 0.5) / self.scale - 0.5)
            }
            "pytorch_half_pixel" if exact == 1.0 => Some(-0.5),
            "pytorch_half_pixel" => Some((i + 0.5) / self.scale - 0.5),
            "align_corners" if exact == 1.0 => Some(0.0),
            "align_corners" => Some(i * last / (exact - 1.0)),
            "asymmetric" => Some(i / self.scale),
            "tf_crop_and_resize" if exact == 1.0 => Some((start + end) * last / 2.0),
            "tf_crop_and_resize" => Some(start * last + i * (end - start) * last / (exact - 1.0)),
            _ => None,
        };
        let all: Option<Vec<f64>> = (0..want).map(|i| at(i as f64)).collect();
        let all =
            all.ok_or_else(|| cx.error(format!("coordinate_transformation_mode {:?}", style.transform)))?;
        Ok((have, all))
    }

    /// Whether output position `i` takes input position `i / scale`, rounded down.
    fn repeats(&self, style: &Style) -> bool {
        let whole = self.scale >= 1.0 && self.scale == self.scale.trunc();
        let floors = match style.transform.as_str() {
            "asymmetric" => style.nearest == "floor",
            "half_pixel" | "half_pixel_symmetric" => style.nearest.starts_with("round"),
            _ => false,
        };
        whole && floors && self.want == &self.have * &Idx::from(self.scale as i64)
    }
}

fn nearest_axis(cx: &mut Cx, x: ValueId, axis: &Axis, style: &Style) -> Result<ValueId, Stop> {
    let mut shape = cx.program.shape(x).to_vec();
    shape[axis.axis] = axis.want.clone();
    if axis.repeats(style) {
        return Ok(cx.program.view(x, shape, |i| {
            let mut at = i.to_vec();
            at[axis.axis] = at[axis.axis].div(&Idx::from(axis.scale as i64));
            at
        }));
    }
    let round: fn(f64) -> f64 = match style.nearest.as_str() {
        "round_prefer_floor" => |at| (at - 0.5).ceil(),
        "round_prefer_ceil" => |at| (at + 0.5).floor(),
        "floor" => f64::floor,
        "ceil" => f64::ceil,
        other => return Err(cx.error(format!("nearest_mode {other:?} is unknown"))),
    };
    let (have, positions) = axis.positions(cx, style)?;
    let table: Vec<i32> = positions.iter().map(|&at| (round(at) as i64).clamp(0, have - 1) as i32).collect();
    let table = cx.program.weight(Tensor::from_slice(&[table.len()], &table)?);
    let mut at = vars(0, &shape);
    at[axis.axis] = cx.program.load(table, &at[axis.axis..=axis.axis]).to_position(&axis.have);
    let body = cx.program.load(x, &at);
    let y = cx.program.map(shape, body);
    outside(cx, y, axis, have, &positions, style)
}

/// The taps of every output position: how many, their input positions, their weights.
fn taps(axis: &Axis, have: i64, positions: &[f64], style: &Style) -> (usize, Vec<i32>, Vec<f64>) {
    // An antialiased kernel is as wide as the output's steps are in the input.
    let squeeze = if style.antialias { axis.scale.min(1.0) } else { 1.0 };
    let a = style.cubic_a;
    let linear = style.mode == "linear";
    let kernel = |t: f64| match t.abs() {
        t if linear => (1.0 - t).max(0.0),
        t if t <= 1.0 => ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
        t if t < 2.0 => ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a,
        _ => 0.0,
    };
    let radius = if linear { 1.0 } else { 2.0 } / squeeze;
    let count = (2.0 * radius).ceil() as usize;
    let (mut sources, mut weights) = (Vec::new(), Vec::new());
    for &at in positions {
        let first = (at - radius).floor() as i64 + 1;
        let row = weights.len();
        for source in first..first + count as i64 {
            let excluded = style.exclude_outside && !(0..have).contains(&source);
            weights.push(if excluded { 0.0 } else { kernel((source as f64 - at) * squeeze) });
            sources.push(source.clamp(0, have - 1) as i32);
        }
        let sum: f64 = weights[row..].iter().sum();
        weights[row..].iter_mut().for_each(|w| *w /= if sum == 0.0 { 1.0 } else { sum });
    }
    (count, sources, weights)
}

fn weighted_axis(cx: &mut Cx, x: ValueId, axis: &Axis, style: &Style) -> Result<ValueId, Stop> {
    if !["linear", "cubic"].contains(&style.mode.as_str()) {
        return Err(cx.error(format!("mode {:?} is none of nearest, linear, cubic", style.mode)));
    }
    let dtype = cx.program.dtype(x);
    let (have, positions) = axis.positions(cx, style)?;
    let (count, sources, weights) = taps(axis, have, &positions, style);
    let rows = [positions.len(), count];
    let sources = cx.program.weight(Tensor::from_slice(&rows, &sources)?);
    let weights = cx.program.weight(floats(&rows, &weights, dtype)?);
    let mut shape = cx.program.shape(x).to_vec();
    shape[axis.axis] = axis.want.clone();
    let i = vars(0, &shape);
    let term = |cx: &Cx, tap: Idx| {
        let row = [i[axis.axis].clone(), tap];
        let mut at = i.clone();
        at[axis.axis] = cx.program.load(sources, &row).to_position(&axis.have);
        cx.program.load(x, &at).binary(Binary::Mul, &cx.program.load(weights, &row))
    };
    let y = if count <= UNROLLED_TAPS {
        let terms: Vec<Expr> = (0..count).map(|tap| term(cx, Idx::from(tap))).collect();
        let sum = terms.into_iter().reduce(|sum, term| sum.binary(Binary::Add, &term));
        cx.program.map(shape, sum.unwrap_or_else(|| Expr::int(dtype, 0)))
    } else {
        let extents = vec![Idx::from(count)];
        let body = term(cx, Idx::var(shape.len() as u32, &extents[0]));
        cx.program.add(dtype, shape, Def::Reduce { extents, combine: Combine::Sum, body })
    };
    outside(cx, y, axis, have, &positions, style)
}

/// `y` with the extrapolation value where a cut-out region reaches beyond the input.
fn outside(
    cx: &mut Cx,
    y: ValueId,
    axis: &Axis,
    have: i64,
    at: &[f64],
    style: &Style,
) -> Result<ValueId, Stop> {
    let beyond: Vec<bool> = at.iter().map(|&at| at < 0.0 || at > have as f64 - 1.0).collect();
    if style.transform != "tf_crop_and_resize" || !beyond.contains(&true) {
        return Ok(y);
    }
    let mask = cx.program.weight(Tensor::from_slice(&[beyond.len()], &beyond)?);
    let shape = cx.program.shape(y).to_vec();
    let i = vars(0, &shape);
    let here = cx.program.load(y, &i);
    let masked = cx.program.load(mask, &i[axis.axis..=axis.axis]);
    let body = masked.select(&Expr::float(here.dtype(), style.extrapolation), &here);
    Ok(cx.program.map(shape, body))
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::case::{Case, count, ints, t, text};

    #[test]
    fn whole_factors_repeat_elements_of_any_axis() {
        let scales = Attribute::Floats(vec![1.0, 2.0]);
        let case = Case { opset: 7, ..Case::new("Upsample", &[("scales", scales)], [count(&[1, 2])]) };
        case.gives([t(&[1, 4], &[0f32, 0., 1., 1.])]);
    }

    #[test]
    fn of_images_by_two_factors() {
        let attributes = [
            ("mode", text("bilinear")),
            ("height_scale", Attribute::Float(1.0)),
            ("width_scale", Attribute::Float(2.0)),
        ];
        let case = Case { opset: 1, ..Case::new("Upsample", &attributes, [count(&[1, 1, 1, 2])]) };
        case.gives([t(&[1, 1, 1, 4], &[0f32, 0.5, 1., 1.])]);
    }

    #[test]
    fn to_given_sizes() {
        let none = t::<f32>(&[0], &[]);
        for (mode, transform, want) in [
            ("nearest", "half_pixel", [0f32, 0., 1., 1.]),
            ("linear", "half_pixel", [0., 0.25, 0.75, 1.]),
            ("linear", "asymmetric", [0., 0.5, 1., 1.]),
            ("nearest", "align_corners", [0., 0., 1., 1.]),
        ] {
            let attributes = [("mode", text(mode)), ("coordinate_transformation_mode", text(transform))];
            let inputs = [count(&[2]), none.clone(), none.clone(), ints(&[4])];
            Case::new("Resize", &attributes, &inputs).gives([t(&[4], &want)]);
        }
    }
}
