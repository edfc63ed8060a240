//! What a device can do at best, measured: bytes, arithmetic, and what a dispatch costs by itself.

use std::sync::Arc;

use super::clock::Clock;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Device, Dispatch};
use crate::kernel::Peaks;
use crate::wgsl::{PROBE_WORKGROUP, Shader, probe_copy, probe_fma, probe_fma_flops};

/// Samples of each probe; the best counts.
const SAMPLES: usize = 5;
/// Bytes of either side of a copy, beyond any cache: on a CPU that pretends to be a GPU, and on a GPU.
const COPY_BYTES: [u64; 2] = [32 << 20, 128 << 20];
/// Workgroups of a probe that keep a device busy, on a CPU and on a GPU.
const WORKGROUPS: [u32; 2] = [256, 8192];
/// Independent chains of arithmetic that are tried: an out-of-order core wants few, a GPU's scheduler some.
const VECTORS: [u32; 3] = [1, 2, 4];

/// Memory larger than the device's caches, and a dispatch that touches all of it: what lay in the caches before does not
/// afterwards.
#[derive(Clone, Debug)]
pub struct Sweep {
    pub(super) dispatch: Dispatch,
    /// The same in words: which is faster depends on the device.
    words: Dispatch,
    size_bytes: u64,
}

impl Sweep {
    /// # Errors
    /// What the device says.
    pub fn new(device: &Device) -> Result<Sweep> {
        let caps = device.caps();
        let [cpu, gpu] = COPY_BYTES;
        let size_bytes = if caps.cpu { cpu } else { gpu };
        let size_bytes = size_bytes.min(caps.max_storage_binding_bytes).min(caps.max_buffer_bytes) & !15;
        let (from, to) = (device.buffer("probe", size_bytes)?, device.buffer("probe", size_bytes)?);
        let [cpu, gpu] = WORKGROUPS;
        let groups = if caps.cpu { cpu } else { gpu };
        let dispatch = bound(device, &probe_copy(true)?, &[&from, &to], groups)?;
        let words = bound(device, &probe_copy(false)?, &[&from, &to], groups)?;
        Ok(Sweep { dispatch, words, size_bytes })
    }
}

fn bound(device: &Device, shader: &Shader, buffers: &[&Buffer], groups: u32) -> Result<Dispatch> {
    let kernel = device.kernel(shader)?;
    let bindings: Vec<Binding> = buffers.iter().map(|buffer| Binding::whole(buffer)).collect();
    let bindings = Arc::new(device.bind(&kernel, &bindings)?);
    Ok(Dispatch { kernel, bindings, workgroups: [groups, 1, 1] })
}

/// Measure a device's peaks; takes a few tenths of a second. `before_each` is called before each of some thirty samples.
///
/// # Errors
/// What the device says.
pub fn peaks(device: &Device, sweep: &Sweep, before_each: &dyn Fn() -> Result<()>) -> Result<Peaks> {
    let clock = Clock::new(device)?;
    let best_ns = |dispatch: &Dispatch| -> Result<u64> {
        let dispatches = std::slice::from_ref(dispatch);
        // The first also compiles, and says how often to repeat.
        before_each()?;
        let mut best = clock.time(&[], dispatches, 1)?;
        for _ in 0..SAMPLES {
            before_each()?;
            best = best.min(clock.time(&[], dispatches, clock.repeats(best))?);
        }
        Ok(best)
    };
    let copied = 2.0 * sweep.size_bytes as f64;
    let copy_ns = best_ns(&sweep.dispatch)?.min(best_ns(&sweep.words)?);
    let copy_bytes_per_ns = copied / copy_ns as f64;

    let [cpu, gpu] = WORKGROUPS;
    let groups = if device.caps().cpu { cpu } else { gpu };
    let words = u64::from(PROBE_WORKGROUP) * u64::from(groups + 1);
    let buffer = device.buffer("probe", words * 4)?;
    let flops_per_ns = |f16: bool| -> Result<f64> {
        let mut most = 0.0f64;
        for vectors in VECTORS {
            let dispatch = bound(device, &probe_fma(f16, vectors)?, &[&buffer], groups)?;
            let flops = probe_fma_flops(vectors) * f64::from(groups * PROBE_WORKGROUP);
            most = most.max(flops / best_ns(&dispatch)? as f64);
        }
        Ok(most)
    };
    let f32_flops_per_ns = flops_per_ns(false)?;
    let f16_flops_per_ns = device.caps().f16.then(|| flops_per_ns(true)).transpose()?;

    // A copy of a few vectors is as good as nothing.
    let (from, to) = (device.buffer("probe", 256)?, device.buffer("probe", 256)?);
    let launch_ns = best_ns(&bound(device, &probe_copy(true)?, &[&from, &to], 1)?)? as f64;
    Ok(Peaks { copy_bytes_per_ns, f32_flops_per_ns, f16_flops_per_ns, launch_ns })
}
