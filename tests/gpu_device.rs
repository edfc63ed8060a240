//! The device layer on whatever adapter this machine has. Without one these tests fail, unless
//! `TILEWRIGHT_SKIP_GPU=1` says that is meant. `VK_DRIVER_FILES` chooses a Vulkan driver.
#![cfg(not(target_arch = "wasm32"))]

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tilewright::Error;
use tilewright::gpu::{
    AdapterChoice, BindGroup, Binding, Buffer, Device, Dispatch, Kernel, Readback, Recording, adapters,
};
use tilewright::wgsl::{BindingKind, Shader};

/// The device under test, or `None` where GPU tests are switched off.
fn device() -> Option<Device> {
    if std::env::var_os("TILEWRIGHT_SKIP_GPU").is_some_and(|value| value == "1") {
        eprintln!("skipped: TILEWRIGHT_SKIP_GPU=1");
        return None;
    }
    Some(Device::open(&AdapterChoice::Best).expect("GPU tests need an adapter, or TILEWRIGHT_SKIP_GPU=1"))
}

/// `y[i] = x[i] + p.addend` for `i < p.count`.
fn add_shader() -> Shader {
    Shader {
        label: "add".into(),
        source: "struct Params { count: u32, addend: u32 }
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<uniform> p: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < p.count { y[id.x] = x[id.x] + p.addend; }
}
"
        .into(),
        bindings: vec![BindingKind::Read, BindingKind::ReadWrite, BindingKind::Uniform],
    }
}

/// `x[i] = 3 x[i] + 1`.
fn step_shader() -> Shader {
    Shader {
        label: "step".into(),
        source: "@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&x) { x[id.x] = 3u * x[id.x] + 1u; }
}
"
        .into(),
        bindings: vec![BindingKind::ReadWrite],
    }
}

fn bytes(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn read(buffer: &Buffer, offset_bytes: u64, size_bytes: u64) -> Recording {
    let readback = Readback { buffer: buffer.clone(), offset_bytes, size_bytes };
    Recording { dispatches: vec![], readbacks: vec![readback] }
}

/// A buffer of `len` words, the kernel `step` over it, and its bindings.
fn stepper(device: &Device, len: u32) -> (Buffer, Arc<Kernel>, Arc<BindGroup>) {
    let x = device.buffer("x", u64::from(len) * 4).unwrap();
    let kernel = device.kernel(&step_shader()).unwrap();
    let bindings = Arc::new(device.bind(&kernel, &[Binding::whole(&x)]).unwrap());
    (x, kernel, bindings)
}

/// `count` dispatches of `step`, then the whole buffer.
fn steps(x: &Buffer, kernel: &Arc<Kernel>, bindings: &Arc<BindGroup>, count: usize) -> Recording {
    let workgroups = [(x.size_bytes() as u32 / 4).div_ceil(64), 1, 1];
    let dispatch = Dispatch { kernel: Arc::clone(kernel), bindings: Arc::clone(bindings), workgroups };
    Recording { dispatches: vec![dispatch; count], ..read(x, 0, x.size_bytes()) }
}

fn stepped(start: u32, count: usize) -> u32 {
    (0..count).fold(start, |x, _| x.wrapping_mul(3).wrapping_add(1))
}

fn thread_safe<T: Send + Sync>() {}

#[test]
fn types_cross_threads() {
    thread_safe::<Device>();
    thread_safe::<Buffer>();
    thread_safe::<Recording>();
    fn sendable<T: Send>(_: &T) {}
    if let Some(device) = device() {
        sendable(&device.run_async(&Recording::default()));
        sendable(&Device::open_async(&AdapterChoice::Best));
    }
}

#[test]
fn adapters_are_described() {
    let Some(device) = device() else { return };
    let all = adapters().unwrap();
    assert!(!all.is_empty());
    for (index, adapter) in all.iter().enumerate() {
        eprintln!("{adapter}\n  {:?}\n  {:?}", adapter.feature_names, adapter.caps);
        assert_eq!(adapter.index, index);
        assert!(adapter.caps.max_storage_binding_bytes >= 128 << 20);
        assert!(adapter.caps.max_storage_bindings >= 8);
        assert_eq!(adapter.caps.subgroups, adapter.caps.subgroup_size[0] > 0);
    }
    assert!(all.windows(2).all(|pair| pair[0].kind <= pair[1].kind));
    assert_eq!(device.info().name, all[0].name);
    assert_eq!(device.caps(), &all[0].caps);
}

#[test]
fn opening_twice_shares_one_device() {
    let Some(device) = device() else { return };
    let kernel = device.kernel(&step_shader()).unwrap();
    let again = Device::open(&AdapterChoice::Index(device.info().index)).unwrap();
    assert!(Arc::ptr_eq(&kernel, &again.kernel(&step_shader()).unwrap()));
    let upper = device.info().name.to_uppercase();
    let named = Device::open(&AdapterChoice::Name(upper)).unwrap();
    assert_eq!(named.info().name, device.info().name);
}

#[test]
fn unknown_adapters_are_refused_with_a_list() {
    let Some(device) = device() else { return };
    for choice in [AdapterChoice::Name("no such card".into()), AdapterChoice::Index(99)] {
        let error = Device::open(&choice).unwrap_err();
        assert!(matches!(error, Error::Adapter(_)), "{error}");
        assert!(error.to_string().contains(&device.info().name), "{error}");
    }
}

#[test]
#[ignore = "run by no_adapter_is_an_error_that_helps, without drivers"]
fn without_drivers() {
    println!("adapters: {:?}", adapters().map(|all| all.len()));
    println!("open: {}", Device::open(&AdapterChoice::Best).unwrap_err());
}

#[test]
#[cfg(target_os = "linux")]
fn no_adapter_is_an_error_that_helps() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "without_drivers", "--ignored", "--nocapture"])
        .env("VK_DRIVER_FILES", "/nonexistent")
        .env("VK_ICD_FILENAMES", "/nonexistent")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("adapters: Ok(0)"), "{text}");
    assert!(text.contains("open: no GPU adapter found"), "{text}");
    assert!(text.contains("apt install mesa-vulkan-drivers"), "{text}");
}

#[test]
fn add_and_read_back() {
    let Some(device) = device() else { return };
    let kernel = device.kernel(&add_shader()).unwrap();
    let x = device.buffer("x", 400).unwrap();
    let y = device.buffer("y", 400).unwrap();
    let p = device.uniform("p", 8).unwrap();
    device.write(&x, 0, &bytes(&(0..100).collect::<Vec<_>>())).unwrap();
    device.write(&p, 0, &bytes(&[99, 1000])).unwrap();
    let bound = [Binding::whole(&x), Binding::whole(&y), Binding::whole(&p)];
    let bindings = Arc::new(device.bind(&kernel, &bound).unwrap());
    let dispatch = Dispatch { kernel, bindings, workgroups: [2, 1, 1] };
    let readback = Readback { buffer: y.clone(), offset_bytes: 4, size_bytes: 396 };
    let recording = Recording { dispatches: vec![dispatch], readbacks: vec![readback] };
    for addend in [1000, 7] {
        device.write(&p, 4, &bytes(&[addend])).unwrap();
        let out = device.run(&recording).unwrap();
        let mut want: Vec<u32> = (1..99).map(|i| i + addend).collect();
        want.push(0);
        assert_eq!(words(&out[0]), want);
    }
}

#[test]
fn odd_sizes_and_offsets() {
    let Some(device) = device() else { return };
    for len in [0usize, 1, 2, 3, 4, 5, 7, 255, 1021] {
        let data: Vec<u8> = (0..len).map(|i| (i * 7 + 1) as u8).collect();
        let buffer = device.buffer("odd", len as u64).unwrap();
        assert_eq!(buffer.size_bytes(), len as u64);
        device.write(&buffer, 0, &data).unwrap();
        let mut recording = read(&buffer, 0, len as u64);
        for offset_bytes in [0, 1, 2, 3, 5] {
            if offset_bytes < len as u64 {
                let size_bytes = (len as u64 - offset_bytes).min(6);
                recording.readbacks.push(Readback { buffer: buffer.clone(), offset_bytes, size_bytes });
            }
        }
        let out = device.run(&recording).unwrap();
        assert_eq!(out[0], data);
        for (readback, out) in recording.readbacks.iter().zip(&out) {
            let start = readback.offset_bytes as usize;
            assert_eq!(out, &data[start..start + readback.size_bytes as usize]);
        }
    }
    let buffer = device.buffer("nine", 9).unwrap();
    let error = device.write(&buffer, 4, &[0; 6]).unwrap_err().to_string();
    assert!(error.contains("nine") && error.contains("6 bytes at 4") && error.contains('9'), "{error}");
    assert!(device.write(&buffer, 2, &[0; 4]).is_err());
    assert!(device.run(&read(&buffer, 8, 2)).unwrap_err().to_string().contains("nine"));
    assert!(device.run(&read(&buffer, u64::MAX, 2)).is_err());
}

#[test]
fn new_buffers_are_zero() {
    let Some(device) = device() else { return };
    let buffer = device.buffer("zero", 1000).unwrap();
    assert_eq!(device.run(&read(&buffer, 0, 1000)).unwrap()[0], vec![0; 1000]);
}

#[test]
fn compile_errors_show_the_line() {
    let Some(device) = device() else { return };
    let mut shader = step_shader();
    shader.label = "broken".into();
    shader.source = shader.source.replace("3u * x[id.x]", "3u * missing[id.x]");
    let error = device.kernel(&shader).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error:?}");
    let text = error.to_string();
    for part in ["broken", "missing", "if id.x < arrayLength", "3:"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Valid text, wrong types.
    shader.source = step_shader().source.replace("3u * x[id.x]", "3.5f * x[id.x]");
    let text = device.kernel(&shader).unwrap_err().to_string();
    assert!(text.contains("broken") && text.contains("3.5f"), "{text}");
    // A binding the list does not have.
    shader.source = step_shader().source.replace("binding(0)", "binding(1)");
    let text = device.kernel(&shader).unwrap_err().to_string();
    assert!(text.contains("broken"), "{text}");
    // A workgroup no device has.
    shader.source = step_shader().source.replace("workgroup_size(64)", "workgroup_size(65536)");
    let text = device.kernel(&shader).unwrap_err().to_string();
    assert!(text.contains("broken"), "{text}");
    shader.bindings = vec![BindingKind::Read; device.caps().max_storage_bindings.min(1 << 20) as usize + 1];
    let error = device.kernel(&shader).unwrap_err();
    assert!(matches!(error, Error::Limit { .. } | Error::Device { .. }), "{error:?}");
    // Valid, and the shader writer panics.
    shader.bindings = vec![BindingKind::ReadWrite];
    shader.source = "fn at(v: ptr<function, u32>) -> u32 { return *v; }
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(1) fn main() { var a = array(1u, 2u); x[0] = at(&a[x[1]]); }
"
    .into();
    if let Err(error) = device.kernel(&shader) {
        eprintln!("{error}");
        assert!(error.to_string().contains("broken"), "{error}");
    }
    let (x, kernel, bindings) = stepper(&device, 64);
    assert_eq!(words(&device.run(&steps(&x, &kernel, &bindings, 1)).unwrap()[0]), vec![stepped(0, 1); 64]);
}

#[test]
fn kernels_are_compiled_once() {
    let Some(device) = device() else { return };
    let first = device.kernel(&step_shader()).unwrap();
    let renamed = Shader { label: "other".into(), ..step_shader() };
    assert!(Arc::ptr_eq(&first, &device.kernel(&renamed).unwrap()));
    let changed = Shader { source: step_shader().source.replace("3u", "5u"), ..step_shader() };
    assert!(!Arc::ptr_eq(&first, &device.kernel(&changed).unwrap()));
}

#[test]
fn zero_workgroups_are_skipped() {
    let Some(device) = device() else { return };
    let (x, kernel, bindings) = stepper(&device, 64);
    for empty in [[0, 1, 1], [1, 0, 1], [1, 1, 0]] {
        let mut recording = steps(&x, &kernel, &bindings, 3);
        recording.dispatches[1].workgroups = empty;
        device.write(&x, 0, &[0; 256]).unwrap();
        assert_eq!(words(&device.run(&recording).unwrap()[0]), vec![stepped(0, 2); 64]);
    }
    assert!(device.run(&Recording::default()).unwrap().is_empty());
}

#[test]
fn too_large_a_buffer_is_refused_by_name() {
    let Some(device) = device() else { return };
    for size_bytes in [device.caps().max_buffer_bytes.saturating_add(4), u64::MAX] {
        let error = device.buffer("weights", size_bytes).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Limit { .. }), "{text}");
        assert!(text.contains("weights") && text.contains(&size_bytes.to_string()), "{text}");
        assert!(text.contains(&device.caps().max_buffer_bytes.to_string()), "{text}");
    }
    assert!(device.uniform("p", 1 << 40).unwrap_err().to_string().contains("\"p\""));
    assert!(device.buffer("small", 16).is_ok());
}

#[test]
#[ignore = "run by out_of_memory_is_an_error_by_name, with little memory"]
fn with_little_memory() {
    let device = Device::open(&AdapterChoice::Best).unwrap();
    let mut held = Vec::new();
    let error = loop {
        match device.buffer("huge", 1 << 27) {
            Ok(buffer) if held.len() < 1000 => held.push(buffer),
            result => break result.map(drop),
        }
    };
    println!("after {} buffers: {error:?}", held.len());
    drop(held);
    device.run(&Recording::default()).unwrap();
    println!("then: {:?}", device.buffer("small", 1 << 20).map(|buffer| buffer.size_bytes()));
}

#[test]
#[cfg(target_os = "linux")]
fn out_of_memory_is_an_error_by_name() {
    let Some(device) = device() else { return };
    if !device.caps().cpu {
        eprintln!("skipped: the memory of a real GPU cannot be limited");
        return;
    }
    let command = "ulimit -v 2000000; exec \"$0\" --exact with_little_memory --ignored --nocapture";
    let output = std::process::Command::new("sh")
        .args(["-c", command])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("OutOfMemory(\"buffer \\\"huge\\\" of 134217728 bytes\")"), "{text}");
    assert!(text.contains("then: Ok(1048576)"), "{text}");
}

#[test]
fn bad_bindings_are_refused_by_name() {
    let Some(device) = device() else { return };
    let kernel = device.kernel(&add_shader()).unwrap();
    let (x, y) = (device.buffer("x", 4096).unwrap(), device.buffer("y", 4096).unwrap());
    let p = device.uniform("p", 8).unwrap();
    let [whole_x, whole_y, whole_p] = [Binding::whole(&x), Binding::whole(&y), Binding::whole(&p)];
    let refused = |bindings: &[Binding], parts: &[&str]| {
        let error = device.bind(&kernel, bindings).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error:?}");
        for part in parts {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    };
    refused(&[whole_x, whole_y], &["\"add\"", "3 bindings, got 2"]);
    let past = Binding { size_bytes: 4097, ..whole_y };
    refused(&[whole_x, past, whole_p], &["\"add\", binding 1", "4097", "4096", "\"y\""]);
    let skewed = Binding { offset_bytes: 4, size_bytes: 64, ..whole_x };
    if device.caps().storage_offset_alignment > 4 {
        refused(&[skewed, whole_y, whole_p], &["binding 0", "offset 4", "\"x\""]);
    }
    let other_part = Binding { offset_bytes: 2048, size_bytes: 1024, ..whole_x };
    let part = Binding { size_bytes: 1024, ..whole_x };
    refused(&[part, other_part, whole_p], &["binding 1", "\"x\"", "written"]);

    let limit_bytes = device.caps().max_storage_binding_bytes;
    if limit_bytes + 256 <= device.caps().max_buffer_bytes && limit_bytes <= 1 << 28 {
        let large = device.buffer("large", limit_bytes + 256).unwrap();
        let figures = [limit_bytes.to_string(), (limit_bytes + 256).to_string()];
        refused(&[Binding::whole(&large), whole_y, whole_p], &["binding 0", &figures[0], &figures[1]]);
    }
    assert!(device.bind(&kernel, &[whole_x, whole_y, whole_p]).is_ok());
}

#[test]
fn a_bad_dispatch_fails_and_the_device_stays() {
    let Some(device) = device() else { return };
    let (x, kernel, bindings) = stepper(&device, 64);
    let good = steps(&x, &kernel, &bindings, 2);
    let mut bad = good.clone();
    bad.dispatches[1].workgroups = [1, device.caps().max_workgroups + 1, 1];
    let text = device.run(&bad).unwrap_err().to_string();
    assert!(text.contains("dispatch 1, kernel \"step\""), "{text}");
    assert!(device.profile(&bad).is_err() || !device.caps().timestamps);
    assert_eq!(words(&device.run(&good).unwrap()[0]), vec![stepped(0, 2); 64]);

    // Bindings of another kernel.
    let add = device.kernel(&add_shader()).unwrap();
    let mut mixed = good.clone();
    mixed.dispatches[0].kernel = add;
    assert!(device.run(&mixed).unwrap_err().to_string().contains("dispatch 0, kernel \"add\""));

    // Only the device knows that this uniform is too small for its struct, and only when it is dispatched.
    let add = device.kernel(&add_shader()).unwrap();
    let y = device.buffer("y", 256).unwrap();
    let p = device.uniform("p", 4).unwrap();
    let bound = device.bind(&add, &[Binding::whole(&x), Binding::whole(&y), Binding::whole(&p)]).unwrap();
    let mut small = good.clone();
    small.dispatches.push(Dispatch { kernel: add, bindings: Arc::new(bound), workgroups: [1, 1, 1] });
    let text = device.run(&small).unwrap_err().to_string();
    assert!(text.contains("dispatch 2, kernel \"add\""), "{text}");
    eprintln!("{text}");
    assert_eq!(words(&device.run(&good).unwrap()[0]), vec![stepped(0, 4); 64]);
}

#[test]
fn long_uploads_arrive_whole() {
    let Some(device) = device() else { return };
    // Larger than the staging memory in flight, and odd.
    let len = (40 << 20) + 3;
    let data: Vec<u8> = (0..len).map(|i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let buffer = device.buffer("long", len as u64).unwrap();
    device.write(&buffer, 0, &data).unwrap();
    assert!(device.run(&read(&buffer, 0, len as u64)).unwrap()[0] == data);
    // Many small ones.
    for (i, chunk) in data.chunks(1 << 20).enumerate().take(40) {
        device.write(&buffer, (i << 20) as u64, &chunk.iter().map(|b| !b).collect::<Vec<u8>>()).unwrap();
    }
    let out = device.run(&read(&buffer, 0, len as u64)).unwrap();
    assert!(out[0].iter().zip(&data).take(40 << 20).all(|(a, b)| *a == !b));
}

#[test]
fn threads_share_a_device() {
    let Some(device) = device() else { return };
    std::thread::scope(|scope| {
        for seed in 0..4u32 {
            let device = device.clone();
            scope.spawn(move || {
                let (x, kernel, bindings) = stepper(&device, 256 * (seed + 1));
                let recording = steps(&x, &kernel, &bindings, 1 + seed as usize);
                let mut broken = recording.clone();
                broken.dispatches[0].workgroups = [u32::MAX; 3];
                for round in 0..100 {
                    let start = seed * 1000 + round;
                    device.write(&x, 0, &bytes(&vec![start; 256 * (seed as usize + 1)])).unwrap();
                    let out = device.run(&recording).unwrap();
                    let want = stepped(start, 1 + seed as usize);
                    assert!(
                        words(&out[0]).iter().all(|value| *value == want),
                        "thread {seed}, round {round}"
                    );
                    // One thread's errors stay its own.
                    if seed == 0 {
                        assert!(device.run(&broken).is_err());
                        let source = format!("fn broken_{round}(");
                        let shader = Shader { label: "broken".into(), source, bindings: vec![] };
                        assert!(device.kernel(&shader).is_err());
                    }
                }
            });
        }
    });
}

#[test]
fn async_runs_wait_elsewhere() {
    let Some(device) = device() else { return };
    pollster::block_on(async {
        let device = Device::open_async(&AdapterChoice::Index(device.info().index)).await.unwrap();
        let (x, kernel, bindings) = stepper(&device, 64);
        let recording = steps(&x, &kernel, &bindings, 1);
        for round in 1..20 {
            let out = device.run_async(&recording).await.unwrap();
            assert_eq!(words(&out[0]), vec![stepped(0, round); 64]);
        }
        let mut bad = recording.clone();
        bad.dispatches[0].workgroups = [u32::MAX, 1, 1];
        assert!(device.run_async(&bad).await.is_err());
    });
    // Dropped in flight: the device and its staging buffers survive it.
    let (x, kernel, bindings) = stepper(&device, 1 << 20);
    let recording = steps(&x, &kernel, &bindings, 8);
    {
        let mut future = Box::pin(device.run_async(&recording));
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {}
            Poll::Ready(result) => drop(result.unwrap()),
        }
    }
    assert_eq!(words(&device.run(&recording).unwrap()[0])[7], stepped(0, 16));
}

#[test]
fn profiles_are_per_dispatch() {
    let Some(device) = device() else { return };
    let (x, kernel, bindings) = stepper(&device, 1 << 18);
    let mut recording = steps(&x, &kernel, &bindings, 5);
    recording.dispatches[2].workgroups = [0, 1, 1];
    device.run(&recording).unwrap();
    let Some(elapsed_ns) = device.profile(&recording).unwrap() else {
        assert!(!device.caps().timestamps);
        return;
    };
    eprintln!("{elapsed_ns:?} ns");
    assert_eq!(elapsed_ns.len(), 5);
    for i in [0, 1, 3, 4] {
        assert!(elapsed_ns[i] > 0 && elapsed_ns[i] < 10_000_000_000, "{elapsed_ns:?}");
    }
    assert!(elapsed_ns[2] < elapsed_ns[1], "{elapsed_ns:?}");
    // More than a query set holds.
    let (x, kernel, bindings) = stepper(&device, 64);
    let many = steps(&x, &kernel, &bindings, 5000);
    assert_eq!(device.profile(&many).unwrap().unwrap().len(), 5000);
    assert!(device.profile(&Recording::default()).unwrap().unwrap().is_empty());
}

#[test]
fn several_thousand_dispatches_in_a_run() {
    let Some(device) = device() else { return };
    let (x, kernel, bindings) = stepper(&device, 64);
    let recording = steps(&x, &kernel, &bindings, 5000);
    assert_eq!(words(&device.run(&recording).unwrap()[0]), vec![stepped(0, 5000); 64]);
}

/// Prints the fixed costs: `cargo test --release --test gpu_device -- --ignored --nocapture fixed_costs`.
#[test]
#[ignore = "a measurement"]
fn fixed_costs() {
    let Some(device) = device() else { return };
    eprintln!("{}", device.info());
    let (x, kernel, bindings) = stepper(&device, 64);
    let best_us = |recording: &Recording| {
        let mut best = f64::INFINITY;
        for _ in 0..100 {
            let start = Instant::now();
            device.run(recording).unwrap();
            best = best.min(start.elapsed().as_secs_f64() * 1e6);
        }
        best
    };
    let (one, thousand) =
        (best_us(&steps(&x, &kernel, &bindings, 1)), best_us(&steps(&x, &kernel, &bindings, 1001)));
    eprintln!("run of one dispatch and a readback of 256 bytes: {one:.0} us");
    eprintln!("each further dispatch: {:.2} us", (thousand - one) / 1000.0);
    let long = steps(&x, &kernel, &bindings, 1001);
    let mut recorded_us = f64::INFINITY;
    for _ in 0..20 {
        let mut future = Box::pin(device.run_async(&long));
        let start = Instant::now();
        let early = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        recorded_us = recorded_us.min(start.elapsed().as_secs_f64() * 1e6);
        if early.is_pending() {
            pollster::block_on(future).unwrap();
        }
    }
    eprintln!("  of which recording on the host, with the submit: {:.2} us", recorded_us / 1001.0);
    eprintln!("empty run: {:.0} us", best_us(&Recording::default()));
    let bare = Recording { readbacks: vec![], ..steps(&x, &kernel, &bindings, 1) };
    eprintln!("run of one dispatch without readback: {:.0} us", best_us(&bare));
    eprintln!("readback of 256 bytes alone: {:.0} us", best_us(&read(&x, 0, 256)));
    let large = device.buffer("large", 64 << 20).unwrap();
    eprintln!("readback of 64 MiB alone: {:.0} us", best_us(&read(&large, 0, 64 << 20)));
    let data = vec![1u8; 64 << 20];
    let start = Instant::now();
    device.write(&large, 0, &data).unwrap();
    device.run(&Recording::default()).unwrap();
    eprintln!("upload of 64 MiB: {:.0} us", start.elapsed().as_secs_f64() * 1e6);
    let start = Instant::now();
    for _ in 0..100 {
        pollster::block_on(device.run_async(&bare)).unwrap();
    }
    eprintln!("asynchronous run of one dispatch: {:.0} us", start.elapsed().as_secs_f64() * 1e4);
}
