//! The kernels before a product of words: what makes the words, and sums of codes.

use super::operand::Operand;
use crate::expr::{Atom, Binary, Expr, Idx, Node, Rewrite, flatten, numel, unflatten};
use crate::ir::Combine;
use crate::kernel::apart::depends;
use crate::kernel::fours::in_fours;
use crate::kernel::spec::{Body, KernelSpec, RowResult, Stage};
use crate::tensor::DType;

/// A loop variable with its extent.
pub type Axis = (u32, Idx);

/// Collects the kernels. Scratch memory is numbered behind the kernel's inputs.
pub struct Packing<'a> {
    spec: &'a KernelSpec,
    /// What four codes of a word follow each other along.
    along: Axis,
    /// The dtype of a code.
    byte: DType,
    pub before: Vec<KernelSpec>,
}

impl<'a> Packing<'a> {
    pub fn new(spec: &'a KernelSpec, along: Axis, byte: DType) -> Packing<'a> {
        Packing { spec, along, byte, before: Vec::new() }
    }

    /// The axis of words.
    pub fn axis(&self) -> Axis {
        let (var, extent) = &self.along;
        (*var, extent.div_ceil(&Idx::from(4i64)))
    }

    /// The kernel that comes last.
    pub fn rest(&self, body: Body) -> KernelSpec {
        KernelSpec { inputs: self.inputs(), body, ..self.spec.clone() }
    }

    /// Dtypes of the kernel's inputs and of scratch memory.
    fn inputs(&self) -> Vec<DType> {
        let scratch = self.before.iter().map(|spec| spec.output);
        self.spec.inputs.iter().copied().chain(scratch).collect()
    }

    /// Adds a kernel, and gives what it writes, an element for each place of `axes`, at the place at hand.
    fn add(&mut self, output: DType, body: Body, axes: &[Axis]) -> Expr {
        let inputs = self.inputs();
        let number = inputs.len() as u32;
        self.before.push(KernelSpec { inputs, output, params: self.spec.params, body });
        let at: Vec<Idx> = axes.iter().map(|(var, extent)| Idx::var(*var, extent)).collect();
        Expr::load(number, output, vec![flatten(&at, &extents(axes))])
    }

    /// Four codes of `operand`, at the word at hand.
    fn codes(&self, operand: &Operand) -> [Expr; 4] {
        let ((var, extent), (_, words)) = (&self.along, self.axis());
        let word = Idx::var(*var, &words);
        [0i64, 1, 2, 3].map(|j| {
            let k = &(&word * &Idx::from(4i64)) + &Idx::from(j);
            let code = at(&operand.codes, vec![(*var, k.clone())]);
            if in_fours(extent) {
                return code;
            }
            let [k, end] = [&k, extent].map(|idx| Expr::index(idx.clone(), DType::I32));
            k.below(end).select(&code, &Expr::int(DType::I32, 0))
        })
    }

    /// The word of `operand` at hand: of a constant, or of what a map writes, which lies along `outer`, the words and
    /// `inner`, axes along which nothing changes left out.
    pub fn words(&mut self, operand: &Operand, outer: &[Axis], inner: &[Axis]) -> Expr {
        let codes = self.codes(operand);
        if let Some(word) = word_in_memory(&codes) {
            return word.clone();
        }
        let low = |code: &Expr| code.cast(DType::U32).binary(Binary::BitAnd, &Expr::int(DType::U32, 255));
        let place = |j: i64| low(&codes[j as usize]).binary(Binary::Shl, &Expr::int(DType::U32, 8 * j));
        let word = (1..4).fold(low(&codes[0]), |word, j| word.binary(Binary::BitOr, &place(j)));
        let axes = [own(&operand.codes, outer), vec![self.axis()], own(&operand.codes, inner)].concat();
        let len = numel(&extents(&axes));
        let value = at(&word, places(&axes, &Idx::var(0, &len)));
        self.add(DType::U32, Body::Map { len, value }, &axes)
    }

    /// The sums of the codes of `words` along `summed`, at each place of `rows`.
    pub fn sums(&mut self, words: &Expr, rows: &[Axis], summed: &[Axis]) -> Expr {
        let code = |j: i64| {
            let word = words.binary(Binary::Shr, &Expr::int(DType::U32, 8 * j));
            word.cast(self.byte).cast(DType::I32)
        };
        let four = (1..4).fold(code(0), |sum, j| sum + code(j));
        let axes = own(words, rows);
        let (rows, extent) = (numel(&extents(&axes)), numel(&extents(summed)));
        let (row, position) = (Idx::var(0, &rows), Idx::var(1, &extent));
        let value = at(&four, [places(&axes, &row), places(summed, &position)].concat());
        let stage = Stage { extent, combine: Combine::Sum, value };
        let result = RowResult::PerRow(Expr::arg(0, DType::I32));
        self.add(DType::I32, Body::Reduce { rows, stages: vec![stage], result }, &axes)
    }
}

fn extents(axes: &[Axis]) -> Vec<Idx> {
    axes.iter().map(|(_, extent)| extent.clone()).collect()
}

/// The axes along which `expr` changes.
fn own(expr: &Expr, axes: &[Axis]) -> Vec<Axis> {
    axes.iter().filter(|(var, _)| depends(expr, *var)).cloned().collect()
}

/// Where the variables of `axes` are at a row-major position.
fn places(axes: &[Axis], position: &Idx) -> Vec<Axis> {
    axes.iter().map(|(var, _)| *var).zip(unflatten(position, &extents(axes))).collect()
}

/// `expr` with variables at other places.
pub fn at(expr: &Expr, places: Vec<(u32, Idx)>) -> Expr {
    expr.rewrite(&mut At(places))
}

struct At(Vec<(u32, Idx)>);

impl Rewrite for At {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        Expr::load(source, dtype, at)
    }

    fn atom(&mut self, atom: &Atom) -> Option<Idx> {
        let Atom::Var(var) = atom else { return None };
        self.0.iter().find(|(id, _)| *id == var.id).map(|(_, place)| place.clone())
    }
}

/// The word of which `codes` are the bytes in order.
fn word_in_memory(codes: &[Expr; 4]) -> Option<&Expr> {
    let parts = |j: usize| {
        let Node::Cast(DType::I32, byte) = codes[j].node() else { return None };
        let Node::Cast(DType::I8 | DType::U8, shifted) = byte.node() else { return None };
        let Node::Binary(Binary::Shr, word, by) = shifted.node() else { return None };
        (word.dtype() == DType::U32 && *by == Expr::int(DType::U32, 8 * j as i64)).then_some(word)
    };
    let word = parts(0)?;
    (1..4).all(|j| parts(j) == Some(word)).then_some(word)
}
