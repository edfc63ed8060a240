//! The order of a row's elements: by a key, and equal ones by position.

use super::{Def, Program, ValueId};
use crate::expr::{Binary, Expr, Idx, Unary, vars};
use crate::ir::Combine;
use crate::tensor::DType;

impl Program {
    /// The positions of the first `k` of `extent` elements, in order, as int32: `out[i.., j]` is the position of the one
    /// that `j` others come before. `key` gives an element from `[i.., position]`, the rows being over `rows`.
    pub fn top_k(
        &mut self,
        rows: Vec<Idx>,
        extent: Idx,
        k: Idx,
        largest: bool,
        key: impl FnOnce(&Program, &[Idx]) -> Expr,
    ) -> ValueId {
        let at = vars(0, &[rows.as_slice(), std::slice::from_ref(&extent)].concat());
        let key = ordered(&key(self, &at));
        self.add(DType::I32, [rows, vec![k]].concat(), Def::TopK { extent, key, largest })
    }
}

/// A key that compares as `x` does, without special cases where there is one. Of floats, NaN is the largest number, as in
/// numpy, and both zeros are one: their bits are turned into unsigned integers in the same order. Float64 stays what it
/// is, since not every device has its bits.
fn ordered(x: &Expr) -> Expr {
    let dtype = x.dtype();
    if dtype == DType::Bool {
        return x.cast(DType::U32);
    } else if !dtype.is_float() || dtype == DType::F64 {
        return x.clone();
    }
    let word = |bits: i64| Expr::int(DType::U32, bits);
    let bits = x.cast(DType::F32).bits(DType::U32);
    let is_negative = word(0x8000_0000).below(&bits);
    let turned =
        is_negative.select(&bits.unary(Unary::BitNot), &bits.binary(Binary::BitOr, &word(0x8000_0000)));
    let is_nan = word(0x7f80_0000).below(bits.binary(Binary::BitAnd, &word(0x7fff_ffff)));
    is_nan.select(&word(0xffff_ffff), &turned)
}

/// Whether key `a` comes before key `b`.
pub fn before(a: &Expr, b: &Expr, largest: bool) -> Expr {
    let (low, high) = if largest { (b, a) } else { (a, b) };
    if !a.dtype().is_float() {
        return low.below(high);
    }
    let (low_nan, high_nan) = (low.unary(Unary::IsNan), high.unary(Unary::IsNan));
    // Comparisons with NaN are not used: WGSL leaves open what they give.
    low_nan.select(&Expr::bool(false), &high_nan.select(&Expr::bool(true), &low.below(high)))
}

/// A key that none comes after.
pub fn last(dtype: DType, largest: bool) -> Expr {
    match (largest, dtype.is_float()) {
        (true, _) => Combine::Max.identity(dtype),
        (false, false) => Combine::Min.identity(dtype),
        (false, true) => Expr::float(dtype, f64::NAN),
    }
}
