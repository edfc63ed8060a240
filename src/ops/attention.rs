//! Scaled dot-product attention: two contractions and a softmax between them.
//!
//! The query heads of one key head (grouped-query attention) are an axis of M of its own, so keys and
//! values are never repeated: scores are `[B, Hkv, G, S, T]`.

use super::matmul::broadcast_at;
use super::reduce::{float_for, widen};
use super::scope::body;
use super::softmax::{softmax, softmax_masked};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, Unary, flatten, vars};
use crate::graph::Attribute;
use crate::ir::{Axes, Program, Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

/// The family.
pub const OPS: &[OpDef] = &[
    OpDef::new(
        "",
        "Attention",
        23,
        "softmax(softcap(Q K^T * scale) + mask) V, with grouped heads, past keys, causal and window masks",
        attention,
    ),
    OpDef::new(
        "ai.onnx.preview",
        "FlexAttention",
        1,
        "prob_mod(softmax(score_mod(Q K^T * scale))) V, with grouped heads and the two subgraphs",
        flex_attention,
    ),
];

/// What hides keys from queries.
struct Mask {
    /// The `attn_mask` input.
    given: Option<ValueId>,
    /// Valid keys of each sequence.
    valid: Option<ValueId>,
    /// Keys that precede the first query: those of the past.
    past: Idx,
    causal: bool,
    /// Keys visible to the left and right of the query's own position; negative for all.
    window: [i64; 2],
}

/// Positions in the scores: batch, head, query and key.
struct At<'a> {
    batch: &'a Idx,
    head: Idx,
    query: &'a Idx,
    key: &'a Idx,
}

impl Mask {
    /// Whether a row may be hidden altogether.
    fn may_hide_rows(&self) -> bool {
        self.given.is_some() || self.valid.is_some() || self.window.iter().any(|&w| w >= 0)
    }

    /// `score`, plus what the mask adds, or minus infinity where the key is hidden.
    fn apply(&self, p: &Program, score: Expr, at: &At, queries: &Idx) -> Expr {
        let hidden = Expr::float(score.dtype(), f64::NEG_INFINITY);
        let number = |i: &Idx| Expr::index(i.clone(), DType::I64);
        let mut result = score.clone();
        if let Some(mask) = self.given {
            let shape = p.shape(mask);
            let full = [at.batch.clone(), at.head.clone(), at.query.clone(), at.key.clone()];
            let mut i = broadcast_at(&full[4 - shape.len()..], shape);
            let mut inside = Expr::bool(true);
            if let (Some(last), Some(extent)) = (i.last_mut(), shape.last()) {
                // A mask that ends before the keys do hides the rest.
                *last = at.key.clone();
                inside = number(at.key).below(number(extent));
            }
            let element = p.load(mask, &i);
            result = if element.dtype() == DType::Bool {
                element.select(&result, &hidden)
            } else {
                // A score that is not finite must not outlive a mask of minus infinity.
                element.unary(Unary::IsNegInf).select(&hidden, &(&result + element.cast(result.dtype())))
            };
            result = inside.select(&result, &hidden);
        }
        let key = number(at.key);
        // The query's position among the keys.
        let position = match self.valid {
            Some(valid) => {
                let valid = p.load(valid, std::slice::from_ref(at.batch)).cast(DType::I64);
                result = key.below(&valid).select(&result, &hidden);
                number(at.query) + valid - number(queries)
            }
            None => number(&(at.query + &self.past)),
        };
        let [left, right] = self.window;
        if self.causal || right >= 0 {
            let ahead = if self.causal { 0 } else { right };
            let last = &position + Expr::int(DType::I64, ahead);
            result = key.at_most(last).select(&result, &hidden);
        }
        if left >= 0 {
            let first = &position - Expr::int(DType::I64, left);
            result = first.at_most(&key).select(&result, &hidden);
        }
        result
    }
}

fn attention(cx: &mut Cx) -> Lowering {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let packed = cx.program.rank(inputs[0]) == 3;
    let (q_heads, kv_heads) = (cx.int("q_num_heads")?, cx.int("kv_num_heads")?);
    let mut unpacked = inputs;
    for (x, heads) in unpacked.iter_mut().zip([q_heads, kv_heads, kv_heads]) {
        if packed {
            let heads = heads.ok_or_else(|| cx.error("packed inputs want q_num_heads and kv_num_heads"))?;
            *x = split_heads(cx.program, *x, heads)?;
        }
        if cx.program.rank(*x) != 4 {
            return Err(cx.error(format!("inputs want 3 or 4 axes, got {}", cx.program.rank(*x))));
        }
    }
    let [q, k, v] = unpacked;
    let past = cx.optional(4).zip(cx.optional(5));
    let past_len = past.map_or_else(|| Idx::from(0i64), |(key, _)| cx.program.shape(key)[2].clone());
    let (k, v) = match past {
        Some((key, value)) => (append(cx.program, key, k), append(cx.program, value, v)),
        None => (k, v),
    };
    let mask = Mask {
        given: cx.optional(3),
        valid: cx.optional(6),
        past: past_len,
        causal: cx.int_or("is_causal", 0)? != 0,
        window: [cx.int_or("left_window_size", -1)?, cx.int_or("right_window_size", -1)?],
    };
    let softcap = cx.float_or("softcap", 0.0)?;
    let scale = scale_of(cx, q)?;
    let precision = cx.dtype_attribute("softmax_precision")?;
    let mode = cx.int_or("qk_matmul_output_mode", 0)?;

    let p = &mut *cx.program;
    let raw = scores(p, q, k)?;
    // 16-bit scores are not rounded, and neither is the scale.
    let (raw, dtype) = widen(p, raw);
    let scaled = p.unary(raw, |e| e * scale.cast(e.dtype()));
    let capped = match softcap > 0.0 {
        true => p.unary(scaled, |e| (e / softcap).tanh() * softcap),
        false => scaled,
    };
    let masked = masked(p, capped, q, &mask);
    let wide = p.cast(masked, precision.unwrap_or(p.dtype(masked)));
    let row = [p.rank(wide) - 1];
    let softmax = if mask.may_hide_rows() { softmax_masked } else { softmax };
    let weights = softmax(p, wide, &row)?;
    // A 16-bit result is rounded once, at the end.
    let precise = if dtype.bits() == 16 { DType::F32 } else { dtype };
    let factors = p.cast(weights, precise);
    let y = weighted(p, factors, v);
    let y = p.cast(y, dtype);
    let shape = |p: &Program, last: ValueId, axis: usize| {
        let q = p.shape(q);
        vec![q[0].clone(), q[1].clone(), q[2].clone(), p.shape(last)[axis].clone()]
    };
    let y_shape = shape(p, v, 3);
    let y = p.reshape(y, y_shape.clone())?;
    let y = if packed {
        let y = p.transpose(y, &[0, 2, 1, 3]);
        p.reshape(y, vec![y_shape[0].clone(), y_shape[2].clone(), &y_shape[1] * &y_shape[3]])?
    } else {
        y
    };
    let shown = match mode {
        1 => capped,
        2 => masked,
        3 => weights,
        _ => scaled,
    };
    let score_shape = shape(p, k, 2);
    let shown = p.cast(shown, dtype);
    let shown = p.reshape(shown, score_shape)?;
    Ok(vec![y, k, v, shown])
}

fn flex_attention(cx: &mut Cx) -> Lowering {
    let [q, k, v] = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    if [q, k, v].iter().any(|&x| cx.program.rank(x) != 4) {
        return Err(cx.error("queries, keys and values want four axes"));
    }
    let dtype = cx.program.dtype(q);
    let precision = cx.dtype_attribute("softmax_precision")?.unwrap_or(float_for(dtype));
    let scale = scale_of(cx, q)?;
    let p = &mut *cx.program;
    let raw = scores(p, q, k)?;
    let grouped = p.shape(raw).to_vec();
    let scaled = p.unary(raw, |e| e.cast(precision) * scale.cast(precision));
    let shape =
        vec![p.shape(q)[0].clone(), p.shape(q)[1].clone(), p.shape(q)[2].clone(), p.shape(k)[2].clone()];
    let scaled = p.reshape(scaled, shape)?;
    let modified = modified(cx, "score_mod", scaled)?;
    let weights = softmax(cx.program, modified, &[3])?;
    let weights = self::modified(cx, "prob_mod", weights)?;
    let p = &mut *cx.program;
    let weights = p.reshape(weights, grouped)?;
    let y = weighted(p, weights, v);
    let y = p.cast(y, dtype);
    let y_shape = [&p.shape(q)[..3], &p.shape(v)[3..]].concat();
    Ok(vec![p.reshape(y, y_shape)?])
}

/// `x` after the subgraph that an attribute gives, if it does.
fn modified(cx: &mut Cx, attribute: &str, x: ValueId) -> Result<ValueId, Stop> {
    let graph = match cx.node.attributes.get(attribute) {
        None => return Ok(x),
        Some(Attribute::Graph(graph)) => graph,
        Some(other) => return Err(cx.error(format!("attribute {attribute:?} wants a graph, got {other:?}"))),
    };
    let outputs = body(cx, graph, &[x])?;
    match outputs.as_slice() {
        [y] => Ok(*y),
        _ => Err(cx.error(format!("{attribute} gives {} outputs, wants 1", outputs.len()))),
    }
}

/// The attribute `scale`, or one over the root of the head size.
fn scale_of(cx: &Cx, q: ValueId) -> Result<Expr, Stop> {
    let dtype = float_for(cx.program.dtype(q));
    if cx.node.attributes.contains_key("scale") {
        return Ok(Expr::float(dtype, cx.float_or("scale", 1.0)?));
    }
    let size = Expr::index(cx.program.shape(q)[3].clone(), DType::I64).cast(dtype);
    Ok(Expr::float(dtype, 1.0) / size.sqrt())
}

/// `[B, S, H * D]` as `[B, H, S, D]`.
pub(super) fn split_heads(p: &mut Program, x: ValueId, heads: i64) -> Result<ValueId, Stop> {
    let heads = Idx::from(heads);
    let [b, s, hidden] = p.shape(x) else { return Err(p.error("packed heads want three axes")) };
    let shape = vec![b.clone(), s.clone(), heads.clone(), hidden.div(&heads)];
    let split = p.reshape(x, shape)?;
    Ok(p.transpose(split, &[0, 2, 1, 3]))
}

/// `x` after `past` along axis 2.
pub(super) fn append(p: &mut Program, past: ValueId, x: ValueId) -> ValueId {
    let len = p.shape(past)[2].clone();
    let mut shape = p.shape(x).to_vec();
    shape[2] = &shape[2] + &len;
    let at = vars(0, &shape);
    let mut shifted = at.clone();
    shifted[2] = &at[2] - &len;
    let old = Expr::index(at[2].clone(), DType::I64).below(Expr::index(len, DType::I64));
    let body = old.select(&p.load(past, &at), &p.load(x, &shifted));
    p.map(shape, body)
}

/// The query heads per key head, as an axis where they are not one.
fn groups(p: &Program, q: ValueId, k: ValueId) -> Vec<Idx> {
    let each = p.shape(q)[1].div(&p.shape(k)[1]);
    if each.is(1) { vec![] } else { vec![each] }
}

/// The query head of key head `kv` and group position `g`.
pub(super) fn head(kv: &Idx, g: &[Idx], groups: &[Idx]) -> Idx {
    flatten(&[std::slice::from_ref(kv), g].concat(), &[&[Idx::from(0i64)], groups].concat())
}

/// `out[b, h, g, s, t] = sum_d Q[b, h * G + g, s, d] * K[b, h, t, d]`.
pub(super) fn scores(p: &mut Program, q: ValueId, k: ValueId) -> Result<ValueId, Stop> {
    let (q_shape, k_shape) = (p.shape(q).to_vec(), p.shape(k).to_vec());
    p.equate(&q_shape[3], &k_shape[3], "head sizes of query and key")?;
    let groups = groups(p, q, k);
    let extents = Axes {
        batch: k_shape[..2].to_vec(),
        m: [groups.clone(), vec![q_shape[2].clone()]].concat(),
        n: vec![k_shape[2].clone()],
        k: vec![q_shape[3].clone()],
    };
    Ok(p.contract(extents, |p, at| {
        let (g, s) = at.m.split_at(groups.len());
        let head = head(&at.batch[1], g, &groups);
        let a = p.load(q, &[at.batch[0].clone(), head, s[0].clone(), at.k[0].clone()]);
        let b = p.load(k, &[at.batch.clone(), at.n.clone(), at.k.clone()].concat());
        (a, b)
    }))
}

/// The scores under the mask.
fn masked(p: &mut Program, scores: ValueId, q: ValueId, mask: &Mask) -> ValueId {
    let shape = p.shape(scores).to_vec();
    let i = vars(0, &shape);
    let last = shape.len() - 1;
    let at = At {
        batch: &i[0],
        head: head(&i[1], &i[2..last - 1], &shape[2..last - 1]),
        query: &i[last - 1],
        key: &i[last],
    };
    let body = mask.apply(p, p.load(scores, &i), &at, &p.shape(q)[2]);
    p.map(shape, body)
}

/// `out[b, h, g, s, d] = sum_t P[b, h, g, s, t] * V[b, h, t, d]`.
pub(super) fn weighted(p: &mut Program, weights: ValueId, v: ValueId) -> ValueId {
    let (w_shape, v_shape) = (p.shape(weights).to_vec(), p.shape(v).to_vec());
    let last = w_shape.len() - 1;
    let extents = Axes {
        batch: w_shape[..2].to_vec(),
        m: w_shape[2..last].to_vec(),
        n: vec![v_shape[3].clone()],
        k: vec![w_shape[last].clone()],
    };
    p.contract(extents, |p, at| {
        let a = p.load(weights, &[at.batch.clone(), at.m.clone(), at.k.clone()].concat());
        let b = p.load(v, &[at.batch.clone(), at.k.clone(), at.n.clone()].concat());
        let b = b.cast(a.dtype());
        (a, b)
    })
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, f32s, run};
    use crate::graph::Attribute::Int;
    use crate::tensor::Tensor;

    /// Queries of zero attend evenly: every result is the mean of the values that are seen.
    fn even(queries: usize, heads: usize) -> [Tensor; 3] {
        let zeros = |heads: usize, len: usize| f32s(&[1, heads, len, 1], &vec![0.0; heads * len]);
        [zeros(heads, queries), zeros(1, 4), f32s(&[1, 1, 4, 1], &[0.0, 2.0, 4.0, 6.0])]
    }

    #[test]
    fn means_of_what_is_seen() {
        check("Attention", 23, &[], &even(1, 2), &f32s(&[1, 2, 1, 1], &[3.0, 3.0]));
        check("Attention", 23, &[("is_causal", Int(1))], &even(3, 1), &f32s(&[1, 1, 3, 1], &[0.0, 1.0, 2.0]));
        let window = [("left_window_size", Int(1)), ("right_window_size", Int(0))];
        check("Attention", 25, &window, &even(3, 1), &f32s(&[1, 1, 3, 1], &[0.0, 1.0, 3.0]));
        let [q, k, v] = even(1, 1);
        let mask = Tensor::from_slice(&[1, 4], &[false, true, true, false]).unwrap();
        check("Attention", 23, &[], &[q, k, v, mask], &f32s(&[1, 1, 1, 1], &[3.0]));
    }

    #[test]
    fn a_query_that_sees_nothing_gives_zero() {
        let [q, k, v] = even(1, 1);
        let mask = Tensor::from_slice(&[1, 4], &[false; 4]).unwrap();
        check("Attention", 23, &[], &[q, k, v, mask], &f32s(&[1, 1, 1, 1], &[0.0]));
    }

    #[test]
    fn the_past_comes_first() {
        let [q, k, v] = even(1, 1);
        let mask = Tensor::from_slice(&[1, 5], &[true; 5]).unwrap();
        let past = f32s(&[1, 1, 1, 1], &[10.0]);
        let got = run("Attention", 23, &[], &[q, k, v, mask, past.clone(), past], 3);
        assert_eq!(got[0].to_vec::<f32>().unwrap(), [4.4]);
        assert_eq!(got[2].to_vec::<f32>().unwrap(), [10.0, 0.0, 2.0, 4.0, 6.0]);
    }
}
