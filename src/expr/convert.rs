//! Conversions between dtypes in WGSL: floats are computed as f32, integers as i32 and u32, and what a
//! dtype cannot hold is rounded or cut off here.

use std::collections::BTreeSet;

use super::minifloat;
use super::print::device_type;
use crate::tensor::DType;

type Helpers = BTreeSet<&'static str>;

/// `x`, of dtype `from`, converted to `to`.
pub fn cast(to: DType, from: DType, x: &str, helpers: &mut Helpers) -> String {
    let (target, source) = (device_type(to), device_type(from));
    if target == "f32" {
        let x = if source == "f32" { x.to_string() } else { format!("f32({x})") };
        return round(to, x, helpers);
    }
    match (to, target, source) {
        (_, "bool", "f32") => format!("({x} != 0.0)"),
        (_, "bool", "i32") => format!("({x} != 0)"),
        (_, "bool", "u32") => format!("({x} != 0u)"),
        // Floats to the packed unsigned integers keep the low bits of a signed integer.
        (DType::U4 | DType::U2, _, "f32") => wrap(to, format!("u32(i32({x}))")),
        _ if target == source => wrap(to, x.into()),
        _ => wrap(to, format!("{target}({x})")),
    }
}

/// The f32 `x` rounded to a float dtype.
fn round(to: DType, x: String, helpers: &mut Helpers) -> String {
    match to {
        DType::F16 => {
            helpers.extend(["tw_bits", "tw_is_nan", "tw_f16"]);
            format!("tw_f16({x})")
        }
        DType::BF16 => {
            helpers.extend(["tw_is_nan", "tw_bf16"]);
            format!("tw_bf16({x})")
        }
        DType::F8E8M0 => {
            helpers.extend(["tw_bits", "tw_e8m0"]);
            format!("tw_e8m0({x})")
        }
        _ => {
            let Some(format) = minifloat::format(to) else { return x };
            helpers.extend(["tw_is_nan", "tw_minifloat"]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::HELPERS;

    #[test]
    fn every_conversion_is_valid_wgsl() {
        let numeric = |dtype: &DType| dtype.bits() > 0 && (device_type(*dtype) != "f32" || dtype.is_float());
        let all: Vec<DType> = (1..=26).filter_map(DType::from_onnx).filter(numeric).collect();
        let mut source = HELPERS.to_string();
        for (i, from) in all.iter().enumerate() {
            for (j, to) in all.iter().enumerate() {
                let (x, y) = (device_type(*from), device_type(*to));
                let text = cast(*to, *from, "x", &mut BTreeSet::new());
                source += &format!("fn cast_{i}_{j}(x: {x}) -> {y} {{ return {text}; }}\n");
            }
        }
        let module = naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string(&source)).unwrap();
        let capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        let mut validator = naga::valid::Validator::new(Default::default(), capabilities);
        validator.validate(&module).map_err(|e| e.emit_to_string(&source)).unwrap();
    }
}
