//! An operand of a contraction or convolution, computed before it.

use super::{Kernel, Part};
use crate::expr::{Atom, Expr, Idx, Node, flatten, unflatten};
use crate::ir::ConvVar;
use crate::kernel::moved::Moved;
use crate::kernel::operand::consecutive;
use crate::kernel::passes::Slot;
use crate::kernel::spec::{Body, ContractBody, ConvBody, KernelSpec};
use crate::tensor::DType;

/// The kernel of the operand and the one that reads it; `None` where there is no operand that a kernel of its own would
/// leave easier to read.
pub fn kernels(spec: &KernelSpec, part: Part) -> Option<Vec<Kernel>> {
    let (expr, axes) = match &spec.body {
        Body::Contract(body) => of_product(body, part)?,
        Body::Conv(body) => of_convolution(body, part)?,
        Body::Map { .. } | Body::Update { .. } | Body::Reduce { .. } | Body::Attention(_) | Body::TopK(_) => {
            return None;
        }
    };
    let dtype = expr.dtype();
    if dtype == DType::Bool || dtype.bits() > 32 {
        return None;
    }
    // An axis along which it does not change takes no memory.
    let axes: Vec<(u32, Idx)> = axes.into_iter().filter(|(var, _)| depends(expr, *var)).collect();
    let extents: Vec<Idx> = axes.iter().map(|(_, extent)| extent.clone()).collect();
    let len = extents.iter().fold(Idx::from(1i64), |len, extent| &len * extent);
    let at = unflatten(&Idx::var(0, &len), &extents);
    let most = axes.iter().map(|(var, _)| *var as usize + 1).max().unwrap_or(0);
    let mut variables = vec![Idx::from(0i64); most];
    for ((var, _), at) in axes.iter().zip(at) {
        variables[*var as usize] = at;
    }
    let mut moved = Moved::new(Vec::new(), variables);
    let value = expr.rewrite(&mut moved);
    let body = Body::Map { len, value };
    let first = KernelSpec { inputs: moved.dtypes(spec, dtype), output: dtype, params: spec.params, body };

    let own: Vec<Idx> = axes.iter().map(|(var, extent)| Idx::var(*var, extent)).collect();
    let read = Expr::load(0, dtype, vec![flatten(&own, &extents)]);
    let mut left = Moved::new(vec![Slot::Scratch(0)], Vec::new());
    let mut choose = |which: Part, expr: &Expr| match which == part {
        true => read.clone(),
        false => expr.rewrite(&mut left),
    };
    let body = match &spec.body {
        Body::Contract(body) => {
            let (a, b) = (choose(Part::A, &body.a), choose(Part::B, &body.b));
            Body::Contract(ContractBody { a, b, epilogue: body.epilogue.rewrite(&mut left), ..body.clone() })
        }
        Body::Conv(body) => {
            let (w, x) = (choose(Part::A, &body.w), choose(Part::B, &body.x));
            Body::Conv(ConvBody { w, x, epilogue: body.epilogue.rewrite(&mut left), ..body.clone() })
        }
        Body::Map { .. } | Body::Update { .. } | Body::Reduce { .. } | Body::Attention(_) | Body::TopK(_) => {
            return None;
        }
    };
    let rest = KernelSpec { inputs: left.dtypes(spec, dtype), body, ..spec.clone() };
    Some(vec![Kernel { spec: first, inputs: moved.inputs }, Kernel { spec: rest, inputs: left.inputs }])
}

type Axes = Vec<(u32, Idx)>;

/// An operand that does not lie by fours, and its axes.
fn of_product(body: &ContractBody, part: Part) -> Option<(&Expr, Axes)> {
    let axis = |var: u32, extent: &Idx| (var, extent.clone());
    let (expr, outer, axes) = match part {
        Part::A => (&body.a, 1, vec![axis(0, &body.batch), axis(1, &body.m), axis(3, &body.k)]),
        Part::B => (&body.b, 2, vec![axis(0, &body.batch), axis(3, &body.k), axis(2, &body.n)]),
        Part::Epilogue | Part::Statistics => return None,
    };
    let lies = consecutive(expr, outer).is_some() || consecutive(expr, 3).is_some();
    (!lies).then_some((expr, axes))
}

/// An operand that is more than a read, and its axes.
fn of_convolution(body: &ConvBody, part: Part) -> Option<(&Expr, Axes)> {
    let axis = |var: ConvVar, extent: &Idx| (var as u32, extent.clone());
    let spatial = |var: ConvVar, extents: [Idx; 3]| {
        extents.into_iter().enumerate().map(move |(i, extent)| (var as u32 + i as u32, extent))
    };
    let group = axis(ConvVar::Group, &body.groups);
    let channel = axis(ConvVar::In, &body.in_channels);
    let [depth, height, width] = &body.axes;
    let axes = [depth, height, width];
    let (expr, axes): (_, Axes) = match part {
        Part::A => {
            let out = axis(ConvVar::Out, &body.out_channels);
            let taps = spatial(ConvVar::Tap, axes.map(|axis| Idx::from(axis.kernel)));
            (&body.w, [group, out, channel].into_iter().chain(taps).collect())
        }
        Part::B => {
            let batch = axis(ConvVar::Batch, &body.batch);
            let at = spatial(ConvVar::At, axes.map(|axis| axis.input.clone()));
            (&body.x, [batch, group, channel].into_iter().chain(at).collect())
        }
        Part::Epilogue | Part::Statistics => return None,
    };
    (!matches!(expr.node(), Node::Load { .. })).then_some((expr, axes))
}

/// Whether `expr` changes with a loop variable.
pub fn depends(expr: &Expr, var: u32) -> bool {
    let mut found = false;
    expr.visit_indices(&mut |idx| {
        idx.visit(&mut |atom| found |= matches!(atom, Atom::Var(v) if v.id == var));
    });
    found
}
