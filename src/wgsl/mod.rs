//! `(KernelSpec, Schedule, Target) -> WGSL`.

/// How a kernel's binding is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BindingKind {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
    /// `var<uniform>`: the run-time parameters.
    Uniform,
}

/// A rendered kernel: group 0 with `bindings` in order, entry point `main`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shader {
    /// A name for messages, as `gemm_7`.
    pub label: String,
    /// The WGSL text.
    pub source: String,
    /// Kinds of the bindings 0, 1, ...
    pub bindings: Vec<BindingKind>,
}
