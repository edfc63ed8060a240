//! Renders `reduce.wgsl` and `reduce_serial.wgsl`.

use std::collections::BTreeMap;

use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::expr::{Expr, Idx};
use crate::kernel::{KernelSpec, ReduceSchedule, RowResult, Stage};

pub const SHARED: &str = include_str!("../../shaders/reduce.wgsl");
pub const SERIAL: &str = include_str!("../../shaders/reduce_serial.wgsl");

pub fn render(
    label: &str,
    spec: &KernelSpec,
    rows: &Idx,
    stages: &[Stage],
    result: &RowResult,
    schedule: &ReduceSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = Scope::new(spec, target);
    let vars = ["row", "r"];
    let stats: BTreeMap<u32, String> = (0..stages.len()).map(|s| (s as u32, format!("stat_s{s}"))).collect();
    scope.size("rows", rows);
    for (s, stage) in stages.iter().enumerate() {
        let dtype = stage.value.dtype();
        let ty = scope.device_type(dtype);
        scope.text(&format!("alias Stat_s{s} = {ty};"));
        scope.size(&format!("extent_s{s}"), &stage.extent);
        scope.value(&format!("identity_s{s}"), &[], &stats, &stage.combine.identity(dtype));
        scope.value(&format!("value_s{s}"), &vars, &stats, &stage.value);
        let pair: BTreeMap<u32, String> = [(0, "a".to_string()), (1, "b".to_string())].into();
        let combined = Expr::arg(0, dtype).binary(stage.combine.binary(), &Expr::arg(1, dtype));
        scope.slot(&format!("fn combine_s{s}(a: Stat_s{s}, b: Stat_s{s}) -> Stat_s{s}"), &[], &pair, |p| {
            let text = p.expr(&combined);
            format!("return {text};")
        });
    }
    let (extent, at, value) = match result {
        RowResult::PerRow(value) => (Idx::from(1i64), None, value),
        RowResult::PerElement { extent, at, value } => (extent.clone(), Some(at), value),
    };
    scope.size("result_extent", &extent);
    scope.value("result_value", &vars, &stats, value);
    let stored = scope.narrow("result_value(row, r)");
    scope.slot("fn store(row: i32, r: i32)", &vars, &stats, |p| {
        let at = at.map_or_else(|| "row".to_string(), |at| p.idx(at));
        format!("result[{at}] = {stored};")
    });
    let counts = [("STAGES", stages.len())].into();
    if schedule.lanes == 1 {
        let knobs = format!("const ROWS: u32 = {}u;\n", schedule.rows);
        return scope.finish(label, "reduce_serial.wgsl", SERIAL, knobs, counts);
    }
    let knobs = format!("const LANES: u32 = {}u;\nconst ROWS: u32 = {}u;\n", schedule.lanes, schedule.rows);
    scope.finish(label, "reduce.wgsl", SHARED, knobs, counts)
}
