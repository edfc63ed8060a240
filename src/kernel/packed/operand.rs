//! What is multiplied, as 8-bit codes less a zero point, times a scale: `x = (codes - zero) * scale`.

use crate::expr::{Binary, Expr, Idx, Node, Value};
use crate::kernel::apart::depends;
use crate::kernel::moved::Moved;
use crate::kernel::spec::{KernelSpec, Product};
use crate::tensor::DType;

/// An operand: codes that a byte holds, and what the variables of the sum have no part in.
pub struct Operand {
    pub codes: Expr,
    pub zero: Option<Expr>,
    /// Of a product of floats.
    pub scale: Option<Expr>,
}

impl Operand {
    /// An int32.
    fn of_integer(expr: &Expr, summed: &[u32]) -> Option<Operand> {
        let is_byte = |expr: &Expr| fits(expr, SIGNED) || fits(expr, UNSIGNED);
        if is_byte(expr) {
            return Some(Operand { codes: expr.clone(), zero: None, scale: None });
        }
        let Node::Binary(Binary::Sub, codes, zero) = expr.node() else { return None };
        let fits = is_byte(codes) && is_steady(zero, summed);
        fits.then(|| Operand { codes: codes.clone(), zero: Some(zero.clone()), scale: None })
    }

    /// A float32, as DequantizeLinear makes it.
    fn of_float(expr: &Expr, summed: &[u32]) -> Option<Operand> {
        let (number, scale) = match expr.node() {
            Node::Binary(Binary::Mul, number, scale) if is_steady(scale, summed) => (number, Some(scale)),
            _ => (expr, None),
        };
        let Node::Cast(DType::F32, integer) = number.node() else { return None };
        let operand = Operand::of_integer(integer, summed)?;
        Some(Operand { scale: scale.cloned(), ..operand })
    }

    /// The same of signed codes.
    fn signed(self) -> Operand {
        if fits(&self.codes, SIGNED) {
            return self;
        }
        let half = Expr::int(DType::I32, 128);
        let zero = self.zero.unwrap_or_else(|| Expr::int(DType::I32, 0)) - &half;
        Operand { codes: self.codes - half, zero: Some(zero), ..self }
    }

    /// Whether its codes are taken out of words, as those of constants are.
    pub fn is_constant(&self) -> bool {
        let mut in_words = false;
        self.codes.visit(&mut |e| in_words |= matches!(e.node(), Node::Load { dtype: DType::U32, .. }));
        in_words
    }

    /// The largest magnitude of `codes - zero`.
    fn most(&self) -> Option<i64> {
        let [low, high] = range(&self.codes)?;
        let [least, most] = self.zero.as_ref().map_or(Some([0, 0]), range)?;
        Some((high - least).max(most - low))
    }
}

/// Both operands, with codes of one dtype.
pub struct Pair {
    pub left: Operand,
    pub right: Operand,
    /// The codes' dtype: int8 or uint8.
    pub byte: DType,
    /// Terms that a sum may have at the most.
    pub most_terms: i64,
    sum: DType,
}

impl Pair {
    /// Of a product whose sums have dtype `sum` and run over the variables `summed`. Sums of int32 wrap as they do
    /// without packing; those of floats must not.
    pub fn of(left: &Expr, right: &Expr, sum: DType, summed: &[u32]) -> Option<Pair> {
        let of = match sum {
            DType::I32 => Operand::of_integer,
            DType::F32 => Operand::of_float,
            _ => return None,
        };
        let (left, right) = (of(left, summed)?, of(right, summed)?);
        let most_terms = match sum {
            DType::F32 => i64::from(i32::MAX) / (left.most()? * right.most()?).max(1),
            _ => i64::MAX,
        };
        let unsigned = fits(&left.codes, UNSIGNED) && fits(&right.codes, UNSIGNED);
        let (left, right) = if unsigned { (left, right) } else { (left.signed(), right.signed()) };
        let byte = if unsigned { DType::U8 } else { DType::I8 };
        Some(Pair { left, right, byte, most_terms, sum })
    }

    /// What the words are multiplied by.
    pub fn product(&self) -> Product {
        if self.byte == DType::U8 { Product::UnsignedBytes } else { Product::SignedBytes }
    }

    /// The epilogue of the words' product, from that of `spec`. `sums` gives the sums of the left and of the right
    /// operand's codes: either where the other has a zero point.
    pub fn epilogue(&self, spec: &KernelSpec, epilogue: &Expr, terms: &Idx, sums: [Option<Expr>; 2]) -> Expr {
        let args = vec![self.sum(terms, sums)];
        epilogue.rewrite(&mut Moved { args, ..Moved::new(Moved::all(spec), Vec::new()) })
    }

    /// The sum of `terms` terms, from that of the codes' products, which is argument 0.
    fn sum(&self, terms: &Idx, sums: [Option<Expr>; 2]) -> Expr {
        let mut sum = Expr::arg(0, DType::I32);
        let [left, right] = sums;
        if let (Some(zero), Some(right)) = (&self.left.zero, right) {
            sum = sum - zero * right;
        }
        if let (Some(zero), Some(left)) = (&self.right.zero, left) {
            let less = |other| left.clone() - Expr::index(terms.clone(), DType::I32) * other;
            sum = sum - zero * self.left.zero.as_ref().map_or(left.clone(), less);
        }
        let scales = self.left.scale.iter().chain(&self.right.scale).cloned();
        match scales.reduce(|a, b| a * b) {
            Some(scale) => sum.cast(self.sum) * scale,
            None => sum.cast(self.sum),
        }
    }
}

/// Whether none of the variables has a part in `expr`.
fn is_steady(expr: &Expr, variables: &[u32]) -> bool {
    !variables.iter().any(|&var| depends(expr, var))
}

/// The ranges of a byte.
pub const SIGNED: [i64; 2] = [-128, 127];
pub const UNSIGNED: [i64; 2] = [0, 255];

pub fn fits(expr: &Expr, [low, high]: [i64; 2]) -> bool {
    range(expr).is_some_and(|[l, h]| low <= l && h <= high)
}

/// The least and the largest value of an integer that comes of a narrow one.
fn range(expr: &Expr) -> Option<[i64; 2]> {
    let dtype = expr.dtype();
    if let Some(Value::I(value)) = expr.as_const() {
        return Some([value, value]);
    }
    if dtype.is_int() && dtype.bits() <= 8 {
        let half = 1 << (dtype.bits() - 1);
        return Some(if dtype.is_unsigned_int() { [0, 2 * half - 1] } else { [-half, half - 1] });
    }
    match expr.node() {
        Node::Cast(DType::I32, x) => range(x),
        Node::Binary(Binary::Sub, x, y) => {
            let ([low, high], [least, most]) = (range(x)?, range(y)?);
            Some([low - most, high - least])
        }
        Node::Select(_, x, y) => {
            let ([low, high], [least, most]) = (range(x)?, range(y)?);
            Some([low.min(least), high.max(most)])
        }
        Node::Const(_)
        | Node::Index(..)
        | Node::Load { .. }
        | Node::Arg(..)
        | Node::Unary(..)
        | Node::Binary(..)
        | Node::Cast(..)
        | Node::Bits(..) => None,
    }
}
