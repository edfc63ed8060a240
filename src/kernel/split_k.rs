//! A contraction whose sum is cut into `split_k` parts, for outputs too small to keep a device busy:
//!
//! ```text
//! partial[s, b, m, n] = sum over k of part s of A[b, m, k] * B[b, k, n]     a contraction with split_k times the batch
//! out[b, m, n]        = epilogue(sum over s of partial[s, b, m, n])         a reduction
//! ```

use super::caps::Caps;
use super::moved::Moved;
use super::passes::{Pass, Slot};
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{TURNS, default_schedule, leaves_loops};
use super::spec::{Body, ContractBody, KernelSpec, RowResult, Stage};
use crate::expr::{Binary, Expr, Idx, unflatten};
use crate::ir::Combine;

/// A sum is not split into parts shorter than this ...
const SHORTEST_PART: i64 = 64;
/// ... nor where there are more outputs than this, on a GPU and on a CPU adapter, which few of them keep busy.
const MANY_OUTPUTS: [i64; 2] = [1 << 18, 1 << 12];

/// Turns of the loops of an invocation that takes four terms of a sum a turn, and of those that store its results.
pub fn turns(body: &ContractBody, parts: u32, sizes: Sizes) -> i64 {
    size(&body.k, sizes) / (4 * i64::from(parts)) + 128
}

/// The fewest parts whose loops the device finishes: one but for very long sums.
pub fn fewest(body: &ContractBody, sizes: Sizes, caps: &Caps) -> u32 {
    let too_few = |parts: &u32| leaves_loops(caps, turns(body, *parts, sizes));
    (0..31).map(|exponent| 1 << exponent).find(|parts| !too_few(parts)).unwrap_or(1 << 31)
}

/// The rule that a split into `parts`, whose loops take `turns` turns each, breaks, if it breaks one.
pub fn broken_rule(
    body: &ContractBody,
    parts: u32,
    turns: i64,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    let [batch, m, n, k] = [&body.batch, &body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1));
    let is_needed = parts == fewest(body, sizes, caps);
    let (outputs, parts) = (batch * m * n, i64::from(parts));
    if leaves_loops(caps, turns) {
        Some(TURNS)
    } else if parts == 1 {
        None
    } else if outputs * parts * 4 > caps.max_storage_binding_bytes as i64 {
        Some("partial sums beyond what the device binds")
    } else if is_needed {
        None
    } else if k / parts < SHORTEST_PART {
        Some("parts of the sum shorter than 64 terms")
    } else if body.k.as_const().is_none_or(|k| k % (4 * parts) != 0) {
        Some("a sum that does not divide into equal parts of whole fours")
    } else if outputs > MANY_OUTPUTS[usize::from(caps.cpu)] {
        Some("the sum split where the outputs alone keep a device busy")
    } else {
        None
    }
}

/// What the second pass takes.
pub fn estimate_ns(body: &ContractBody, parts: u32, sizes: Sizes, peaks: &Peaks) -> f64 {
    let [batch, m, n] = [&body.batch, &body.m, &body.n].map(|idx| size(idx, sizes).max(1) as f64);
    match parts {
        1 => 0.0,
        parts => peaks.launch_ns + 8.0 * batch * m * n * f64::from(parts) / peaks.copy_bytes_per_ns,
    }
}

pub fn passes(
    spec: &KernelSpec,
    body: &ContractBody,
    schedule: &Schedule,
    sizes: Sizes,
    caps: &Caps,
) -> Vec<Pass> {
    let parts = Idx::from(schedule.split_k() as usize);
    let is_even = body.k.as_const().is_some_and(|k| k % (4 * i64::from(schedule.split_k())) == 0);
    let four = Idx::from(4i64);
    let chunk = if is_even { body.k.div(&parts) } else { &body.k.div_ceil(&(&parts * &four)) * &four };
    let batches = &parts * &body.batch;
    let outer = Idx::var(0, &batches);
    let k = Idx::var(3, &chunk);
    let at = &(&outer.div(&body.batch) * &chunk) + &k;
    let last = &body.k - &Idx::from(1i64);
    let term = if is_even { at.clone() } else { at.smaller(&last) };
    let variables = vec![outer.rem(&body.batch), Idx::var(1, &body.m), Idx::var(2, &body.n), term];
    let mut within = Moved::new(Moved::all(spec), variables);
    // What is beyond the end of the sum adds nothing.
    let mut operand = |expr: &Expr| {
        let expr = expr.rewrite(&mut within);
        let inside = Expr::number(&at).binary(Binary::Le, &Expr::number(&last));
        if is_even { expr } else { inside.select(&expr, &Expr::int(expr.dtype(), 0)) }
    };
    let (a, b) = (operand(&body.a), operand(&body.b));
    let partial =
        ContractBody { batch: batches, k: chunk, a, b, epilogue: Expr::arg(0, body.sum), ..body.clone() };
    let rows = &(&body.batch * &body.m) * &body.n;
    let row = Idx::var(0, &rows);
    let at = unflatten(&row, &[body.batch.clone(), body.m.clone(), body.n.clone()]);
    let mut last = Moved::new(vec![Slot::Scratch(0)], at);
    let result = RowResult::PerRow(body.epilogue.rewrite(&mut last));
    let part = Idx::var(1, &parts);
    let stage = Stage {
        extent: parts.clone(),
        combine: Combine::Sum,
        value: Expr::load(0, body.sum, vec![&(&part * &rows) + &row]),
    };
    let sum = KernelSpec {
        inputs: last.dtypes(spec, body.sum),
        output: spec.output,
        params: spec.params,
        body: Body::Reduce { rows: rows.clone(), stages: vec![stage], result },
    };
    let first = Pass {
        spec: KernelSpec { output: body.sum, body: Body::Contract(partial), ..spec.clone() },
        sizes: sizes.to_vec(),
        schedule: schedule.unsplit(),
        inputs: within.inputs,
        output: Slot::Scratch(0),
        len: &parts * &rows,
    };
    let second = Pass {
        schedule: default_schedule(&sum, sizes, caps),
        spec: sum,
        sizes: sizes.to_vec(),
        inputs: last.inputs,
        output: Slot::Output,
        len: rows,
    };
    vec![first, second]
}
