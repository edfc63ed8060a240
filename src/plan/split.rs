//! Kernels over tensors that are larger than the device can bind: the same computation in ranges of its
//! leading index, each of which binds only the windows that it touches.

use std::collections::HashMap;

use crate::expr::{Atom, Expr, Idx, Rewrite, rewrite_idx};
use crate::ir::ConvVar;
use crate::kernel::{AttentionResult, Body, ConvBody, KernelSpec, RowResult, TopKBody};
use crate::tensor::DType;

/// A kernel that computes a range of its leading index. Two parameters follow the original ones: the
/// range's first index and its length.
#[derive(Clone, Debug)]
pub struct SplitKernel {
    /// The kernel.
    pub spec: KernelSpec,
    /// Extent of the leading index, over the original parameters.
    pub extent: Idx,
    /// Elements that each input's window moves per index; `None` for those that are bound whole.
    pub inputs: Vec<Option<Idx>>,
    /// Elements that the output's window moves per index.
    pub output: Idx,
}

/// Split `spec` so that the inputs marked `windowed`, and the output, are reached through windows; `None` where
/// one of them is not read in step with the leading index.
pub fn split(spec: &KernelSpec, windowed: &[bool]) -> Option<SplitKernel> {
    let first = Idx::sym(&format!("p{}", spec.params));
    let len = Idx::sym(&format!("p{}", spec.params + 1));
    let lead = match &spec.body {
        Body::Map { .. } | Body::Update { .. } | Body::Reduce { .. } | Body::TopK(_) => 0,
        // A single product is cut by rows.
        Body::Contract(c) => c.batch.is(1) as u32,
        Body::Conv(c) => conv_lead(c) as u32,
        Body::Attention(c) => c.batch.is(1) as u32,
    };
    let mut shift = Shift {
        lead,
        first: &first,
        len: &len,
        windowed,
        strides: vec![None; windowed.len()],
        failed: false,
    };
    let (body, extent, output) = match &spec.body {
        Body::Map { len: all, value } => {
            let value = shift.expr(value);
            (Body::Map { len: len.clone(), value }, all.clone(), Idx::from(1i64))
        }
        // Where it writes is not in step with anything.
        Body::Update { .. } => return None,
        Body::Reduce { rows, stages, result } => {
            let mut stages = stages.clone();
            stages.iter_mut().for_each(|s| s.value = shift.expr(&s.value));
            let (result, stride) = match result {
                RowResult::PerRow(value) => (RowResult::PerRow(shift.expr(value)), Idx::from(1i64)),
                RowResult::PerElement { extent, at, value } => {
                    let stride = shift.stride(at)?;
                    // A slice of a stack begins elsewhere than where its window would.
                    let start = at.rewrite(&mut |atom| match atom {
                        Atom::Var(var) if var.id == lead => Some(Idx::from(0i64)),
                        _ => None,
                    });
                    if !start.is_below(&stride) {
                        return None;
                    }
                    let (at, value) = (shift.local(at), shift.expr(value));
                    (RowResult::PerElement { extent: extent.clone(), at, value }, stride)
                }
            };
            (Body::Reduce { rows: len.clone(), stages, result }, rows.clone(), stride)
        }
        Body::Contract(c) => {
            let mut cut = c.clone();
            (cut.a, cut.b, cut.epilogue) = (shift.expr(&c.a), shift.expr(&c.b), shift.expr(&c.epilogue));
            let (extent, stride) = if lead == 0 { (&c.batch, &c.m * &c.n) } else { (&c.m, c.n.clone()) };
            let extent = extent.clone();
            if lead == 0 {
                cut.batch = len.clone()
            } else {
                cut.m = len.clone()
            }
            (Body::Contract(cut), extent, stride)
        }
        Body::Conv(c) => {
            let mut cut = c.clone();
            (cut.w, cut.x, cut.epilogue) = (shift.expr(&c.w), shift.expr(&c.x), shift.expr(&c.epilogue));
            let positions = c.axes.iter().fold(Idx::from(1i64), |n, axis| &n * &axis.output);
            let (all, each, outer) = match conv_lead(c) {
                ConvVar::Out => (&mut cut.out_channels, positions, c.out_channels.clone()),
                _ => {
                    let channels = &c.groups * &c.out_channels;
                    (&mut cut.batch, &channels * &positions, c.batch.clone())
                }
            };
            *all = len.clone();
            (Body::Conv(cut), outer, each)
        }
        Body::TopK(c) => {
            let cut = TopKBody { rows: len.clone(), key: shift.expr(&c.key), ..c.clone() };
            (Body::TopK(cut), c.rows.clone(), c.k.clone())
        }
        Body::Attention(c) => {
            let AttentionResult::Mixed { mean, dtype, epilogue } = &c.result else { return None };
            let mut cut = c.clone();
            for expr in [&mut cut.query, &mut cut.key, &mut cut.value, &mut cut.score] {
                *expr = shift.expr(expr);
            }
            cut.keys = rewrite_idx(&c.keys, &mut shift, &mut HashMap::new());
            let epilogue = shift.expr(epilogue);
            cut.result = AttentionResult::Mixed { mean: mean.clone(), dtype: *dtype, epilogue };
            let (extent, stride) = if lead == 0 { (&c.batch, &c.m * &c.n) } else { (&c.m, c.n.clone()) };
            let extent = extent.clone();
            *if lead == 0 { &mut cut.batch } else { &mut cut.m } = len.clone();
            (Body::Attention(cut), extent, stride)
        }
    };
    let Shift { strides, failed, .. } = shift;
    let spec = KernelSpec { inputs: spec.inputs.clone(), output: spec.output, params: spec.params + 2, body };
    (!failed).then_some(SplitKernel { spec, extent, inputs: strides, output })
}

/// The leading index of a convolution: a single image is cut by output channels.
fn conv_lead(c: &ConvBody) -> ConvVar {
    if c.batch.is(1) && c.groups.is(1) { ConvVar::Out } else { ConvVar::Batch }
}

/// Rewrites the leading variable: loads through windows keep the index within the range, all else sees the
/// index within the whole.
struct Shift<'a> {
    lead: u32,
    first: &'a Idx,
    len: &'a Idx,
    windowed: &'a [bool],
    strides: Vec<Option<Idx>>,
    failed: bool,
}

impl Shift<'_> {
    fn expr(&mut self, expr: &Expr) -> Expr {
        expr.rewrite(self)
    }

    /// `idx` with the leading variable over the range.
    fn local(&self, idx: &Idx) -> Idx {
        idx.rewrite(&mut |atom| match atom {
            Atom::Var(var) if var.id == self.lead => Some(Idx::var(self.lead, self.len)),
            _ => None,
        })
    }

    /// What `idx`, already over the whole, gains per step of the leading index: a size, or nothing.
    fn stride(&self, idx: &Idx) -> Option<Idx> {
        let step = |by: &Idx| {
            idx.rewrite(&mut |atom| match atom {
                Atom::Var(var) if var.id == self.lead => Some(&Idx::var(self.lead, &var.extent) + by),
                _ => None,
            })
        };
        let gained = &step(self.first) - idx;
        let stride = gained.div(self.first);
        (stride.is_size() && &stride * self.first == gained).then_some(stride)
    }
}

impl Rewrite for Shift<'_> {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        let input = source as usize;
        if !self.windowed.get(input).copied().unwrap_or(false) {
            return Expr::load(source, dtype, at);
        }
        // The indices have been shifted to the whole; a window undoes the shift.
        let within: Vec<Idx> = at
            .iter()
            .map(|idx| {
                let stride = idx_gain(idx, self.first);
                match (&stride, &self.strides[input]) {
                    (Some(new), Some(old)) if new != old => self.failed = true,
                    (None, _) => self.failed = true,
                    _ => {}
                }
                let stride = stride.unwrap_or_else(|| Idx::from(0i64));
                // One index must stay within its own stretch.
                let start = idx.rewrite(&mut |atom| match atom {
                    Atom::Var(var) if var.id == self.lead => Some(Idx::from(0i64)),
                    _ => (Some(atom) == self.first.as_atom()).then(|| Idx::from(0i64)),
                });
                self.failed |= !start.is_below(&stride);
                self.strides[input] = Some(stride.clone());
                idx - &(&stride * self.first)
            })
            .collect();
        Expr::load(source, dtype, within)
    }

    fn atom(&mut self, atom: &Atom) -> Option<Idx> {
        match atom {
            Atom::Var(var) if var.id == self.lead => Some(&Idx::var(self.lead, self.len) + self.first),
            _ => None,
        }
    }
}

/// The factor of `first` in `idx`, when `first` occurs linearly and outside of any division.
fn idx_gain(idx: &Idx, first: &Idx) -> Option<Idx> {
    let first_atom = first.as_atom()?;
    let zero = idx.rewrite(&mut |atom| (atom == first_atom).then(|| Idx::from(0i64)));
    let one = idx.rewrite(&mut |atom| (atom == first_atom).then(|| Idx::from(1i64)));
    let gain = &one - &zero;
    (gain.is_size() && *idx == &zero + &(&gain * first)).then_some(gain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::vars;

    fn map(len: i64, at: impl Fn(&Idx) -> Idx) -> KernelSpec {
        let len = Idx::from(len);
        let i = vars(0, std::slice::from_ref(&len)).remove(0);
        let value = Expr::load(0, DType::F32, vec![at(&i)]);
        KernelSpec { inputs: vec![DType::F32], output: DType::F32, params: 0, body: Body::Map { len, value } }
    }

    #[test]
    fn what_moves_with_the_leading_index_is_reached_through_a_window() {
        let rows: [(&str, KernelSpec, Option<Option<i64>>); 5] = [
            ("in step", map(100, |i| i.clone()), Some(Some(1))),
            ("three for one", map(100, |i| &(i * &Idx::from(3i64)) + &Idx::from(2i64)), Some(Some(3))),
            ("always the same", map(100, |_| Idx::from(7i64)), None),
            ("beyond its stretch", map(100, |i| i + &Idx::from(2i64)), None),
            ("wrapped", map(100, |i| i.rem(&Idx::from(7i64))), None),
        ];
        for (name, spec, want) in rows {
            let got = split(&spec, &[true]).map(|s| s.inputs[0].as_ref().and_then(Idx::as_const));
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn what_is_bound_whole_sees_the_whole_index() {
        let cut = split(&map(100, |i| i.rem(&Idx::from(7i64))), &[false]).unwrap();
        let Body::Map { len, value } = &cut.spec.body else { panic!("a map") };
        assert_eq!(len.to_string(), "p1");
        assert_eq!(value.to_string(), "t0[((i0 + p0) % (7))]");
    }
}
