//! Convolutions on the device: the default against sums in f64, every other candidate against the default.

mod support;

use support::net::{Net, int, ints, made_up};
use support::{compare, skip_gpu};
use tilewright::gpu::{AdapterChoice, Device};
use tilewright::kernel::{Part, Schedule, candidates};
use tilewright::tune::Bench;
use tilewright::{DType, Tensor};

/// A convolution of one image size per axis; pads are before and after every axis.
struct Case {
    name: &'static str,
    batch: usize,
    channels: [usize; 2],
    groups: usize,
    size: &'static [usize],
    kernel: &'static [usize],
    stride: &'static [usize],
    dilation: &'static [usize],
    before: &'static [usize],
    after: &'static [usize],
    /// Whether both operands are absolute values of what is read.
    computed: bool,
}

/// Two axes, 3 x 3, padded by one.
const PLAIN: Case = Case {
    name: "plain",
    batch: 1,
    channels: [8, 8],
    groups: 1,
    size: &[7, 8],
    kernel: &[3, 3],
    stride: &[1, 1],
    dilation: &[1, 1],
    before: &[1, 1],
    after: &[1, 1],
    computed: false,
};

const CASES: &[Case] = &[
    PLAIN,
    Case { name: "computed operands", batch: 2, channels: [3, 7], computed: true, ..PLAIN },
    Case { name: "odd channels, two images", batch: 2, channels: [3, 7], ..PLAIN },
    Case { name: "strided", size: &[9, 11], stride: &[2, 2], ..PLAIN },
    Case { name: "dilated", size: &[9, 13], dilation: &[2, 3], before: &[2, 3], after: &[0, 1], ..PLAIN },
    Case { name: "stride and dilation", size: &[15, 17], stride: &[3, 2], dilation: &[2, 4], ..PLAIN },
    Case { name: "groups", channels: [6, 10], groups: 2, ..PLAIN },
    Case { name: "depthwise", channels: [5, 5], groups: 5, batch: 2, ..PLAIN },
    Case { name: "depthwise, twice the channels", channels: [3, 6], groups: 3, stride: &[2, 1], ..PLAIN },
    Case { name: "depthwise, dilated", channels: [4, 4], groups: 4, dilation: &[1, 2], ..PLAIN },
    Case {
        name: "one by one, strided",
        kernel: &[1, 1],
        stride: &[2, 2],
        before: &[0, 0],
        after: &[0, 0],
        ..PLAIN
    },
    Case {
        name: "patches",
        channels: [3, 12],
        size: &[16, 16],
        kernel: &[8, 8],
        stride: &[8, 8],
        before: &[0, 0],
        after: &[0, 0],
        ..PLAIN
    },
    Case {
        name: "one axis",
        size: &[23],
        kernel: &[5],
        stride: &[2],
        dilation: &[1],
        before: &[2],
        after: &[1],
        ..PLAIN
    },
    Case {
        name: "three axes",
        channels: [2, 5],
        size: &[4, 5, 6],
        kernel: &[2, 3, 3],
        stride: &[1, 2, 1],
        dilation: &[2, 1, 1],
        before: &[1, 0, 1],
        after: &[1, 1, 2],
        ..PLAIN
    },
];

impl Case {
    fn outputs(&self) -> Vec<usize> {
        let axis = |d: usize| {
            let span = (self.kernel[d] - 1) * self.dilation[d] + 1;
            (self.size[d] + self.before[d] + self.after[d] - span) / self.stride[d] + 1
        };
        (0..self.size.len()).map(axis).collect()
    }

    fn shapes(&self) -> [Vec<usize>; 3] {
        let [c, m] = self.channels;
        [
            [&[self.batch, c], self.size].concat(),
            [&[m, c / self.groups], self.kernel].concat(),
            [[self.batch, m].as_slice(), &self.outputs()].concat(),
        ]
    }

    /// relu(conv(x, w) + bias) + r.
    fn net(&self) -> Net {
        let text = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        let list = |all: &[usize]| all.iter().map(|&n| n as i64).collect::<Vec<_>>();
        let [x, w, y] = self.shapes();
        let pads = [list(self.before), list(self.after)].concat();
        let attributes = [
            ints("pads", &pads),
            ints("strides", &list(self.stride)),
            ints("dilations", &list(self.dilation)),
            int("group", self.groups as i64),
        ];
        let net = Net::new()
            .input("x", DType::F32, &text(&x))
            .input("w", DType::F32, &text(&w))
            .input("b", DType::F32, &self.channels[1].to_string())
            .input("r", DType::F32, &text(&y));
        let (net, operands) = match self.computed {
            true => (net.node("Abs", "x", "x1", &[]).node("Abs", "w", "w1", &[]), "x1 w1 b"),
            false => (net, "x w b"),
        };
        net.node("Conv", operands, "c", &attributes)
            .node("Relu", "c", "p", &[])
            .node("Add", "p r", "y", &[])
            .output("y", DType::F32)
    }

    /// The same in f64, by the definition.
    fn expected(&self, inputs: &[Tensor; 4]) -> Tensor {
        let [mut x, mut w, b, r] = inputs.each_ref().map(|t| t.to_vec::<f32>().unwrap());
        if self.computed {
            [&mut x, &mut w].into_iter().flatten().for_each(|value| *value = value.abs());
        }
        let [x_shape, w_shape, y_shape] = self.shapes();
        let each = w_shape[1];
        let mut out = Vec::new();
        for (i, r) in r.iter().enumerate() {
            let at = position(i, &y_shape);
            let mut sum = f64::from(b[at[1]]);
            for k in 0..w_shape[1..].iter().product() {
                let tap = position(k, &w_shape[1..]);
                let group = at[1] / (self.channels[1] / self.groups);
                let mut from = vec![at[0], group * each + tap[0]];
                for d in 0..self.size.len() {
                    let there = at[d + 2] * self.stride[d] + tap[d + 1] * self.dilation[d];
                    from.push(there.wrapping_sub(self.before[d]));
                }
                if from[2..].iter().zip(self.size).all(|(i, n)| i < n) {
                    let weight = [vec![at[1]], tap].concat();
                    sum += f64::from(x[offset(&from, &x_shape)]) * f64::from(w[offset(&weight, &w_shape)]);
                }
            }
            out.push((sum.max(0.0) + f64::from(*r)) as f32);
        }
        Tensor::from_slice(&y_shape, &out).unwrap()
    }
}

fn position(mut offset: usize, shape: &[usize]) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        at[axis] = offset % shape[axis];
        offset /= shape[axis];
    }
    at
}

fn offset(at: &[usize], shape: &[usize]) -> usize {
    at.iter().zip(shape).fold(0, |offset, (i, n)| offset * n + i)
}

/// More terms than lavapipe does turns of a loop.
const LONG_SUM: Case = Case {
    name: "a long sum",
    channels: [33_000, 2],
    size: &[2, 3],
    kernel: &[2, 1],
    before: &[0, 0],
    after: &[0, 0],
    ..PLAIN
};

fn error_of(case: &Case) -> f64 {
    let [x, w, y] = case.shapes();
    let inputs = [(x, 1), (w, 2), (vec![case.channels[1]], 3), (y, 4)];
    let inputs = inputs.map(|(shape, seed)| made_up(&shape, seed));
    let feeds: Vec<(&str, &Tensor)> = ["x", "w", "b", "r"].into_iter().zip(&inputs).collect();
    let session = case.net().session().unwrap();
    let got = session.run(&feeds).unwrap();
    compare::relative_error(got.get("y").unwrap(), &case.expected(&inputs)).unwrap()
}

#[test]
fn convolutions_are_sums_over_windows() {
    if skip_gpu("convolutions_are_sums_over_windows") {
        return;
    }
    for case in CASES {
        let error = error_of(case);
        assert!(error < 1e-6, "{}: error {error:.1e}", case.name);
    }
}

#[test]
fn sums_may_be_longer_than_a_driver_loops() {
    if skip_gpu("sums_may_be_longer_than_a_driver_loops") {
        return;
    }
    // Rounding adds up as a random walk does: to eps * sqrt(66,000).
    let (error, terms) = (error_of(&LONG_SUM), 66_000f64);
    assert!(error < f64::from(f32::EPSILON) * terms.sqrt(), "error {error:.1e}");
}

#[test]
fn every_candidate_gives_the_same() {
    if skip_gpu("every_candidate_gives_the_same") {
        return;
    }
    let device = Device::open(&AdapterChoice::Best).unwrap();
    for case in CASES {
        let plan = case.net().plan(device.caps());
        assert_eq!(plan.kernels.len(), 1, "{}\n{plan}", case.name);
        let spec = &plan.kernels[0].spec;
        assert_eq!(spec.family(), "conv", "{}", case.name);
        let len = |t: &usize| {
            let tensor = &plan.tensors[*t];
            tensor.shape.iter().map(|d| d.as_const().unwrap() as usize).product::<usize>()
        };
        let count = len(&plan.steps[0].output);
        let lens: Vec<usize> = plan.steps[0].inputs.iter().map(len).collect();
        let mut bench = Bench::new(&device, case.name, spec, &[], &lens, count).unwrap();
        let all = candidates(spec, &[], device.caps());
        let wanted = bench.output(&all[0]).unwrap();
        // Some compilers take their time over each: those of a kind are alike.
        let apart = |part| all.iter().filter(move |s| matches!(s, Schedule::Apart(s) if s.part == part));
        let operands = || apart(Part::A).chain(apart(Part::B));
        assert_eq!(operands().count() > 0, case.computed, "{}", case.name);
        assert!(apart(Part::Epilogue).count() > 0, "{}", case.name);
        let some = all.iter().skip(1).step_by(9).chain(operands()).chain(apart(Part::Epilogue).take(1));
        for schedule in some {
            let got = bench.output(schedule).unwrap();
            for (i, (got, wanted)) in got.iter().zip(&wanted).take(count).enumerate() {
                let close = (got - wanted).abs() <= 1e-5 * wanted.abs().max(1.0);
                assert!(close, "{}, {schedule}: element {i} is {got}, not {wanted}", case.name);
            }
        }
    }
}
