//! Loop nests: reductions, contractions, and what is computed along reduced rows.

use super::{Combine, Convolution, Def, Program, Stop, ValueId};
use crate::expr::{Expr, Idx, numel, vars};
use crate::tensor::DType;

/// The four groups of axes of a contraction, `out[b.., m.., n..] = sum over k..`: their extents, or the
/// loop variables over them.
#[derive(Clone, Debug, Default)]
pub struct Axes {
    /// Axes of both operands that the result keeps.
    pub batch: Vec<Idx>,
    /// Axes of the left operand that the result keeps.
    pub m: Vec<Idx>,
    /// Axes of the right operand that the result keeps.
    pub n: Vec<Idx>,
    /// Axes that are summed over.
    pub k: Vec<Idx>,
}

impl Program {
    /// `out[i] = combine over r of f(i, r)`, `i` over `shape` and `r` over `extents`.
    pub fn reduction(
        &mut self,
        shape: Vec<Idx>,
        extents: Vec<Idx>,
        combine: Combine,
        f: impl FnOnce(&Program, &[Idx], &[Idx]) -> Expr,
    ) -> ValueId {
        let (extents, inner) = loops(shape.len() as u32, extents);
        let body = f(self, &vars(0, &shape), &inner);
        if extents.is_empty() {
            return self.map(shape, body);
        }
        self.add(body.dtype(), shape, Def::Reduce { extents, combine, body })
    }

    /// `out[b.., m.., n..] = sum over k.. of left * right`, where `f` gives both from the loop variables.
    pub fn contract(&mut self, extents: Axes, f: impl FnOnce(&Program, &Axes) -> (Expr, Expr)) -> ValueId {
        self.convolution(extents, None, f)
    }

    /// A contraction that is a convolution where there are `windows`.
    pub fn convolution(
        &mut self,
        extents: Axes,
        windows: Option<Convolution>,
        f: impl FnOnce(&Program, &Axes) -> (Expr, Expr),
    ) -> ValueId {
        let (batch, m) = (extents.batch.len(), extents.m.len());
        let shape: Vec<Idx> = [extents.batch, extents.m, extents.n].concat();
        let (k, inner) = loops(shape.len() as u32, extents.k);
        let outer = vars(0, &shape);
        let at = Axes {
            batch: outer[..batch].to_vec(),
            m: outer[batch..batch + m].to_vec(),
            n: outer[batch + m..].to_vec(),
            k: inner,
        };
        let (a, b) = f(self, &at);
        self.add(a.dtype(), shape, Def::Contract { batch, m, k, a, b, windows: windows.map(Box::new) })
    }

    /// `out[i] = combine over the axes of f(x[i, r])`; the axes stay with extent 1 where `keep`.
    pub fn reduce(
        &mut self,
        x: ValueId,
        axes: &[usize],
        keep: bool,
        combine: Combine,
        f: impl FnOnce(&Expr) -> Expr,
    ) -> Result<ValueId, Stop> {
        let shape = self.shape(x).to_vec();
        let (kept, extents) = split(&shape, axes);
        let reduced = self
            .reduction(kept, extents, combine, |p, outer, inner| f(&p.load(x, &join(outer, inner, axes))));
        if keep { self.keep_axes(x, reduced, axes) } else { Ok(reduced) }
    }

    /// `reduced`, made from `x` without `axes`, with these as axes of extent 1.
    pub fn keep_axes(&mut self, x: ValueId, reduced: ValueId, axes: &[usize]) -> Result<ValueId, Stop> {
        let one = Idx::from(1i64);
        let full = self.shape(x).iter().enumerate();
        let full = full.map(|(axis, d)| if axes.contains(&axis) { one.clone() } else { d.clone() }).collect();
        self.reshape(reduced, full)
    }

    /// `out[i] = f(x[i], rows[i without axes]..)`: the way back from reductions of `x` over `axes`.
    pub fn along(
        &mut self,
        x: ValueId,
        axes: &[usize],
        rows: &[ValueId],
        f: impl FnOnce(&Expr, &[Expr]) -> Expr,
    ) -> ValueId {
        let shape = self.shape(x).to_vec();
        let at = vars(0, &shape);
        let (outer, _) = split(&at, axes);
        let rows: Vec<Expr> = rows.iter().map(|&row| self.load(row, &outer)).collect();
        let body = f(&self.load(x, &at), &rows);
        self.map(shape, body)
    }

    /// The mean of `x` over `axes`, which do not stay. 16-bit floats should be cast up before.
    pub fn mean(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId, Stop> {
        let count = self.count(x, axes);
        let sum = self.reduce(x, axes, false, Combine::Sum, Expr::clone)?;
        Ok(self.unary(sum, |e| e / &count))
    }

    /// How many elements of `x` a reduction over `axes` combines, in `x`'s dtype.
    pub fn count(&self, x: ValueId, axes: &[usize]) -> Expr {
        Expr::index(numel(&split(self.shape(x), axes).1), DType::I64).cast(self.dtype(x))
    }
}

/// `all` without the elements at `axes`, and these in the order of `axes`.
pub fn split(all: &[Idx], axes: &[usize]) -> (Vec<Idx>, Vec<Idx>) {
    let outer = all.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, i)| i.clone());
    (outer.collect(), axes.iter().map(|&axis| all[axis].clone()).collect())
}

/// The inverse of [`split`].
pub fn join(outer: &[Idx], inner: &[Idx], axes: &[usize]) -> Vec<Idx> {
    let mut outer = outer.iter();
    (0..outer.len() + axes.len())
        .map(|axis| match axes.iter().position(|&a| a == axis) {
            Some(position) => inner[position].clone(),
            None => outer.next().cloned().unwrap_or_else(|| Idx::from(0i64)),
        })
        .collect()
}

/// Extents that need a loop, and an index for each extent: a variable, or 0 for an extent of 1.
fn loops(first: u32, extents: Vec<Idx>) -> (Vec<Idx>, Vec<Idx>) {
    let mut kept = Vec::new();
    let mut inner = Vec::new();
    for extent in extents {
        inner.push(Idx::var(first + kept.len() as u32, &extent));
        if !extent.is(1) {
            kept.push(extent);
        }
    }
    (kept, inner)
}
