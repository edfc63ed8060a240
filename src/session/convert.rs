//! Elements between their ONNX form and their form in device memory (see `kernel::storage_type`).

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::expr::{Value, read_element, write_element};
use crate::kernel::storage_type;
use crate::tensor::{DType, Tensor};

/// The elements as the device stores them; borrowed where the forms agree.
///
/// # Errors
/// [`Error::Limit`] naming tensor, position and value of a 64-bit integer that does not fit 32 bits.
pub fn to_device<'a>(name: &str, tensor: &'a Tensor, f16: bool) -> Result<Cow<'a, [u8]>> {
    let bytes: &[u8] = tensor.bytes();
    let words = |f: &mut dyn FnMut(usize, Value) -> Result<[u8; 4]>| -> Result<Cow<'a, [u8]>> {
        let mut out = Vec::with_capacity(tensor.len() * 4);
        for i in 0..tensor.len() {
            let value = read_element(tensor.dtype(), bytes, i)
                .ok_or_else(|| Error::limit(name, format!("{} has no form on the device", tensor.dtype())))?;
            out.extend(f(i, value)?);
        }
        Ok(Cow::Owned(out))
    };
    let too_wide = |i: usize, v: String| {
        let dtype = tensor.dtype();
        Error::limit(name, format!("element {i} is {v}, and the device holds {dtype} in 32 bits"))
    };
    match (tensor.dtype(), storage_type(tensor.dtype(), f16)) {
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

/// A tensor from the device's form of its elements.
///
/// # Errors
/// [`Error::Limit`] for dtypes without a form on the device.
pub fn from_device(name: &str, dtype: DType, shape: &[usize], bytes: Vec<u8>, f16: bool) -> Result<Tensor> {
    let stored = match (dtype, storage_type(dtype, f16)) {
        (DType::F32 | DType::I32 | DType::U32, _) | (DType::F16, "f16") => {
            return Tensor::new(dtype, shape, bytes);
        }
        (_, "i32") => DType::I32,
        (_, "u32") => DType::U32,
        _ => DType::F32,
    };
    let len: usize = shape.iter().product();
    let mut out = Vec::with_capacity(dtype.size_bytes(len));
    for i in 0..len {
        let value = read_element(stored, &bytes, i);
        if !value.is_some_and(|v| write_element(dtype, i, v, &mut out)) {
            return Err(Error::limit(name, format!("{dtype} cannot be read back from the device")));
        }
    }
    Tensor::new(dtype, shape, out)
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
