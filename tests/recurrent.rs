//! Recurrences over long sequences against their definition in float64, by plans whose size does not grow with them.

mod support;

use support::net::{Net, made_up, text};
use tilewright::kernel::Caps;
use tilewright::{DType, Tensor};

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
