//! Comparison of a tensor with the expected one: dtype and shape exactly, then values.

use half::{bf16, f16};
use tilewright::{DType, Tensor};

/// The elements of a tensor, widened without loss.
pub enum Values {
    /// Floating-point numbers.
    Floats(Vec<f64>),
    /// Real and imaginary parts.
    Complex(Vec<[f64; 2]>),
    /// Integers; bools are 0 and 1.
    Ints(Vec<i128>),
}

/// The elements of `tensor`.
pub fn values(tensor: &Tensor) -> Values {
    use DType::*;
    use Values::*;
    let bytes: &[u8] = tensor.bytes();
    let pairs = |v: Vec<f64>| v.as_chunks().0.to_vec();
    let small_floats = |exponent_bits, mantissa_bits, kind| -> Vec<f64> {
        bytes.iter().map(|&b| small_float(b, exponent_bits, mantissa_bits, kind)).collect()
    };
    match tensor.dtype() {
        F32 => Floats(each(bytes, |b| f32::from_le_bytes(b) as f64)),
        F64 => Floats(each(bytes, f64::from_le_bytes)),
        F16 => Floats(each(bytes, |b| f16::from_le_bytes(b).to_f64())),
        BF16 => Floats(each(bytes, |b| bf16::from_le_bytes(b).to_f64())),
        F8E4M3FN => Floats(small_floats(4, 3, SmallFloat::Finite)),
        F8E4M3FNUZ => Floats(small_floats(4, 3, SmallFloat::FiniteUnsignedZero)),
        F8E5M2 => Floats(small_floats(5, 2, SmallFloat::Ieee)),
        F8E5M2FNUZ => Floats(small_floats(5, 2, SmallFloat::FiniteUnsignedZero)),
        F8E8M0 => Floats(bytes.iter().map(|&b| power_of_two(b)).collect()),
        F4E2M1 => Floats(unpack(tensor, 4).map(|b| small_float(b, 2, 1, SmallFloat::NoSpecials)).collect()),
        Complex64 => Complex(pairs(each(bytes, |b| f32::from_le_bytes(b) as f64))),
        Complex128 => Complex(pairs(each(bytes, f64::from_le_bytes))),
        Bool => Ints(bytes.iter().map(|&b| (b != 0) as i128).collect()),
        U8 => Ints(each(bytes, |b| u8::from_le_bytes(b) as i128)),
        I8 => Ints(each(bytes, |b| i8::from_le_bytes(b) as i128)),
        U16 => Ints(each(bytes, |b| u16::from_le_bytes(b) as i128)),
        I16 => Ints(each(bytes, |b| i16::from_le_bytes(b) as i128)),
        U32 => Ints(each(bytes, |b| u32::from_le_bytes(b) as i128)),
        I32 => Ints(each(bytes, |b| i32::from_le_bytes(b) as i128)),
        U64 => Ints(each(bytes, |b| u64::from_le_bytes(b) as i128)),
        I64 => Ints(each(bytes, |b| i64::from_le_bytes(b) as i128)),
        U4 => Ints(unpack(tensor, 4).map(|b| b as i128).collect()),
        U2 => Ints(unpack(tensor, 2).map(|b| b as i128).collect()),
        I4 => Ints(unpack(tensor, 4).map(|b| ((b << 4) as i8 >> 4) as i128).collect()),
        I2 => Ints(unpack(tensor, 2).map(|b| ((b << 6) as i8 >> 6) as i128).collect()),
        String => unreachable!("a Tensor holds no strings"),
    }
}

fn each<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&b| read(b)).collect()
}

/// The elements of a packed tensor, the first in the low bits of a byte.
fn unpack(tensor: &Tensor, bits: usize) -> impl Iterator<Item = u8> {
    let (bytes, per_byte) = (tensor.bytes().clone(), 8 / bits);
    (0..tensor.len()).map(move |i| bytes[i / per_byte] >> (i % per_byte * bits) & ((1 << bits) - 1))
}

/// How a float of up to 8 bits spells what is not a finite number.
#[derive(Clone, Copy)]
enum SmallFloat {
    /// Infinities and NaN under the largest exponent.
    Ieee,
    /// No infinities; NaN where exponent and mantissa are all ones.
    Finite,
    /// No infinities; NaN where minus zero would be; the bias is one larger.
    FiniteUnsignedZero,
    /// Finite numbers alone.
    NoSpecials,
}

/// sign, exponent and mantissa from the high bits to the low.
fn small_float(byte: u8, exponent_bits: u32, mantissa_bits: u32, kind: SmallFloat) -> f64 {
    let mantissa = (byte & ((1 << mantissa_bits) - 1)) as f64;
    let exponent = (byte >> mantissa_bits & ((1 << exponent_bits) - 1)) as i32;
    let negative = byte >> (mantissa_bits + exponent_bits) & 1 == 1;
    let sign = if negative { -1.0 } else { 1.0 };
    let top_exponent = (1 << exponent_bits) - 1;
    let full_mantissa = ((1 << mantissa_bits) - 1) as f64;
    match kind {
        SmallFloat::Ieee if exponent == top_exponent => {
            return if mantissa == 0.0 { sign * f64::INFINITY } else { f64::NAN };
        }
        SmallFloat::Finite if exponent == top_exponent && mantissa == full_mantissa => return f64::NAN,
        SmallFloat::FiniteUnsignedZero if negative && exponent == 0 && mantissa == 0.0 => return f64::NAN,
        _ => {}
    }
    let bias = (1 << (exponent_bits - 1)) - 1 + matches!(kind, SmallFloat::FiniteUnsignedZero) as i32;
    let fraction = mantissa / (1 << mantissa_bits) as f64;
    let magnitude = if exponent == 0 {
        fraction * 2f64.powi(1 - bias)
    } else {
        (1.0 + fraction) * 2f64.powi(exponent - bias)
    };
    sign * magnitude
}

/// float8e8m0: 2^(byte - 127), 255 being NaN.
fn power_of_two(byte: u8) -> f64 {
    if byte == 255 { f64::NAN } else { 2f64.powi(byte as i32 - 127) }
}

fn same_type(got: &Tensor, want: &Tensor) -> Result<(), String> {
    if (got.dtype(), got.shape()) == (want.dtype(), want.shape()) {
        return Ok(());
    }
    Err(format!("got {} {:?}, want {} {:?}", got.dtype(), got.shape(), want.dtype(), want.shape()))
}

/// As `numpy.testing.assert_allclose`: floats with |got - want| <= atol + rtol |want|, NaN equal to NaN, infinities
/// equal to themselves; everything else exactly. bfloat16 gets at least two units in the last place, as in ONNX's own
/// runner of these tests.
pub fn all_close(got: &Tensor, want: &Tensor, rtol: f64, atol: f64) -> Result<(), String> {
    same_type(got, want)?;
    let rtol = if want.dtype() == DType::BF16 { rtol.max(2f64.powi(-6)) } else { rtol };
    // With a finite difference, as infinity <= infinity.
    let within = |difference: f64, size: f64| difference.is_finite() && difference <= atol + rtol * size;
    let close = |g: f64, w: f64| g == w || (g.is_nan() && w.is_nan()) || within((g - w).abs(), w.abs());
    match (values(got), values(want)) {
        (Values::Floats(g), Values::Floats(w)) => mismatch(&g, &w, |&g, &w| close(g, w)),
        (Values::Ints(g), Values::Ints(w)) => mismatch(&g, &w, |g, w| g == w),
        (Values::Complex(g), Values::Complex(w)) => {
            mismatch(&g, &w, |g, w| g == w || within((g[0] - w[0]).hypot(g[1] - w[1]), w[0].hypot(w[1])))
        }
        _ => unreachable!("equal dtypes have values of one kind"),
    }
}

fn mismatch<T: std::fmt::Debug>(got: &[T], want: &[T], same: impl Fn(&T, &T) -> bool) -> Result<(), String> {
    let wrong: Vec<usize> = (0..want.len()).filter(|&i| !same(&got[i], &want[i])).collect();
    match wrong.first() {
        None => Ok(()),
        Some(&i) => Err(format!(
            "{} of {} elements differ; element {i}: got {:?}, want {:?}",
            wrong.len(),
            want.len(),
            got[i],
            want[i]
        )),
    }
}

/// max |got - want| / max |want| over the output as a whole. An error where a dtype or shape differs, a value is not
/// finite, or an integer differs at all.
pub fn relative_error(got: &Tensor, want: &Tensor) -> Result<f64, String> {
    same_type(got, want)?;
    let (Values::Floats(g), Values::Floats(w)) = (values(got), values(want)) else {
        return all_close(got, want, 0.0, 0.0).map(|()| 0.0);
    };
    // First, as a maximum passes over NaN.
    if let Some(i) = (0..w.len()).find(|&i| !g[i].is_finite() || !w[i].is_finite()) {
        return Err(format!("element {i} is {}, want {}", g[i], w[i]));
    }
    let largest = w.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let difference = g.iter().zip(&w).fold(0.0, |m: f64, (g, w)| m.max((g - w).abs()));
    Ok(if difference == 0.0 { 0.0 } else { difference / largest })
}
