//! Renders `map.wgsl`.

use std::collections::BTreeMap;

use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::expr::{Expr, Idx};
use crate::kernel::{KernelSpec, MapSchedule};

pub const SKELETON: &str = include_str!("../../shaders/map.wgsl");

pub fn render(
    label: &str,
    spec: &KernelSpec,
    len: &Idx,
    value: &Expr,
    schedule: &MapSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = Scope::new(spec, target);
    scope.size("len", len);
    scope.value("value", &["i"], &BTreeMap::new(), value);
    let stored = scope.narrow("value(i)");
    scope.text(&format!("fn store(i: i32) {{ result[i] = {stored}; }}"));
    let knobs = format!(
        "const WORKGROUP: u32 = {}u;\nconst PER_INVOCATION: u32 = {}u;\n",
        schedule.workgroup, schedule.per_invocation
    );
    scope.finish(label, "map.wgsl", SKELETON, knobs, BTreeMap::new())
}
