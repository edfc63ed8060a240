//! What the passes of a row kernel read, and what of it several of them read.

use super::fours::{Read, in_fours, starts_four, take, take_singles};
use super::spec::{RowResult, Stage};
use crate::expr::{Expr, Idx};
use crate::tensor::DType;

/// Loop variable of the position within a row.
const POSITION: u32 = 1;

/// The passes over a row: the statistics in order, then the result.
#[derive(Clone, Debug)]
pub struct RowReads {
    /// What each pass computes: arguments from the number of statistics on are its own reads.
    pub values: Vec<Expr>,
    /// Its own reads, as positions in `reads`.
    pub own: Vec<Vec<usize>>,
    /// All reads.
    pub reads: Vec<Read>,
}

impl RowReads {
    /// Of passes that go by single positions (`vector` 1) or by four (4).
    pub fn of(
        stages: &[Stage],
        result: &RowResult,
        vector: u32,
        allowed: impl Fn(DType) -> bool,
    ) -> RowReads {
        let first = stages.len() as u32;
        let last = match result {
            RowResult::PerRow(value) | RowResult::PerElement { value, .. } => value,
        };
        let mut all = RowReads { values: Vec::new(), own: Vec::new(), reads: Vec::new() };
        for value in stages.iter().map(|stage| &stage.value).chain([last]) {
            let (value, found) = match vector {
                1 => take_singles(value, POSITION, first),
                _ => take(value, POSITION, first, &allowed),
            };
            let number = |four: Read| {
                all.reads.iter().position(|known| *known == four).unwrap_or_else(|| {
                    all.reads.push(four);
                    all.reads.len() - 1
                })
            };
            all.own.push(found.into_iter().map(number).collect());
            all.values.push(value);
        }
        all
    }

    /// The reads of more than one pass.
    pub fn shared(&self) -> Vec<usize> {
        let passes = |read: usize| self.own.iter().filter(|own| own.contains(&read)).count();
        (0..self.reads.len()).filter(|&read| passes(read) > 1).collect()
    }
}

/// Whether all passes go over whole fours.
pub fn whole_fours(stages: &[Stage], result: &RowResult) -> bool {
    stages.iter().all(|stage| in_fours(&stage.extent))
        && match result {
            RowResult::PerRow(_) => true,
            RowResult::PerElement { extent, .. } => in_fours(extent),
        }
}

/// The positions of a row, where all passes go over the same.
pub fn positions<'a>(stages: &'a [Stage], result: &'a RowResult) -> Option<&'a Idx> {
    let own = match result {
        RowResult::PerRow(_) => None,
        RowResult::PerElement { extent, .. } => Some(extent),
    };
    let mut extents = stages.iter().map(|stage| &stage.extent).chain(own);
    let first = extents.next()?;
    extents.all(|extent| extent == first).then_some(first)
}

/// Whether four results are neighbours in the output, starting at a multiple of four.
pub fn stores_fours(at: &Idx) -> bool {
    starts_four(at, POSITION)
}
