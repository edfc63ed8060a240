//! Tilewright runs neural networks on any GPU that speaks WebGPU.

pub mod error;
pub mod expr;
#[cfg(not(target_arch = "wasm32"))]
pub mod gpu;
pub mod graph;
pub mod ir;
pub mod kernel;
pub mod onnx;
pub mod ops;
pub mod plan;
pub mod tensor;
pub mod wgsl;

pub use error::{Error, Result};
pub use tensor::{DType, Element, Tensor};
