//! Values that a run computes again and again, each time from what the last time left: recurrences.

use std::ops::Range;
use std::sync::Arc;

use super::{Def, Program, Stop, Value, ValueId};
use crate::expr::{Expr, Idx, vars};

/// Values that are computed `count` times.
#[derive(Clone, Debug)]
pub struct Repeat {
    /// The symbol for how often they were computed before.
    pub step: Arc<str>,
    /// How often they are.
    pub count: Idx,
    /// The values.
    pub values: Range<ValueId>,
    /// What is carried on: the value that a repetition reads, which stands before all of them and begins as what its
    /// definition says, and the one that takes its place after each.
    pub states: Vec<(ValueId, ValueId)>,
    /// The stacks that grow by a slice with each.
    pub stacks: Vec<ValueId>,
}

/// What a repetition makes: the states that the next one reads, and a slice for each stack.
pub type Made = (Vec<ValueId>, Vec<ValueId>);

impl Program {
    /// Repeat `f`, which is given a repetition's number and the states, `count` times. The results are the last states, and
    /// the slices stacked along a new axis in front.
    ///
    /// # Errors
    /// Those of `f`; [`Stop::Error`] where a state changes its dtype or shape.
    pub fn repeat(
        &mut self,
        count: Idx,
        initial: &[ValueId],
        f: impl FnOnce(&mut Program, &Idx, &[ValueId]) -> Result<Made, Stop>,
    ) -> Result<Made, Stop> {
        let step: Arc<str> = format!("step {}", self.repeats.len()).into();
        let carried: Vec<ValueId> = initial.iter().map(|&x| self.copy(x)).collect();
        let first = self.values.len() as ValueId;
        let (next, slices) = f(self, &Idx::sym(&step), &carried)?;
        let mut states = Vec::new();
        for (&old, &new) in carried.iter().zip(&next) {
            let same = self.shape(old) == self.shape(new) && self.dtype(old) == self.dtype(new);
            if !same {
                return Err(self.error("a state changes its dtype or shape from step to step"));
            }
            let is_own = new >= first
                && !matches!(self.value(new).def, Def::Reshape(_) | Def::Weight(_))
                && states.iter().all(|&(_, other)| other != new);
            states.push((old, if is_own { new } else { self.copy(new) }));
        }
        let stacks: Vec<ValueId> = slices.iter().map(|&slice| self.stack(&count, &step, slice)).collect();
        let values = first..self.values.len() as ValueId;
        self.repeats.push(Repeat { step, count, values, states, stacks: stacks.clone() });
        Ok((carried, stacks))
    }

    /// `x` in memory of its own, even where its elements are known.
    fn copy(&mut self, x: ValueId) -> ValueId {
        let shape = self.shape(x).to_vec();
        let body = self.load(x, &vars(0, &shape));
        self.push(shape, Def::Map(body.clone()), body)
    }

    fn stack(&mut self, count: &Idx, step: &str, slice: ValueId) -> ValueId {
        let shape = self.shape(slice).to_vec();
        let body = self.load(slice, &vars(0, &shape));
        let all = [std::slice::from_ref(count), &shape].concat();
        self.push(all, Def::Stacked { at: Idx::sym(step), body: body.clone() }, body)
    }

    fn push(&mut self, shape: Vec<Idx>, def: Def, body: Expr) -> ValueId {
        self.values.push(Value {
            name: self.place.clone(),
            dtype: body.dtype(),
            shape,
            def,
            content: None,
            update: None,
        });
        (self.values.len() - 1) as ValueId
    }
}
