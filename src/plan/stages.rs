//! A run in stages: where lowering depends on computed values, the part before them is a plan of its own, and the
//! next one takes over what that left on the device.

use std::collections::BTreeSet;

use super::through_reshapes;
use crate::expr::Idx;
use crate::ir::{Def, Given, Program, ValueId, count_name};
use crate::ops::{self, Known, Lowered};

/// The values in memory that the next stage may read: those that are computed, or were by earlier stages.
pub fn live(program: &Program, next: &ops::Next, graph_inputs: usize) -> Vec<ValueId> {
    let stored: BTreeSet<ValueId> = next.live.iter().map(|&id| through_reshapes(program, id)).collect();
    let is_computed = |&id: &ValueId| {
        let value = program.value(id);
        value.content.is_none()
            && match value.def {
                Def::Weight(_) => false,
                Def::Input(number) => number >= graph_inputs,
                Def::Reshape(_)
                | Def::Map(_)
                | Def::Reduce { .. }
                | Def::Contract { .. }
                | Def::TopK { .. }
                | Def::Stacked { .. } => true,
            }
    };
    stored.into_iter().filter(is_computed).collect()
}

/// Make inputs of what earlier stages left on the device; the symbols of their counts.
pub fn enter(lowered: &mut Lowered, known: &Known, graph_inputs: usize) -> Vec<Idx> {
    for (position, &(id, held)) in known.resident.iter().enumerate() {
        let value = &mut lowered.program.values[id as usize];
        (value.def, value.dtype) = (Def::Input(graph_inputs + position), held);
        lowered.inputs.push(id);
    }
    let counts = known.given.iter().filter(|(_, given)| matches!(given, Given::Count));
    counts.map(|(&id, _)| Idx::sym(&count_name(id))).collect()
}
