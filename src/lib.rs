//! Tilewright runs neural networks on any GPU that speaks WebGPU: an ONNX file in, WGSL kernels written for
//! this model and this device, outputs out.
//!
//! ```
//! use tilewright::{Session, SessionOptions, Tensor};
//! let session = Session::load("examples/data/mlp.onnx", &SessionOptions::default())?;
//! let x = Tensor::from_slice(&[2, 4], &[1.0f32, 0.0, -1.0, 2.0, 0.5, 0.5, 0.5, 0.5])?;
//! let outputs = session.run(&[("x", &x)])?;
//! let probabilities = outputs["probabilities"].to_vec::<f32>()?;
//! assert_eq!(outputs["probabilities"].shape(), [2, 3]);
//! assert!((probabilities[..3].iter().sum::<f32>() - 1.0).abs() < 1e-5);
//! # Ok::<(), tilewright::Error>(())
//! ```
//!
//! # One flow, one direction
//!
//! ```text
//! bytes -> onnx -> Graph -> ops -> Program -> plan (fold, fuse, place) -> Plan: kernel steps over tensors
//!       each kernel: KernelSpec (what) + Schedule (how) -> wgsl -> source text
//!       gpu: pipeline -> dispatch -> readback
//! ```
//!
//! Everything up to the WGSL text is plain data and needs no GPU; only [`gpu`] knows a graphics API.
//!
//! | module | what it holds |
//! |---|---|
//! | [`error`] | the one error type: place, what was found, what was wanted |
//! | [`tensor`] | dtypes and host tensors |
//! | [`expr`] | scalar and index expressions: simplify, evaluate on the CPU, print as WGSL |
//! | [`graph`] | a model as its file says it |
//! | [`onnx`] | bytes to a graph |
//! | [`ir`] | the tensor program: every value by one of a few forms of definition |
//! | [`ops`] | one row per operator: how it becomes values of the program |
//! | [`kernel`] | what to compute, how, and what the device allows |
//! | [`plan`] | what becomes a kernel, what is folded into it, where tensors lie |
//! | [`wgsl`] | a kernel as text |
//! | [`commands`] | what a run does with memory, as plain data |
//! | [`model`] | which plan serves a run |
//! | [`gpu`] | adapters, buffers, pipelines, dispatch, readback |
//! | [`tune`] | which schedule: what to measure next, what was learned |
//!
//! [`Session`] strings them together.
//!
//! # Traces
//!
//! The library tells what it does through [`tracing`] events of level `debug`. A program listens with a subscriber of
//! its choice; the `tilewright` command prints what the environment's `TILEWRIGHT_TRACE` names, as
//! `TILEWRIGHT_TRACE=plan,time tilewright run model.onnx`.
//!
//! | `TILEWRIGHT_TRACE` | target | what |
//! |---|---|---|
//! | `plan` | `tilewright::plan` | each plan as it is made: steps, tensors, sizes that must agree |
//! | `wgsl` | `tilewright::wgsl` | the text of each kernel as it is rendered |
//! | `time` | `tilewright::time` | after each run, time, GFLOP/s and GB/s of each kernel; runs everything twice |
//!
//! Warnings, such as a stored schedule that does not run here, have the target of their module.

pub mod commands;
pub mod error;
pub mod expr;
#[cfg(not(target_arch = "wasm32"))]
pub mod gpu;
pub mod graph;
pub mod ir;
pub mod kernel;
pub mod model;
pub mod onnx;
pub mod ops;
pub mod plan;
#[cfg(not(target_arch = "wasm32"))]
mod session;
pub mod tensor;
pub mod tune;
#[cfg(target_arch = "wasm32")]
pub mod web;
pub mod wgsl;

pub use error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
pub use gpu::{AdapterChoice, AdapterInfo, adapters};
#[cfg(not(target_arch = "wasm32"))]
pub use session::{
    DeviceTensor, Input, KernelText, ModelSource, Outputs, Progress, Request, Session, SessionOptions, Stage,
    StepTime, TuneMode, TuneOptions, TuneProgress, TuneReport, TuneStatus, TunedKernel,
};
pub use tensor::{DType, Element, Tensor};

/// The README's example is compiled and run with the documentation's tests.
#[cfg(all(doctest, not(target_arch = "wasm32")))]
#[doc = include_str!("../README.md")]
struct Readme;
