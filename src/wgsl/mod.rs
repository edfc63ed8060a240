//! `(KernelSpec, Schedule, Target) -> WGSL`: plain text in, plain text out, no GPU needed.
//!
//! A skeleton from `shaders/` carries the algorithm; the renderer fills in its knobs (sizes), bindings and
//! slots (loads, arithmetic, stores), printed from the kernel's expressions.

mod attention;
mod contract;
mod conv;
mod cooperative;
mod depthwise;
mod gemv;
mod map;
mod operand;
mod probe;
mod product;
mod reduce;
mod scope;
mod subgroup;
mod template;
mod tiled;
mod topk;
mod transpose;
mod words;

use crate::error::{Error, Result};
use crate::expr::Floats;
use crate::kernel::{AttentionSchedule, Body, Caps, KernelSpec, Pass, Schedule, Sizes, passes};

pub use probe::{PROBE_WORKGROUP, probe_copy, probe_fma, probe_fma_flops};

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

/// What a binding of a rendered kernel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// Input number n of the spec.
    Input(usize),
    /// The output.
    Output,
    /// The run-time parameters: one `i32` each.
    Params,
}

/// What the text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The floats that the device has.
    pub floats: Floats,
    /// The compiler that will read it.
    pub dialect: Dialect,
    /// Whether four neighbours are read and stored as 64-bit words: on CPU adapters that have them.
    pub words64: bool,
    /// Whether run-time sizes are such that no compiler takes a loop's end for a mere function of uniforms: on native CPU
    /// adapters. Where one is, lavapipe puts the uniforms' values in and compiles the kernel anew for every dispatch,
    /// if it comes out shorter by half, or longer (Mesa's `lvp_inline_uniforms.c`).
    pub opaque_sizes: bool,
}

impl Target {
    /// For a device with `caps`. Browsers' WGSL has no 64-bit words.
    pub fn new(caps: &Caps, dialect: Dialect) -> Target {
        let opaque_sizes = caps.cpu && dialect == Dialect::Naga;
        Target { floats: caps.floats(), dialect, words64: opaque_sizes && caps.i64, opaque_sizes }
    }
}

/// WGSL as its compilers want it; they differ in the `enable` lines and in how matrix instructions are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// naga, in wgpu.
    Naga,
    /// Tint and the other browsers' compilers.
    Browser,
}

/// A kernel's text, and what to bind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rendered {
    /// The text.
    pub shader: Shader,
    /// What each binding holds.
    pub bound: Vec<Bound>,
}

/// A kernel's passes under a schedule, each with its text.
///
/// # Errors
/// As [`render`].
pub fn render_passes(
    label: &str,
    spec: &KernelSpec,
    schedule: &Schedule,
    sizes: Sizes,
    caps: &Caps,
    target: Target,
) -> Result<Vec<(Pass, Rendered)>> {
    let passes = passes(spec, schedule, sizes, caps);
    let count = passes.len();
    let render = |(number, pass): (usize, Pass)| {
        let rendered = render(&pass_label(label, number, count), &pass.spec, &pass.schedule, target)?;
        Ok((pass, rendered))
    };
    passes.into_iter().enumerate().map(render).collect()
}

/// What messages call pass `number` of `count`: the kernel's own name where it is the only one.
pub fn pass_label(label: &str, number: usize, count: usize) -> String {
    if count == 1 { label.to_string() } else { format!("{label} pass {}", number + 1) }
}

/// Render a kernel that takes one pass.
///
/// # Errors
/// [`Error::Limit`] when the schedule belongs to another family, or takes several passes.
pub fn render(label: &str, spec: &KernelSpec, schedule: &Schedule, target: Target) -> Result<Rendered> {
    if !schedule.is_one_pass() {
        return Err(Error::limit(label, format!("schedule {schedule} takes several passes")));
    }
    match (&spec.body, schedule) {
        (Body::Map { len, value }, Schedule::Map(s)) => map::render(label, spec, len, value, s, target),
        (Body::Update { len, at, when, value }, Schedule::Map(s)) => {
            map::render_update(label, spec, (len, at), (when, value), s, target)
        }
        (Body::Map { len, value }, Schedule::Transpose(s)) => {
            transpose::render(label, spec, len, value, s, target)
        }
        (Body::Reduce { rows, stages, result }, Schedule::Reduce(s)) => {
            reduce::render(label, spec, rows, stages, result, s, target)
        }
        (Body::Contract(body), Schedule::Contract(s)) => contract::render(label, spec, body, s, target),
        (Body::Contract(body), Schedule::Tiled(s)) => tiled::render(label, spec, body, s, target),
        (Body::Contract(body), Schedule::Subgroup(s)) => subgroup::render(label, spec, body, s, target),
        (Body::Contract(body), Schedule::Cooperative(s)) => cooperative::render(label, spec, body, s, target),
        (Body::Contract(body), Schedule::Gemv(s)) => gemv::render(label, spec, body, s, target),
        (Body::Conv(body), Schedule::Conv(s)) => conv::render(label, spec, body, s, target),
        (Body::Conv(body), Schedule::Depthwise(s)) => depthwise::render(label, spec, body, s, target),
        (Body::Attention(body), Schedule::Attention(AttentionSchedule::Fused(s))) => {
            attention::render(label, spec, body, s, target)
        }
        (Body::TopK(body), Schedule::TopK(s)) => topk::render(label, spec, body, s, target),
        (Body::TopK(body), Schedule::Merge(s)) => topk::render_merge(label, spec, body, s, target),
        (_, other) => {
            Err(Error::limit(label, format!("schedule {other} does not fit a {} kernel", spec.family())))
        }
    }
}

/// The skeletons, by file name, as they stand in `shaders/`.
pub const SKELETONS: &[(&str, &str)] = &[
    ("map.wgsl", map::SKELETON),
    ("transpose.wgsl", transpose::SKELETON),
    ("reduce.wgsl", reduce::SHARED),
    ("reduce_subgroup.wgsl", reduce::SUBGROUP),
    ("reduce_serial.wgsl", reduce::SERIAL),
    ("gemm.wgsl", contract::SKELETON),
    ("gemm_tiled.wgsl", tiled::SKELETON),
    ("gemm_subgroup.wgsl", subgroup::SKELETON),
    ("gemm_cooperative.wgsl", cooperative::SKELETON),
    ("gemv.wgsl", gemv::SKELETON),
    ("gemv_subgroup.wgsl", gemv::SUBGROUP),
    ("conv.wgsl", conv::DIRECT),
    ("conv_subgroup.wgsl", conv::SUBGROUP),
    ("conv_depthwise.wgsl", depthwise::SKELETON),
    ("topk.wgsl", topk::SELECT),
    ("merge.wgsl", topk::MERGE),
    ("attention.wgsl", attention::SHARED),
    ("attention_serial.wgsl", attention::SERIAL),
    ("probe_copy.wgsl", probe::COPY),
    ("probe_fma.wgsl", probe::FMA),
];
