//! Steps that a run repeats, and where their states lie: two tensors change places after each repetition.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::{Plan, SymbolValues, TensorId, size};
use crate::error::Result;
use crate::expr::Idx;
use crate::ir::{Def, Program, ValueId};

/// Steps that a run makes `count` times in turn.
#[derive(Clone, Debug)]
pub struct Repeat {
    /// The steps.
    pub steps: Range<usize>,
    /// The symbol for how often they were made before.
    pub step: Arc<str>,
    /// How often they are made.
    pub count: Idx,
    /// What is carried on: the tensor that they read, and the one that they write.
    pub states: Vec<(TensorId, TensorId)>,
    /// Tensors of which each repetition writes a part.
    pub stacks: Vec<TensorId>,
}

/// A step of a run, and how often it was made before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The step's number in [`Plan::steps`].
    pub step: usize,
    /// The repetition, 0 for a step that is not repeated.
    pub repetition: i64,
}

impl Plan {
    /// The steps in the order in which a run makes them, with the symbols that each sees.
    ///
    /// # Errors
    /// As [`size`].
    pub fn turns(&self, symbols: &SymbolValues) -> Result<Vec<(Turn, SymbolValues)>> {
        let mut turns = Vec::with_capacity(self.steps.len());
        let mut next = 0;
        for repeat in &self.repeats {
            let once = |step| (Turn { step, repetition: 0 }, symbols.clone());
            turns.extend((next..repeat.steps.start).map(once));
            for repetition in 0..size(&repeat.count, symbols, "a sequence")? as i64 {
                let mut symbols = symbols.clone();
                symbols.insert(repeat.step.clone(), repetition);
                turns.extend(repeat.steps.clone().map(|step| (Turn { step, repetition }, symbols.clone())));
            }
            next = repeat.steps.end;
        }
        turns.extend((next..self.steps.len()).map(|step| (Turn { step, repetition: 0 }, symbols.clone())));
        Ok(turns)
    }

    /// The tensor whose memory holds `tensor` at a step of a run, or, where that is `None`, at its end.
    ///
    /// # Errors
    /// As [`size`].
    pub fn holder(&self, tensor: TensorId, turn: Option<Turn>, symbols: &SymbolValues) -> Result<TensorId> {
        for repeat in &self.repeats {
            for &(old, new) in &repeat.states {
                if tensor != old && tensor != new {
                    continue;
                }
                let exchanges = match turn {
                    Some(turn) if turn.step < repeat.steps.start => 0,
                    Some(turn) if turn.step < repeat.steps.end => turn.repetition,
                    _ => size(&repeat.count, symbols, "a sequence")? as i64,
                };
                return Ok(if exchanges % 2 == 0 { tensor } else { old + new - tensor });
            }
        }
        Ok(tensor)
    }
}

/// The values that a run must store for its repetitions, where what they make is wanted.
pub fn stored(program: &Program, outputs: &BTreeSet<ValueId>) -> BTreeSet<ValueId> {
    let mut stored = BTreeSet::new();
    for repeat in program.repeats.iter().rev() {
        let all: BTreeSet<ValueId> = outputs.union(&stored).copied().collect();
        let read = reachable(program, &all);
        // What an earlier stage of the run made is an input.
        let made = repeat.states.iter().map(|(old, _)| old).chain(&repeat.stacks);
        let is_wanted =
            |id: &&ValueId| read.contains(*id) && !matches!(program.value(**id).def, Def::Input(_));
        if made.clone().any(|id| is_wanted(&id)) {
            stored.extend(repeat.states.iter().flat_map(|&(old, new)| [old, new]));
        }
    }
    stored
}

fn reachable(program: &Program, from: &BTreeSet<ValueId>) -> BTreeSet<ValueId> {
    let (mut seen, mut stack) = (BTreeSet::new(), from.iter().copied().collect::<Vec<_>>());
    while let Some(id) = stack.pop() {
        if seen.insert(id) {
            stack.extend(program.value(id).sources());
        }
    }
    seen
}
