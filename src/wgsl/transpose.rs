//! Renders `transpose.wgsl`.

use std::collections::BTreeMap;

use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::{Error, Result};
use crate::expr::{Expr, Idx};
use crate::kernel::{Across, KernelSpec, TransposeSchedule};

pub const SKELETON: &str = include_str!("../../shaders/transpose.wgsl");

/// Loop variables of a map by planes.
const VARS: [&str; 4] = ["x", "y", "beside", "outer"];

pub fn render(
    label: &str,
    spec: &KernelSpec,
    len: &Idx,
    value: &Expr,
    schedule: &TransposeSchedule,
    target: Target,
) -> Result<Rendered> {
    let Some(across) = Across::of(len, value) else {
        return Err(Error::limit(label, format!("schedule {schedule}: no read lies across the output")));
    };
    let (value, reads) = across.take(len, value);
    let mut scope = Scope::new(spec, target);
    scope.size("len", len);
    scope.size("width", &across.width);
    scope.size("height", &across.height);
    scope.size("step", &across.step);
    scope.size("planes", &across.beside());
    let mut args = BTreeMap::new();
    for (s, read) in reads.iter().enumerate() {
        let ty = scope.device_type(read.dtype);
        scope.text(&format!("alias Staged_s{s} = {ty};"));
        let load = Expr::load(read.input as u32, read.dtype, vec![read.offset.clone()]);
        scope.value(&format!("staged_s{s}"), &VARS, &BTreeMap::new(), &across.by_planes(len, &load));
        args.insert(s as u32, format!("here_s{s}"));
    }
    scope.value("value", &VARS, &args, &across.by_planes(len, &value));
    let stored = scope.narrow("value(x, y, beside, outer)");
    let parameters = VARS.map(|name| format!("{name}: i32")).join(", ");
    scope.text(&format!("fn store(i: i32, {parameters}) {{ result[i] = {stored}; }}"));
    let knobs = format!("const TILE: u32 = {}u;\nconst LINES: u32 = {}u;\n", schedule.tile, schedule.lines);
    scope.finish(label, "transpose.wgsl", SKELETON, knobs, [("STAGED", reads.len())].into())
}
