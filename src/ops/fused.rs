//! Fusions that exporters write for diffusion models and BERT.

use super::activation::{Function, activation, gelu, sigmoid};
use super::conv::{add_bias, convolve};
use super::norm::normalised;
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, vars};
use crate::ir::{Combine, Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn ms(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("com.microsoft", name, 1, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    ms("BiasAdd", "x + bias + skip", |cx| {
        let operands = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
        Ok(vec![cx.program.elementwise(&operands, |e| &e[0] + &e[1] + &e[2])?])
    }),
    ms("BiasSplitGelu", "the left half of x + bias times the Gelu of the right half", bias_split_gelu),
    ms(
        "GroupNorm",
        "normalised over groups of channels, which come last unless told, then SiLU if told",
        |cx| {
            let x = cx.input(0)?;
            Ok(vec![group_norm(cx, x)?])
        },
    ),
    ms("FusedConv", "an activation function of (Conv + Z)", |cx| {
        let (x, w) = (cx.input(0)?, cx.input(1)?);
        let y = convolve(cx, x, w)?;
        let mut y = add_bias(cx, y, 2)?;
        if let Some(z) = cx.optional(3) {
            y = vec![cx.program.binary(Binary::Add, y[0], z)?];
        }
        let name = cx.string_or("activation", "")?;
        if name.is_empty() {
            return Ok(y);
        }
        let given = cx.floats("activation_params")?.unwrap_or_default();
        let given = |i: usize| given.get(i).map(|&v| v as f64);
        let f: Function = match (name.as_str(), given(0).zip(given(1))) {
            ("Sigmoid", _) => Box::new(sigmoid),
            ("Clip", Some((low, high))) => Box::new(move |x| x.larger(low).smaller(high)),
            _ => activation(&name, &mut |_| (given(0), given(1)))
                .ok_or_else(|| cx.unsupported(format!("activation {name:?}")))?,
        };
        Ok(vec![cx.program.unary(y[0], f)])
    }),
    ms("SkipGroupNorm", "GroupNorm of x + skip + bias, and that sum", skip_group_norm),
    ms(
        "EmbedLayerNormalization",
        "layer normalisation of the sum of word, position and segment embeddings",
        embed,
    ),
];

fn bias_split_gelu(cx: &mut Cx) -> Lowering {
    let (x, bias) = (cx.input(0)?, cx.input(1)?);
    let sum = cx.program.elementwise(&[x, bias], |e| &e[0] + &e[1])?;
    let mut shape = cx.program.shape(sum).to_vec();
    let Some(last) = shape.last_mut() else { return Err(cx.error("x wants at least one axis")) };
    let half = last.div(&Idx::from(2i64));
    *last = half.clone();
    let at = vars(0, &shape);
    let mut right = at.clone();
    if let Some(last) = right.last_mut() {
        *last = &*last + &half;
    }
    let body = cx.program.load(sum, &at) * gelu(&cx.program.load(sum, &right));
    Ok(vec![cx.program.map(shape, body)])
}

/// `[N, H, W, C]`, or `[N, C, H, W]`, normalised over the elements of a group of channels.
fn group_norm(cx: &mut Cx, x: ValueId) -> Result<ValueId, Stop> {
    let (gamma, beta) = (cx.input(1)?, cx.input(2)?);
    let last = cx.int_or("channels_last", 1)? != 0;
    let epsilon = cx.float_or("epsilon", 1e-5)?;
    let groups = Idx::from(cx.int_or("groups", 1)?);
    let silu = cx.int_or("activation", 0)? != 0;
    let p = &mut *cx.program;
    let shape = p.shape(x).to_vec();
    let channel = if last { shape.len() - 1 } else { 1 };
    let mut split = shape.clone();
    split.splice(channel..=channel, [groups.clone(), shape[channel].div(&groups)]);
    let axes: Vec<usize> = (1..split.len()).filter(|&axis| axis != channel).collect();
    let grouped = p.reshape(x, split)?;
    let y = normalised(p, grouped, &axes, epsilon)?.0;
    let y = p.reshape(y, shape.clone())?;
    let at = vars(0, &shape);
    let c = &at[channel..=channel];
    let dtype = p.dtype(y);
    let body = p.load(y, &at).cast(DType::F32) * p.load(gamma, c).cast(DType::F32)
        + p.load(beta, c).cast(DType::F32);
    let body = if silu { &body * sigmoid(&body) } else { body };
    Ok(p.map(shape, body.cast(dtype)))
}

fn skip_group_norm(cx: &mut Cx) -> Lowering {
    let (x, mut skip) = (cx.input(0)?, cx.input(3)?);
    let last = cx.int_or("channels_last", 1)? != 0;
    // The other axes of what is given by channel.
    let ones = vec![Idx::from(1i64); cx.program.rank(x).saturating_sub(2)];
    let (before, behind) = if last { (ones, vec![]) } else { (vec![], ones) };
    if cx.program.rank(skip) == 2 {
        let flat = cx.program.shape(skip).to_vec();
        skip = cx.program.reshape(skip, [&flat[..1], &before, &flat[1..], &behind].concat())?;
    }
    let mut operands = vec![x, skip];
    if let Some(bias) = cx.optional(4) {
        let channels = cx.program.shape(bias).to_vec();
        operands.push(cx.program.reshape(bias, [channels, behind].concat())?);
    }
    let sum = cx.program.elementwise(&operands, |e| e[1..].iter().fold(e[0].clone(), |a, b| &a + b))?;
    Ok(vec![group_norm(cx, sum)?, sum])
}

fn embed(cx: &mut Cx) -> Lowering {
    let (ids, words, positions) = (cx.input(0)?, cx.input(2)?, cx.input(3)?);
    let segments = cx.optional(1).zip(cx.optional(4));
    let (gamma, beta, mask, named) = (cx.input(5)?, cx.input(6)?, cx.optional(7), cx.optional(8));
    let epsilon = cx.float_or("epsilon", 1e-12)?;
    let p = &mut *cx.program;
    let width = p.shape(words).last().cloned().unwrap_or_else(|| Idx::from(1i64));
    let shape = [p.shape(ids), &[width]].concat();
    let [_, _, _] = shape.as_slice() else { return Err(p.error("input_ids want two axes")) };
    let at = vars(0, &shape);
    let (here, column) = (&at[..2], &at[2]);
    let row = |table: ValueId, index: Idx| p.load(table, &[index, column.clone()]);
    let position = match named {
        Some(named) => p.load_broadcast(named, here).to_position(&p.shape(positions)[0]),
        None => at[1].clone(),
    };
    let mut sum = row(words, p.load(ids, here).to_position(&p.shape(words)[0])) + row(positions, position);
    if let Some((segment_ids, table)) = segments {
        sum = sum + row(table, p.load(segment_ids, here).to_position(&p.shape(table)[0]));
    }
    let sum = p.map(shape, sum);
    let y = normalised(p, sum, &[2], epsilon)?.0;
    let y = p.elementwise(&[y, gamma, beta], |e| &e[0] * &e[1] + &e[2])?;
    // How many words of each row are before the first that the mask hides.
    let counts = match mask {
        Some(mask) => {
            let extent = p.shape(mask)[1].clone();
            let rows = vec![p.shape(mask)[0].clone()];
            p.reduction(rows, vec![extent.clone()], Combine::Min, |p, b, s| {
                let on =
                    p.load(mask, &[b[0].clone(), s[0].clone()]).binary(Binary::Eq, &Expr::int(DType::I32, 1));
                on.select(&Expr::index(extent.clone(), DType::I32), &Expr::index(s[0].clone(), DType::I32))
            })
        }
        None => {
            let rows = vec![p.shape(ids)[0].clone()];
            p.map(rows, Expr::int(DType::I32, 0))
        }
    };
    Ok(vec![y, counts, sum])
}
