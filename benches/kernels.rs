//! Times of what a session does: planning, rendering a kernel, and kernels on the device.
//!
//! `cargo bench --bench kernels -- render` runs one group. On the device, an element is a floating-point operation:
//! `Gelem/s` reads as GFLOP/s. A rendered kernel should stay under 100 us.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tilewright::gpu::{AdapterChoice, Device};
use tilewright::kernel::{Caps, KernelSpec, candidates};
use tilewright::ops::Known;
use tilewright::plan::plan;
use tilewright::tune::Bench;
use tilewright::wgsl::{Dialect, Target, render};
use tilewright::{DType, onnx};

#[path = "../tests/support/mod.rs"]
mod support;

use support::corpus;
use support::net::{Net, int, ints};

/// The kernel that computes `output`.
fn kernel(net: &Net, output: &str) -> KernelSpec {
    let plan = net.plan(&Caps::default());
    let step = plan.steps.iter().find(|step| plan.tensors[step.output].name == output);
    plan.kernels[step.unwrap_or_else(|| panic!("no kernel computes {output:?}\n{plan}")).kernel].spec.clone()
}

fn planning(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    for (name, net) in [("attention", corpus::attention()), ("residual block", corpus::residual_block())] {
        let (bytes, graph) = (bytes::Bytes::from(net.bytes()), net.graph());
        group.bench_function(format!("{name}, read"), |b| {
            b.iter(|| onnx::parse_bytes(black_box(bytes.clone())).unwrap());
        });
        group.bench_function(format!("{name}, plan"), |b| {
            b.iter(|| plan(black_box(&graph), &Known::default(), &Caps::default()).unwrap());
        });
    }
}

fn rendering(c: &mut Criterion) {
    let map = Net::new()
        .input("x", DType::F32, "n 12 m")
        .input("y", DType::F32, "12 1")
        .node("Transpose", "x", "t", &[ints("perm", &[2, 1, 0])])
        .node("Add", "x y", "s", &[])
        .node("Erf", "s", "z", &[])
        .output("z", DType::F32);
    let softmax = Net::new()
        .input("x", DType::F32, "n 12 m")
        .node("Softmax", "x", "weights", &[])
        .output("weights", DType::F32);
    let kernels = [
        ("map", kernel(&map, "z")),
        ("softmax", kernel(&softmax, "weights")),
        ("attention", kernel(&corpus::attention(), "y")),
        ("layer norm", kernel(&corpus::feed_forward(), "norm")),
        ("gemm, bias, gelu", kernel(&corpus::feed_forward(), "y")),
        ("conv, residual, relu", kernel(&corpus::residual_block(), "y")),
    ];
    let mut group = c.benchmark_group("render");
    for (name, spec) in &kernels {
        let schedule = &candidates(spec, &vec![64; spec.params], &Caps::default())[0];
        let target = Target::new(&Caps::default(), Dialect::Naga);
        group.bench_function(*name, |b| {
            b.iter(|| render("kernel", black_box(spec), schedule, target).unwrap())
        });
    }
}

fn device(c: &mut Criterion) {
    let Ok(device) = Device::open(&AdapterChoice::Best) else {
        eprintln!("no adapter: kernels are not timed");
        return;
    };
    let product = |m: usize, n: usize, k: usize| {
        let net = Net::new().input("x", DType::F32, &format!("{m} {k}")).input(
            "w",
            DType::F32,
            &format!("{k} {n}"),
        );
        let net = net.node("MatMul", "x w", "y", &[]).output("y", DType::F32);
        (format!("gemm {m} x {n} x {k}"), net, vec![m * k, k * n], m * n, 2 * m * n * k)
    };
    let convolution = |channels: usize, side: usize, group: usize| {
        let inner = channels / group;
        let net = Net::new()
            .input("x", DType::F32, &format!("1 {channels} {side} {side}"))
            .input("w", DType::F32, &format!("{channels} {inner} 3 3"))
            .node("Conv", "x w", "y", &[ints("pads", &[1; 4]), int("group", group as i64)])
            .output("y", DType::F32);
        let (image, weights) = (channels * side * side, channels * inner * 9);
        let name = format!("conv 3x3, {channels} channels of {side} x {side}, {group} groups");
        (name, net, vec![image, weights], image, 2 * image * inner * 9)
    };
    let rows = |rows: usize, len: usize| {
        let net = Net::new().input("x", DType::F32, &format!("{rows} {len}"));
        let net = net.node("Softmax", "x", "y", &[]).output("y", DType::F32);
        // Maximum, difference, exponential, sum, quotient.
        (format!("softmax {rows} x {len}"), net, vec![rows * len], rows * len, 5 * rows * len)
    };
    let cases = [
        product(128, 384, 384),
        product(1, 1024, 1024),
        product(256, 256, 256),
        convolution(64, 28, 1),
        convolution(64, 28, 64),
        rows(768, 128),
        rows(16, 4096),
    ];
    let mut group = c.benchmark_group("device");
    for (name, net, inputs, output, operations) in cases {
        let plan = net.plan(device.caps());
        assert_eq!(plan.kernels.len(), 1, "{name}\n{plan}");
        let spec = &plan.kernels[0].spec;
        // In the order in which the kernel binds them.
        let lens: Vec<usize> = plan.steps[0]
            .inputs
            .iter()
            .map(|&t| match plan.tensors[t].origin {
                tilewright::plan::Origin::Input(number) => inputs[number],
                _ => output,
            })
            .collect();
        let schedule = candidates(spec, &[], device.caps()).swap_remove(0);
        let mut bench = Bench::new(&device, "bench", spec, &[], &lens, output).unwrap();
        group.throughput(Throughput::Elements(operations as u64));
        group.bench_function(name, |b| {
            let mut guess = None;
            b.iter_custom(|turns| {
                let mut total = Duration::ZERO;
                for _ in 0..turns {
                    let elapsed_ns = bench.sample(&schedule, guess).unwrap();
                    guess = Some(elapsed_ns);
                    total += Duration::from_nanos(elapsed_ns);
                }
                total
            });
        });
    }
}

/// Seconds, not minutes: `--measurement-time` asks for more.
fn quick() -> Criterion {
    let criterion = Criterion::default().sample_size(10).without_plots();
    criterion.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500))
}

criterion_group!(name = benches; config = quick(); targets = planning, rendering, device);
criterion_main!(benches);
