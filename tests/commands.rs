//! The words that the browser's host reads, replayed natively: they are all that a run needs.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tilewright::commands::{
    Commands, Keep, Kernels, Memory, Range, Recorder, decode, encode, from_device, to_device,
};
use tilewright::gpu::{AdapterChoice, Binding, Buffer, Device, Dispatch, Readback, Recording};
use tilewright::kernel::default_schedule;
use tilewright::ops::Known;
use tilewright::plan::{Origin, Plan, plan};
use tilewright::wgsl::{Dialect, Target};
use tilewright::{Session, Tensor, onnx};

/// A host as simple as can be: a buffer for every memory, everything compiled and bound anew.
fn replay(
    device: &Device,
    commands: &Commands,
    kernels: &Kernels,
    memory: &mut HashMap<Memory, Buffer>,
) -> Vec<Vec<u8>> {
    for &(id, bytes) in &commands.buffers {
        memory.entry(id).or_insert_with(|| device.buffer("memory", bytes).unwrap());
    }
    if !commands.parameters.is_empty() {
        let buffer = device.uniform("parameters", commands.parameters.len() as u64).unwrap();
        device.write(&buffer, 0, &commands.parameters).unwrap();
        memory.insert(Memory::Parameters, buffer);
    }
    let binding = |range: &Range| Binding {
        buffer: &memory[&range.memory],
        offset_bytes: range.offset_bytes,
        size_bytes: range.size_bytes,
    };
    let dispatch = |dispatch: &tilewright::commands::Dispatch| {
        let kernel = device.kernel(&kernels.texts()[dispatch.kernel].rendered.shader).unwrap();
        let bindings: Vec<Binding> = dispatch.bindings.iter().map(binding).collect();
        let bindings = Arc::new(device.bind(&kernel, &bindings).unwrap());
        Dispatch { kernel, bindings, workgroups: dispatch.workgroups }
    };
    let readback = |range: &Range| Readback {
        buffer: memory[&range.memory].clone(),
        offset_bytes: range.offset_bytes,
        size_bytes: range.size_bytes,
    };
    let recording = Recording {
        dispatches: commands.dispatches.iter().map(dispatch).collect(),
        readbacks: commands.readbacks.iter().map(readback).collect(),
    };
    device.run(&recording).unwrap()
}

/// Constants and input of a plan with one input, uploaded.
fn upload(device: &Device, plan: &Plan, input: &Tensor) -> HashMap<Memory, Buffer> {
    let mut memory = HashMap::new();
    for (id, tensor) in plan.tensors.iter().enumerate() {
        let (place, data) = match &tensor.origin {
            Origin::Weight(data) => (Memory::Constant(id), data),
            Origin::Input(number) => (Memory::Input(*number), input),
            _ => continue,
        };
        let bytes = to_device(&tensor.name, data, tensor.dtype, device.caps().floats()).unwrap();
        let buffer = device.buffer(&tensor.name, bytes.len().next_multiple_of(16) as u64).unwrap();
        device.write(&buffer, 0, &bytes).unwrap();
        memory.insert(place, buffer);
    }
    memory
}

#[test]
fn a_run_that_went_through_words_gives_what_a_session_gives() {
    if support::skip_gpu("commands") {
        return;
    }
    let model = support::root().join("examples/data/mlp.onnx");
    let x: Vec<f32> = (0..20).map(|i| (i as f32).sin()).collect();
    let x = Tensor::from_slice(&[5, 4], &x).unwrap();
    let want = Session::load(&model, &support::options()).unwrap().run(&[("x", &x)]).unwrap();

    let device = Device::open(&AdapterChoice::Best).unwrap();
    let caps = device.caps();
    let known = Known { dims: BTreeMap::new(), ..Known::default() };
    let plan = plan(&onnx::open(&model).unwrap(), &known, caps).expect("a plan");
    let mut kernels = Kernels::default();
    let mut recorder = Recorder {
        plan: &plan,
        caps,
        target: Target::new(caps, Dialect::Naga),
        choose: &|spec, sizes| default_schedule(spec, sizes, caps),
        kernels: &mut kernels,
    };
    let once = recorder.once().unwrap();
    let (run, _) = recorder.run(&plan.symbol_values(&[vec![5, 4]]), &Keep::default()).unwrap();
    let words = [encode(&once).unwrap(), encode(&run).unwrap()];
    let [decoded_once, decoded_run] = words.map(|words| decode(&words).unwrap());
    assert_eq!((&decoded_once, &decoded_run), (&once, &run));

    let mut memory = upload(&device, &plan, &x);
    replay(&device, &decoded_once, &kernels, &mut memory);
    let read = replay(&device, &decoded_run, &kernels, &mut memory);
    let output = &plan.outputs[0];
    let got = from_device(&output.name, output.dtype, &[5, 3], read[0].clone(), output.dtype, caps.floats());
    assert_eq!(got.unwrap(), want["probabilities"]);
}
