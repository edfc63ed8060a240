//! Measures what the device can do at best.

use std::sync::Arc;

use super::clock::Clock;
use super::probe::{Probe, copy_probe, peaks_of, probes};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Device, Dispatch};
use crate::kernel::Peaks;

/// Samples of each probe; the best counts.
const SAMPLES: usize = 5;

/// Memory larger than the device's caches, and a dispatch that touches all of it: what lay in the caches before does not
/// afterwards.
#[derive(Clone, Debug)]
pub struct Sweep {
    pub(super) dispatch: Dispatch,
}

impl Sweep {
    /// # Errors
    /// What the device says.
    pub fn new(device: &Device) -> Result<Sweep> {
        Ok(Sweep { dispatch: bound(device, &copy_probe(device.caps(), true)?)? })
    }
}

fn bound(device: &Device, probe: &Probe) -> Result<Dispatch> {
    let kernel = device.rendered(&probe.shader)?;
    let buffers = probe.buffer_bytes.iter().map(|&bytes| device.buffer("probe", bytes));
    let buffers = buffers.collect::<Result<Vec<Buffer>>>()?;
    let bindings: Vec<Binding> = buffers.iter().map(Binding::whole).collect();
    let bindings = Arc::new(device.bind(&kernel, &bindings)?);
    Ok(Dispatch { kernel, bindings, workgroups: [probe.workgroups, 1, 1] })
}

/// Measure a device's peaks; takes a few tenths of a second. `before_each` is called before each of some thirty samples.
///
/// # Errors
/// What the device says.
pub fn peaks(device: &Device, before_each: &dyn Fn() -> Result<()>) -> Result<Peaks> {
    let clock = Clock::new(device)?;
    let mut measured = Vec::new();
    for probe in probes(device.caps())? {
        let dispatch = bound(device, &probe)?;
        let dispatches = std::slice::from_ref(&dispatch);
        // The first also compiles, and says how often to repeat.
        before_each()?;
        let mut best_ns = clock.time(&[], dispatches, 1)?;
        for _ in 0..SAMPLES {
            before_each()?;
            best_ns = best_ns.min(clock.time(&[], dispatches, clock.repeats(best_ns))?);
        }
        measured.push((probe.measure, best_ns));
    }
    Ok(peaks_of(&measured))
}
