//! An expanded kernel in canonical form: loads numbered in the order of first use, symbols as `p0`, `p1`, ...

use std::collections::HashMap;
use std::sync::Arc;

use super::fuse::{Expanded, ExpandedStage, Scores};
use super::pack::{self, Packed};
use super::visible;
use crate::expr::{Atom, Expr, Idx, Rewrite, flatten, numel, unflatten};
use crate::ir::{ConvAxis, Program, ValueId};
use crate::kernel::{
    AttentionBody, AttentionResult, Body, ContractBody, ConvBody, KernelSpec, Product, RowResult, Stage,
    TopKBody,
};
use crate::tensor::DType;

/// A kernel with what its numbers stand for.
pub struct Made {
    pub spec: KernelSpec,
    pub sources: Vec<ValueId>,
    pub params: Vec<Arc<str>>,
}

/// The kernel of `root`.
pub fn make(program: &Program, packed: &Packed, root: ValueId, expanded: Expanded) -> Made {
    let mut canon =
        Canon { program, packed, at: None, args: HashMap::new(), sources: Vec::new(), params: Vec::new() };
    let body = match expanded {
        Expanded::Map { shape, value } => {
            let len = numel(&shape);
            canon.at = Some(unflatten(&Idx::var(0, &canon.idx(&len)), &canon.shape(&shape)));
            Body::Map { len: canon.idx(&len), value: canon.expr(&value) }
        }
        Expanded::Update { extents, at, when, value } => {
            let len = numel(&extents);
            canon.at = Some(unflatten(&Idx::var(0, &canon.idx(&len)), &canon.shape(&extents)));
            let (at, when) = (canon.idx(&at), canon.expr(&when));
            Body::Update { len: canon.idx(&len), at, when, value: canon.expr(&value) }
        }
        Expanded::Rows { rows, stages, extent, at, result } => {
            let rows = canon.idx(&rows);
            let mut done = Vec::new();
            for ExpandedStage { id, extent, combine, value } in stages {
                let stage = Stage { extent: canon.idx(&extent), combine, value: canon.expr(&value) };
                canon.args.insert(id, done.len() as u32);
                done.push(stage);
            }
            let value = canon.expr(&result);
            let result = match extent {
                None => RowResult::PerRow(value),
                Some(extent) => {
                    RowResult::PerElement { extent: canon.idx(&extent), at: canon.idx(&at), value }
                }
            };
            Body::Reduce { rows, stages: done, result }
        }
        Expanded::Contract { core, batch, m, n, k, a, b, epilogue } => {
            canon.args.insert(core, 0);
            Body::Contract(ContractBody {
                batch: canon.idx(&batch),
                m: canon.idx(&m),
                n: canon.idx(&n),
                k: canon.idx(&k),
                a: canon.expr(&a),
                b: canon.expr(&b),
                sum: program.dtype(core),
                product: Product::Numbers,
                f16_sum: false,
                epilogue: canon.expr(&epilogue),
            })
        }
        Expanded::Conv { core, sizes, axes, w, x, epilogue } => {
            canon.args.insert(core, 0);
            let [batch, groups, out_channels, in_channels] = sizes.map(|size| canon.idx(&size));
            let axes = axes.map(|axis| ConvAxis {
                input: canon.idx(&axis.input),
                output: canon.idx(&axis.output),
                before: canon.idx(&axis.before),
                ..axis
            });
            Body::Conv(ConvBody {
                batch,
                groups,
                out_channels,
                in_channels,
                axes,
                w: canon.expr(&w),
                x: canon.expr(&x),
                product: Product::Numbers,
                sum: program.dtype(core),
                epilogue: canon.expr(&epilogue),
            })
        }
        Expanded::TopK { rows, extent, k, key, largest } => {
            let [rows, extent, k] = [rows, extent, k].map(|size| canon.idx(&size));
            let position = Expr::index(Idx::var(1, &extent), DType::I32);
            Body::TopK(TopKBody { rows, extent, k, key: canon.expr(&key), largest, position, split: None })
        }
        Expanded::Attention { core, batch, m, n, k, scores, value, epilogue } => {
            let Scores { id, d, query, key, score, mean } = scores;
            canon.args.extend([(core, 0), (id, 0)]);
            let [batch, m, n, k, d] = [batch, m, n, k, d].map(|size| canon.idx(&size));
            let (query, key, value) = (canon.expr(&query), canon.expr(&key), canon.expr(&value));
            let score = canon.expr(&score);
            Body::Attention(AttentionBody {
                query,
                key,
                value,
                dot: program.dtype(id),
                keys: visible::keys(&score).map_or(k.clone(), |seen| k.smaller(&seen)),
                score,
                result: AttentionResult::Mixed {
                    mean,
                    dtype: program.dtype(core),
                    epilogue: canon.expr(&epilogue),
                },
                batch,
                m,
                n,
                k,
                d,
            })
        }
    };
    let inputs = canon
        .sources
        .iter()
        .map(|id| packed.get(id).map_or(program.dtype(*id), |words| words.dtype()))
        .collect();
    let spec = KernelSpec { inputs, output: program.dtype(root), params: canon.params.len(), body };
    Made { spec, sources: canon.sources, params: canon.params }
}

struct Canon<'a> {
    program: &'a Program,
    packed: &'a Packed,
    /// What the loop variables of a map's axes become.
    at: Option<Vec<Idx>>,
    args: HashMap<ValueId, u32>,
    sources: Vec<ValueId>,
    params: Vec<Arc<str>>,
}

impl Canon<'_> {
    fn expr(&mut self, expr: &Expr) -> Expr {
        expr.rewrite(self)
    }

    fn idx(&mut self, idx: &Idx) -> Idx {
        crate::expr::rewrite_idx(idx, self, &mut HashMap::new())
    }

    fn shape(&mut self, shape: &[Idx]) -> Vec<Idx> {
        shape.iter().map(|d| self.idx(d)).collect()
    }
}

impl Rewrite for Canon<'_> {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        let position = self.sources.iter().position(|&id| id == source).unwrap_or_else(|| {
            self.sources.push(source);
            self.sources.len() - 1
        });
        // Addressed by offset already, except where a map's expression was taken as it stands.
        let at = if at.len() == 1 { at } else { vec![flatten(&at, self.program.shape(source))] };
        match at.as_slice() {
            [offset] if self.packed.contains_key(&source) => pack::element(position as u32, dtype, offset),
            _ => Expr::load(position as u32, dtype, at),
        }
    }

    fn atom(&mut self, atom: &Atom) -> Option<Idx> {
        match atom {
            Atom::Sym(name) => {
                let position = self.params.iter().position(|p| p == name).unwrap_or_else(|| {
                    self.params.push(name.clone());
                    self.params.len() - 1
                });
                Some(Idx::sym(&format!("p{position}")))
            }
            Atom::Var(var) => self.at.as_ref().and_then(|at| at.get(var.id as usize).cloned()),
            Atom::Div(..) | Atom::Mod(..) | Atom::Min(..) | Atom::Max(..) | Atom::Data(..) => None,
        }
    }

    fn arg(&mut self, number: u32, dtype: DType) -> Expr {
        Expr::arg(self.args.get(&number).copied().unwrap_or(number), dtype)
    }
}
