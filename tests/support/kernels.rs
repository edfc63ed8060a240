//! One kernel under one schedule, by hand: buffers in, numbers out.

use std::collections::BTreeMap;
use std::sync::Arc;

use tilewright::gpu::{Binding, Buffer, Device, Dispatch, Readback, Recording};
use tilewright::kernel::{KernelSpec, Schedule, Slot, grid, size};
use tilewright::wgsl::{Bound, Dialect, Target, render_passes};

/// The words of a kernel's output, from memory filled with NaN.
pub fn run(
    device: &Device,
    spec: &KernelSpec,
    schedule: &Schedule,
    sizes: &[i64],
    inputs: &[Buffer],
) -> Vec<u32> {
    let caps = device.caps();
    let buffer = |len: usize| {
        let buffer = device.buffer("out", (4 * len) as u64).unwrap();
        device.write(&buffer, 0, &vec![0xff; 4 * len]).unwrap();
        buffer
    };
    let output = buffer(size(&spec.output_len(), sizes) as usize);
    let target = Target::new(caps, Dialect::Naga);
    let passes = render_passes("kernel", spec, schedule, sizes, caps, target).unwrap();
    let mut scratch = BTreeMap::new();
    let mut dispatches = Vec::new();
    for (pass, rendered) in &passes {
        if let Slot::Scratch(number) = pass.output {
            scratch.insert(number, buffer(size(&pass.len, sizes) as usize));
        }
        let words: Vec<u8> = pass.sizes.iter().flat_map(|&s| (s as i32).to_le_bytes()).collect();
        let params = device.uniform("params", words.len().next_multiple_of(16).max(16) as u64).unwrap();
        device.write(&params, 0, &words).unwrap();
        let memory = |slot: Slot| match slot {
            Slot::Input(i) => &inputs[i],
            Slot::Scratch(i) => &scratch[&i],
            Slot::Output => &output,
        };
        let bindings: Vec<Binding> = rendered
            .bound
            .iter()
            .map(|bound| match bound {
                Bound::Input(i) => memory(pass.inputs[*i]),
                Bound::Output => memory(pass.output),
                Bound::Params => &params,
            })
            .map(Binding::whole)
            .collect();
        let kernel = device.kernel(&rendered.shader).unwrap();
        let bindings = Arc::new(device.bind(&kernel, &bindings).unwrap());
        let workgroups = grid("kernel", &pass.spec, &pass.schedule, &pass.sizes, caps).unwrap();
        dispatches.push(Dispatch { kernel, bindings, workgroups });
    }
    let size_bytes = output.size_bytes();
    let readbacks = vec![Readback { buffer: output, offset_bytes: 0, size_bytes }];
    let read = device.run(&Recording { dispatches, readbacks }).unwrap();
    read[0].chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// A buffer with these words.
pub fn upload(device: &Device, words: &[f32]) -> Buffer {
    let data: Vec<u8> = words.iter().flat_map(|v| v.to_le_bytes()).collect();
    let buffer = device.buffer("in", data.len() as u64).unwrap();
    device.write(&buffer, 0, &data).unwrap();
    buffer
}
