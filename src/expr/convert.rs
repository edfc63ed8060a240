//! Conversions between dtypes in WGSL: floats are computed as f32, integers as i32 and u32, and what a
//! dtype cannot hold is rounded or cut off here.

use std::collections::BTreeSet;

use super::minifloat;
use super::registers::{Floats, Register};
use crate::tensor::DType;

type Helpers = BTreeSet<&'static str>;

/// `x`, of dtype `from`, converted to `to`.
pub fn cast(to: DType, from: DType, x: &str, floats: Floats, helpers: &mut Helpers) -> String {
    use Register::{Bool, F32, F64, I32, I64, U32, U64};
    let (target, source) = (Register::of(to, floats), Register::of(from, floats));
    let mut call = |name: &'static str| {
        helpers.insert(name);
        format!("{name}({x})")
    };
    match (target, source) {
        (F32, F32) => round(to, x.into(), helpers),
        (F32, I64) => {
            let x = call("tw_f32_of_i64");
            round(to, x, helpers)
        }
        (F32, U64) => {
            let x = call("tw_f32_of_u64");
            round(to, x, helpers)
        }
        (F32, Bool | I32 | U32 | F64) => round(to, format!("f32({x})"), helpers),
        (F64, F64) => x.into(),
        (F64, I64) => call("tw_f64_of_i64"),
        (F64, U64) => call("tw_f64_of_u64"),
        (F64, Bool | I32 | U32 | F32) => format!("f64({x})"),
        (Bool, Bool) => x.into(),
        (Bool, F32) => format!("({x} != 0.0)"),
        (Bool, F64) => format!("({x} != 0.0lf)"),
        (Bool, I32) => format!("({x} != 0)"),
        (Bool, U32) => format!("({x} != 0u)"),
        (Bool, I64 | U64) => format!("any({x} != vec2<u32>())"),
        (I64 | U64, I64 | U64) => x.into(),
        (I64 | U64, I32) => call("tw_wide"),
        (I64 | U64, U32 | Bool) => format!("vec2<u32>(u32({x}), 0u)"),
        (I64, F32) => call("tw_i64_of_f32"),
        (U64, F32) => call("tw_u64_of_f32"),
        (I64, F64) => call("tw_i64_of_f64"),
        (U64, F64) => call("tw_u64_of_f64"),
        (I32, I64 | U64) => wrap(to, format!("i32({x}.x)")),
        (U32, I64 | U64) => wrap(to, format!("{x}.x")),
        // Floats to the packed unsigned integers keep the low bits of a signed integer.
        (U32, F32 | F64) if matches!(to, DType::U4 | DType::U2) => wrap(to, format!("u32(i32({x}))")),
        (I32, I32) | (U32, U32) => wrap(to, x.into()),
        (I32, Bool | U32 | F32 | F64) => wrap(to, format!("i32({x})")),
        (U32, Bool | I32 | F32 | F64) => wrap(to, format!("u32({x})")),
    }
}

/// The bits of `x`, of dtype `from`, as a number of `to`, of the same width.
pub fn bits(to: DType, from: DType, x: &str, floats: Floats, helpers: &mut Helpers) -> String {
    use Register::{Bool, F32, F64, I32, I64, U32, U64};
    let (target, source) = (Register::of(to, floats), Register::of(from, floats));
    match (target, source) {
        (F32, I32 | U32) if to.bits() == 32 => format!("bitcast<f32>({x})"),
        // 16-bit floats are computed as 32-bit ones.
        (F32, I32 | U32) if to == DType::F16 => format!("unpack2x16float(u32({x})).x"),
        (F32, I32 | U32) => format!("bitcast<f32>(u32({x}) << 16u)"),
        (I32 | U32, F32) if from.bits() == 32 => format!("bitcast<{}>({x})", target.wgsl()),
        (I32 | U32, F32) if from == DType::F16 => {
            wrap(to, format!("{}(pack2x16float(vec2<f32>({x}, 0.0)))", target.wgsl()))
        }
        (I32 | U32, F32) => wrap(to, format!("{}(bitcast<u32>({x}) >> 16u)", target.wgsl())),
        (F64, I64 | U64) => {
            helpers.insert("tw_f64_of_bits");
            format!("tw_f64_of_bits({x})")
        }
        (I64 | U64, F64) => {
            helpers.insert("tw_bits_of_f64");
            format!("tw_bits_of_f64({x})")
        }
        // Integers of one width convert by wrapping, which keeps the bits; no other pair has one width.
        (Bool | I32 | U32 | I64 | U64 | F32 | F64, Bool | I32 | U32 | I64 | U64 | F32 | F64) => {
            cast(to, from, x, floats, helpers)
        }
    }
}

/// The f32 `x` rounded to a float dtype.
fn round(to: DType, x: String, helpers: &mut Helpers) -> String {
    match to {
        DType::F16 => {
            helpers.insert("tw_f16");
            format!("tw_f16({x})")
        }
        DType::BF16 => {
            helpers.insert("tw_bf16");
            format!("tw_bf16({x})")
        }
        DType::F8E8M0 => {
            helpers.insert("tw_e8m0");
            format!("tw_e8m0({x})")
        }
        _ => {
            let Some(format) = minifloat::format(to) else { return x };
            helpers.insert("tw_minifloat");
            let (mantissa, low) = (format.mantissa, format.low);
            let special = [format.top, format.beyond(), format.round(f64::NAN)];
            let [top, beyond, nan] = special.map(|v| float_literal(v as f32, helpers));
            format!("tw_minifloat({x}, {mantissa}, {low}, {top}, {beyond}, {nan})")
        }
    }
}

/// Narrow integers live in 32-bit registers: cut a result back to its width.
pub fn wrap(dtype: DType, text: String) -> String {
    match dtype {
        _ if !dtype.is_int() || dtype.bits() >= 32 => text,
        _ if dtype.is_unsigned_int() => format!("({text} & {:#x}u)", (1 << dtype.bits()) - 1),
        _ => format!("(({text} << {0}u) >> {0}u)", 32 - dtype.bits()),
    }
}

/// A float as WGSL writes it; infinities and NaN from their bits.
pub fn float_literal(v: f32, helpers: &mut Helpers) -> String {
    // Its shortest decimal form is a little larger, which Tint refuses.
    if v.abs() == f32::MAX {
        let sign = if v < 0.0 { "-" } else { "" };
        return format!("({sign}0x1.fffffep+127f)");
    }
    if v.is_finite() {
        return if v.is_sign_negative() { format!("({v:?}f)") } else { format!("{v:?}f") };
    }
    helpers.insert("tw_bits");
    format!("tw_bits({:#x}u)", v.to_bits())
}

/// A 64-bit float as naga writes it.
pub fn wide_float_literal(v: f64, helpers: &mut Helpers) -> String {
    match (v.is_finite(), v.is_sign_negative()) {
        (true, true) => format!("({v:?}lf)"),
        (true, false) => format!("{v:?}lf"),
        (false, _) => format!("f64({})", float_literal(v as f32, helpers)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::HELPERS;

    #[test]
    fn every_conversion_is_valid_wgsl() {
        for f64 in [false, true] {
            check(Floats { f16: true, f64 });
        }
    }

    fn check(floats: Floats) {
        let numeric = |dtype: &DType| {
            dtype.bits() > 0 && (Register::of(*dtype, floats) != Register::F32 || dtype.is_float())
        };
        let all: Vec<DType> = (1..=26).filter_map(DType::from_onnx).filter(numeric).collect();
        let mut source = HELPERS.to_string();
        for (i, from) in all.iter().enumerate() {
            for (j, to) in all.iter().enumerate() {
                let (x, y) = (Register::of(*from, floats).wgsl(), Register::of(*to, floats).wgsl());
                let text = cast(*to, *from, "x", floats, &mut BTreeSet::new());
                source += &format!("fn cast_{i}_{j}(x: {x}) -> {y} {{ return {text}; }}\n");
            }
        }
        let module = naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string(&source)).unwrap();
        let capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32
            | naga::valid::Capabilities::FLOAT64
            | naga::valid::Capabilities::SHADER_INT64;
        let mut validator = naga::valid::Validator::new(Default::default(), capabilities);
        validator.validate(&module).map_err(|e| e.emit_to_string(&source)).unwrap();
    }
}
