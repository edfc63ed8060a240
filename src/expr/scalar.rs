//! Scalar expressions: a typed, shared DAG. Constructors fold constants and index arithmetic.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::eval::{apply_binary, apply_cast, apply_unary, convert, reinterpret};
use super::index::{Atom, Idx};
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
    fn new(node: Node, dtype: DType) -> Expr {
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

    /// Rebuild with loads replaced by `load(source, dtype, at)` (`at` not yet rewritten) and atoms of
    /// indices replaced by `atom`. Shared parts stay shared.
    pub fn rewrite(&self, rewriter: &mut dyn Rewrite) -> Expr {
        rewrite(self, rewriter, &mut std::collections::HashMap::new())
    }

    /// Visit every node once, parents first. Indices' data reads are visited too.
    pub fn visit(&self, f: &mut dyn FnMut(&Expr)) {
        let mut seen = std::collections::HashSet::new();
        visit(self, &mut seen, f);
    }

    /// Visit every index expression of the loads and numbers in it, data reads' included.
    pub fn visit_indices(&self, f: &mut dyn FnMut(&Idx)) {
        self.visit(&mut |e| match e.node() {
            Node::Index(idx, _) => f(idx),
            Node::Load { at, .. } => at.iter().for_each(&mut *f),
            Node::Const(_)
            | Node::Arg(..)
            | Node::Unary(..)
            | Node::Binary(..)
            | Node::Select(..)
            | Node::Cast(..)
            | Node::Bits(..) => {}
        });
    }
}

/// How [`Expr::rewrite`] replaces the leaves.
pub trait Rewrite {
    /// The replacement of a load whose indices are already rewritten.
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr;
    /// The replacement of an index atom, `None` to keep it. Data reads are rewritten by the walk.
    fn atom(&mut self, atom: &Atom) -> Option<Idx>;
    /// The replacement of an argument.
    fn arg(&mut self, number: u32, dtype: DType) -> Expr {
        Expr::arg(number, dtype)
    }
}

type Memo = std::collections::HashMap<usize, (Expr, Expr)>;

/// Rewrite an index, data reads included.
pub fn rewrite_idx(idx: &Idx, rewriter: &mut dyn Rewrite, memo: &mut Memo) -> Idx {
    idx.rewrite(&mut |atom| match atom {
        Atom::Data(value, extent) => {
            let value = rewrite(value, rewriter, memo);
            let extent = rewrite_idx(extent, rewriter, memo);
            Some(value.to_position(&extent))
        }
        _ => rewriter.atom(atom),
    })
}

fn rewrite(expr: &Expr, rewriter: &mut dyn Rewrite, memo: &mut Memo) -> Expr {
    if let Some((_, done)) = memo.get(&expr.id()) {
        return done.clone();
    }
    let done = match expr.node() {
        Node::Const(_) => expr.clone(),
        Node::Index(idx, dtype) => Expr::index(rewrite_idx(idx, rewriter, memo), *dtype),
        Node::Load { source, dtype, at } => {
            let at = at.iter().map(|i| rewrite_idx(i, rewriter, memo)).collect();
            rewriter.load(*source, *dtype, at)
        }
        Node::Arg(number, dtype) => rewriter.arg(*number, *dtype),
        Node::Unary(op, a) => rewrite(a, rewriter, memo).unary(*op),
        Node::Binary(op, a, b) => rewrite(a, rewriter, memo).binary(*op, &rewrite(b, rewriter, memo)),
        Node::Select(c, a, b) => {
            let c = rewrite(c, rewriter, memo);
            match c.as_const() {
                Some(Value::B(true)) => rewrite(a, rewriter, memo),
                Some(Value::B(false)) => rewrite(b, rewriter, memo),
                _ => c.select(&rewrite(a, rewriter, memo), &rewrite(b, rewriter, memo)),
            }
        }
        Node::Cast(dtype, a) => rewrite(a, rewriter, memo).cast(*dtype),
        Node::Bits(dtype, a) => rewrite(a, rewriter, memo).bits(*dtype),
    };
    memo.insert(expr.id(), (expr.clone(), done.clone()));
    done
}

fn visit(expr: &Expr, seen: &mut std::collections::HashSet<usize>, f: &mut dyn FnMut(&Expr)) {
    if !seen.insert(expr.id()) {
        return;
    }
    f(expr);
    let in_index = |idx: &Idx, seen: &mut std::collections::HashSet<usize>, f: &mut dyn FnMut(&Expr)| {
        let mut reads = Vec::new();
        idx.visit(&mut |atom| {
            if let Atom::Data(value, _) = atom {
                reads.push(value.clone());
            }
        });
        reads.iter().for_each(|value| visit(value, seen, f));
    };
    match expr.node() {
        Node::Const(_) | Node::Arg(..) => {}
        Node::Index(idx, _) => in_index(idx, seen, f),
        Node::Load { at, .. } => at.iter().for_each(|idx| in_index(idx, seen, f)),
        Node::Unary(_, a) | Node::Cast(_, a) | Node::Bits(_, a) => visit(a, seen, f),
        Node::Binary(_, a, b) => {
            visit(a, seen, f);
            visit(b, seen, f);
        }
        Node::Select(c, a, b) => {
            visit(c, seen, f);
            visit(a, seen, f);
            visit(b, seen, f);
        }
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
    Some(Expr::index(idx, dtype))
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

impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}
