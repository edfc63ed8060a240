//! Operators whose contents decide the shape of their result. They are worked out before the run, so what
//! they read must be constant, or an input whose contents the plan is made for.

use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Value, numel, vars};
use crate::ir::{Stop, ValueId};
use crate::tensor::Tensor;

/// The family.
pub const OPS: &[OpDef] = &[
    op(
        "Compress",
        9,
        "the slices of an axis whose condition holds; the condition is known before the run",
        compress,
    ),
    op("NonZero", 9, "the positions of what is not zero; x is known before the run", non_zero),
    op("Unique", 11, "the different elements or slices; x is known before the run", unique),
];

fn list(cx: &mut Cx, values: impl IntoIterator<Item = usize>) -> Result<ValueId, Stop> {
    let values: Vec<i64> = values.into_iter().map(|v| v as i64).collect();
    let tensor = Tensor::from_slice(&[values.len()], &values)?;
    Ok(cx.program.weight(tensor))
}

/// The slices of `axis` that `picked` names.
fn pick(cx: &mut Cx, x: ValueId, axis: usize, picked: &[usize]) -> Result<ValueId, Stop> {
    let mut shape = cx.program.shape(x).to_vec();
    let size = shape[axis].clone();
    let picked = list(cx, picked.iter().copied())?;
    shape[axis] = cx.program.shape(picked)[0].clone();
    let mut at = vars(0, &shape);
    at[axis] = cx.program.load(picked, &at[axis..=axis]).to_position(&size);
    let body = cx.program.load(x, &at);
    Ok(cx.program.map(shape, body))
}

fn flat(cx: &mut Cx, x: ValueId) -> Result<ValueId, Stop> {
    let len = numel(cx.program.shape(x));
    cx.program.reshape(x, vec![len])
}

fn compress(cx: &mut Cx) -> Lowering {
    let (mut x, condition) = (cx.input(0)?, cx.input(1)?);
    let picked: Vec<usize> = cx
        .program
        .integers(condition)?
        .iter()
        .enumerate()
        .filter(|(_, on)| **on != 0)
        .map(|(i, _)| i)
        .collect();
    let axis = match cx.int("axis")? {
        Some(axis) => cx.axis(axis, cx.program.rank(x))?,
        None => {
            x = flat(cx, x)?;
            0
        }
    };
    Ok(vec![pick(cx, x, axis, &picked)?])
}

fn non_zero(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.known_shape(x)?;
    let found: Vec<usize> =
        cx.program.constants(x)?.iter().enumerate().filter(|(_, v)| v.to_bool()).map(|(i, _)| i).collect();
    let mut positions = Vec::new();
    for axis in 0..shape.len() {
        let behind: usize = shape[axis + 1..].iter().product();
        positions.extend(found.iter().map(|i| (i / behind % shape[axis]) as i64));
    }
    let tensor = Tensor::from_slice(&[shape.len(), found.len()], &positions)?;
    Ok(vec![cx.program.weight(tensor)])
}

fn unique(cx: &mut Cx) -> Lowering {
    let mut x = cx.input(0)?;
    let axis = match cx.int("axis")? {
        Some(axis) => cx.axis(axis, cx.program.rank(x))?,
        None => {
            x = flat(cx, x)?;
            0
        }
    };
    let sorted = cx.int_or("sorted", 1)? != 0;
    let shape = cx.program.known_shape(x)?;
    let values = cx.program.constants(x)?;
    let (inner, len) = (shape[axis + 1..].iter().product::<usize>(), shape[axis]);
    // The elements of each slice, in order.
    let mut slices: Vec<Vec<Value>> = vec![Vec::new(); len];
    for (i, value) in values.into_iter().enumerate() {
        slices[i / inner.max(1) % len.max(1)].push(value);
    }
    let order = |a: &[Value], b: &[Value]| {
        a.iter().zip(b).map(|(a, b)| compare(*a, *b)).find(|o| o.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    };
    let mut by_value: Vec<usize> = (0..len).collect();
    by_value.sort_by(|&a, &b| order(&slices[a], &slices[b]));
    // Slices that are equal, each group by its first position.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in by_value {
        match groups.last_mut() {
            Some(group) if order(&slices[group[0]], &slices[i]).is_eq() => group.push(i),
            _ => groups.push(vec![i]),
        }
    }
    if !sorted {
        groups.sort_by_key(|group| group[0]);
    }
    let first: Vec<usize> = groups.iter().map(|group| group[0]).collect();
    let mut inverse = vec![0; len];
    groups.iter().enumerate().for_each(|(number, group)| group.iter().for_each(|&i| inverse[i] = number));
    let y = pick(cx, x, axis, &first)?;
    Ok(vec![y, list(cx, first)?, list(cx, inverse)?, list(cx, groups.iter().map(Vec::len))?])
}

/// The order of two elements; NaN comes last, and is equal to itself.
fn compare(a: Value, b: Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::F(a), Value::F(b)) => a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
        _ => a.to_i64().cmp(&b.to_i64()),
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, int, ints, t};

    #[test]
    fn slices_that_are_wanted() {
        let inputs = [count(&[2, 3]), t(&[3], &[true, false, true])];
        let want = t(&[2, 2], &[0f32, 2., 3., 5.]);
        Case::new("Compress", &[("axis", int(1))], inputs).gives([want]);
    }

    #[test]
    fn positions() {
        let x = t(&[2, 2], &[1f32, 0., 3., 4.]);
        Case::new("NonZero", &[], [x]).gives([t(&[2, 3], &[0i64, 1, 1, 0, 0, 1])]);
    }

    #[test]
    fn different_elements() {
        let x = t(&[5], &[2f32, 1., 1., 3., 2.]);
        for (sorted, y, first, inverse, counts) in [
            (1, [1f32, 2., 3.], [1i64, 0, 3], [1i64, 0, 0, 2, 1], [2i64, 2, 1]),
            (0, [2., 1., 3.], [0, 1, 3], [0, 1, 1, 2, 0], [2, 2, 1]),
        ] {
            let want = [t(&[3], &y), ints(&first), ints(&inverse), ints(&counts)];
            Case::new("Unique", &[("sorted", int(sorted))], [x.clone()]).outputs(4).gives(want);
        }
    }
}
