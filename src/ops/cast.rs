//! Conversions of dtype.

use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Unary, format};
use crate::ir::{Def, Stop};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("Cast", 1, "conversion; floats to integers truncate", |cx| {
        let to = if cx.opset < 6 { named(cx)? } else { cx.dtype_attribute("to")? };
        let to = to.ok_or_else(|| cx.error("attribute \"to\" is missing"))?;
        convert(cx, to)
    }),
    op("CastLike", 15, "conversion to the second input's dtype", |cx| {
        let to = cx.program.dtype(cx.input(1)?);
        convert(cx, to)
    }),
    op("BitCast", 26, "the same bits as another dtype; of float8 and float4 for constants only", bit_cast),
];

/// The dtype whose name attribute "to" is, as before opset 6.
fn named(cx: &Cx) -> Result<Option<DType>, Stop> {
    let name = cx.string_or("to", "")?;
    Ok(match name.as_str() {
        "FLOAT" => Some(DType::F32),
        "DOUBLE" => Some(DType::F64),
        "FLOAT16" => Some(DType::F16),
        "UINT8" => Some(DType::U8),
        "UINT16" => Some(DType::U16),
        "UINT32" => Some(DType::U32),
        "UINT64" => Some(DType::U64),
        "INT8" => Some(DType::I8),
        "INT16" => Some(DType::I16),
        "INT32" => Some(DType::I32),
        "INT64" => Some(DType::I64),
        "BOOL" => Some(DType::Bool),
        "" => None,
        _ => return Err(cx.unsupported(format!("conversion to {name}"))),
    })
}

fn is_numeric(dtype: DType) -> bool {
    dtype == DType::Bool || dtype.is_float() || dtype.is_int()
}

fn convert(cx: &mut Cx, to: DType) -> Lowering {
    let x = cx.input(0)?;
    let from = cx.program.dtype(x);
    if !is_numeric(from) || !is_numeric(to) {
        return Err(cx.unsupported(format!("conversion of {from} to {to}")));
    }
    if from == to {
        return Ok(vec![x]);
    }
    let saturate = cx.int_or("saturate", 1)? != 0;
    let y = match to {
        DType::F8E8M0 => {
            let round = power_of_two(cx, saturate)?;
            cx.program.unary(x, |x| round(&x.cast(DType::F32)).cast(to))
        }
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ if saturate => {
            let top = format(to).map_or(f64::MAX, |format| format.top);
            cx.program.unary(x, |x| clamp(&x.cast(DType::F32), top).cast(to))
        }
        _ => cx.program.cast(x, to),
    };
    Ok(vec![y])
}

/// `x` moved into -top..=top; NaN stays, which minimum and maximum do not promise.
fn clamp(x: &Expr, top: f64) -> Expr {
    let (high, low) = (Expr::float(x.dtype(), top), Expr::float(x.dtype(), -top));
    let x = high.binary(Binary::Lt, x).select(&high, x);
    x.binary(Binary::Lt, &low).select(&low, &x)
}

/// How float8e8m0, which has powers of two only, rounds what lies between them.
fn power_of_two(cx: &Cx, saturate: bool) -> Result<impl Fn(&Expr) -> Expr + use<>, Stop> {
    let up_from = match cx.string_or("round_mode", "up")?.as_str() {
        "up" => Some(1.0),
        "nearest" => Some(1.5),
        "down" => None,
        other => return Err(cx.error(format!("round_mode {other:?} is none of up, down, nearest"))),
    };
    Ok(move |x: &Expr| {
        let number = |v| Expr::float(DType::F32, v);
        // The conversion itself takes the power of two below.
        let low = x.cast(DType::F8E8M0).cast(DType::F32);
        let Some(up_from) = up_from else { return low };
        let high = low.binary(Binary::Mul, &number(2.0));
        let high = if saturate { high.binary(Binary::Min, &number(2f64.powi(127))) } else { high };
        let (size, edge) = (x.unary(Unary::Abs), low.binary(Binary::Mul, &number(up_from)));
        let rounds_up = match up_from {
            1.0 => edge.binary(Binary::Lt, &size),
            _ => edge.binary(Binary::Le, &size),
        };
        rounds_up.select(&high, &low)
    })
}

fn bit_cast(cx: &mut Cx) -> Lowering {
    let to = cx.dtype_attribute("to")?.ok_or_else(|| cx.error("attribute \"to\" is missing"))?;
    let x = cx.input(0)?;
    let from = cx.program.dtype(x);
    if from.bits() != to.bits() || !is_numeric(from) || !is_numeric(to) {
        return Err(cx.error(format!("{from} and {to} differ in width")));
    }
    if let Def::Weight(tensor) = &cx.program.value(x).def {
        let bits = tensor.view(to, tensor.shape())?;
        return Ok(vec![cx.program.weight(bits)]);
    }
    let has_bits = |dtype: DType| {
        dtype.is_int() || matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16 | DType::Bool)
    };
    let mixes_floats = from.is_float() && to.is_float() && from != to;
    if !has_bits(from) || !has_bits(to) || mixes_floats {
        return Err(cx.unsupported(format!("bits of {from} as {to} of a value that is computed")));
    }
    Ok(vec![cx.program.unary(x, |e| e.bits(to))])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, int, t, text};
    use crate::tensor::{DType, Tensor};

    fn bytes(dtype: DType, len: usize, bytes: &[u8]) -> Tensor {
        Tensor::new(dtype, &[len], bytes.to_vec()).unwrap()
    }

    #[test]
    fn floats_to_narrow_types() {
        let x = t(&[4], &[0.3f32, -3.5, 1e6, f32::NAN]);
        for (to, saturate, want) in [
            (DType::F8E4M3FN, 1, bytes(DType::F8E4M3FN, 4, &[0x2a, 0xc6, 0x7e, 0x7f])),
            (DType::F8E4M3FN, 0, bytes(DType::F8E4M3FN, 4, &[0x2a, 0xc6, 0x7f, 0x7f])),
            (DType::F8E5M2, 1, bytes(DType::F8E5M2, 4, &[0x35, 0xc3, 0x7b, 0x7f])),
            (DType::F8E5M2, 0, bytes(DType::F8E5M2, 4, &[0x35, 0xc3, 0x7c, 0x7f])),
            (DType::F8E5M2FNUZ, 0, bytes(DType::F8E5M2FNUZ, 4, &[0x39, 0xc7, 0x80, 0x80])),
            (DType::F4E2M1, 1, bytes(DType::F4E2M1, 4, &[0xe1, 0x07])),
            (DType::I4, 1, bytes(DType::I4, 4, &[0xd0, 0x00])),
        ] {
            let attributes = [("to", int(to.to_onnx() as i64)), ("saturate", int(saturate))];
            Case::new("Cast", &attributes, [x.clone()]).gives([want]);
        }
    }

    #[test]
    fn powers_of_two_round_as_asked() {
        let x = t(&[4], &[1.0f32, 1.25, 1.5, f32::INFINITY]);
        for (mode, want) in [
            ("up", [0x7f, 0x80, 0x80, 0xff]),
            ("down", [0x7f, 0x7f, 0x7f, 0xff]),
            ("nearest", [0x7f, 0x7f, 0x80, 0xff]),
        ] {
            let attributes = [("to", int(24)), ("round_mode", text(mode))];
            Case::new("Cast", &attributes, [x.clone()]).gives([bytes(DType::F8E8M0, 4, &want)]);
        }
    }

    #[test]
    fn a_dtype_by_its_name() {
        let case =
            Case { opset: 1, ..Case::new("Cast", &[("to", text("INT32"))], [t(&[2], &[1.5f32, -2.5])]) };
        case.gives([t(&[2], &[1i32, -2])]);
    }

    #[test]
    fn the_same_bits() {
        let x = t(&[3], &[-1i32, 7, i32::MIN]);
        let to = [("to", int(DType::U32.to_onnx() as i64))];
        let case = Case { opset: 26, ..Case::new("BitCast", &to, [x]) };
        case.gives([t(&[3], &[u32::MAX, 7, 1 << 31])]);
        let to = [("to", int(DType::I32.to_onnx() as i64))];
        let case = Case { opset: 26, ..Case::new("BitCast", &to, [t(&[2], &[1f32, -0.0])]) };
        case.gives([t(&[2], &[0x3f80_0000i32, i32::MIN])]);
    }
}
