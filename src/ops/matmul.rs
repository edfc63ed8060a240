//! Matrix products.

use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, numel};
use crate::ir::{Axes, Program, Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn op(name: &'static str, since: i64, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("", name, since, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    op("MatMul", 1, "matrix product over the last two axes, the others broadcast", |cx| {
        let (a, b) = (cx.input(0)?, cx.input(1)?);
        Ok(vec![matmul(cx.program, a, b)?])
    }),
    op("MatMulInteger", 10, "matrix product of 8-bit integers less their zero points, in int32", |cx| {
        let (a, b) = (cx.input(0)?, cx.input(1)?);
        let a = centred(cx, a, 2, true)?;
        let b = centred(cx, b, 3, false)?;
        Ok(vec![matmul(cx.program, a, b)?])
    }),
    op("Gemm", 1, "alpha * A * B + beta * C, A and B transposed on demand", gemm),
    OpDef::new(
        "com.microsoft",
        "FusedMatMul",
        1,
        "alpha * A * B with the last two axes of either transposed on demand, before that its first made the last but one",
        fused_matmul,
    ),
];

/// `a * b` as numpy's matmul. Where `b` has no batch axes, all axes of `a` but
/// the last become one M.
pub(super) fn matmul(p: &mut Program, a: ValueId, b: ValueId) -> Result<ValueId, Stop> {
    let (a_shape, b_shape) = (p.shape(a).to_vec(), p.shape(b).to_vec());
    let (Some(a_k), true) = (a_shape.last(), !b_shape.is_empty()) else {
        return Err(p.error("operands of a matrix product want one axis or more, got a scalar"));
    };
    let b_k = &b_shape[b_shape.len().saturating_sub(2)];
    p.equate(a_k, b_k, "inner axes of a matrix product")?;
    let k = if a_k.as_const().is_some() { a_k.clone() } else { b_k.clone() };
    let a_lead = &a_shape[..a_shape.len() - 1];
    let b_batch = &b_shape[..b_shape.len().saturating_sub(2)];
    let n: Vec<Idx> = if b_shape.len() > 1 { b_shape[b_shape.len() - 1..].to_vec() } else { vec![] };
    let shared = b_batch.iter().all(|d| d.is(1)) && b_batch.len() < a_lead.len().max(1);
    if shared {
        let rows = vec![numel(a_lead)];
        let flat = p.reshape(a, [rows.clone(), vec![a_k.clone()]].concat())?;
        let zeros = vec![Idx::from(0i64); b_batch.len()];
        let product = p.contract(Axes { m: rows, n: n.clone(), k: vec![k], ..Axes::default() }, |p, at| {
            let b_at = [zeros, at.k.clone(), at.n.clone()].concat();
            (p.load(flat, &[at.m[0].clone(), at.k[0].clone()]), p.load(b, &b_at))
        });
        return p.reshape(product, [a_lead.to_vec(), n].concat());
    }
    let (a_batch, m) = a_lead.split_at(a_lead.len().saturating_sub(1));
    let batch = p.broadcast(&[a_batch.to_vec(), b_batch.to_vec()])?;
    Ok(p.contract(Axes { batch, m: m.to_vec(), n, k: vec![k] }, |p, at| {
        let a_at = [broadcast_at(&at.batch, a_batch), at.m.clone(), at.k.clone()].concat();
        let b_at = [broadcast_at(&at.batch, b_batch), at.k.clone(), at.n.clone()].concat();
        (p.load(a, &a_at), p.load(b, &b_at))
    }))
}

/// Where an operand of `shape` is read for position `at` of what it broadcasts to.
pub(super) fn broadcast_at(at: &[Idx], shape: &[Idx]) -> Vec<Idx> {
    let skip = at.len() - shape.len();
    at[skip..].iter().zip(shape).map(|(i, d)| if d.is(1) { Idx::from(0i64) } else { i.clone() }).collect()
}

/// `x` less the zero point at input `i`, as int32. A zero point with one axis runs along the rows of the
/// left operand and the columns of the right.
fn centred(cx: &mut Cx, x: ValueId, i: usize, rows: bool) -> Result<ValueId, Stop> {
    let Some(mut zero) = cx.optional(i) else { return Ok(cx.program.cast(x, DType::I32)) };
    let shape = cx.program.shape(zero).to_vec();
    if rows && shape.len() == 1 && !shape[0].is(1) {
        zero = cx.program.reshape(zero, vec![shape[0].clone(), Idx::from(1i64)])?;
    }
    cx.program.elementwise(&[x, zero], |e| e[0].cast(DType::I32) - e[1].cast(DType::I32))
}

fn gemm(cx: &mut Cx) -> Lowering {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let (trans_a, trans_b) = (cx.int_or("transA", 0)? != 0, cx.int_or("transB", 0)? != 0);
    let (alpha, beta) = (cx.float_or("alpha", 1.0)?, cx.float_or("beta", 1.0)?);
    let p = &mut *cx.program;
    let ([a0, a1], [b0, b1]) = (p.shape(a), p.shape(b)) else {
        let message = format!("operands want two axes, got {} and {}", p.rank(a), p.rank(b));
        return Err(p.error(message));
    };
    let (m, k) = if trans_a { (a1.clone(), a0.clone()) } else { (a0.clone(), a1.clone()) };
    let (b_k, n) = if trans_b { (b1.clone(), b0.clone()) } else { (b0.clone(), b1.clone()) };
    p.equate(&k, &b_k, "inner axes of a matrix product")?;
    let extents = Axes { m: vec![m], n: vec![n], k: vec![k], ..Axes::default() };
    let product = p.contract(extents, |p, at| {
        let pair =
            |swap: bool, i: &Idx, j: &Idx| if swap { [j.clone(), i.clone()] } else { [i.clone(), j.clone()] };
        (p.load(a, &pair(trans_a, &at.m[0], &at.k[0])), p.load(b, &pair(trans_b, &at.k[0], &at.n[0])))
    });
    let scaled = |e: &Expr, by: f64| if by == 1.0 { e.clone() } else { e * by };
    let Some(c) = cx.optional(2).filter(|_| beta != 0.0) else {
        return Ok(vec![cx.program.unary(product, |e| scaled(e, alpha))]);
    };
    Ok(vec![cx.program.elementwise(&[product, c], |e| scaled(&e[0], alpha) + scaled(&e[1], beta))?])
}

fn fused_matmul(cx: &mut Cx) -> Lowering {
    let alpha = cx.float_or("alpha", 1.0)?;
    let mut operands = [cx.input(0)?, cx.input(1)?];
    for (x, [batch, name]) in operands.iter_mut().zip([["transBatchA", "transA"], ["transBatchB", "transB"]])
    {
        let rank = cx.program.rank(*x);
        if cx.int_or(batch, 0)? != 0 && rank > 2 {
            let order: Vec<usize> = (1..rank - 1).chain([0, rank - 1]).collect();
            *x = cx.program.transpose(*x, &order);
        }
        if cx.int_or(name, 0)? != 0 && rank > 1 {
            let order: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
            *x = cx.program.transpose(*x, &order);
        }
    }
    let product = matmul(cx.program, operands[0], operands[1])?;
    Ok(vec![if alpha == 1.0 { product } else { cx.program.unary(product, |e| e * alpha) }])
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, count, f32s, refusal, run};
    use crate::graph::Attribute::{Float, Int};
    use crate::tensor::Tensor;

    /// numpy's matmul of two ranges, by shape.
    const SHAPES: &[(&[usize], &[usize], &[usize])] = &[
        (&[2, 3], &[3, 2], &[2, 2]),
        (&[2, 2, 3], &[3, 2], &[2, 2, 2]),
        (&[2, 2, 3], &[1, 3, 2], &[2, 2, 2]),
        (&[2, 3], &[2, 3, 2], &[2, 2, 2]),
        (&[2, 1, 2, 3], &[2, 3, 2], &[2, 2, 2, 2]),
        (&[3], &[3, 2], &[2]),
        (&[2, 2, 3], &[3], &[2, 2]),
        (&[3], &[3], &[]),
        (&[3], &[2, 3, 2], &[2, 2]),
    ];

    #[test]
    fn every_combination_of_ranks() {
        for (a, b, shape) in SHAPES {
            let got = run("MatMul", 13, &[], &[count(a), count(b)], 1);
            assert_eq!(got[0].shape(), *shape, "{a:?} x {b:?}");
            // The last element of both operands' last row and column, summed by hand.
            let (m, k) = (a.iter().product::<usize>() / 3, 3);
            let n = if b.len() > 1 { 2 } else { 1 };
            let b_last = b.iter().product::<usize>() - k * n;
            let want: usize = (0..k).map(|i| ((m - 1) * k + i) * (b_last + i * n + n - 1)).sum();
            assert_eq!(got[0].to_vec::<f32>().unwrap().last(), Some(&(want as f32)), "{a:?} x {b:?}");
        }
    }

    #[test]
    fn gemm_scales_transposes_and_adds() {
        let (a, b, c) = (count(&[2, 3]), count(&[3, 2]), f32s(&[2], &[1.0, -1.0]));
        check("Gemm", 13, &[], &[a.clone(), b.clone(), c.clone()], &f32s(&[2, 2], &[11.0, 12.0, 29.0, 39.0]));
        let attributes =
            [("transA", Int(1)), ("transB", Int(1)), ("alpha", Float(0.5)), ("beta", Float(2.0))];
        let want = f32s(&[3, 3], &[3.5, 6.5, 9.5, 4.0, 9.0, 14.0, 4.5, 11.5, 18.5]);
        check("Gemm", 13, &attributes, &[a, b, f32s(&[1], &[1.0])], &want);
    }

    #[test]
    fn integers_less_their_zero_points() {
        let a = Tensor::from_slice(&[2, 2], &[1u8, 2, 3, 4]).unwrap();
        let b = Tensor::from_slice(&[2, 1], &[-1i8, 5]).unwrap();
        let zeros = [Tensor::from_slice(&[2], &[1u8, 0]).unwrap(), Tensor::from_slice(&[], &[1i8]).unwrap()];
        let [a_zero, b_zero] = zeros;
        let got = run("MatMulInteger", 10, &[], &[a, b, a_zero, b_zero], 1);
        assert_eq!(got[0].to_vec::<i32>().unwrap(), [4, 10]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let error = refusal("MatMul", 13, &[], &[count(&[2, 3]), count(&[4, 2])]);
        assert_eq!(error, "MatMul \"node\": inner axes of a matrix product: 3 and 4 must be equal");
    }
}
