//! Rust's operators on expressions: `&x * 0.5 + &y`. A number takes the dtype of its neighbour.

use super::scalar::{Binary, Expr, Unary};
use crate::tensor::DType;

/// What can stand on the right of an operator.
pub trait Operand {
    /// The operand as an expression of `dtype`.
    fn expr(self, dtype: DType) -> Expr;
}

impl Operand for &Expr {
    fn expr(self, _: DType) -> Expr {
        self.clone()
    }
}

impl Operand for Expr {
    fn expr(self, _: DType) -> Expr {
        self
    }
}

impl Operand for f64 {
    fn expr(self, dtype: DType) -> Expr {
        Expr::float(dtype, self)
    }
}

macro_rules! operators {
    ($($name:ident $method:ident),*) => {$(
        impl<R: Operand> std::ops::$name<R> for &Expr {
            type Output = Expr;
            fn $method(self, other: R) -> Expr {
                self.binary(Binary::$name, &other.expr(self.dtype()))
            }
        }
        impl<R: Operand> std::ops::$name<R> for Expr {
            type Output = Expr;
            fn $method(self, other: R) -> Expr {
                (&self).$method(other)
            }
        }
    )*};
}
operators!(Add add, Sub sub, Mul mul, Div div);

macro_rules! functions {
    ($($method:ident $op:ident $doc:literal),*) => {$(
        #[doc = $doc]
        pub fn $method(&self) -> Expr {
            self.unary(Unary::$op)
        }
    )*};
}

macro_rules! comparisons {
    ($($method:ident $op:ident $doc:literal),*) => {$(
        #[doc = $doc]
        pub fn $method(&self, other: impl Operand) -> Expr {
            self.binary(Binary::$op, &other.expr(self.dtype()))
        }
    )*};
}

impl Expr {
    functions!(
        exp Exp "e to the power of this.",
        log Log "The natural logarithm.",
        sqrt Sqrt "The square root.",
        tanh Tanh "The hyperbolic tangent.",
        erf Erf "The error function.",
        abs Abs "The absolute value.",
        negated Neg "This, negated.",
        rounded Round "Rounded, halves to even."
    );

    comparisons!(
        equals Eq "Whether both are equal.",
        below Lt "Whether this is less than `other`.",
        at_most Le "Whether this is `other` or less.",
        larger Max "The larger of both.",
        smaller Min "The smaller of both.",
        power Pow "This to the power of `other`.",
        and And "Whether both are true.",
        or Or "Whether either is true."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_take_the_dtype_of_the_left() {
        let x = Expr::arg(0, DType::F16);
        let y = (&x * 2.0 + &x) / 3.0 - 1.0;
        assert_eq!(y.dtype(), DType::F16);
        assert_eq!(y.to_string(), "Sub(Div(Add(Mul(arg0, 2), arg0), 3), 1)");
        assert_eq!((Expr::float(DType::F32, 2.0) * 4.0).as_const(), Expr::float(DType::F32, 8.0).as_const());
    }
}
