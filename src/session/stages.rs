//! What the stages of a run hand on, where a plan depends on values that the run computes.

use super::prepared::Prepared;
use super::recorded::Run;
use super::request::Outputs;
use crate::error::Result;
use crate::gpu::Buffer;
use crate::model::Computed;

/// A tensor that a stage left on the device.
#[derive(Clone)]
pub struct Resident {
    pub buffer: Buffer,
    pub offset_bytes: u64,
    pub size_bytes: u64,
}

/// What the earlier stages of a run leave for the next: nothing, before the first.
#[derive(Clone, Default)]
pub struct Earlier {
    /// What its plan knows.
    pub computed: Computed,
    /// What it reads, in the order of the plan's inputs behind the graph's.
    pub resident: Vec<Resident>,
}

impl Earlier {
    /// Add a stage that has run; `outputs` is what was read back of it. Counts are given as constants where `exact`.
    ///
    /// # Errors
    /// [`crate::Error::Model`] for what has no memory.
    pub fn add(&mut self, prepared: &Prepared, run: &Run, outputs: &Outputs, exact: bool) -> Result<()> {
        let read: Vec<_> = outputs.iter().map(|(_, tensor)| tensor).collect();
        self.computed.add(&prepared.plan, &read, &run.recorded.layout.shapes, exact);
        self.resident = prepared.left(run)?;
        Ok(())
    }
}
