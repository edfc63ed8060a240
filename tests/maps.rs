//! Maps that read along another axis than they store, under schedules from all over the space, against float64.

mod support;

use half::f16;
use support::{contractions, kernels, maps};
use tilewright::DType;
use tilewright::gpu::{Buffer, Device};
use tilewright::kernel::{Caps, Schedule, default_schedule};

/// Whole numbers in +-64, which all dtypes hold exactly, as they do their sums.
fn made_up(len: usize, seed: u32) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        f64::from(state >> 25) - 64.0
    };
    (0..len).map(|_| next()).collect()
}

fn upload(device: &Device, values: &[f64], dtype: DType) -> Buffer {
    let mut data: Vec<u8> = match dtype {
        DType::I32 => values.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect(),
        DType::F16 if device.caps().f16 => {
            values.iter().flat_map(|&v| f16::from_f64(v).to_le_bytes()).collect()
        }
        _ => values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect(),
    };
    data.resize(data.len().next_multiple_of(4), 0);
    let buffer = device.buffer("in", data.len() as u64).unwrap();
    device.write(&buffer, 0, &data).unwrap();
    buffer
}

fn numbers(words: &[u32], dtype: DType, caps: &Caps) -> Vec<f64> {
    match dtype {
        DType::I32 => words.iter().map(|&word| f64::from(word as i32)).collect(),
        DType::F16 if caps.f16 => {
            let halves = words.iter().flat_map(|&word| [word as u16, (word >> 16) as u16]);
            halves.map(|half| f16::from_bits(half).to_f64()).collect()
        }
        _ => words.iter().map(|&word| f64::from(f32::from_bits(word))).collect(),
    }
}

#[test]
fn every_kind_of_schedule_transposes() {
    if support::skip_gpu("every_kind_of_schedule_transposes") {
        return;
    }
    let device = Device::open(&support::options().adapter).expect("an adapter, or TILEWRIGHT_SKIP_GPU=1");
    let caps = device.caps();
    for (number, case) in maps::cases().into_iter().enumerate() {
        let seeds = (number as u32..).step_by(7);
        let inputs: Vec<Vec<f64>> =
            case.lens().iter().zip(seeds).map(|(&n, seed)| made_up(n, seed)).collect();
        let buffers: Vec<Buffer> = inputs.iter().map(|input| upload(&device, input, case.dtype)).collect();
        let wanted = case.reference(&inputs);
        let (spec, sizes) = (case.spec(), case.sizes());
        let legal = contractions::legal(&spec, &sizes, caps);
        let (tiled, plain): (Vec<Schedule>, Vec<Schedule>) =
            legal.into_iter().partition(|s| matches!(s, Schedule::Transpose(_)));
        assert_eq!(case.sides.is_some(), !tiled.is_empty(), "{case:?}");
        let tiled = tiled.into_iter().skip(number % 2).step_by(2);
        let sample = plain.into_iter().skip(number % 9).step_by(9);
        for schedule in [default_schedule(&spec, &sizes, caps)].into_iter().chain(tiled).chain(sample) {
            let got = kernels::run(&device, &spec, &schedule, &sizes, &buffers);
            let got = numbers(&got, case.dtype, caps);
            assert!(got.len() >= wanted.len(), "{case:?}, {schedule}");
            for (at, (&g, &w)) in got.iter().zip(&wanted).enumerate() {
                assert!(g == w, "{case:?}, {schedule}: element {at} is {g}, wanted {w}");
            }
        }
    }
}

/// A GPU goes through workgroup memory where both sides are at least 32, a CPU's caches do better without.
#[test]
fn large_transpositions_are_tiled_on_a_gpu() {
    for case in maps::cases() {
        let default = |cpu| default_schedule(&case.spec(), &case.sizes(), &Caps { cpu, ..Caps::default() });
        let is_tiled = |schedule| matches!(schedule, Schedule::Transpose(_));
        let large = case.sides.is_some_and(|sides| sides.iter().all(|&side| side >= 32));
        assert_eq!(is_tiled(default(false)), large, "{case:?}");
        assert!(!is_tiled(default(true)), "{case:?}");
    }
}
