//! Mixtures of experts: a token goes through the `k` experts for which its router has the largest numbers.
//!
//! The products read the weights of the experts that were chosen through the choice: nothing is computed for the
//! others, and no weight is copied. Experts with equal numbers are taken in their order.

use super::activation::{gelu_tanh, sigmoid};
use super::nbits::{bits, unpacked};
use super::softmax::softmax;
use super::{Cx, OpDef, topk};
use crate::expr::{Expr, Idx, numel, vars};
use crate::ir::{Axes, Combine, Program, Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn ms(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef { name, domain: "com.microsoft", since: 1, doc, lower }
}

/// The family.
pub const OPS: &[OpDef] = &[
    ms(
        "MoE",
        "sum over the chosen experts e of w_e * fc2_e(f(fc1_e(x)) * fc3_e(x)); relu2, geglu and sparse mixers are not \
         supported",
        |cx| {
            let plain = |i: usize| {
                cx.optional(i).map(|weights| Linear { weights, bias: cx.optional(i + 1), codes: None })
            };
            let layers = [plain(2), plain(4), plain(6)];
            mixture(cx, layers, None)
        },
    ),
    ms(
        "QMoE",
        "MoE with weights of 2, 3, 4 or 8 bits, scales and zero points by row or by block; float8 and float4 weights \
         are not supported",
        |cx| {
            let kind = cx.string_or("quant_type", "int")?;
            if kind != "int" {
                return Err(cx.unsupported(format!("quant_type={kind}")));
            }
            if cx.int_or("weights_prepacked", -1)? == 1 {
                return Err(cx.unsupported("prepacked weights"));
            }
            let layers = [quantized(cx, 2, 1)?, quantized(cx, 5, 2)?, quantized(cx, 8, 3)?];
            mixture(cx, layers, cx.optional(14))
        },
    ),
];

/// `y = W[e] x + b[e]` for every expert e. W: `[experts, rows, columns]`, b: `[experts, rows]`.
struct Linear {
    weights: ValueId,
    bias: Option<ValueId>,
    codes: Option<Codes>,
}

/// How the numbers packed along the last axis of the weights are meant: `(number - zero) * scale`.
struct Codes {
    bits: i64,
    /// Columns that share a scale; all of a row where `None`.
    block: Option<Idx>,
    /// `[experts, rows]`, or `[experts, rows, blocks]`.
    scales: ValueId,
    /// Of the scales' shape, packed along its last axis.
    zeros: Option<ValueId>,
}

impl Linear {
    fn rows(&self, p: &Program) -> Idx {
        p.shape(self.weights)[1].clone()
    }

    fn weight(&self, p: &Program, [expert, row, column]: [&Idx; 3]) -> Expr {
        let row_at = [expert.clone(), row.clone()];
        let Some(codes) = &self.codes else {
            return p.load(self.weights, &[expert.clone(), row.clone(), column.clone()]);
        };
        let code = unpacked(p, self.weights, &row_at, column, codes.bits).cast(DType::F32);
        let place = match &codes.block {
            Some(block) => [&row_at[..], &[column.div(block)]].concat(),
            None => row_at.to_vec(),
        };
        let zero = match (codes.zeros, place.split_last()) {
            (Some(zeros), Some((last, rest))) => unpacked(p, zeros, rest, last, codes.bits).cast(DType::F32),
            _ => Expr::float(DType::F32, (1 << (codes.bits - 1)) as f64),
        };
        (code - zero) * p.load(codes.scales, &place).cast(DType::F32)
    }
}

/// Layer `number` of QMoE, whose weights are input `i`.
fn quantized(cx: &Cx, i: usize, number: usize) -> Result<Option<Linear>, Stop> {
    let Some(weights) = cx.optional(i) else { return Ok(None) };
    let all = cx.int_or("expert_weight_bits", 4)?;
    let bits = bits(cx, &format!("fc{number}_expert_weight_bits"), all, &[2, 3, 4, 8])?;
    let block = Some(cx.int_or("block_size", 0)?).filter(|&size| size > 0).map(Idx::from);
    let codes = Codes { bits, block, scales: cx.input(i + 1)?, zeros: cx.optional(10 + number) };
    let wanted = if codes.block.is_some() { 3 } else { 2 };
    let found = cx.program.rank(codes.scales);
    if found != wanted {
        return Err(cx.error(format!("fc{number}_scales want {wanted} axes, got {found}")));
    }
    Ok(Some(Linear { weights, bias: cx.optional(i + 2), codes: Some(codes) }))
}

/// What happens between the layers.
enum Between {
    /// A function of the first layer, times the third where there is one.
    Function(fn(&Expr) -> Expr),
    SwiGlu(SwiGlu),
}

/// `G / (1 + e^(-alpha G)) * (L + beta)` of `G = min(g, limit)` and L, l between -limit and limit.
struct SwiGlu {
    alpha: f64,
    beta: f64,
    limit: f64,
    halves: Halves,
}

/// Where `g` and `l` are: in the first and third layer, or in every second row, or half of the rows, of the first.
#[derive(PartialEq)]
enum Halves {
    Layers,
    Interleaved,
    Beside,
}

impl SwiGlu {
    fn of(&self, gate: &Expr, linear: &Expr) -> Expr {
        let gate = gate.smaller(self.limit);
        let linear = linear.larger(-self.limit).smaller(self.limit);
        &gate * sigmoid(&(&gate * self.alpha)) * (linear + self.beta)
    }
}

fn between(cx: &Cx) -> Result<Between, Stop> {
    for name in ["use_sparse_mixer", "swiglu_limit_after_activation"] {
        if cx.int_or(name, 0)? != 0 {
            return Err(cx.unsupported(name));
        }
    }
    Ok(match cx.string_or("activation_type", "relu")?.as_str() {
        "relu" => Between::Function(|x| x.larger(0.0)),
        "gelu" => Between::Function(gelu_tanh),
        "silu" => Between::Function(|x| x * sigmoid(x)),
        "identity" => Between::Function(Expr::clone),
        "swiglu" => {
            let halves = match cx.int_or("swiglu_fusion", 0)? {
                0 => Halves::Layers,
                1 => Halves::Interleaved,
                2 => Halves::Beside,
                other => return Err(cx.error(format!("swiglu_fusion wants 0, 1 or 2, got {other}"))),
            };
            let (alpha, beta) = (cx.float_or("activation_alpha", 1.0)?, cx.float_or("activation_beta", 0.0)?);
            Between::SwiGlu(SwiGlu {
                alpha,
                beta,
                limit: cx.float_or("swiglu_limit", f32::INFINITY)?,
                halves,
            })
        }
        other => return Err(cx.unsupported(format!("activation_type={other}"))),
    })
}

/// The experts of each token, `[tokens, k]`, and what each counts for.
struct Choice {
    experts: ValueId,
    weights: ValueId,
    /// How many there are to choose from.
    count: Idx,
}

impl Choice {
    /// Expert number `slot` of a token.
    fn expert(&self, p: &Program, token: &Idx, slot: &Idx) -> Idx {
        p.load(self.experts, &[token.clone(), slot.clone()]).to_position(&self.count)
    }
}

/// By the largest of `router: [tokens, experts]`. They count for the softmax of these numbers, taken over the chosen
/// where weights are normalized, else over all; or for what `given: [tokens, experts]` says.
fn choose(cx: &mut Cx, router: ValueId, given: Option<ValueId>) -> Result<Choice, Stop> {
    let (k, normalized) = (cx.int_or("k", 1)?, cx.int_or("normalize_routing_weights", 0)? != 0);
    let p = &mut *cx.program;
    let [tokens, count] = p.shape(router) else { return Err(p.error("router_probs wants two axes")) };
    let (shape, count) = (vec![tokens.clone(), Idx::from(k)], count.clone());
    if k < 1 || count.as_const().is_some_and(|count| k > count) {
        return Err(p.error(format!("k={k} of {count} experts")));
    }
    let router = p.cast(router, DType::F32);
    let experts = topk::first(p, router, 1, Idx::from(k), true);
    let mut choice = Choice { experts, weights: router, count };
    let chosen = |p: &mut Program, x: ValueId| {
        let at = vars(0, &shape);
        let body = p.load(x, &[at[0].clone(), choice.expert(p, &at[0], &at[1])]);
        p.map(shape.clone(), body)
    };
    choice.weights = match (given, normalized) {
        (Some(given), _) => {
            let given = p.cast(given, DType::F32);
            let weights = chosen(p, given);
            if normalized {
                let sum = p.reduce(weights, &[1], false, Combine::Sum, Expr::clone)?;
                p.along(weights, &[1], &[sum], |w, sum| w / &sum[0])
            } else {
                weights
            }
        }
        (None, true) => {
            let numbers = chosen(p, router);
            softmax(p, numbers, &[1])?
        }
        (None, false) => {
            let shares = softmax(p, router, &[1])?;
            chosen(p, shares)
        }
    };
    Ok(choice)
}

/// `layer(x)` of every token's experts: `[tokens, k, rows]`.
fn first_layer(p: &mut Program, x: ValueId, choice: &Choice, layer: &Linear) -> Result<ValueId, Stop> {
    let (batch, n) = (p.shape(choice.experts).to_vec(), vec![layer.rows(p)]);
    let k = vec![p.shape(x)[1].clone()];
    let product = p.contract(Axes { batch, n, k, ..Axes::default() }, |p, at| {
        let expert = choice.expert(p, &at.batch[0], &at.batch[1]);
        let element = p.load(x, &[at.batch[0].clone(), at.k[0].clone()]);
        let weight = layer.weight(p, [&expert, &at.n[0], &at.k[0]]).cast(element.dtype());
        (element, weight)
    });
    let Some(bias) = layer.bias else { return Ok(product) };
    let shape = p.shape(product).to_vec();
    let at = vars(0, &shape);
    let expert = choice.expert(p, &at[0], &at[1]);
    let sum = p.load(product, &at) + p.load(bias, &[expert, at[2].clone()]);
    Ok(p.map(shape, sum))
}

/// The sum over a token's experts of weight * layer(hidden): `[tokens, rows]`.
fn last_layer(p: &mut Program, hidden: ValueId, choice: &Choice, layer: &Linear) -> Result<ValueId, Stop> {
    let [tokens, slots, width] =
        p.shape(hidden).to_vec().try_into().map_err(|_| p.error("wants three axes"))?;
    let (n, k) = (layer.rows(p), vec![slots.clone(), width]);
    let extents = Axes { batch: vec![tokens.clone()], n: vec![n.clone()], k, ..Axes::default() };
    let product = p.contract(extents, |p, at| {
        let (token, slot) = (&at.batch[0], &at.k[0]);
        let element = p.load(hidden, &[token.clone(), slot.clone(), at.k[1].clone()]);
        let share = p.load(choice.weights, &[token.clone(), slot.clone()]).cast(element.dtype());
        let weight = layer.weight(p, [&choice.expert(p, token, slot), &at.n[0], &at.k[1]]);
        (&element * share, weight.cast(element.dtype()))
    });
    let Some(bias) = layer.bias else { return Ok(product) };
    let biases = p.reduction(vec![tokens, n], vec![slots], Combine::Sum, |p, at, slot| {
        let bias = p.load(bias, &[choice.expert(p, &at[0], &slot[0]), at[1].clone()]);
        p.load(choice.weights, &[at[0].clone(), slot[0].clone()]).cast(bias.dtype()) * bias
    });
    p.elementwise(&[product, biases], |e| &e[0] + &e[1])
}

/// `[tokens, k, 2 n]` to `[tokens, k, n]`.
fn half(p: &mut Program, x: ValueId, swiglu: &SwiGlu) -> ValueId {
    let mut shape = p.shape(x).to_vec();
    let two = Idx::from(2i64);
    shape[2] = shape[2].div(&two);
    let at = vars(0, &shape);
    let part = |which: i64| {
        let mut at = at.clone();
        at[2] = match swiglu.halves {
            Halves::Layers | Halves::Beside => &at[2] + &(&shape[2] * &Idx::from(which)),
            Halves::Interleaved => &(&at[2] * &two) + &Idx::from(which),
        };
        p.load(x, &at)
    };
    let body = swiglu.of(&part(0), &part(1));
    p.map(shape, body)
}

fn mixture(cx: &mut Cx, [fc1, fc2, fc3]: [Option<Linear>; 3], given: Option<ValueId>) -> Lowering {
    let (Some(fc1), Some(fc2)) = (fc1, fc2) else {
        return Err(cx.error("wants the weights of fc1 and fc2"));
    };
    let between = between(cx)?;
    let (x, router) = (cx.input(0)?, cx.input(1)?);
    let choice = choose(cx, router, given)?;
    let p = &mut *cx.program;
    let shape = p.shape(x).to_vec();
    let Some((width, tokens)) = shape.split_last() else {
        return Err(p.error("input wants two or three axes"));
    };
    p.equate(&numel(tokens), &p.shape(router)[0].clone(), "tokens of input and router_probs")?;
    let flat = p.reshape(x, vec![numel(tokens), width.clone()])?;
    let first = first_layer(p, flat, &choice, &fc1)?;
    let third = match &fc3 {
        Some(fc3) => Some(first_layer(p, flat, &choice, fc3)?),
        None => None,
    };
    let hidden = match (&between, third) {
        (Between::Function(f), None) => p.unary(first, f),
        (Between::Function(f), Some(third)) => p.elementwise(&[first, third], |e| f(&e[0]) * &e[1])?,
        (Between::SwiGlu(swiglu), Some(third)) if swiglu.halves == Halves::Layers => {
            p.elementwise(&[first, third], |e| swiglu.of(&e[0], &e[1]))?
        }
        (Between::SwiGlu(swiglu), None) if swiglu.halves != Halves::Layers => half(p, first, swiglu),
        (Between::SwiGlu(_), _) => {
            return Err(p.error("swiglu wants fc3 with swiglu_fusion=0, and only then"));
        }
    };
    let y = last_layer(p, hidden, &choice, &fc2)?;
    Ok(vec![p.reshape(y, shape)?])
}
