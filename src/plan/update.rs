//! Updates in place: what is written where an output takes over the memory of an input that it is an update of.

use std::collections::BTreeSet;

use super::fuse::Fusion;
use super::pack::Packed;
use super::spec::{Made, make as made};
use super::{Plan, PlanOutput, Source, SymbolValues, TensorId, bound_bytes, shape, through_reshapes};
use crate::error::Result;
use crate::ir::{Program, ValueId};
use crate::kernel::{Caps, storage_bytes};

/// The kernel that writes what is new in `root`, and the value that all else is from; `None` where `root` is no update, or
/// what is new is only known in its own kernel.
pub fn make(program: &Program, fusion: &Fusion, packed: &Packed, root: ValueId) -> Option<(ValueId, Made)> {
    let update = program.value(root).update.as_ref()?;
    let Some(expanded) = fusion.expand_update(root, update) else {
        let name = &program.value(root).name;
        tracing::debug!(name, "is written whole: what is new is computed with the rest");
        return None;
    };
    Some((through_reshapes(program, update.base), made(program, packed, root, expanded)))
}

impl Plan {
    /// The steps that a run of these sizes does in place, where the outputs numbered in `outputs` stay on the device:
    /// those that make an output of an input that is given up for it, which `takes_over(input, output)` says, and has its
    /// shape.
    ///
    /// # Errors
    /// As [`shape`].
    pub fn in_place(
        &self,
        symbols: &SymbolValues,
        caps: &Caps,
        outputs: &BTreeSet<usize>,
        takes_over: impl Fn(usize, usize) -> bool,
    ) -> Result<BTreeSet<usize>> {
        let mut steps = BTreeSet::new();
        for (&number, update) in &self.updates {
            let made = update.step.output;
            let is_made = |&n: &usize| matches!(self.outputs[n].source, Source::Device(t) if t == made);
            let output = outputs.iter().copied().find(is_made);
            if !output.is_some_and(|output| takes_over(update.input, output)) {
                continue;
            }
            let (tensor, base) = (&self.tensors[made], &self.tensors[update.base]);
            let [new, old] = [tensor, base].map(|tensor| shape(&tensor.shape, symbols, &tensor.name));
            let (new, old) = (new?, old?);
            // What is larger than a binding is written in parts, which an update cannot be.
            let size_bytes = bound_bytes(new.iter().product(), storage_bytes(tensor.dtype, caps.floats()));
            if new == old && size_bytes <= caps.max_storage_binding_bytes {
                steps.insert(number);
            } else {
                tracing::debug!(name = tensor.name, ?new, ?old, "is written whole");
            }
        }
        Ok(steps)
    }

    /// The steps of a run that does those of `in_place` so: what only their other form reads is not computed.
    pub fn needed(&self, in_place: &BTreeSet<usize>) -> BTreeSet<usize> {
        if in_place.is_empty() {
            return (0..self.steps.len()).collect();
        }
        let tensor = |output: &PlanOutput| match output.source {
            Source::Device(tensor) => Some(tensor),
            Source::Host(_) | Source::Constant(_) => None,
        };
        let mut read: BTreeSet<TensorId> = self.outputs.iter().filter_map(tensor).collect();
        read.extend(self.next.iter().flat_map(|next| next.live.iter().map(|&(_, tensor)| tensor)));
        let mut needed = BTreeSet::new();
        for number in (0..self.steps.len()).rev() {
            let step = self.step(number, in_place);
            let is_repeated = self.repeats.iter().any(|repeat| repeat.steps.contains(&number));
            if is_repeated || read.contains(&step.output) {
                read.extend(&step.inputs);
                needed.insert(number);
            }
        }
        needed
    }
}
