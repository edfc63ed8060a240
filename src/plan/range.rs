//! What an integer can be: the smallest and the largest value.

use crate::expr::{Atom, Binary, Idx, Unary, Value, read_element};
use crate::tensor::{DType, Tensor};

/// All integers from `low` to `high`, in numbers wide enough for any product of two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub low: i128,
    pub high: i128,
}

impl Range {
    pub fn new(low: i128, high: i128) -> Range {
        Range { low, high }
    }

    /// What a dtype can hold; floats count as anything.
    pub fn of(dtype: DType) -> Range {
        match dtype {
            DType::Bool => Range::new(0, 1),
            _ if dtype.is_unsigned_int() => Range::new(0, (1 << dtype.bits()) - 1),
            _ if dtype.is_int() => Range::new(-(1 << (dtype.bits() - 1)), (1 << (dtype.bits() - 1)) - 1),
            _ => Range::new(i64::MIN as i128, u64::MAX as i128),
        }
    }

    pub fn is_within(self, other: Range) -> bool {
        other.low <= self.low && self.high <= other.high
    }

    pub fn fits_i32(self) -> bool {
        self.is_within(Range::of(DType::I32))
    }

    /// This, as a result of `dtype`: anything, where it may have wrapped.
    pub fn wrapped(self, dtype: DType) -> Range {
        let all = Range::of(dtype);
        if self.is_within(all) { self } else { all }
    }

    /// Whether an operation on 64-bit integers of `dtype` with these results gives the same in 32 bits.
    pub fn narrows(self, dtype: DType) -> bool {
        self.fits_i32() && self.is_within(Range::of(dtype))
    }

    pub fn union(self, other: Range) -> Range {
        Range::new(self.low.min(other.low), self.high.max(other.high))
    }

    /// The elements of a constant.
    pub fn of_tensor(tensor: &Tensor) -> Range {
        let unsigned = tensor.dtype() == DType::U64;
        let read = |i| match read_element(tensor.dtype(), tensor.bytes(), i) {
            Some(Value::I(v)) if unsigned => v as u64 as i128,
            Some(v) => v.to_i64() as i128,
            None => i128::MAX,
        };
        let all = (0..tensor.len()).map(read).map(|v| Range::new(v, v));
        all.reduce(Range::union).unwrap_or(Range::new(0, 0))
    }

    /// An index: sums of products, in the 32 bits that shaders compute indices in.
    pub fn of_idx(idx: &Idx) -> Range {
        let mut sum = Range::new(0, 0);
        for (atoms, factor) in idx.terms() {
            let factor = Range::new(*factor as i128, *factor as i128);
            let term = atoms.iter().map(of_atom).fold(factor, mul);
            sum = Range::new(sum.low.saturating_add(term.low), sum.high.saturating_add(term.high));
        }
        let all = Range::of(DType::I32);
        Range::new(sum.low.clamp(all.low, all.high), sum.high.clamp(all.low, all.high))
    }
}

fn of_atom(atom: &Atom) -> Range {
    let most = i32::MAX as i128;
    let below = |extent: &Idx| Range::new(0, (Range::of_idx(extent).high - 1).max(0));
    match atom {
        Atom::Sym(_) => Range::new(0, most),
        Atom::Var(var) => below(&var.extent),
        Atom::Data(_, extent) => below(extent),
        Atom::Div(a, b) => {
            let (a, b) = (Range::of_idx(a), Range::of_idx(b));
            if a.low < 0 {
                Range::of(DType::I32)
            } else {
                Range::new(a.low / b.high.max(1), a.high / b.low.max(1))
            }
        }
        Atom::Mod(a, b) => {
            let (a, b) = (Range::of_idx(a), Range::of_idx(b));
            if a.low < 0 { Range::of(DType::I32) } else { Range::new(0, a.high.min((b.high - 1).max(0))) }
        }
        Atom::Min(a, b) => {
            let (a, b) = (Range::of_idx(a), Range::of_idx(b));
            Range::new(a.low.min(b.low), a.high.min(b.high))
        }
        Atom::Max(a, b) => {
            let (a, b) = (Range::of_idx(a), Range::of_idx(b));
            Range::new(a.low.max(b.low), a.high.max(b.high))
        }
    }
}

pub fn mul(a: Range, b: Range) -> Range {
    let ends = [(a.low, b.low), (a.low, b.high), (a.high, b.low), (a.high, b.high)];
    let products = ends.map(|(x, y)| x.saturating_mul(y));
    products.iter().map(|&p| Range::new(p, p)).reduce(Range::union).unwrap_or(a)
}

/// `op(a)`, before it wraps; `None` where an integer stays what it is, and for predicates.
pub fn unary(op: Unary, a: Range) -> Option<Range> {
    Some(match op {
        Unary::Neg => Range::new(-a.high, -a.low),
        Unary::Abs if a.low >= 0 => a,
        Unary::Abs => Range::new(0, a.high.max(-a.low)),
        Unary::Sign => Range::new(-1, 1),
        Unary::BitNot => Range::new(-1 - a.high, -1 - a.low),
        _ => return None,
    })
}

/// `op(a, b)`, before it wraps; `None` where nothing is known of it.
pub fn binary(op: Binary, a: Range, b: Range) -> Option<Range> {
    let largest = |r: Range| r.high.max(-r.low);
    Some(match op {
        Binary::Add => Range::new(a.low + b.low, a.high + b.high),
        Binary::Sub => Range::new(a.low - b.high, a.high - b.low),
        Binary::Mul => mul(a, b),
        Binary::Min => Range::new(a.low.min(b.low), a.high.min(b.high)),
        Binary::Max => Range::new(a.low.max(b.low), a.high.max(b.high)),
        // No quotient is larger than the dividend, which a zero divisor gives too.
        Binary::Div => Range::new(if a.low >= 0 && b.low >= 0 { 0 } else { -largest(a) }, largest(a)),
        Binary::Rem => Range::new(if a.low >= 0 { 0 } else { -largest(a) }, largest(a)),
        Binary::Mod => Range::new(if b.low >= 0 { 0 } else { -largest(b) }, largest(b)),
        Binary::BitAnd if a.low >= 0 && b.low >= 0 => Range::new(0, a.high.min(b.high)),
        Binary::BitAnd | Binary::BitOr | Binary::BitXor if a.fits_i32() && b.fits_i32() => {
            Range::of(DType::I32)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_every_result() {
        let ends = [-7i64, -2, 0, 3, 5];
        let ops = [
            Binary::Add,
            Binary::Sub,
            Binary::Mul,
            Binary::Div,
            Binary::Rem,
            Binary::Mod,
            Binary::Min,
            Binary::Max,
            Binary::BitAnd,
            Binary::BitOr,
            Binary::BitXor,
        ];
        let ranges = || {
            let pairs = ends.iter().flat_map(|&low| ends.iter().map(move |&high| (low, high)));
            pairs.filter(|(low, high)| low <= high)
        };
        for op in ops {
            for (a, b) in ranges().flat_map(|a| ranges().map(move |b| (a, b))) {
                let range = |(low, high): (i64, i64)| Range::new(low as i128, high as i128);
                let Some(result) = binary(op, range(a), range(b)) else { continue };
                for (x, y) in (a.0..=a.1).flat_map(|x| (b.0..=b.1).map(move |y| (x, y))) {
                    let v =
                        crate::expr::apply_binary(op, Value::I(x), Value::I(y), DType::I64).to_i64() as i128;
                    assert!(result.low <= v && v <= result.high, "{op:?}({x}, {y}) = {v} outside {result:?}");
                }
            }
        }
    }

    #[test]
    fn indices_are_bounded_by_their_loops() {
        let i = Idx::var(0, &Idx::from(10i64));
        let idx = &(&i * &Idx::from(3i64)) - &Idx::from(5i64);
        assert_eq!(Range::of_idx(&idx), Range::new(-5, 22));
        assert_eq!(Range::of_idx(&Idx::sym("n")), Range::new(0, i32::MAX as i128));
    }
}
