//! Renders `gemv.wgsl` and `gemv_subgroup.wgsl`.

use super::contract::{copies, store, sums};
use super::operand::Operand;
use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::kernel::{ContractBody, GemvSchedule, KernelSpec, Reduction};

pub const SKELETON: &str = include_str!("../../shaders/gemv.wgsl");
pub const SUBGROUP: &str = include_str!("../../shaders/gemv_subgroup.wgsl");

pub fn render(
    label: &str,
    spec: &KernelSpec,
    body: &ContractBody,
    schedule: &GemvSchedule,
    target: Target,
) -> Result<Rendered> {
    let body = &match schedule.reduction {
        Reduction::Workgroup => body.clone(),
        Reduction::Subgroup => body.with_f32_sums(),
    };
    let mut scope = Scope::new(spec, target);
    sums(&mut scope, body);
    Operand::a(body).line(&mut scope);
    Operand::b(body).block(&mut scope);
    store(&mut scope, spec, body);
    let GemvSchedule { lanes_k, lanes_m, lanes_n, micro_m, micro_n4, reduction } = schedule;
    let mut knobs = format!(
        "const LANES_K: u32 = {lanes_k}u;\nconst LANES_M: u32 = {lanes_m}u;\nconst LANES_N: u32 = {lanes_n}u;\n\
         const MICRO_M: i32 = {micro_m};\nconst MICRO_N4: i32 = {micro_n4};\n{}{}",
        copies("m", "i32", *micro_m),
        copies("n", "i32", *micro_n4),
    );
    let counts = [("MICRO_M", *micro_m as usize), ("MICRO_N4", *micro_n4 as usize)].into();
    match reduction {
        Reduction::Workgroup => {
            let k_first = schedule.along_k(body);
            knobs.push_str(&format!("const K_FIRST: bool = {k_first};\n"));
            scope.finish(label, "gemv.wgsl", SKELETON, knobs, counts)
        }
        Reduction::Subgroup => scope.finish(label, "gemv_subgroup.wgsl", SUBGROUP, knobs, counts),
    }
}
