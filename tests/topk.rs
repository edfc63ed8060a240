//! TopK of short and long rows, under all kinds of schedules, against the standard library's stable sort.

mod support;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use support::contractions::{kind, legal};
use support::net::{Net, int};
use support::{kernels, say};
use tilewright::gpu::Device;
use tilewright::kernel::{Caps, KernelSpec, default_schedule};
use tilewright::{DType, Element, Tensor};

/// Numbers that look random, many of them several times, with both zeros, infinities and NaN.
fn made_up(len: usize, seed: u32) -> Vec<f32> {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, -f32::NAN];
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        state >> 12
    };
    (0..len)
        .map(|_| if next() % 40 == 0 { special[next() as usize % 6] } else { (next() % 997) as f32 - 500.0 })
        .collect()
}

/// NaN is the largest number, and both zeros are one.
fn compare(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The positions of the first `k` of each row of `n`.
fn reference(x: &[f64], n: usize, k: usize, largest: bool) -> Vec<i64> {
    let row = |row: &[f64]| {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| if largest { compare(row[b], row[a]) } else { compare(row[a], row[b]) });
        order.into_iter().take(k).map(|r| r as i64).collect::<Vec<_>>()
    };
    x.chunks(n).flat_map(row).collect()
}

fn net(dtype: DType, shape: &str, axis: i64, largest: bool) -> Net {
    let attributes = [int("axis", axis), int("largest", i64::from(largest))];
    Net::new()
        .input("x", dtype, shape)
        .input("k", DType::I64, "1")
        .node("TopK", "x k", "top at", &attributes)
        .output("top", dtype)
        .output("at", DType::I64)
}

/// Sizes up to 2^17, where rows no longer fit a workgroup's memory. One session serves all: `k` and the shape are symbols.
#[test]
fn rows_of_all_lengths() {
    if support::skip_gpu("rows_of_all_lengths") {
        return;
    }
    for largest in [true, false] {
        let session = net(DType::F32, "rows n", 1, largest).session().unwrap();
        for n in [1usize, 2, 1000, 4097, 50_257, 1 << 17] {
            let rows = if n > 4097 { 1 } else { 3 };
            let values = made_up(rows * n, n as u32);
            let x = Tensor::from_slice(&[rows, n], &values).unwrap();
            let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            for k in BTreeSet::from([1, 5, 64, 1000, n]).into_iter().filter(|&k| k <= n) {
                let outputs = session
                    .run(&[("x", &x), ("k", &Tensor::from_slice(&[1], &[k as i64]).unwrap())])
                    .unwrap();
                let want = reference(&wide, n, k, largest);
                assert_eq!(outputs["at"].to_vec::<i64>().unwrap(), want, "{rows} rows of {n}, k={k}");
                let top = outputs["top"].to_vec::<f32>().unwrap();
                for (j, (got, at)) in top.iter().zip(&want).enumerate() {
                    let from = values[j / k * n + *at as usize];
                    assert!(*got == from || (got.is_nan() && from.is_nan()), "{got} for {from}");
                }
            }
        }
    }
}

/// A row's positions for elements of `T`, along the middle axis.
fn of_dtype<T: Element + Copy>(dtype: DType, convert: impl Fn(f32) -> T, back: impl Fn(T) -> f64) {
    let (outer, n, inner, k) = (2, 300, 3, 20);
    let values: Vec<T> = made_up(outer * n * inner, 5).into_iter().map(convert).collect();
    let x = Tensor::from_slice(&[outer, n, inner], &values).unwrap();
    let mut rows = Vec::new();
    for row in 0..outer * inner {
        rows.extend((0..n).map(|r| back(values[(row / inner * n + r) * inner + row % inner])));
    }
    for largest in [true, false] {
        let session = net(dtype, "2 300 3", 1, largest).session().unwrap();
        let k_tensor = Tensor::from_slice(&[1], &[k as i64]).unwrap();
        let at = session.run(&[("x", &x), ("k", &k_tensor)]).unwrap()["at"].to_vec::<i64>().unwrap();
        let want = reference(&rows, n, k, largest);
        let of_row = |row: usize, j: usize| at[(row / inner * k + j) * inner + row % inner];
        let got: Vec<i64> = (0..outer * inner * k).map(|i| of_row(i / k, i % k)).collect();
        assert_eq!(got, want, "{dtype}, largest={largest}");
    }
}

#[test]
fn every_dtype_is_ordered() {
    if support::skip_gpu("every_dtype_is_ordered") {
        return;
    }
    of_dtype(DType::F32, |v| v, f64::from);
    of_dtype(DType::F64, f64::from, |v| v);
    of_dtype(DType::F16, half::f16::from_f32, f64::from);
    of_dtype(DType::BF16, half::bf16::from_f32, f64::from);
    of_dtype(DType::I8, |v| v as i8, f64::from);
    of_dtype(DType::U8, |v| v as u8, f64::from);
    of_dtype(DType::I32, |v| v as i32, f64::from);
    of_dtype(DType::U32, |v| v as u32, f64::from);
    // Beyond 32 bits, and exact in float64.
    of_dtype(DType::I64, |v| (v as i64).clamp(-1000, 1000) * (1 << 33), |v| v as f64);
    of_dtype(DType::U64, |v| (v.abs() as u64).min(1000) * (1 << 33), |v| v as f64);
}

/// The kernel of a TopK, with the number of rows as its parameter.
fn spec(n: usize, k: usize, largest: bool) -> KernelSpec {
    let attributes = [int("largest", i64::from(largest))];
    let net = Net::new().input("x", DType::F32, &format!("rows {n}")).list("k", &[k as i64]);
    let net = net.node("TopK", "x k", "top at", &attributes).output("at", DType::I64);
    net.plan(&Caps::default()).kernels.remove(0).spec
}

#[test]
fn every_kind_of_schedule_gives_the_order() {
    if support::skip_gpu("every_kind_of_schedule_gives_the_order") {
        return;
    }
    let device = Device::open(&support::options().adapter).expect("an adapter, or TILEWRIGHT_SKIP_GPU=1");
    let mut kinds = BTreeSet::new();
    let table = [(7, 8, 2), (3, 100, 100), (2, 1000, 5), (1, 20_000, 50), (1, 5000, 3000), (3, 2500, 2500)];
    for (number, (rows, n, k)) in table.into_iter().enumerate() {
        let (spec, sizes, largest) = (spec(n, k, number % 2 == 0), [rows as i64], number % 2 == 0);
        // Ascending, for the largest every element is a candidate.
        let mut ascending = made_up(rows * n, 9);
        ascending.chunks_mut(n).for_each(|row| row.sort_by(|a, b| compare(f64::from(*a), f64::from(*b))));
        for values in [made_up(rows * n, number as u32), ascending] {
            let input = kernels::upload(&device, &values);
            let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            let want = reference(&wide, n, k, largest);
            let default = default_schedule(&spec, &sizes, device.caps());
            let legal = legal(&spec, &sizes, device.caps());
            let each = legal.len().div_ceil(4);
            for schedule in [default].into_iter().chain(legal.into_iter().skip(number % each).step_by(each)) {
                let got = kernels::run(&device, &spec, &schedule, &sizes, std::slice::from_ref(&input));
                let got: Vec<i64> = got.iter().map(|&word| i64::from(word)).collect();
                assert_eq!(got[..want.len()], want, "{rows} rows of {n}, k={k}, {schedule}");
                kinds.insert(format!(
                    "{}{}",
                    kind(&schedule),
                    if schedule.is_one_pass() { "" } else { " in passes" }
                ));
            }
        }
    }
    say!("topk: {kinds:?}");
    assert_eq!(kinds.len(), 3, "one pass, several, and sorts: {kinds:?}");
}
