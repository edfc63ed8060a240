//! Dtypes and host tensors: plain data in row-major order, little-endian.

mod dtype;
mod host;

pub use dtype::DType;
pub use host::{Element, Place, Tensor};
