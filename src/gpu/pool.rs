//! Memory of tensors that come and go, as a decoder's caches from step to step: what nobody holds any more is used
//! again.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::buffer::Buffer;
use super::device::Device;
use super::{locked, padded};
use crate::error::Result;

/// Sizes are rounded up to one of this many per power of two: a tensor that grows a little with each step finds
/// memory, and an eighth at most is wasted.
const PER_OCTAVE: u64 = 8;
/// The smallest size.
const LEAST_BYTES: u64 = 256;

/// The unused memory of a device.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Bytes in use.
    used_bytes: u64,
    /// Bytes of `unused`.
    unused_bytes: u64,
    /// What was given back last stands at the end.
    unused: VecDeque<wgpu::Buffer>,
}

/// The size of the memory for `size_bytes`, where the largest buffer has `limit_bytes`.
fn rounded(size_bytes: u64, limit_bytes: u64) -> u64 {
    let least = size_bytes.max(LEAST_BYTES);
    let step = (least.next_power_of_two() / 2 / PER_OCTAVE).max(1);
    least.checked_next_multiple_of(step).filter(|&size| size <= limit_bytes).unwrap_or(size_bytes)
}

impl Pool {
    fn take(&self, size_bytes: u64) -> Option<wgpu::Buffer> {
        let mut kept = locked(&self.0);
        let position = kept.unused.iter().rposition(|buffer| buffer.size() == size_bytes)?;
        kept.unused_bytes -= size_bytes;
        kept.unused.remove(position)
    }

    /// Takes memory back. As much is kept as is in use: a step's tensors take the place of those of the step before, and
    /// when the last of them goes, so does all that is unused.
    pub(super) fn give(&self, buffer: wgpu::Buffer) {
        let mut kept = locked(&self.0);
        kept.used_bytes -= buffer.size();
        kept.unused_bytes += buffer.size();
        kept.unused.push_back(buffer);
        while kept.unused_bytes > kept.used_bytes
            && let Some(oldest) = kept.unused.pop_front()
        {
            kept.unused_bytes -= oldest.size();
        }
    }
}

impl Device {
    /// As [`Device::buffer`], of memory that goes back to the device when the last clone is dropped and serves the next
    /// one of about this size. Its contents are not defined. Runs that were submitted before may still use it: what is
    /// submitted later comes later.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn pooled(&self, label: &str, size_bytes: u64) -> Result<Buffer> {
        let size_bytes = rounded(padded(size_bytes), self.caps().max_buffer_bytes);
        let raw = match self.0.pool.take(size_bytes) {
            Some(raw) => raw,
            None => self.0.allocate(label, size_bytes, wgpu::BufferUsages::STORAGE)?,
        };
        locked(&self.0.pool.0).used_bytes += size_bytes;
        Ok(Buffer::pooled(raw, label, size_bytes, &self.0))
    }

    /// Bytes of [`Device::pooled`] buffers that are in use, and of those that wait for their next use.
    pub fn pooled_bytes(&self) -> [u64; 2] {
        let kept = locked(&self.0.pool.0);
        [kept.used_bytes, kept.unused_bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::AdapterChoice;

    #[test]
    fn sizes_are_rounded_by_an_eighth_at_most() {
        let limit = 1 << 30;
        for (size, want) in [(0, 256), (16, 256), (257, 288), (1000, 1024), (1025, 1152), (4096, 4096)] {
            assert_eq!(rounded(size, limit), want, "{size}");
        }
        assert_eq!(rounded(1025, 1100), 1025);
    }

    #[test]
    fn a_loop_of_growing_tensors_uses_its_memory_again() {
        if std::env::var_os("TILEWRIGHT_SKIP_GPU").is_some_and(|value| value == "1") {
            return;
        }
        let device = Device::open(&AdapterChoice::Best).and_then(|device| device.apart());
        let device = device.expect("GPU tests need an adapter, or TILEWRIGHT_SKIP_GPU=1");
        let mut held: Vec<Buffer> = Vec::new();
        let mut allocated: Vec<wgpu::Buffer> = Vec::new();
        for step in 0..64u64 {
            let next: Vec<Buffer> =
                (0..4).map(|_| device.pooled("cache", 4096 + 16 * step).unwrap()).collect();
            for buffer in &next {
                if !allocated.contains(&buffer.0.raw) {
                    allocated.push(buffer.0.raw.clone());
                }
            }
            held = next;
            let [used, unused] = device.pooled_bytes();
            assert!(unused <= used, "step {step}: {unused} bytes wait, {used} are in use");
        }
        // One set of 4096 bytes, and two of each of the next sizes, 4608 and 5120.
        assert_eq!(allocated.len(), 4 + 2 * 8);
        drop(held);
        assert_eq!(device.pooled_bytes(), [0, 0]);
    }
}
