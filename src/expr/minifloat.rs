//! Floating-point formats of 4 and 8 bits: a sign, an exponent, a mantissa of a few bits. Conversions to
//! them round to the nearest, ties to even.

use crate::tensor::DType;

/// What stands for numbers that are too large, and for NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Special {
    /// Infinities, then NaNs, take the largest exponent, as in IEEE 754.
    Ieee,
    /// All ones is NaN; there is no infinity.
    AllOnes,
    /// What would be -0 is NaN; there is neither infinity nor -0.
    NegativeZero,
    /// Neither NaN nor infinity: the largest number stands for what is too large, and 0 for NaN.
    None,
}

/// A format: numbers are `significand * 2^(exponent - mantissa)`, exponents from `low` up.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Bits after the point.
    pub mantissa: i32,
    /// Exponent of the smallest normal number.
    pub low: i32,
    /// Largest finite number.
    pub top: f64,
    bits: u32,
    special: Special,
}

/// The format of a dtype that has one here; float8e8m0 has no mantissa and is apart.
pub fn format(dtype: DType) -> Option<Format> {
    let row = |mantissa, low, top, bits, special| Some(Format { mantissa, low, top, bits, special });
    match dtype {
        DType::F8E4M3FN => row(3, -6, 448.0, 8, Special::AllOnes),
        DType::F8E4M3FNUZ => row(3, -7, 240.0, 8, Special::NegativeZero),
        DType::F8E5M2 => row(2, -14, 57344.0, 8, Special::Ieee),
        DType::F8E5M2FNUZ => row(2, -15, 57344.0, 8, Special::NegativeZero),
        DType::F4E2M1 => row(1, 0, 6.0, 4, Special::None),
        _ => None,
    }
}

impl Format {
    /// What a number that rounds to more than the largest becomes.
    pub fn beyond(&self) -> f64 {
        match self.special {
            Special::Ieee => f64::INFINITY,
            Special::AllOnes | Special::NegativeZero => f64::NAN,
            Special::None => self.top,
        }
    }

    /// `v` rounded to the format.
    pub fn round(&self, v: f64) -> f64 {
        if v.is_nan() {
            return if self.special == Special::None { 0.0 } else { v };
        }
        let ulp = power_of_two(exponent(v).clamp(self.low, 1000) - self.mantissa);
        let rounded = (v / ulp).round_ties_even() * ulp;
        match rounded {
            _ if rounded.abs() > self.top => self.beyond().copysign(v),
            0.0 if self.special == Special::NegativeZero => 0.0,
            _ => rounded,
        }
    }

    /// The bits of `v` rounded to the format.
    pub fn encode(&self, v: f64) -> u8 {
        let v = self.round(v);
        let sign = (v.is_sign_negative() as u8) << (self.bits - 1);
        let ones = (1 << (self.bits - 1)) - 1;
        if v.is_nan() {
            return if self.special == Special::NegativeZero { 0x80 } else { sign | ones };
        }
        if v.is_infinite() {
            return sign | (ones & !((1 << self.mantissa) - 1));
        }
        let e = exponent(v).max(self.low);
        let significand = v.abs() / power_of_two(e - self.mantissa);
        // The significand's leading bit, where there is one, adds 1 to the exponent's field.
        sign | ((((e - self.low) << self.mantissa) + significand as i32) as u8)
    }

    /// The number that `code` stands for.
    pub fn decode(&self, code: u8) -> f64 {
        let ones = (1u8 << (self.bits - 1)) - 1;
        let (sign, code) = (if code > ones { -1.0 } else { 1.0 }, code & ones);
        let (field, fraction) = ((code >> self.mantissa) as i32, code & ((1 << self.mantissa) - 1));
        match self.special {
            Special::AllOnes if code == ones => return f64::NAN,
            Special::NegativeZero if code == 0 && sign < 0.0 => return f64::NAN,
            Special::Ieee if field == (ones >> self.mantissa) as i32 => {
                return if fraction == 0 { sign * f64::INFINITY } else { f64::NAN };
            }
            _ => {}
        }
        let implicit = if field > 0 { 1u8 << self.mantissa } else { 0 };
        sign * (fraction + implicit) as f64 * power_of_two(field.max(1) - 1 + self.low - self.mantissa)
    }
}

/// The power of two at or below `|v|`, as float8e8m0 holds it: 2^-127 to 2^127, or NaN.
pub fn round_e8m0(v: f64) -> f64 {
    if v.is_finite() && exponent(v) <= 127 { power_of_two(exponent(v).max(-127)) } else { f64::NAN }
}

/// The bits of `v` in float8e8m0.
pub fn encode_e8m0(v: f64) -> u8 {
    let v = round_e8m0(v);
    if v.is_nan() { 0xff } else { (exponent(v) + 127) as u8 }
}

/// The number that `code` stands for in float8e8m0.
pub fn decode_e8m0(code: u8) -> f64 {
    if code == 0xff { f64::NAN } else { power_of_two(code as i32 - 127) }
}

/// The binary exponent of `|v|`; below all that occur for 0 and the smallest numbers.
fn exponent(v: f64) -> i32 {
    ((v.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DTYPES: [DType; 5] =
        [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ, DType::F4E2M1];

    #[test]
    fn every_code_is_itself_after_decoding_and_encoding() {
        for dtype in DTYPES {
            let format = format(dtype).unwrap();
            for code in 0..(1u16 << format.bits) {
                let value = format.decode(code as u8);
                assert!(format.round(value) == value || value.is_nan(), "{dtype} {code:#x}");
                assert!(format.encode(value) == code as u8 || value.is_nan(), "{dtype} {code:#x}");
                assert_eq!(format.decode(format.encode(value)).is_nan(), value.is_nan(), "{dtype} {code:#x}");
            }
        }
        assert!((0..=255).all(|code| encode_e8m0(decode_e8m0(code)) == code));
    }

    #[test]
    fn numbers_between_codes_go_to_the_nearest_or_else_the_even_one() {
        for dtype in DTYPES {
            let format = format(dtype).unwrap();
            let last = format.encode(format.top);
            for code in 0..last {
                let (low, high) = (format.decode(code), format.decode(code + 1));
                let middle = (low + high) / 2.0;
                let even = if code % 2 == 0 { low } else { high };
                assert_eq!(format.round(middle), even, "{dtype} {middle}");
                assert_eq!(format.round(middle * 0.9999), low, "{dtype} {middle}");
                assert_eq!(format.round(-middle * 1.0001), -high, "{dtype} {middle}");
            }
        }
    }

    #[test]
    fn the_edges_of_each_format() {
        use DType::*;
        let inf = f64::INFINITY;
        for (dtype, value, code) in [
            (F8E4M3FN, 448.0, 0x7e),
            (F8E4M3FN, 464.0, 0x7e),
            (F8E4M3FN, 465.0, 0x7f),
            (F8E4M3FN, inf, 0x7f),
            (F8E4M3FN, 0.001953125, 0x01),
            (F8E4M3FNUZ, -240.0, 0xff),
            (F8E4M3FNUZ, 1e9, 0x80),
            (F8E4M3FNUZ, -0.0, 0x00),
            (F8E5M2, 57344.0, 0x7b),
            (F8E5M2, 1e6, 0x7c),
            (F8E5M2, -inf, 0xfc),
            (F8E5M2FNUZ, 57344.0, 0x7f),
            (F4E2M1, 1e6, 0x7),
            (F4E2M1, -2.5, 0xc),
            (F4E2M1, 0.25, 0x0),
        ] {
            assert_eq!(format(dtype).unwrap().encode(value), code, "{dtype} {value}");
        }
    }
}
