//! Scalar values on the CPU, and their form in a tensor's bytes.

use half::{bf16, f16};

use crate::tensor::DType;

/// A scalar: floats as f64 rounded to their dtype, integers as i64 wrapped to theirs (u64 by its bits).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A floating-point number.
    F(f64),
    /// An integer.
    I(i64),
    /// A bool.
    B(bool),
}

impl Value {
    /// The value as a float.
    pub fn to_f64(self) -> f64 {
        match self {
            Value::F(v) => v,
            Value::I(v) => v as f64,
            Value::B(v) => v as u8 as f64,
        }
    }

    /// The value as an integer; floats truncate and saturate.
    pub fn to_i64(self) -> i64 {
        match self {
            Value::F(v) => v as i64,
            Value::I(v) => v,
            Value::B(v) => v as i64,
        }
    }

    /// Whether it is not zero.
    pub fn to_bool(self) -> bool {
        match self {
            Value::F(v) => v != 0.0,
            Value::I(v) => v != 0,
            Value::B(v) => v,
        }
    }
}

/// Element `index` of a tensor's bytes; `None` for dtypes without a scalar value here, or out of range.
pub fn read_element(dtype: DType, bytes: &[u8], index: usize) -> Option<Value> {
    fn at<const N: usize>(bytes: &[u8], index: usize) -> Option<[u8; N]> {
        bytes.get(index.checked_mul(N)?..)?.first_chunk().copied()
    }
    Some(match dtype {
        DType::F32 => Value::F(f32::from_le_bytes(at(bytes, index)?) as f64),
        DType::F64 => Value::F(f64::from_le_bytes(at(bytes, index)?)),
        DType::F16 => Value::F(f16::from_le_bytes(at(bytes, index)?).to_f64()),
        DType::BF16 => Value::F(bf16::from_le_bytes(at(bytes, index)?).to_f64()),
        DType::U8 => Value::I(*bytes.get(index)? as i64),
        DType::I8 => Value::I(*bytes.get(index)? as i8 as i64),
        DType::U16 => Value::I(u16::from_le_bytes(at(bytes, index)?) as i64),
        DType::I16 => Value::I(i16::from_le_bytes(at(bytes, index)?) as i64),
        DType::U32 => Value::I(u32::from_le_bytes(at(bytes, index)?) as i64),
        DType::I32 => Value::I(i32::from_le_bytes(at(bytes, index)?) as i64),
        DType::U64 | DType::I64 => Value::I(i64::from_le_bytes(at(bytes, index)?)),
        DType::Bool => Value::B(*bytes.get(index)? != 0),
        DType::String
        | DType::Complex64
        | DType::Complex128
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::U4
        | DType::I4
        | DType::U2
        | DType::I2 => return None,
    })
}

/// Append an element of `dtype` to a tensor's bytes; false for dtypes without a scalar value here.
pub fn write_element(dtype: DType, value: Value, out: &mut Vec<u8>) -> bool {
    match dtype {
        DType::F32 => out.extend((value.to_f64() as f32).to_le_bytes()),
        DType::F64 => out.extend(value.to_f64().to_le_bytes()),
        DType::F16 => out.extend(f16::from_f64(value.to_f64()).to_le_bytes()),
        DType::BF16 => out.extend(bf16::from_f64(value.to_f64()).to_le_bytes()),
        DType::U8 | DType::I8 => out.push(value.to_i64() as u8),
        DType::U16 | DType::I16 => out.extend((value.to_i64() as u16).to_le_bytes()),
        DType::U32 | DType::I32 => out.extend((value.to_i64() as u32).to_le_bytes()),
        DType::U64 | DType::I64 => out.extend(value.to_i64().to_le_bytes()),
        DType::Bool => out.push(value.to_bool() as u8),
        DType::String
        | DType::Complex64
        | DType::Complex128
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::U4
        | DType::I4
        | DType::U2
        | DType::I2 => return false,
    }
    true
}
