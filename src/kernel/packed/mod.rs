//! A contraction or convolution of 8-bit integers by packed dot products, which take four terms of the sum at once:
//!
//! ```text
//! A[b, m, k] = (codes_a[b, m, k] - zero_a[b, m]) * scale_a[b, m],  B alike
//! words_a[b, m, q] = codes_a[b, m, 4 q .. 4 q + 3], a byte each, 0 beyond the end of K       a map, for B another
//! sums_b[b, n]     = sum over k of codes_b[b, k, n]           a reduction, where A has zero points; for A another
//! out[b, m, n]     = epilogue(scale_a * scale_b * (sum over q of dot(words_a[b, m, q], words_b[b, n, q])
//!                                                  - zero_a * sums_b - zero_b * (sums_a - K * zero_a)))
//! ```
//!
//! Without scales, exactly the same integers: all of it wraps in 32 bits. With them, as behind DequantizeLinear, the same
//! but for the rounding of floats, where no sum can wrap. Constants that lie packed along K are read where they are. Of
//! an unsigned and a signed operand, the unsigned one's codes and zero points are taken less 128.

mod conv;
mod operand;
mod product;
mod words;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use self::words::Packing;
use crate::expr::{Idx, Node};
use crate::kernel::apart::ApartSchedule;
use crate::kernel::caps::Caps;
use crate::kernel::passes::{Pass, Slot};
use crate::kernel::peaks::Peaks;
use crate::kernel::schedule::{Schedule, Sizes, size};
use crate::kernel::space;
use crate::kernel::spec::{Body, KernelSpec};

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

/// Bindings of the product of words that are not its inputs' first: the output, and either operand by fours.
const RESERVED_BINDINGS: usize = 3;
/// Schedules of the product of words that are tried.
const MOST: usize = 8;

/// The kernels before the product of words, number i of which writes scratch memory i, and the product.
struct Parts {
    before: Vec<KernelSpec>,
    rest: KernelSpec,
    /// Terms of each sum, and how many it may have.
    terms: Idx,
    most_terms: i64,
}

impl Parts {
    fn new(packing: Packing, body: Body, terms: Idx, most_terms: i64) -> Parts {
        let rest = packing.rest(body);
        Parts { before: packing.before, rest, terms, most_terms }
    }

    /// Tensors that the product reads.
    fn inputs(&self) -> usize {
        let mut read = BTreeSet::new();
        for expr in self.rest.exprs() {
            expr.visit(&mut |e| {
                if let Node::Load { source, .. } = e.node() {
                    read.insert(*source);
                }
            });
        }
        read.len()
    }
}

/// The kernels; `None` for what is no product of 8-bit integers.
fn parts(spec: &KernelSpec) -> Option<Parts> {
    match &spec.body {
        Body::Contract(body) => product::parts(spec, body),
        Body::Conv(body) => conv::parts(spec, body),
        Body::Map { .. } | Body::Update { .. } | Body::Reduce { .. } | Body::Attention(_) | Body::TopK(_) => {
            None
        }
    }
}

/// Rows and columns from which on a matrix that is read again and again is worth making apart.
const MANY: i64 = 32;

/// What an untuned run on a CPU adapter uses instead of the schedule `whole` of a product of codes: it makes the matrix
/// that is no constant apart, so once (lavapipe, 128 x 1536 x 384: 27 ms and not 31). Packing, at 9 ms, is left to tuning:
/// it has up to four kernels more to compile for each shape.
pub fn default(spec: &KernelSpec, whole: &Schedule, sizes: Sizes, caps: &Caps) -> Option<Schedule> {
    let Body::Contract(body) = &spec.body else { return None };
    if !caps.cpu || [&body.m, &body.n].iter().any(|extent| size(extent, sizes) < MANY) {
        return None;
    }
    let part = product::dequantized(body)?;
    let schedule = Schedule::Apart(ApartSchedule { part, rest: Box::new(whole.clone()) });
    space::broken_rule(spec, &schedule, sizes, caps).is_none().then_some(schedule)
}

pub fn points(spec: &KernelSpec, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> Vec<Schedule> {
    let Some(parts) = parts(spec) else { return Vec::new() };
    let rest = space::fused_space(&parts.rest, sizes, caps, peaks).kept.into_iter();
    let rest = rest.filter(Schedule::is_one_pass).take(MOST);
    rest.map(|rest| Schedule::Packed(PackedSchedule { rest: Box::new(rest) })).collect()
}

/// The passes; `None` for other products.
pub fn passes(spec: &KernelSpec, s: &PackedSchedule, sizes: Sizes, caps: &Caps) -> Option<Vec<Pass>> {
    let Parts { before, rest, .. } = parts(spec)?;
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
    } else if size(&parts.terms, sizes) > parts.most_terms {
        Some("sums that may exceed 32 bits")
    } else if parts.inputs() + RESERVED_BINDINGS > caps.max_storage_bindings as usize {
        Some("more bindings than the device allows")
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
