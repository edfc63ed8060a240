//! What a dispatch binds: whole tensors, or windows of those that are larger than the device can bind.

use super::Range;
use crate::error::{Error, Result};
use crate::kernel::{Caps, size, storage_bytes};
use crate::plan::{Plan, SplitKernel, Step, split};

impl Range {
    /// The part from element `first` on, of `len` elements.
    fn window(&self, first: u64, len: u64, element_bytes: u64) -> Range {
        let offset_bytes = self.offset_bytes + first * element_bytes;
        let end = self.offset_bytes + self.size_bytes;
        let size_bytes = (len * element_bytes).next_multiple_of(16).min(end - offset_bytes);
        Range { memory: self.memory, offset_bytes, size_bytes }
    }
}
/// A dispatch of a step: all of it, or a range of its leading index.
pub struct Part {
    /// The kernel for a range; `None` for the step's own.
    pub split: Option<SplitKernel>,
    /// Which inputs are windowed, where the step is split.
    pub windowed: Option<Vec<bool>>,
    /// The kernel's parameters.
    pub sizes: Vec<i64>,
    pub inputs: Vec<Range>,
    pub output: Range,
}

/// The dispatches of a step: one where every tensor can be bound whole.
///
/// # Errors
/// [`Error::Limit`] naming the tensor, its size and the limit, where the kernel cannot be split.
pub fn parts(
    caps: &Caps,
    plan: &Plan,
    step: &Step,
    sizes: &[i64],
    inputs: Vec<Range>,
    output: Range,
) -> Result<Vec<Part>> {
    let limit = caps.max_storage_binding_bytes;
    let too_large = |range: &Range| range.size_bytes > limit;
    let Some(largest) = inputs.iter().chain([&output]).position(too_large) else {
        return Ok(vec![Part { split: None, windowed: None, sizes: sizes.to_vec(), inputs, output }]);
    };
    let tensor = step.inputs.iter().chain([&step.output]).nth(largest).map(|&t| &plan.tensors[t]);
    let kernel = &plan.kernels[step.kernel];
    let refuse = || {
        let name = tensor.map_or("", |t| t.name.as_str());
        let bytes = inputs.iter().chain([&output]).map(|r| r.size_bytes).max().unwrap_or(0);
        let message = format!(
            "{bytes} bytes are more than the {limit} that the device binds, and kernel {} cannot work on a part of it",
            kernel.label
        );
        Error::limit(format!("tensor {name:?}"), message)
    };
    let windowed: Vec<bool> = inputs.iter().map(too_large).collect();
    let cut = split(&kernel.spec, &windowed).ok_or_else(refuse)?;
    let element = |dtype| storage_bytes(dtype, caps.floats()) as u64;
    // Bytes that each window moves per index.
    let mut moves = vec![size(&cut.output, sizes) as u64 * element(kernel.spec.output)];
    for (stride, &dtype) in cut.inputs.iter().zip(&kernel.spec.inputs) {
        if let Some(stride) = stride {
            moves.push(size(stride, sizes) as u64 * element(dtype));
        }
    }
    let alignment = (caps.storage_offset_alignment as u64).max(16);
    let most = moves.iter().map(|&bytes| limit.checked_div(bytes).unwrap_or(0)).min().unwrap_or(0);
    // The largest range whose windows all begin at aligned offsets.
    let step_by = moves.iter().map(|&bytes| alignment / gcd(bytes, alignment)).max().unwrap_or(1);
    let range = most / step_by * step_by;
    if range == 0 {
        return Err(refuse());
    }
    let extent = size(&cut.extent, sizes) as u64;
    tracing::info!(
        kernel = kernel.label,
        extent,
        range,
        "split: a tensor is larger than the device can bind"
    );
    let mut parts = Vec::new();
    for first in (0..extent).step_by(range as usize) {
        let len = range.min(extent - first);
        let windows =
            inputs.iter().zip(&cut.inputs).zip(&kernel.spec.inputs).map(|((whole, stride), &dtype)| {
                match stride.as_ref().map(|s| size(s, sizes) as u64) {
                    Some(stride) => whole.window(first * stride, len * stride, element(dtype)),
                    None => *whole,
                }
            });
        let stride = size(&cut.output, sizes) as u64;
        parts.push(Part {
            windowed: Some(windowed.clone()),
            sizes: sizes.iter().copied().chain([first as i64, len as i64]).collect(),
            inputs: windows.collect(),
            output: output.window(first * stride, len * stride, element(kernel.spec.output)),
            split: Some(cut.clone()),
        });
    }
    Ok(parts)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
