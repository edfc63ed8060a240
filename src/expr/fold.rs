//! Constructors of scalar expressions, which fold constants and index arithmetic.

use super::eval::{apply_binary, apply_cast, apply_unary, convert, reinterpret};
use super::index::Idx;
use super::scalar::{Binary, Const, Expr, Node, Unary};
use super::value::Value;
use crate::tensor::DType;

impl Expr {
    /// The constant `value` of a dtype, converted to it.
    pub fn constant(dtype: DType, value: Value) -> Expr {
        Expr::new(Node::Const(Const { dtype, value: apply_cast(dtype, value) }), dtype)
    }

    /// A floating-point number as a constant of any dtype.
    pub fn float(dtype: DType, value: f64) -> Expr {
        Expr::constant(dtype, Value::F(value))
    }

    /// An integer as a constant of any dtype.
    pub fn int(dtype: DType, value: i64) -> Expr {
        Expr::constant(dtype, Value::I(value))
    }

    /// A bool constant.
    pub fn bool(value: bool) -> Expr {
        Expr::constant(DType::Bool, Value::B(value))
    }

    /// An index as an int32.
    pub fn number(idx: &Idx) -> Expr {
        Expr::index(idx.clone(), DType::I32)
    }

    /// An index as a number of dtype `dtype`.
    pub fn index(idx: Idx, dtype: DType) -> Expr {
        match idx.as_const() {
            Some(value) => Expr::int(dtype, value),
            None if dtype.is_int() => Expr::new(Node::Index(idx, dtype), dtype),
            None => Expr::index(idx, DType::I64).cast(dtype),
        }
    }

    /// An element of a tensor.
    pub fn load(source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        Expr::new(Node::Load { source, dtype, at }, dtype)
    }

    /// A value that the kernel supplies.
    pub fn arg(number: u32, dtype: DType) -> Expr {
        Expr::new(Node::Arg(number, dtype), dtype)
    }

    /// `op(self)`.
    pub fn unary(&self, op: Unary) -> Expr {
        if let Some(value) = self.as_const() {
            let dtype = if is_predicate(op) { DType::Bool } else { self.dtype() };
            return Expr::constant(dtype, apply_unary(op, value, self.dtype()));
        }
        if let (Unary::Neg, Some(idx)) = (op, self.as_idx()) {
            return Expr::index(&Idx::from(0i64) - &idx, self.dtype());
        }
        let dtype = if is_predicate(op) { DType::Bool } else { self.dtype() };
        Expr::new(Node::Unary(op, self.clone()), dtype)
    }

    /// `op(self, other)`; both have one dtype.
    pub fn binary(&self, op: Binary, other: &Expr) -> Expr {
        let dtype = if op.is_comparison() { DType::Bool } else { self.dtype() };
        if let (Some(a), Some(b)) = (self.as_const(), other.as_const()) {
            return Expr::constant(dtype, apply_binary(op, a, b, self.dtype()));
        }
        if self.dtype().is_int()
            && let (Some(a), Some(b)) = (self.as_idx(), other.as_idx())
            && let Some(folded) = fold_index(op, &a, &b, dtype)
        {
            return folded;
        }
        if let Some(simple) = self.identity(op, other) {
            return simple;
        }
        Expr::new(Node::Binary(op, self.clone(), other.clone()), dtype)
    }

    /// `x + 0`, `x * 1` and the like, where they are exact.
    fn identity(&self, op: Binary, other: &Expr) -> Option<Expr> {
        let is = |e: &Expr, want: f64| match e.as_const() {
            Some(Value::F(v)) => v == want && v.is_sign_positive(),
            Some(Value::I(v)) => v == want as i64,
            Some(Value::B(v)) => v == (want == 1.0),
            None => false,
        };
        match op {
            Binary::Mul if is(other, 1.0) => Some(self.clone()),
            Binary::Mul if is(self, 1.0) => Some(other.clone()),
            Binary::Div | Binary::Pow if is(other, 1.0) => Some(self.clone()),
            // WGSL refuses a constant divisor of zero, and defines a variable one.
            Binary::Div if is(other, 0.0) && self.dtype().is_int() => Some(self.clone()),
            Binary::Rem | Binary::Mod if is(other, 0.0) && self.dtype().is_int() => {
                Some(Expr::int(self.dtype(), 0))
            }
            Binary::Add | Binary::Sub if is(other, 0.0) && self.dtype().is_int() => Some(self.clone()),
            Binary::And if is(other, 1.0) => Some(self.clone()),
            Binary::And if is(self, 1.0) => Some(other.clone()),
            Binary::And if is(self, 0.0) || is(other, 0.0) => Some(Expr::bool(false)),
            Binary::Or if is(other, 0.0) => Some(self.clone()),
            Binary::Or if is(self, 0.0) => Some(other.clone()),
            Binary::Or if is(self, 1.0) || is(other, 1.0) => Some(Expr::bool(true)),
            _ => None,
        }
    }

    /// `self ? a : b`.
    pub fn select(&self, a: &Expr, b: &Expr) -> Expr {
        match self.as_const() {
            Some(Value::B(true)) => a.clone(),
            Some(Value::B(false)) => b.clone(),
            _ if a == b => a.clone(),
            _ => Expr::new(Node::Select(self.clone(), a.clone(), b.clone()), a.dtype()),
        }
    }

    /// Conversion to `dtype`.
    pub fn cast(&self, dtype: DType) -> Expr {
        if dtype == self.dtype() {
            return self.clone();
        }
        if let Some(value) = self.as_const() {
            return Expr::constant(dtype, convert(dtype, self.dtype(), value));
        }
        if let (Node::Index(idx, _), DType::I32 | DType::I64 | DType::U32 | DType::U64) = (self.node(), dtype)
        {
            return Expr::index(idx.clone(), dtype);
        }
        Expr::new(Node::Cast(dtype, self.clone()), dtype)
    }

    /// The same bits as a number of `dtype`, which has the same width.
    pub fn bits(&self, dtype: DType) -> Expr {
        if dtype == self.dtype() {
            return self.clone();
        }
        if let Some(value) = self.as_const().and_then(|value| reinterpret(dtype, self.dtype(), value)) {
            return Expr::constant(dtype, value);
        }
        Expr::new(Node::Bits(dtype, self.clone()), dtype)
    }
}

fn is_predicate(op: Unary) -> bool {
    matches!(op, Unary::Not | Unary::IsNan | Unary::IsPosInf | Unary::IsNegInf)
}

fn fold_index(op: Binary, a: &Idx, b: &Idx, dtype: DType) -> Option<Expr> {
    let non_negative = || a.is_non_negative() && b.is_non_negative();
    let idx = match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div if non_negative() => a.div(b),
        Binary::Rem | Binary::Mod if non_negative() => a.rem(b),
        Binary::Min => a.smaller(b),
        Binary::Max => a.larger(b),
        Binary::Eq if a == b => return Some(Expr::bool(true)),
        Binary::Eq if a.is_below(b) || b.is_below(a) => return Some(Expr::bool(false)),
        Binary::Lt if a.is_below(b) => return Some(Expr::bool(true)),
        Binary::Lt if b.is_at_most(a) => return Some(Expr::bool(false)),
        Binary::Le if a.is_at_most(b) => return Some(Expr::bool(true)),
        Binary::Le if b.is_below(a) => return Some(Expr::bool(false)),
        _ => return None,
    };
    // Indices are 32-bit: a larger number is computed in its own dtype.
    (!idx.may_leave_i32()).then(|| Expr::index(idx, dtype))
}
