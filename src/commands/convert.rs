//! Elements between their ONNX form and their form in device memory (see `kernel::storage_type`).

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::expr::{Value, read_element, write_element};
use crate::kernel::storage_type;
use crate::tensor::{DType, Tensor};

/// A tensor's elements as the device stores them; borrowed where the forms agree.
///
/// # Errors
/// [`Error::Limit`] naming tensor, position and value of a 64-bit integer that does not fit 32 bits.
pub fn to_device<'a>(name: &str, tensor: &'a Tensor, f16: bool) -> Result<Cow<'a, [u8]>> {
    elements_to_device(name, tensor.dtype(), tensor.bytes(), 0..tensor.len(), f16)
}

/// A part of a tensor as the device stores it: `bytes` holds the elements numbered `elements`.
///
/// # Errors
/// As [`to_device`].
pub fn elements_to_device<'a>(
    name: &str,
    dtype: DType,
    bytes: &'a [u8],
    elements: std::ops::Range<usize>,
    f16: bool,
) -> Result<Cow<'a, [u8]>> {
    let words = |f: &mut dyn FnMut(usize, Value) -> Result<[u8; 4]>| -> Result<Cow<'a, [u8]>> {
        let mut out = Vec::with_capacity(elements.len() * 4);
        for (i, number) in elements.clone().enumerate() {
            let value = read_element(dtype, bytes, i)
                .ok_or_else(|| Error::limit(name, format!("{dtype} has no form on the device")))?;
            out.extend(f(number, value)?);
        }
        Ok(Cow::Owned(out))
    };
    let too_wide = |i: usize, v: String| {
        Error::limit(name, format!("element {i} is {v}, and the device holds {dtype} in 32 bits"))
    };
    match (dtype, storage_type(dtype, f16)) {
        (DType::F32 | DType::I32 | DType::U32, _) | (DType::F16, "f16") => Ok(Cow::Borrowed(bytes)),
        (DType::U64, _) => words(&mut |i, v| {
            let v = v.to_i64() as u64;
            u32::try_from(v).map(u32::to_le_bytes).map_err(|_| too_wide(i, v.to_string()))
        }),
        (_, "i32") => words(&mut |i, v| {
            let v = v.to_i64();
            i32::try_from(v).map(i32::to_le_bytes).map_err(|_| too_wide(i, v.to_string()))
        }),
        (_, "u32") => words(&mut |_, v| Ok((v.to_i64() as u32).to_le_bytes())),
        _ => words(&mut |_, v| Ok((v.to_f64() as f32).to_le_bytes())),
    }
}

/// A tensor from the device's form of its elements; `bytes` may go on after the last.
///
/// # Errors
/// [`Error::Limit`] for dtypes without a form on the device.
pub fn from_device(name: &str, dtype: DType, shape: &[usize], bytes: Vec<u8>, f16: bool) -> Result<Tensor> {
    Tensor::new(dtype, shape, elements_from_device(name, dtype, shape.iter().product(), bytes, f16)?)
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
    f16: bool,
) -> Result<Vec<u8>> {
    let stored = match (dtype, storage_type(dtype, f16)) {
        (DType::F32 | DType::I32 | DType::U32, _) | (DType::F16, "f16") => {
            bytes.truncate(dtype.size_bytes(len));
            return Ok(bytes);
        }
        (_, "i32") => DType::I32,
        (_, "u32") => DType::U32,
        _ => DType::F32,
    };
    let mut out = Vec::with_capacity(dtype.size_bytes(len));
    for i in 0..len {
        let value = read_element(stored, &bytes, i);
        if !value.is_some_and(|v| write_element(dtype, i, v, &mut out)) {
            return Err(Error::limit(name, format!("{dtype} cannot be read back from the device")));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int64_beyond_32_bits_is_refused_with_its_place() {
        let tensor = Tensor::from_slice(&[2], &[1i64, 1 << 40]).unwrap();
        let error = to_device("ids", &tensor, true).unwrap_err().to_string();
        assert_eq!(error, "ids: element 1 is 1099511627776, and the device holds int64 in 32 bits");
    }

    #[test]
    fn a_part_is_named_by_the_elements_of_the_whole() {
        let bytes = [0u8; 8].into_iter().chain((1i64 << 40).to_le_bytes()).collect::<Vec<_>>();
        let error = elements_to_device("ids", DType::I64, &bytes, 100..102, true).unwrap_err().to_string();
        assert_eq!(error, "ids: element 101 is 1099511627776, and the device holds int64 in 32 bits");
    }

    #[test]
    fn round_trips() {
        let tensors = [
            Tensor::from_slice(&[3], &[-1i64, 0, 7]).unwrap(),
            Tensor::from_slice(&[3], &[true, false, true]).unwrap(),
            Tensor::from_slice(&[2], &[-3i8, 100]).unwrap(),
            Tensor::from_slice(&[2], &[half::f16::from_f32(1.5), half::f16::NEG_INFINITY]).unwrap(),
            Tensor::from_slice(&[2], &[1.5f64, -2.0]).unwrap(),
        ];
        for tensor in tensors {
            for f16 in [false, true] {
                let device = to_device("t", &tensor, f16).unwrap().into_owned();
                let back = from_device("t", tensor.dtype(), tensor.shape(), device, f16).unwrap();
                assert_eq!(back, tensor, "{tensor:?} f16={f16}");
            }
        }
    }
}
