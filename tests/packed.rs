//! Products and convolutions of 8-bit integers less their zero points, and of what DequantizeLinear makes of them, by
//! packed dot products and without, against 64-bit integers.

mod support;

use std::collections::BTreeMap;

use support::codes::{Form, Operand, Zero, codes, numbers};
use support::net::{Attribute, Net, int, ints};
use support::{contractions, kernels};
use tilewright::DType;
use tilewright::gpu::{Buffer, Device};
use tilewright::kernel::{Caps, KernelSpec, Schedule, default_schedule};
use tilewright::plan::{Origin, Plan};

use DType::{F32, I8, I32, U8};
use Form::*;
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

const PRODUCTS: &[Case] = &[
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

/// A convolution of `[batch, channels, outputs, groups]`, axes of height and width, and pads on both sides.
struct Conv {
    dtypes: [DType; 2],
    zeros: [Zero; 2],
    channels: [usize; 4],
    size: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    dilation: usize,
    pad: usize,
}

const CONV: Conv = Conv {
    dtypes: [U8, I8],
    zeros: [Tensor, Absent],
    channels: [1, 8, 12, 1],
    size: [7, 9],
    kernel: [3, 3],
    stride: 1,
    dilation: 1,
    pad: 1,
};

const CONVOLUTIONS: &[Conv] = &[
    CONV,
    Conv { dtypes: [U8, U8], zeros: [Tensor, Tensor], channels: [2, 6, 5, 1], stride: 2, ..CONV },
    Conv { dtypes: [I8, I8], zeros: [Absent, Absent], channels: [1, 3, 8, 1], kernel: [5, 2], ..CONV },
    Conv { dtypes: [I8, U8], zeros: [Tensor, Each], channels: [1, 20, 10, 2], dilation: 2, ..CONV },
    Conv { zeros: [Tensor, Each], channels: [1, 16, 8, 4], pad: 0, ..CONV },
    Conv { kernel: [1, 1], stride: 2, pad: 0, ..CONV },
];

/// A plan of one kernel, what it reads and what it should give.
struct Problem {
    what: String,
    plan: Plan,
    inputs: Vec<tilewright::Tensor>,
    want: Vec<f64>,
    form: Form,
}

/// `op` of both operands, which `net` has.
fn problem(
    what: String,
    net: Net,
    [op, integer]: [&str; 2],
    operands: [Operand; 2],
    attributes: &[Attribute],
    want: Vec<f64>,
    (form, caps): (Form, &Caps),
) -> Problem {
    let net = operands.iter().fold(net, |net, operand| operand.add(net, form));
    let [a, b] = operands;
    let zero = |operand: &Operand| match operand.zero {
        Some(_) => format!("{}_zero", operand.name),
        None => "-".into(),
    };
    let net = match form {
        Integers => {
            let names = format!("{} {} {} {}", a.name, b.name, zero(&a), zero(&b));
            net.node(integer, &names, "y", attributes).output("y", I32)
        }
        Floats => net.node(op, &format!("{}_real {}_real", a.name, b.name), "y", attributes).output("y", F32),
    };
    let plan = net.plan(caps);
    assert_eq!(plan.steps.len(), 1, "{what}: {plan}");
    Problem { what, plan, inputs: vec![a.codes, b.codes], want, form }
}

fn product(case: &Case, form: Form, caps: &Caps) -> Problem {
    let &([a_dtype, b_dtype], zeros, [batch, m, k, n], second) = case;
    let a = Operand::new("a", 1, a_dtype, &[batch, m, k], zeros[0], 1);
    let b = Operand::new("b", 2, b_dtype, &[batch, k, n], zeros[1], 2);
    let mut want = Vec::with_capacity(batch * m * n);
    for (s, row, column) in (0..batch * m * n).map(|i| (i / (m * n), i / n % m, i % n)) {
        let sum: i64 = (0..k).map(|i| a.number(&[s, row, i]) * b.number(&[s, i, column])).sum();
        let scale = if form == Floats { a.scale(row) * b.scale(column) } else { 1.0 };
        want.push(sum as f64 * scale);
    }
    let net = Net::new().input("a", a_dtype, &a.dims());
    let net = match second {
        Input => net.input("b", b_dtype, &b.dims()),
        Constant => net.weight("b", &b.codes),
        Turned => {
            let bytes = b.codes.bytes();
            let turned: Vec<u8> = (0..k * n).map(|i| bytes[i % k * n + i / k]).collect();
            let turned = tilewright::Tensor::new(b_dtype, &[n, k], turned).unwrap();
            net.weight("turned", &turned).node("Transpose", "turned", "b", &[])
        }
    };
    let what = format!("{case:?} {form:?}");
    problem(what, net, ["MatMul", "MatMulInteger"], [a, b], &[], want, (form, caps))
}

fn convolution(number: usize, form: Form, caps: &Caps) -> Problem {
    let Conv { dtypes, zeros, channels, size, kernel, stride, dilation, pad } = &CONVOLUTIONS[number];
    let &[batch, inputs, outputs, groups] = channels;
    let x = Operand::new("x", 1, dtypes[0], &[&[batch, inputs], size.as_slice()].concat(), zeros[0], 1);
    let each = inputs / groups;
    let w = Operand::new("w", 2, dtypes[1], &[&[outputs, each], kernel.as_slice()].concat(), zeros[1], 0);
    let [h, w_] = [0, 1].map(|d| (size[d] + 2 * pad - (kernel[d] - 1) * dilation - 1) / stride + 1);
    let taps = each * kernel[0] * kernel[1];
    let mut want = Vec::new();
    for i in 0..batch * outputs * h * w_ {
        let (s, m, row, column) = (i / (outputs * h * w_), i / (h * w_) % outputs, i / w_ % h, i % w_);
        let term = |tap: usize| {
            let (c, kh, kw) = (tap / (kernel[0] * kernel[1]), tap / kernel[1] % kernel[0], tap % kernel[1]);
            let at =
                [row * stride + kh * dilation, column * stride + kw * dilation].map(|i| i.wrapping_sub(*pad));
            let channel = m / (outputs / groups) * each + c;
            if at[0] >= size[0] || at[1] >= size[1] {
                return 0;
            }
            x.number(&[s, channel, at[0], at[1]]) * w.number(&[m, c, kh, kw])
        };
        let scale = if form == Floats { x.scale(0) * w.scale(m) } else { 1.0 };
        want.push((0..taps).map(term).sum::<i64>() as f64 * scale);
    }
    let net = Net::new().input("x", dtypes[0], &x.dims()).weight("w", &w.codes);
    let attributes = [
        ints("pads", &[*pad as i64; 4]),
        ints("strides", &[*stride as i64; 2]),
        ints("dilations", &[*dilation as i64; 2]),
        int("group", groups as i64),
    ];
    let what = format!("convolution {number} {form:?}");
    problem(what, net, ["Conv", "ConvInteger"], [x, w], &attributes, want, (form, caps))
}

/// What the kernel reads, as device memory has it.
fn upload(device: &Device, problem: &Problem) -> Vec<Buffer> {
    let bytes = |&id: &usize| {
        let tensor = match &problem.plan.tensors[id].origin {
            Origin::Input(number) => &problem.inputs[*number],
            Origin::Weight(tensor) => tensor,
            other => panic!("{other:?}"),
        };
        let word = |number: i64| (number as i32).to_le_bytes();
        match tensor.dtype() {
            I8 | U8 => numbers(tensor).into_iter().flat_map(word).collect(),
            _ => tensor.bytes().to_vec(),
        }
    };
    let buffer = |id| {
        let data: Vec<u8> = bytes(id);
        let buffer = device.buffer("in", data.len() as u64).unwrap();
        device.write(&buffer, 0, &data).unwrap();
        buffer
    };
    problem.plan.steps[0].inputs.iter().map(buffer).collect()
}

impl Problem {
    fn spec(&self) -> &KernelSpec {
        &self.plan.kernels[0].spec
    }

    /// The first packed schedule of each kind.
    fn packed(&self, caps: &Caps) -> BTreeMap<String, Schedule> {
        let mut packed = BTreeMap::new();
        for schedule in contractions::legal(self.spec(), &[], caps) {
            if let Schedule::Packed(s) = &schedule {
                packed.entry(contractions::kind(&s.rest)).or_insert(schedule);
            }
        }
        packed
    }

    /// Integers to the last bit, floats to 1e-5 of the largest.
    fn check(&self, device: &Device, schedule: &Schedule, buffers: &[Buffer]) {
        let got = kernels::run(device, self.spec(), schedule, &[], buffers);
        assert_eq!(got.len(), self.want.len());
        let largest = self.want.iter().fold(0.0f64, |most, want| most.max(want.abs()));
        for (i, (word, want)) in got.into_iter().zip(&self.want).enumerate() {
            let (got, tolerance) = match self.form {
                Integers => (f64::from(word as i32), 0.0),
                Floats => (f64::from(f32::from_bits(word)), 1e-5 * largest),
            };
            let close = (got - want).abs() <= tolerance;
            assert!(close, "{}, {schedule}: element {i} is {got}, not {want}", self.what);
        }
    }
}

#[test]
fn products_of_bytes_are_exact() {
    if support::skip_gpu("products_of_bytes_are_exact") {
        return;
    }
    let device = Device::open(&support::options().adapter).expect("an adapter, or TILEWRIGHT_SKIP_GPU=1");
    let caps = device.caps();
    let forms = [Integers, Floats];
    let products = forms.iter().flat_map(|&form| PRODUCTS.iter().map(move |case| product(case, form, caps)));
    let convolutions =
        forms.iter().flat_map(|&form| (0..CONVOLUTIONS.len()).map(move |n| convolution(n, form, caps)));
    let mut kinds = BTreeMap::<String, usize>::new();
    for (number, problem) in products.chain(convolutions).enumerate() {
        let buffers = upload(&device, &problem);
        // One kind each, and all of them over the cases.
        let packed: Vec<(String, Schedule)> = problem.packed(caps).into_iter().collect();
        assert!(!packed.is_empty(), "{}", problem.what);
        let picked = packed[number % packed.len()].clone();
        let default = default_schedule(problem.spec(), &[], caps);
        for (kind, schedule) in [("default".into(), default), picked] {
            problem.check(&device, &schedule, &buffers);
            *kinds.entry(kind).or_default() += 1;
        }
    }
    support::say!("products of bytes: {kinds:?}");
    assert!(kinds.len() > 4, "few kinds of packed schedules: {kinds:?}");
}

/// Constants that lie packed along K are read where they are: the kernels before the product are one for A and one for
/// the sums of B.
#[test]
fn words_in_memory_are_not_made_again() {
    let caps = Caps { packed_dot: true, ..Caps::default() };
    for (case, want) in [(&PRODUCTS[4], 4), (&PRODUCTS[8], 3)] {
        for form in [Integers, Floats] {
            let problem = product(case, form, &caps);
            let packed = problem.packed(&caps).into_values().next().expect("a packed schedule");
            let passes = tilewright::kernel::passes(problem.spec(), &packed, &[], &caps);
            assert_eq!(passes.len(), want, "{}", problem.what);
        }
    }
}

/// Integer sums may wrap, as they do without packing; floats do not wrap.
#[test]
fn sums_of_floats_are_packed_where_they_fit_32_bits() {
    let caps = Caps { packed_dot: true, ..Caps::default() };
    // 255 * 255 * K is below 2^31 up to K = 33,025.
    for (form, k, want) in [(Floats, 33_024, true), (Floats, 33_028, false), (Integers, 33_028, true)] {
        let case = ([U8, U8], [Tensor, Tensor], [1, 1, k, 1], Input);
        assert_eq!(!product(&case, form, &caps).packed(&caps).is_empty(), want, "{form:?} {k}");
    }
}

/// What is quantized within the model reaches a product as an input in 8 bits does: both have one kernel.
#[test]
fn quantized_values_are_stored_as_codes() {
    let weight = |net: Net| net.weight("w", &codes(I8, &[64, 48], 3)).floats("w_scale", &[48]);
    let static_scale = |net: Net| weight(net).scalar("scale", 0.02).weight("zero", &codes(U8, &[], 4));
    let real = |net: Net| {
        net.node("DequantizeLinear", "w w_scale", "w_real", &[int("axis", 1)])
            .node("DequantizeLinear", "codes scale zero", "real", &[])
            .node("MatMul", "real w_real", "y", &[])
            .output("y", F32)
    };
    let integer = |net: Net| weight(net).node("MatMulInteger", "codes w zero", "y", &[]).output("y", I32);
    let start = || Net::new().input("x", F32, "8 64");
    let given = || Net::new().input("codes", U8, "8 64");
    let nets = [
        (
            integer(start().node("DynamicQuantizeLinear", "x", "codes scale zero", &[])),
            integer(given().input("zero", U8, "")),
        ),
        (
            real(static_scale(start()).node("QuantizeLinear", "x scale zero", "codes", &[])),
            real(static_scale(given())),
        ),
    ];
    for (quantized, given) in nets {
        let [quantized, given] = [quantized, given].map(|net| net.plan(&Caps::default()));
        let last = |plan: &Plan| plan.kernels[plan.steps.last().unwrap().kernel].spec.clone();
        assert_eq!(last(&quantized), last(&given), "{quantized}");
    }
}
