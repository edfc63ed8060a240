//! Renders `gemm_subgroup.wgsl`.

use super::contract::{copies, store, sums};
use super::operand::Operand;
use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::kernel::{ContractBody, KernelSpec, SubgroupSchedule};

pub const SKELETON: &str = include_str!("../../shaders/gemm_subgroup.wgsl");

pub fn render(
    label: &str,
    spec: &KernelSpec,
    body: &ContractBody,
    schedule: &SubgroupSchedule,
    target: Target,
) -> Result<Rendered> {
    let body = &body.with_f32_sums();
    let mut scope = Scope::new(spec, target);
    sums(&mut scope, body);
    Operand::a(body).line(&mut scope);
    Operand::b(body).block(&mut scope);
    store(&mut scope, spec, body);
    let SubgroupSchedule { subgroup, groups, rows, micro_n4, .. } = schedule;
    scope.region("move_up".into(), move_up(schedule));
    let knobs = format!(
        "const SUBGROUP: u32 = {subgroup}u;\nconst GROUPS: u32 = {groups}u;\nconst ROWS: u32 = {rows}u;\n\
         const MICRO_N4: u32 = {micro_n4}u;\n{}{}{}",
        copies("r", "u32", *rows),
        copies("n", "u32", *micro_n4),
        copies("l", "u32", *subgroup),
    );
    let counts =
        [("ROWS", *rows as usize), ("SUBGROUP", *subgroup as usize), ("MICRO_N4", *micro_n4 as usize)].into();
    scope.finish(label, "gemm_subgroup.wgsl", SKELETON, knobs, counts)
}

/// Each sum takes the next one's place, in the order in which they are stored.
fn move_up(schedule: &SubgroupSchedule) -> String {
    let SubgroupSchedule { subgroup, rows, micro_n4, .. } = *schedule;
    let columns = |row: String| (0..micro_n4).map(move |n| format!("{row}_n{n}"));
    let lanes = |r: u32| (0..subgroup).map(move |l| format!("sum_r{r}_l{l}"));
    let sums: Vec<String> = (0..rows).flat_map(lanes).flat_map(columns).collect();
    sums.windows(2).map(|pair| format!("            {} = {};\n", pair[0], pair[1])).collect()
}
