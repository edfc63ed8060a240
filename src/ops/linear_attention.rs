//! Linear attention: a state that every token changes and reads, a repetition per token.

use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, vars};
use crate::ir::{Combine, Program, Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[op(
    "LinearAttention",
    27,
    "o = scale * q^T S with S changed by each token's key and value",
    linear_attention,
)];

/// What the tokens give.
struct Tokens {
    key: ValueId,
    value: ValueId,
    /// In log space, `[B, T, Hkv]` or `[B, T, Hkv * dk]`.
    decay: Option<ValueId>,
    /// `[B, T, Hkv]` or `[B, T, 1]`.
    rate: Option<ValueId>,
    /// Whether what the state already says of a key is taken from its value.
    delta: bool,
    /// `dk`.
    rows: Idx,
    /// `dv`.
    columns: Idx,
}

impl Tokens {
    /// The factor of row `i` of the state of head `h` before token `t`.
    fn kept(&self, p: &Program, [b, h, i]: [&Idx; 3], t: &Idx) -> Option<Expr> {
        let decay = self.decay?;
        let per_head = p.shape(decay)[2] != p.shape(self.key)[2];
        let at = if per_head { h.clone() } else { &(h * &self.rows) + i };
        Some(p.load(decay, &[b.clone(), t.clone(), at]).cast(DType::F32).exp())
    }

    /// The state after token `t`: `S + rate * k (v - S^T k)^T`, S decayed.
    fn step(&self, p: &mut Program, state: ValueId, t: &Idx) -> ValueId {
        let shape = p.shape(state).to_vec();
        let key = |p: &Program, b: &Idx, h: &Idx, i: &Idx| {
            p.load(self.key, &[b.clone(), t.clone(), &(h * &self.rows) + i]).cast(DType::F32)
        };
        let faded = |p: &Program, at: &[Idx]| {
            let old = p.load(state, at);
            self.kept(p, [&at[0], &at[1], &at[2]], t).map_or(old.clone(), |kept| kept * old)
        };
        let known = self.delta.then(|| {
            let out = vec![shape[0].clone(), shape[1].clone(), shape[3].clone()];
            p.reduction(out, vec![self.rows.clone()], Combine::Sum, |p, o, r| {
                let at = [o[0].clone(), o[1].clone(), r[0].clone(), o[2].clone()];
                faded(p, &at) * key(p, &o[0], &o[1], &r[0])
            })
        });
        let at = vars(0, &shape);
        let (b, h, i, j) = (&at[0], &at[1], &at[2], &at[3]);
        let mut value =
            p.load(self.value, &[b.clone(), t.clone(), &(h * &self.columns) + j]).cast(DType::F32);
        if let Some(known) = known {
            value = value - p.load(known, &[b.clone(), h.clone(), j.clone()]);
        }
        if let (true, Some(rate)) = (self.delta, self.rate) {
            let head = if p.shape(rate)[2].is(1) { Idx::from(0i64) } else { h.clone() };
            value = value * p.load(rate, &[b.clone(), t.clone(), head]).cast(DType::F32);
        }
        let body = faded(p, &at) + key(p, b, h, i) * value;
        p.map(shape, body)
    }
}

fn linear_attention(cx: &mut Cx) -> Lowering {
    let (query, key, value) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let rule = cx.string_or("update_rule", "gated_delta")?;
    let (gated, delta) = match rule.as_str() {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => return Err(cx.error(format!("update_rule {other:?} is not known"))),
    };
    let (heads, kv_heads) = (cx.int_or("q_num_heads", 0)?, cx.int_or("kv_num_heads", 0)?);
    if heads < 1 || kv_heads < 1 || heads % kv_heads != 0 {
        return Err(cx.error(format!("{heads} query heads for {kv_heads} key heads")));
    }
    let shape = cx.program.shape(query).to_vec();
    let [batch, len, width] = shape.as_slice() else { return Err(cx.error("query wants three axes")) };
    let rows = width.div(&Idx::from(heads));
    let columns = cx.program.shape(value)[2].div(&Idx::from(kv_heads));
    let scale = match cx.float_or("scale", 0.0)? {
        0.0 => {
            let size = Expr::index(rows.clone(), DType::I64).cast(DType::F32);
            Expr::float(DType::F32, 1.0) / size.sqrt()
        }
        scale => Expr::float(DType::F32, scale),
    };
    let needed = |i: usize, on: bool| if on { cx.input(i).map(Some) } else { Ok::<_, Stop>(None) };
    let (decay, rate) = (needed(4, gated)?, needed(5, delta)?);
    let past = cx.optional(3);
    let p = &mut *cx.program;
    let dtype = p.dtype(query);
    let tokens = Tokens { key, value, decay, rate, delta, rows: rows.clone(), columns: columns.clone() };
    let state_shape = vec![batch.clone(), Idx::from(kv_heads), rows.clone(), columns.clone()];
    let state = match past {
        Some(past) => p.cast(past, DType::F32),
        None => p.map(state_shape, Expr::float(DType::F32, 0.0)),
    };
    let each = Idx::from(heads / kv_heads);
    let (states, stacks) = p.repeat(len.clone(), &[state], |p, t, states| {
        let state = tokens.step(p, states[0], t);
        let out = vec![batch.clone(), Idx::from(heads), columns.clone()];
        let y = p.reduction(out, vec![rows.clone()], Combine::Sum, |p, o, r| {
            let at = [o[0].clone(), t.clone(), &(&o[1] * &rows) + &r[0]];
            let held = p.load(state, &[o[0].clone(), o[1].div(&each), r[0].clone(), o[2].clone()]);
            p.load(query, &at).cast(DType::F32) * held
        });
        let y = p.unary(y, |e| (e * &scale).cast(dtype));
        Ok((vec![state], vec![y]))
    })?;
    let y = p.transpose(stacks[0], &[1, 0, 2, 3]);
    let y = p.reshape(y, vec![batch.clone(), len.clone(), &columns * &Idx::from(heads)])?;
    let state = states[0];
    let state_dtype = past.map_or(dtype, |past| p.dtype(past));
    Ok(vec![y, p.cast(state, state_dtype)])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, f32s, int, text};

    /// One head of one number: the state is a running sum of key times value.
    #[test]
    fn a_running_sum() {
        let x = |v: &[f32]| f32s(&[1, 2, 1], v);
        let attributes = [("update_rule", text("linear")), ("q_num_heads", int(1)), ("kv_num_heads", int(1))];
        let inputs = [x(&[1.0, 2.0]), x(&[1.0, 1.0]), x(&[3.0, 4.0])];
        let want = [x(&[3.0, 14.0]), f32s(&[1, 1, 1, 1], &[7.0])];
        let case = Case { opset: 27, ..Case::new("LinearAttention", &attributes, inputs) };
        case.outputs(2).gives_about(want);
    }
}
