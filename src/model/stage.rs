//! What the stages of a run know of each other, where a plan depends on computed values.

use std::collections::BTreeMap;

use crate::ir::{Given, ValueId};
use crate::plan::Plan;
use crate::tensor::{DType, Tensor};

/// What the stages so far computed: nothing, before the first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Computed {
    /// What the next plan knows.
    pub given: BTreeMap<ValueId, Given>,
    /// The counts, by value.
    counts: BTreeMap<ValueId, usize>,
    /// What is left on the device, with the dtype it is held as and its shape.
    pub resident: Vec<(ValueId, DType, Vec<usize>)>,
}

impl Computed {
    /// Whether this is before the first stage.
    pub fn is_nothing(&self) -> bool {
        self.given.is_empty()
    }

    /// Add what a stage computed: `read` are its outputs, `shapes` are those of its tensors. Counts are given as
    /// constants where `exact`.
    pub fn add(&mut self, plan: &Plan, read: &[&Tensor], shapes: &[Vec<usize>], exact: bool) {
        let Some(next) = &plan.next else { return };
        for (&(value, is_count), &read) in next.asked.iter().zip(read) {
            // Counts are int32.
            let count = read.to_vec::<i32>().ok().and_then(|counts| usize::try_from(*counts.first()?).ok());
            self.counts.remove(&value);
            let given = match count {
                Some(count) if is_count && !exact => {
                    self.counts.insert(value, count);
                    Given::Count
                }
                _ => Given::Elements(read.clone()),
            };
            self.given.insert(value, given);
        }
        let resident = next.live.iter().map(|&(id, t)| (id, plan.tensors[t].dtype, shapes[t].clone()));
        self.resident = resident.collect();
    }

    /// The shapes of what follows the graph's inputs in the next plan's inputs.
    pub fn shapes(&self) -> Vec<Vec<usize>> {
        let resident = self.resident.iter().map(|(_, _, shape)| shape.clone());
        resident.chain(self.counts.values().map(|&count| vec![count])).collect()
    }
}
