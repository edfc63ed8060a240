//! Commands of a run with the device's objects: what is kept from run to run, and one run of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::prepared::Prepared;
use super::weights::Place;
use super::winners::Waiting;
use crate::commands::{self, Commands, Keep, Kept, Memory, Range};
use crate::error::{Error, Result};
use crate::gpu::{BindGroup, Binding, Buffer, Device, Dispatch, Kernel, Readback, Recording};
use crate::plan::{Layout, Step, SymbolValues};

/// Memory of a run that is no part of the plan's: the buffers of tensors that callers hold.
pub type Lent = BTreeMap<Memory, Buffer>;

/// Kernels and bindings of commands.
pub struct Bound {
    /// By dispatch; no bindings where some of its memory is lent, which may be another buffer in each run.
    pub dispatches: Vec<(Arc<Kernel>, Option<Arc<BindGroup>>)>,
    pub parameters: Option<Place>,
}

/// Commands for one set of dimensions.
pub struct Recorded {
    pub symbols: SymbolValues,
    /// Inputs and outputs that are lent, and what is done in place.
    pub keep: Keep,
    pub layout: Layout,
    /// The plan's step behind each dispatch.
    pub steps: Vec<usize>,
    /// Stored winners in whose place these commands have defaults.
    pub waiting: Vec<Waiting>,
    pub commands: Commands,
    pub bound: Bound,
}

/// One run.
pub struct Run {
    pub recording: Recording,
    pub recorded: Arc<Recorded>,
    pub lent: Lent,
}

impl Recorded {
    /// A step's run-time parameters.
    pub fn sizes(&self, step: &Step) -> Vec<i64> {
        commands::sizes(step, &self.symbols)
    }
}

impl Prepared {
    /// What to replay, with the memory that is lent to this run.
    pub fn recording(
        &self,
        device: &Device,
        commands: &Commands,
        bound: &Bound,
        lent: &Lent,
    ) -> Result<Recording> {
        let mut dispatches = Vec::with_capacity(commands.dispatches.len());
        for (dispatch, (kernel, bindings)) in commands.dispatches.iter().zip(&bound.dispatches) {
            let bindings = match bindings {
                Some(bindings) => bindings.clone(),
                None => self.bindings(device, dispatch, kernel, bound, lent)?,
            };
            dispatches.push(Dispatch { kernel: kernel.clone(), bindings, workgroups: dispatch.workgroups });
        }
        let mut readbacks = Vec::with_capacity(commands.readbacks.len());
        for range in &commands.readbacks {
            let Place { buffer, offset_bytes } = self.place(range, bound, lent)?;
            readbacks.push(Readback { buffer, offset_bytes, size_bytes: range.size_bytes });
        }
        Ok(Recording { dispatches, readbacks })
    }

    /// A dispatch's bindings.
    pub fn bindings(
        &self,
        device: &Device,
        dispatch: &commands::Dispatch,
        kernel: &Kernel,
        bound: &Bound,
        lent: &Lent,
    ) -> Result<Arc<BindGroup>> {
        let places = dispatch.bindings.iter().map(|range| self.place(range, bound, lent));
        let places = places.collect::<Result<Vec<Place>>>()?;
        let bindings: Vec<Binding> = places
            .iter()
            .zip(&dispatch.bindings)
            .map(|(Place { buffer, offset_bytes }, range)| Binding {
                buffer,
                offset_bytes: *offset_bytes,
                size_bytes: range.size_bytes,
            })
            .collect();
        Ok(Arc::new(device.bind(kernel, &bindings)?))
    }

    /// Where a range begins.
    fn place(&self, range: &Range, bound: &Bound, lent: &Lent) -> Result<Place> {
        if let Some(buffer) = lent.get(&range.memory) {
            return Ok(Place { buffer: buffer.clone(), offset_bytes: range.offset_bytes });
        }
        let place = match range.memory {
            Memory::Parameters => bound.parameters.as_ref(),
            Memory::Constant(_) | Memory::Input(_) | Memory::Arena(_) | Memory::Output(_) => {
                self.memory.get(&range.memory)
            }
        };
        let Place { buffer, offset_bytes } =
            place.ok_or_else(|| Error::model(format!("{:?}", range.memory), "there is no such memory"))?;
        Ok(Place { buffer: buffer.clone(), offset_bytes: offset_bytes + range.offset_bytes })
    }

    /// The memory of an output that stays on the device: its own, or a copy where it lies elsewhere.
    pub fn kept(
        &self,
        device: &Device,
        run: &Run,
        number: usize,
        Kept { range, is_own }: &Kept,
    ) -> Result<Buffer> {
        if let (true, Some(buffer)) = (is_own, run.lent.get(&range.memory)) {
            return Ok(buffer.clone());
        }
        let from = self.place(range, &run.recorded.bound, &run.lent)?;
        let buffer = device.pooled(&self.plan.outputs[number].name, range.size_bytes)?;
        device.copy((&from.buffer, from.offset_bytes), (&buffer, 0), range.size_bytes)?;
        Ok(buffer)
    }
}
