//! A contraction whose sum is cut into `split_k` parts, for outputs too small to keep a device busy:
//!
//! ```text
//! partial[s, b, m, n] = sum over k of part s of A[b, m, k] * B[b, k, n]     a contraction with split_k times the batch
//! out[b, m, n]        = epilogue(sum over s of partial[s, b, m, n])         a reduction
//! ```

use super::caps::Caps;
use super::passes::{Pass, Slot};
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::default_schedule;
use super::spec::{Body, ContractBody, KernelSpec, RowResult, Stage};
use crate::expr::{Atom, Expr, Idx, Rewrite, unflatten};
use crate::ir::Combine;
use crate::tensor::DType;

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
    let mut within = Vars {
        inputs: None,
        vars: [
            outer.rem(&body.batch),
            Idx::var(1, &body.m),
            Idx::var(2, &body.n),
            &(&outer.div(&body.batch) * &chunk) + &k,
        ],
    };
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
    let [b, m, n] = [0, 1, 2].map(|axis| at[axis].clone());
    let mut last = Vars { inputs: Some(Vec::new()), vars: [b, m, n, Idx::from(0i64)] };
    let result = RowResult::PerRow(body.epilogue.rewrite(&mut last));
    let read = last.inputs.unwrap_or_default();
    let part = Idx::var(1, &parts);
    let stage = Stage {
        extent: parts.clone(),
        combine: Combine::Sum,
        value: Expr::load(0, body.sum, vec![&(&part * &rows) + &row]),
    };
    let sum = KernelSpec {
        inputs: std::iter::once(body.sum).chain(read.iter().map(|&i| spec.inputs[i])).collect(),
        output: spec.output,
        params: spec.params,
        body: Body::Reduce { rows: rows.clone(), stages: vec![stage], result },
    };
    let first = Pass {
        spec: KernelSpec { output: body.sum, body: Body::Contract(partial), ..spec.clone() },
        schedule: schedule.unsplit(),
        inputs: (0..spec.inputs.len()).map(Slot::Input).collect(),
        output: Slot::Scratch(0),
        len: &parts * &rows,
    };
    let second = Pass {
        schedule: default_schedule(&sum, sizes, caps),
        spec: sum,
        inputs: std::iter::once(Slot::Scratch(0)).chain(read.into_iter().map(Slot::Input)).collect(),
        output: Slot::Output,
        len: rows,
    };
    vec![first, second]
}

/// Replaces the contraction's loop variables; where `inputs` collects, loads are numbered anew behind the scratch.
struct Vars {
    inputs: Option<Vec<usize>>,
    vars: [Idx; 4],
}

impl Rewrite for Vars {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        let Some(inputs) = &mut self.inputs else { return Expr::load(source, dtype, at) };
        let source = source as usize;
        let position = inputs.iter().position(|&i| i == source).unwrap_or_else(|| {
            inputs.push(source);
            inputs.len() - 1
        });
        Expr::load(position as u32 + 1, dtype, at)
    }

    fn atom(&mut self, atom: &Atom) -> Option<Idx> {
        match atom {
            Atom::Var(var) => self.vars.get(var.id as usize).cloned(),
            Atom::Sym(_) | Atom::Div(..) | Atom::Mod(..) | Atom::Min(..) | Atom::Max(..) | Atom::Data(..) => {
                None
            }
        }
    }
}
