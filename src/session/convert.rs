//! Elements between their ONNX form and their form in device memory (see `kernel::stored`).

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::expr::{Floats, read_element, write_element};
use crate::kernel::stored;
use crate::tensor::{DType, Tensor};

/// The elements of a tensor as the device stores those of `dtype`; borrowed where the forms agree.
///
/// # Errors
/// [`Error::Limit`] for dtypes without a form on the device.
pub fn to_device<'a>(name: &str, tensor: &'a Tensor, dtype: DType, floats: Floats) -> Result<Cow<'a, [u8]>> {
    let stored = stored(dtype, floats);
    if stored == tensor.dtype() {
        return Ok(Cow::Borrowed(tensor.bytes()));
    }
    convert(name, tensor.dtype(), tensor.bytes(), stored, tensor.len()).map(Cow::Owned)
}

/// A tensor of `dtype` from the elements that the device holds of a tensor of `held`.
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
    let stored = stored(held, floats);
    if stored == dtype {
        return Tensor::new(dtype, shape, bytes);
    }
    Tensor::new(dtype, shape, convert(name, stored, &bytes, dtype, shape.iter().product())?)
}

fn convert(name: &str, from: DType, bytes: &[u8], to: DType, len: usize) -> Result<Vec<u8>> {
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
}
