//! `TensorProto` to [`Tensor`]: the data is shared where it already has the tensor's layout.

use bytes::Bytes;

use super::External;
use super::proto::{LOCATION_DEFAULT, LOCATION_EXTERNAL, TensorProto};
use crate::error::Error;
use crate::tensor::{DType, Place, Tensor};

/// Why a `TensorProto` gives no tensor.
pub(super) enum Fault {
    /// A valid tensor that this crate cannot hold; one sentence.
    Unsupported(String),
    /// Shape and dtype are there, the data is not; the tensor for messages.
    NoData(String),
    /// Damaged.
    Wrong(Error),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        match fault {
            Fault::Unsupported(item) => Error::Unsupported { items: vec![item] },
            Fault::NoData(tensor) => Error::model(tensor, "has no data"),
            Fault::Wrong(error) => error,
        }
    }
}

/// The dtype of ONNX's number, or what is wrong with it.
///
/// # Errors
/// [`Fault::Unsupported`] for the 6-bit floats, [`Fault::Wrong`] for a number ONNX does not define.
pub(super) fn dtype_of(place: &str, number: i32) -> Result<DType, Fault> {
    match (DType::from_onnx(number), number) {
        (Some(dtype), _) => Ok(dtype),
        (None, 27) => Err(Fault::Unsupported(format!("{place} has dtype float6e2m3"))),
        (None, 28) => Err(Fault::Unsupported(format!("{place} has dtype float6e3m2"))),
        (None, 0) => Err(Fault::Wrong(Error::model(place, "declares no dtype"))),
        (None, _) => {
            Err(Fault::Wrong(Error::model(place, format!("dtype number wants 1 to 28, got {number}"))))
        }
    }
}

/// A size from the file: not negative, and addressable on this machine.
pub(super) fn dim_of(place: &str, axis: usize, dim: i64) -> Result<usize, Error> {
    usize::try_from(dim)
        .map_err(|_| Error::model(place, format!("dimension {axis} wants 0 to {}, got {dim}", isize::MAX)))
}

/// The tensor of `proto`. `place` names it in messages.
pub(super) fn read(place: &str, mut proto: TensorProto, external: &dyn External) -> Result<Tensor, Fault> {
    let wrong = |message: String| Fault::Wrong(Error::model(place, message));
    let dtype = dtype_of(place, proto.data_type)?;
    if dtype == DType::String {
        return Err(Fault::Unsupported(format!("{place} is a tensor of strings")));
    }
    if proto.segment.is_some() {
        return Err(Fault::Unsupported(format!("{place} is stored in segments")));
    }
    let mut shape = Vec::with_capacity(proto.dims.len());
    for (axis, &dim) in proto.dims.iter().enumerate() {
        shape.push(dim_of(place, axis, dim).map_err(Fault::Wrong)?);
    }
    let wanted_bytes = shape
        .iter()
        .try_fold(1usize, |len, &dim| len.checked_mul(dim))
        .filter(|len| len.checked_mul(dtype.bits()).is_some())
        .map(|len| dtype.size_bytes(len))
        .ok_or_else(|| wrong(format!("shape {shape:?} has more elements than fit in memory")))?;

    let (data, field) = match proto.data_location {
        LOCATION_DEFAULT => match stored_field(place, &proto, dtype)? {
            None if wanted_bytes > 0 => return Err(Fault::NoData(format!("{place} ({dtype} {shape:?})"))),
            None => (Bytes::new(), "no field"),
            Some("raw_data") => (proto.raw_data, "raw_data"),
            Some(field) => (typed_data(place, &mut proto, dtype, field)?, field),
        },
        LOCATION_EXTERNAL => {
            match external_data(place, &proto, wanted_bytes, external).map_err(Fault::Wrong)? {
                Data::Held(bytes) => (bytes, "external data"),
                Data::Elsewhere(at) => {
                    return Tensor::elsewhere(dtype, &shape, at).map_err(|error| wrong(error.to_string()));
                }
            }
        }
        other => return Err(wrong(format!("data_location wants 0 or 1, got {other}"))),
    };
    if data.len() != wanted_bytes {
        return Err(wrong(format!(
            "{dtype} of shape {shape:?} wants {wanted_bytes} bytes, got {} in {field}",
            data.len()
        )));
    }
    let data = if dtype == DType::Bool { zeros_and_ones(data) } else { data };
    Tensor::new(dtype, &shape, data).map_err(|error| wrong(error.to_string()))
}

/// The field that ONNX stores values of `dtype` in when not in `raw_data`.
fn typed_field(dtype: DType) -> &'static str {
    use DType::*;
    match dtype {
        F32 | Complex64 => "float_data",
        F64 | Complex128 => "double_data",
        I64 => "int64_data",
        U32 | U64 => "uint64_data",
        String => "string_data",
        I32 | I16 | U16 | F16 | BF16 | I8 | U8 | Bool | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ
        | F8E8M0 | F4E2M1 | U4 | I4 | U2 | I2 => "int32_data",
    }
}

/// The one field that holds data, `None` where none does.
fn stored_field(place: &str, proto: &TensorProto, dtype: DType) -> Result<Option<&'static str>, Fault> {
    let fields = [
        ("raw_data", proto.raw_data.is_empty()),
        ("float_data", proto.float_data.is_empty()),
        ("int32_data", proto.int32_data.is_empty()),
        ("int64_data", proto.int64_data.is_empty()),
        ("double_data", proto.double_data.is_empty()),
        ("uint64_data", proto.uint64_data.is_empty()),
        ("string_data", proto.string_data.is_empty()),
    ];
    let filled: Vec<_> = fields.into_iter().filter(|(_, empty)| !empty).map(|(name, _)| name).collect();
    let wanted = typed_field(dtype);
    match filled[..] {
        [] => Ok(None),
        [field] if field == "raw_data" || field == wanted => Ok(Some(field)),
        _ => Err(Fault::Wrong(Error::model(
            place,
            format!("{dtype} wants its data in raw_data or {wanted}, got it in {}", filled.join(" and ")),
        ))),
    }
}

/// The typed field's values in the tensor's layout.
fn typed_data(place: &str, proto: &mut TensorProto, dtype: DType, field: &str) -> Result<Bytes, Fault> {
    use DType::*;
    let narrow_i32 = |values: &[i32], size_bytes, low, high| {
        narrow(values.iter().map(|&v| i64::from(v)), size_bytes, low, high)
    };
    let ints = &proto.int32_data;
    let data = match dtype {
        F32 | Complex64 => Ok(shared(std::mem::take(&mut proto.float_data))),
        F64 | Complex128 => Ok(shared(std::mem::take(&mut proto.double_data))),
        I64 => Ok(shared(std::mem::take(&mut proto.int64_data))),
        U64 => Ok(shared(std::mem::take(&mut proto.uint64_data))),
        I32 => Ok(shared(std::mem::take(&mut proto.int32_data))),
        U32 => {
            let values = proto.uint64_data.iter().map(|&v| i64::try_from(v).unwrap_or(i64::MAX));
            narrow(values, 4, 0, u32::MAX.into())
        }
        I16 => narrow_i32(ints, 2, i16::MIN.into(), i16::MAX.into()),
        U16 => narrow_i32(ints, 2, 0, u16::MAX.into()),
        I8 => narrow_i32(ints, 1, i8::MIN.into(), i8::MAX.into()),
        U8 => narrow_i32(ints, 1, 0, u8::MAX.into()),
        Bool => Ok(ints.iter().map(|&v| u8::from(v != 0)).collect()),
        // Bit patterns, which some writers sign-extend.
        F16 | BF16 => narrow_i32(ints, 2, i16::MIN.into(), u16::MAX.into()),
        // Bit patterns too; of the 4- and 2-bit types, one value a packed byte.
        F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1 | U4 | I4 | U2 | I2 => {
            narrow_i32(ints, 1, i8::MIN.into(), u8::MAX.into())
        }
        String => Ok(Bytes::new()), // refused before
    };
    data.map_err(|message| Fault::Wrong(Error::model(place, format!("{dtype} in {field}: {message}"))))
}

/// The low `size_bytes` bytes of each value; a value outside `low..=high` is an error.
fn narrow(
    values: impl ExactSizeIterator<Item = i64>,
    size_bytes: usize,
    low: i64,
    high: i64,
) -> Result<Bytes, String> {
    let mut out = Vec::with_capacity(values.len() * size_bytes);
    for (index, value) in values.enumerate() {
        if value < low || value > high {
            return Err(format!("element {index} wants {low} to {high}, got {value}"));
        }
        out.extend_from_slice(&value.to_le_bytes()[..size_bytes]);
    }
    Ok(out.into())
}

/// The vector's own memory as little-endian bytes.
#[cfg(target_endian = "little")]
fn shared<T: bytemuck::NoUninit + Send + 'static>(values: Vec<T>) -> Bytes {
    struct Owner<T>(Vec<T>);
    impl<T: bytemuck::NoUninit> AsRef<[u8]> for Owner<T> {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    Bytes::from_owner(Owner(values))
}

/// The values as little-endian bytes.
#[cfg(target_endian = "big")]
fn shared<T: crate::tensor::Element>(values: Vec<T>) -> Bytes {
    let mut out = Vec::new();
    T::write(&values, &mut out);
    out.into()
}

/// Bools as ONNX wants them, 0 or 1; the same bytes if they are.
fn zeros_and_ones(data: Bytes) -> Bytes {
    if data.iter().all(|&b| b <= 1) { data } else { data.iter().map(|&b| u8::from(b != 0)).collect() }
}

/// The elements of a tensor, or where they are.
enum Data {
    Held(Bytes),
    Elsewhere(Place),
}

/// The tensor's range of its external file.
fn external_data(
    place: &str,
    proto: &TensorProto,
    wanted_bytes: usize,
    external: &dyn External,
) -> Result<Data, Error> {
    let value_of = |key: &str| proto.external_data.iter().find(|p| p.key == key).map(|p| p.value.as_str());
    let number_of = |key: &str| match value_of(key) {
        None => Ok(None),
        Some(text) => text.trim().parse::<u64>().map(Some).map_err(|_| {
            Error::model(place, format!("external data: {key} wants a number of bytes, got {text:?}"))
        }),
    };
    let location = match value_of("location") {
        None | Some("") => return Err(Error::model(place, "external data: no location is given")),
        Some(location) => location,
    };
    let offset_bytes = number_of("offset")?.unwrap_or(0);
    let len_bytes = number_of("length")?.unwrap_or(wanted_bytes as u64);
    if let Some(place) = external.place(location, offset_bytes, len_bytes) {
        return Ok(Data::Elsewhere(place));
    }
    let file = external
        .file(location)
        .map_err(|error| Error::model(place, format!("external data in {location:?}: {error}")))?;
    // Where the sum fits the file, both figures fit a usize.
    match offset_bytes.checked_add(len_bytes) {
        Some(end) if end <= file.len() as u64 => {
            Ok(Data::Held(file.slice(offset_bytes as usize..end as usize)))
        }
        _ => Err(Error::model(
            place,
            format!(
                "external data in {location:?}: wants {len_bytes} bytes from byte {offset_bytes} on, \
                 got a file of {} bytes",
                file.len()
            ),
        )),
    }
}
