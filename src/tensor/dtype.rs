//! Element types: a dtype is a value, not a type parameter.

use std::fmt;

/// The element type of a tensor, as ONNX defines it (`TensorProto.DataType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the names are the documentation
pub enum DType {
    F32,
    U8,
    I8,
    U16,
    I16,
    I32,
    I64,
    String,
    Bool,
    F16,
    F64,
    U32,
    U64,
    Complex64,
    Complex128,
    BF16,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    U4,
    I4,
    F4E2M1,
    F8E8M0,
    U2,
    I2,
}

/// One row per dtype: ONNX's number, name, bits per element.
const TABLE: &[(DType, i32, &str, usize)] = &[
    (DType::F32, 1, "float32", 32),
    (DType::U8, 2, "uint8", 8),
    (DType::I8, 3, "int8", 8),
    (DType::U16, 4, "uint16", 16),
    (DType::I16, 5, "int16", 16),
    (DType::I32, 6, "int32", 32),
    (DType::I64, 7, "int64", 64),
    (DType::String, 8, "string", 0),
    (DType::Bool, 9, "bool", 8),
    (DType::F16, 10, "float16", 16),
    (DType::F64, 11, "float64", 64),
    (DType::U32, 12, "uint32", 32),
    (DType::U64, 13, "uint64", 64),
    (DType::Complex64, 14, "complex64", 64),
    (DType::Complex128, 15, "complex128", 128),
    (DType::BF16, 16, "bfloat16", 16),
    (DType::F8E4M3FN, 17, "float8e4m3fn", 8),
    (DType::F8E4M3FNUZ, 18, "float8e4m3fnuz", 8),
    (DType::F8E5M2, 19, "float8e5m2", 8),
    (DType::F8E5M2FNUZ, 20, "float8e5m2fnuz", 8),
    (DType::U4, 21, "uint4", 4),
    (DType::I4, 22, "int4", 4),
    (DType::F4E2M1, 23, "float4e2m1", 4),
    (DType::F8E8M0, 24, "float8e8m0", 8),
    (DType::U2, 25, "uint2", 2),
    (DType::I2, 26, "int2", 2),
];

impl DType {
    fn row(self) -> &'static (DType, i32, &'static str, usize) {
        &TABLE[self as usize]
    }

    /// The dtype of ONNX's `TensorProto.DataType` number.
    pub fn from_onnx(number: i32) -> Option<DType> {
        TABLE.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// The dtype of that name, as `float32`.
    pub fn from_name(name: &str) -> Option<DType> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// ONNX's `TensorProto.DataType` number.
    pub fn to_onnx(self) -> i32 {
        self.row().1
    }

    /// The name, as `float32`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Bits per element: 2 and 4 for the packed types, 0 for strings.
    pub fn bits(self) -> usize {
        self.row().3
    }

    /// Bytes that `len` elements take, packed types rounded up to whole bytes.
    pub fn size_bytes(self, len: usize) -> usize {
        (self.bits() * len).div_ceil(8)
    }

    /// Whether values are floating-point numbers.
    pub fn is_float(self) -> bool {
        use DType::*;
        matches!(self, F32 | F16 | F64 | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0)
    }

    /// Whether values are integers (bool is not).
    pub fn is_int(self) -> bool {
        self.is_signed_int() || self.is_unsigned_int()
    }

    /// Whether values are signed integers.
    pub fn is_signed_int(self) -> bool {
        use DType::*;
        matches!(self, I8 | I16 | I32 | I64 | I4 | I2)
    }

    /// Whether values are unsigned integers.
    pub fn is_unsigned_int(self) -> bool {
        use DType::*;
        matches!(self, U8 | U16 | U32 | U64 | U4 | U2)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index, "{}", row.2);
            assert_eq!(DType::from_onnx(row.1), Some(row.0));
            assert_eq!(DType::from_name(row.2), Some(row.0));
        }
    }

    #[test]
    fn packed_sizes_round_up() {
        for (dtype, len, bytes) in [
            (DType::I4, 3, 2),
            (DType::U2, 5, 2),
            (DType::Bool, 3, 3),
            (DType::F64, 2, 16),
            (DType::F32, 0, 0),
        ] {
            assert_eq!(dtype.size_bytes(len), bytes, "{dtype} x {len}");
        }
    }
}
