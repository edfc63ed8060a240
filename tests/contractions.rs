//! Matrix products in all layouts and shapes, under schedules from all over the space, against float64.

mod support;

use std::collections::BTreeMap;

use half::f16;
use support::contractions::{self, Contraction};
use support::kernels;
use support::net::Net;
use tilewright::gpu::{Buffer, Device};
use tilewright::kernel::{Caps, Schedule, default_schedule};
use tilewright::ops::{Known, Precision};
use tilewright::plan::plan;
use tilewright::wgsl::{Dialect, Target, render_passes};
use tilewright::{DType, onnx};

/// Whole multiples of 1/64 in +-1, so that f16 holds them exactly.
fn made_up(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 25) as f32 / 64.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn bytes(values: &[f32], dtype: DType, caps_f16: bool) -> Vec<u8> {
    if dtype == DType::F16 && caps_f16 {
        values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
    } else {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
}

/// The output of one schedule.
fn run(device: &Device, case: &Contraction, schedule: &Schedule, inputs: &[Buffer]) -> Vec<f32> {
    let words = kernels::run(device, &case.spec(), schedule, &case.sizes(), inputs);
    words.into_iter().map(f32::from_bits).collect()
}

#[test]
fn every_kind_of_schedule_computes_the_product() {
    if support::skip_gpu("every_kind_of_schedule_computes_the_product") {
        return;
    }
    let device = Device::open(&support::options().adapter).expect("an adapter, or TILEWRIGHT_SKIP_GPU=1");
    let caps = device.caps();
    let all = std::env::var("TILEWRIGHT_CONTRACTIONS").is_ok_and(|v| v == "all");
    let mut kinds = BTreeMap::<String, usize>::new();
    for (number, case) in contractions::shapes().iter().enumerate() {
        let lens = case.lens();
        let inputs = [0, 1, 2].map(|i| made_up(lens[i], (7 * number + i) as u32));
        let dtypes = [case.dtype, case.dtype, DType::F32];
        let buffers: Vec<Buffer> = inputs
            .iter()
            .zip(dtypes)
            .map(|(values, dtype)| {
                let data = bytes(values, dtype, caps.f16);
                let buffer = device.buffer("in", data.len().next_multiple_of(4) as u64).unwrap();
                device.write(&buffer, 0, &data).unwrap();
                buffer
            })
            .collect();
        if case.f16_sum && !caps.f16 {
            continue;
        }
        let wanted = case.reference(&inputs);
        let (spec, sizes) = (case.spec(), case.sizes());
        let mut sample = contractions::legal(&spec, &sizes, caps);
        if !all {
            sample = one_of_each_kind(&case.label(number), sample, |schedule| {
                let target = Target::new(caps, Dialect::Naga);
                let passes = render_passes("contraction", &spec, schedule, &sizes, caps, target).unwrap();
                passes.iter().map(|(_, rendered)| rendered.shader.source.len()).sum()
            });
        }
        for schedule in std::iter::once(&default_schedule(&spec, &sizes, caps)).chain(&sample) {
            let got = run(&device, case, schedule, &buffers);
            let mut exact = true;
            for (at, (&g, &(w, off))) in got.iter().zip(&wanted).enumerate() {
                let g = f64::from(g);
                assert!(
                    (g - w).abs() <= off,
                    "{case:?}, {schedule}: element {at} is {g}, wanted {w}, {off} off"
                );
                exact &= g == w;
            }
            let kind = contractions::kind(schedule);
            if case.f16_sum && case.k > 100 && ["Contract", "Tiled"].contains(&kind.as_str()) {
                assert!(!exact, "{case:?}, {schedule}: a sum in f16 without an error");
            }
            *kinds.entry(kind).or_default() += 1;
        }
    }
    support::say!("contractions: {kinds:?}");
    let mut wanted = vec!["Contract", "Tiled", "Gemv", "Apart A", "Apart B", "Apart Epilogue"];
    if std::env::var("TILEWRIGHT_COOPERATIVE").is_ok_and(|v| v == "1") {
        wanted.push("Cooperative");
    }
    for kind in wanted {
        assert!(kinds.get(kind).is_some_and(|&n| n >= 4), "few schedules of a kind: {kinds:?}");
    }
}

/// A schedule of each kind, others for each `salt`, and several of the few by cooperative matrices; those whose text is
/// not long, as long ones take long to compile.
fn one_of_each_kind(
    salt: &str,
    schedules: Vec<Schedule>,
    text_len: impl Fn(&Schedule) -> usize,
) -> Vec<Schedule> {
    let seed = salt.bytes().fold(7, |hash: usize, byte| hash.wrapping_mul(31) + usize::from(byte));
    let mut by_kind = BTreeMap::<String, Vec<Schedule>>::new();
    for schedule in schedules {
        by_kind.entry(contractions::kind(&schedule)).or_default().push(schedule);
    }
    let mut picked = Vec::new();
    for (kind, of_kind) in by_kind {
        let count = if kind == "Cooperative" { 6 } else { 1 };
        for i in 0..count {
            let first = (seed + i * of_kind.len() / count) % of_kind.len();
            let mut order = of_kind[first..].iter().chain(&of_kind[..first]);
            picked.extend(order.find(|schedule| text_len(schedule) < 12_000).cloned());
        }
    }
    picked
}

#[test]
fn sums_are_in_f16_only_where_that_is_asked_for() {
    for (dtype, f16_sums, f16, want) in [
        (DType::F16, true, true, true),
        (DType::F16, false, true, false),
        (DType::F16, true, false, false),
        (DType::F32, true, true, false),
    ] {
        let net = Net::new()
            .input("a", dtype, "m 64")
            .input("b", dtype, "64 48")
            .node("MatMul", "a b", "y", &[])
            .output("y", dtype);
        let graph = onnx::parse_bytes(net.bytes().into()).unwrap();
        let precision = Precision { f16_sums, ..Precision::default() };
        let known = Known { precision, ..Known::default() };
        let plan = plan(&graph, &known, &Caps { f16, ..Caps::default() }).unwrap();
        let found = plan.kernels.iter().any(|kernel| kernel.spec.has_f16_sums());
        assert_eq!(found, want, "{dtype}, asked for: {f16_sums}, on a device with f16: {f16}");
    }
}
