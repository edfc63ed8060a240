//! Attention as one kernel: against float64, over shapes, masks and schedules.

mod support;

use support::net::{Net, int, ints, made_up};
use tilewright::gpu::Device;
use tilewright::kernel::{
    AttentionSchedule, Body, Caps, FusedSchedule, Schedule, candidates, default_schedule,
};
use tilewright::tune::Bench;
use tilewright::{DType, Tensor};

/// What hides keys.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mask {
    None,
    /// Added to the scores, `[queries, keys]`; minus infinity at some.
    Additive,
    /// True where a key is seen, `[heads, queries, keys]`.
    Boolean,
    /// A key after the query is hidden; the last query sees all.
    Causal,
    /// The same by the operator Attention, whose first query sees one key.
    Operator,
    /// A query sees this many keys up to its own position.
    Window(usize),
    /// Additive, where odd queries see nothing at all.
    HidesRows,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    heads: usize,
    /// Heads of queries for one of keys.
    group: usize,
    queries: usize,
    keys: usize,
    size: usize,
    columns: usize,
    mask: Mask,
    cap: f32,
    /// Whether rows that see nothing give 0, as PyTorch's exporter spells it.
    safe: bool,
    dtype: DType,
}

const PLAIN: Case = Case {
    heads: 2,
    group: 1,
    queries: 8,
    keys: 16,
    size: 16,
    columns: 16,
    mask: Mask::None,
    cap: 0.0,
    safe: false,
    dtype: DType::F32,
};

const CASES: &[Case] = &[
    Case { queries: 7, keys: 13, size: 8, columns: 8, mask: Mask::Additive, ..PLAIN },
    Case { queries: 33, keys: 70, mask: Mask::Causal, ..PLAIN },
    Case { queries: 20, keys: 20, mask: Mask::Window(3), ..PLAIN },
    Case { heads: 4, group: 2, queries: 5, keys: 37, size: 12, mask: Mask::Boolean, ..PLAIN },
    Case { queries: 9, keys: 31, size: 33, columns: 7, cap: 2.0, ..PLAIN },
    Case { heads: 1, queries: 3, keys: 9, size: 256, columns: 256, ..PLAIN },
    Case { queries: 1, keys: 300, size: 64, columns: 64, ..PLAIN },
    Case { queries: 6, keys: 10, mask: Mask::HidesRows, ..PLAIN },
    Case { queries: 6, keys: 10, mask: Mask::HidesRows, safe: true, ..PLAIN },
    Case { queries: 12, keys: 24, size: 20, columns: 20, mask: Mask::Additive, dtype: DType::F16, ..PLAIN },
    Case { queries: 70, keys: 24, mask: Mask::Operator, ..PLAIN },
    Case { queries: 37, keys: 150, mask: Mask::Operator, ..PLAIN },
    Case { queries: 100, keys: 300, mask: Mask::Operator, ..PLAIN },
];

impl Case {
    /// As exporters write it: keys are turned, repeated for their heads, scaled, capped and masked.
    fn net(&self) -> Net {
        let kv = self.heads / self.group;
        let (d, n, q, k) = (self.size, self.columns, self.queries, self.keys);
        let mut net = Net::new()
            .input("q", self.dtype, &format!("1 {} {q} {d}", self.heads))
            .input("k", self.dtype, &format!("1 {kv} {k} {d}"))
            .input("v", self.dtype, &format!("1 {kv} {k} {n}"))
            .list("axis", &[2])
            .weight("scale", &self.number(1.0 / (d as f32).sqrt()))
            .node("Mul", "q scale", "scaled", &[]);
        if self.mask == Mask::Operator {
            return net.node("Attention", "q k v", "y", &[int("is_causal", 1)]).output("y", self.dtype);
        }
        for (name, width) in [("k", d), ("v", n)] {
            net = net
                .list(&format!("{name}.wide"), &[1, kv as i64, self.group as i64, k as i64, width as i64])
                .list(&format!("{name}.shape"), &[1, self.heads as i64, k as i64, width as i64])
                .node("Unsqueeze", &format!("{name} axis"), &format!("{name}.one"), &[])
                .node("Expand", &format!("{name}.one {name}.wide"), &format!("{name}.many"), &[])
                .node("Reshape", &format!("{name}.many {name}.shape"), &format!("{name}.all"), &[]);
        }
        net = net.node("Transpose", "k.all", "turned", &[ints("perm", &[0, 1, 3, 2])]).node(
            "MatMul",
            "scaled turned",
            "scores",
            &[],
        );
        let mut last = "scores";
        if self.cap > 0.0 {
            net = net
                .weight("cap", &self.number(self.cap))
                .node("Div", "scores cap", "small", &[])
                .node("Tanh", "small", "bent", &[])
                .node("Mul", "bent cap", "capped", &[]);
            last = "capped";
        }
        net = match self.mask {
            Mask::None | Mask::Operator => net.node("Identity", last, "masked", &[]),
            Mask::Boolean => net
                .input("mask", DType::Bool, &format!("{} {q} {k}", self.heads))
                .weight("hidden", &self.number(f32::NEG_INFINITY))
                .node("Where", &format!("mask {last} hidden"), "masked", &[]),
            Mask::Additive | Mask::Causal | Mask::Window(_) | Mask::HidesRows => net
                .input("mask", self.dtype, &format!("{q} {k}"))
                .node("Add", &format!("{last} mask"), "masked", &[]),
        };
        net = net.node("Softmax", "masked", "softmax", &[int("axis", -1)]);
        let mut weights = "softmax";
        if self.safe {
            net = net.weight("zero", &self.number(0.0)).node("IsNaN", "softmax", "nothing", &[]).node(
                "Where",
                "nothing zero softmax",
                "safe",
                &[],
            );
            weights = "safe";
        }
        net.node("MatMul", &format!("{weights} v.all"), "y", &[]).output("y", self.dtype)
    }

    fn number(&self, value: f32) -> Tensor {
        match self.dtype {
            DType::F16 => Tensor::from_slice(&[], &[half::f16::from_f32(value)]).unwrap(),
            _ => Tensor::from_slice(&[], &[value]).unwrap(),
        }
    }

    fn floats(&self, shape: &[usize], values: Vec<f32>) -> Tensor {
        match self.dtype {
            DType::F16 => {
                let halves: Vec<half::f16> = values.into_iter().map(half::f16::from_f32).collect();
                Tensor::from_slice(shape, &halves).unwrap()
            }
            _ => Tensor::from_slice(shape, &values).unwrap(),
        }
    }

    /// Whether query `q` of head `h` sees key `k`, and what is added to its score.
    fn bias(&self, h: usize, q: usize, k: usize) -> Option<f32> {
        // The last query stands at the last key.
        let own = q + self.keys - self.queries.min(self.keys);
        match self.mask {
            Mask::None => Some(0.0),
            Mask::Operator => (k <= q).then_some(0.0),
            Mask::Additive => {
                (!(q + 2 * k).is_multiple_of(5)).then_some(0.25 * ((q * 7 + k * 3) % 8) as f32 - 1.0)
            }
            Mask::Boolean => (!(h + q + k).is_multiple_of(3)).then_some(0.0),
            Mask::Causal => (k <= own).then_some(0.0),
            Mask::Window(width) => (k <= own && own < k + width).then_some(0.0),
            Mask::HidesRows => q.is_multiple_of(2).then_some(0.0),
        }
    }

    fn inputs(&self) -> Vec<Tensor> {
        let kv = self.heads / self.group;
        let made = |shape: &[usize], seed, by: f32| {
            let values: Vec<f32> = made_up(shape, seed).to_vec().unwrap();
            self.floats(shape, values.into_iter().map(|v| v * by).collect())
        };
        let mut inputs = vec![
            made(&[1, self.heads, self.queries, self.size], 1, 3.0),
            made(&[1, kv, self.keys, self.size], 2, 3.0),
            made(&[1, kv, self.keys, self.columns], 3, 1.0),
        ];
        let (q, k) = (self.queries, self.keys);
        match self.mask {
            Mask::None | Mask::Operator => {}
            Mask::Boolean => {
                let all = (0..self.heads * q * k).map(|i| self.bias(i / (q * k), i / k % q, i % k).is_some());
                inputs.push(Tensor::from_slice(&[self.heads, q, k], &all.collect::<Vec<_>>()).unwrap());
            }
            Mask::Additive | Mask::Causal | Mask::Window(_) | Mask::HidesRows => {
                let all = (0..q * k).map(|i| self.bias(0, i / k, i % k).unwrap_or(f32::NEG_INFINITY));
                inputs.push(self.floats(&[q, k], all.collect()));
            }
        }
        inputs
    }

    /// The definition, in float64.
    fn expected(&self, inputs: &[Tensor]) -> Vec<f64> {
        let [q, k, v] = [0, 1, 2].map(|i| match support::compare::values(&inputs[i]) {
            support::compare::Values::Floats(values) => values,
            _ => panic!("floats"),
        });
        let (d, n) = (self.size, self.columns);
        let mut out = Vec::new();
        for h in 0..self.heads {
            let kv = h / self.group;
            for query in 0..self.queries {
                let score = |key: usize| {
                    let dot: f64 = (0..d)
                        .map(|i| q[(h * self.queries + query) * d + i] * k[(kv * self.keys + key) * d + i])
                        .sum();
                    let score = dot / (d as f64).sqrt();
                    let cap = self.cap as f64;
                    let score = if cap > 0.0 { (score / cap).tanh() * cap } else { score };
                    self.bias(h, query, key).map_or(f64::NEG_INFINITY, |bias| score + bias as f64)
                };
                let scores: Vec<f64> = (0..self.keys).map(score).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..n).map(|column| {
                    let value = |key: usize| v[(kv * self.keys + key) * n + column];
                    let mixed: f64 = (0..self.keys).map(|key| weights[key] / sum * value(key)).sum();
                    if self.safe && mixed.is_nan() { 0.0 } else { mixed }
                }));
            }
        }
        out
    }
}

/// One of each kind: alone, sharing queries, through workgroup memory, with the keys in parts.
fn fused() -> Vec<Schedule> {
    let schedule = |lanes, rows, micro_m, micro_k, staged, split_k| {
        let s = FusedSchedule { lanes, rows, micro_m, micro_k, staged, split_k };
        Schedule::Attention(AttentionSchedule::Fused(s))
    };
    vec![
        schedule(1, 32, 2, 4, false, 1),
        schedule(1, 32, 1, 1, false, 2),
        schedule(4, 8, 2, 2, false, 1),
        schedule(8, 4, 1, 4, true, 1),
        schedule(2, 16, 2, 2, true, 4),
    ]
}

/// The elements as the device holds them.
fn stored(tensor: &Tensor, f16: bool) -> Vec<u8> {
    match tensor.dtype() {
        DType::Bool => tensor.bytes().iter().flat_map(|&b| u32::from(b).to_le_bytes()).collect(),
        DType::F16 if !f16 => {
            let halves: Vec<half::f16> = tensor.to_vec().unwrap();
            halves.into_iter().flat_map(|h| h.to_f32().to_le_bytes()).collect()
        }
        _ => tensor.bytes().to_vec(),
    }
}

#[test]
fn every_schedule_gives_what_float64_does() {
    if support::skip_gpu("every_schedule_gives_what_float64_does") {
        return;
    }
    let device = Device::open(&support::options().adapter).expect("an adapter, or TILEWRIGHT_SKIP_GPU=1");
    let caps = device.caps();
    for (number, case) in CASES.iter().enumerate() {
        let plan = case.net().plan(caps);
        assert_eq!(plan.kernels.len(), 1, "{case:?}\n{plan}");
        let spec = &plan.kernels[0].spec;
        let Body::Attention(body) = &spec.body else { panic!("{case:?}\n{plan}") };
        assert_eq!(body.keys != body.k, case.mask == Mask::Operator, "{case:?}: {}", body.keys);
        let inputs = case.inputs();
        let expected = case.expected(&inputs);
        // The kernel numbers its inputs by first use.
        let step = &plan.steps[0];
        let ordered: Vec<&Tensor> = step
            .inputs
            .iter()
            .map(|&t| &inputs[plan.inputs.iter().position(|&input| input == Some(t)).unwrap()])
            .collect();
        let lens: Vec<usize> = ordered.iter().map(|t| t.len()).collect();
        let mut bench = Bench::new(&device, "attention", spec, &[], &lens, expected.len()).unwrap();
        for (i, tensor) in ordered.into_iter().enumerate() {
            bench.write(i, &stored(tensor, caps.f16)).unwrap();
        }
        let size = expected.iter().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs()));
        let tolerance = size * if case.dtype == DType::F16 { 2e-3 } else { 2e-6 };
        // Compilers take longer over these than anything else here: two kinds for each case.
        let kinds = fused().into_iter().cycle().skip(number).step_by(2).take(2);
        for schedule in kinds.chain([default_schedule(spec, &[], caps)]) {
            let got = bench.output(&schedule).unwrap();
            let wrong = expected.iter().zip(&got).position(|(want, got)| {
                if want.is_nan() { !got.is_nan() } else { got.is_nan() || (want - got).abs() > tolerance }
            });
            if let Some(i) = wrong {
                panic!("{case:?}, {schedule}: element {i} is {}, not {}", got[i], expected[i]);
            }
        }
    }
}

#[test]
fn candidates_are_of_every_kind() {
    let plan = Case { queries: 64, keys: 512, size: 64, columns: 64, ..PLAIN }.net().plan(&Caps::default());
    let kinds = |caps: &Caps| {
        let all = candidates(&plan.kernels[0].spec, &[], caps);
        assert!(all.len() <= 64);
        let fused = |f: &dyn Fn(&FusedSchedule) -> bool| {
            all.iter().any(|s| matches!(s, Schedule::Attention(AttentionSchedule::Fused(s)) if f(s)))
        };
        let unfused = all.iter().any(|s| matches!(s, Schedule::Attention(AttentionSchedule::Unfused { .. })));
        [fused(&|s| s.lanes > 1), fused(&|s| s.staged), fused(&|s| s.split_k > 1), unfused]
    };
    assert_eq!(kinds(&Caps::default()), [true; 4]);
    assert!(kinds(&Caps { cpu: true, ..Caps::default() })[3]);
}

#[test]
fn tensors_beyond_a_binding_are_cut_by_heads() {
    let plan = PLAIN.net().plan(&Caps::default());
    let spec = &plan.kernels[0].spec;
    let cut = tilewright::plan::split(spec, &[true, true, true]).expect("heads follow each other");
    assert!(cut.inputs.iter().all(Option::is_some), "{cut:?}");
    assert!(matches!(&cut.spec.body, Body::Attention(body) if body.batch.to_string() == "p1"), "{cut:?}");
}
