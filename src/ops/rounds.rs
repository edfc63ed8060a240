//! A subgraph that is done again and again: once in the plan where that is possible, else written out.

use super::Cx;
use super::join::join;
use crate::expr::{Expr, Idx};
use crate::ir::{Def, Made, Stop, ValueId};
use crate::tensor::DType;

/// Rounds that are written out at the most. A plan of so many small bodies takes some seconds to make.
pub(super) const MOST: usize = 4096;

/// Rounds of a subgraph.
pub(super) struct Rounds<'r> {
    /// How many there are; `None` where only the condition ends them.
    pub count: Option<Idx>,
    /// Whether there is a first one.
    pub going: ValueId,
    /// What the first one is given.
    pub states: Vec<ValueId>,
    /// How many slices each gives.
    pub slices: usize,
    /// Lowers one.
    pub round: &'r Lower<'r>,
}

/// Lowers a round, given its number, the condition and the states.
type Lower<'r> = dyn Fn(&mut Cx, &Idx, ValueId, &[ValueId]) -> Result<Round, Stop> + 'r;

/// What a round gives.
pub(super) struct Round {
    /// Whether there is another one.
    pub going: ValueId,
    /// What that is given.
    pub states: Vec<ValueId>,
    /// What is stacked over all rounds.
    pub slices: Vec<ValueId>,
}

impl Rounds<'_> {
    /// The last states, and the slices stacked along a new axis in front.
    ///
    /// # Errors
    /// Those of a round; [`Stop::Error`] where more than [`MOST`] would have to be written out.
    pub fn lower(self, cx: &mut Cx) -> Result<Made, Stop> {
        let going = holds(cx, self.going).map_err(|stop| stop.keeping(self.states.iter().copied()))?;
        let count = self.count.as_ref().filter(|count| count.as_const().is_none_or(|n| n <= i32::MAX.into()));
        let why = match (going, count) {
            (false, _) => "there is none".into(),
            (true, None) => "only its condition ends it".into(),
            (true, Some(count)) => match self.repeated(cx, count)? {
                Ok(made) => return Ok(made),
                Err(why) => why,
            },
        };
        self.written_out(cx, &why)
    }

    /// A repetition of the program, or why it cannot be one. It is lowered for a number that is a symbol, and states of
    /// which nothing is known.
    fn repeated(&self, cx: &mut Cx, count: &Idx) -> Result<Result<Made, String>, Stop> {
        let (node, opset, known, scope) = (cx.node, cx.opset, cx.known, cx.scope);
        let few = count.as_const().is_some_and(|count| count <= MOST as i64);
        let before = cx.program.values.len() as ValueId;
        let guards = cx.program.guards.len();
        let made = cx.program.repeat(count.clone(), &self.states, |program, number, states| {
            let going = program.scalar(Expr::bool(true));
            let cx = &mut Cx { program, node, opset, inputs: vec![], known, scope };
            let round = (self.round)(cx, number, going, states)?;
            if !holds(cx, round.going)? {
                return Err(cx.error("its condition ends it"));
            }
            let made = round.states.iter().chain(&round.slices).copied();
            let reads_input = |id: &ValueId| matches!(cx.program.value(*id).def, Def::Input(_));
            if few && !cx.program.reachable(made).iter().any(reads_input) {
                return Err(cx.error("all of it is known when the plan is made"));
            }
            Ok((round.states, round.slices))
        });
        let stop = match made {
            Ok(made) => return Ok(Ok(made)),
            Err(stop) => stop,
        };
        let why = match stop {
            Stop::NeedsInputs(_) => return Err(stop),
            // What stands before the rounds is needed however they are lowered; what stands in them is no value of theirs.
            Stop::NeedsValue(mut needed) if needed.value < before => {
                needed.live.retain(|&id| id < before);
                return Err(Stop::NeedsValue(needed));
            }
            Stop::NeedsValue(_) => "a shape or a condition depends on what a round computes".to_string(),
            Stop::NeedsShapes => "a shape depends on a round".to_string(),
            Stop::Error(error) => error.to_string(),
        };
        tracing::debug!("{}: written out, since {why}", node.place());
        cx.program.guards.truncate(guards);
        cx.program.place = node.place();
        Ok(Err(why))
    }

    /// Round after round, each for its own number and with what is known of the states.
    fn written_out(&self, cx: &mut Cx, why: &str) -> Result<Made, Stop> {
        let count = match &self.count {
            Some(count) => count.as_const().ok_or(Stop::NeedsShapes)?,
            None => i64::MAX,
        };
        let (mut going, mut states) = (self.going, self.states.clone());
        let mut stacks: Vec<Vec<ValueId>> = vec![Vec::new(); self.slices];
        let mut done = 0;
        let keeping = |stop: Stop, states: &[ValueId], stacks: &[Vec<ValueId>]| {
            stop.keeping(states.iter().chain(stacks.iter().flatten()).copied())
        };
        while done < count && holds(cx, going).map_err(|stop| keeping(stop, &states, &stacks))? {
            if done == MOST as i64 {
                return Err(
                    cx.unsupported(format!("more than {MOST} repetitions that are written out, since {why}"))
                );
            }
            let round = (self.round)(cx, &Idx::from(done), going, &states);
            let round = round.map_err(|stop| keeping(stop, &states, &stacks))?;
            for (stack, &slice) in stacks.iter_mut().zip(&round.slices) {
                let shape = [vec![Idx::from(1i64)], cx.program.shape(slice).to_vec()].concat();
                stack.push(cx.program.reshape(slice, shape)?);
            }
            (going, states) = (round.going, round.states);
            done += 1;
        }
        let stacks = match done {
            0 => self.none(cx)?,
            _ => stacks.into_iter().map(|slices| join(cx.program, slices, 0)).collect(),
        };
        Ok((states, stacks))
    }

    /// The stacks of no rounds. One is lowered for the dtypes and shapes alone, and nothing reads it.
    fn none(&self, cx: &mut Cx) -> Result<Vec<ValueId>, Stop> {
        if self.slices == 0 {
            return Ok(vec![]);
        }
        let guards = cx.program.guards.len();
        let round = (self.round)(cx, &Idx::from(0i64), self.going, &self.states)?;
        cx.program.guards.truncate(guards);
        let empty = |&slice: &ValueId| {
            let shape = [vec![Idx::from(0i64)], cx.program.shape(slice).to_vec()].concat();
            let zero = Expr::int(DType::I32, 0).cast(cx.program.dtype(slice));
            cx.program.map(shape, zero)
        };
        Ok(round.slices.iter().map(empty).collect())
    }
}

/// Whether a condition holds.
fn holds(cx: &Cx, condition: ValueId) -> Result<bool, Stop> {
    Ok(cx.program.constants(condition)?.first().is_some_and(|v| v.to_bool()))
}
