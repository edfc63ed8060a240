//! Keys and values that a cache holds in few bits: `number * scale`, with a scale for all or per channel.

use super::Cx;
use super::nbits::unpacked;
use super::quantize::saturated;
use crate::expr::{Expr, Idx, vars};
use crate::ir::{Program, Stop, ValueId};
use crate::tensor::DType;

/// How a cache of codes is read and written.
pub struct Codes {
    /// Of a shape that broadcasts to `[batch, heads, len, size]`.
    scale: ValueId,
    dtype: DType,
    /// Whether two numbers of 4 bits share a byte, the first in its low bits, 8 added to each.
    packed: bool,
}

impl Codes {
    /// Those of the cache `past`, whose kind an attribute names and whose scale is an input; none where it holds numbers.
    pub fn of(cx: &Cx, past: ValueId, attribute: &str, scale: usize) -> Result<Option<Codes>, Stop> {
        let (dtype, kind) = (cx.program.dtype(past), cx.string_or(attribute, "NONE")?);
        let coded = !matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
        match kind.as_str() {
            "NONE" if coded => return Err(cx.error(format!("{attribute} is NONE for a cache of {dtype}"))),
            "NONE" => return Ok(None),
            "PER_TENSOR" | "PER_CHANNEL" if coded => {}
            other => return Err(cx.error(format!("{attribute}={other} for a cache of {dtype}"))),
        }
        let packed = match (dtype, cx.int_or("kv_cache_bit_width", 8)?) {
            (DType::U8, 4) => true,
            (DType::I8 | DType::F8E4M3FN, 8) => false,
            (_, bits) => return Err(cx.unsupported(format!("a cache of {bits} bits in {dtype}"))),
        };
        let scale = cx.input(scale)?;
        if cx.program.rank(scale) > 4 {
            return Err(
                cx.error(format!("scales of a cache want 4 axes at most, got {}", cx.program.rank(scale)))
            );
        }
        Ok(Some(Codes { scale, dtype, packed }))
    }

    fn scale(&self, p: &Program, at: &[Idx]) -> Expr {
        p.load_broadcast(self.scale, at).cast(DType::F32)
    }

    /// The codes of `x`, rounded to the nearest, halves to even.
    pub fn encoded(&self, p: &mut Program, x: ValueId) -> ValueId {
        let mut shape = p.shape(x).to_vec();
        let quotient = |at: &[Idx]| p.load(x, at).cast(DType::F32) / self.scale(p, at);
        let body = if self.packed {
            let two = Idx::from(2i64);
            shape[3] = shape[3].div(&two);
            let at = vars(0, &shape);
            let nibble = |which: i64| {
                let place = [&at[..3], &[&(&at[3] * &two) + &Idx::from(which)]].concat();
                (quotient(&place).rounded().larger(-8.0).smaller(7.0) + 8.0).cast(DType::I32)
            };
            (nibble(0) + nibble(1) * Expr::int(DType::I32, 16)).cast(DType::U8)
        } else {
            let quotient = quotient(&vars(0, &shape));
            saturated(if self.dtype.is_int() { quotient.rounded() } else { quotient }, self.dtype)
        };
        p.map(shape, body)
    }

    /// The numbers that codes stand for.
    pub fn decoded(&self, p: &mut Program, codes: ValueId, dtype: DType) -> ValueId {
        let mut shape = p.shape(codes).to_vec();
        let body = |p: &Program, at: &[Idx]| {
            let code = match self.packed {
                true => (unpacked(p, codes, &at[..3], &at[3], 4) - Expr::int(DType::I32, 8)).cast(DType::F32),
                false => p.load(codes, at).cast(DType::F32),
            };
            (code * self.scale(p, at)).cast(dtype)
        };
        if self.packed {
            shape[3] = &shape[3] * &Idx::from(2i64);
        }
        let body = body(p, &vars(0, &shape));
        p.map(shape, body)
    }
}
