//! The tensor program: every value with its dtype, symbolic shape and *definition*.
//!
//! Seven forms of definition carry all operators. An operator is lowered to a few of them; what becomes a
//! kernel of its own and what is folded into another is decided later, by `plan`.

mod build;
mod content;
mod convolution;
mod evaluate;
mod known;
mod nest;
mod order;
mod repeat;

pub use build::{Given, Needed, Program, Stop};
pub use content::static_shape;
pub use convolution::{ConvAxis, ConvVar, Convolution};
pub use known::count_name;
pub use nest::{Axes, join, split};
pub use order::{before, last};
pub use repeat::{Made, Repeat};

use crate::expr::{Binary, Expr, Idx};
use crate::tensor::{DType, Tensor};

/// Number of a value in its [`Program`]; loads name their source by it.
pub type ValueId = u32;

/// How a reduction combines two partial results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Combine {
    Sum,
    Prod,
    Max,
    Min,
}

impl Combine {
    /// The scalar function.
    pub fn binary(self) -> Binary {
        match self {
            Combine::Sum => Binary::Add,
            Combine::Prod => Binary::Mul,
            Combine::Max => Binary::Max,
            Combine::Min => Binary::Min,
        }
    }

    /// The value that changes nothing: what an empty reduction gives.
    pub fn identity(self, dtype: DType) -> Expr {
        use crate::expr::Value;
        let (low, high) = match dtype {
            _ if dtype.is_float() => (Value::F(f64::NEG_INFINITY), Value::F(f64::INFINITY)),
            _ if !dtype.is_int() => (Value::B(false), Value::B(true)),
            DType::I64 => (Value::I(i64::MIN), Value::I(i64::MAX)),
            // All bits set.
            DType::U64 => (Value::I(0), Value::I(-1)),
            _ if dtype.is_unsigned_int() => (Value::I(0), Value::I((1 << dtype.bits()) - 1)),
            _ => {
                let top = 1i64 << (dtype.bits() - 1);
                (Value::I(-top), Value::I(top - 1))
            }
        };
        match self {
            Combine::Sum => Expr::int(dtype, 0),
            Combine::Prod => Expr::int(dtype, 1),
            Combine::Max => Expr::constant(dtype, low),
            Combine::Min => Expr::constant(dtype, high),
        }
    }
}

/// How a value comes to be. Loop variables `0..rank` of the expressions run over the value's own shape,
/// those from `rank` on over the reduced extents.
#[derive(Clone, Debug)]
pub enum Def {
    /// Graph input number n.
    Input(usize),
    /// A constant from the model, or folded.
    Weight(Tensor),
    /// The same elements in row-major order under another shape.
    Reshape(ValueId),
    /// `out[i] = body(i)`: elementwise arithmetic, broadcasts, and every view and gather, by the indices of its loads.
    Map(Expr),
    /// `out[i] = combine over r of body(i, r)`.
    Reduce {
        /// Extents of the reduced variables.
        extents: Vec<Idx>,
        /// The combining function.
        combine: Combine,
        /// What is combined.
        body: Expr,
    },
    /// `out[b.., m.., n..] = sum over k.. of a(b, m, k) * b(b, k, n)`; the shape's axes are, in order, `batch`
    /// batch axes, `m` axes that only `a` varies with, and the rest, that only `b` varies with.
    Contract {
        /// Number of leading batch axes.
        batch: usize,
        /// Number of axes of M.
        m: usize,
        /// Extents of K.
        k: Vec<Idx>,
        /// The left operand.
        a: Expr,
        /// The right operand.
        b: Expr,
        /// Where this is a convolution: the same sums by windows.
        windows: Option<Box<Convolution>>,
    },
    /// `out[i.., j]` is the position, as int32, of the element of row `i` that stands at place `j` in order of the keys,
    /// equal ones by position. Positions are the key's last loop variable, over `extent` and not over the last axis.
    TopK {
        /// Number of elements of a row.
        extent: Idx,
        /// What they are compared by.
        key: Expr,
        /// Whether large keys come first.
        largest: bool,
    },
    /// `out[at, i..] = body(i..)`, one slice in each repetition of a [`Repeat`]; loop variables run over the slice.
    Stacked {
        /// The slice's number.
        at: Idx,
        /// What each of its elements is.
        body: Expr,
    },
}

/// A value of the program.
#[derive(Clone, Debug)]
pub struct Value {
    /// The ONNX value's name, or one derived from the node that made it.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The shape.
    pub shape: Vec<Idx>,
    /// How it comes to be.
    pub def: Def,
    /// Every element as an expression of symbols and constants, where the value is small and known without
    /// running anything. Shape arithmetic lives here.
    pub content: Option<Vec<Expr>>,
    /// The same said another way, for a map that is another value with a part replaced.
    pub update: Option<Box<Update>>,
}

/// A value that is `base` but for some elements: `out[at(i)] = value(i)` for those `i` within `extents` for which `when(i)`
/// holds; those that have one place have one value. Loop variables are those of `extents`. Where the memory of `base` may be taken
/// over, only these elements need be written.
#[derive(Clone, Debug)]
pub struct Update {
    /// What is updated, of the value's own shape in any run that does so in place.
    pub base: ValueId,
    /// How many elements there may be along each axis.
    pub extents: Vec<Idx>,
    /// Where each goes, by axis of the value.
    pub at: Vec<Idx>,
    /// Whether it goes there.
    pub when: Expr,
    /// What it is.
    pub value: Expr,
}

/// How two sizes are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Both are the same.
    Equal,
    /// The first is the second or less.
    AtMost,
}

impl Relation {
    /// Whether it holds between two numbers.
    pub fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Relation::Equal => left == right,
            Relation::AtMost => left <= right,
        }
    }

    /// Whether it holds whatever the symbols are.
    fn is_proven(self, left: &Idx, right: &Idx) -> bool {
        match self {
            Relation::Equal => left == right,
            Relation::AtMost => left.is_at_most(right),
        }
    }

    /// What a message says of two sizes for which it does not hold.
    pub fn demand(self, left: impl std::fmt::Display, right: impl std::fmt::Display) -> String {
        match self {
            Relation::Equal => format!("{left} and {right} must be equal"),
            Relation::AtMost => format!("{left} must be at most {right}"),
        }
    }
}

/// A claim about sizes that planning relied on and a run must check.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// What is compared ...
    pub left: Idx,
    /// ... by this ...
    pub relation: Relation,
    /// ... with this.
    pub right: Idx,
    /// Who relies on it, as `Add "mask"`.
    pub place: String,
}

impl std::fmt::Display for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = match self.relation {
            Relation::Equal => "=",
            Relation::AtMost => "<=",
        };
        write!(f, "{} {sign} {}  ({})", self.left, self.right, self.place)
    }
}
