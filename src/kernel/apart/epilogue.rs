//! The epilogue of a contraction or convolution, computed behind it.

use super::Kernel;
use crate::expr::{Expr, Idx, Node, numel, unflatten};
use crate::ir::ConvVar;
use crate::kernel::moved::Moved;
use crate::kernel::passes::Slot;
use crate::kernel::spec::{Body, ContractBody, ConvBody, KernelSpec};
use crate::tensor::DType;

/// The kernel of the sums and the one that finishes them; `None` where the sums are stored as they are.
pub fn kernels(spec: &KernelSpec) -> Option<Vec<Kernel>> {
    let (epilogue, sum, axes) = match &spec.body {
        Body::Contract(body) => (&body.epilogue, body.sum, of_product(body)),
        Body::Conv(body) => (&body.epilogue, body.sum, of_convolution(body)),
        Body::Map { .. } | Body::Update { .. } | Body::Reduce { .. } | Body::Attention(_) => return None,
    };
    if is_bare(epilogue) || sum == DType::Bool || sum.bits() > 32 {
        return None;
    }
    let mut sums = Moved::new(Vec::new(), Vec::new());
    let bare = Expr::arg(0, sum);
    let body = match &spec.body {
        Body::Contract(body) => Body::Contract(ContractBody {
            a: body.a.rewrite(&mut sums),
            b: body.b.rewrite(&mut sums),
            epilogue: bare,
            ..body.clone()
        }),
        Body::Conv(body) => Body::Conv(ConvBody {
            w: body.w.rewrite(&mut sums),
            x: body.x.rewrite(&mut sums),
            epilogue: bare,
            ..body.clone()
        }),
        Body::Map { .. } | Body::Update { .. } | Body::Reduce { .. } | Body::Attention(_) => return None,
    };
    let first = KernelSpec { inputs: sums.dtypes(spec, sum), output: sum, params: spec.params, body };

    let extents: Vec<Idx> = axes.iter().map(|(_, extent)| extent.clone()).collect();
    let len = numel(&extents);
    let at = Idx::var(0, &len);
    let most = axes.iter().map(|(var, _)| *var as usize + 1).max().unwrap_or(0);
    let mut variables = vec![Idx::from(0i64); most];
    for ((var, _), at) in axes.iter().zip(unflatten(&at, &extents)) {
        variables[*var as usize] = at;
    }
    let mut finish = Moved::new(vec![Slot::Scratch(0)], variables);
    finish.args = vec![Expr::load(0, sum, vec![at])];
    let body = Body::Map { len, value: epilogue.rewrite(&mut finish) };
    let last = KernelSpec { inputs: finish.dtypes(spec, sum), body, ..spec.clone() };
    Some(vec![Kernel { spec: first, inputs: sums.inputs }, Kernel { spec: last, inputs: finish.inputs }])
}

/// Whether an epilogue is nothing but the sum.
fn is_bare(epilogue: &Expr) -> bool {
    match epilogue.node() {
        Node::Arg(..) => true,
        Node::Cast(_, sum) => is_bare(sum),
        Node::Const(_)
        | Node::Index(..)
        | Node::Load { .. }
        | Node::Unary(..)
        | Node::Binary(..)
        | Node::Select(..)
        | Node::Bits(..) => false,
    }
}

/// The output's axes, by their loop variables in the epilogue.
type Axes = Vec<(u32, Idx)>;

fn of_product(body: &ContractBody) -> Axes {
    vec![(0, body.batch.clone()), (1, body.m.clone()), (2, body.n.clone())]
}

fn of_convolution(body: &ConvBody) -> Axes {
    let outer =
        [(ConvVar::Batch, &body.batch), (ConvVar::Group, &body.groups), (ConvVar::Out, &body.out_channels)];
    let outer = outer.into_iter().map(|(var, extent)| (var as u32, extent.clone()));
    let at = (ConvVar::At as u32..).zip(body.axes.iter().map(|axis| axis.output.clone()));
    outer.chain(at).collect()
}
