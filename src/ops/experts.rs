//! The linear layers of experts, with weights of all the forms that mixtures of experts have them in.

use super::Cx;
use super::nbits::{bits, unpacked};
use super::routing::Tiles;
use crate::expr::{Binary, Expr, Idx, vars};
use crate::ir::{Axes, Program, Stop, ValueId};
use crate::tensor::DType;

/// `y = W[e] x + b[e]` for every expert e. W: `[experts, rows, columns]`, b: `[experts, rows]`.
pub struct Linear {
    weights: ValueId,
    bias: Option<ValueId>,
    form: Form,
}

/// What the elements of `weights` mean.
enum Form {
    /// Numbers.
    Plain,
    /// Numbers packed along the last axis, meant as `(number - zero) * scale`.
    Codes(Codes),
    /// float8, meant as `number * scale`.
    Float8(Scale),
    /// float4, two in a byte, meant as `number * scale * global[expert]`.
    Float4 { packed: Packed, block: Idx, scales: ValueId, global: Option<ValueId> },
}

struct Codes {
    bits: i64,
    /// Columns that share a scale; all of a row where `None`.
    block: Option<Idx>,
    /// `[experts, rows]`, or `[experts, rows, blocks]`.
    scales: ValueId,
    /// Of the scales' shape, packed along its last axis.
    zeros: Option<ValueId>,
}

/// The scales of float8.
enum Scale {
    /// `[experts]`.
    Expert(ValueId),
    /// `[experts, rows / block, columns / block]`, rounded up.
    Square { block: Idx, scales: ValueId },
}

/// Along which axis two float4 share a byte. The weights have the axes `[experts, columns, rows / 2]` in both cases.
#[derive(Clone, Copy)]
enum Packed {
    Rows,
    /// The bytes are in the order of `[experts, rows, columns / 2]`.
    Columns,
}

impl Linear {
    /// With weights that are input `i`, and the bias that follows it.
    pub fn plain(cx: &Cx, i: usize) -> Option<Linear> {
        let weights = cx.optional(i)?;
        Some(Linear { weights, bias: cx.optional(i + 1), form: Form::Plain })
    }

    /// Layer `number` of QMoE: its weights are input `i`, then come scales and bias.
    pub fn quantized(cx: &mut Cx, i: usize, number: usize) -> Result<Option<Linear>, Stop> {
        let Some(weights) = cx.optional(i) else { return Ok(None) };
        let kind = cx.string_or("quant_type", "int")?;
        let form = match kind.as_str() {
            "int" => Form::Codes(codes(cx, i, number)?),
            "fp8" => Form::Float8(match cx.int_or("block_size", 0)? {
                size if size > 0 => Scale::Square { block: Idx::from(size), scales: cx.input(i + 1)? },
                _ => Scale::Expert(global_scale(cx, number)?),
            }),
            "fp4" | "nvfp4" => {
                let packed = match (kind.as_str(), cx.int_or("weights_prepacked", -1)?) {
                    ("nvfp4", 1) => Packed::Columns,
                    _ => Packed::Rows,
                };
                let block = Idx::from(if kind == "fp4" { 32i64 } else { 16 });
                // The third layer of MXFP4 has the scales of its blocks alone.
                let global = if kind == "fp4" && number > 2 { None } else { Some(global_scale(cx, number)?) };
                Form::Float4 { packed, block, scales: cx.input(i + 1)?, global }
            }
            other => return Err(cx.unsupported(format!("quant_type={other}"))),
        };
        if cx.program.rank(weights) != 3 {
            let found = cx.program.rank(weights);
            return Err(cx.error(format!("the weights of fc{number} want 3 axes, got {found}")));
        }
        let weights = match &form {
            Form::Float4 { packed: Packed::Columns, .. } => {
                let [experts, columns, half] = [0, 1, 2].map(|axis| cx.program.shape(weights)[axis].clone());
                let two = Idx::from(2i64);
                cx.program.reshape(weights, vec![experts, &half * &two, columns.div(&two)])?
            }
            Form::Float4 { packed: Packed::Rows, .. } | Form::Plain | Form::Codes(_) | Form::Float8(_) => {
                weights
            }
        };
        Ok(Some(Linear { weights, bias: cx.optional(i + 2), form }))
    }

    fn rows(&self, p: &Program) -> Idx {
        match self.form {
            Form::Float4 { packed: Packed::Rows, .. } => &p.shape(self.weights)[2] * &Idx::from(2i64),
            Form::Float4 { packed: Packed::Columns, .. } | Form::Plain | Form::Codes(_) | Form::Float8(_) => {
                p.shape(self.weights)[1].clone()
            }
        }
    }

    fn weight(&self, p: &Program, [expert, row, column]: [&Idx; 3]) -> Expr {
        let real = |x: ValueId, at: &[&Idx]| {
            let at: Vec<Idx> = at.iter().map(|&idx| idx.clone()).collect();
            p.load(x, &at).cast(DType::F32)
        };
        match &self.form {
            Form::Plain => p.load(self.weights, &[expert.clone(), row.clone(), column.clone()]),
            Form::Codes(codes) => codes.weight(p, self.weights, &[expert.clone(), row.clone()], column),
            Form::Float8(scale) => {
                let scale = match scale {
                    Scale::Expert(scales) => real(*scales, &[expert]),
                    Scale::Square { block, scales } => {
                        real(*scales, &[expert, &row.div(block), &column.div(block)])
                    }
                };
                real(self.weights, &[expert, row, column]) * scale
            }
            Form::Float4 { packed, block, scales, global } => {
                let (line, place) = match packed {
                    Packed::Rows => (column, row),
                    Packed::Columns => (row, column),
                };
                let code = unpacked(p, self.weights, &[expert.clone(), line.clone()], place, 4);
                let scaled = float4(&code) * real(*scales, &[expert, row, &column.div(block)]);
                global.map_or(scaled.clone(), |global| scaled * real(global, &[expert]))
            }
        }
    }

    /// `[tiles, rows of a tile, rows]`, of what `element` gives for a tile, a row in it, and a column below `columns`.
    pub fn apply(
        &self,
        p: &mut Program,
        tiles: &Tiles,
        columns: &Idx,
        element: impl Fn(&Program, [&Idx; 3]) -> Expr,
    ) -> ValueId {
        let extents = Axes {
            batch: vec![tiles.count.clone()],
            m: vec![tiles.rows.clone()],
            n: vec![self.rows(p)],
            k: vec![columns.clone()],
        };
        let product = p.contract(extents, |p, at| {
            let (tile, column) = (&at.batch[0], &at.k[0]);
            let element = element(p, [tile, &at.m[0], column]);
            let weight = self.weight(p, [&tiles.expert(p, tile), &at.n[0], column]).cast(element.dtype());
            (element, weight)
        });
        let Some(bias) = self.bias else { return product };
        let shape = p.shape(product).to_vec();
        let at = vars(0, &shape);
        let sum = p.load(product, &at) + p.load(bias, &[tiles.expert(p, &at[0]), at[2].clone()]);
        p.map(shape, sum)
    }
}

impl Codes {
    fn weight(&self, p: &Program, weights: ValueId, row: &[Idx], column: &Idx) -> Expr {
        let code = unpacked(p, weights, row, column, self.bits).cast(DType::F32);
        let place = match &self.block {
            Some(block) => [row, &[column.div(block)]].concat(),
            None => row.to_vec(),
        };
        let zero = match (self.zeros, place.split_last()) {
            (Some(zeros), Some((last, rest))) => unpacked(p, zeros, rest, last, self.bits).cast(DType::F32),
            _ => Expr::float(DType::F32, (1 << (self.bits - 1)) as f64),
        };
        (code - zero) * p.load(self.scales, &place).cast(DType::F32)
    }
}

fn codes(cx: &Cx, i: usize, number: usize) -> Result<Codes, Stop> {
    if cx.int_or("weights_prepacked", -1)? == 1 {
        return Err(cx.unsupported("prepacked weights"));
    }
    let all = cx.int_or("expert_weight_bits", 4)?;
    let bits = bits(cx, &format!("fc{number}_expert_weight_bits"), all, &[2, 3, 4, 8])?;
    let block = Some(cx.int_or("block_size", 0)?).filter(|&size| size > 0).map(Idx::from);
    let codes = Codes { bits, block, scales: cx.input(i + 1)?, zeros: cx.optional(10 + number) };
    let wanted = if codes.block.is_some() { 3 } else { 2 };
    let found = cx.program.rank(codes.scales);
    if found != wanted {
        return Err(cx.error(format!("fc{number}_scales want {wanted} axes, got {found}")));
    }
    Ok(codes)
}

/// The scale per expert of a layer of floats; the third layer has none.
fn global_scale(cx: &Cx, number: usize) -> Result<ValueId, Stop> {
    if number > 2 {
        return Err(cx.unsupported("fc3 with a scale per expert, which no input holds"));
    }
    cx.input(14 + number)
}

/// The float4 (a sign, two bits of exponent, one of mantissa) of a code: 0, 0.5, 1, 1.5, 2, 3, 4 or 6.
fn float4(code: &Expr) -> Expr {
    let int = |value| Expr::int(DType::I32, value);
    let magnitude = code.binary(Binary::BitAnd, &int(7));
    let odd = code.binary(Binary::BitAnd, &int(1));
    let large = (odd + int(2)) * int(6).at_most(&magnitude).select(&int(2), &int(1));
    let small = magnitude.cast(DType::F32) * 0.5;
    let size = magnitude.below(int(4)).select(&small, &large.cast(DType::F32));
    code.below(int(8)).select(&size, &size.negated())
}
