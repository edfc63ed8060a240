//! What a run does with memory, as plain data: which buffers there are, which kernels run over which ranges of them,
//! what is read back. Nothing here knows a device: the session turns it into its device's objects, and the
//! browser's host reads it as 32-bit words.
//!
//! | file | what |
//! |---|---|
//! | `record` | a plan at given sizes to [`Commands`] |
//! | `windows` | tensors larger than the device can bind |
//! | `outputs` | where a run's outputs come from |
//! | `convert` | elements between their ONNX form and their form in device memory |
//! | `words` | [`Commands`] as words, and back |

mod convert;
mod outputs;
mod record;
mod windows;
mod words;

pub use convert::{convert, elements_from_device, elements_to_device, from_device, to_device};
pub use outputs::{Produced, outputs};
pub use record::{Choose, Kernels, Recorder, Text, sizes};
pub use words::{VERSION, decode, encode};

use std::collections::BTreeSet;

use crate::plan::TensorId;

/// A piece of device memory that ranges are counted in. Whoever runs the commands decides which buffer it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Memory {
    /// A constant of the plan, of its own size: a weight, or what was computed from weights once.
    Constant(TensorId),
    /// Graph input number n; grows with the sizes of runs.
    Input(usize),
    /// Arena number n: what a run computes, reused within the run and by the next; grows too.
    Arena(usize),
    /// Output number n of a run that leaves it on the device: memory of its own, which is the caller's.
    Output(usize),
    /// The parameters of these commands' kernels, a uniform buffer of their own.
    Parameters,
}

/// A range of memory, in bytes; both figures are multiples of 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// What it is part of.
    pub memory: Memory,
    /// Where it begins.
    pub offset_bytes: u64,
    /// Its size.
    pub size_bytes: u64,
}

/// One kernel over its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The number of its text in [`Kernels`].
    pub kernel: usize,
    /// The plan's step that it is all or part of.
    pub step: usize,
    /// What to bind at 0, 1, ...
    pub bindings: Vec<Range>,
    /// Workgroups per axis, none of them 0.
    pub workgroups: [u32; 3],
}

/// Which of a run's tensors are in memory of the caller's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Numbers of the inputs that are on the device.
    pub inputs: BTreeSet<usize>,
    /// Numbers of the outputs that stay on the device.
    pub outputs: BTreeSet<usize>,
    /// Numbers of the steps that are done in place, of [`crate::plan::Plan::updates`]; each makes an output that stays.
    pub in_place: BTreeSet<usize>,
}

/// An output that stays on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where it is.
    pub range: Range,
    /// Whether this is memory of its own, [`Memory::Output`] or the input's that it updates; else it is to be copied
    /// to such.
    pub is_own: bool,
}

/// What a run does, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Memory that must be there, and at least of this size; inputs that the caller has there are not in the list.
    pub buffers: Vec<(Memory, u64)>,
    /// The contents of [`Memory::Parameters`]; empty where no kernel has parameters.
    pub parameters: Vec<u8>,
    /// The kernels to run; each sees the writes of those before it.
    pub dispatches: Vec<Dispatch>,
    /// What to bring back afterwards.
    pub readbacks: Vec<Range>,
    /// What stays on the device for the next stage of the run, in the order of [`crate::plan::Next::live`].
    pub left: Vec<Range>,
    /// Where the outputs are that stay on the device, in the plan's order.
    pub kept: Vec<Kept>,
}
