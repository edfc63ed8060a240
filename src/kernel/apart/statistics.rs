//! The statistics of a row kernel, each by a reduction of its own, which may cut rows into parts: few, long rows then keep
//! all of a device busy.

use super::{ApartSchedule, Kernel, Part};
use crate::expr::{Expr, Idx};
use crate::kernel::caps::Caps;
use crate::kernel::moved::Moved;
use crate::kernel::passes::Slot;
use crate::kernel::schedule::{Schedule, Sizes, size};
use crate::kernel::space;
use crate::kernel::spec::{Body, KernelSpec, RowResult, Stage};
use crate::tensor::DType;

/// Rows of which each takes a workgroup, and yet leave a GPU idle.
const FEW_ROWS: i64 = 1 << 6;

/// Statistics apart, in parts, instead of the schedule `whole`: for few, long rows on a GPU, and where rows are too long
/// for one kernel. A CPU's few cores lost more by the second look at each row than they gained (`tune --op softmax`).
pub fn default(spec: &KernelSpec, whole: &Schedule, sizes: Sizes, caps: &Caps) -> Option<ApartSchedule> {
    let Body::Reduce { rows, .. } = &spec.body else { return None };
    let few = !caps.cpu && size(rows, sizes) <= FEW_ROWS;
    if !few && space::broken_rule(spec, whole, sizes, caps).is_none() {
        return None;
    }
    let reductions = space::default_schedule(&kernels(spec)?.first()?.spec, sizes, caps);
    let in_parts = !reductions.is_one_pass();
    let schedule = ApartSchedule { part: Part::Statistics, rest: Box::new(reductions) };
    (in_parts && super::broken_rule(spec, &schedule, sizes, caps).is_none()).then_some(schedule)
}

/// The reductions, and the map of their results where a row has more than one. `None` for a single reduction, and for
/// results that do not lie row by row.
pub fn kernels(spec: &KernelSpec) -> Option<Vec<Kernel>> {
    let Body::Reduce { rows, stages, result } = &spec.body else { return None };
    let dtypes: Vec<DType> = stages.iter().map(|stage| stage.value.dtype()).collect();
    let row = Idx::var(0, rows);
    let mut kernels = Vec::new();
    for (number, stage) in stages.iter().enumerate() {
        // What a row has one of, the last of its reductions stores.
        let last = match result {
            RowResult::PerRow(value) if number + 1 == stages.len() => Some(value),
            RowResult::PerRow(_) | RowResult::PerElement { .. } => None,
        };
        let before = &dtypes[..number];
        let exprs: Vec<&Expr> = [&stage.value].into_iter().chain(last).collect();
        let mut moved = reader(&exprs, before, &row, Vec::new());
        let own = Expr::arg(0, dtypes[number]);
        moved.args.push(own.clone());
        let stages = vec![Stage { value: stage.value.rewrite(&mut moved), ..stage.clone() }];
        let (output, value) = match last {
            Some(value) => (spec.output, value.rewrite(&mut moved)),
            None => (dtypes[number], own),
        };
        let body = Body::Reduce { rows: rows.clone(), stages, result: RowResult::PerRow(value) };
        kernels.push(kernel(spec, &dtypes, moved, output, body));
    }
    if let RowResult::PerElement { extent, at, value } = result {
        if *at != &(&row * extent) + &Idx::var(1, extent) {
            return None;
        }
        let len = rows * extent;
        let i = Idx::var(0, &len);
        let row = i.div(extent);
        let mut moved = reader(&[value], &dtypes, &row, vec![row.clone(), i.rem(extent)]);
        let value = value.rewrite(&mut moved);
        kernels.push(kernel(spec, &dtypes, moved, spec.output, Body::Map { len, value }));
    }
    (kernels.len() > 1).then_some(kernels)
}

/// Reads from scratch memory what `exprs` have of statistics of these dtypes.
fn reader(exprs: &[&Expr], dtypes: &[DType], row: &Idx, variables: Vec<Idx>) -> Moved {
    let mut moved = Moved::new(Vec::new(), variables);
    for (number, &dtype) in dtypes.iter().enumerate() {
        let statistic = Expr::arg(number as u32, dtype);
        let mut read = false;
        exprs.iter().for_each(|expr| expr.visit(&mut |e| read |= *e == statistic));
        moved.args.push(if read {
            moved.inputs.push(Slot::Scratch(number));
            Expr::load(moved.inputs.len() as u32 - 1, dtype, vec![row.clone()])
        } else {
            statistic
        });
    }
    moved
}

/// A kernel of these expressions, where scratch memory holds statistics of `dtypes`.
fn kernel(spec: &KernelSpec, dtypes: &[DType], moved: Moved, output: DType, body: Body) -> Kernel {
    let dtype = |slot: &Slot| match slot {
        Slot::Input(i) => spec.inputs[*i],
        Slot::Scratch(n) => dtypes[*n],
        Slot::Output => spec.output,
    };
    let inputs = moved.inputs.iter().map(dtype).collect();
    Kernel { spec: KernelSpec { inputs, output, params: spec.params, body }, inputs: moved.inputs }
}
