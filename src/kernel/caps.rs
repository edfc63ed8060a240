//! What a device allows: plain data, read from the adapter and never assumed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::expr::Floats;

/// What an adapter is, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the CPU's memory.
    Integrated,
    /// A part of a GPU lent to a virtual machine.
    Virtual,
    /// Software: lavapipe, SwiftShader, WARP.
    Cpu,
    /// The driver does not say.
    #[default]
    Other,
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            AdapterKind::Discrete => "discrete",
            AdapterKind::Integrated => "integrated",
            AdapterKind::Virtual => "virtual",
            AdapterKind::Cpu => "cpu",
            AdapterKind::Other => "other",
        })
    }
}

/// A matrix size of the device's cooperative-matrix instructions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
pub struct CooperativeSize {
    /// Rows of A and C.
    pub m: u32,
    /// Columns of B and C.
    pub n: u32,
    /// Columns of A and rows of B.
    pub k: u32,
    /// Element type of A and B, as `f16`.
    pub ab: String,
    /// Element type of C, as `f32`.
    pub c: String,
}

/// Limits and features of a device. [`Caps::default`] is what WebGPU promises everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caps {
    /// Largest range of one storage binding.
    pub max_storage_binding_bytes: u64,
    /// Largest buffer.
    pub max_buffer_bytes: u64,
    /// Storage bindings per kernel.
    pub max_storage_bindings: u32,
    /// Alignment of a storage binding's offset.
    pub storage_offset_alignment: u32,
    /// Alignment of a uniform binding's offset.
    pub uniform_offset_alignment: u32,
    /// Largest workgroup per axis, in invocations.
    pub max_workgroup_size: [u32; 3],
    /// Invocations per workgroup over all axes.
    pub max_workgroup_invocations: u32,
    /// Workgroup memory.
    pub max_workgroup_bytes: u32,
    /// Workgroups per dispatch and axis.
    pub max_workgroups: u32,
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// 64-bit floats in shaders.
    pub f64: bool,
    /// 64-bit integers in shaders.
    pub i64: bool,
    /// Dot products of words of four bytes in shaders.
    pub packed_dot: bool,
    /// Subgroup operations.
    pub subgroups: bool,
    /// Smallest and largest subgroup, in invocations (0 where unknown).
    pub subgroup_size: [u32; 2],
    /// Timestamp queries.
    pub timestamps: bool,
    /// Whether the device is a CPU pretending to be a GPU (lavapipe, SwiftShader, WARP).
    pub cpu: bool,
    /// Cooperative-matrix sizes; empty where there are none.
    pub cooperative: Vec<CooperativeSize>,
}

impl Caps {
    /// The floats of its shaders.
    pub fn floats(&self) -> Floats {
        // The bits of 64-bit floats are 64-bit integers.
        Floats { f16: self.f16, f64: self.f64 && self.i64 }
    }
}

impl Default for Caps {
    fn default() -> Self {
        Caps {
            max_storage_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            max_storage_bindings: 8,
            storage_offset_alignment: 256,
            uniform_offset_alignment: 256,
            max_workgroup_size: [256, 256, 64],
            max_workgroup_invocations: 256,
            max_workgroup_bytes: 16 << 10,
            max_workgroups: 65535,
            f16: false,
            f64: false,
            i64: false,
            packed_dot: false,
            subgroups: false,
            subgroup_size: [0, 0],
            timestamps: false,
            cpu: false,
            cooperative: Vec::new(),
        }
    }
}
