//! Row kernels of all forms, under schedules from all over the space, against float64.

mod support;

use std::collections::BTreeMap;

use support::{contractions, kernels, rows};
use tilewright::gpu::{Buffer, Device};
use tilewright::kernel::{Part, Schedule, default_schedule};

/// Whole multiples of 1/64 in +-1: their sums are exact.
fn made_up(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 25) as f32 / 64.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// What tells one text from another, sizes aside.
fn kind(schedule: &Schedule) -> String {
    let s = match schedule {
        Schedule::Reduce(s) => s,
        Schedule::Apart(s) if s.part == Part::Statistics => return format!("apart {}", kind(&s.rest)),
        other => panic!("{other} for rows"),
    };
    let shared = if s.lanes > 1 { "shared" } else { "alone" };
    let flag = |on: bool, name: &'static str| if on { name } else { "" };
    format!(
        "{shared}{}{}{}{}",
        flag(s.vector == 4, " by fours"),
        flag(s.kept > 0, " kept"),
        flag(s.subgroups, " subgroups"),
        flag(s.parts > 1, " in parts"),
    )
}

#[test]
fn every_kind_of_schedule_computes_the_rows() {
    if support::skip_gpu("every_kind_of_schedule_computes_the_rows") {
        return;
    }
    let device = Device::open(&support::options().adapter).expect("an adapter, or TILEWRIGHT_SKIP_GPU=1");
    let all = std::env::var("TILEWRIGHT_ROWS").is_ok_and(|v| v == "all");
    let mut kinds = BTreeMap::<String, usize>::new();
    for (number, case) in rows::cases().into_iter().enumerate() {
        let inputs: Vec<Vec<f32>> =
            case.lens().iter().enumerate().map(|(i, &len)| made_up(len, (7 * number + i) as u32)).collect();
        let buffers: Vec<Buffer> = inputs.iter().map(|input| kernels::upload(&device, input)).collect();
        let wanted = case.reference(&inputs);
        let (spec, sizes) = (case.spec(), case.sizes());
        // One of each kind, another for each case.
        let mut by_kind = BTreeMap::<String, Vec<Schedule>>::new();
        let default = default_schedule(&spec, &sizes, device.caps());
        let legal = contractions::legal(&spec, &sizes, device.caps());
        for schedule in legal.into_iter().chain([default.clone()]) {
            by_kind.entry(kind(&schedule)).or_default().push(schedule);
        }
        for (kind, of_kind) in by_kind {
            let picked = (5 * number) % of_kind.len();
            for (i, schedule) in of_kind.iter().enumerate() {
                if !(all || i == picked || *schedule == default) {
                    continue;
                }
                let got = kernels::run(&device, &spec, schedule, &sizes, &buffers);
                assert_eq!(got.len(), wanted.len(), "{case:?}, {schedule}");
                for (at, (&g, &w)) in got.iter().zip(&wanted).enumerate() {
                    let g = f64::from(f32::from_bits(g));
                    let near = (g - w).abs() <= 1e-6 + 1e-5 * w.abs();
                    assert!(near, "{case:?}, {schedule}: element {at} is {g}, wanted {w}");
                }
                *kinds.entry(kind.clone()).or_default() += 1;
            }
        }
    }
    support::say!("rows: {kinds:?}");
    for kind in [
        "alone",
        "alone by fours",
        "alone kept",
        "shared by fours kept",
        "shared in parts",
        "apart alone",
        "apart shared in parts",
    ] {
        assert!(kinds.get(kind).is_some_and(|&n| n >= 2), "few schedules of a kind: {kinds:?}");
    }
}
