//! Tensors made from their positions, and masks by position.

use super::math::{Lowering, op};
use super::reduce::float_for;
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, Node, Unary, Value, read_element, vars};
use crate::ir::{Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("ConstantOfShape", 9, "one value everywhere", constant_of_shape),
    op("Range", 11, "start, start + delta, .. up to limit", range),
    op("EyeLike", 9, "ones on diagonal k", eye_like),
    op("OneHot", 9, "per index, a vector with one element on and the others off", one_hot),
    op("Trilu", 14, "the upper or lower triangle; zeros elsewhere", trilu),
    op("HannWindow", 17, "0.5 - 0.5 cos(2 pi i / n)", |cx| window(cx, &[0.5, -0.5])),
    op("HammingWindow", 17, "25/46 - 21/46 cos(2 pi i / n)", |cx| window(cx, &[25.0 / 46.0, -21.0 / 46.0])),
    op("BlackmanWindow", 17, "0.42 - 0.5 cos(2 pi i / n) + 0.08 cos(4 pi i / n)", |cx| {
        window(cx, &[0.42, -0.5, 0.08])
    }),
    op(
        "Dropout",
        1,
        "a itself and a mask that is all true; in training mode, drops elements by Philox2x32-10 under the seed",
        dropout,
    ),
];

fn constant_of_shape(cx: &mut Cx) -> Lowering {
    let shape = cx.program.sizes(cx.input(0)?)?;
    let value = match cx.tensor("value")? {
        None => Expr::float(DType::F32, 0.0),
        Some(tensor) => {
            let value = read_element(tensor.dtype(), tensor.bytes(), 0);
            let value = value.ok_or_else(|| cx.unsupported(format!("a value of {}", tensor.dtype())))?;
            Expr::constant(tensor.dtype(), value)
        }
    };
    Ok(vec![cx.program.map(shape, value)])
}

/// A number that is an integer of constants and sizes, be it stored as a float.
fn whole(number: &Expr) -> Option<Idx> {
    match (number.node(), number.as_const()) {
        (_, Some(Value::F(v))) => (v == v.trunc() && v.abs() < i32::MAX as f64).then(|| Idx::from(v as i64)),
        (Node::Cast(_, inner), None) => whole(inner),
        _ => number.as_idx(),
    }
}

fn range(cx: &mut Cx) -> Lowering {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let mut content = inputs.map(|id| cx.program.load(id, &[]));
    let known = |e: &Expr| e.as_const().is_some() || whole(e).is_some();
    if !content.iter().all(known) {
        for (element, id) in content.iter_mut().zip(inputs) {
            let value = cx.program.constants(id)?.first().copied();
            let value = value.ok_or_else(|| cx.error("wants scalars"))?;
            *element = Expr::constant(element.dtype(), value);
        }
    }
    let [start, limit, delta] = &content;
    let zero = Idx::from(0i64);
    let len = if let [Some(start), Some(limit), Some(delta)] = [start, limit, delta].map(Expr::as_const) {
        let (start, limit, delta) = (start.to_f64(), limit.to_f64(), delta.to_f64());
        let len = ((limit - start) / delta).ceil().max(0.0);
        if len >= i32::MAX as f64 || delta == 0.0 {
            return Err(cx.error(format!("{start}..{limit} in steps of {delta} has no usable length")));
        }
        Idx::from(len as i64)
    } else if let [Some(start), Some(limit), Some(step)] = [start, limit, delta].map(whole) {
        match step.as_const() {
            Some(0) => return Err(cx.error("delta is 0")),
            Some(step) if step < 0 => (&start - &limit).larger(&zero).div_ceil(&Idx::from(-step)),
            _ => (&limit - &start).larger(&zero).div_ceil(&step),
        }
    } else {
        // Sizes in steps that are no integer.
        return Err(Stop::NeedsShapes);
    };
    let i = Expr::index(Idx::var(0, &len), start.dtype());
    let body = start.binary(Binary::Add, &i.binary(Binary::Mul, delta));
    Ok(vec![cx.program.map(vec![len], body)])
}

fn eye_like(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    if shape.len() != 2 {
        return Err(cx.error(format!("wants rank 2, got {}", shape.len())));
    }
    let dtype = cx.dtype_attribute("dtype")?.unwrap_or(cx.program.dtype(x));
    let i = vars(0, &shape);
    let row = Expr::index(&i[0] + &Idx::from(cx.int_or("k", 0)?), DType::I64);
    let on = row.binary(Binary::Eq, &Expr::index(i[1].clone(), DType::I64));
    let body = on.select(&Expr::int(dtype, 1), &Expr::int(dtype, 0));
    Ok(vec![cx.program.map(shape, body)])
}

fn one_hot(cx: &mut Cx) -> Lowering {
    let (indices, values) = (cx.input(0)?, cx.input(2)?);
    let depth = depth(cx, cx.input(1)?)?;
    let rank = cx.program.rank(indices) + 1;
    let axis = cx.axis(cx.int_or("axis", -1)?, rank)?;
    let mut shape = cx.program.shape(indices).to_vec();
    shape.insert(axis, depth.clone());
    let i = vars(0, &shape);
    let mut at = i.clone();
    at.remove(axis);
    let index = cx.program.load(indices, &at).cast(DType::I64);
    let size = Expr::index(depth, DType::I64);
    let from_end = index.binary(Binary::Lt, &Expr::int(DType::I64, 0));
    let index = from_end.select(&index.binary(Binary::Add, &size), &index);
    let [off, on] = [0, 1i64].map(|k| cx.program.load(values, &[Idx::from(k)]));
    let body = index.binary(Binary::Eq, &Expr::index(i[axis].clone(), DType::I64)).select(&on, &off);
    Ok(vec![cx.program.map(shape, body)])
}

/// The number of classes: a scalar, or a vector of one element, of any numeric dtype.
fn depth(cx: &Cx, id: ValueId) -> Result<Idx, Stop> {
    if cx.program.dtype(id).is_float() {
        let all = cx.program.integers(id)?;
        return all.first().map(|&d| Idx::from(d)).ok_or_else(|| cx.error("depth is empty"));
    }
    cx.program.sizes(id)?.into_iter().next().ok_or_else(|| cx.error("depth is empty"))
}

fn trilu(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    let [.., _, _] = shape.as_slice() else { return Err(cx.error("wants at least rank 2")) };
    let i = vars(0, &shape);
    let [.., row, column] = i.as_slice() else { return Err(cx.error("wants at least rank 2")) };
    let shift = match cx.optional(1) {
        None => Expr::int(DType::I64, 0),
        Some(k) => cx.program.load(k, &vec![Idx::from(0i64); cx.program.rank(k)]),
    };
    let diagonal = Expr::index(row.clone(), DType::I64).binary(Binary::Add, &shift);
    let column = Expr::index(column.clone(), DType::I64);
    let kept = match cx.int_or("upper", 1)? {
        0 => column.binary(Binary::Le, &diagonal),
        _ => diagonal.binary(Binary::Le, &column),
    };
    let here = cx.program.load(x, &i);
    let body = kept.select(&here, &Expr::int(here.dtype(), 0));
    Ok(vec![cx.program.map(shape, body)])
}

/// sum_k terms[k] * cos(2 pi k i / n), n being the length, or one less for a symmetric window.
fn window(cx: &mut Cx, terms: &[f64]) -> Lowering {
    let size = cx.program.sizes(cx.input(0)?)?;
    let [len] = size.as_slice() else { return Err(cx.error("wants one length")) };
    let dtype = cx.dtype_attribute("output_datatype")?.unwrap_or(DType::F32);
    let float = float_for(dtype);
    let symmetric = i64::from(cx.int_or("periodic", 1)? == 0);
    let i = Expr::index(Idx::var(0, len), float);
    let n = Expr::index(len - &Idx::from(symmetric), float);
    let turn = i.binary(Binary::Div, &n);
    let body = terms.iter().enumerate().fold(Expr::float(float, 0.0), |sum, (k, term)| {
        let angle = turn.binary(Binary::Mul, &Expr::float(float, std::f64::consts::TAU * k as f64));
        sum.binary(Binary::Add, &angle.unary(Unary::Cos).binary(Binary::Mul, &Expr::float(float, *term)))
    });
    Ok(vec![cx.program.map(size.clone(), body.cast(dtype))])
}

fn dropout(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let trains = match cx.optional(2) {
        Some(mode) => cx.program.integers(mode)?.iter().any(|&on| on != 0),
        None => cx.opset < 7 && cx.int_or("is_test", 0)? == 0,
    };
    let ratio = match cx.optional(1) {
        Some(ratio) if trains => cx.program.constants(ratio)?.first().map_or(0.0, |v| v.to_f64()),
        // An attribute before opset 12.
        _ if trains => cx.float_or("ratio", 0.5)?,
        _ => 0.0,
    };
    let shape = cx.program.shape(x).to_vec();
    if ratio != 0.0 {
        let kept = Expr::float(DType::F32, ratio).at_most(super::random::uniform(cx, &shape)?);
        let mask = cx.program.map(shape, kept);
        let y = cx.program.elementwise(&[x, mask], |e| {
            let scale = Expr::float(e[0].dtype(), 1.0 / (1.0 - ratio));
            e[1].select(&(&e[0] * scale), &Expr::float(e[0].dtype(), 0.0))
        })?;
        return Ok(vec![y, in_dtype(cx, mask, x)]);
    }
    let mask = cx.program.map(shape, Expr::bool(true));
    Ok(vec![x, in_dtype(cx, mask, x)])
}

/// The mask, which has the dtype bool from opset 10 on, and that of `x` before.
fn in_dtype(cx: &mut Cx, mask: ValueId, x: ValueId) -> ValueId {
    if cx.opset < 10 { cx.program.cast(mask, cx.program.dtype(x)) } else { mask }
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, int, ints, t};
    use crate::tensor::Element;

    fn scalar<T: Element>(value: T) -> crate::tensor::Tensor {
        t(&[], &[value])
    }

    #[test]
    fn ranges() {
        let float = |start, limit, delta| [scalar::<f32>(start), scalar(limit), scalar(delta)];
        let int = |start, limit, delta| [scalar::<i64>(start), scalar(limit), scalar(delta)];
        Case::new("Range", &[], float(1.0, 2.0, 0.4)).gives([t(&[3], &[1f32, 1.4, 1.8])]);
        Case::new("Range", &[], int(7, 0, -3)).gives([ints(&[7, 4, 1])]);
        Case::new("Range", &[], int(3, 3, 1)).gives([ints(&[])]);
    }

    #[test]
    fn constants_and_masks() {
        let x = count(&[2, 2]);
        Case::new("ConstantOfShape", &[], [ints(&[2])]).gives([t(&[2], &[0f32, 0.])]);
        Case::new("EyeLike", &[("k", int(1))], [x.clone()]).gives([t(&[2, 2], &[0f32, 1., 0., 0.])]);
        let mask = t(&[2, 2], &[true; 4]);
        Case::new("Dropout", &[], [x.clone()]).outputs(2).gives([x, mask]);
    }

    #[test]
    fn windows() {
        let hann = Case::new("HannWindow", &[("periodic", int(0))], [scalar(3i64)]);
        hann.gives([t(&[3], &[0f32, 1., 0.])]);
    }

    #[test]
    fn triangles() {
        for (upper, k, want) in [
            (1, 0, [1f32, 2., 3., 0., 5., 6.]),
            (1, 1, [0., 2., 3., 0., 0., 6.]),
            (0, 0, [1., 0., 0., 4., 5., 0.]),
            (0, -1, [0., 0., 0., 4., 0., 0.]),
        ] {
            let inputs = [t(&[2, 3], &[1f32, 2., 3., 4., 5., 6.]), scalar(k as i64)];
            Case::new("Trilu", &[("upper", int(upper))], &inputs).gives([t(&[2, 3], &want)]);
        }
    }

    #[test]
    fn one_hot_counts_from_both_ends() {
        let inputs = [ints(&[0, -1, 5]), scalar(3i64), t(&[2], &[1f32, 4.])];
        let want = [4f32, 1., 1., 1., 1., 4., 1., 1., 1.];
        Case::new("OneHot", &[], &inputs).gives([t(&[3, 3], &want)]);
    }
}
