//! Recurrences over long sequences against their definition in float64, by plans whose size does not grow with them.

mod support;

use support::net::{Attribute, Net, graph, int, ints, made_up, text};
use tilewright::kernel::Caps;
use tilewright::{DType, Session, Tensor};

const BATCH: usize = 2;
const WIDTH: usize = 3;
const HIDDEN: usize = 5;

fn lstm() -> Net {
    Net::new()
        .input("x", DType::F32, &format!("steps {BATCH} {WIDTH}"))
        .floats("w", &[2, 4 * HIDDEN, WIDTH])
        .floats("r", &[2, 4 * HIDDEN, HIDDEN])
        .floats("b", &[2, 8 * HIDDEN])
        .node("LSTM", "x w r b", "y last cell", &[text("direction", "bidirectional")])
        .output("y", DType::F32)
        .output("last", DType::F32)
        .output("cell", DType::F32)
}

fn wide(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// Y `[T, 2, B, H]`, and the last hidden states and cells `[2, B, H]`, as the operator's specification defines them.
fn definition(x: &[f64], steps: usize) -> [Vec<f64>; 3] {
    let weight = |name: &str, shape: &[usize]| wide(&made_up(shape, name.bytes().map(u32::from).sum()));
    let w = weight("w", &[2, 4 * HIDDEN, WIDTH]);
    let r = weight("r", &[2, 4 * HIDDEN, HIDDEN]);
    let b = weight("b", &[2, 8 * HIDDEN]);
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    let mut y = vec![0.0; steps * 2 * BATCH * HIDDEN];
    let (mut last, mut cells) = (Vec::new(), Vec::new());
    for direction in 0..2 {
        for row in 0..BATCH {
            let (mut hidden, mut cell) = ([0.0; HIDDEN], [0.0; HIDDEN]);
            for t in 0..steps {
                let t = if direction == 0 { t } else { steps - 1 - t };
                let gate = |g: usize, j: usize| {
                    let unit = direction * 4 * HIDDEN + g * HIDDEN + j;
                    let input: f64 =
                        (0..WIDTH).map(|i| w[unit * WIDTH + i] * x[(t * BATCH + row) * WIDTH + i]).sum();
                    let recurrence: f64 = (0..HIDDEN).map(|i| r[unit * HIDDEN + i] * hidden[i]).sum();
                    let bias = direction * 8 * HIDDEN + g * HIDDEN + j;
                    input + recurrence + b[bias] + b[bias + 4 * HIDDEN]
                };
                let mut next = hidden;
                for j in 0..HIDDEN {
                    let [enter, leave, forget] = [0, 1, 2].map(|g| sigmoid(gate(g, j)));
                    cell[j] = forget * cell[j] + enter * gate(3, j).tanh();
                    next[j] = leave * cell[j].tanh();
                }
                hidden = next;
                let at = ((t * 2 + direction) * BATCH + row) * HIDDEN;
                y[at..at + HIDDEN].copy_from_slice(&hidden);
            }
            last.extend(hidden);
            cells.extend(cell);
        }
    }
    [y, last, cells]
}

/// One session for all lengths, odd and even: states change places after each step.
#[test]
fn an_lstm_of_thousands_of_steps() {
    if support::skip_gpu("an_lstm_of_thousands_of_steps") {
        return;
    }
    let session = lstm().session().unwrap();
    for steps in [1, 2, 1001, 2500] {
        let x = made_up(&[steps, BATCH, WIDTH], 3);
        let outputs = session.run(&[("x", &x)]).unwrap();
        for (name, want) in ["y", "last", "cell"].into_iter().zip(definition(&wide(&x), steps)) {
            let got = wide(&outputs[name]);
            assert_eq!(got.len(), want.len(), "{name} of {steps} steps");
            for (at, (g, w)) in got.iter().zip(&want).enumerate() {
                assert!((g - w).abs() <= 1e-5, "{name}[{at}] of {steps} steps is {g}, wanted {w}");
            }
        }
    }
}

#[test]
fn a_plan_does_not_grow_with_the_sequence() {
    let plan = lstm().plan(&Caps::default());
    assert_eq!(plan.repeats.len(), 2, "\n{plan}");
    assert!(plan.steps.len() <= 20, "\n{plan}");
}

/// A running sum of rows from the last to the first, and their number; the plan leaves open how many there are.
fn running_sums() -> Net {
    let body = Net::new()
        .input("sum", DType::F32, "4")
        .input("number", DType::I64, "")
        .input("row", DType::F32, "4")
        .weight("one", &Tensor::from_slice(&[], &[1i64]).unwrap())
        .node("Add", "sum row", "next", &[])
        .node("Add", "number one", "following", &[])
        .node("Identity", "next", "seen", &[])
        .output("next", DType::F32)
        .output("following", DType::I64)
        .output("seen", DType::F32);
    let attributes = [
        graph("body", &body),
        int("num_scan_inputs", 1),
        ints("scan_input_directions", &[1]),
        ints("scan_output_directions", &[1]),
        ints("scan_output_axes", &[1]),
    ];
    Net::new()
        .input("x", DType::F32, "rows 4")
        .weight("start", &Tensor::from_slice(&[4], &[0.0f32; 4]).unwrap())
        .weight("none", &Tensor::from_slice(&[], &[0i64]).unwrap())
        .node("Scan", "start none x", "total count sums", &attributes)
        .output("total", DType::F32)
        .output("count", DType::I64)
        .output("sums", DType::F32)
}

#[test]
fn a_scan_of_thousands_of_rows() {
    if support::skip_gpu("a_scan_of_thousands_of_rows") {
        return;
    }
    let plan = running_sums().plan(&Caps::default());
    assert!(plan.repeats.len() == 1 && plan.steps.len() <= 8, "\n{plan}");
    let session = running_sums().session().unwrap();
    for rows in [1, 0, 5000] {
        let x = made_up(&[rows, 4], 5);
        let outputs = session.run(&[("x", &x)]).unwrap();
        let (mut sum, mut want) = ([0f32; 4], vec![0f32; 4 * rows]);
        for (at, row) in x.to_vec::<f32>().unwrap().chunks(4).enumerate().rev() {
            for i in 0..4 {
                sum[i] += row[i];
                want[i * rows + at] = sum[i];
            }
        }
        assert_eq!(outputs["count"].to_vec::<i64>().unwrap(), [rows as i64]);
        assert_eq!(outputs["total"].to_vec::<f32>().unwrap(), sum, "{rows} rows");
        assert!(outputs["sums"].to_vec::<f32>().unwrap() == want, "{rows} rows");
    }
}

/// `v = (7 v + i) mod (10^9 + 7)` in 64-bit integers, as often as `x` is long, or has elements above 0.
fn remainders(count: &str) -> Session {
    let body = Net::new()
        .input("i", DType::I64, "")
        .input("on", DType::Bool, "")
        .input("v", DType::I64, "")
        .weight("seven", &Tensor::from_slice(&[], &[7i64]).unwrap())
        .weight("modulus", &Tensor::from_slice(&[], &[1_000_000_007i64]).unwrap())
        .node("Mul", "v seven", "times", &[])
        .node("Add", "times i", "sum", &[])
        .node("Mod", "sum modulus", "w", &[])
        .node("Identity", "w", "seen", &[])
        .output("on", DType::Bool)
        .output("w", DType::I64)
        .output("seen", DType::I64);
    let net = Net::new().input("x", DType::F32, "n").input("start", DType::I64, "m").scalar("zero", 0.0);
    let net = match count {
        "length" => net.node("Size", "x", "count", &[]),
        _ => net
            .node("Greater", "x zero", "above", &[])
            .node("Cast", "above", "ones", &[int("to", DType::I64.to_onnx() as i64)])
            .node("ReduceSum", "ones", "count", &[int("keepdims", 0)]),
    };
    let body: [Attribute; 1] = [graph("body", &body)];
    let net = net.list("first", &[0]).node("Gather", "start first", "picked", &[]);
    let net = net.list("scalar", &[]).node("Reshape", "picked scalar", "v0", &[]);
    net.node("Loop", "count - v0", "v seen", &body)
        .output("v", DType::I64)
        .output("seen", DType::I64)
        .session()
        .unwrap()
}

#[test]
fn loops_repeat_as_often_as_a_run_says() {
    if support::skip_gpu("loops_repeat_as_often_as_a_run_says") {
        return;
    }
    let start = Tensor::from_slice(&[100], &[123i64; 100]).unwrap();
    for count in ["length", "above 0"] {
        let session = remainders(count);
        for len in [1, 5001, 0] {
            let x = made_up(&[len], 9);
            let outputs = session.run(&[("x", &x), ("start", &start)]).unwrap();
            let above = x.to_vec::<f32>().unwrap().iter().filter(|&&v| v > 0.0).count();
            let rounds = if count == "length" { len } else { above };
            let next = |(i, v): &(i64, i64)| Some((i + 1, (7 * v + i) % 1_000_000_007));
            let all: Vec<i64> =
                std::iter::successors(Some((0, 123)), next).map(|(_, v)| v).take(rounds + 1).collect();
            assert_eq!(outputs["v"].to_vec::<i64>().unwrap(), all[rounds..], "{count} of {len}");
            assert_eq!(outputs["seen"].to_vec::<i64>().unwrap(), all[1..], "{count} of {len}");
        }
    }
}

/// The last state of a network for each of several sequences: a recurrence in a scan.
#[test]
fn a_recurrence_within_a_scan() {
    if support::skip_gpu("a_recurrence_within_a_scan") {
        return;
    }
    let body = Net::new()
        .input("x", DType::F32, "steps 1 3")
        .floats("w", &[1, 2, 3])
        .floats("r", &[1, 2, 2])
        .node("RNN", "x w r", "y last", &[int("hidden_size", 2)])
        .output("y", DType::F32)
        .output("last", DType::F32);
    let net = Net::new()
        .input("xs", DType::F32, "sequences steps 1 3")
        .node("Scan", "xs", "ys lasts", &[graph("body", &body), int("num_scan_inputs", 1)])
        .output("ys", DType::F32)
        .output("lasts", DType::F32);
    let session = net.session().unwrap();
    let [w, r] = [("w", [1, 2, 3]), ("r", [1, 2, 2])]
        .map(|(name, shape)| wide(&made_up(&shape, name.bytes().map(u32::from).sum())));
    for (sequences, steps) in [(3, 5), (2, 4), (0, 3), (3, 0)] {
        let xs = made_up(&[sequences, steps, 1, 3], 2);
        let outputs = session.run(&[("xs", &xs)]).unwrap();
        let (mut ys, mut lasts) = (Vec::new(), Vec::new());
        for sequence in 0..sequences {
            let mut h = [0f64; 2];
            for row in wide(&xs)[sequence * steps * 3..][..steps * 3].chunks(3) {
                h = [0, 1].map(|j| {
                    let own: f64 = (0..3).map(|i| w[j * 3 + i] * row[i]).sum();
                    (own + r[j * 2] * h[0] + r[j * 2 + 1] * h[1]).tanh()
                });
                ys.extend(h);
            }
            lasts.extend(h);
        }
        for (name, want) in [("ys", ys), ("lasts", lasts)] {
            let got = wide(&outputs[name]);
            assert_eq!(got.len(), want.len(), "{name} of {sequences} sequences of {steps}");
            let close = got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 1e-5);
            assert!(close, "{name} of {sequences} sequences of {steps}: {got:?}, wanted {want:?}");
        }
    }
}
