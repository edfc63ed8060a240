//! Host tensors.

use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};

use super::DType;
use crate::error::{Error, Result};

/// Where the elements of a tensor are that is not in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file, as the model calls it.
    pub file: Arc<str>,
    /// Where in it they begin.
    pub offset_bytes: u64,
    /// How much of it they take.
    pub len_bytes: u64,
}

/// A tensor in host memory: dtype, shape, and the elements in row-major order, little-endian.
/// Bools take a byte each; 2- and 4-bit types are packed, first element in the low bits.
/// Cloning shares the data. The elements may also be known by their [`Place`] alone, where memory is scarce: such a
/// tensor can be planned with and uploaded, and shows no elements.
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
    /// `None` where the elements are in `data`, which is empty else.
    place: Option<Place>,
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
        let wanted = wanted_bytes(dtype, shape)?;
        if data.len() != wanted {
            return Err(Error::Tensor(format!(
                "{dtype} of shape {shape:?} wants {wanted} bytes, got {}",
                data.len()
            )));
        }
        Ok(Tensor { dtype, shape: shape.to_vec(), data, place: None })
    }

    /// A tensor whose elements are elsewhere.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn elsewhere(dtype: DType, shape: &[usize], place: Place) -> Result<Self> {
        let wanted = wanted_bytes(dtype, shape)?;
        if place.len_bytes != wanted as u64 {
            return Err(Error::Tensor(format!(
                "{dtype} of shape {shape:?} wants {wanted} bytes, got {}",
                place.len_bytes
            )));
        }
        Ok(Tensor { dtype, shape: shape.to_vec(), data: Bytes::new(), place: Some(place) })
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

    /// Where the elements are, if not in memory.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// The elements as bytes; none where they are elsewhere.
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
        if let Some(place) = &self.place {
            return Err(Error::Tensor(format!("its elements are in {:?}, not in memory", place.file)));
        }
        Ok(T::read(&self.data))
    }

    /// The same elements under another shape of the same size.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the sizes differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        self.view(self.dtype, shape)
    }

    /// The same bits as elements of another dtype and shape.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the sizes differ.
    pub fn view(&self, dtype: DType, shape: &[usize]) -> Result<Self> {
        match &self.place {
            Some(place) => Tensor::elsewhere(dtype, shape, place.clone()),
            None => Tensor::new(dtype, shape, self.data.clone()),
        }
    }
}

/// Bytes of a tensor.
fn wanted_bytes(dtype: DType, shape: &[usize]) -> Result<usize> {
    if dtype == DType::String {
        return Err(Error::Tensor("string tensors have no numeric data".into()));
    }
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|len| len.checked_mul(dtype.bits().max(1)).is_some())
        .map(|len| dtype.size_bytes(len))
        .ok_or_else(|| Error::Tensor(format!("shape {shape:?} has more elements than fit in memory")))
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            None => write!(f, "Tensor({} {:?}, {} bytes)", self.dtype, self.shape, self.data.len()),
            Some(place) => write!(f, "Tensor({} {:?}, in {:?})", self.dtype, self.shape, place.file),
        }
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
    fn elements_elsewhere_are_known_by_their_place() {
        let place = Place { file: "weights.bin".into(), offset_bytes: 64, len_bytes: 24 };
        let t = Tensor::elsewhere(DType::F32, &[2, 3], place.clone()).unwrap();
        assert_eq!(t.reshape(&[6]).unwrap().place(), Some(&place));
        assert_eq!(t.view(DType::I64, &[3]).unwrap().dtype(), DType::I64);
        assert!(t.bytes().is_empty());
        assert_eq!(
            t.to_vec::<f32>().unwrap_err().to_string(),
            "tensor: its elements are in \"weights.bin\", not in memory"
        );
        let error = Tensor::elsewhere(DType::F32, &[2], place).unwrap_err().to_string();
        assert_eq!(error, "tensor: float32 of shape [2] wants 8 bytes, got 24");
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
