//! Linear quantization: `real = (quantized - zero point) * scale`. Scales are one for the tensor, one per
//! position of an axis, or one per block of positions along it.

use super::conv;
use super::matmul::matmul;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, vars};
use crate::ir::{Combine, Def, Program, Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn op(name: &'static str, since: i64, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("", name, since, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    op("QuantizeLinear", 10, "round(x / scale) + zero point, saturating", quantize),
    op("DequantizeLinear", 10, "(x - zero point) * scale", dequantize),
    op("DynamicQuantizeLinear", 11, "uint8 with the scale and zero point of the range that x has", dynamic),
    op("QLinearMatMul", 10, "matrix product of quantized operands, quantized", |cx| {
        let inputs: Vec<ValueId> = (0..8).map(|i| cx.input(i)).collect::<Result<_, _>>()?;
        let p = &mut *cx.program;
        let [a, a_scale, a_zero] = [inputs[0], row_operand(p, inputs[1])?, row_operand(p, inputs[2])?];
        let [b, b_scale, b_zero] = [inputs[3], inputs[4], inputs[5]];
        let left = p.elementwise(&[a, a_zero], centred)?;
        let right = p.elementwise(&[b, b_zero], centred)?;
        let product = matmul(p, left, right)?;
        let operands = [product, a_scale, b_scale, inputs[6], inputs[7]];
        Ok(vec![p.elementwise(&operands, requantized)?])
    }),
    op("QLinearConv", 10, "convolution of quantized operands, quantized", |cx| {
        let inputs: Vec<ValueId> = (0..8).map(|i| cx.input(i)).collect::<Result<_, _>>()?;
        let x = conv::centred(cx, inputs[0], Some(inputs[2]))?;
        let w = conv::centred(cx, inputs[3], Some(inputs[5]))?;
        let sum = conv::convolve(cx, x, w)?;
        let sum = conv::add_bias(cx, sum, 8)?[0];
        let spatial = cx.program.rank(sum) - 2;
        let w_scale = channel_operand(cx.program, inputs[4], spatial)?;
        let operands = [sum, inputs[1], w_scale, inputs[6], inputs[7]];
        Ok(vec![cx.program.elementwise(&operands, requantized)?])
    }),
];

/// The range of a quantized dtype: of the integers it holds, or of its finite numbers.
fn range(dtype: DType) -> Option<(f64, f64)> {
    Some(match dtype {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65535.0),
        DType::I16 => (-32768.0, 32767.0),
        DType::U4 => (0.0, 15.0),
        DType::I4 => (-8.0, 7.0),
        DType::U2 => (0.0, 3.0),
        DType::I2 => (-2.0, 1.0),
        DType::F8E4M3FN => (-448.0, 448.0),
        DType::F8E4M3FNUZ => (-240.0, 240.0),
        DType::F8E5M2 | DType::F8E5M2FNUZ => (-57344.0, 57344.0),
        DType::F4E2M1 => (-6.0, 6.0),
        DType::F32
        | DType::F16
        | DType::F64
        | DType::BF16
        | DType::I32
        | DType::I64
        | DType::U32
        | DType::U64
        | DType::F8E8M0
        | DType::Bool
        | DType::String
        | DType::Complex64
        | DType::Complex128 => return None,
    })
}

/// `x - zero point` in int32, of elements `[x, zero point]`.
pub(super) fn centred(e: &[Expr]) -> Expr {
    e[0].cast(DType::I32) - e[1].cast(DType::I32)
}

/// `round(sum * (a_scale * b_scale / y_scale)) + zero point`, of elements in this order.
fn requantized(e: &[Expr]) -> Expr {
    let real = |e: &Expr| e.cast(DType::F32);
    let y = real(&e[0]) * (real(&e[1]) * real(&e[2]) / real(&e[3]));
    saturated(y.rounded() + real(&e[4]), e[4].dtype())
}

/// `x` clamped to the range of `dtype`, and converted.
pub(super) fn saturated(x: Expr, dtype: DType) -> Expr {
    let Some((low, high)) = range(dtype) else { return x.cast(dtype) };
    x.larger(low).smaller(high).cast(dtype)
}

/// A scale or zero point per row, `[M]`, as `[M, 1]`.
fn row_operand(p: &mut Program, x: ValueId) -> Result<ValueId, Stop> {
    let [m] = p.shape(x) else { return Ok(x) };
    let shape = vec![m.clone(), Idx::from(1i64)];
    p.reshape(x, shape)
}

/// A scale per output channel, `[M]`, as `[M, 1, ..]`.
fn channel_operand(p: &mut Program, x: ValueId, spatial: usize) -> Result<ValueId, Stop> {
    let [m] = p.shape(x) else { return Ok(x) };
    let shape = [vec![m.clone()], vec![Idx::from(1i64); spatial]].concat();
    p.reshape(x, shape)
}

/// Which scale belongs to an element.
struct Granularity {
    axis: usize,
    /// Positions along the axis that share a scale; `None` where the scales have no axis of their own.
    block: Option<Idx>,
}

impl Granularity {
    fn of(cx: &Cx, x: ValueId, scale: ValueId) -> Result<Granularity, Stop> {
        let (x, scale) = (cx.program.shape(x), cx.program.shape(scale));
        if scale.iter().all(|d| d.is(1)) && scale.len() < 2 {
            return Ok(Granularity { axis: 0, block: None });
        }
        let axis = cx.int_or("axis", 1)?;
        let axis = if x.len() == 1 { 0 } else { cx.axis(axis, x.len())? };
        let one = Idx::from(1i64);
        let block = match cx.int_or("block_size", 0)? {
            _ if scale.len() == 1 => one,
            0 if scale.len() == x.len() => x[axis].div_ceil(&scale[axis]),
            size if scale.len() == x.len() => Idx::from(size),
            _ => return Err(cx.error(format!("scales of {} axes for a tensor of {}", scale.len(), x.len()))),
        };
        Ok(Granularity { axis, block: Some(block) })
    }

    /// The scale or zero point `value` of the element `at`.
    fn load(&self, p: &Program, value: ValueId, at: &[Idx]) -> Expr {
        let rank = p.rank(value);
        // The zero points of symmetric quantization are written out by exporters.
        if let Def::Weight(tensor) = &p.value(value).def
            && tensor.place().is_none()
            && tensor.bytes().iter().all(|&byte| byte == 0)
        {
            return Expr::int(tensor.dtype(), 0);
        }
        let Some(block) = &self.block else { return p.load(value, &vec![Idx::from(0i64); rank]) };
        let position = at[self.axis].div(block);
        if rank == 1 {
            return p.load(value, &[position]);
        }
        let mut at = at.to_vec();
        at[self.axis] = position;
        p.load(value, &at)
    }
}

fn quantize(cx: &mut Cx) -> Lowering {
    let (x, scale, zero) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let dtype = match (zero, cx.int_or("output_dtype", 0)?) {
        (Some(zero), _) => cx.program.dtype(zero),
        (None, 0) => DType::U8,
        (None, _) => cx.dtype_attribute("output_dtype")?.unwrap_or(DType::U8),
    };
    if range(dtype).is_none() {
        return Err(cx.unsupported(format!("quantization to {dtype}")));
    }
    let saturate = cx.int_or("saturate", 1)? != 0;
    let granularity = Granularity::of(cx, x, scale)?;
    let p = &mut *cx.program;
    let shape = p.shape(x).to_vec();
    let at = vars(0, &shape);
    let scale = granularity.load(p, scale, &at).cast(DType::F32);
    let quotient = p.load(x, &at).cast(DType::F32) / scale;
    let zero = zero.map(|zero| granularity.load(p, zero, &at).cast(DType::F32));
    let body = if dtype.is_int() {
        let whole = quotient.rounded();
        saturated(zero.map_or(whole.clone(), |zero| whole + zero), dtype)
    } else if saturate || dtype == DType::F4E2M1 {
        saturated(quotient, dtype)
    } else {
        quotient.cast(dtype)
    };
    Ok(vec![p.map(shape, body)])
}

fn dequantize(cx: &mut Cx) -> Lowering {
    let (x, scale, zero) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let dtype = match cx.int_or("output_dtype", 0)? {
        0 => cx.program.dtype(scale),
        _ => cx.dtype_attribute("output_dtype")?.unwrap_or(DType::F32),
    };
    let granularity = Granularity::of(cx, x, scale)?;
    let p = &mut *cx.program;
    let shape = p.shape(x).to_vec();
    let at = vars(0, &shape);
    let element = p.load(x, &at);
    let zero = zero.map(|zero| granularity.load(p, zero, &at));
    // Integers are subtracted as integers: exactly.
    let middle = if element.dtype().is_int() { DType::I32 } else { DType::F32 };
    let difference = zero.iter().fold(element.cast(middle), |e, zero| e - zero.cast(middle));
    let scale = granularity.load(p, scale, &at).cast(DType::F32);
    let body = (difference.cast(DType::F32) * scale).cast(dtype);
    Ok(vec![p.map(shape, body)])
}

/// The scale is `(max(x, 0) - min(x, 0)) / 255`, or 1 where all is 0; the zero point `round(-min / scale)`.
fn dynamic(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let p = &mut *cx.program;
    let axes: Vec<usize> = (0..p.rank(x)).collect();
    let high = p.reduce(x, &axes, false, Combine::Max, Expr::clone)?;
    let low = p.reduce(x, &axes, false, Combine::Min, Expr::clone)?;
    let scale = p.elementwise(&[high, low], |e| {
        let scale = (e[0].larger(0.0) - e[1].smaller(0.0)) / 255.0;
        scale.equals(0.0).select(&Expr::float(scale.dtype(), 1.0), &scale)
    })?;
    let zero = p.elementwise(&[low, scale], |e| {
        saturated((e[0].smaller(0.0).negated() / &e[1]).rounded(), DType::U8)
    })?;
    let y = p.elementwise(&[x, scale, zero], |e| {
        saturated((&e[0] / &e[1]).rounded() + e[2].cast(DType::F32), DType::U8)
    })?;
    Ok(vec![y, scale, zero])
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, f32s, run};
    use crate::graph::Attribute::Int;
    use crate::tensor::Tensor;

    #[test]
    fn to_uint8_and_back() {
        // The example of QuantizeLinear in ONNX's operator documentation.
        let x = f32s(&[6], &[0.0, 2.0, 3.0, 1000.0, -254.0, -1000.0]);
        let (scale, zero) = (f32s(&[], &[2.0]), Tensor::from_slice(&[], &[128u8]).unwrap());
        let got = run("QuantizeLinear", 13, &[], &[x, scale.clone(), zero.clone()], 1);
        assert_eq!(got[0].to_vec::<u8>().unwrap(), [128, 129, 130, 255, 1, 0]);
        let want = f32s(&[6], &[0.0, 2.0, 4.0, 254.0, -254.0, -256.0]);
        check("DequantizeLinear", 13, &[], &[got[0].clone(), scale, zero], &want);
    }

    #[test]
    fn scales_by_axis_and_block() {
        let x = Tensor::from_slice(&[2, 4], &[1i8, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        let by_axis = f32s(&[2], &[1.0, 10.0]);
        let want = f32s(&[2, 4], &[1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 70.0, 80.0]);
        check("DequantizeLinear", 13, &[("axis", Int(0))], &[x.clone(), by_axis], &want);
        let by_block = f32s(&[2, 2], &[1.0, 10.0, 100.0, 1000.0]);
        let want = f32s(&[2, 4], &[1.0, 2.0, 30.0, 40.0, 500.0, 600.0, 7000.0, 8000.0]);
        check("DequantizeLinear", 21, &[("axis", Int(1)), ("block_size", Int(2))], &[x, by_block], &want);
    }

    #[test]
    fn the_range_decides_scale_and_zero_point() {
        let got = run("DynamicQuantizeLinear", 11, &[], &[f32s(&[3], &[-1.0, 0.0, 4.1])], 3);
        assert_eq!(got[0].to_vec::<u8>().unwrap(), [0, 50, 255]);
        assert_eq!(got[1].to_vec::<f32>().unwrap(), [5.1 / 255.0]);
        assert_eq!(got[2].to_vec::<u8>().unwrap(), [50]);
    }
}
