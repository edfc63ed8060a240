//! Elements between their ONNX form and their form in device memory (see `kernel::stored`).

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::expr::{Floats, read_element, write_element};
use crate::kernel::stored;
use crate::tensor::{DType, Tensor};

/// A tensor's elements as the device holds those of `held`; borrowed where the forms agree.
///
/// # Errors
/// [`Error::Limit`] for dtypes without a form on the device.
pub fn to_device<'a>(name: &str, tensor: &'a Tensor, held: DType, floats: Floats) -> Result<Cow<'a, [u8]>> {
    elements_to_device(name, tensor.dtype(), tensor.bytes(), tensor.len(), held, floats)
}

/// A part of a tensor as the device holds it: `bytes` are its `len` elements of `dtype`, which the plan holds as
/// `held` (int64 that is proven to fit is held as int32).
///
/// # Errors
/// As [`to_device`].
pub fn elements_to_device<'a>(
    name: &str,
    dtype: DType,
    bytes: &'a [u8],
    len: usize,
    held: DType,
    floats: Floats,
) -> Result<Cow<'a, [u8]>> {
    let stored = stored(held, floats);
    if stored == dtype {
        return Ok(Cow::Borrowed(bytes));
    }
    convert(name, dtype, bytes, stored, len).map(Cow::Owned)
}

/// A tensor of `dtype` from the device's form of one of `held`; `bytes` may go on after the last element.
///
/// # Errors
/// [`Error::Limit`] for dtypes without a form on the device.
pub fn from_device(
    name: &str,
    dtype: DType,
    shape: &[usize],
    bytes: Vec<u8>,
    held: DType,
    floats: Floats,
) -> Result<Tensor> {
    let len = shape.iter().product();
    Tensor::new(dtype, shape, elements_from_device(name, dtype, len, bytes, held, floats)?)
}

/// The first `len` elements of the device's form, as ONNX has them.
///
/// # Errors
/// As [`from_device`].
pub fn elements_from_device(
    name: &str,
    dtype: DType,
    len: usize,
    mut bytes: Vec<u8>,
    held: DType,
    floats: Floats,
) -> Result<Vec<u8>> {
    let stored = stored(held, floats);
    if stored == dtype {
        bytes.truncate(dtype.size_bytes(len));
        return Ok(bytes);
    }
    convert(name, stored, &bytes, dtype, len)
}

/// `len` elements of `from` as ones of `to`.
///
/// # Errors
/// [`Error::Limit`] naming the tensor, where there is no such conversion.
pub fn convert(name: &str, from: DType, bytes: &[u8], to: DType, len: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(to.size_bytes(len));
    for i in 0..len {
        let value = read_element(from, bytes, i);
        if !value.is_some_and(|v| write_element(to, i, v, &mut out)) {
            return Err(Error::limit(name, format!("no conversion of {from} to {to}")));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let tensors = [
            Tensor::from_slice(&[3], &[-1i64, 0, i64::MAX]).unwrap(),
            Tensor::from_slice(&[2], &[u64::MAX, 7]).unwrap(),
            Tensor::from_slice(&[3], &[true, false, true]).unwrap(),
            Tensor::from_slice(&[2], &[-3i8, 100]).unwrap(),
            Tensor::from_slice(&[2], &[half::f16::from_f32(1.5), half::f16::NEG_INFINITY]).unwrap(),
            Tensor::from_slice(&[2], &[1.5f64, -2.0]).unwrap(),
        ];
        for tensor in tensors {
            for floats in [Floats::default(), Floats { f16: true, f64: true }] {
                let dtype = tensor.dtype();
                let device = to_device("t", &tensor, dtype, floats).unwrap().into_owned();
                let back = from_device("t", dtype, tensor.shape(), device, dtype, floats).unwrap();
                assert_eq!(back, tensor, "{tensor:?} {floats:?}");
            }
        }
    }

    #[test]
    fn int64_that_fits_is_held_in_a_word() {
        let tensor = Tensor::from_slice(&[2], &[-1i64, 7]).unwrap();
        let floats = Floats::default();
        let device = to_device("t", &tensor, DType::I32, floats).unwrap().into_owned();
        assert_eq!(device.len(), 8);
        assert_eq!(from_device("t", DType::I64, &[2], device, DType::I32, floats).unwrap(), tensor);
    }
}
