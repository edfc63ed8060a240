//! Steps that a run repeats, and where their states lie: two tensors change places after each repetition.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::{Plan, SymbolValues, TensorId, size};
use crate::error::{Error, Result};
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

/// A step of a run.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The step's number in [`Plan::steps`].
    pub step: usize,
    /// The symbols that it sees: those of the run, and the numbers of the repetitions in which it stands.
    pub symbols: SymbolValues,
}

/// Steps of a run at the most: written down, so many take some gigabytes.
const MOST_TURNS: usize = 1 << 24;

impl Plan {
    /// The steps in the order in which a run makes them.
    ///
    /// # Errors
    /// As [`size`]; [`Error::Limit`] where there are too many.
    pub fn turns(&self, symbols: &SymbolValues) -> Result<Vec<Turn>> {
        let mut turns = Vec::with_capacity(self.steps.len());
        self.add_turns(0..self.steps.len(), &self.repeats, symbols, &mut turns)?;
        Ok(turns)
    }

    /// The turns of `steps`, in which `repeats` stand.
    fn add_turns(
        &self,
        steps: Range<usize>,
        mut repeats: &[Repeat],
        symbols: &SymbolValues,
        turns: &mut Vec<Turn>,
    ) -> Result<()> {
        let once = |step| Turn { step, symbols: symbols.clone() };
        let mut next = steps.start;
        while let Some((repeat, others)) = repeats.split_first() {
            let (inner, later) =
                others.split_at(others.partition_point(|other| other.steps.start < repeat.steps.end));
            turns.extend((next..repeat.steps.start).map(once));
            let mut symbols = symbols.clone();
            for repetition in 0..size(&repeat.count, &symbols, "a sequence")? as i64 {
                symbols.insert(repeat.step.clone(), repetition);
                self.add_turns(repeat.steps.clone(), inner, &symbols, turns)?;
                if turns.len() > MOST_TURNS {
                    let name = &self.tensors[self.steps[repeat.steps.start].output].name;
                    let found =
                        format!("repeated {} times, a run has more than {MOST_TURNS} steps", repeat.count);
                    return Err(Error::limit(name, found));
                }
            }
            (next, repeats) = (repeat.steps.end, later);
        }
        turns.extend((next..steps.end).map(once));
        Ok(())
    }

    /// The tensor whose memory holds `tensor` at a step of a run that sees `symbols`, or, where that is `None`, at its end.
    ///
    /// # Errors
    /// As [`size`].
    pub fn holder(&self, tensor: TensorId, step: Option<usize>, symbols: &SymbolValues) -> Result<TensorId> {
        for repeat in &self.repeats {
            for &(old, new) in &repeat.states {
                if tensor != old && tensor != new {
                    continue;
                }
                let exchanges = match step {
                    Some(step) if step < repeat.steps.start => 0,
                    Some(step) if step < repeat.steps.end => symbols.get(&repeat.step).copied().unwrap_or(0),
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
        let read = program.reachable(all);
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
