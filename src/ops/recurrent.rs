//! Recurrent networks: one large product of all inputs, and then a repetition per step of the sequence with its small
//! product.

use super::activation::{Function, activation, sigmoid};
use super::join::join;
use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, vars};
use crate::ir::{Axes, Program, Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("RNN", 1, "h = f(x W + h R + b)", |cx| recurrent(cx, Kind::Rnn)),
    op("GRU", 1, "gated recurrent units", |cx| recurrent(cx, Kind::Gru)),
    op("LSTM", 1, "long short-term memory", |cx| recurrent(cx, Kind::Lstm)),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Rnn,
    Gru,
    Lstm,
}

impl Kind {
    fn gates(self) -> usize {
        match self {
            Kind::Rnn => 1,
            Kind::Gru => 3,
            Kind::Lstm => 4,
        }
    }

    fn activations(self) -> &'static [&'static str] {
        match self {
            Kind::Rnn => &["Tanh"],
            Kind::Gru => &["Sigmoid", "Tanh"],
            Kind::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// What one direction of the network is made of.
struct Layer<'a> {
    kind: Kind,
    direction: Idx,
    hidden: Idx,
    batch: Idx,
    /// `[T, B, gates * H]`: inputs times weights.
    inputs: ValueId,
    recurrent: ValueId,
    /// `[D, 2 * gates * H]`.
    bias: Option<ValueId>,
    peepholes: Option<ValueId>,
    functions: &'a [Function],
    clip: Option<f64>,
    linear_before_reset: bool,
    input_forget: bool,
}

/// The hidden state and, for LSTM, the cell.
#[derive(Clone, Copy)]
struct State {
    hidden: ValueId,
    cell: ValueId,
}

impl Layer<'_> {
    /// `state * R^T` for `gates` of the recurrent weights from `first` on.
    fn recur(&self, p: &mut Program, state: ValueId, first: usize, gates: usize) -> ValueId {
        let offset = &self.hidden * &Idx::from(first);
        let extents = Axes {
            m: vec![self.batch.clone()],
            n: vec![&self.hidden * &Idx::from(gates)],
            k: vec![self.hidden.clone()],
            ..Axes::default()
        };
        p.contract(extents, |p, at| {
            let weight = [self.direction.clone(), &at.n[0] + &offset, at.k[0].clone()];
            (p.load(state, &[at.m[0].clone(), at.k[0].clone()]), p.load(self.recurrent, &weight))
        })
    }

    /// Bias number `i` (those of the inputs before those of the recurrence) at hidden unit `j`; 0 without.
    fn bias(&self, p: &Program, i: usize, j: &Idx, dtype: DType) -> Expr {
        let at = &(&self.hidden * &Idx::from(i)) + j;
        self.bias.map_or_else(|| Expr::int(dtype, 0), |bias| p.load(bias, &[self.direction.clone(), at]))
    }

    fn clipped(&self, x: Expr) -> Expr {
        self.clip.map_or(x.clone(), |clip| x.larger(-clip).smaller(clip))
    }

    /// The step that reads position `at(b)` of the inputs for batch row `b`.
    fn step(&self, p: &mut Program, state: State, at: &dyn Fn(&Program, &Idx) -> Idx) -> State {
        let shape = vec![self.batch.clone(), self.hidden.clone()];
        let i = vars(0, &shape);
        let (b, j) = (&i[0], &i[1]);
        let count = self.kind.gates();
        let gate = |g: usize| &(&self.hidden * &Idx::from(g)) + j;
        let dtype = p.dtype(state.hidden);
        let here = at(p, b);
        let input = |p: &Program, g: usize| {
            p.load(self.inputs, &[here.clone(), b.clone(), gate(g)]) + self.bias(p, g, j, dtype)
        };
        let f = self.functions;
        let old = p.load(state.hidden, &i);
        if self.kind == Kind::Gru {
            let first = self.recur(p, state.hidden, 0, 2);
            let gated = |p: &Program, g: usize| {
                let sum = p.load(first, &[b.clone(), gate(g)]) + self.bias(p, count + g, j, dtype);
                f[0](&self.clipped(input(p, g) + sum))
            };
            let (update, reset) = (gated(p, 0), gated(p, 1));
            let update = p.map(shape.clone(), update);
            let candidate = if self.linear_before_reset {
                let linear = self.recur(p, state.hidden, 2, 1);
                input(p, 2) + reset * (p.load(linear, &i) + self.bias(p, count + 2, j, dtype))
            } else {
                let product = p.map(shape.clone(), reset * &old);
                let linear = self.recur(p, product, 2, 1);
                input(p, 2) + p.load(linear, &i) + self.bias(p, count + 2, j, dtype)
            };
            let candidate = f[1](&self.clipped(candidate));
            let z = p.load(update, &i);
            let hidden = p.map(shape, (Expr::int(dtype, 1) - &z) * candidate + z * old);
            return State { hidden, cell: hidden };
        }
        let recurrence = self.recur(p, state.hidden, 0, count);
        let sum = |p: &Program, g: usize| {
            input(p, g) + p.load(recurrence, &[b.clone(), gate(g)]) + self.bias(p, count + g, j, dtype)
        };
        if self.kind == Kind::Rnn {
            let body = f[0](&self.clipped(sum(p, 0)));
            let hidden = p.map(shape, body);
            return State { hidden, cell: hidden };
        }
        // Gates are in the order i, o, f, c; peepholes in the order i, o, f.
        let peep = |p: &Program, g: usize, cell: &Expr| match self.peepholes {
            Some(weights) => cell * p.load(weights, &[self.direction.clone(), gate(g)]),
            None => Expr::int(dtype, 0),
        };
        let cell = p.load(state.cell, &i);
        let enter = f[0](&self.clipped(sum(p, 0) + peep(p, 0, &cell)));
        let forget = match self.input_forget {
            true => Expr::int(dtype, 1) - &enter,
            false => f[0](&self.clipped(sum(p, 2) + peep(p, 2, &cell))),
        };
        let new = f[1](&self.clipped(sum(p, 3)));
        let cell = p.map(shape.clone(), forget * cell + enter * new);
        let c = p.load(cell, &i);
        let leave = f[0](&self.clipped(sum(p, 1) + peep(p, 1, &c)));
        let hidden = p.map(shape, leave * f[2](&c));
        State { hidden, cell }
    }
}

fn recurrent(cx: &mut Cx, kind: Kind) -> Lowering {
    let (mut x, weights, recurrence) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let bias = cx.optional(3);
    let lengths = cx.optional(4);
    let batch_first = cx.int_or("layout", 0)? != 0;
    if batch_first {
        x = cx.program.transpose(x, &[1, 0, 2]);
    }
    let [steps, batch, width] = cx.program.shape(x) else { return Err(cx.error("x wants three axes")) };
    let (steps, batch, width) = (steps.clone(), batch.clone(), width.clone());
    let r_shape = cx.program.shape(recurrence).to_vec();
    let hidden = r_shape.last().cloned().ok_or_else(|| cx.error("R wants three axes"))?;
    let backward: &[bool] = match cx.string_or("direction", "forward")?.as_str() {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(cx.error(format!("direction {other:?} is not known"))),
    };
    let functions = functions(cx, kind, backward.len())?;
    let clip = match cx.node.attributes.contains_key("clip") {
        true => Some(cx.float_or("clip", 0.0)?),
        false => None,
    };
    let (linear, coupled) = (cx.int_or("linear_before_reset", 0)? != 0, cx.int_or("input_forget", 0)? != 0);
    let (initial_h, initial_c, peepholes) = match kind {
        Kind::Lstm => (cx.optional(5), cx.optional(6), cx.optional(7)),
        Kind::Rnn | Kind::Gru => (cx.optional(5), None, None),
    };
    let p = &mut *cx.program;
    let dtype = p.dtype(x);
    let state_shape = vec![batch.clone(), hidden.clone()];
    let (one, mut directions, mut last) = (Idx::from(1i64), Vec::new(), Vec::new());
    for (d, &reverse) in backward.iter().enumerate() {
        let direction = Idx::from(d);
        let extents = Axes {
            m: vec![steps.clone(), batch.clone()],
            n: vec![&hidden * &Idx::from(kind.gates())],
            k: vec![width.clone()],
            ..Axes::default()
        };
        let inputs = p.contract(extents, |p, at| {
            let weight = [direction.clone(), at.n[0].clone(), at.k[0].clone()];
            (p.load(x, &[at.m.clone(), at.k.clone()].concat()), p.load(weights, &weight))
        });
        let layer = Layer {
            kind,
            direction: direction.clone(),
            hidden: hidden.clone(),
            batch: batch.clone(),
            inputs,
            recurrent: recurrence,
            bias,
            peepholes,
            functions: &functions[d * kind.activations().len()..],
            clip,
            linear_before_reset: linear,
            input_forget: coupled,
        };
        let initial = |p: &mut Program, value: Option<ValueId>| match value {
            None => p.map(state_shape.clone(), Expr::int(dtype, 0)),
            Some(value) => p.view(value, state_shape.clone(), |i| match batch_first {
                true => vec![i[0].clone(), direction.clone(), i[1].clone()],
                false => vec![direction.clone(), i[0].clone(), i[1].clone()],
            }),
        };
        let mut initials = vec![initial(p, initial_h)];
        if kind == Kind::Lstm {
            initials.push(initial(p, initial_c));
        }
        let order = Order { steps: &steps, lengths, reverse };
        let (states, stacks) = p.repeat(steps.clone(), &initials, |p, t, states| {
            let state = State { hidden: states[0], cell: *states.last().unwrap_or(&states[0]) };
            let next = layer.step(p, state, &|p, b| order.position(p, t, b));
            let mut next = vec![next.hidden, next.cell];
            next.truncate(states.len());
            let mut output = next[0];
            if lengths.is_some() {
                // Rows whose sequence is over keep their state, and their output is 0.
                let i = vars(0, &state_shape);
                let runs = order.runs(p, t, &i[0]);
                let mut keep = |new: ValueId, old: Expr| {
                    let body = runs.select(&p.load(new, &i), &old);
                    p.map(state_shape.clone(), body)
                };
                output = keep(next[0], Expr::int(dtype, 0));
                let kept = next.iter().zip(states);
                next = kept.map(|(&new, &old)| keep(new, Expr::load(old, dtype, i.clone()))).collect();
            }
            Ok((next, vec![output]))
        })?;
        directions.push(order.restored(p, stacks[0])?);
        last.push(states);
    }
    let y = join(p, directions, 1);
    let stack = |p: &mut Program, state: usize| -> Result<ValueId, Stop> {
        let shape = vec![one.clone(), batch.clone(), hidden.clone()];
        let pieces = last.iter().map(|states| p.reshape(states[state], shape.clone()));
        let pieces = pieces.collect::<Result<Vec<_>, _>>()?;
        let joined = join(p, pieces, 0);
        Ok(if batch_first { p.transpose(joined, &[1, 0, 2]) } else { joined })
    };
    let mut outputs = vec![if batch_first { p.transpose(y, &[2, 0, 1, 3]) } else { y }];
    for state in 0..last[0].len() {
        outputs.push(stack(p, state)?);
    }
    Ok(outputs)
}

/// In which order a direction reads the sequence.
struct Order<'a> {
    steps: &'a Idx,
    /// How long the sequence of each row of the batch is.
    lengths: Option<ValueId>,
    reverse: bool,
}

impl Order<'_> {
    fn length(&self, p: &Program, row: &Idx) -> Expr {
        match self.lengths {
            Some(lengths) => p.load(lengths, std::slice::from_ref(row)).cast(DType::I32),
            None => Expr::index(self.steps.clone(), DType::I32),
        }
    }

    /// Whether the sequence of `row` has a step `t`.
    fn runs(&self, p: &Program, t: &Idx, row: &Idx) -> Expr {
        Expr::index(t.clone(), DType::I32).below(self.length(p, row))
    }

    /// The position that step `t` reads for `row`, and where what it gives stands: an own inverse.
    fn position(&self, p: &Program, t: &Idx, row: &Idx) -> Idx {
        match (self.reverse, self.lengths) {
            (false, _) => return t.clone(),
            (true, None) => return &(self.steps - t) - &Idx::from(1i64),
            (true, Some(_)) => {}
        }
        let number = Expr::index(t.clone(), DType::I32);
        let mirrored = self.length(p, row).binary(Binary::Sub, &number) - Expr::int(DType::I32, 1);
        self.runs(p, t, row).select(&mirrored, &number).to_position(self.steps)
    }

    /// `[T, B, H]` in the order of the steps as `[T, 1, B, H]` in the order of the sequence.
    fn restored(&self, p: &mut Program, made: ValueId) -> Result<ValueId, Stop> {
        let shape = p.shape(made).to_vec();
        let at = vars(0, &shape);
        let place = self.position(p, &at[0], &at[1]);
        let body = p.load(made, &[place, at[1].clone(), at[2].clone()]);
        let y = p.map(shape.clone(), body);
        p.reshape(y, vec![shape[0].clone(), Idx::from(1i64), shape[1].clone(), shape[2].clone()])
    }
}

/// The activation functions of all directions, one after another.
fn functions(cx: &Cx, kind: Kind, directions: usize) -> Result<Vec<Function>, Stop> {
    let defaults = kind.activations();
    let names = cx.strings("activations")?.unwrap_or_else(|| {
        defaults.iter().cycle().take(defaults.len() * directions).map(|s| s.to_string()).collect()
    });
    if names.len() != defaults.len() * directions {
        return Err(cx.error(format!("{} activations for {directions} directions", names.len())));
    }
    let given = |name| -> Result<std::collections::VecDeque<f64>, Stop> {
        Ok(cx.floats(name)?.unwrap_or_default().into_iter().map(f64::from).collect())
    };
    let (mut alphas, mut betas) = (given("activation_alpha")?, given("activation_beta")?);
    let mut found: Vec<Function> = Vec::new();
    for name in names {
        let mut next = |parameters: usize| {
            let alpha = if parameters > 0 { alphas.pop_front() } else { None };
            (alpha, if parameters > 1 { betas.pop_front() } else { None })
        };
        let function = if name.eq_ignore_ascii_case("sigmoid") {
            Some(Box::new(sigmoid) as Function)
        } else {
            activation(&name, &mut next)
        };
        found.push(function.ok_or_else(|| cx.unsupported(format!("activation {name:?}")))?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, f32s, text};

    /// One unit whose weights are 1: states worked out by hand with Relu or Affine-free gates.
    #[test]
    fn running_sums_by_rnn() {
        let x = f32s(&[3, 1, 1], &[1.0, 2.0, 4.0]);
        let one = f32s(&[1, 1, 1], &[1.0]);
        for (direction, want, last) in [("forward", [1.0, 3.0, 7.0], 7.0), ("reverse", [7.0, 6.0, 4.0], 7.0)]
        {
            let attributes = [
                ("direction", text(direction)),
                ("activations", crate::graph::Attribute::Strings(vec!["Relu".into()])),
            ];
            let case = Case::new("RNN", &attributes, [x.clone(), one.clone(), one.clone()]).outputs(2);
            case.gives_about([f32s(&[3, 1, 1, 1], &want), f32s(&[1, 1, 1], &[last])]);
        }
    }
}
