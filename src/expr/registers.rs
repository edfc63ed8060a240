//! What a dtype is computed in.

use crate::tensor::DType;

/// The floats beside f32 that a device's shaders have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Floats {
    /// 16-bit floats, in memory: they are computed in f32.
    pub f16: bool,
    /// 64-bit floats.
    pub f64: bool,
}

/// The form of a number in a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// `bool`.
    Bool,
    /// `i32`.
    I32,
    /// `u32`.
    U32,
    /// Two words, the low one first.
    I64,
    /// As `I64`.
    U64,
    /// `f32`.
    F32,
    /// `f64`.
    F64,
}

impl Register {
    /// The form of a dtype's numbers: narrow integers and floats are widened, and what a dtype cannot hold is
    /// rounded or cut off after each operation.
    pub fn of(dtype: DType, floats: Floats) -> Register {
        match dtype {
            DType::Bool => Register::Bool,
            DType::I64 => Register::I64,
            DType::U64 => Register::U64,
            DType::F64 if floats.f64 => Register::F64,
            _ if dtype.is_unsigned_int() => Register::U32,
            _ if dtype.is_int() => Register::I32,
            _ => Register::F32,
        }
    }

    /// The type in WGSL.
    pub fn wgsl(self) -> &'static str {
        match self {
            Register::Bool => "bool",
            Register::I32 => "i32",
            Register::U32 => "u32",
            Register::I64 | Register::U64 => "vec2<u32>",
            Register::F32 => "f32",
            Register::F64 => "f64",
        }
    }
}

/// The WGSL type that a dtype is computed in.
pub fn device_type(dtype: DType, floats: Floats) -> &'static str {
    Register::of(dtype, floats).wgsl()
}
