//! Attention in several passes: without fusion, or with the keys in parts that a last pass combines.
//!
//! ```text
//! scores[b, m, k]  = score(sum over d of query * key)                      a contraction
//! weights[b, m, k] = softmax over k                                        a reduction
//! out[b, m, n]     = epilogue(sum over k of weights * value)               a contraction
//!
//! partial[p, b, m] = sums, top and weight of part p of the keys            attention with p times the batch
//! out[b, m, n]     = epilogue(mean of the parts, faded to the largest top) a reduction with three statistics
//! ```

use std::collections::HashMap;

use super::attention::{AttentionSchedule, FusedSchedule};
use super::caps::Caps;
use super::moved::Moved;
use super::passes::{Pass, Slot};
use super::schedule::{Schedule, Sizes};
use super::space::default_schedule;
use super::spec::{
    AttentionBody, AttentionResult, Body, ContractBody, KernelSpec, Product, RowResult, Stage,
};
use crate::expr::{Binary, Expr, Idx, rewrite_idx, unflatten};
use crate::ir::Combine;
use crate::tensor::DType;

/// A kernel of a pass, and where its inputs come from.
type Part = (KernelSpec, Vec<Slot>);

/// Attention as three kernels.
pub struct Unfused {
    /// The scores.
    pub scores: Part,
    /// Their softmax.
    pub weights: Part,
    /// Its product with the values.
    pub mixed: Part,
}

/// The passes of a fused schedule with several parts, or of three kernels.
pub fn passes(
    spec: &KernelSpec,
    body: &AttentionBody,
    schedule: &AttentionSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<Vec<Pass>> {
    let (batch, m, n, k) = (&body.batch, &body.m, &body.n, &body.k);
    let pass = |(spec, inputs): Part, schedule: Schedule, output: Slot, len: Idx| Pass {
        spec,
        sizes: sizes.to_vec(),
        schedule,
        inputs,
        output,
        len,
    };
    match schedule {
        AttentionSchedule::Fused(s) if s.split_k == 1 => None,
        AttentionSchedule::Fused(s) => {
            let first = FusedSchedule { split_k: 1, ..s.clone() };
            let first = Schedule::Attention(AttentionSchedule::Fused(first));
            let (parts, combined) = split(spec, body, s.split_k)?;
            let len = &Idx::from(s.split_k as usize) * &(&(batch * m) * &(n + &Idx::from(2i64)));
            let last = default_schedule(&combined.0, sizes, caps);
            Some(vec![
                pass(parts, first, Slot::Scratch(0), len),
                pass(combined, last, Slot::Output, &(batch * m) * n),
            ])
        }
        AttentionSchedule::Unfused { scores, weights, mixed } => {
            let parts = unfused(spec, body)?;
            let len = &(batch * m) * k;
            Some(vec![
                pass(parts.scores, (**scores).clone(), Slot::Scratch(0), len.clone()),
                pass(parts.weights, Schedule::Reduce(weights.clone()), Slot::Scratch(1), len),
                pass(parts.mixed, (**mixed).clone(), Slot::Output, &(batch * m) * n),
            ])
        }
    }
}

/// The three kernels; `None` for parts of attention.
pub fn unfused(spec: &KernelSpec, body: &AttentionBody) -> Option<Unfused> {
    let AttentionResult::Mixed { mean, dtype, epilogue } = &body.result else { return None };
    let AttentionBody { batch, m, n, k, d, .. } = body;
    let [b, query] = [Idx::var(0, batch), Idx::var(1, m)];
    let f32 = DType::F32;
    let kernel = |pass: &Moved, output, body| {
        let spec = KernelSpec { inputs: pass.dtypes(spec, f32), output, params: spec.params, body };
        (spec, pass.inputs.clone())
    };

    // The keys become the columns of a contraction, the head size its sum.
    let zero = Idx::from(0i64);
    let mut moved =
        Moved::new(vec![], [&b, &query, &zero, &Idx::var(2, k), &Idx::var(3, d)].map(Idx::clone).into());
    let contract = ContractBody {
        batch: batch.clone(),
        m: m.clone(),
        n: k.clone(),
        k: d.clone(),
        a: body.query.rewrite(&mut moved),
        b: body.key.rewrite(&mut moved),
        sum: body.dot,
        product: Product::Numbers,
        f16_sum: false,
        epilogue: body.score.rewrite(&mut moved),
    };
    let scores = kernel(&moved, f32, Body::Contract(contract));

    let rows = batch * m;
    let at = &(&Idx::var(0, &rows) * k) + &Idx::var(1, k);
    let score = Expr::load(0, f32, vec![at.clone()]);
    let weight = (&score - floor(&Expr::arg(0, f32))).exp();
    let stages = vec![
        Stage { extent: k.clone(), combine: Combine::Max, value: score },
        Stage { extent: k.clone(), combine: Combine::Sum, value: weight.clone() },
    ];
    let mut moved = Moved::new(vec![Slot::Scratch(0)], vec![zero.clone(); 5]);
    moved.args = vec![weight, Expr::arg(1, f32)];
    let result = RowResult::PerElement { extent: k.clone(), at, value: mean.rewrite(&mut moved) };
    let weights = kernel(&moved, f32, Body::Reduce { rows, stages, result });

    let mut moved = Moved::new(
        vec![Slot::Scratch(1)],
        vec![b.clone(), query.clone(), Idx::var(2, n), Idx::var(3, k), zero],
    );
    let at = &(&(&(&b * m) + &query) * k) + &Idx::var(3, k);
    let contract = ContractBody {
        batch: batch.clone(),
        m: m.clone(),
        n: n.clone(),
        k: k.clone(),
        a: Expr::load(0, f32, vec![at]),
        b: body.value.rewrite(&mut moved),
        sum: *dtype,
        product: Product::Numbers,
        f16_sum: false,
        epilogue: epilogue.rewrite(&mut moved),
    };
    let mixed = kernel(&moved, spec.output, Body::Contract(contract));
    Some(Unfused { scores, weights, mixed })
}

/// Attention over `parts` parts of the keys, and what combines them; `None` for parts of attention.
fn split(spec: &KernelSpec, body: &AttentionBody, parts: u32) -> Option<(Part, Part)> {
    let AttentionResult::Mixed { mean, dtype, epilogue } = &body.result else { return None };
    let AttentionBody { batch, m, n, k, .. } = body;
    let (parts, f32, zero) = (Idx::from(parts as usize), DType::F32, Idx::from(0i64));
    let (batches, chunk) = (&parts * batch, k.div_ceil(&parts));
    let outer = Idx::var(0, &batches);
    let first = &outer.div(batch) * &chunk;
    let key = (&first + &Idx::var(3, &chunk)).smaller(&(k - &Idx::from(1i64)));
    let all = Moved::all(spec);
    let variables = vec![outer.rem(batch), Idx::var(1, m), Idx::var(2, n), key, Idx::var(4, &body.d)];
    let mut moved = Moved::new(all.clone(), variables);
    let keys = rewrite_idx(&body.keys, &mut moved, &mut HashMap::new());
    let partial = AttentionBody {
        batch: batches,
        keys: chunk.smaller(&(&keys - &first).larger(&zero)),
        k: chunk,
        query: body.query.rewrite(&mut moved),
        key: body.key.rewrite(&mut moved),
        value: body.value.rewrite(&mut moved),
        score: body.score.rewrite(&mut moved),
        result: AttentionResult::Parts,
        ..body.clone()
    };
    let partial = KernelSpec { output: f32, body: Body::Attention(partial), ..spec.clone() };

    let rows = &(batch * m) * n;
    let row = Idx::var(0, &rows);
    let at = unflatten(&row, &[batch.clone(), m.clone(), n.clone()]);
    let query = &(&at[0] * m) + &at[1];
    let part = &(&Idx::var(1, &parts) * &(batch * m)) + &query;
    let width = n + &Idx::from(2i64);
    let read = |column: &Idx| Expr::load(0, f32, vec![&(&part * &width) + column]);
    let top = read(n);
    let faded = |x: Expr| (&top - Expr::arg(0, f32)).exp() * x;
    let stage = |combine, value| Stage { extent: parts.clone(), combine, value };
    let stages = vec![
        stage(Combine::Max, top.clone()),
        stage(Combine::Sum, faded(read(&(n + &Idx::from(1i64))))),
        stage(Combine::Sum, faded(read(&at[2]))),
    ];
    let mut moved = Moved::new(vec![], vec![zero.clone(); 5]);
    moved.args = vec![Expr::arg(2, f32), Expr::arg(1, f32)];
    let mean = mean.rewrite(&mut moved).cast(*dtype);
    let mut moved =
        Moved::new(vec![Slot::Scratch(0)], [&at[0], &at[1], &at[2], &zero, &zero].map(Idx::clone).into());
    moved.args = vec![mean];
    let result = RowResult::PerRow(epilogue.rewrite(&mut moved));
    let combined = KernelSpec {
        inputs: moved.dtypes(spec, f32),
        output: spec.output,
        params: spec.params,
        body: Body::Reduce { rows, stages, result },
    };
    Some(((partial, all), (combined, moved.inputs)))
}

/// The largest score of a row, or the lowest finite number: what is hidden altogether weighs nothing.
fn floor(top: &Expr) -> Expr {
    top.binary(Binary::Max, &Expr::float(DType::F32, f32::MIN as f64))
}
