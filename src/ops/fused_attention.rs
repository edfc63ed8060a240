//! Attention as exporters fuse it for transformers.

use super::attend::{Turn, attend, scale};
use super::attention::split_heads;
use super::join::join;
use super::masks::{Masks, Past};
use super::matmul::matmul;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, Unary, vars};
use crate::ir::{Program, Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn ms(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("com.microsoft", name, 1, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    ms(
        "Attention",
        "softmax(Q K^T * scale + masks) V of one input's projections, with past keys or a shared buffer of them, and \
         rotary embeddings of base 10000",
        projected,
    ),
    ms(
        "MultiHeadAttention",
        "softmax(Q K^T * scale + masks) V, with past keys or a shared buffer of them, of several beams on demand",
        multi_head,
    ),
];

fn multi_head(cx: &mut Cx) -> Lowering {
    let heads = cx.int_or("num_heads", 0)?;
    let (mut inputs, packed) = separate(cx)?;
    let mut offset = Idx::from(0i64);
    for (i, x) in inputs.iter_mut().enumerate() {
        match cx.program.rank(*x) {
            3 => {
                let width = cx.program.shape(*x)[2].clone();
                if let Some(bias) = cx.optional(3) {
                    let shape = cx.program.shape(*x).to_vec();
                    let at = vars(0, &shape);
                    let sum = cx.program.load(*x, &at) + cx.program.load(bias, &[&at[2] + &offset]);
                    *x = cx.program.map(shape, sum);
                }
                offset = &offset + &width;
                *x = split_heads(cx.program, *x, heads)?;
            }
            // Keys and values of cross attention come split, and with their bias.
            4 if packed || i > 0 => {}
            rank => return Err(cx.error(format!("queries want 3 axes, or 5, got {rank}"))),
        }
    }
    let [q, k, v] = inputs;
    let (past_key, past_value) = (cx.optional(6), cx.optional(7));
    let rows = past_key.map(|key| cx.program.shape(key)[2].clone());
    let past = Past::of(cx, rows, cx.optional(8))?;
    let present = [(past_key, k), (past_value, v)].map(|(old, new)| past.extended(cx.program, old, new));
    let [k, v] = match cx.optional(9) {
        Some(beams) => present.map(|x| of_beams(cx.program, x, beams, &past)),
        None => present,
    };
    let keys = match past.buffer && cx.gives(3) {
        true => {
            let held = cx.program.sizes(cx.input(8)?)?;
            let held = held.first().cloned().ok_or_else(|| cx.error("past_sequence_length is empty"))?;
            &held + &cx.program.shape(q)[2]
        }
        false => cx.program.shape(k)[2].clone(),
    };
    let masks = Masks::of(cx, [4, 5], q, past)?;
    let scale = scale(cx, q)?;
    let hidden = f32::MIN as f64;
    let done = attend(cx.program, [q, k, v], &scale, None, hidden, |p, score, at| masks.apply(p, score, at))?;
    let mut shape = cx.program.shape(done.scores).to_vec();
    shape[3] = keys;
    let shown = cx.program.view(done.scores, shape, <[Idx]>::to_vec);
    let [k, v] = present;
    Ok(vec![done.y, k, v, shown])
}

/// Keys or values whose past each batch takes from the beam that `beams: [batch / width, width, len]` names.
fn of_beams(p: &mut Program, x: ValueId, beams: ValueId, past: &Past) -> ValueId {
    let shape = p.shape(x).to_vec();
    let width = p.shape(beams)[1].clone();
    let at = vars(0, &shape);
    let first = &at[0].div(&width) * &width;
    let beam = p.load(beams, &[at[0].div(&width), at[0].rem(&width), at[2].clone()]).cast(DType::I32);
    let source = (Expr::number(&first) + beam).to_position(&shape[0]);
    let theirs = p.load(x, &[&[source], &at[1..]].concat());
    let body = Expr::number(&at[2]).below(&past.len).select(&theirs, &p.load(x, &at));
    p.map(shape, body)
}

/// Queries, keys and values, and whether some came packed: as `[batch, len, heads, parts, size]`, which becomes
/// `[batch, heads, len, size]` for each, with its bias.
fn separate(cx: &mut Cx) -> Result<([ValueId; 3], bool), Stop> {
    let (query, bias) = (cx.input(0)?, cx.optional(3));
    let part = |cx: &mut Cx, x: ValueId, first: usize, role: usize| -> Result<ValueId, Stop> {
        let shape: [Idx; 5] = cx.program.shape(x).to_vec().try_into().map_err(|shape: Vec<Idx>| {
            cx.error(format!("packed queries, keys or values want five axes, got {}", shape.len()))
        })?;
        let [batch, len, heads, _, size] = shape;
        let out = vec![batch, heads.clone(), len, size.clone()];
        let at = vars(0, &out);
        let place = [at[0].clone(), at[2].clone(), at[1].clone(), Idx::from(role - first), at[3].clone()];
        let mut element = cx.program.load(x, &place);
        if let Some(bias) = bias {
            let place = &(&(&(&Idx::from(role) * &heads) + &at[1]) * &size) + &at[3];
            element = element + cx.program.load(bias, &[place]);
        }
        Ok(cx.program.map(out, element))
    };
    Ok(match (cx.optional(1), cx.optional(2)) {
        (Some(key), Some(value)) => ([query, key, value], false),
        (Some(both), None) => ([query, part(cx, both, 1, 1)?, part(cx, both, 1, 2)?], true),
        (None, _) => ([part(cx, query, 0, 0)?, part(cx, query, 0, 1)?, part(cx, query, 0, 2)?], true),
    })
}

fn projected(cx: &mut Cx) -> Lowering {
    let heads = cx.int_or("num_heads", 0)?;
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    let mut all = matmul(cx.program, x, weights)?;
    if let Some(bias) = cx.optional(2) {
        all = cx.program.elementwise(&[all, bias], |e| &e[0] + &e[1])?;
    }
    let [batch, len, width] =
        cx.program.shape(all).to_vec().try_into().map_err(|_| cx.error("x wants three axes"))?;
    let widths = match cx.ints("qkv_hidden_sizes")?.as_deref() {
        None => vec![width.div(&Idx::from(3i64)); 3],
        Some(&[q, k, v]) => vec![q.into(), k.into(), v.into()],
        Some(other) => return Err(cx.error(format!("qkv_hidden_sizes wants three numbers, got {other:?}"))),
    };
    let mut begin = Idx::from(0i64);
    let mut parts = Vec::new();
    for width in widths {
        let part = cx.program.view(all, vec![batch.clone(), len.clone(), width.clone()], |i| {
            vec![i[0].clone(), i[1].clone(), &i[2] + &begin]
        });
        begin = &begin + &width;
        parts.push(split_heads(cx.program, part, heads)?);
    }
    let [mut q, mut k, v] = parts.try_into().map_err(|_| cx.error("wants queries, keys and values"))?;
    let old = cx.optional(4);
    let shared = cx.int_or("past_present_share_buffer", 0)? != 0;
    let held = if shared { Some(cx.input(6)?) } else { None };
    let past = Past::of(cx, old.map(|old| cx.program.shape(old)[3].clone()), held)?;
    if cx.int_or("do_rotary", 0)? != 0 {
        let turned = cx.int_or("rotary_embedding_dim", 0)?;
        let turned = if turned > 0 { Idx::from(turned) } else { cx.program.shape(q)[3].clone() };
        [q, k] = [q, k].map(|x| rotated(cx.program, x, &turned, &past.len));
    }
    let halves = |p: &mut Program, pair: ValueId| {
        [0i64, 1].map(|which| {
            let shape = p.shape(pair)[1..].to_vec();
            p.view(pair, shape, |i| [&[Idx::from(which)], i].concat())
        })
    };
    let (k, v, present) = match (old, past.buffer) {
        // The buffer is one tensor, which is written as such.
        (Some(old), true) => {
            let new = stacked(cx.program, [k, v])?;
            let present = past.extended(cx.program, Some(old), new);
            let [k, v] = halves(cx.program, present);
            (k, v, present)
        }
        (old, _) => {
            let olds = old.map(|old| halves(cx.program, old));
            let k = past.extended(cx.program, olds.map(|old| old[0]), k);
            let v = past.extended(cx.program, olds.map(|old| old[1]), v);
            (k, v, stacked(cx.program, [k, v])?)
        }
    };
    let masks = Masks::of(cx, [3, 5], q, past)?;
    let scale = scale(cx, q)?;
    let done = attend(cx.program, [q, k, v], &scale, None, 0.0, |p, score, at| masks.apply(p, score, at))?;
    Ok(vec![done.y, present])
}

/// Two tensors as one with an axis of two before.
fn stacked(p: &mut Program, pair: [ValueId; 2]) -> Result<ValueId, Stop> {
    let mut parts = Vec::new();
    for x in pair {
        let shape = [&[Idx::from(1i64)], p.shape(x)].concat();
        parts.push(p.reshape(x, shape)?);
    }
    Ok(join(p, parts, 0))
}

/// The first `turned` elements of each head turned in halves, by the angle `position / 10000^(2 pair / turned)` (Su et
/// al., RoFormer).
fn rotated(p: &mut Program, x: ValueId, turned: &Idx, first: &Expr) -> ValueId {
    let half = turned.div(&Idx::from(2i64));
    let real = |idx: &Idx| Expr::number(idx).cast(DType::F32);
    let base = Expr::float(DType::F32, 10000.0);
    let angle = |_: &Program, [_, query]: [&Idx; 2], pair: &Idx| {
        let position = (first + Expr::number(query)).cast(DType::F32);
        let angle = position / base.power(real(pair) / real(&half));
        [angle.unary(Unary::Cos), angle.unary(Unary::Sin)]
    };
    Turn { half: half.clone(), interleaved: false, angle: &angle }.apply(p, x)
}
