//! Mixtures of experts: a token goes through the `k` experts for which its router has the largest numbers.
//!
//! Tokens are gathered by expert, so that a product of matrices reads an expert's weights once for several of them;
//! nothing is computed for experts that nobody chose, and no weight is copied.

use super::activation::{gelu_tanh, sigmoid};
use super::experts::Linear;
use super::routing::{Tiles, choose};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, numel, vars};
use crate::ir::{Program, Stop, ValueId};

type Lowering = Result<Vec<ValueId>, Stop>;

const fn ms(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("com.microsoft", name, 1, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    ms("MoE", "sum over the chosen experts e of w_e * fc2_e(f(fc1_e(x)) * fc3_e(x))", |cx| {
        let layers = [2, 4, 6].map(|i| Linear::plain(cx, i));
        mixture(cx, layers, None)
    }),
    ms(
        "QMoE",
        "MoE with weights of 2, 3, 4 or 8 bits, scales and zero points by row or by block, or of float8 or float4; float8 \
         activations are not supported",
        |cx| {
            let layers =
                [Linear::quantized(cx, 2, 1)?, Linear::quantized(cx, 5, 2)?, Linear::quantized(cx, 8, 3)?];
            mixture(cx, layers, cx.optional(14))
        },
    ),
];

/// What happens between the layers.
enum Between {
    /// A function of the first layer, times the third where there is one.
    Function(fn(&Expr) -> Expr),
    /// A function of a gate and of what it lets through.
    Gated(Gate, Halves),
}

/// A gate g and what it lets through, l.
enum Gate {
    /// `g / (1 + e^(-alpha g)) * (l + beta)`, with l between -limit and limit, and either g or what stands before the
    /// parenthesis at most limit.
    SwiGlu { alpha: f64, beta: f64, limit: f64, limit_after: bool },
    /// `gelu(g) * l`.
    GeGlu,
}

/// Where `g` and `l` are: in the first and third layer, or in every second row, or half of the rows, of the first.
#[derive(PartialEq)]
enum Halves {
    Layers,
    Interleaved,
    Beside,
}

impl Gate {
    fn of(&self, gate: &Expr, linear: &Expr) -> Expr {
        match *self {
            Gate::GeGlu => gelu_tanh(gate) * linear,
            Gate::SwiGlu { alpha, beta, limit, limit_after } => {
                let swish = |gate: &Expr| gate * sigmoid(&(gate * alpha));
                let open = if limit_after { swish(gate).smaller(limit) } else { swish(&gate.smaller(limit)) };
                open * (linear.larger(-limit).smaller(limit) + beta)
            }
        }
    }
}

fn between(cx: &Cx) -> Result<Between, Stop> {
    let halves = || match cx.int_or("swiglu_fusion", 0)? {
        0 => Ok(Halves::Layers),
        1 => Ok(Halves::Interleaved),
        2 => Ok(Halves::Beside),
        other => Err(cx.error(format!("swiglu_fusion wants 0, 1 or 2, got {other}"))),
    };
    Ok(match cx.string_or("activation_type", "relu")?.as_str() {
        "relu" => Between::Function(|x| x.larger(0.0)),
        "relu2" => Between::Function(|x| x.larger(0.0).power(2.0)),
        "gelu" => Between::Function(gelu_tanh),
        "silu" => Between::Function(|x| x * sigmoid(x)),
        "identity" => Between::Function(Expr::clone),
        "geglu" => match halves()? {
            Halves::Layers => return Err(cx.error("geglu wants swiglu_fusion 1 or 2, got 0")),
            fused => Between::Gated(Gate::GeGlu, fused),
        },
        "swiglu" => {
            let gate = Gate::SwiGlu {
                alpha: cx.float_or("activation_alpha", 1.0)?,
                beta: cx.float_or("activation_beta", 0.0)?,
                limit: cx.float_or("swiglu_limit", f32::INFINITY)?,
                limit_after: cx.int_or("swiglu_limit_after_activation", 0)? != 0,
            };
            Between::Gated(gate, halves()?)
        }
        other => return Err(cx.unsupported(format!("activation_type={other}"))),
    })
}

/// `[.., 2 n]` to `[.., n]`.
fn fused(p: &mut Program, x: ValueId, gate: &Gate, halves: &Halves) -> ValueId {
    let mut shape = p.shape(x).to_vec();
    let two = Idx::from(2i64);
    shape[2] = shape[2].div(&two);
    let at = vars(0, &shape);
    let part = |which: i64| {
        let mut at = at.clone();
        at[2] = match halves {
            Halves::Layers | Halves::Beside => &at[2] + &(&shape[2] * &Idx::from(which)),
            Halves::Interleaved => &(&at[2] * &two) + &Idx::from(which),
        };
        p.load(x, &at)
    };
    let body = gate.of(&part(0), &part(1));
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
    let tiles = Tiles::new(p, &choice)?;
    let first = |p: &mut Program, layer: &Linear| {
        layer.apply(p, &tiles, width, |p, [tile, row, column]| {
            p.load(flat, &[tiles.token(p, tile, row), column.clone()])
        })
    };
    let gate = first(p, &fc1);
    let third = fc3.map(|fc3| first(p, &fc3));
    let hidden = match (&between, third) {
        (Between::Function(f), None) => p.unary(gate, f),
        (Between::Function(f), Some(third)) => p.elementwise(&[gate, third], |e| f(&e[0]) * &e[1])?,
        (Between::Gated(function, Halves::Layers), Some(third)) => {
            p.elementwise(&[gate, third], |e| function.of(&e[0], &e[1]))?
        }
        (Between::Gated(function, halves), None) if *halves != Halves::Layers => {
            fused(p, gate, function, halves)
        }
        (Between::Gated(..), _) => {
            return Err(p.error("a gated activation wants fc3 with swiglu_fusion=0, and only then"));
        }
    };
    let inner = p.shape(hidden)[2].clone();
    let second = fc2.apply(p, &tiles, &inner, |p, [tile, row, column]| {
        p.load(hidden, &[tile.clone(), row.clone(), column.clone()])
    });
    let y = tiles.mixed(p, second)?;
    Ok(vec![p.reshape(y, shape)?])
}
