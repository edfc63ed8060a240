//! Joining tensors along an axis, and cutting them apart.

use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, vars};
use crate::ir::{Program, Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("Concat", 1, "inputs one after another along an axis", concat),
    op("Split", 1, "parts along an axis, of equal or given sizes", split),
    op("Slice", 1, "every step-th element of start..end along some axes; steps are constants", slice),
];

fn concat(cx: &mut Cx) -> Lowering {
    let mut parts = cx.all_inputs()?;
    let Some(&first) = parts.first() else { return Err(cx.error("wants at least one input")) };
    let rank = cx.program.rank(first);
    let axis = cx.axis(cx.int_or("axis", 1)?, rank)?;
    let shape = cx.program.shape(first).to_vec();
    for &part in &parts[1..] {
        let other = cx.program.shape(part).to_vec();
        if other.len() != rank || cx.program.dtype(part) != cx.program.dtype(first) {
            return Err(cx.error("inputs want one rank and dtype"));
        }
        for (i, (d, other)) in shape.iter().zip(&other).enumerate().filter(|(i, _)| *i != axis) {
            cx.program.equate(d, other, &format!("axis {i} of inputs that are joined"))?;
        }
    }
    parts.retain(|&part| !cx.program.shape(part)[axis].is(0));
    Ok(vec![if parts.is_empty() { first } else { join(cx.program, parts, axis) }])
}

/// Inputs that one kernel reads at the most: more are joined in groups first, since devices limit bindings.
const MOST_AT_ONCE: usize = 4;

/// At least one tensor, of one shape but for `axis`, one after another along it.
pub(super) fn join(p: &mut Program, mut parts: Vec<ValueId>, axis: usize) -> ValueId {
    while parts.len() > MOST_AT_ONCE {
        parts = parts.chunks(MOST_AT_ONCE).map(|some| join_few(p, some, axis)).collect();
    }
    join_few(p, &parts, axis)
}

fn join_few(p: &mut Program, parts: &[ValueId], axis: usize) -> ValueId {
    let mut shape = p.shape(parts[0]).to_vec();
    let sizes: Vec<Idx> = parts.iter().map(|&part| p.shape(part)[axis].clone()).collect();
    shape[axis] = sizes.iter().fold(Idx::from(0i64), |sum, d| &sum + d);
    let at = vars(0, &shape);
    let position = Expr::index(at[axis].clone(), DType::I64);
    let mut start = shape[axis].clone();
    let mut body: Option<Expr> = None;
    for (&part, size) in parts.iter().zip(&sizes).rev() {
        let end = Expr::index(start.clone(), DType::I64);
        start = &start - size;
        let mut inside = at.clone();
        inside[axis] = if size.is(1) { Idx::from(0i64) } else { &at[axis] - &start };
        let here = p.load(part, &inside);
        body = Some(match body {
            None => here,
            Some(later) => position.binary(Binary::Lt, &end).select(&here, &later),
        });
    }
    match body {
        None => parts[0],
        Some(body) => p.map(shape, body),
    }
}

fn split(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    let axis = cx.axis(cx.int_or("axis", 0)?, shape.len())?;
    let size = &shape[axis];
    let parts = cx.node.outputs.len();
    // Before opset 2 they have the dtype of the tensor.
    let sizes = match cx.opset {
        1 => cx.ints_at(1, "split")?.map(|sizes| sizes.into_iter().map(Idx::from).collect::<Vec<_>>()),
        _ => cx.sizes_at(1, "split")?,
    };
    let sizes = match sizes {
        Some(sizes) if sizes.len() == parts => sizes,
        Some(sizes) => return Err(cx.error(format!("split has {} sizes for {parts} outputs", sizes.len()))),
        // All parts but the last are of one size, rounded up.
        None => {
            let each = size.div_ceil(&Idx::from(parts));
            let last = size - &(&each * &Idx::from(parts - 1));
            (0..parts).map(|part| if part + 1 < parts { each.clone() } else { last.clone() }).collect()
        }
    };
    let sum = sizes.iter().fold(Idx::from(0i64), |sum, d| &sum + d);
    cx.program.equate(size, &sum, "sizes of the parts and of the axis")?;
    let mut start = Idx::from(0i64);
    let mut outputs = Vec::with_capacity(parts);
    for size in sizes {
        let mut part = shape.clone();
        part[axis] = size.clone();
        outputs.push(cx.program.view(x, part, |i| shifted(i, axis, &start)));
        start = &start + &size;
    }
    Ok(outputs)
}

/// Position `i`, moved by `start` along `axis`.
fn shifted(i: &[Idx], axis: usize, start: &Idx) -> Vec<Idx> {
    let mut at = i.to_vec();
    at[axis] = &at[axis] + start;
    at
}

/// What a slice takes of one axis: `size` elements from `start`, `step` apart.
struct Cut {
    start: Idx,
    step: i64,
    size: Idx,
}

fn slice(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    let starts = cx.sizes_at(1, "starts")?.ok_or_else(|| cx.error("starts are missing"))?;
    let ends = cx.sizes_at(2, "ends")?.ok_or_else(|| cx.error("ends are missing"))?;
    let axes = cx.ints_at(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = cx.ints_at(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        let (s, e, a, t) = (starts.len(), ends.len(), axes.len(), steps.len());
        return Err(cx.error(format!("{s} starts, {e} ends, {a} axes and {t} steps must be as many")));
    }
    let mut cuts: Vec<Option<Cut>> = shape.iter().map(|_| None).collect();
    for (((start, end), axis), step) in starts.iter().zip(&ends).zip(axes).zip(steps) {
        let axis = cx.axis(axis, shape.len())?;
        cuts[axis] = Some(cut(cx, &shape[axis], start, end, step)?);
    }
    let sizes =
        shape.iter().zip(&cuts).map(|(d, cut)| cut.as_ref().map_or(d, |cut| &cut.size).clone()).collect();
    Ok(vec![cx.program.view(x, sizes, |i| {
        let place = |(i, cut): (&Idx, &Option<Cut>)| match cut {
            Some(cut) => &cut.start + &(i * &Idx::from(cut.step)),
            None => i.clone(),
        };
        i.iter().zip(&cuts).map(place).collect()
    })])
}

/// Numpy's rules for `start:end:step` of an axis of size `d`, but that backwards a start before the axis is its first
/// element.
fn cut(cx: &mut Cx, d: &Idx, start: &Idx, end: &Idx, step: i64) -> Result<Cut, Stop> {
    let (zero, one) = (Idx::from(0i64), Idx::from(1i64));
    if step == 0 {
        return Err(cx.error("a step is 0"));
    }
    // No axis is as long as this, so a longer step takes the same: one element.
    let step = step.clamp(-(i32::MAX as i64), i32::MAX as i64);
    if step > 0 {
        // Nothing lies beyond the end, so a start beyond it need not be clamped.
        let first = from_front(start, d).larger(&zero);
        let last = from_front(end, d).smaller(d);
        if start.is(-1) && last == *d && d.as_const().is_none() {
            // Of an axis that is not empty, this is the last element.
            cx.program.equate(
                &d.smaller(&one),
                &one,
                "size, at least 1, of an axis whose last element is read",
            )?;
            return Ok(Cut { start: d - &one, step: 1, size: one });
        }
        let size = match start.as_const() {
            Some(back) if back < 0 && last == *d => d.smaller(&Idx::from(back.saturating_neg())),
            _ => (&last - &first).larger(&zero),
        };
        return Ok(Cut { start: first, step, size: size.div_ceil(&Idx::from(step)) });
    }
    // One more than the first and last positions: of an empty axis, those would be negative.
    let mut first = &from_front(start, d) + &one;
    if start.as_const().is_none_or(|start| start < -1) {
        first = first.larger(&d.smaller(&one));
    }
    let first = first.smaller(d);
    let last = (&from_front(end, d) + &one).larger(&zero);
    let size = (&first - &last).larger(&zero).div_ceil(&Idx::from(-step));
    Ok(Cut { start: &first - &one, step, size })
}

/// A position that may be counted from the end, counted from the front. May lie outside the axis.
fn from_front(position: &Idx, d: &Idx) -> Idx {
    let one = Idx::from(1i64);
    match position.as_const() {
        // Exporters write the largest and smallest integers of 32 or 64 bits for "to the end".
        Some(c) if c >= i32::MAX as i64 => d.clone(),
        Some(c) if c <= -(i32::MAX as i64) => Idx::from(-1i64),
        _ if position.is_non_negative() => position.clone(),
        _ if (&Idx::from(-1i64) - position).is_non_negative() => d + position,
        // The sign is not known: add d where it is negative.
        _ => {
            let zero = Idx::from(0i64);
            let is_negative = (&zero - position).larger(&zero).smaller(&one);
            position + &(d * &is_negative)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, int, ints, t};

    #[test]
    fn concat_and_split_are_inverse() {
        let (left, right) = (t(&[2, 1], &[0f32, 3.0]), t(&[2, 2], &[1f32, 2.0, 4.0, 5.0]));
        let axis = [("axis", int(-1))];
        Case::new("Concat", &axis, [left.clone(), right.clone()]).gives([count(&[2, 3])]);
        let parts = [count(&[2, 3]), ints(&[1, 2])];
        Case::new("Split", &axis, &parts).outputs(2).gives([left, right]);
    }

    #[test]
    fn the_last_part_of_an_uneven_split_is_smaller() {
        let case = Case::new("Split", &[("num_outputs", int(3))], [count(&[7])]).outputs(3);
        case.gives([t(&[3], &[0f32, 1., 2.]), t(&[3], &[3f32, 4., 5.]), t(&[1], &[6f32])]);
    }

    /// `x[start:end:step]` as ONNX has it, as the list of positions taken.
    fn taken(len: i64, start: i64, end: i64, step: i64) -> Vec<f32> {
        let front = |p: i64| if p < 0 { p.saturating_add(len) } else { p };
        let high = if step > 0 { len } else { len - 1 };
        let mut at = front(start).clamp(0, high);
        let end = front(end).clamp(if step > 0 { 0 } else { -1 }, high);
        let mut found = Vec::new();
        while (step > 0 && at < end) || (step < 0 && at > end) {
            found.push(at as f32);
            at += step;
        }
        found
    }

    #[test]
    fn every_slice_of_five() {
        let ends = (-7..=7).chain([i64::MAX, i64::MIN, i32::MAX as i64]);
        for end in ends {
            for start in -7..=7 {
                for step in [-3, -1, 1, 2] {
                    let want = taken(5, start, end, step);
                    let inputs = [count(&[5]), ints(&[start]), ints(&[end]), ints(&[0]), ints(&[step])];
                    Case::new("Slice", &[], &inputs).gives([t(&[want.len()], &want)]);
                }
            }
        }
    }

    #[test]
    fn positions_of_unknown_sign_count_from_the_end_where_they_are_negative() {
        use crate::expr::Idx;
        let (n, d) = (Idx::sym("n"), Idx::from(5i64));
        for (position, offset) in [(&n - &Idx::from(4i64), -4), (&Idx::from(0i64) - &n, 0)] {
            for size in 0..9 {
                let sign = if offset == 0 { -1 } else { 1 };
                let plain = sign * size + offset;
                let want = if plain < 0 { plain + 5 } else { plain };
                let got = super::from_front(&position, &d).eval::<()>(&mut |_| Ok(size));
                assert_eq!(got, Ok(want), "{position} for n = {size}");
            }
        }
    }
}
