//! Buffers, and uploads into them.

use std::sync::{Arc, Mutex, Weak};

use super::device::{Device, Inner};
use super::{locked, padded};
use crate::error::{Error, Result};

/// Memory on the device. Clones are the same memory; it is freed when the last one is dropped and the device has
/// finished with it.
#[derive(Clone, Debug)]
pub struct Buffer(pub(super) Arc<BufferInner>);

#[derive(Debug)]
pub(super) struct BufferInner {
    pub(super) raw: wgpu::Buffer,
    pub(super) label: String,
    size_bytes: u64,
    /// The device whose pool the memory goes back to.
    pool: Weak<Inner>,
}

impl Drop for BufferInner {
    fn drop(&mut self) {
        if let Some(inner) = self.pool.upgrade() {
            inner.pool.give(self.raw.clone());
        }
    }
}

impl Buffer {
    fn new(raw: wgpu::Buffer, label: &str, size_bytes: u64, pool: Weak<Inner>) -> Buffer {
        Buffer(Arc::new(BufferInner { raw, label: label.to_owned(), size_bytes, pool }))
    }

    /// Of memory that goes back to the pool of `inner`.
    pub(super) fn pooled(raw: wgpu::Buffer, label: &str, size_bytes: u64, inner: &Arc<Inner>) -> Buffer {
        Buffer::new(raw, label, size_bytes, Arc::downgrade(inner))
    }

    /// The size it was made with.
    pub fn size_bytes(&self) -> u64 {
        self.0.size_bytes
    }

    /// The name it was made with.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// What of the device's memory a range of the buffer spans: whole words. `None` where the range does not
    /// fit.
    pub(super) fn words(&self, offset_bytes: u64, size_bytes: u64) -> Option<std::ops::Range<u64>> {
        let end = offset_bytes.checked_add(size_bytes)?;
        (end <= self.size_bytes()).then(|| offset_bytes & !3..padded(end))
    }

    /// What to say about a range that does not fit.
    pub(super) fn misfit(&self, offset_bytes: u64, size_bytes: u64) -> String {
        format!(
            "{size_bytes} bytes at {offset_bytes} do not fit the {} bytes of buffer {:?}",
            self.size_bytes(),
            self.label()
        )
    }
}

/// Staging memory that may be in flight twice over: while the device copies one part, the host fills the next.
/// An upload of any size takes no more than that besides the buffer itself.
const STAGING_BYTES: usize = 16 << 20;

/// Uploads that have not been submitted.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    size_bytes: usize,
    submission: Option<wgpu::SubmissionIndex>,
}

impl Uploads {
    /// Uploads up to here went with a submission.
    pub(super) fn submitted(&self) {
        locked(&self.0).size_bytes = 0;
    }
}

impl Device {
    /// A buffer for storage bindings, uploads and readbacks. Its contents are zero.
    ///
    /// # Errors
    /// [`Error::Limit`] above the device's largest buffer, [`Error::OutOfMemory`] where there is no room.
    pub fn buffer(&self, label: &str, size_bytes: u64) -> Result<Buffer> {
        let raw = self.0.allocate(label, size_bytes, wgpu::BufferUsages::STORAGE)?;
        Ok(Buffer::new(raw, label, size_bytes, Weak::new()))
    }

    /// A buffer for uniform bindings: the run-time parameters of kernels. Its contents are zero.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn uniform(&self, label: &str, size_bytes: u64) -> Result<Buffer> {
        let raw = self.0.allocate(label, size_bytes, wgpu::BufferUsages::UNIFORM)?;
        Ok(Buffer::new(raw, label, size_bytes, Weak::new()))
    }

    /// Writes `data` at `offset_bytes`, a multiple of 4, in order with the runs before and after. `data` may have
    /// any length: what is missing to a multiple of 4 is written as zeros.
    ///
    /// # Errors
    /// [`Error::Limit`] for data that does not fit or an offset that is no multiple of 4, and what the device
    /// says.
    pub fn write(&self, buffer: &Buffer, offset_bytes: u64, data: &[u8]) -> Result<()> {
        let place = || format!("upload to buffer {:?}", buffer.label());
        let size_bytes = data.len() as u64;
        if buffer.words(offset_bytes, size_bytes).is_none() {
            return Err(Error::limit(place(), buffer.misfit(offset_bytes, size_bytes)));
        }
        if !offset_bytes.is_multiple_of(4) {
            return Err(Error::limit(place(), format!("offset {offset_bytes} is no multiple of 4")));
        }
        if data.is_empty() {
            return Ok(());
        }
        let (words, tail) = data.split_at(data.len() & !3);
        let mut offset_bytes = offset_bytes;
        for chunk in words.chunks(STAGING_BYTES) {
            self.0.write_chunk(buffer, offset_bytes, chunk, place)?;
            offset_bytes += chunk.len() as u64;
        }
        if !tail.is_empty() {
            let mut last = [0; 4];
            last[..tail.len()].copy_from_slice(tail);
            self.0.write_chunk(buffer, offset_bytes, &last, place)?;
        }
        Ok(())
    }

    /// Copies the first `size_bytes` behind `from`'s offset to `to`'s, in order with the runs before and after.
    ///
    /// # Errors
    /// [`Error::Limit`] for a range outside its buffer, and what the device says.
    pub fn copy(&self, from: (&Buffer, u64), to: (&Buffer, u64), size_bytes: u64) -> Result<()> {
        for (buffer, offset_bytes) in [from, to] {
            if buffer.words(offset_bytes, size_bytes).is_none() {
                let place = format!("copy of buffer {:?}", buffer.label());
                return Err(Error::limit(place, buffer.misfit(offset_bytes, size_bytes)));
            }
        }
        let inner = &self.0;
        inner.scoped("copy", || {
            let mut encoder = inner.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(&from.0.0.raw, from.1, &to.0.0.raw, to.1, size_bytes);
            inner.queue.submit([encoder.finish()])
        })?;
        inner.uploads.submitted();
        Ok(())
    }
}

impl Inner {
    pub(super) fn allocate(
        &self,
        label: &str,
        size_bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        let limit_bytes = self.info.caps.max_buffer_bytes;
        if padded(size_bytes) > limit_bytes {
            return Err(Error::limit(
                format!("buffer {label:?}"),
                format!("needs {size_bytes} bytes, the largest buffer of this device has {limit_bytes}"),
            ));
        }
        self.scoped(&format!("buffer {label:?} of {size_bytes} bytes"), || {
            self.raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: padded(size_bytes.max(1)),
                usage: usage | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }

    /// Uploads at most [`STAGING_BYTES`], and waits where that much is in flight already.
    fn write_chunk(
        &self,
        buffer: &Buffer,
        offset_bytes: u64,
        chunk: &[u8],
        place: impl Fn() -> String,
    ) -> Result<()> {
        let place = place();
        let earlier = self.scoped(&place, || {
            self.queue.write_buffer(&buffer.0.raw, offset_bytes, chunk);
            let mut pending = locked(&self.uploads.0);
            pending.size_bytes += chunk.len();
            if pending.size_bytes < STAGING_BYTES {
                return None;
            }
            pending.size_bytes = 0;
            pending.submission.replace(self.queue.submit([]))
        })?;
        match earlier {
            Some(submission) => self.wait(&place, submission, None),
            None => Ok(()),
        }
    }
}
