//! What compiled kernels check.

/// Whether the kernels that this crate writes are compiled with checks that every access stays within its buffer and that
/// every loop ends. Shaders that a caller gives to [`Device::kernel`](super::Device::kernel) always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Checks {
    off: bool,
}

impl Checks {
    /// No such checks by naga, this crate's shader compiler; the driver's own, where it has some, stay. (Where a Vulkan
    /// driver has robustBufferAccess2, accesses to buffers have no others to begin with.) For measuring GPUs; on lavapipe
    /// it gains nothing.
    ///
    /// # Safety
    /// The caller vouches that the model and its inputs keep all kernels within their tensors; what reads or writes beyond
    /// them is undefined behaviour. Offsets are made of loop variables and sizes, which plans keep within bounds, and of
    /// positions that a tensor names, as in Gather, GatherElements, GatherND, ScatterND, ScatterElements, TensorScatter,
    /// RoiAlign, MoE and the position embeddings: the text of every kernel moves these to the nearest place of their axis,
    /// so that positions out of range stay harmless, as long as the axis is not empty. Nothing looks after
    /// - positions in an axis without elements;
    /// - `seqlens_k` of GroupQueryAttention that claim more rows than the past key and value have;
    /// - offsets beyond 31 bits;
    /// - faults of the kernels, which checks turn into wrong numbers at the worst.
    pub const unsafe fn off() -> Checks {
        Checks { off: true }
    }

    /// Whether there are none.
    pub const fn are_off(self) -> bool {
        self.off
    }
}
