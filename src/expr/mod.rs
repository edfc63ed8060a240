//! Scalar and index expressions: build (simplifying on the way), rewrite, evaluate on the CPU, print as WGSL.
//!
//! - [`Idx`] says *where*: integer polynomials over symbols and loop variables, in canonical form.
//! - [`Expr`] says *what*: typed scalar arithmetic over constants, indices and loads.

mod convert;
mod eval;
mod fold;
mod index;
mod listing;
mod minifloat;
mod operators;
mod print;
mod registers;
mod rewrite;
mod scalar;
mod value;
mod wide;

pub use eval::{Env, apply_binary, apply_cast, eval, eval_idx};
pub use index::{Atom, Idx, Var, flatten, numel, unflatten, vars};
pub use minifloat::{Format, format};
pub use operators::Operand;
pub use print::{HELPERS, Names, Printer};
pub use registers::{Floats, Register, device_type};
pub use rewrite::{Rewrite, rewrite_idx};
pub use scalar::{Binary, Const, Expr, Node, Unary};
pub use value::{Value, read_element, write_element};
