//! Renders `topk.wgsl` and `merge.wgsl`.

use std::collections::BTreeMap;

use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::kernel::{KernelSpec, MergeSchedule, TopKBody, TopKSchedule, before, last};

pub const SELECT: &str = include_str!("../../shaders/topk.wgsl");
pub const MERGE: &str = include_str!("../../shaders/merge.wgsl");

/// Loop variables.
const VARS: [&str; 2] = ["row", "r"];

pub fn render(
    label: &str,
    spec: &KernelSpec,
    body: &TopKBody,
    schedule: &TopKSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = order(spec, body, target);
    scope.value("last", &[], &BTreeMap::new(), &last(body.key.dtype(), body.largest));
    let TopKSchedule { lanes, rows, keep, queue, .. } = schedule;
    let knobs = format!(
        "const LANES: u32 = {lanes}u;\nconst ROWS: u32 = {rows}u;\nconst KEEP: u32 = {keep}u;\nconst QUEUE: u32 = {queue}u;\n"
    );
    scope.finish(label, "topk.wgsl", SELECT, knobs, BTreeMap::new())
}

pub fn render_merge(
    label: &str,
    spec: &KernelSpec,
    body: &TopKBody,
    schedule: &MergeSchedule,
    target: Target,
) -> Result<Rendered> {
    let Some(split) = &body.split else {
        return Err(Error::limit(label, format!("schedule {schedule} wants rows of two parts in order")));
    };
    let mut scope = order(spec, body, target);
    scope.size("split", split);
    let MergeSchedule { workgroup, each } = schedule;
    let knobs = format!("const WORKGROUP: u32 = {workgroup}u;\nconst EACH: i32 = {each};\n");
    scope.finish(label, "merge.wgsl", MERGE, knobs, BTreeMap::new())
}

/// What both skeletons want to know of the rows.
fn order<'a>(spec: &'a KernelSpec, body: &TopKBody, target: Target) -> Scope<'a> {
    let mut scope = Scope::new(spec, target);
    let none = BTreeMap::new();
    let dtype = body.key.dtype();
    let ty = scope.device_type(dtype);
    scope.text(&format!("alias Key = {ty};"));
    scope.size("rows", &body.rows);
    scope.size("extent", &body.extent);
    scope.size("k", &body.k);
    scope.value("key", &VARS, &none, &body.key);
    let pair: BTreeMap<u32, String> = [(0, "a".to_string()), (1, "b".to_string())].into();
    let order = before(&Expr::arg(0, dtype), &Expr::arg(1, dtype), body.largest);
    scope.slot("fn before(a: Key, b: Key) -> bool", &[], &pair, |p| format!("return {};", p.expr(&order)));
    scope.value("position", &VARS, &none, &body.position);
    scope.text("fn store(at: i32, row: i32, r: i32) { result[at] = position(row, r); }");
    scope
}
