//! What crosses between core and host: JSON, and errors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::{Dim, ValueInfo};
use crate::kernel::{AdapterKind, Caps, CooperativeSize};
use crate::tensor::DType;
use crate::tune::Platform;
use crate::wgsl::{BindingKind, Shader};

/// The device, and what the user asked for.
#[derive(Deserialize)]
pub struct Options {
    pub limits: Limits,
    pub features: Vec<String>,
    pub cpu: bool,
    pub subgroup_size: [u32; 2],
    pub subgroup_matrices: Vec<CooperativeSize>,
    pub dims: BTreeMap<String, usize>,
    pub allow_f64_as_f32: bool,
    pub f16_sums: bool,
    pub adapter: String,
    pub driver: String,
    pub compiler: String,
}

/// WebGPU's own names.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    max_storage_buffer_binding_size: u64,
    max_buffer_size: u64,
    max_storage_buffers_per_shader_stage: u32,
    min_storage_buffer_offset_alignment: u32,
    min_uniform_buffer_offset_alignment: u32,
    max_compute_workgroup_size_x: u32,
    max_compute_workgroup_size_y: u32,
    max_compute_workgroup_size_z: u32,
    max_compute_invocations_per_workgroup: u32,
    max_compute_workgroup_storage_size: u32,
    max_compute_workgroups_per_dimension: u32,
}

impl Options {
    /// What the device allows.
    pub fn caps(&self) -> Caps {
        let (limits, has) = (&self.limits, |name: &str| self.features.iter().any(|f| f == name));
        Caps {
            max_storage_binding_bytes: limits.max_storage_buffer_binding_size & !3,
            max_buffer_bytes: limits.max_buffer_size & !3,
            max_storage_bindings: limits.max_storage_buffers_per_shader_stage,
            storage_offset_alignment: limits.min_storage_buffer_offset_alignment,
            uniform_offset_alignment: limits.min_uniform_buffer_offset_alignment,
            max_workgroup_size: [
                limits.max_compute_workgroup_size_x,
                limits.max_compute_workgroup_size_y,
                limits.max_compute_workgroup_size_z,
            ],
            max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            f16: has("shader-f16"),
            packed_dot: has("packed_4x8_integer_dot_product"),
            subgroups: has("subgroups"),
            subgroup_size: self.subgroup_size,
            timestamps: has("timestamp-query"),
            cpu: self.cpu,
            cooperative: self.subgroup_matrices.clone(),
            ..Caps::default()
        }
    }
}

impl Options {
    /// What tuning records are kept for.
    pub fn platform(&self) -> Platform {
        Platform {
            adapter: self.adapter.clone(),
            kind: if self.cpu { AdapterKind::Cpu } else { AdapterKind::Other },
            backend: "webgpu".into(),
            driver: self.driver.clone(),
            compiler: self.compiler.clone(),
        }
    }
}

/// An input or output as declared.
#[derive(Serialize)]
pub struct Declared<'a> {
    pub name: &'a str,
    pub r#type: &'static str,
    /// `null` where not even the rank is declared; -1 for a size of which nothing is said.
    pub shape: Option<Vec<Size<'a>>>,
}

#[derive(Serialize)]
#[serde(untagged)]
pub enum Size<'a> {
    Number(i64),
    Symbol(&'a str),
}

impl<'a> From<&'a ValueInfo> for Declared<'a> {
    fn from(info: &'a ValueInfo) -> Self {
        let size = |dim: &'a Dim| match dim {
            Dim::Static(size) => Size::Number(*size as i64),
            Dim::Symbol(name) => Size::Symbol(name),
            Dim::Unknown => Size::Number(-1),
        };
        let shape = info.shape.as_ref().map(|dims| dims.iter().map(size).collect());
        Declared { name: &info.name, r#type: info.dtype.name(), shape }
    }
}

/// What a run gives for an input.
#[derive(Deserialize)]
pub struct Feed {
    pub name: String,
    pub r#type: String,
    pub shape: Vec<usize>,
    /// Whether kernels read it where it lies, in memory of the caller's.
    pub lent: bool,
}

/// An output that is to be in memory of the caller's.
#[derive(Deserialize)]
pub struct Stays {
    pub output: usize,
    /// The position of the feed that this is the memory of, which is lent: the output is made there if it is an update of
    /// it, and stays in the run's memory if not.
    pub over: Option<usize>,
}

/// How to run with inputs of given shapes.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Ready<'a> {
    /// Not before [`Core::give`] has been called with the contents of these inputs.
    Needs { needs: Vec<usize> },
    /// Not at all: the run must begin again at its first stage.
    Again { again: bool },
    Run {
        /// The plan's number.
        plan: u32,
        /// The plans that are still kept; whatever the host holds for others can go.
        live: Vec<u32>,
        /// For every input of the model, its position in what was given.
        order: Vec<usize>,
        /// For every input of the model, the dtype that the device holds its elements as; `null` where no kernel reads
        /// it.
        inputs: Vec<Option<&'static str>>,
        /// Whether the plan depends on contents of inputs, so that the next run must ask again.
        by_contents: bool,
        /// Whether another stage follows, for which [`Core::hand_on`] wants the outputs.
        is_stage: bool,
        outputs: Vec<Output<'a>>,
    },
}

#[derive(Serialize)]
pub struct Output<'a> {
    pub name: &'a str,
    pub r#type: &'static str,
    pub shape: Vec<usize>,
    /// The dtype that the device holds its elements as; `null` where [`Core::known_output`] has it, so that it is not
    /// read back.
    pub stored: Option<&'static str>,
    /// Whether it stays on the device, so that it is not read back either.
    pub kept: bool,
}

/// A constant to upload.
#[derive(Serialize)]
pub struct Constant<'a> {
    pub tensor: usize,
    pub name: &'a str,
    pub r#type: &'static str,
    /// The dtype that the device holds its elements as.
    pub stored: &'static str,
    pub elements: usize,
    pub device_bytes: u64,
    /// Where its elements are; `null` where [`Core::constant`] has them.
    pub place: Option<Place<'a>>,
}

#[derive(Serialize)]
pub struct Place<'a> {
    pub file: &'a str,
    pub offset: u64,
    pub bytes: u64,
}

/// A kernel to compile.
#[derive(Serialize)]
pub struct Kernel<'a> {
    pub label: &'a str,
    pub schedule: String,
    pub source: &'a str,
    pub bindings: Vec<&'static str>,
}

/// WebGPU's names of a kernel's bindings.
pub fn bindings(shader: &Shader) -> Vec<&'static str> {
    let name = |kind: &BindingKind| match kind {
        BindingKind::Read => "read-only-storage",
        BindingKind::ReadWrite => "storage",
        BindingKind::Uniform => "uniform",
    };
    shader.bindings.iter().map(name).collect()
}

/// An error as it crosses to the host.
#[derive(Debug)]
pub struct Fault(Error);

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault(error)
    }
}

impl From<Fault> for wasm_bindgen::JsValue {
    fn from(Fault(error): Fault) -> Self {
        let kind = match error {
            Error::Io { .. } => "io",
            Error::Parse { .. } => "parse",
            Error::Model { .. } => "model",
            Error::Unsupported { .. } => "unsupported",
            Error::Input { .. } => "input",
            Error::Tensor(_) => "tensor",
            Error::Adapter(_) => "adapter",
            Error::Limit { .. } => "limit",
            Error::OutOfMemory(_) => "memory",
            Error::Device { .. } => "device",
        };
        format!("{kind}\n{error}").into()
    }
}

pub fn dtype_named(name: &str) -> Result<DType> {
    DType::from_name(name).ok_or_else(|| Error::Tensor(format!("there is no dtype {name:?}")))
}

pub fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::parse("host", error.to_string()))
}

pub fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::parse("host", error.to_string()))
}
