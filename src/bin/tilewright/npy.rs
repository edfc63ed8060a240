//! `.npy` files to tensors and back. `npyz` reads and writes the header; the elements are taken as bytes.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write as _};
use std::path::Path;

use npyz::{Endianness, Order, TypeChar, WriterBuilder as _};
use tilewright::expr::{read_element, write_element};
use tilewright::{DType, Error, Tensor};

use crate::failure::{Failure, Result};

/// The dtypes of NumPy that are ONNX's: kind, bytes, dtype.
const NUMPY: &[(TypeChar, u64, DType)] = &[
    (TypeChar::Bool, 1, DType::Bool),
    (TypeChar::Int, 1, DType::I8),
    (TypeChar::Int, 2, DType::I16),
    (TypeChar::Int, 4, DType::I32),
    (TypeChar::Int, 8, DType::I64),
    (TypeChar::Uint, 1, DType::U8),
    (TypeChar::Uint, 2, DType::U16),
    (TypeChar::Uint, 4, DType::U32),
    (TypeChar::Uint, 8, DType::U64),
    (TypeChar::Float, 2, DType::F16),
    (TypeChar::Float, 4, DType::F32),
    (TypeChar::Float, 8, DType::F64),
];

/// The dtype that stands for `dtype` in a file: itself, or one that holds all its values.
fn file_dtype(dtype: DType) -> Option<DType> {
    if NUMPY.iter().any(|row| row.2 == dtype) {
        return Some(dtype);
    }
    match dtype {
        DType::String | DType::Complex64 | DType::Complex128 => None,
        _ if dtype.is_float() => Some(DType::F32),
        _ if dtype.is_signed_int() => Some(DType::I8),
        _ => Some(DType::U8),
    }
}

/// A tensor, and what to tell about it.
pub struct Converted {
    /// The tensor.
    pub tensor: Tensor,
    /// The conversion there was, in a sentence.
    pub note: Option<String>,
}

fn file_error(path: &Path, message: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("{}: {message}", path.display()))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.to_path_buf();
    move |source| Error::Io { path: path.clone(), source }.into()
}

/// The tensor in a file, for an input of dtype `wanted`. Files in Fortran order and of either endianness are
/// read; where `.npy` has no such dtype, the elements are converted from the one that stands for it.
///
/// # Errors
/// A file that cannot be read, is no `.npy` file, is cut off, or has elements of a kind that no tensor has.
pub fn read(path: &Path, wanted: DType) -> Result<Converted> {
    let file = File::open(path).map_err(io_error(path))?;
    let bad = |error: io::Error| file_error(path, format!("not a .npy file: {error}"));
    let npy = npyz::NpyFile::new(BufReader::new(file)).map_err(bad)?;
    let descr = npy.dtype().descr();
    let no_tensor = || file_error(path, format!("elements of NumPy's type {descr} make no tensor"));
    let npyz::DType::Plain(element) = npy.dtype() else { return Err(no_tensor()) };
    let row = NUMPY.iter().find(|row| row.0 == element.type_char() && row.1 == element.size_field());
    let &(_, element_bytes, dtype) = row.ok_or_else(no_tensor)?;
    let too_large = || file_error(path, format!("shape {:?} is too large", npy.shape()));
    let dims = npy.shape().iter().map(|&d| usize::try_from(d)).collect::<std::result::Result<Vec<_>, _>>();
    let dims = dims.map_err(|_| too_large())?;
    let size_bytes =
        dims.iter().try_fold(element_bytes, |n, &d| n.checked_mul(d as u64)).ok_or_else(too_large)?;
    let order = npy.order();
    let mut data = Vec::new();
    npy.into_inner().take(size_bytes).read_to_end(&mut data).map_err(io_error(path))?;
    if data.len() as u64 != size_bytes {
        let message = format!("the file is cut off: {dims:?} wants {size_bytes} bytes, got {}", data.len());
        return Err(file_error(path, message));
    }
    if element.endianness() == Endianness::Big {
        data.chunks_exact_mut(element_bytes as usize).for_each(<[u8]>::reverse);
    }
    if order == Order::Fortran {
        data = row_major(&data, &dims, element_bytes as usize);
    }
    let tensor = Tensor::new(dtype, &dims, data)?;
    if wanted != dtype && file_dtype(wanted) == Some(dtype) {
        let note = format!("{}: {dtype} converted to {wanted}", path.display());
        return Ok(Converted { tensor: converted(&tensor, wanted)?, note: Some(note) });
    }
    Ok(Converted { tensor, note: None })
}

/// Elements in Fortran order, in which the first axis runs fastest, as they stand in row-major order.
fn row_major(data: &[u8], dims: &[usize], element_bytes: usize) -> Vec<u8> {
    let strides: Vec<usize> = dims
        .iter()
        .scan(1, |next, &dim| {
            let stride = *next;
            *next *= dim;
            Some(stride)
        })
        .collect();
    let mut out = Vec::with_capacity(data.len());
    for i in 0..data.len() / element_bytes {
        let (mut rest, mut from) = (i, 0);
        for (&dim, stride) in dims.iter().zip(&strides).rev() {
            from += rest % dim * stride;
            rest /= dim;
        }
        out.extend_from_slice(&data[from * element_bytes..(from + 1) * element_bytes]);
    }
    out
}

fn converted(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    let mut bytes = Vec::with_capacity(dtype.size_bytes(tensor.len()));
    for i in 0..tensor.len() {
        let value = read_element(tensor.dtype(), tensor.bytes(), i);
        if !value.is_some_and(|v| write_element(dtype, i, v, &mut bytes)) {
            return Err(Failure::Failed(format!("{} cannot be converted to {dtype}", tensor.dtype())));
        }
    }
    Ok(Tensor::new(dtype, tensor.shape(), bytes)?)
}

/// Write a tensor; gives a note where the file's dtype is another than the tensor's.
///
/// # Errors
/// A file that cannot be written, and dtypes without numbers.
pub fn write(path: &Path, tensor: &Tensor) -> Result<Option<String>> {
    let dtype = tensor.dtype();
    let form =
        file_dtype(dtype).ok_or_else(|| file_error(path, format!("{dtype} has no form in .npy files")))?;
    let note =
        (form != dtype).then(|| format!("{}: .npy files have no {dtype}, saved as {form}", path.display()));
    let stored = if form == dtype { tensor.clone() } else { converted(tensor, form)? };
    let row = NUMPY.iter().find(|row| row.2 == form);
    let &(kind, element_bytes, _) = row.ok_or_else(|| file_error(path, format!("no form for {form}")))?;
    let endianness = if element_bytes == 1 { '|' } else { '<' };
    let element = format!("{endianness}{}{element_bytes}", kind.to_str());
    let element = element.parse().map_err(|e| file_error(path, format!("{element}: {e}")))?;
    let shape: Vec<u64> = tensor.shape().iter().map(|&d| d as u64).collect();
    let save = || {
        let file = File::create(path)?;
        let options = npyz::WriteOptions::new_header_only().dtype(npyz::DType::Plain(element));
        let mut file = options.shape(&shape).writer(file).write_header_only()?;
        file.write_all(stored.bytes())?;
        file.flush()
    };
    save().map_err(io_error(path))?;
    Ok(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_is_turned() {
        // [[0, 1, 2], [3, 4, 5]] column by column.
        assert_eq!(row_major(&[0, 3, 1, 4, 2, 5], &[2, 3], 1), [0, 1, 2, 3, 4, 5]);
        assert_eq!(row_major(&[9, 8], &[], 2), [9, 8]);
        assert_eq!(row_major(&[], &[0, 3], 4), [0u8; 0]);
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.npy");
        let numbers = Tensor::from_slice(&[2, 2], &[1.0f32, -2.0, 0.5, 3.0]).unwrap();
        for dtype in (1..=26).filter_map(DType::from_onnx) {
            let Some(form) = file_dtype(dtype) else {
                assert!(matches!(dtype, DType::String | DType::Complex64 | DType::Complex128));
                continue;
            };
            let tensor = converted(&numbers, dtype).unwrap();
            let note = write(&path, &tensor).unwrap();
            assert_eq!(note.is_some(), form != dtype, "{dtype}");
            let back = read(&path, dtype).unwrap();
            assert_eq!(back.tensor, tensor, "{dtype}");
            assert_eq!(back.note.is_some(), form != dtype, "{dtype}");
        }
    }

    #[test]
    fn big_endian_and_fortran_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.npy");
        let mut file = File::create(&path).unwrap();
        let element = npyz::DType::Plain(">i2".parse().unwrap());
        let options = npyz::WriteOptions::new_header_only().dtype(element).order(Order::Fortran);
        options.shape(&[2, 3]).writer(&mut file).write_header_only().unwrap();
        file.write_all(&[0, 0, 0, 3, 0, 1, 0, 4, 0, 2, 0, 5]).unwrap();
        let want = Tensor::from_slice(&[2, 3], &[0i16, 1, 2, 3, 4, 5]).unwrap();
        assert_eq!(read(&path, DType::I16).unwrap().tensor, want);
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        let error = read(&path, DType::I16).err().unwrap().to_string();
        assert!(error.ends_with("the file is cut off: [2, 3] wants 12 bytes, got 11"), "{error}");
    }
}
