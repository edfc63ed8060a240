//! Attention as exporters fuse it for transformers.

use super::attention::{append, head, scores, split_heads, weighted};
use super::join::join;
use super::matmul::matmul;
use super::reduce::widen;
use super::softmax::softmax;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, vars};
use crate::ir::{Combine, Program, Stop, Update, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn ms(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef { name, domain: "com.microsoft", since: 1, doc, lower }
}

/// The family.
pub const OPS: &[OpDef] = &[
    ms(
        "Attention",
        "softmax(Q K^T * scale + masks) V of one input's projections; rotary embeddings and shared buffers are not \
         supported",
        projected,
    ),
    ms(
        "MultiHeadAttention",
        "softmax(Q K^T * scale + masks) V; shared buffers are not supported",
        multi_head,
    ),
    ms(
        "GroupQueryAttention",
        "causal attention with grouped heads, a cache, rotary embeddings and sinks; quantized and window-sized caches \
         are not supported",
        group_query,
    ),
];

/// Where a score is: batch, query head, query and key.
struct Place {
    batch: Idx,
    head: Idx,
    query: Idx,
    key: Idx,
}

/// A score beside those of the keys that takes its share of the softmax and has no value.
#[derive(Clone, Copy)]
enum Sink {
    /// 0 for all heads.
    Zero,
    /// One number per query head.
    PerHead(ValueId),
}

/// The softmax of rows `[batch, key head, group.., query, key]` with a sink.
fn softmax_with(p: &mut Program, x: ValueId, sink: Sink) -> Result<ValueId, Stop> {
    let shape = p.shape(x).to_vec();
    let last = shape.len() - 1;
    let at = vars(0, &shape[..last]);
    let sink = match sink {
        Sink::Zero => Expr::float(DType::F32, 0.0),
        Sink::PerHead(sinks) => {
            p.load(sinks, &[head(&at[1], &at[2..last - 1], &shape[2..last - 1])]).cast(DType::F32)
        }
    };
    let top = p.reduce(x, &[last], false, Combine::Max, Expr::clone)?;
    let larger = p.load(top, &at).larger(&sink);
    let top = p.map(shape[..last].to_vec(), larger);
    let powers = p.along(x, &[last], &[top], |x, m| (x - &m[0]).exp());
    let sum = p.reduce(powers, &[last], false, Combine::Sum, Expr::clone)?;
    let whole = p.load(sum, &at) + (sink - p.load(top, &at)).exp();
    let whole = p.map(shape[..last].to_vec(), whole);
    Ok(p.along(powers, &[last], &[whole], |e, whole| e / &whole[0]))
}

/// `f(scaled score, place)` softmaxed and applied to the values: `[B, S, H * D]`.
fn attend(
    p: &mut Program,
    [q, k, v]: [ValueId; 3],
    scale: &Expr,
    sink: Option<Sink>,
    f: impl FnOnce(&Program, Expr, &Place) -> Expr,
) -> Result<ValueId, Stop> {
    let raw = scores(p, q, k)?;
    let (raw, dtype) = widen(p, raw);
    let shape = p.shape(raw).to_vec();
    let at = vars(0, &shape);
    let last = shape.len() - 1;
    let place = Place {
        batch: at[0].clone(),
        head: head(&at[1], &at[2..last - 1], &shape[2..last - 1]),
        query: at[last - 1].clone(),
        key: at[last].clone(),
    };
    let score = p.load(raw, &at);
    let body = f(p, &score * scale.cast(score.dtype()), &place);
    let masked = p.map(shape, body);
    let weights = match sink {
        Some(sink) => softmax_with(p, masked, sink)?,
        None => softmax(p, masked, &[last])?,
    };
    let weights = p.cast(weights, dtype);
    let y = weighted(p, weights, v);
    let [b, h, s, _] = p.shape(q) else { return Err(p.error("queries want four axes")) };
    let out = vec![b.clone(), h.clone(), s.clone(), p.shape(v)[3].clone()];
    let y = p.reshape(y, out.clone())?;
    let y = p.transpose(y, &[0, 2, 1, 3]);
    p.reshape(y, vec![out[0].clone(), out[2].clone(), &out[1] * &out[3]])
}

fn scale(cx: &Cx, q: ValueId) -> Result<Expr, Stop> {
    let given = cx.float_or("scale", 0.0)?;
    if given != 0.0 {
        return Ok(Expr::float(DType::F32, given));
    }
    let size = Expr::index(cx.program.shape(q)[3].clone(), DType::I64).cast(DType::F32);
    Ok(Expr::float(DType::F32, 1.0) / size.sqrt())
}

fn refuse(cx: &Cx, inputs: &[(usize, &str)], attributes: &[(&str, i64)]) -> Result<(), Stop> {
    if let Some((_, name)) = inputs.iter().find(|(i, _)| cx.optional(*i).is_some()) {
        return Err(cx.unsupported(name));
    }
    for (name, default) in attributes {
        let value = cx.int_or(name, *default)?;
        if value != *default {
            return Err(cx.unsupported(format!("{name}={value}")));
        }
    }
    Ok(())
}

fn multi_head(cx: &mut Cx) -> Lowering {
    refuse(cx, &[(8, "past_sequence_length"), (9, "cache_indirection")], &[])?;
    let heads = cx.int_or("num_heads", 0)?;
    let (mut inputs, packed) = separate(cx)?;
    let mut offset = Idx::from(0i64);
    for x in &mut inputs {
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
            // Keys and values of cross attention come split.
            4 if packed || cx.optional(3).is_none() => {}
            rank => return Err(cx.unsupported(format!("a bias of inputs of {rank} axes"))),
        }
    }
    let [q, mut k, mut v] = inputs;
    let mut past_len = Idx::from(0i64);
    if let (Some(key), Some(value)) = (cx.optional(6), cx.optional(7)) {
        past_len = cx.program.shape(key)[2].clone();
        (k, v) = (append(cx.program, key, k), append(cx.program, value, v));
    }
    let (padding, bias) = (cx.optional(4), cx.optional(5));
    let filter = cx.float_or("mask_filter_value", -10000.0)?;
    let causal = cx.int_or("unidirectional", 0)? != 0;
    if padding.is_some_and(|mask| !(1..=3).contains(&cx.program.rank(mask))) {
        return Err(cx.error("key_padding_mask wants 1 to 3 axes"));
    }
    let scale = scale(cx, q)?;
    let batches = cx.program.shape(q)[0].clone();
    let y = attend(cx.program, [q, k, v], &scale, None, |p, mut score, at| {
        let dtype = score.dtype();
        if let Some(mask) = padding {
            score = padded(p, score, mask, filter, &batches, at);
        }
        if let Some(bias) = bias {
            score = &score + added(p, bias, at);
        }
        let visible = Expr::number(&at.key).at_most(Expr::number(&(&at.query + &past_len)));
        if causal { visible.select(&score, &Expr::float(dtype, f64::NEG_INFINITY)) } else { score }
    })?;
    Ok(vec![y, k, v])
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

/// The score, lowered by a filter value where a mask of 1 to 3 axes hides the key: lengths, keys, or pairs. Twice as many
/// lengths as there are batches are ends and then beginnings; of three times as many and two, the first are lengths.
fn padded(p: &Program, score: Expr, mask: ValueId, filter: f64, batches: &Idx, at: &Place) -> Expr {
    let here = [at.batch.clone(), at.query.clone(), at.key.clone()];
    let kept = match p.rank(mask) {
        1 => {
            let key = Expr::number(&at.key);
            let inside = key.below(p.load(mask, &here[..1]).cast(DType::I32));
            if p.shape(mask)[0] == batches * &Idx::from(2i64) {
                p.load(mask, &[&at.batch + batches]).cast(DType::I32).at_most(key).and(inside)
            } else {
                inside
            }
        }
        2 => Expr::int(DType::I32, 0).below(p.load(mask, &[at.batch.clone(), at.key.clone()])),
        _ => Expr::int(DType::I32, 0).below(p.load(mask, &here)),
    };
    &score + kept.select(&Expr::int(score.dtype(), 0), &Expr::float(score.dtype(), filter))
}

fn projected(cx: &mut Cx) -> Lowering {
    let attributes = [("do_rotary", 0), ("past_present_share_buffer", 0)];
    refuse(cx, &[(6, "past_sequence_length")], &attributes)?;
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
    let [q, mut k, mut v] = parts.try_into().map_err(|_| cx.error("wants queries, keys and values"))?;
    let mut past_len = Idx::from(0i64);
    if let Some(past) = cx.optional(4) {
        let half = |cx: &mut Cx, which: i64| {
            let shape = cx.program.shape(past)[1..].to_vec();
            cx.program.view(past, shape, |i| [&[Idx::from(which)], i].concat())
        };
        past_len = cx.program.shape(past)[3].clone();
        let (old_k, old_v) = (half(cx, 0), half(cx, 1));
        (k, v) = (append(cx.program, old_k, k), append(cx.program, old_v, v));
    }
    let (padding, bias) = (cx.optional(3), cx.optional(5));
    if let Some(mask) = padding {
        let shape = cx.program.shape(mask).to_vec();
        let twice = &batch * &Idx::from(2i64);
        let lens = [batch.clone(), twice.clone(), &(&twice + &batch) + &Idx::from(2i64)];
        if !(1..=3).contains(&shape.len()) || (shape.len() == 1 && !lens.contains(&shape[0])) {
            return Err(cx.unsupported(format!("a mask of shape {shape:?}")));
        }
    }
    let filter = cx.float_or("mask_filter_value", -10000.0)?;
    let causal = cx.int_or("unidirectional", 0)? != 0;
    let scale = scale(cx, q)?;
    let y = attend(cx.program, [q, k, v], &scale, None, |p, mut score, at| {
        if let Some(mask) = padding {
            score = padded(p, score, mask, filter, &batch, at);
        }
        if let Some(bias) = bias {
            score = &score + added(p, bias, at);
        }
        let visible = Expr::number(&at.key).at_most(Expr::number(&(&at.query + &past_len)));
        if causal { visible.select(&score, &Expr::float(score.dtype(), f64::NEG_INFINITY)) } else { score }
    })?;
    let p = &mut *cx.program;
    let stacked = [k, v].map(|x| {
        let shape = [&[Idx::from(1i64)], p.shape(x)].concat();
        p.reshape(x, shape)
    });
    let [k, v] = stacked;
    let present = join(p, vec![k?, v?], 0);
    Ok(vec![y, present])
}

/// The element of a bias of four axes that broadcasts over the scores, which are float32.
fn added(p: &Program, bias: ValueId, at: &Place) -> Expr {
    let at = [at.batch.clone(), at.head.clone(), at.query.clone(), at.key.clone()];
    p.load_broadcast(bias, &at).cast(DType::F32)
}

fn group_query(cx: &mut Cx) -> Lowering {
    let names = [(12, "k_scale"), (13, "v_scale"), (14, "q_norm_weight"), (15, "k_norm_weight")];
    refuse(cx, &names, &[])?;
    let attributes = [("sliding_window_cache", 0), ("qk_output", 0), ("causal", 1)];
    refuse(cx, &[(16, "query_seqlens")], &attributes)?;
    let (heads, kv_heads) = (cx.int_or("num_heads", 0)?, cx.int_or("kv_num_heads", 0)?);
    let (lengths, total) = (cx.input(5)?, cx.program.sizes(cx.input(6)?)?);
    let total = total.first().cloned().ok_or_else(|| cx.error("total_sequence_length is empty"))?;
    let packed = cx.input(0)?;
    let mut inputs = match (cx.optional(1), cx.optional(2)) {
        (Some(k), Some(v)) => [packed, k, v],
        _ => unpacked(cx.program, packed, heads, kv_heads),
    };
    for (x, heads) in inputs.iter_mut().zip([heads, kv_heads, kv_heads]) {
        *x = split_heads(cx.program, *x, heads)?;
    }
    let [mut q, mut k, v] = inputs;
    let queries = cx.program.shape(q)[2].clone();
    // How many keys each row has in the cache: none where the new ones are all there are.
    let prompt = Expr::number(&queries).equals(Expr::number(&total));
    let before = |p: &Program, b: &Idx| {
        let len = p.load_broadcast(lengths, std::slice::from_ref(b)).cast(DType::I32);
        prompt.select(&Expr::int(DType::I32, 0), &(len + Expr::int(DType::I32, 1) - Expr::number(&queries)))
    };
    if cx.int_or("do_rotary", 0)? != 0 {
        let caches = [cx.input(7)?, cx.input(8)?];
        let interleaved = cx.int_or("rotary_interleaved", 0)? != 0;
        let named = cx.optional(9);
        let position = |p: &Program, b: &Idx, s: &Idx| match named {
            Some(named) => p.load_broadcast(named, &[b.clone(), s.clone()]).cast(DType::I32),
            None => before(p, b) + Expr::number(s),
        };
        for x in [&mut q, &mut k] {
            *x = rotated(cx.program, *x, caches, interleaved, &position);
        }
    }
    let (softcap, window) = (cx.float_or("softcap", 0.0)?, cx.int_or("local_window_size", -1)?);
    let (bias, past) = (cx.optional(10), cx.optional(3).zip(cx.optional(4)));
    let sink = match cx.optional(11) {
        Some(sinks) => Some(Sink::PerHead(sinks)),
        None if cx.int_or("smooth_softmax", 0)? > 0 => Some(Sink::Zero),
        None => None,
    };
    let scale = scale(cx, q)?;
    let p = &mut *cx.program;
    let cached = |p: &mut Program, past: ValueId, new: ValueId| {
        let mut shape = p.shape(new).to_vec();
        shape[2] = p.shape(past)[2].larger(&total);
        let at = vars(0, &shape);
        let start = before(p, &at[0]);
        let mut source = at.clone();
        source[2] = (Expr::number(&at[2]) - &start).to_position(&queries);
        let mut old = at.clone();
        old[2] = Expr::number(&at[2]).to_position(&shape[2]);
        let here = Expr::number(&at[2]);
        let zero = Expr::int(p.dtype(new), 0);
        let end = &start + Expr::number(&queries);
        let fresh = here.below(end).select(&p.load(new, &source), &zero);
        let body = here.below(&start).select(&p.load(past, &old), &fresh);
        // In place, the new rows are all that is written.
        let extents = p.shape(new).to_vec();
        let mut place = vars(0, &extents);
        let (value, position) = (p.load(new, &place), before(p, &place[0]) + Expr::number(&place[2]));
        place[2] = position.to_position(&shape[2]);
        let inside = Expr::int(DType::I32, 0).at_most(&position).and(position.below(Expr::number(&shape[2])));
        p.map_or_update(shape, body, Update { base: past, extents, at: place, when: inside, value })
    };
    let (k, v) = match past {
        Some((key, value)) => (cached(p, key, k), cached(p, value, v)),
        None => (k, v),
    };
    let y = attend(p, [q, k, v], &scale, sink, |p, score, at| {
        let hidden = Expr::float(score.dtype(), f64::NEG_INFINITY);
        let mut score = if softcap > 0.0 { (&score / softcap).tanh() * softcap } else { score };
        if let Some(bias) = bias {
            score = &score + added(p, bias, at);
        }
        let own = before(p, &at.batch) + Expr::number(&at.query);
        let mut visible = Expr::number(&at.key).at_most(&own);
        if window >= 0 {
            visible = visible.and(own.below(Expr::number(&at.key) + Expr::int(DType::I32, window)));
        }
        visible.select(&score, &hidden)
    })?;
    Ok(vec![y, k, v])
}

/// Queries, keys and values that lie side by side in the last axis.
fn unpacked(p: &mut Program, x: ValueId, heads: i64, kv_heads: i64) -> [ValueId; 3] {
    let shape = p.shape(x).to_vec();
    let last = shape.len() - 1;
    let size = shape[last].div(&Idx::from((heads + 2 * kv_heads).max(1)));
    [(0, heads), (heads, kv_heads), (heads + kv_heads, kv_heads)].map(|(first, count)| {
        let mut part = shape.clone();
        part[last] = &size * &Idx::from(count);
        p.view(x, part, |i| {
            let mut at = i.to_vec();
            at[last] = &at[last] + &(&size * &Idx::from(first));
            at
        })
    })
}

/// `[B, H, S, D]` with the pairs of the first `2 * width of the caches` elements turned.
fn rotated(
    p: &mut Program,
    x: ValueId,
    [cos, sin]: [ValueId; 2],
    interleaved: bool,
    position: &dyn Fn(&Program, &Idx, &Idx) -> Expr,
) -> ValueId {
    let shape = p.shape(x).to_vec();
    let at = vars(0, &shape);
    let (rows, half) = (p.shape(cos)[0].clone(), p.shape(cos)[1].clone());
    let two = Idx::from(2i64);
    let d = &at[3];
    let row = position(p, &at[0], &at[2]).to_position(&rows);
    let (pair, odd) = if interleaved {
        (d.div(&two), Expr::number(&d.rem(&two)).equals(Expr::int(DType::I32, 1)))
    } else {
        (d.rem(&half), Expr::number(&half).at_most(Expr::number(d)))
    };
    let neighbour = |by: i64| {
        let step = if interleaved { Idx::from(by) } else { &half * &Idx::from(by) };
        let mut there = at.clone();
        there[3] = Expr::number(&(d + &step)).to_position(&shape[3]);
        p.load(x, &there)
    };
    let here = p.load(x, &at);
    let pair = Expr::number(&pair).to_position(&half);
    let (c, s) = (p.load(cos, &[row.clone(), pair.clone()]), p.load(sin, &[row, pair]));
    let turned = odd.select(&(&here * &c + neighbour(-1) * &s), &(&here * &c - neighbour(1) * &s));
    let body = Expr::number(d).below(Expr::number(&(&half * &two))).select(&turned, &here);
    p.map(shape, body)
}
