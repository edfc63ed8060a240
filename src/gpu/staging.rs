//! Staging buffers for readbacks, kept between runs: a run that repeats allocates nothing on the device.

use std::sync::Mutex;

use super::device::Inner;
use super::locked;
use crate::error::Result;

/// Sizes are rounded up to a power of two below this and to a multiple of it above, so that runs of similar
/// sizes share buffers and large ones waste little.
const STEP_BYTES: u64 = 1 << 20;

/// As many unused buffers are kept as sessions are likely to run at the same time.
const KEPT: usize = 8;

/// Unused memory beyond this is given back, but for the buffer used last.
const KEPT_BYTES: u64 = 256 << 20;

/// The unused staging buffers of a device, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct Staging(Mutex<Vec<wgpu::Buffer>>);

impl Staging {
    /// Keeps a buffer, which must not be mapped, for later runs.
    pub(super) fn keep(&self, buffer: wgpu::Buffer) {
        let mut kept = locked(&self.0);
        kept.push(buffer);
        while kept.len() > KEPT
            || (kept.len() > 1 && kept.iter().map(wgpu::Buffer::size).sum::<u64>() > KEPT_BYTES)
        {
            kept.remove(0);
        }
    }

    fn take(&self, size_bytes: u64) -> Option<wgpu::Buffer> {
        let mut kept = locked(&self.0);
        let position = kept.iter().rposition(|buffer| buffer.size() == size_bytes)?;
        Some(kept.remove(position))
    }
}

impl Inner {
    /// A staging buffer of at least this size, which is no more than the largest buffer.
    pub(super) fn staging(&self, size_bytes: u64) -> Result<wgpu::Buffer> {
        let rounded = if size_bytes < STEP_BYTES {
            size_bytes.next_power_of_two().max(256)
        } else {
            size_bytes.next_multiple_of(STEP_BYTES)
        };
        let size = rounded.min(self.info.caps.max_buffer_bytes);
        match self.staging.take(size) {
            Some(buffer) => Ok(buffer),
            None => self.scoped(&format!("staging buffer of {size} bytes"), || {
                self.raw.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("readback"),
                    size,
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            }),
        }
    }
}
