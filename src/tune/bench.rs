//! A kernel on its own: random inputs, an output, candidates to compile, time and compare.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use super::peaks::Sweep;
use crate::error::{Error, Result};
use crate::expr::{Floats, Value, write_element};
use crate::gpu::{Binding, Buffer, Device, Dispatch, Kernel, Readback, Recording};
use crate::kernel::{KernelSpec, Schedule, Slot, grid, size, storage_bytes, stored};
use crate::tensor::DType;
use crate::wgsl::{self, Bound, Dialect, Target};

/// A kernel with memory to run in.
pub struct Bench<'a> {
    device: &'a Device,
    label: &'a str,
    spec: &'a KernelSpec,
    sizes: &'a [i64],
    inputs: Vec<Buffer>,
    output: Buffer,
    output_bytes: u64,
    compiled: HashMap<Schedule, Vec<Dispatch>>,
    clock: Clock,
    /// What empties the caches before each sample.
    sweep: Option<Sweep>,
}

impl<'a> Bench<'a> {
    /// Memory for `spec` at run-time sizes `sizes`: inputs of `input_lens` elements with random values that are
    /// not zero, an output of `output_len`.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::OutOfMemory`].
    pub fn new(
        device: &'a Device,
        label: &'a str,
        spec: &'a KernelSpec,
        sizes: &'a [i64],
        input_lens: &[usize],
        output_len: usize,
    ) -> Result<Bench<'a>> {
        let floats = device.caps().floats();
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        let mut inputs = Vec::new();
        for (&dtype, &len) in spec.inputs.iter().zip(input_lens) {
            let buffer =
                device.buffer("bench input", crate::plan::bound_bytes(len, storage_bytes(dtype, floats)))?;
            device.write(&buffer, 0, &random(dtype, len, floats, &mut seed))?;
            inputs.push(buffer);
        }
        let output_bytes = crate::plan::bound_bytes(output_len, storage_bytes(spec.output, floats));
        let output = device.buffer("bench output", output_bytes)?;
        Ok(Bench {
            device,
            label,
            spec,
            sizes,
            inputs,
            output,
            output_bytes,
            compiled: HashMap::new(),
            clock: Clock::new(device)?,
            sweep: None,
        })
    }

    /// Empty the caches before each sample: kernels that move more than they compute look several times too fast
    /// with their inputs in a cache.
    pub fn with_cold_caches(mut self, sweep: &Sweep) -> Self {
        self.sweep = Some(sweep.clone());
        self
    }

    /// The kernels compiled so far: who holds them need not compile them again.
    pub fn into_kernels(self) -> Vec<Arc<Kernel>> {
        self.compiled.into_values().flatten().map(|dispatch| dispatch.kernel).collect()
    }

    /// Wait no longer than `limit` for a schedule's compilation and first dispatch, or for a sample.
    pub fn set_limit(&mut self, limit: Duration) {
        self.clock.set_limit(limit);
    }

    /// The device, after a run that took too long or failed: whether it can go on, after waiting for it once more.
    pub fn is_usable(&self) -> bool {
        matches!(self.device.settle(self.clock.limit()), Ok(true))
    }

    /// The kernel.
    pub fn spec(&self) -> &KernelSpec {
        self.spec
    }

    /// What tells schedules apart: the texts and grids of their passes. Equal ones need be measured once.
    ///
    /// # Errors
    /// As [`wgsl::render_passes`].
    pub fn identity(&self, schedule: &Schedule) -> Result<Vec<(String, [u32; 3])>> {
        let caps = self.device.caps();
        let target = Target::new(caps, Dialect::Naga);
        wgsl::render_passes(self.label, self.spec, schedule, self.sizes, caps, target)?
            .into_iter()
            .map(|(pass, rendered)| {
                let groups = grid(&rendered.shader.label, &pass.spec, &pass.schedule, &pass.sizes, caps)?;
                Ok((rendered.shader.source, groups))
            })
            .collect()
    }

    /// Give input number `input` these elements, in their form in device memory, instead of random ones.
    ///
    /// # Errors
    /// [`Error::Limit`] where there is no such input, or it is smaller.
    pub fn write(&mut self, input: usize, bytes: &[u8]) -> Result<()> {
        let missing = || Error::limit(self.label, format!("there is no input {input}"));
        self.device.write(self.inputs.get(input).ok_or_else(missing)?, 0, bytes)
    }

    /// A uniform with the values of a pass's parameters, where it has any.
    fn params(&self, sizes: &[i64]) -> Result<Option<Buffer>> {
        if sizes.is_empty() {
            return Ok(None);
        }
        let mut bytes: Vec<u8> = sizes.iter().flat_map(|&size| (size as i32).to_le_bytes()).collect();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let buffer = self.device.uniform("bench parameters", bytes.len() as u64)?;
        self.device.write(&buffer, 0, &bytes)?;
        Ok(Some(buffer))
    }

    /// The passes of the kernel under `schedule`.
    fn dispatches(&mut self, schedule: &Schedule) -> Result<Vec<Dispatch>> {
        if let Some(done) = self.compiled.get(schedule) {
            return Ok(done.clone());
        }
        let caps = self.device.caps();
        let target = Target::new(caps, Dialect::Naga);
        let mut scratch: HashMap<usize, Buffer> = HashMap::new();
        let mut dispatches = Vec::new();
        for (pass, rendered) in
            wgsl::render_passes(self.label, self.spec, schedule, self.sizes, caps, target)?
        {
            let kernel = self.device.rendered(&rendered.shader)?;
            if let Slot::Scratch(number) = pass.output {
                let len = size(&pass.len, self.sizes) as usize;
                let bytes = crate::plan::bound_bytes(len, storage_bytes(pass.spec.output, caps.floats()));
                scratch.insert(number, self.device.buffer("bench scratch", bytes)?);
            }
            let params = self.params(&pass.sizes)?;
            let memory = |slot: Slot| match slot {
                Slot::Input(i) => self.inputs.get(i),
                Slot::Output => Some(&self.output),
                Slot::Scratch(number) => scratch.get(&number),
            };
            let binding = |bound: &Bound| match bound {
                Bound::Input(i) => pass.inputs.get(*i).and_then(|&slot| memory(slot)),
                Bound::Output => memory(pass.output),
                Bound::Params => params.as_ref(),
            };
            let missing = || Error::limit(self.label, "a binding has no memory");
            let bindings: Option<Vec<_>> =
                rendered.bound.iter().map(|bound| binding(bound).map(Binding::whole)).collect();
            let group = self.device.bind(&kernel, &bindings.ok_or_else(missing)?)?;
            let workgroups = grid(&rendered.shader.label, &pass.spec, &pass.schedule, &pass.sizes, caps)?;
            dispatches.push(Dispatch { kernel, bindings: Arc::new(group), workgroups });
        }
        self.compiled.insert(schedule.clone(), dispatches.clone());
        Ok(dispatches)
    }

    /// The output under `schedule`, from memory filled with NaN before.
    ///
    /// # Errors
    /// [`Error::Device`] and [`Error::Limit`] when it cannot be compiled or run.
    pub fn output(&mut self, schedule: &Schedule) -> Result<Vec<f64>> {
        let dispatches = self.dispatches(schedule)?;
        self.device.write(&self.output, 0, &vec![0xff; self.output_bytes as usize])?;
        let readback =
            Readback { buffer: self.output.clone(), offset_bytes: 0, size_bytes: self.output_bytes };
        let recording = Recording { dispatches, readbacks: vec![readback] };
        let bytes = self.device.run_within(&recording, self.clock.limit())?.pop().unwrap_or_default();
        let stored = stored(self.spec.output, self.device.caps().floats());
        let len = bytes.len() * 8 / stored.bits();
        Ok((0..len)
            .map(|i| crate::expr::read_element(stored, &bytes, i).map_or(f64::NAN, |v| v.to_f64()))
            .collect())
    }

    /// Nanoseconds of all passes under `schedule`: the mean over as many as it takes to be measurable.
    /// `guess_ns` is what it took before, if anything did.
    ///
    /// # Errors
    /// As [`Bench::output`].
    pub fn sample(&mut self, schedule: &Schedule, guess_ns: Option<u64>) -> Result<u64> {
        let dispatches = self.dispatches(schedule)?;
        let repeats = guess_ns.map_or(1, |ns| self.clock.repeats(ns));
        let before: Vec<Dispatch> = self.sweep.iter().map(|sweep| sweep.dispatch.clone()).collect();
        self.clock.time(&before, &dispatches, repeats)
    }
}

/// Random elements in their storage form: floats in +-[0.25, 1.25), integers in 1..=4, bools.
fn random(dtype: DType, len: usize, floats: Floats, seed: &mut u64) -> Vec<u8> {
    let mut next = || {
        // xorshift64: any generator does, as long as it is the same everywhere.
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed >> 40
    };
    let mut out = Vec::with_capacity(len * storage_bytes(dtype, floats));
    for i in 0..len {
        let bits = next();
        let float =
            (0.25 + (bits >> 1) as f32 / (1u32 << 23) as f32) * if bits & 1 == 0 { 1.0 } else { -1.0 };
        let value = match stored(dtype, floats) {
            stored if stored.is_float() => Value::F(float as f64),
            _ if dtype == DType::Bool => Value::I((bits & 1) as i64),
            _ => Value::I(1 + (bits & 3) as i64),
        };
        write_element(stored(dtype, floats), i, value, &mut out);
    }
    out
}
