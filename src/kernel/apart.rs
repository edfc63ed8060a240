//! A contraction or convolution one of whose operands is computed before it, by a kernel of its own:
//!
//! ```text
//! scratch[b, m, k] = A[b, m, k]                                       a map
//! out[b, m, n]     = epilogue(sum over k of scratch[b, m, k] * B[b, k, n])
//! ```
//!
//! Fused, an operand's elements are computed or gathered again for every tile that reads them. Which is faster is
//! measured.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::moved::Moved;
use super::operand::consecutive;
use super::passes::{Pass, Slot};
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space;
use super::spec::{Body, ContractBody, ConvBody, KernelSpec};
use crate::expr::{Atom, Expr, Idx, Node, flatten, unflatten};
use crate::ir::ConvVar;
use crate::tensor::DType;

/// Which operand is computed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operand {
    /// A of a product, the weight of a convolution.
    A,
    /// B of a product, the input of a convolution.
    B,
}

/// An operand apart, and the schedule of what is left.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ApartSchedule {
    /// Which operand.
    pub operand: Operand,
    /// The contraction or convolution that reads it, in one pass.
    pub rest: Box<Schedule>,
}

impl ApartSchedule {
    pub(super) fn algorithm(&self) -> &'static str {
        match self.operand {
            Operand::A => "a apart",
            Operand::B => "b apart",
        }
    }
}

impl std::fmt::Display for ApartSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let operand = match self.operand {
            Operand::A => "a",
            Operand::B => "b",
        };
        write!(f, "apart={operand} {}", self.rest)
    }
}

/// A kernel of a pass, and where its inputs come from.
type Part = (KernelSpec, Vec<Slot>);

/// The kernel of the operand, and the kernel that reads it.
struct Apart {
    operand: Part,
    rest: Part,
}

/// Schedules of what is left that are tried with each operand.
const EACH: usize = 4;

/// Each operand that can be computed apart, with the first few schedules of what is left.
pub fn points(spec: &KernelSpec, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> Vec<Schedule> {
    let mut points = Vec::new();
    for operand in [Operand::A, Operand::B] {
        let Some(parts) = parts(spec, operand) else { continue };
        let rest = space::fused_space(&parts.rest.0, sizes, caps, peaks).kept.into_iter();
        let rest = rest.filter(Schedule::is_one_pass).take(EACH);
        points.extend(rest.map(|rest| Schedule::Apart(ApartSchedule { operand, rest: Box::new(rest) })));
    }
    points
}

/// The two passes; `None` for what has no such operand.
pub fn passes(spec: &KernelSpec, s: &ApartSchedule, sizes: Sizes, caps: &Caps) -> Option<Vec<Pass>> {
    let Apart { operand, rest } = parts(spec, s.operand)?;
    let pass = |(spec, inputs): Part, schedule, output| {
        let len = spec.output_len();
        Pass { spec, schedule, inputs, output, len }
    };
    let first = space::default_schedule(&operand.0, sizes, caps);
    Some(vec![pass(operand, first, Slot::Scratch(0)), pass(rest, (*s.rest).clone(), Slot::Output)])
}

pub fn broken_rule(spec: &KernelSpec, s: &ApartSchedule, sizes: Sizes, caps: &Caps) -> Option<&'static str> {
    let Some(parts) = parts(spec, s.operand) else {
        return Some("an operand apart that is read from memory as it is");
    };
    let elements = size(&parts.operand.0.output_len(), sizes).max(1) as u64;
    if elements > caps.max_storage_binding_bytes / 4 {
        Some("an operand apart beyond what the device binds")
    } else if !s.rest.is_one_pass() {
        Some("several passes behind an operand apart")
    } else {
        space::broken_rule(&parts.rest.0, &s.rest, sizes, caps)
    }
}

/// Both kernels' times.
pub fn estimate_ns(spec: &KernelSpec, s: &ApartSchedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    let Some(parts) = parts(spec, s.operand) else { return f64::INFINITY };
    let first = space::default_schedule(&parts.operand.0, sizes, caps);
    space::estimate_ns(&parts.operand.0, &first, sizes, caps, peaks)
        + space::estimate_ns(&parts.rest.0, &s.rest, sizes, caps, peaks)
}

/// The two kernels; `None` where there is no operand that a kernel of its own would leave easier to read.
fn parts(spec: &KernelSpec, operand: Operand) -> Option<Apart> {
    let (expr, axes) = match &spec.body {
        Body::Contract(body) => of_product(body, operand)?,
        Body::Conv(body) => of_convolution(body, operand)?,
        Body::Map { .. } | Body::Reduce { .. } | Body::Attention(_) | Body::TopK(_) => return None,
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
    let mut choose = |which: Operand, expr: &Expr| match which == operand {
        true => read.clone(),
        false => expr.rewrite(&mut left),
    };
    let body = match &spec.body {
        Body::Contract(body) => {
            let (a, b) = (choose(Operand::A, &body.a), choose(Operand::B, &body.b));
            Body::Contract(ContractBody { a, b, epilogue: body.epilogue.rewrite(&mut left), ..body.clone() })
        }
        Body::Conv(body) => {
            let (w, x) = (choose(Operand::A, &body.w), choose(Operand::B, &body.x));
            Body::Conv(ConvBody { w, x, epilogue: body.epilogue.rewrite(&mut left), ..body.clone() })
        }
        Body::Map { .. } | Body::Reduce { .. } | Body::Attention(_) | Body::TopK(_) => return None,
    };
    let rest = KernelSpec { inputs: left.dtypes(spec, dtype), body, ..spec.clone() };
    Some(Apart { operand: (first, moved.inputs), rest: (rest, left.inputs) })
}

type Axes = Vec<(u32, Idx)>;

/// An operand that does not lie by fours, and its axes.
fn of_product(body: &ContractBody, operand: Operand) -> Option<(&Expr, Axes)> {
    let axis = |var: u32, extent: &Idx| (var, extent.clone());
    let (expr, outer, axes) = match operand {
        Operand::A => (&body.a, 1, vec![axis(0, &body.batch), axis(1, &body.m), axis(3, &body.k)]),
        Operand::B => (&body.b, 2, vec![axis(0, &body.batch), axis(3, &body.k), axis(2, &body.n)]),
    };
    let lies = consecutive(expr, outer).is_some() || consecutive(expr, 3).is_some();
    (!lies).then_some((expr, axes))
}

/// An operand that is more than a read, and its axes.
fn of_convolution(body: &ConvBody, operand: Operand) -> Option<(&Expr, Axes)> {
    let axis = |var: ConvVar, extent: &Idx| (var as u32, extent.clone());
    let spatial = |var: ConvVar, extents: [Idx; 3]| {
        extents.into_iter().enumerate().map(move |(i, extent)| (var as u32 + i as u32, extent))
    };
    let group = axis(ConvVar::Group, &body.groups);
    let channel = axis(ConvVar::In, &body.in_channels);
    let [depth, height, width] = &body.axes;
    let axes = [depth, height, width];
    let (expr, axes): (_, Axes) = match operand {
        Operand::A => {
            let out = axis(ConvVar::Out, &body.out_channels);
            let taps = spatial(ConvVar::Tap, axes.map(|axis| Idx::from(axis.kernel)));
            (&body.w, [group, out, channel].into_iter().chain(taps).collect())
        }
        Operand::B => {
            let batch = axis(ConvVar::Batch, &body.batch);
            let at = spatial(ConvVar::At, axes.map(|axis| axis.input.clone()));
            (&body.x, [batch, group, channel].into_iter().chain(at).collect())
        }
    };
    (!matches!(expr.node(), Node::Load { .. })).then_some((expr, axes))
}

/// Whether `expr` changes with a loop variable.
fn depends(expr: &Expr, var: u32) -> bool {
    let mut found = false;
    let mut look = |idx: &Idx| idx.visit(&mut |atom| found |= matches!(atom, Atom::Var(v) if v.id == var));
    expr.visit(&mut |e| match e.node() {
        Node::Load { at, .. } => at.iter().for_each(&mut look),
        Node::Index(idx, _) => look(idx),
        Node::Const(_)
        | Node::Arg(..)
        | Node::Unary(..)
        | Node::Binary(..)
        | Node::Select(..)
        | Node::Cast(..)
        | Node::Bits(..) => {}
    });
    found
}
