//! The kernels that measure what a device can do at best.

use super::template::{Fill, fill};
use super::{BindingKind, Shader};
use crate::error::Result;

pub const COPY: &str = include_str!("../../shaders/probe_copy.wgsl");
pub const FMA: &str = include_str!("../../shaders/probe_fma.wgsl");

/// Invocations per workgroup of both probes.
pub const PROBE_WORKGROUP: u32 = 64;
/// Turns of the arithmetic probe's outer loop.
const ROUNDS: u32 = 64;

/// Copies binding 0 to binding 1, any number of workgroups together, in words or in vectors of four.
///
/// # Errors
/// None for a skeleton that is whole.
pub fn probe_copy(vectors: bool) -> Result<Shader> {
    let item = if vectors { "vec4<u32>" } else { "u32" };
    let regions = [("knobs".into(), format!("alias Item = {item};\n"))].into();
    let source = fill("probe_copy.wgsl", COPY, &Fill { regions, ..Fill::default() })?;
    let bindings = vec![BindingKind::Read, BindingKind::ReadWrite];
    Ok(Shader { label: format!("copy probe in {item}"), source, bindings })
}

/// Multiplies and adds in registers, `vectors` independent chains of four per invocation, in f32 or f16; reads 64 words
/// of binding 0 and writes a word per invocation after them.
///
/// # Errors
/// None for a skeleton that is whole.
pub fn probe_fma(f16: bool, vectors: u32) -> Result<Shader> {
    let (enable, real) = if f16 { ("enable f16;\n", "f16") } else { ("", "f32") };
    let mut knobs = format!("const ROUNDS: u32 = {ROUNDS}u;\nalias Real = {real};\n");
    (0..vectors).for_each(|i| knobs += &format!("const v{i}: u32 = {i}u;\n"));
    let fills =
        Fill { regions: [("knobs".into(), knobs)].into(), counts: [("VECTORS", vectors as usize)].into() };
    Ok(Shader {
        label: format!("{real} probe"),
        source: format!("{enable}{}", fill("probe_fma.wgsl", FMA, &fills)?),
        bindings: vec![BindingKind::ReadWrite],
    })
}

/// Operations of one invocation of [`probe_fma`].
pub fn probe_fma_flops(vectors: u32) -> f64 {
    f64::from(ROUNDS * 16 * vectors * 4 * 2)
}
