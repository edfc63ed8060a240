//! Products of 8-bit integers less their zero points, by packed dot products and without, against 64-bit integers.

mod support;

use std::collections::BTreeMap;

use support::net::{Net, made_up};
use support::{contractions, kernels};
use tilewright::gpu::{Buffer, Device};
use tilewright::kernel::{Caps, Schedule, default_schedule};
use tilewright::plan::{Origin, Plan};
use tilewright::{DType, Tensor};

use DType::{I8, U8};

/// Zero points of an operand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Zero {
    Absent,
    /// One.
    Tensor,
    /// One per row of A or column of B.
    Each,
}
use Zero::*;

/// How B reaches the product.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Second {
    /// As an input.
    Input,
    /// A constant, packed along N.
    Constant,
    /// A constant that is transposed, so packed along K.
    Turned,
}
use Second::*;

/// Dtypes and zero points of A and B, `[batch, M, K, N]`, and how B is given.
type Case = ([DType; 2], [Zero; 2], [usize; 4], Second);

const CASES: &[Case] = &[
    ([I8, I8], [Absent, Absent], [1, 33, 64, 70], Input),
    ([U8, U8], [Absent, Absent], [2, 20, 37, 24], Input),
    ([U8, I8], [Absent, Absent], [1, 9, 20, 16], Input),
    ([I8, U8], [Tensor, Tensor], [1, 18, 30, 21], Input),
    ([U8, I8], [Tensor, Absent], [1, 40, 96, 48], Constant),
    ([U8, U8], [Each, Each], [3, 17, 45, 36], Input),
    ([U8, I8], [Tensor, Each], [2, 16, 52, 64], Constant),
    ([I8, I8], [Each, Each], [1, 1, 68, 40], Constant),
    // Of more elements than planning turns by itself.
    ([U8, I8], [Tensor, Absent], [1, 5, 256, 260], Turned),
];

/// Made-up codes, the least and the largest among them.
fn codes(dtype: DType, shape: &[usize], seed: u32) -> Tensor {
    let floats = made_up(shape, seed).to_vec::<f32>().unwrap();
    let mut bytes: Vec<u8> = floats.iter().map(|x| ((x + 1.0) * 128.0) as u8).collect();
    let extremes = if dtype == U8 { [0, 255] } else { [128, 127] };
    bytes.iter_mut().zip(extremes).for_each(|(byte, extreme)| *byte = extreme);
    Tensor::new(dtype, shape, bytes).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<i64> {
    let number = |&byte: &u8| if tensor.dtype() == U8 { i64::from(byte) } else { i64::from(byte as i8) };
    tensor.bytes().iter().map(number).collect()
}

struct Product {
    plan: Plan,
    inputs: Vec<Tensor>,
    want: Vec<i32>,
}

fn product(&([a_dtype, b_dtype], zeros, [batch, m, k, n], second): &Case, caps: &Caps) -> Product {
    let (a, b) = (codes(a_dtype, &[batch, m, k], 1), codes(b_dtype, &[batch, k, n], 2));
    let zero = |which: usize, dtype, len: usize| match zeros[which] {
        Absent => None,
        Tensor => Some(codes(dtype, &[], 3 + which as u32)),
        Each => Some(codes(dtype, &[len], 5 + which as u32)),
    };
    let zeros = [zero(0, a_dtype, m), zero(1, b_dtype, n)];
    let (left, right) = (numbers(&a), numbers(&b));
    let at = |zero: &Option<tilewright::Tensor>, i: usize| {
        zero.as_ref().map_or(0, |zero| numbers(zero)[if zero.shape().is_empty() { 0 } else { i }])
    };
    let mut want = Vec::with_capacity(batch * m * n);
    for (s, row, column) in (0..batch * m * n).map(|i| (i / (m * n), i / n % m, i % n)) {
        let term = |i: usize| {
            let (x, y) = (left[(s * m + row) * k + i], right[(s * k + i) * n + column]);
            (x - at(&zeros[0], row)) * (y - at(&zeros[1], column))
        };
        want.push((0..k).map(term).sum::<i64>() as i32);
    }
    let mut net = Net::new().input("a", a_dtype, &format!("{batch} {m} {k}"));
    net = match second {
        Input => net.input("b", b_dtype, &format!("{batch} {k} {n}")),
        Constant => net.weight("b", &b),
        Turned => {
            let turned: Vec<u8> = (0..k * n).map(|i| b.bytes()[i % k * n + i / k]).collect();
            let turned = tilewright::Tensor::new(b_dtype, &[n, k], turned).unwrap();
            net.weight("turned", &turned).node("Transpose", "turned", "b", &[])
        }
    };
    let mut names = "a b".to_string();
    for (name, zero) in ["a_zero", "b_zero"].iter().zip(&zeros) {
        match zero {
            Some(zero) => {
                net = net.weight(name, zero);
                names += &format!(" {name}");
            }
            None => names += " -",
        }
    }
    let plan = net.node("MatMulInteger", &names, "y", &[]).output("y", DType::I32).plan(caps);
    assert_eq!(plan.steps.len(), 1, "{plan}");
    Product { plan, inputs: vec![a, b], want }
}

/// What the product's kernel reads, as device memory has it.
fn upload(device: &Device, product: &Product) -> Vec<Buffer> {
    let bytes = |&id: &usize| {
        let (tensor, packed) = match &product.plan.tensors[id].origin {
            Origin::Input(number) => (&product.inputs[*number], false),
            Origin::Weight(tensor) => (tensor, tensor.dtype() == DType::U32),
            other => panic!("{other:?}"),
        };
        let word = |number: i64| (number as i32).to_le_bytes();
        if packed { tensor.bytes().to_vec() } else { numbers(tensor).into_iter().flat_map(word).collect() }
    };
    let buffer = |id| {
        let data: Vec<u8> = bytes(id);
        let buffer = device.buffer("in", data.len() as u64).unwrap();
        device.write(&buffer, 0, &data).unwrap();
        buffer
    };
    product.plan.steps[0].inputs.iter().map(buffer).collect()
}

#[test]
fn products_of_bytes_are_exact() {
    if support::skip_gpu("products_of_bytes_are_exact") {
        return;
    }
    let device = Device::open(&support::options().adapter).expect("an adapter, or TILEWRIGHT_SKIP_GPU=1");
    let caps = device.caps();
    let mut kinds = BTreeMap::<String, usize>::new();
    for (number, case) in CASES.iter().enumerate() {
        let product = product(case, caps);
        let (spec, buffers) = (&product.plan.kernels[0].spec, upload(&device, &product));
        let mut packed = BTreeMap::<String, Schedule>::new();
        for schedule in contractions::legal(spec, &[], caps) {
            if let Schedule::Packed(s) = &schedule {
                packed.entry(contractions::kind(&s.rest)).or_insert(schedule);
            }
        }
        // One kind each, and all of them over the cases.
        let packed: Vec<(String, Schedule)> = packed.into_iter().collect();
        let picked = packed[number % packed.len()].clone();
        for (kind, schedule) in [("default".into(), default_schedule(spec, &[], caps)), picked] {
            let got = kernels::run(&device, spec, &schedule, &[], &buffers);
            let got: Vec<i32> = got.into_iter().map(|word| word as i32).collect();
            assert_eq!(got, product.want, "{case:?}, {schedule}");
            *kinds.entry(kind).or_default() += 1;
        }
    }
    support::say!("products of bytes: {kinds:?}");
    assert!(kinds.len() > 3, "few kinds of packed schedules: {kinds:?}");
}

/// Constants that lie packed along K are read where they are: the kernels before the product are one for A and one for
/// the sums of B.
#[test]
fn words_in_memory_are_not_made_again() {
    let caps = Caps { packed_dot: true, ..Caps::default() };
    for (case, want) in [(&CASES[4], 4), (&CASES[8], 3)] {
        let product = product(case, &caps);
        let spec = &product.plan.kernels[0].spec;
        let schedules = contractions::legal(spec, &[], &caps);
        let packed = schedules.iter().find(|s| matches!(s, Schedule::Packed(_))).expect("a packed schedule");
        assert_eq!(tilewright::kernel::passes(spec, packed, &[], &caps).len(), want, "{case:?}");
    }
}
