//! A contraction whose sum is cut into `split_k` parts, for outputs too small to keep a device busy:
//!
//! ```text
//! partial[s, b, m, n] = sum over k of part s of A[b, m, k] * B[b, k, n]     a contraction with split_k times the batch
//! out[b, m, n]        = epilogue(sum over s of partial[s, b, m, n])         a reduction
//! ```

use super::caps::Caps;
use super::contract::ContractSchedule;
use super::passes::{Pass, Slot};
use super::schedule::{Schedule, Sizes};
use super::space::default_schedule;
use super::spec::{Body, ContractBody, KernelSpec, RowResult, Stage};
use crate::expr::{Atom, Expr, Idx, Rewrite, unflatten};
use crate::ir::Combine;
use crate::tensor::DType;

pub fn passes(
    spec: &KernelSpec,
    body: &ContractBody,
    schedule: &ContractSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Vec<Pass> {
    let parts = Idx::from(schedule.split_k as usize);
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
        schedule: Schedule::Contract(ContractSchedule { split_k: 1, ..schedule.clone() }),
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
