//! Renders `gemm_tiled.wgsl`.

use super::contract::{copies, store, sums};
use super::operand::Operand;
use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::kernel::{Along, ContractBody, KernelSpec, TiledSchedule};

pub const SKELETON: &str = include_str!("../../shaders/gemm_tiled.wgsl");

pub fn render(
    label: &str,
    spec: &KernelSpec,
    body: &ContractBody,
    schedule: &TiledSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = Scope::new(spec, target);
    sums(&mut scope, body);
    Operand::a(body).block(&mut scope);
    Operand::b(body).block(&mut scope);
    store(&mut scope, spec, body);
    let TiledSchedule { group_m, group_n, micro_m4, micro_n4, tile_k, pad, .. } = schedule;
    let knobs = format!(
        "const GROUP_M: u32 = {group_m}u;\nconst GROUP_N: u32 = {group_n}u;\nconst MICRO_M4: u32 = {micro_m4}u;\n\
         const MICRO_N4: u32 = {micro_n4}u;\nconst TILE_K: u32 = {tile_k}u;\nconst PAD: u32 = {pad}u;\n\
         const A_ALONG_K: bool = {};\nconst B_ALONG_K: bool = {};\n{}{}",
        body.along_a() == Along::K,
        body.along_b() == Along::K,
        copies("m", "u32", *micro_m4),
        copies("n", "u32", *micro_n4),
    );
    let counts = [("MICRO_M4", *micro_m4 as usize), ("MICRO_N4", *micro_n4 as usize)].into();
    scope.finish(label, "gemm_tiled.wgsl", SKELETON, knobs, counts)
}
