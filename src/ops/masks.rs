//! The past and the masks of com.microsoft Attention and MultiHeadAttention.

use super::Cx;
use super::attend::{Behind, Masked, Place, added, written};
use super::attention::append;
use crate::expr::{Expr, Idx};
use crate::ir::{Program, Stop, ValueId};
use crate::tensor::DType;

/// The keys before the new ones.
pub struct Past {
    /// How many; a position that is read at run time where a buffer holds them.
    pub len: Expr,
    /// Whether a buffer holds them, in which keys behind the new ones mean nothing.
    pub buffer: bool,
}

impl Past {
    /// `input` says how many of the keys a buffer holds.
    pub fn of(cx: &Cx, rows: Option<Idx>, input: Option<ValueId>) -> Result<Past, Stop> {
        let held = |held: ValueId| {
            let at = vec![Idx::from(0i64); cx.program.rank(held)];
            cx.program.load(held, &at).cast(DType::I32)
        };
        match (rows, input) {
            (None, Some(_)) => Err(cx.error("past_sequence_length wants a past")),
            (Some(_), Some(input)) => Ok(Past { len: held(input), buffer: true }),
            (Some(rows), None) => Ok(Past { len: Expr::number(&rows), buffer: false }),
            (None, None) => Ok(Past { len: Expr::int(DType::I32, 0), buffer: false }),
        }
    }

    /// `past`, if any, and then `new`.
    pub fn extended(&self, p: &mut Program, past: Option<ValueId>, new: ValueId) -> ValueId {
        let Some(past) = past else { return new };
        if !self.buffer {
            return append(p, past, new);
        }
        let len = p.shape(past)[p.rank(past) - 2].clone();
        written(p, [past, new], &len, Behind::Kept, &|_, _| self.len.clone())
    }
}

/// What both operators add to scores and hide of them.
pub struct Masks {
    padding: Option<ValueId>,
    bias: Option<ValueId>,
    filter: f64,
    causal: bool,
    batches: Idx,
    queries: Idx,
    past: Past,
}

impl Masks {
    pub fn of(cx: &Cx, [padding, bias]: [usize; 2], q: ValueId, past: Past) -> Result<Masks, Stop> {
        let [batches, _, queries, _] = cx.program.shape(q) else {
            return Err(cx.error("queries want four axes"));
        };
        let padding = cx.optional(padding);
        if let Some(mask) = padding {
            let shape = cx.program.shape(mask);
            let lens = [
                batches.clone(),
                batches * &Idx::from(2i64),
                &(batches * &Idx::from(3i64)) + &Idx::from(2i64),
            ];
            if !(1..=4).contains(&shape.len()) || (shape.len() == 1 && !lens.contains(&shape[0])) {
                return Err(cx.unsupported(format!("a mask of shape {shape:?}")));
            }
        }
        Ok(Masks {
            padding,
            bias: cx.optional(bias),
            filter: cx.float_or("mask_filter_value", -10000.0)?,
            causal: cx.int_or("unidirectional", 0)? != 0,
            batches: batches.clone(),
            queries: queries.clone(),
            past,
        })
    }

    pub fn apply(&self, p: &Program, mut score: Expr, at: &Place) -> Masked {
        let key = Expr::number(&at.key);
        let end = &self.past.len + Expr::number(&self.queries);
        // Masks and biases end with the last key, buffers later.
        let column = |x: ValueId| match (self.past.buffer, p.shape(x).last()) {
            (true, Some(columns)) => key.smaller(&end - Expr::int(DType::I32, 1)).to_position(columns),
            (_, _) => at.key.clone(),
        };
        if let Some(mask) = self.padding {
            let filter = Expr::float(score.dtype(), self.filter);
            let kept = self.kept(p, mask, at, &column(mask));
            score = &score + kept.select(&Expr::int(score.dtype(), 0), &filter);
        }
        if let Some(bias) = self.bias {
            score = &score + added(p, bias, at, &column(bias));
        }
        let own = &self.past.len + Expr::number(&at.query);
        let seen = match (self.causal, self.past.buffer) {
            (true, _) => key.at_most(own),
            (false, true) => key.below(end),
            (false, false) => Expr::bool(true),
        };
        Masked { score, seen }
    }

    /// Whether a mask of 1 to 4 axes keeps the key: lengths, keys, pairs, or pairs of all positions. Twice as many
    /// lengths as there are batches are ends and then beginnings; of three times as many and two, the first are lengths.
    fn kept(&self, p: &Program, mask: ValueId, at: &Place, column: &Idx) -> Expr {
        let set = |e: Expr| Expr::int(DType::I32, 0).below(e);
        let (batch, query) = (at.batch.clone(), at.query.clone());
        match p.rank(mask) {
            1 => {
                let key = Expr::number(&at.key);
                let inside = key.below(p.load(mask, std::slice::from_ref(&batch)).cast(DType::I32));
                if p.shape(mask)[0] == &self.batches * &Idx::from(2i64) {
                    p.load(mask, &[&batch + &self.batches]).cast(DType::I32).at_most(key).and(inside)
                } else {
                    inside
                }
            }
            // One column stands for a mask that hides nothing.
            2 if p.shape(mask)[1].is(1) => Expr::bool(true),
            2 => set(p.load_broadcast(mask, &[batch, column.clone()])),
            3 => set(p.load_broadcast(mask, &[batch, query, column.clone()])),
            _ => {
                let row = (&self.past.len + Expr::number(&query)).to_position(&p.shape(mask)[2]);
                set(p.load_broadcast(mask, &[batch, Idx::from(0i64), row, column.clone()]))
            }
        }
    }
}
