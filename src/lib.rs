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
#[cfg(not(target_arch = "wasm32"))]
mod session;
pub mod tensor;
pub mod wgsl;

pub use error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
pub use gpu::{AdapterChoice, AdapterInfo, adapters};
#[cfg(not(target_arch = "wasm32"))]
pub use session::{KernelText, ModelSource, Outputs, Progress, Session, SessionOptions, Stage, StepTime};
pub use tensor::{DType, Element, Tensor};
