//! Host tensors.

use bytes::Bytes;
use half::{bf16, f16};

use super::DType;
use crate::error::{Error, Result};

/// A tensor in host memory: dtype, shape, and the elements in row-major order, little-endian.
/// Bools take a byte each; 2- and 4-bit types are packed, first element in the low bits.
/// Cloning shares the data.
///
/// ```
/// use tilewright::{DType, Tensor};
/// let t = Tensor::from_slice(&[2, 2], &[1.0f32, 2.0, 3.0, 4.0])?;
/// assert_eq!(t.dtype(), DType::F32);
/// assert_eq!(t.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
/// # Ok::<(), tilewright::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

/// A Rust type that is the element of a [`Tensor`].
pub trait Element: Copy + Send + Sync + 'static {
    /// The dtype.
    const DTYPE: DType;
    /// The element as little-endian bytes, appended.
    #[doc(hidden)]
    fn write(values: &[Self], out: &mut Vec<u8>);
    /// The elements of little-endian bytes.
    #[doc(hidden)]
    fn read(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! elements {
    ($($ty:ty => $dtype:ident),*) => {$(
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            fn write(values: &[Self], out: &mut Vec<u8>) {
                values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
            }
            fn read(bytes: &[u8]) -> Vec<Self> {
                bytes.as_chunks().0.iter().map(|c| <$ty>::from_le_bytes(*c)).collect()
            }
        }
    )*};
}
elements!(f32 => F32, f64 => F64, f16 => F16, bf16 => BF16, u8 => U8, i8 => I8, u16 => U16, i16 => I16,
          u32 => U32, i32 => I32, u64 => U64, i64 => I64);

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn write(values: &[Self], out: &mut Vec<u8>) {
        out.extend(values.iter().map(|&v| v as u8));
    }
    fn read(bytes: &[u8]) -> Vec<Self> {
        bytes.iter().map(|&b| b != 0).collect()
    }
}

impl Tensor {
    /// A tensor over `data`, which must hold exactly the elements of `shape`.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the length differs or the shape's size overflows.
    pub fn new(dtype: DType, shape: &[usize], data: impl Into<Bytes>) -> Result<Self> {
        let data = data.into();
        let len = shape
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d))
            .filter(|len| len.checked_mul(dtype.bits().max(1)).is_some())
            .ok_or_else(|| Error::Tensor(format!("shape {shape:?} has more elements than fit in memory")))?;
        if dtype == DType::String {
            return Err(Error::Tensor("string tensors have no numeric data".into()));
        }
        if data.len() != dtype.size_bytes(len) {
            return Err(Error::Tensor(format!(
                "{dtype} of shape {shape:?} wants {} bytes, got {}",
                dtype.size_bytes(len),
                data.len()
            )));
        }
        Ok(Tensor { dtype, shape: shape.to_vec(), data })
    }

    /// A tensor with a copy of `values`.
    ///
    /// # Errors
    /// [`Error::Tensor`] when `shape` does not have `values.len()` elements.
    pub fn from_slice<T: Element>(shape: &[usize], values: &[T]) -> Result<Self> {
        let mut data = Vec::with_capacity(T::DTYPE.size_bytes(values.len()));
        T::write(values, &mut data);
        Tensor::new(T::DTYPE, shape, data)
    }

    /// The dtype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// The elements as a vector.
    ///
    /// # Errors
    /// [`Error::Tensor`] when `T` is not the tensor's dtype.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype {
            return Err(Error::Tensor(format!("asked for {} elements of a {} tensor", T::DTYPE, self.dtype)));
        }
        Ok(T::read(&self.data))
    }

    /// The same elements under another shape of the same size.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the sizes differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        Tensor::new(self.dtype, shape, self.data.clone())
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({} {:?}, {} bytes)", self.dtype, self.shape, self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_length_is_refused_with_both_figures() {
        let error = Tensor::from_slice(&[2, 3], &[1i64; 5]).unwrap_err().to_string();
        assert_eq!(error, "tensor: int64 of shape [2, 3] wants 48 bytes, got 40");
    }

    #[test]
    fn an_overflowing_shape_is_refused() {
        assert!(Tensor::new(DType::F32, &[usize::MAX, 2], Vec::new()).is_err());
        assert!(Tensor::new(DType::F32, &[usize::MAX / 16], Vec::new()).is_err());
    }

    #[test]
    fn the_wrong_element_type_is_refused() {
        let t = Tensor::from_slice(&[1], &[1.0f32]).unwrap();
        assert_eq!(
            t.to_vec::<i32>().unwrap_err().to_string(),
            "tensor: asked for int32 elements of a float32 tensor"
        );
    }
}
