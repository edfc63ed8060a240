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
    /// the slices stacked along a new axis in front. Repetitions may stand in others.
    ///
    /// # Errors
    /// Those of `f`; [`Stop::Error`] where a state changes its dtype or shape, or a shape depends on the repetition's number.
    pub fn repeat(
        &mut self,
        count: Idx,
        initial: &[ValueId],
        f: impl FnOnce(&mut Program, &Idx, &[ValueId]) -> Result<Made, Stop>,
    ) -> Result<Made, Stop> {
        let carried: Vec<ValueId> = initial.iter().map(|&x| self.copy(x, self.shape(x).to_vec())).collect();
        let first = self.next();
        let (guards, repeats) = (self.guards.len(), self.repeats.len());
        let step: Arc<str> = format!("step {first}").into();
        let made = f(self, &Idx::sym(&step), &carried);
        let made = made.and_then(|made| self.constant_shapes(&step, first, guards).map(|()| made));
        let made =
            made.and_then(|(next, slices)| Ok((self.states(&carried, &next, first, repeats)?, slices)));
        // What stands in a repetition that there is not is none either.
        let (states, slices) = made.inspect_err(|_| self.repeats.truncate(repeats))?;
        let stacks: Vec<ValueId> = slices.iter().map(|&slice| self.stack(&count, &step, slice)).collect();
        let values = first..self.latest.map_or(first, |latest| first.max(latest + 1));
        // What was lowered before has it already.
        if self.repeats.iter().all(|repeat| repeat.values != values) {
            self.repeats.push(Repeat { step, count, values, states, stacks: stacks.clone() });
        }
        Ok((carried, stacks))
    }

    /// That no shape of the values from `first` on, and no guard behind the first `guards`, depends on `step`.
    fn constant_shapes(&self, step: &str, first: ValueId, guards: usize) -> Result<(), Stop> {
        let shapes = self.values[first as usize..].iter().flat_map(|value| &value.shape);
        let sizes = self.guards[guards..].iter().flat_map(|guard| [&guard.left, &guard.right]);
        match shapes.chain(sizes).find(|size| size.mentions(step)) {
            Some(size) => Err(self.error(format!("the size {size} depends on the number of the repetition"))),
            None => Ok(()),
        }
    }

    /// Each state with a value that may change places with it: `next`, or a copy of it.
    fn states(
        &mut self,
        carried: &[ValueId],
        next: &[ValueId],
        first: ValueId,
        repeats: usize,
    ) -> Result<Vec<(ValueId, ValueId)>, Stop> {
        let mut states: Vec<(ValueId, ValueId)> = Vec::new();
        for (&old, &new) in carried.iter().zip(next) {
            let shape = self.shape(old).to_vec();
            if self.dtype(old) != self.dtype(new) || shape.len() != self.rank(new) {
                return Err(self.error("a state changes its dtype or rank from step to step"));
            }
            for (axis, was) in shape.iter().enumerate() {
                let is = self.shape(new)[axis].clone();
                if is != *was && (is.is_at_most(was) || was.is_at_most(&is)) {
                    return Err(self.error(format!("a state's size {was} becomes {is} from step to step")));
                }
                self.equate(was, &is, "a state before and after a step")?;
            }
            let inner = self.repeats[repeats..].iter().flat_map(|repeat| &repeat.states);
            let mut taken = inner.chain(&states).flat_map(|&(old, new)| [old, new]);
            let is_own = new >= first
                && self.shape(new) == shape
                && match self.value(new).def {
                    Def::Map(_) => true,
                    // These may be narrowed, and states are not.
                    Def::Reduce { .. } | Def::Contract { .. } => self.dtype(new).is_float(),
                    Def::TopK { .. } => true,
                    Def::Input(_) | Def::Weight(_) | Def::Reshape(_) | Def::Stacked { .. } => false,
                }
                && taken.all(|other| other != new);
            states.push((old, if is_own { new } else { self.copy(new, shape) }));
        }
        Ok(states)
    }

    /// `x` as `shape` in memory of its own, even where its elements are known.
    fn copy(&mut self, x: ValueId, shape: Vec<Idx>) -> ValueId {
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
        self.add_with(|program| Value {
            name: program.place.clone(),
            dtype: body.dtype(),
            shape,
            def,
            content: None,
            update: None,
        })
    }
}
