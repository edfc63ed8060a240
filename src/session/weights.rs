//! A session's constants on the device.

use std::collections::{HashMap, HashSet};

use super::prepared::OnProgress;
use super::{Progress, Stage};
use crate::commands::{Memory, to_device};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device};
use crate::kernel::storage_bytes;
use crate::plan::{Origin, Plan, bound_bytes};
use crate::tensor::{DType, Tensor};

/// Uploaded constants, shared by all plans of a session.
#[derive(Default)]
pub struct Weights {
    uploaded: HashMap<WeightKey, (Tensor, Place)>,
}

/// The address and length of a constant's bytes on the host, and the dtype that the plan holds it as.
type WeightKey = (usize, usize, DType);

/// A constant to upload.
struct Wanted<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    held: DType,
    size_bytes: u64,
}

impl Wanted<'_> {
    fn key(&self) -> WeightKey {
        Weights::key(self.tensor, self.held)
    }
}

/// A piece of memory within a buffer.
#[derive(Clone)]
pub struct Place {
    pub buffer: Buffer,
    pub offset_bytes: u64,
}

/// Weights are packed into buffers of at most this size.
const WEIGHT_BUFFER_BYTES: u64 = 256 << 20;

impl Weights {
    fn key(tensor: &Tensor, held: DType) -> WeightKey {
        (tensor.bytes().as_ptr() as usize, tensor.bytes().len(), held)
    }

    /// Free what none of `plans` uses.
    pub fn retain<'a>(&mut self, plans: impl Iterator<Item = &'a Plan>) {
        let used: HashSet<_> = plans
            .flat_map(|plan| &plan.tensors)
            .filter_map(|tensor| match &tensor.origin {
                Origin::Weight(data) => Some(Weights::key(data, tensor.dtype)),
                Origin::Input(_) | Origin::Once | Origin::Run => None,
            })
            .collect();
        self.uploaded.retain(|key, _| used.contains(key));
    }

    /// Where a plan's constants lie; those that are not there yet are uploaded.
    ///
    /// # Errors
    /// [`Error::Limit`] for one that is larger than the device's largest buffer.
    pub fn of(
        &mut self,
        plan: &Plan,
        device: &Device,
        progress: OnProgress,
    ) -> Result<HashMap<Memory, Place>> {
        let caps = device.caps();
        let mut wanted = Vec::new();
        for tensor in &plan.tensors {
            if let Origin::Weight(data) = &tensor.origin {
                let bytes = bound_bytes(data.len(), storage_bytes(tensor.dtype, caps.floats()));
                let limit = caps.max_buffer_bytes;
                if bytes > limit {
                    let message = format!(
                        "weight of shape {:?} takes {bytes} bytes, the device's largest buffer {limit}",
                        data.shape()
                    );
                    return Err(Error::limit(format!("tensor {:?}", tensor.name), message));
                }
                let held = tensor.dtype;
                wanted.push(Wanted { name: &tensor.name, tensor: data, held, size_bytes: bytes });
            }
        }
        self.upload(device, &wanted, progress)?;
        let mut memory = HashMap::new();
        for (id, tensor) in plan.tensors.iter().enumerate() {
            if let Origin::Weight(data) = &tensor.origin
                && let Some((_, place)) = self.uploaded.get(&Weights::key(data, tensor.dtype))
            {
                memory.insert(Memory::Constant(id), place.clone());
            }
        }
        Ok(memory)
    }

    /// Upload those of `wanted` that are not there yet.
    fn upload(&mut self, device: &Device, wanted: &[Wanted], progress: OnProgress) -> Result<()> {
        let caps = device.caps();
        let alignment = caps.storage_offset_alignment as u64;
        let mut new: Vec<_> = wanted.iter().filter(|w| !self.uploaded.contains_key(&w.key())).collect();
        new.sort_by_key(|w| w.key());
        new.dedup_by_key(|w| w.key());
        let total = new.iter().map(|w| w.size_bytes).sum();
        let mut done = 0;
        let mut rest = new.as_slice();
        while !rest.is_empty() {
            let limit = WEIGHT_BUFFER_BYTES.min(caps.max_buffer_bytes);
            let (mut end, mut offsets) = (0u64, Vec::new());
            for w in rest {
                let offset = end.next_multiple_of(alignment);
                if !offsets.is_empty() && offset + w.size_bytes > limit {
                    break;
                }
                offsets.push(offset);
                end = offset + w.size_bytes;
            }
            let (now, later) = rest.split_at(offsets.len());
            let buffer = device.buffer("weights", end)?;
            for (w, &offset_bytes) in now.iter().zip(&offsets) {
                let bytes = to_device(w.name, w.tensor, w.held, caps.floats())?;
                device.write(&buffer, offset_bytes, &bytes)?;
                let place = Place { buffer: buffer.clone(), offset_bytes };
                self.uploaded.insert(w.key(), (w.tensor.clone(), place));
                done += w.size_bytes;
                if let Some(progress) = progress {
                    progress(Progress { stage: Stage::Upload, done, total });
                }
            }
            rest = later;
        }
        Ok(())
    }
}
