//! `SparseTensorProto` to [`Tensor`]: made dense when the model is read.

use super::External;
use super::proto::{SparseTensorProto, TensorProto};
use super::tensor::{self, Fault, dim_of};
use crate::error::Error;
use crate::tensor::{DType, Tensor};

/// Bytes that a tensor may have when it is dense.
const MOST_BYTES: usize = 1 << 30;

/// The dense tensor of `proto`: `values` where `indices` say, which are offsets `[n]` or places `[n, rank]`, in ascending
/// order, and 0 elsewhere. `place` names it in messages.
pub(super) fn read(place: &str, proto: SparseTensorProto, external: &dyn External) -> Result<Tensor, Fault> {
    let wrong = |message: String| Fault::Wrong(Error::model(place, message));
    let part = |name: &str, part: Option<TensorProto>| {
        let part = part.ok_or_else(|| wrong(format!("is sparse, without {name}")))?;
        let tensor = tensor::read(&format!("{place} {name}"), part, external)?;
        match tensor.place() {
            Some(_) => Err(Fault::NoData(format!("{name} of sparse {place}"))),
            None => Ok(tensor),
        }
    };
    let (values, indices) = (part("values", proto.values)?, part("indices", proto.indices)?);
    let shape = proto.dims.iter().enumerate().map(|(axis, &dim)| dim_of(place, axis, dim));
    let shape = shape.collect::<Result<Vec<usize>, _>>().map_err(Fault::Wrong)?;
    let dtype = values.dtype();
    let wide =
        || wrong(format!("is sparse, and {dtype} {shape:?} has more than {MOST_BYTES} bytes when dense"));
    let len = shape.iter().try_fold(1usize, |len, &dim| len.checked_mul(dim)).ok_or_else(wide)?;
    if len.checked_mul(dtype.bits()).is_none_or(|bits| bits.div_ceil(8) > MOST_BYTES) {
        return Err(wide());
    }
    let linear = match (values.shape(), indices.shape()) {
        (&[n], &[m]) if n == m => true,
        (&[n], &[m, rank]) if n == m && rank == shape.len() => false,
        (values, indices) => {
            let rank = shape.len();
            let wanted = format!("wants values [n] and indices [n] or [n, {rank}]");
            return Err(wrong(format!("{wanted}, got {values:?} and {indices:?}")));
        }
    };
    let numbers = indices.to_vec::<i64>().map_err(|error| wrong(format!("indices: {error}")))?;
    let extents = if linear { std::slice::from_ref(&len) } else { &shape };
    let mut dense = vec![0u8; dtype.size_bytes(len)];
    let mut next = 0;
    for i in 0..values.len() {
        let at = &numbers[i * extents.len()..][..extents.len()];
        let offset = at.iter().zip(extents).try_fold(0, |offset, (&at, &extent)| {
            let at = usize::try_from(at).ok().filter(|&at| at < extent)?;
            Some(offset * extent + at)
        });
        let offset =
            offset.ok_or_else(|| wrong(format!("index {i} wants to be within {extents:?}, got {at:?}")))?;
        if offset < next {
            return Err(wrong(format!("indices want an ascending order, got {at:?} at {i}")));
        }
        next = offset + 1;
        put(dtype, values.bytes(), i, &mut dense, offset);
    }
    Tensor::new(dtype, &shape, dense).map_err(|error| wrong(error.to_string()))
}

/// Element `from` of `source` as element `to` of `target`, which is 0 there.
fn put(dtype: DType, source: &[u8], from: usize, target: &mut [u8], to: usize) {
    let bits = dtype.bits();
    if bits >= 8 {
        let size = bits / 8;
        target[to * size..][..size].copy_from_slice(&source[from * size..][..size]);
    } else {
        let per_byte = 8 / bits;
        let code = source[from / per_byte] >> (from % per_byte * bits) & (0xff >> (8 - bits));
        target[to / per_byte] |= code << (to % per_byte * bits);
    }
}
