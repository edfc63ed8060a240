//! Scalar values on the CPU, and their form in a tensor's bytes.

use half::{bf16, f16};

use super::minifloat;
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

/// Element `index` of a tensor's bytes; `None` for dtypes without a scalar value, or out of range.
pub fn read_element(dtype: DType, bytes: &[u8], index: usize) -> Option<Value> {
    fn at<const N: usize>(bytes: &[u8], index: usize) -> Option<[u8; N]> {
        bytes.get(index.checked_mul(N)?..)?.first_chunk().copied()
    }
    // Packed types: the first element is in the low bits.
    let code = || {
        let (bits, per_byte) = (dtype.bits(), 8 / dtype.bits());
        let byte = *bytes.get(index / per_byte)?;
        Some((byte >> (index % per_byte * bits)) & (0xff >> (8 - bits)))
    };
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
        DType::U4 | DType::U2 => Value::I(code()? as i64),
        DType::I4 | DType::I2 => Value::I(sign_extend(code()? as i64, dtype.bits())),
        DType::F8E8M0 => Value::F(minifloat::decode_e8m0(code()?)),
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F4E2M1 => {
            Value::F(minifloat::format(dtype)?.decode(code()?))
        }
        DType::String | DType::Complex64 | DType::Complex128 => return None,
    })
}

/// The lowest `bits` bits of `v` as a signed number.
pub(super) fn sign_extend(v: i64, bits: usize) -> i64 {
    v << (64 - bits) >> (64 - bits)
}

/// Append element `index` to a tensor's bytes, which hold all elements before it; false for dtypes without
/// a scalar value.
pub fn write_element(dtype: DType, index: usize, value: Value, out: &mut Vec<u8>) -> bool {
    let mut pack = |code: u8| {
        let (bits, per_byte) = (dtype.bits(), 8 / dtype.bits());
        let code = (code & (0xff >> (8 - bits))) << (index % per_byte * bits);
        match out.last_mut() {
            Some(byte) if !index.is_multiple_of(per_byte) => *byte |= code,
            _ => out.push(code),
        }
        true
    };
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
        DType::U4 | DType::I4 | DType::U2 | DType::I2 => return pack(value.to_i64() as u8),
        DType::F8E8M0 => return pack(minifloat::encode_e8m0(value.to_f64())),
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F4E2M1 => {
            return minifloat::format(dtype).is_some_and(|format| pack(format.encode(value.to_f64())));
        }
        DType::String | DType::Complex64 | DType::Complex128 => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_elements_are_read_as_written() {
        for (dtype, values, bytes) in [
            (DType::I4, vec![-8, 7, -1], vec![0x78, 0x0f]),
            (DType::U4, vec![1, 15, 3], vec![0xf1, 0x03]),
            (DType::I2, vec![-2, 1, -1, 0, 1], vec![0b00_11_01_10, 0b01]),
            (DType::U2, vec![3, 0, 2], vec![0b00_10_00_11]),
        ] {
            let mut out = Vec::new();
            for (i, &v) in values.iter().enumerate() {
                assert!(write_element(dtype, i, Value::I(v), &mut out));
            }
            assert_eq!(out, bytes, "{dtype}");
            for (i, &v) in values.iter().enumerate() {
                assert_eq!(read_element(dtype, &out, i), Some(Value::I(v)), "{dtype} {i}");
            }
        }
    }
}
