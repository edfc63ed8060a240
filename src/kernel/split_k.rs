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
use super::space::default_schedule;
use super::spec::{Body, ContractBody, KernelSpec, RowResult, Stage};
use crate::expr::{Expr, Idx, unflatten};
use crate::ir::Combine;

/// A sum is not split into parts shorter than this ...
const SHORTEST_PART: i64 = 64;
/// ... nor where there are more outputs than this, on a GPU and on a CPU adapter, which few of them keep busy.
const MANY_OUTPUTS: [i64; 2] = [1 << 18, 1 << 12];

/// The rule that a split into `parts` breaks, if it breaks one.
pub fn broken_rule(body: &ContractBody, parts: u32, sizes: Sizes, caps: &Caps) -> Option<&'static str> {
    let [batch, m, n, k] = [&body.batch, &body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1));
    let (outputs, parts) = (batch * m * n, i64::from(parts));
    if parts == 1 {
        None
    } else if k / parts < SHORTEST_PART {
        Some("parts of the sum shorter than 64 terms")
    } else if body.k.as_const().is_none_or(|k| k % (4 * parts) != 0) {
        Some("a sum that does not divide into equal parts of whole fours")
    } else if outputs * parts * 4 > caps.max_storage_binding_bytes as i64 {
        Some("partial sums beyond what the device binds")
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
    let chunk = body.k.div(&parts);
    let batches = &parts * &body.batch;
    let outer = Idx::var(0, &batches);
    let k = Idx::var(3, &chunk);
    let variables = vec![
        outer.rem(&body.batch),
        Idx::var(1, &body.m),
        Idx::var(2, &body.n),
        &(&outer.div(&body.batch) * &chunk) + &k,
    ];
    let mut within = Moved::new(Moved::all(spec), variables);
    let partial = ContractBody {
        batch: batches,
        k: chunk,
        a: body.a.rewrite(&mut within),
        b: body.b.rewrite(&mut within),
        epilogue: Expr::arg(0, body.sum),
        ..body.clone()
    };
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
