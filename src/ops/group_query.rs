//! Attention with grouped heads over a cache, as decoders of language models are exported.

use super::attend::{Behind, Masked, Place, Sink, Turn, added, attend, scale, written};
use super::attention::{append, split_heads};
use super::kv_codes::Codes;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, vars};
use crate::ir::{Combine, Program, Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[OpDef::new(
    "com.microsoft",
    "GroupQueryAttention",
    1,
    "attention with grouped heads and a cache, of the window's size or of int8, int4 or float8 on demand, with rotary \
          embeddings, norms of heads and sinks",
    group_query,
)];

/// How long the sequences are, and how many of their tokens are new.
struct Lengths {
    /// All tokens less one, by batch.
    seqlens: ValueId,
    /// Of the new tokens, how many are no padding, by batch.
    valid: Option<ValueId>,
    /// New tokens, padding included.
    queries: Idx,
    /// Whether the new tokens are all there are.
    prompt: Expr,
}

impl Lengths {
    fn at(p: &Program, x: ValueId, batch: &Idx) -> Expr {
        p.load_broadcast(x, std::slice::from_ref(batch)).cast(DType::I32)
    }

    /// All tokens.
    fn total(&self, p: &Program, batch: &Idx) -> Expr {
        Lengths::at(p, self.seqlens, batch) + Expr::int(DType::I32, 1)
    }

    /// Those in the cache before.
    fn before(&self, p: &Program, batch: &Idx) -> Expr {
        let (total, zero) = (self.total(p, batch), Expr::int(DType::I32, 0));
        match self.valid {
            Some(valid) => total - Lengths::at(p, valid, batch),
            None => self.prompt.select(&zero, &(total - Expr::number(&self.queries)).larger(&zero)),
        }
    }
}

/// A cache that holds the last tokens alone. Of `total` tokens it holds all while they fit, and makes room for
/// `capacity - window + 1` at a time.
struct Window {
    capacity: Idx,
    len: i64,
}

impl Window {
    fn held(&self, total: &Expr) -> Expr {
        let capacity = Expr::number(&self.capacity);
        let step = Expr::number(&(&self.capacity - &Idx::from(self.len - 1)));
        let over = total - &capacity;
        let steps = (&over + &step - Expr::int(DType::I32, 1)) / &step;
        total.at_most(&capacity).select(total, &(total - steps * &step))
    }

    /// The cache after `new` tokens.
    fn moved(&self, p: &mut Program, lengths: &Lengths, past: ValueId, new: ValueId) -> ValueId {
        let shape = p.shape(past).to_vec();
        let at = vars(0, &shape);
        let (total, before) = (lengths.total(p, &at[0]), lengths.before(p, &at[0]));
        let held = self.held(&total);
        let here = Expr::number(&at[2]);
        let position = &total - &held + &here;
        let load = |x: ValueId, row: Expr| {
            let mut at = at.clone();
            at[2] = row.to_position(&p.shape(x)[2]);
            p.load(x, &at)
        };
        let old = load(past, &position - (&before - self.held(&before)));
        let fresh = load(new, &position - &before);
        let known = position.below(&before).select(&old, &fresh);
        let body = here.below(&held).select(&known, &Expr::int(known.dtype(), 0));
        p.map(shape, body)
    }
}

fn group_query(cx: &mut Cx) -> Result<Vec<ValueId>, Stop> {
    let (heads, kv_heads) = (cx.int_or("num_heads", 0)?, cx.int_or("kv_num_heads", 0)?);
    let (seqlens, total) = (cx.input(5)?, cx.program.sizes(cx.input(6)?)?);
    let total = total.first().cloned().ok_or_else(|| cx.error("total_sequence_length is empty"))?;
    let packed = cx.input(0)?;
    let mut inputs = match (cx.optional(1), cx.optional(2)) {
        (Some(k), Some(v)) => [packed, k, v],
        _ => unpacked(cx.program, packed, heads, kv_heads),
    };
    for (x, heads) in inputs.iter_mut().zip([heads, kv_heads, kv_heads]) {
        *x = split_heads(cx.program, *x, heads)?;
    }
    let [q, k, v] = inputs;
    let queries = cx.program.shape(q)[2].clone();
    let prompt = Expr::number(&queries).equals(Expr::number(&total));
    let lengths = Lengths { seqlens, valid: cx.optional(16), queries, prompt };
    if cx.optional(14).is_some() != cx.optional(15).is_some() {
        return Err(cx.error("q_norm_weight and k_norm_weight want each other"));
    }
    let q = prepared(cx, q, "q_norm_epsilon", 14, &lengths)?;
    let k = prepared(cx, k, "k_norm_epsilon", 15, &lengths)?;
    let past = cx.optional(3).zip(cx.optional(4));
    let (causal, len) = (cx.int_or("causal", 1)? != 0, cx.int_or("local_window_size", -1)?);
    let window = match (cx.int_or("sliding_window_cache", 0)? != 0, past) {
        (false, _) => None,
        (true, Some((key, _))) if causal && len > 0 => {
            Some(Window { capacity: cx.program.shape(key)[2].clone(), len })
        }
        (true, _) => {
            return Err(cx.error("sliding_window_cache wants past_key, causal=1 and local_window_size"));
        }
    };
    if window.is_some() && cx.gives(3) {
        return Err(cx.unsupported("output_qk with sliding_window_cache"));
    }
    let [(k, present_k), (v, present_v)] = match past {
        Some((key, value)) => {
            let cached = |cx: &mut Cx, past, new, name, scale| -> Result<(ValueId, ValueId), Stop> {
                let codes = Codes::of(cx, past, name, scale)?;
                let dtype = cx.program.dtype(new);
                let p = &mut *cx.program;
                let stored = |p: &mut Program, x| codes.as_ref().map_or(x, |codes| codes.encoded(p, x));
                let real = |p: &mut Program, x| codes.as_ref().map_or(x, |codes| codes.decoded(p, x, dtype));
                let new = stored(p, new);
                Ok(match &window {
                    // What the window loses in this step, its queries may yet see.
                    Some(window) => {
                        let all = append(p, past, new);
                        (real(p, all), window.moved(p, &lengths, past, new))
                    }
                    None => {
                        let len = p.shape(past)[2].larger(&total);
                        let start = |p: &Program, at: &[Idx]| lengths.before(p, &at[0]);
                        let present = written(p, [past, new], &len, Behind::Zeros, &start);
                        (real(p, present), present)
                    }
                })
            };
            [cached(cx, key, k, "k_quant_type", 12)?, cached(cx, value, v, "v_quant_type", 13)?]
        }
        None => [(k, k), (v, v)],
    };
    let (softcap, bias) = (cx.float_or("softcap", 0.0)?, cx.optional(10));
    let sink = match cx.optional(11) {
        Some(sinks) => Some(Sink::PerHead(sinks)),
        None if cx.int_or("smooth_softmax", 0)? > 0 => Some(Sink::Zero),
        None => None,
    };
    let scale = scale(cx, q)?;
    let p = &mut *cx.program;
    let keys = p.shape(k)[2].clone();
    let done = attend(p, [q, k, v], &scale, sink, 0.0, |p, score, at| {
        let before = lengths.before(p, &at.batch);
        let (position, known) = match &window {
            Some(window) => standing(p, window, &lengths, at),
            None => (Expr::number(&at.key), Expr::bool(true)),
        };
        let mut score = if softcap > 0.0 { (&score / softcap).tanh() * softcap } else { score };
        if let Some(bias) = bias {
            let last = Expr::number(&(&total - &Idx::from(1i64)));
            let column =
                if keys == total { at.key.clone() } else { position.smaller(last).to_position(&total) };
            score = &score + added(p, bias, at, &column);
        }
        let own = &before + Expr::number(&at.query);
        let mut seen =
            if causal { position.at_most(&own) } else { position.below(lengths.total(p, &at.batch)) };
        if len >= 0 {
            seen = seen.and(own.below(&position + Expr::int(DType::I32, len)));
        }
        Masked { score, seen: known.and(seen) }
    })?;
    let shown = match cx.int_or("qk_output", 0)? {
        2 => done.weights,
        _ => done.scores,
    };
    let p = &mut *cx.program;
    let mut shape = p.shape(shown).to_vec();
    shape[3] = total;
    let shown = p.view(shown, shape, <[Idx]>::to_vec);
    Ok(vec![done.y, present_k, present_v, shown])
}

/// The position of a key among the old ones of a window and the new ones behind, and whether it has one.
fn standing(p: &Program, window: &Window, lengths: &Lengths, at: &Place) -> (Expr, Expr) {
    let before = lengths.before(p, &at.batch);
    let (key, held) = (Expr::number(&at.key), window.held(&before));
    let old = key.below(Expr::number(&window.capacity));
    let number = Expr::number(&(&at.key - &window.capacity));
    let position = &before + old.select(&(&key - &held), &number);
    let new = lengths.total(p, &at.batch) - &before;
    (position, old.select(&key.below(&held), &number.below(&new)))
}

/// Queries or keys with their heads' norm and turned as their positions say.
fn prepared(
    cx: &mut Cx,
    mut x: ValueId,
    epsilon: &str,
    norm: usize,
    lengths: &Lengths,
) -> Result<ValueId, Stop> {
    if let Some(weight) = cx.optional(norm) {
        let shared = cx.float_or("qk_norm_epsilon", 1e-6)? as f32;
        let epsilon = cx.float_or(epsilon, shared)?;
        x = normalised(cx.program, x, weight, epsilon)?;
    }
    if cx.int_or("do_rotary", 0)? == 0 {
        return Ok(x);
    }
    let caches = [cx.input(7)?, cx.input(8)?];
    let interleaved = cx.int_or("rotary_interleaved", 0)? != 0;
    let ids = cx.optional(9);
    let [rows, half] = cx
        .program
        .shape(caches[0])
        .to_vec()
        .try_into()
        .map_err(|shape: Vec<Idx>| cx.error(format!("cos_cache wants two axes, got {}", shape.len())))?;
    let angle = |p: &Program, [b, s]: [&Idx; 2], pair: &Idx| {
        let position = match ids {
            Some(ids) => {
                let id = |b: &Idx, s: &Idx| p.load_broadcast(ids, &[b.clone(), s.clone()]).cast(DType::I32);
                // Of a prompt, the first alone is looked at.
                let first = id(&Idx::from(0i64), &Idx::from(0i64)) + Expr::number(s);
                if lengths.valid.is_some() { id(b, s) } else { lengths.prompt.select(&first, &id(b, s)) }
            }
            None => lengths.before(p, b) + Expr::number(s),
        };
        caches.map(|cache| p.load(cache, &[position.to_position(&rows), pair.clone()]))
    };
    Ok(Turn { half, interleaved, angle: &angle }.apply(cx.program, x))
}

/// `x / sqrt(mean of x^2 + epsilon) * weight` for each head.
fn normalised(p: &mut Program, x: ValueId, weight: ValueId, epsilon: f64) -> Result<ValueId, Stop> {
    let squares = p.unary(x, |e| e.cast(DType::F32));
    let count = p.count(squares, &[3]);
    let sum = p.reduce(squares, &[3], false, Combine::Sum, |e| e * e)?;
    let shape = p.shape(x).to_vec();
    let at = vars(0, &shape);
    let root = (p.load(sum, &at[..3]) / count + epsilon).sqrt();
    let here = p.load(x, &at);
    let y = here.cast(DType::F32) / root * p.load(weight, &at[3..]).cast(DType::F32);
    Ok(p.map(shape, y.cast(here.dtype())))
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
