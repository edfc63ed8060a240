//! Scalar expressions: a typed, shared DAG.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::index::Idx;
use super::listing::Listing;
use super::value::Value;
use crate::tensor::DType;

/// A function of one number. Floating-point functions follow IEEE 754 and C's `math.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Unary {
    Neg,
    Abs,
    Sign,
    Floor,
    Ceil,
    /// Half to even.
    Round,
    Trunc,
    Exp,
    Log,
    Sqrt,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    /// Logical not.
    Not,
    BitNot,
    IsNan,
    IsPosInf,
    IsNegInf,
}

/// A function of two numbers of one dtype. Comparisons give bool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    /// Integers truncate towards zero; a zero divisor gives the dividend, as in WGSL.
    Div,
    /// The remainder with the dividend's sign (C's `fmod`).
    Rem,
    /// The remainder with the divisor's sign (Python's `%`).
    Mod,
    Pow,
    /// Either operand when one is NaN, as in WGSL.
    Min,
    /// Either operand when one is NaN, as in WGSL.
    Max,
    Eq,
    Lt,
    Le,
    And,
    Or,
    Xor,
    BitAnd,
    BitOr,
    BitXor,
    /// Shift counts of the width or more give 0.
    Shl,
    Shr,
}

impl Binary {
    /// Whether the result is bool whatever the operands are.
    pub fn is_comparison(self) -> bool {
        matches!(self, Binary::Eq | Binary::Lt | Binary::Le)
    }
}

/// A typed constant.
#[derive(Clone, Copy, Debug)]
pub struct Const {
    /// Its dtype.
    pub dtype: DType,
    /// Its value.
    pub value: Value,
}

impl Const {
    fn key(&self) -> (DType, u8, u64) {
        match self.value {
            Value::F(v) => (self.dtype, 0, v.to_bits()),
            Value::I(v) => (self.dtype, 1, v as u64),
            Value::B(v) => (self.dtype, 2, v as u64),
        }
    }
}

impl PartialEq for Const {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Const {}
impl Hash for Const {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state)
    }
}
impl PartialOrd for Const {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Const {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Node {
    /// A constant.
    Const(Const),
    /// An index as a number of an integer dtype.
    Index(Idx, DType),
    /// An element of a tensor: the source's number, its dtype, and where (one index per axis, or one
    /// row-major offset, as the user of the expression defines).
    Load {
        /// Number of the tensor.
        source: u32,
        /// Its dtype.
        dtype: DType,
        /// Where.
        at: Vec<Idx>,
    },
    /// A value that the kernel supplies: an accumulator, a row statistic.
    Arg(u32, DType),
    /// A function of one number.
    Unary(Unary, Expr),
    /// A function of two.
    Binary(Binary, Expr, Expr),
    /// `condition ? a : b`; only the chosen side is evaluated.
    Select(Expr, Expr, Expr),
    /// Conversion: floats to integers truncate and saturate, integers wrap, anything non-zero is true.
    Cast(DType, Expr),
    /// The same bits as a number of another dtype of the same width.
    Bits(DType, Expr),
}

struct Inner {
    hash: u64,
    dtype: DType,
    node: Node,
}

/// A scalar expression. Cloning shares it.
#[derive(Clone)]
pub struct Expr(Arc<Inner>);

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.hash == other.0.hash && self.0.node == other.0.node)
    }
}
impl Eq for Expr {}
impl Hash for Expr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash.hash(state)
    }
}
impl PartialOrd for Expr {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Expr {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return std::cmp::Ordering::Equal;
        }
        self.0.hash.cmp(&other.0.hash).then_with(|| self.0.node.cmp(&other.0.node))
    }
}

impl Expr {
    pub(super) fn new(node: Node, dtype: DType) -> Expr {
        let mut hasher = std::hash::DefaultHasher::new();
        node.hash(&mut hasher);
        Expr(Arc::new(Inner { hash: hasher.finish(), dtype, node }))
    }

    /// What it is.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// The dtype of its value.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// An address that is equal for shared expressions, for memoising walks.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// Whether other expressions may hold it too, and it is worth remembering.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1 && !matches!(self.node(), Node::Const(_) | Node::Arg(..))
    }

    /// The value, when it is a constant.
    pub fn as_const(&self) -> Option<Value> {
        match self.node() {
            Node::Const(c) => Some(c.value),
            _ => None,
        }
    }

    /// The value as an index, when it is an integer made of sizes and loop variables only.
    pub fn as_idx(&self) -> Option<Idx> {
        match self.node() {
            Node::Const(Const { value: Value::I(v), .. }) => Some(Idx::from(*v)),
            Node::Index(idx, _) => Some(idx.clone()),
            _ => None,
        }
    }

    /// The expression as a position in `0..extent`: an index where it is one, else a value read at run time.
    pub fn to_position(&self, extent: &Idx) -> Idx {
        self.as_idx().unwrap_or_else(|| Idx::data(self.clone(), extent))
    }
}

impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.node() {
            Node::Const(c) => match c.value {
                Value::F(v) => write!(f, "{v}"),
                Value::I(v) => write!(f, "{v}"),
                Value::B(v) => write!(f, "{v}"),
            },
            Node::Index(idx, _) => write!(f, "({idx})"),
            Node::Load { source, at, .. } => {
                write!(f, "t{source}[")?;
                for (i, idx) in at.iter().enumerate() {
                    write!(f, "{}{idx}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Node::Arg(number, _) => write!(f, "arg{number}"),
            Node::Unary(op, a) => write!(f, "{op:?}({a})"),
            Node::Binary(op, a, b) => write!(f, "{op:?}({a}, {b})"),
            Node::Select(c, a, b) => write!(f, "({c} ? {a} : {b})"),
            Node::Cast(dtype, a) => write!(f, "{dtype}({a})"),
            Node::Bits(dtype, a) => write!(f, "bits {dtype}({a})"),
        }
    }
}

/// A canonical text, of which tuning keys are made.
impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&Listing::of(self))
    }
}
