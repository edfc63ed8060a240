//! Renders `gemm_cooperative.wgsl`.

use super::contract::{copies, store, sums};
use super::operand::Operand;
use super::scope::Scope;
use super::{Dialect, Rendered, Target};
use crate::error::{Error, Result};
use crate::kernel::{Along, ContractBody, CooperativeSchedule, KernelSpec, cooperative_element};

pub const SKELETON: &str = include_str!("../../shaders/gemm_cooperative.wgsl");

pub fn render(
    label: &str,
    spec: &KernelSpec,
    body: &ContractBody,
    schedule: &CooperativeSchedule,
    target: Target,
) -> Result<Rendered> {
    let element = match (target.dialect, cooperative_element(body, target.floats.f16)) {
        (Dialect::Naga, Some(element)) => element,
        (Dialect::Browser, _) => {
            return Err(Error::limit(label, "browsers have no cooperative matrices of this form"));
        }
        (Dialect::Naga, None) => {
            return Err(Error::limit(label, "cooperative matrices of other elements than f16 or f32"));
        }
    };
    let body = &body.with_f32_sums();
    let mut scope = Scope::new(spec, target);
    sums(&mut scope, body);
    Operand::a(body).block(&mut scope);
    Operand::b(body).block(&mut scope);
    store(&mut scope, spec, body);
    let CooperativeSchedule { size, subgroup, groups_m, groups_n, micro_m, micro_n, tile_k } = schedule;
    let mut knobs = format!("alias Elem = {element};\n");
    for (role, ty) in [("A", element), ("B", element), ("C", "f32")] {
        knobs.push_str(&format!("alias Matrix{role} = coop_mat{size}x{size}<{ty}, {role}>;\n"));
    }
    let numbers = [
        ("SIZE", size),
        ("SUBGROUP", subgroup),
        ("GROUPS_M", groups_m),
        ("GROUPS_N", groups_n),
        ("MICRO_M", micro_m),
        ("MICRO_N", micro_n),
        ("TILE_K", tile_k),
    ];
    for (name, value) in numbers {
        knobs.push_str(&format!("const {name}: u32 = {value}u;\n"));
    }
    for (name, along) in [("A_ALONG_K", body.along_a()), ("B_ALONG_K", body.along_b())] {
        knobs.push_str(&format!("const {name}: bool = {};\n", along == Along::K));
    }
    knobs.push_str(&copies("m", "u32", *micro_m));
    knobs.push_str(&copies("n", "u32", *micro_n));
    let counts = [("MICRO_M", *micro_m as usize), ("MICRO_N", *micro_n as usize)].into();
    scope.finish(label, "gemm_cooperative.wgsl", SKELETON, knobs, counts)
}
