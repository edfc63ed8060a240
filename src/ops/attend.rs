//! What the attention operators of com.microsoft share: masked scores, sinks, caches that are written in place, turned
//! heads.

use super::Cx;
use super::attention::{head, scores, weighted};
use super::reduce::widen;
use super::softmax::softmax;
use crate::expr::{Expr, Idx, vars};
use crate::ir::{Combine, Program, Stop, Update, ValueId};
use crate::tensor::DType;

/// Where a score is: batch, query head, query and key.
pub struct Place {
    pub batch: Idx,
    pub head: Idx,
    pub query: Idx,
    pub key: Idx,
}

/// A score, and whether its key is seen at all.
pub struct Masked {
    pub score: Expr,
    pub seen: Expr,
}

/// A score beside those of the keys that takes its share of the softmax and has no value.
#[derive(Clone, Copy)]
pub enum Sink {
    /// 0 for all heads.
    Zero,
    /// One number per query head.
    PerHead(ValueId),
}

/// What attention gives. Scores and weights are `[batch, head, query, key]`.
pub struct Attended {
    /// `[batch, query, head * size]`.
    pub y: ValueId,
    /// What is softmaxed, with another number where keys are hidden.
    pub scores: ValueId,
    pub weights: ValueId,
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

/// `mask(scaled score, place)` softmaxed and applied to the values. The scores that are given out are `hidden` where a
/// key is not seen.
pub fn attend(
    p: &mut Program,
    [q, k, v]: [ValueId; 3],
    scale: &Expr,
    sink: Option<Sink>,
    hidden: f64,
    mask: impl FnOnce(&Program, Expr, &Place) -> Masked,
) -> Result<Attended, Stop> {
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
    let Masked { score, seen } = mask(p, &score * scale.cast(score.dtype()), &place);
    let or = |number: f64| seen.select(&score, &Expr::float(score.dtype(), number));
    let (masked, shown) = (or(f64::NEG_INFINITY), or(hidden));
    let (masked, shown) = (p.map(shape.clone(), masked), p.map(shape, shown));
    let weights = match sink {
        Some(sink) => softmax_with(p, masked, sink)?,
        None => softmax(p, masked, &[last])?,
    };
    let weights = p.cast(weights, dtype);
    let y = weighted(p, weights, v);
    let [b, h, s, _] = p.shape(q) else { return Err(p.error("queries want four axes")) };
    let out = vec![b.clone(), h.clone(), s.clone(), p.shape(v)[3].clone()];
    let each = [&out[..3], &p.shape(k)[2..3]].concat();
    let y = p.reshape(y, out.clone())?;
    let y = p.transpose(y, &[0, 2, 1, 3]);
    let y = p.reshape(y, vec![out[0].clone(), out[2].clone(), &out[1] * &out[3]])?;
    let shown = p.cast(shown, dtype);
    Ok(Attended { y, scores: p.reshape(shown, each.clone())?, weights: p.reshape(weights, each)? })
}

/// The attribute `scale`, or one over the root of the head size.
pub fn scale(cx: &Cx, q: ValueId) -> Result<Expr, Stop> {
    let given = cx.float_or("scale", 0.0)?;
    if given != 0.0 {
        return Ok(Expr::float(DType::F32, given));
    }
    let size = Expr::index(cx.program.shape(q)[3].clone(), DType::I64).cast(DType::F32);
    Ok(Expr::float(DType::F32, 1.0) / size.sqrt())
}

/// The element of a bias of four axes that broadcasts over the scores, which are float32. `column` is where the key
/// stands in it.
pub fn added(p: &Program, bias: ValueId, at: &Place, column: &Idx) -> Expr {
    let at = [at.batch.clone(), at.head.clone(), at.query.clone(), column.clone()];
    p.load_broadcast(bias, &at).cast(DType::F32)
}

/// What a cache holds behind its new rows: what it did, or zeros where it is not written in place.
#[derive(PartialEq)]
pub enum Behind {
    Kept,
    Zeros,
}

/// `past` with the rows of `new` in it, along the last axis but one, which becomes `len` long; they begin at
/// `start(place)`. In place, they are all that is written.
pub fn written(
    p: &mut Program,
    [past, new]: [ValueId; 2],
    len: &Idx,
    behind: Behind,
    start: &dyn Fn(&Program, &[Idx]) -> Expr,
) -> ValueId {
    let axis = p.rank(new) - 2;
    let extents = p.shape(new).to_vec();
    let mut shape = extents.clone();
    shape[axis] = len.clone();
    let at = vars(0, &shape);
    let (begin, here) = (start(p, &at), Expr::number(&at[axis]));
    let mut source = at.clone();
    source[axis] = (&here - &begin).to_position(&extents[axis]);
    let end = &begin + Expr::number(&extents[axis]);
    let known = if behind == Behind::Kept { Expr::number(&p.shape(past)[axis]) } else { begin.clone() };
    let old = here.below(&known).select(&p.load(past, &at), &Expr::int(p.dtype(new), 0));
    let inside = begin.at_most(&here).and(here.below(&end));
    let body = inside.select(&p.load(new, &source), &old);
    let mut place = vars(0, &extents);
    let value = p.load(new, &place);
    let position = start(p, &place) + Expr::number(&place[axis]);
    place[axis] = position.to_position(len);
    let when = Expr::int(DType::I32, 0).at_most(&position).and(position.below(Expr::number(len)));
    p.map_or_update(shape, body, Update { base: past, extents, at: place, when, value })
}

/// The cosine and the sine, of `[batch, query]` and a pair's number.
pub type Angle<'a> = dyn Fn(&Program, [&Idx; 2], &Idx) -> [Expr; 2] + 'a;

/// How the pairs of the first `2 * half` elements of a head are turned.
pub struct Turn<'a> {
    pub half: Idx,
    pub interleaved: bool,
    pub angle: &'a Angle<'a>,
}

impl Turn<'_> {
    /// `[B, H, S, D]` with the pairs turned: `(x cos - y sin, x sin + y cos)`.
    pub fn apply(&self, p: &mut Program, x: ValueId) -> ValueId {
        let shape = p.shape(x).to_vec();
        let at = vars(0, &shape);
        let two = Idx::from(2i64);
        let (d, half) = (&at[3], &self.half);
        let (pair, odd) = if self.interleaved {
            (d.div(&two), Expr::number(&d.rem(&two)).equals(Expr::int(DType::I32, 1)))
        } else {
            (d.rem(half), Expr::number(half).at_most(Expr::number(d)))
        };
        let neighbour = |by: i64| {
            let step = if self.interleaved { Idx::from(by) } else { half * &Idx::from(by) };
            let mut there = at.clone();
            there[3] = Expr::number(&(d + &step)).to_position(&shape[3]);
            p.load(x, &there)
        };
        let here = p.load(x, &at);
        let pair = Expr::number(&pair).to_position(half);
        let [c, s] = (self.angle)(p, [&at[0], &at[2]], &pair).map(|e| e.cast(here.dtype()));
        let turned = odd.select(&(&here * &c + neighbour(-1) * &s), &(&here * &c - neighbour(1) * &s));
        let body = Expr::number(d).below(Expr::number(&(half * &two))).select(&turned, &here);
        p.map(shape, body)
    }
}
