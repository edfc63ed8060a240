//! Rotary position embeddings.

use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, vars};
use crate::ir::{Program, Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

/// The family.
pub const OPS: &[OpDef] = &[
    OpDef::new(
        "",
        "RotaryEmbedding",
        23,
        "pairs (x, y) of a head turned by the angle of their position: (x cos - y sin, x sin + y cos)",
        |cx| {
            let caches = [cx.input(1)?, cx.input(2)?];
            let positions = cx.optional(3).map(|ids| Positions { ids, first_only: false });
            rotate(cx, caches, positions)
        },
    ),
    OpDef::new(
        "com.microsoft",
        "RotaryEmbedding",
        1,
        "as ai.onnx's, with the positions, or the first of them, as input 1",
        |cx| {
            let (ids, caches) = (cx.input(1)?, [cx.input(2)?, cx.input(3)?]);
            let first_only = cx.program.rank(ids) < 2;
            rotate(cx, caches, Some(Positions { ids, first_only }))
        },
    ),
];

/// Where the rows of the caches are for batch `b` and position `s`.
struct Positions {
    /// `[B, S]`, or one number: the position of `s = 0`.
    ids: ValueId,
    first_only: bool,
}

fn rotate(cx: &mut Cx, caches: [ValueId; 2], positions: Option<Positions>) -> Lowering {
    let x = cx.input(0)?;
    let original = cx.program.shape(x).to_vec();
    let (heads, interleaved) = (cx.int_or("num_heads", 0)?, cx.int_or("interleaved", 0)? != 0);
    let turned = cx.int_or("rotary_embedding_dim", 0)?;
    let p = &mut *cx.program;
    // The axis of heads is 1 of 4, or packed into the last of 3.
    let (x, s_axis) = match original.len() {
        4 => (x, 2),
        3 => {
            // Where the number of heads is not said, the caches' width says the size of one.
            let half = p.shape(caches[0]).last().cloned().unwrap_or_else(|| Idx::from(1i64));
            let size = &half * &Idx::from(2i64);
            let heads = if heads > 0 { Idx::from(heads) } else { original[2].div(&size) };
            let size = original[2].div(&heads);
            (p.reshape(x, vec![original[0].clone(), original[1].clone(), heads, size])?, 1)
        }
        rank => return Err(p.error(format!("input wants 3 or 4 axes, got {rank}"))),
    };
    let shape = p.shape(x).to_vec();
    let turned = if turned > 0 { Idx::from(turned) } else { shape[3].clone() };
    let half = turned.div(&Idx::from(2i64));
    let at = vars(0, &shape);
    let (b, s, d) = (&at[0], &at[s_axis], &at[3]);
    let two = Idx::from(2i64);
    // The pair of `d`: its number, its other half, and whether `d` is the first.
    let (pair, other, first) = if interleaved {
        let odd = d.rem(&two);
        let other = &(d + &Idx::from(1i64)) - &(&odd * &two);
        (d.div(&two), other, Expr::index(odd, DType::I64).equals(Expr::int(DType::I64, 0)))
    } else {
        let first = Expr::index(d.clone(), DType::I64).below(Expr::index(half.clone(), DType::I64));
        (d.rem(&half), (d + &half).rem(&turned), first)
    };
    let [cos, sin] = caches.map(|cache| angle(p, cache, positions.as_ref(), [b, s], &pair));
    let here = p.load(x, &at);
    let mut there = at.clone();
    there[3] = other;
    let there = p.load(x, &there) * sin.cast(here.dtype());
    let signed = first.select(&there.negated(), &there);
    let rotated = &here * cos.cast(here.dtype()) + signed;
    let within = Expr::index(d.clone(), DType::I64).below(Expr::index(turned, DType::I64));
    let y = p.map(shape, within.select(&rotated, &here));
    Ok(vec![p.reshape(y, original)?])
}

/// The cosine or sine of a pair.
fn angle(p: &Program, cache: ValueId, positions: Option<&Positions>, at: [&Idx; 2], pair: &Idx) -> Expr {
    let [b, s] = at;
    let Some(Positions { ids, first_only }) = positions else {
        return p.load(cache, &[b.clone(), s.clone(), pair.clone()]);
    };
    let row = if *first_only {
        let first = p.load(*ids, &vec![Idx::from(0i64); p.rank(*ids)]);
        first.cast(DType::I64) + Expr::index(s.clone(), DType::I64)
    } else {
        p.load_broadcast(*ids, &[b.clone(), s.clone()])
    };
    p.load(cache, &[row.to_position(&p.shape(cache)[0]), pair.clone()])
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, f32s};
    use crate::graph::Attribute::Int;
    use crate::tensor::Tensor;

    /// Position 0 is not turned, position 1 by a right angle.
    fn caches() -> [Tensor; 2] {
        [f32s(&[2, 2], &[1.0, 1.0, 0.0, 0.0]), f32s(&[2, 2], &[0.0, 0.0, 1.0, 1.0])]
    }

    #[test]
    fn a_right_angle() {
        let x = f32s(&[1, 1, 2, 4], &[1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
        let ids = Tensor::from_slice(&[1, 2], &[0i64, 1]).unwrap();
        let [cos, sin] = caches();
        let inputs = [x.clone(), cos.clone(), sin.clone(), ids];
        let halves = f32s(&[1, 1, 2, 4], &[1.0, 2.0, 3.0, 4.0, -3.0, -4.0, 1.0, 2.0]);
        check("RotaryEmbedding", 23, &[], &inputs, &halves);
        let pairs = f32s(&[1, 1, 2, 4], &[1.0, 2.0, 3.0, 4.0, -2.0, 1.0, -4.0, 3.0]);
        check("RotaryEmbedding", 23, &[("interleaved", Int(1))], &inputs, &pairs);
        let first = Tensor::from_slice(&[1], &[0i64]).unwrap();
        check("com.microsoft.RotaryEmbedding", 23, &[], &[x, first, cos, sin], &halves);
    }

    #[test]
    fn the_rest_of_a_head_stays() {
        let x = f32s(&[1, 1, 3], &[1.0, 2.0, 9.0]);
        let [cos, sin] = [f32s(&[1, 1, 1], &[0.0]), f32s(&[1, 1, 1], &[1.0])];
        let attributes = [("num_heads", Int(1)), ("rotary_embedding_dim", Int(2))];
        check("RotaryEmbedding", 23, &attributes, &[x, cos, sin], &f32s(&[1, 1, 3], &[-2.0, 1.0, 9.0]));
    }
}
