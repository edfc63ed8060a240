//! A contraction of 8-bit integers by packed dot products, which take four positions of K at once:
//!
//! ```text
//! A[b, m, k] = codes_a[b, m, k] - zero_a[b, m],  B alike
//! words_a[b, m, q] = codes_a[b, m, 4 q .. 4 q + 3], a byte each, 0 beyond the end of K       a map, for B another
//! sums_b[b, n]     = sum over k of codes_b[b, k, n]           a reduction, where A has zero points; for A another
//! out[b, m, n]     = epilogue(sum over q of dot(words_a[b, m, q], words_b[b, n, q])
//!                             - zero_a * sums_b - zero_b * (sums_a - K * zero_a))
//! ```
//!
//! Exactly the same integers: all of it wraps in 32 bits. Constants that lie packed along K are read where they are. Of
//! an unsigned and a signed operand, the unsigned one's codes and zero points are taken less 128.

use serde::{Deserialize, Serialize};

use super::apart::depends;
use super::caps::Caps;
use super::fours::in_fours;
use super::moved::Moved;
use super::passes::{Pass, Slot};
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space;
use super::spec::{Body, ContractBody, KernelSpec, Product, RowResult, Stage};
use crate::expr::{Binary, Expr, Idx, Node, Value, flatten, numel, unflatten};
use crate::ir::Combine;
use crate::tensor::DType;

/// The schedule of the product of words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PackedSchedule {
    /// Of the contraction that reads the words, in one pass.
    pub rest: Box<Schedule>,
}

impl std::fmt::Display for PackedSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "packed {}", self.rest)
    }
}

/// Schedules of the product of words that are tried.
const MOST: usize = 8;

/// The kernels before the product of words, number i of which writes scratch memory i, and the product.
struct Parts {
    before: Vec<KernelSpec>,
    rest: KernelSpec,
}

pub fn points(spec: &KernelSpec, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> Vec<Schedule> {
    let Some(parts) = parts(spec) else { return Vec::new() };
    let rest = space::fused_space(&parts.rest, sizes, caps, peaks).kept.into_iter();
    let rest = rest.filter(Schedule::is_one_pass).take(MOST);
    rest.map(|rest| Schedule::Packed(PackedSchedule { rest: Box::new(rest) })).collect()
}

/// The passes; `None` for other products.
pub fn passes(spec: &KernelSpec, s: &PackedSchedule, sizes: Sizes, caps: &Caps) -> Option<Vec<Pass>> {
    let Parts { before, rest } = parts(spec)?;
    let own = spec.inputs.len();
    let pass = |spec: KernelSpec, schedule, output| {
        let slot = |i| if i < own { Slot::Input(i) } else { Slot::Scratch(i - own) };
        let (inputs, len) = ((0..spec.inputs.len()).map(slot).collect(), spec.output_len());
        Pass { spec, sizes: sizes.to_vec(), schedule, inputs, output, len }
    };
    let first = |(number, spec): (usize, KernelSpec)| {
        let schedule = space::default_schedule(&spec, sizes, caps);
        pass(spec, schedule, Slot::Scratch(number))
    };
    let mut passes: Vec<Pass> = before.into_iter().enumerate().map(first).collect();
    passes.push(pass(rest, (*s.rest).clone(), Slot::Output));
    Some(passes)
}

pub fn broken_rule(spec: &KernelSpec, s: &PackedSchedule, sizes: Sizes, caps: &Caps) -> Option<&'static str> {
    let Some(parts) = parts(spec) else {
        return Some("packed products of other numbers than 8-bit integers");
    };
    let beyond = |spec: &KernelSpec| {
        size(&spec.output_len(), sizes).max(1) as u64 > caps.max_storage_binding_bytes / 4
    };
    if !caps.packed_dot {
        Some("no packed dot products")
    } else if parts.before.iter().any(beyond) {
        Some("packed operands beyond what the device binds")
    } else if parts.before.iter().any(|spec| !space::default_schedule(spec, sizes, caps).is_one_pass()) {
        Some("packed operands whose sums take several passes")
    } else if !s.rest.is_one_pass() {
        Some("several passes behind packed operands")
    } else {
        space::broken_rule(&parts.rest, &s.rest, sizes, caps)
    }
}

/// All kernels' times.
pub fn estimate_ns(spec: &KernelSpec, s: &PackedSchedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    let Some(parts) = parts(spec) else { return f64::INFINITY };
    let first = |spec: &KernelSpec| {
        let schedule = space::default_schedule(spec, sizes, caps);
        space::estimate_ns(spec, &schedule, sizes, caps, peaks)
    };
    let before: f64 = parts.before.iter().map(first).sum();
    before + space::estimate_ns(&parts.rest, &s.rest, sizes, caps, peaks)
}

/// Loop variable of K.
const K: u32 = 3;

/// An operand as `codes - zero` in int32: codes that a byte holds, and a zero point that K has no part in.
struct Operand {
    codes: Expr,
    zero: Option<Expr>,
    /// The batch, and the rows of A or columns of B.
    axes: [(u32, Idx); 2],
}

impl Operand {
    fn of(expr: &Expr, axes: [(u32, &Idx); 2]) -> Option<Operand> {
        let axes = axes.map(|(var, extent)| (var, extent.clone()));
        if fits(expr, SIGNED) || fits(expr, UNSIGNED) {
            return Some(Operand { codes: expr.clone(), zero: None, axes });
        }
        let Node::Binary(Binary::Sub, codes, zero) = expr.node() else { return None };
        let fits = (fits(codes, SIGNED) || fits(codes, UNSIGNED)) && !depends(zero, K);
        fits.then(|| Operand { codes: codes.clone(), zero: Some(zero.clone()), axes })
    }

    /// The same of signed codes.
    fn signed(self) -> Operand {
        if fits(&self.codes, SIGNED) {
            return self;
        }
        let half = Expr::int(DType::I32, 128);
        let zero = self.zero.unwrap_or_else(|| Expr::int(DType::I32, 0)) - &half;
        Operand { codes: self.codes - half, zero: Some(zero), axes: self.axes }
    }

    /// The axes along which the codes change.
    fn own_axes(&self) -> Axes {
        self.axes.iter().filter(|(var, _)| depends(&self.codes, *var)).cloned().collect()
    }
}

/// The ranges of a byte.
const SIGNED: [i64; 2] = [-128, 127];
const UNSIGNED: [i64; 2] = [0, 255];

fn fits(expr: &Expr, [low, high]: [i64; 2]) -> bool {
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

/// The kernels; `None` for what is no product of 8-bit integers.
fn parts(spec: &KernelSpec) -> Option<Parts> {
    let Body::Contract(body) = &spec.body else { return None };
    if body.product != Product::Numbers || body.sum != DType::I32 {
        return None;
    }
    let mut a = Operand::of(&body.a, [(0, &body.batch), (1, &body.m)])?;
    let mut b = Operand::of(&body.b, [(0, &body.batch), (2, &body.n)])?;
    let unsigned = fits(&a.codes, UNSIGNED) && fits(&b.codes, UNSIGNED);
    if !unsigned {
        (a, b) = (a.signed(), b.signed());
    }
    let byte = if unsigned { DType::U8 } else { DType::I8 };
    let extents = [&body.batch, &body.m, &body.n, &body.k];
    let words = body.k.div_ceil(&Idx::from(4i64));
    let mut packing = Packing { spec, extents, words, byte, before: Vec::new() };
    let (words_a, words_b) = (packing.words(&a), packing.words(&b));
    let mut sum = Expr::arg(0, DType::I32);
    if let Some(zero) = &a.zero {
        sum = sum - zero * packing.sums(&b, &words_b);
    }
    if let Some(zero) = &b.zero {
        let mut sums = packing.sums(&a, &words_a);
        if let Some(other) = &a.zero {
            sums = sums - Expr::index(body.k.clone(), DType::I32) * other;
        }
        sum = sum - zero * sums;
    }
    let mut corrected = Moved { args: vec![sum], ..Moved::new(Moved::all(spec), Vec::new()) };
    let product = ContractBody {
        k: packing.words.clone(),
        a: words_a,
        b: words_b,
        product: if unsigned { Product::UnsignedBytes } else { Product::SignedBytes },
        epilogue: body.epilogue.rewrite(&mut corrected),
        ..body.clone()
    };
    let rest = KernelSpec { inputs: packing.inputs(), body: Body::Contract(product), ..spec.clone() };
    Some(Parts { before: packing.before, rest })
}

/// Loop variables with their extents, the last one innermost.
type Axes = Vec<(u32, Idx)>;

/// Collects the kernels before the product. Scratch memory is numbered behind the kernel's inputs.
struct Packing<'a> {
    spec: &'a KernelSpec,
    /// Of the contraction's loop variables.
    extents: [&'a Idx; 4],
    /// Words along K.
    words: Idx,
    /// The dtype of a code.
    byte: DType,
    before: Vec<KernelSpec>,
}

impl Packing<'_> {
    /// Dtypes of the kernel's inputs and of scratch memory.
    fn inputs(&self) -> Vec<DType> {
        let scratch = self.before.iter().map(|spec| spec.output);
        self.spec.inputs.iter().copied().chain(scratch).collect()
    }

    /// Adds a kernel, and gives what it writes, an element for each place of `axes`, at the place at hand.
    fn add(&mut self, output: DType, body: Body, axes: &Axes) -> Expr {
        let inputs = self.inputs();
        let number = inputs.len() as u32;
        self.before.push(KernelSpec { inputs, output, params: self.spec.params, body });
        let (at, extents): (Vec<Idx>, Vec<Idx>) =
            axes.iter().map(|(var, extent)| (Idx::var(*var, extent), extent.clone())).unzip();
        Expr::load(number, output, vec![flatten(&at, &extents)])
    }

    /// `expr` with the variables of `axes` at `at`.
    fn moved(&self, expr: &Expr, axes: &Axes, at: Vec<Idx>) -> Expr {
        let mut variables: Vec<Idx> =
            (0..).zip(self.extents).map(|(var, extent)| Idx::var(var, extent)).collect();
        for ((var, _), at) in axes.iter().zip(at) {
            variables[*var as usize] = at;
        }
        let inputs = (0..self.inputs().len()).map(Slot::Input).collect();
        expr.rewrite(&mut Moved::new(inputs, variables))
    }

    /// Four codes of `operand`, at the word at hand.
    fn codes(&self, operand: &Operand) -> [Expr; 4] {
        let (word, axis) = (Idx::var(K, &self.words), vec![(K, self.words.clone())]);
        [0i64, 1, 2, 3].map(|j| {
            let k = &(&word * &Idx::from(4i64)) + &Idx::from(j);
            let code = self.moved(&operand.codes, &axis, vec![k.clone()]);
            if in_fours(self.extents[K as usize]) {
                return code;
            }
            let [k, end] = [&k, self.extents[K as usize]].map(|idx| Expr::index(idx.clone(), DType::I32));
            k.below(end).select(&code, &Expr::int(DType::I32, 0))
        })
    }

    /// The word of `operand` at hand: of a constant, or of what a map writes.
    fn words(&mut self, operand: &Operand) -> Expr {
        let codes = self.codes(operand);
        if let Some(word) = word_in_memory(&codes) {
            return word.clone();
        }
        let low = |code: &Expr| code.cast(DType::U32).binary(Binary::BitAnd, &Expr::int(DType::U32, 255));
        let place = |j: i64| low(&codes[j as usize]).binary(Binary::Shl, &Expr::int(DType::U32, 8 * j));
        let word = (1..4).fold(low(&codes[0]), |word, j| word.binary(Binary::BitOr, &place(j)));
        let axes = [operand.own_axes(), vec![(K, self.words.clone())]].concat();
        let extents: Vec<Idx> = axes.iter().map(|(_, extent)| extent.clone()).collect();
        let len = numel(&extents);
        let value = self.moved(&word, &axes, unflatten(&Idx::var(0, &len), &extents));
        self.add(DType::U32, Body::Map { len, value }, &axes)
    }

    /// The sum over K of `operand`'s codes, from its words.
    fn sums(&mut self, operand: &Operand, words: &Expr) -> Expr {
        let code = |j: i64| {
            let word = words.binary(Binary::Shr, &Expr::int(DType::U32, 8 * j));
            word.cast(self.byte).cast(DType::I32)
        };
        let four = (1..4).fold(code(0), |sum, j| sum + code(j));
        let axes = operand.own_axes();
        let extents: Vec<Idx> = axes.iter().map(|(_, extent)| extent.clone()).collect();
        let rows = numel(&extents);
        let at = [unflatten(&Idx::var(0, &rows), &extents), vec![Idx::var(1, &self.words)]].concat();
        let within = [axes.clone(), vec![(K, self.words.clone())]].concat();
        let value = self.moved(&four, &within, at);
        let stage = Stage { extent: self.words.clone(), combine: Combine::Sum, value };
        let result = RowResult::PerRow(Expr::arg(0, DType::I32));
        self.add(DType::I32, Body::Reduce { rows, stages: vec![stage], result }, &axes)
    }
}

/// The word of which `codes` are the bytes in order.
fn word_in_memory(codes: &[Expr; 4]) -> Option<&Expr> {
    let parts = |j: usize| {
        let Node::Cast(DType::I32, byte) = codes[j].node() else { return None };
        let Node::Cast(DType::I8 | DType::U8, shifted) = byte.node() else { return None };
        let Node::Binary(Binary::Shr, word, by) = shifted.node() else { return None };
        (word.dtype() == DType::U32 && *by == Expr::int(DType::U32, 8 * j as i64)).then_some(word)
    };
    let word = parts(0)?;
    (1..4).all(|j| parts(j) == Some(word)).then_some(word)
}
