//! Reading at positions that a tensor names. Negative positions count from the end of their axis; those
//! that lie outside are an error where they are known before the run, and else moved to the axis's nearest element.

use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, Value, vars};
use crate::ir::{Program, Relation, Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("Gather", 1, "the slices of an axis that the indices name", gather),
    op(
        "GatherElements",
        11,
        "per element of the indices, the element of x at that position of an axis",
        gather_elements,
    ),
    op("GatherND", 11, "the slices at the positions that the indices' last axis spells out", gather_nd),
    op(
        "ReverseSequence",
        10,
        "the first lengths[b] elements of each sequence b in reverse",
        reverse_sequence,
    ),
];

/// Element `at` of `indices`, as a position of an axis of `size` elements.
///
/// # Errors
/// [`Stop::Error`] where the indices are constants, and one lies outside of the axis.
fn position(program: &mut Program, indices: ValueId, at: &[Idx], size: &Idx) -> Result<Idx, Stop> {
    let index = program.load(indices, at);
    let Some((low, high)) = span(program, indices, at) else {
        return Ok(from_front(&index, size).to_position(size));
    };
    let what = format!("indices from {low} to {high} and the length of their axis");
    for least in [low.saturating_neg(), high.saturating_add(1)] {
        program.relate(&Idx::from(least), Relation::AtMost, size, &what)?;
    }
    Ok(if low < 0 { from_front(&index, size).to_position(size) } else { index.to_position(size) })
}

/// The smallest and largest of constant indices, of those in one column where `at` names it.
fn span(program: &Program, indices: ValueId, at: &[Idx]) -> Option<(i64, i64)> {
    let all = program.known(indices)?;
    let column = at.last().and_then(Idx::as_const);
    let columns = program.shape(indices).last().and_then(Idx::as_const);
    let (first, step) = match (column, columns) {
        (Some(column), Some(columns)) if columns > 0 => (column as usize, columns as usize),
        _ => (0, 1),
    };
    let named = all.iter().skip(first).step_by(step).map(|i| i.to_i64());
    Some((named.clone().min()?, named.max()?))
}

/// A position that may be counted from the end, counted from the front.
pub(super) fn from_front(index: &Expr, size: &Idx) -> Expr {
    let dtype = index.dtype();
    let is_negative = index.binary(Binary::Lt, &Expr::int(dtype, 0));
    match is_negative.as_const() {
        Some(Value::B(false)) => index.clone(),
        _ => is_negative.select(&index.binary(Binary::Add, &Expr::index(size.clone(), dtype)), index),
    }
}

fn gather(cx: &mut Cx) -> Lowering {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.program.shape(x).to_vec();
    let axis = cx.axis(cx.int_or("axis", 0)?, shape.len())?;
    let after = axis + cx.program.rank(indices);
    let mut out = shape.clone();
    out.splice(axis..axis + 1, cx.program.shape(indices).iter().cloned());
    let i = vars(0, &out);
    let mut at = i.clone();
    at.splice(axis..after, [position(cx.program, indices, &i[axis..after], &shape[axis])?]);
    let body = cx.program.load(x, &at);
    Ok(vec![cx.program.map(out, body)])
}

fn gather_elements(cx: &mut Cx) -> Lowering {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.program.shape(x).to_vec();
    let axis = cx.axis(cx.int_or("axis", 0)?, shape.len())?;
    let out = cx.program.shape(indices).to_vec();
    if out.len() != shape.len() {
        return Err(cx.error(format!(
            "x of rank {} and indices of rank {} want one rank",
            shape.len(),
            out.len()
        )));
    }
    let i = vars(0, &out);
    let mut at = i.clone();
    at[axis] = position(cx.program, indices, &i, &shape[axis])?;
    let body = cx.program.load(x, &at);
    Ok(vec![cx.program.map(out, body)])
}

fn gather_nd(cx: &mut Cx) -> Lowering {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let (shape, outer) = (cx.program.shape(x).to_vec(), cx.program.shape(indices).to_vec());
    let Some((depth, outer)) = outer.split_last() else {
        return Err(cx.error("indices want at least one axis"));
    };
    let batch = cx.int_or("batch_dims", 0)?;
    let depth = cx.program.known_size(depth)? as i64;
    if batch < 0 || batch as usize > outer.len() || batch + depth > shape.len() as i64 {
        return Err(
            cx.error(format!("batch_dims={batch} and positions of {depth} axes in rank {}", shape.len()))
        );
    }
    let (batch, named) = (batch as usize, (batch + depth) as usize);
    for axis in 0..batch {
        cx.program.equate(&shape[axis], &outer[axis], &format!("batch axis {axis} of x and the indices"))?;
    }
    let out = [outer, &shape[named..]].concat();
    let i = vars(0, &out);
    let mut at = i[..batch].to_vec();
    for (number, size) in shape[batch..named].iter().enumerate() {
        let mut here = i[..outer.len()].to_vec();
        here.push(Idx::from(number));
        at.push(position(cx.program, indices, &here, size)?);
    }
    at.extend_from_slice(&i[outer.len()..]);
    let body = cx.program.load(x, &at);
    Ok(vec![cx.program.map(out, body)])
}

fn reverse_sequence(cx: &mut Cx) -> Lowering {
    let (x, lengths) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.program.shape(x).to_vec();
    let time = cx.axis(cx.int_or("time_axis", 0)?, shape.len())?;
    let batch = cx.axis(cx.int_or("batch_axis", 1)?, shape.len())?;
    let i = vars(0, &shape);
    let length = cx.program.load(lengths, &i[batch..=batch]).cast(DType::I64);
    let here = Expr::index(i[time].clone(), DType::I64);
    let mirrored = length.binary(Binary::Sub, &Expr::index(&i[time] + &Idx::from(1i64), DType::I64));
    let source = here.binary(Binary::Lt, &length).select(&mirrored, &here);
    let mut at = i.clone();
    at[time] = source.to_position(&shape[time]);
    let body = cx.program.load(x, &at);
    Ok(vec![cx.program.map(shape, body)])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, int, ints, t};

    #[test]
    fn gathers() {
        let x = count(&[2, 3]);
        let index = |shape: &[usize], v: &[i64]| t(shape, v);
        let rows = [
            ("Gather", ("axis", int(1)), index(&[1, 2], &[2, -3]), t(&[2, 1, 2], &[2f32, 0., 5., 3.])),
            ("Gather", ("axis", int(0)), index(&[], &[1]), t(&[3], &[3f32, 4., 5.])),
            ("GatherElements", ("axis", int(0)), index(&[1, 3], &[1, -2, 1]), t(&[1, 3], &[3f32, 1., 5.])),
            ("GatherElements", ("axis", int(1)), index(&[2, 1], &[-1, 1]), t(&[2, 1], &[2f32, 4.])),
        ];
        for (op, attribute, indices, want) in rows {
            Case::new(op, &[attribute], [x.clone(), indices]).gives([want]);
        }
    }

    #[test]
    fn gather_nd() {
        let x = count(&[2, 2, 2]);
        for (batch, indices, want) in [
            (0, t(&[2, 2], &[0i64, 1, 1, -2]), t(&[2, 2], &[2f32, 3., 4., 5.])),
            (1, t(&[2, 1], &[1i64, 0]), t(&[2, 2], &[2f32, 3., 4., 5.])),
        ] {
            let batch = [("batch_dims", int(batch))];
            Case::new("GatherND", &batch, [x.clone(), indices]).gives_if_sizes_are_known([want]);
        }
    }

    #[test]
    fn sequences_are_reversed_up_to_their_lengths() {
        let want = t(&[2, 3], &[1f32, 0., 2., 3., 4., 5.]);
        let axes = [("batch_axis", int(0)), ("time_axis", int(1))];
        Case::new("ReverseSequence", &axes, [count(&[2, 3]), ints(&[2, 1])]).gives([want]);
    }
}
