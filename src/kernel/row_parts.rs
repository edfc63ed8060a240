//! A statistic of few, long rows whose positions are cut into `parts`, so that all of a device has work:
//!
//! ```text
//! partial[row, p] = combine over r of part p of value(row, r)     a reduction with parts times the rows
//! out[row]        = result(combine over p of partial[row, p])     a reduction
//! ```

use super::caps::Caps;
use super::moved::Moved;
use super::passes::{Pass, Slot};
use super::reduce::ReduceSchedule;
use super::schedule::{Schedule, Sizes, size};
use super::space::default_schedule;
use super::spec::{Body, KernelSpec, RowResult, Stage};
use crate::expr::{Binary, Expr, Idx};
use crate::tensor::DType;

/// Rows are not cut into parts shorter than this ...
const SHORTEST_PART: i64 = 256;
/// ... nor where there are more rows than this, on a GPU and on a CPU adapter, which few of them keep busy.
const MANY_ROWS: [i64; 2] = [1 << 10, 1 << 6];

/// The rule that a cut into parts breaks, if it breaks one.
pub fn broken_rule(
    rows: &Idx,
    stages: &[Stage],
    result: &RowResult,
    s: &ReduceSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    let parts = i64::from(s.parts);
    if parts == 1 {
        return None;
    }
    let ([stage], RowResult::PerRow(_)) = (stages, result) else {
        return Some("rows in parts where there is more than one pass over them");
    };
    if size(&stage.extent, sizes) / parts < SHORTEST_PART {
        Some("parts of a row shorter than 256 positions")
    } else if size(rows, sizes) > MANY_ROWS[usize::from(caps.cpu)] {
        Some("rows in parts where the rows alone keep a device busy")
    } else if s.vector == 4 && stage.extent.as_const().is_none_or(|n| n % (4 * parts) != 0) {
        Some("a row that does not divide into equal parts of whole fours")
    } else {
        None
    }
}

/// The two passes; `None` where there is more than one pass over a row to begin with.
pub fn passes(spec: &KernelSpec, s: &ReduceSchedule, sizes: Sizes, caps: &Caps) -> Option<Vec<Pass>> {
    let Body::Reduce { rows, stages, result: RowResult::PerRow(result) } = &spec.body else { return None };
    let [stage] = stages.as_slice() else { return None };
    let dtype = stage.value.dtype();
    let parts = Idx::from(s.parts as usize);
    let chunk = (&stage.extent + &Idx::from(i64::from(s.parts) - 1)).div(&parts);
    let all = rows * &parts;
    let (outer, inner) = (Idx::var(0, &all), Idx::var(1, &chunk));
    let position = &(&outer.rem(&parts) * &chunk) + &inner;
    let mut within = Moved::new(Moved::all(spec), vec![outer.div(&parts), position.clone()]);
    let value = stage.value.rewrite(&mut within);
    // The last parts are shorter where the row does not divide.
    let value = if &chunk * &parts == stage.extent {
        value
    } else {
        let here = Expr::index(position, DType::I32)
            .binary(Binary::Lt, &Expr::index(stage.extent.clone(), DType::I32));
        here.select(&value, &stage.combine.identity(dtype))
    };
    let partial = KernelSpec {
        output: dtype,
        body: Body::Reduce {
            rows: all.clone(),
            stages: vec![Stage { extent: chunk, combine: stage.combine, value }],
            result: RowResult::PerRow(Expr::arg(0, dtype)),
        },
        ..spec.clone()
    };
    let row = Idx::var(0, rows);
    let mut last = Moved::new(vec![Slot::Scratch(0)], vec![row.clone(), Idx::from(0i64)]);
    let result = RowResult::PerRow(result.rewrite(&mut last));
    let at = &(&row * &parts) + &Idx::var(1, &parts);
    let stage = Stage { extent: parts, combine: stage.combine, value: Expr::load(0, dtype, vec![at]) };
    let whole = KernelSpec {
        inputs: last.dtypes(spec, dtype),
        output: spec.output,
        params: spec.params,
        body: Body::Reduce { rows: rows.clone(), stages: vec![stage], result },
    };
    let first = Pass {
        spec: partial,
        sizes: sizes.to_vec(),
        schedule: Schedule::Reduce(ReduceSchedule { parts: 1, ..s.clone() }),
        inputs: within.inputs,
        output: Slot::Scratch(0),
        len: all,
    };
    let second = Pass {
        schedule: default_schedule(&whole, sizes, caps),
        spec: whole,
        sizes: sizes.to_vec(),
        inputs: last.inputs,
        output: Slot::Output,
        len: rows.clone(),
    };
    Some(vec![first, second])
}
