//! The order of long rows, found in parts. The parts are rows of their own; what a pass hands on is positions, and the next
//! one reads keys through them.
//!
//! ```text
//! selected in parts   first[row, p, j] = the first k of part p              a selection
//!                     out[row, j]      = the first k among these            a selection
//!
//! sorted              runs[row, q, j]  = run q of so many elements in order a selection of all of them
//!                     runs[row, q, j]  = the first k of runs 2q and 2q + 1  a merge, until there is one run
//! ```

use super::moved::Moved;
use super::passes::{Pass, Slot};
use super::schedule::{Schedule, Sizes, size};
use super::spec::{Body, KernelSpec, TopKBody};
use super::topk::{SortSchedule, TopKSchedule};
use crate::expr::{Expr, Idx};
use crate::ir::last;
use crate::tensor::DType;

/// Rows of lists of positions in scratch memory: `[rows, count, width]`, each list in order.
struct Lists {
    slot: usize,
    count: Idx,
    width: Idx,
}

/// Both passes of a selection in parts.
pub fn selected(spec: &KernelSpec, body: &TopKBody, s: &TopKSchedule, sizes: Sizes) -> Vec<Pass> {
    let parts = Idx::from(s.parts as usize);
    let one = Schedule::TopK(TopKSchedule { parts: 1, ..s.clone() });
    let (first, lists) = cut(spec, body, &parts, &body.extent.div_ceil(&parts), one.clone(), sizes);
    let extent = &lists.count * &lists.width;
    let all = listed(spec, body, &lists, &body.rows, &Idx::var(0, &body.rows), &Idx::var(1, &extent));
    let among = TopKBody { extent, ..all };
    vec![first, pass(spec, among, Some(lists.slot), one, Slot::Output, sizes)]
}

/// The passes of a sort: as many merges as the sizes take, whose texts are the same for all sizes.
pub fn sorted(spec: &KernelSpec, body: &TopKBody, s: &SortSchedule, sizes: Sizes) -> Vec<Pass> {
    let run = Idx::from(s.run.keep as usize);
    let (first, mut lists) =
        cut(spec, body, &body.extent.div_ceil(&run), &run, Schedule::TopK(s.run.clone()), sizes);
    let mut passes = vec![first];
    let mut left = size(&lists.count, sizes);
    while left > 1 {
        let count = lists.count.div_ceil(&Idx::from(2i64));
        let extent = &lists.width * &Idx::from(2i64);
        let rows = &body.rows * &count;
        let outer = Idx::var(0, &rows);
        let place = &(&(&outer.rem(&count) * &Idx::from(2i64)) * &lists.width) + &Idx::var(1, &extent);
        let two = listed(spec, body, &lists, &rows, &outer.div(&count), &place);
        let merged = TopKBody { k: extent.smaller(&body.k), extent, split: Some(lists.width.clone()), ..two };
        let next = Lists { slot: 1 - lists.slot, count, width: merged.k.clone() };
        let to = Slot::Scratch(next.slot);
        passes.push(pass(spec, merged, Some(lists.slot), Schedule::Merge(s.merge.clone()), to, sizes));
        lists = next;
        left = (left + 1) / 2;
    }
    if let Some(last) = passes.last_mut() {
        last.output = Slot::Output;
    }
    passes
}

/// The first `k` of each of `count` parts of a row, of `len` positions each.
fn cut(
    spec: &KernelSpec,
    body: &TopKBody,
    count: &Idx,
    len: &Idx,
    schedule: Schedule,
    sizes: Sizes,
) -> (Pass, Lists) {
    let rows = &body.rows * count;
    let outer = Idx::var(0, &rows);
    let place = &(&outer.rem(count) * len) + &Idx::var(1, len);
    let number = Expr::index(place.clone(), DType::I32);
    // The last parts may be shorter, or empty.
    let is_there = number.below(Expr::index(body.extent.clone(), DType::I32));
    let mut moved = Moved::new(Moved::all(spec), vec![outer.div(count), place]);
    let key = is_there.select(&body.key.rewrite(&mut moved), &last(body.key.dtype(), body.largest));
    let k = len.smaller(&body.k);
    let part = TopKBody {
        rows,
        extent: len.clone(),
        k: k.clone(),
        key,
        largest: body.largest,
        position: number,
        split: None,
    };
    let lists = Lists { slot: 0, count: count.clone(), width: k };
    (pass(spec, part, None, schedule, Slot::Scratch(0), sizes), lists)
}

/// Rows of what stands in `lists`: element `place` of the lists of row `row`. Beyond the row's end, in lists and in the
/// row, there is the last of all keys. Such places follow all others, so that equal keys are in order by place, too.
fn listed(spec: &KernelSpec, body: &TopKBody, lists: &Lists, rows: &Idx, row: &Idx, place: &Idx) -> TopKBody {
    let number = |idx: &Idx| Expr::index(idx.clone(), DType::I32);
    let (extent, len) = (number(&body.extent), &lists.count * &lists.width);
    let at = &(row * &len) + place;
    let read = Expr::load(spec.inputs.len() as u32, DType::I32, vec![at]);
    let position = number(place).below(number(&len)).select(&read, &extent);
    let mut moved = Moved::new(Moved::all(spec), vec![row.clone(), position.to_position(&body.extent)]);
    let key = body.key.rewrite(&mut moved);
    let key = position.below(&extent).select(&key, &last(key.dtype(), body.largest));
    TopKBody { rows: rows.clone(), key, position, ..body.clone() }
}

/// A pass that reads scratch memory behind the kernel's own inputs.
fn pass(
    spec: &KernelSpec,
    body: TopKBody,
    from: Option<usize>,
    schedule: Schedule,
    output: Slot,
    sizes: Sizes,
) -> Pass {
    let (mut inputs, mut dtypes) = (Moved::all(spec), spec.inputs.clone());
    if let Some(slot) = from {
        inputs.push(Slot::Scratch(slot));
        dtypes.push(DType::I32);
    }
    let len = &body.rows * &body.k;
    let spec = KernelSpec { inputs: dtypes, body: Body::TopK(body), ..spec.clone() };
    Pass { spec, sizes: sizes.to_vec(), schedule, inputs, output, len }
}
