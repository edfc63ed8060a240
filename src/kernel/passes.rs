//! A schedule as the dispatches that it takes: one, or several that hand intermediate results on through scratch
//! memory. The passes are ordinary kernels, so a family that splits its work needs no skeleton of its own for the
//! rest.

use super::apart;
use super::attention_passes;
use super::caps::Caps;
use super::generic::generic;
use super::moved::Moved;
use super::packed;
use super::row_parts;
use super::schedule::{Schedule, Sizes};
use super::spec::{Body, KernelSpec};
use super::split_k;
use super::topk_passes;
use crate::expr::Idx;

/// What a pass reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Input number n of the kernel.
    Input(usize),
    /// The kernel's output.
    Output,
    /// Memory that lives between the passes, number n.
    Scratch(usize),
}

/// One dispatch of a kernel.
#[derive(Clone, Debug)]
pub struct Pass {
    /// What it computes; its first parameters are the whole kernel's.
    pub spec: KernelSpec,
    /// Values of its parameters.
    pub sizes: Vec<i64>,
    /// How.
    pub schedule: Schedule,
    /// Its inputs, in the order of its spec.
    pub inputs: Vec<Slot>,
    /// Where its output goes: never where it reads from.
    pub output: Slot,
    /// Number of elements of the output.
    pub len: Idx,
}

/// The passes of `spec` under `schedule`, in order; the last writes the output.
pub fn passes(spec: &KernelSpec, schedule: &Schedule, sizes: Sizes, caps: &Caps) -> Vec<Pass> {
    let several = match (&spec.body, schedule) {
        (Body::Contract(body), _) if schedule.split_k() > 1 => {
            Some(split_k::passes(spec, body, schedule, sizes, caps))
        }
        (_, Schedule::Apart(s)) => apart::passes(spec, s, sizes, caps),
        (_, Schedule::Packed(s)) => packed::passes(spec, s, sizes, caps),
        (Body::Reduce { .. }, Schedule::Reduce(s)) if s.parts > 1 => row_parts::passes(spec, s, sizes, caps),
        (Body::Attention(body), Schedule::Attention(s)) => {
            attention_passes::passes(spec, body, s, sizes, caps)
        }
        (Body::TopK(body), Schedule::TopK(s)) if s.parts > 1 => {
            Some(topk_passes::selected(spec, body, s, sizes))
        }
        (Body::TopK(body), Schedule::Sort(s)) => Some(topk_passes::sorted(spec, body, s, sizes)),
        (
            Body::Map { .. }
            | Body::Update { .. }
            | Body::Reduce { .. }
            | Body::Contract(_)
            | Body::Conv(_)
            | Body::Attention(_)
            | Body::TopK(_),
            _,
        ) => None,
    };
    let passes = several.unwrap_or_else(|| {
        vec![Pass {
            spec: spec.clone(),
            sizes: sizes.to_vec(),
            schedule: schedule.clone(),
            inputs: Moved::all(spec),
            output: Slot::Output,
            len: spec.output_len(),
        }]
    });
    if caps.cpu { passes.into_iter().map(generic).collect() } else { passes }
}
