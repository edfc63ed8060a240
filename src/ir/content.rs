//! Contents: what is known of a value before anything runs. Shape arithmetic is this and nothing else.

use super::build::{Program, chain, positions};
use super::{Def, Value, ValueId};
use crate::expr::{
    Atom, Env, Expr, Idx, Rewrite, apply_cast, eval, flatten, numel, read_element, unflatten, vars,
    write_element,
};
use crate::tensor::{DType, Tensor};

/// Values of at most this many elements carry their contents: shapes, axes, scalars.
pub(super) const CONTENT_LEN: usize = 64;

/// Constants of at most this many elements (times those that a reduction reads) are folded on the CPU;
/// larger ones are computed once on the device.
const FOLD_LEN: usize = 1 << 16;

impl Program {
    /// Work out the contents of a new value, and replace its definition by a constant where it is one.
    pub(super) fn fold(&self, value: &mut Value) {
        value.content = self.content(value);
        match (&value.content, &value.def) {
            (Some(content), Def::Map(_) | Def::Reduce { .. } | Def::Contract { .. } | Def::Reshape(_)) => {
                value.def = match constant_tensor(value, content) {
                    Some(tensor) => Def::Weight(tensor),
                    None => {
                        let offset = flatten(&vars(0, &value.shape), &value.shape);
                        Def::Map(chain(content, &offset))
                    }
                };
            }
            (None, Def::Map(_) | Def::Reduce { .. } | Def::Reshape(_)) => {
                if let Some(tensor) = self.fold_elements(value) {
                    value.def = Def::Weight(tensor);
                }
            }
            _ => {}
        }
    }

    fn content(&self, value: &Value) -> Option<Vec<Expr>> {
        let at = positions(&value.shape, CONTENT_LEN)?;
        if let Def::Reshape(source) = value.def {
            return self.value(source).content.clone();
        }
        if let Def::Weight(tensor) = &value.def {
            let read = |i| Some(Expr::constant(value.dtype, read_element(value.dtype, tensor.bytes(), i)?));
            return (0..at.len()).map(read).collect();
        }
        let mut known = value.sources().into_iter().map(|s| {
            let source = self.value(s);
            source.content.is_some() || matches!(source.def, Def::Weight(_))
        });
        if !known.all(|k| k) {
            return None;
        }
        at.iter()
            .map(|at| match &value.def {
                Def::Map(body) => self.resolve(body, at.clone()),
                Def::Reduce { extents, combine, body } => {
                    let inner = positions(extents, CONTENT_LEN)?;
                    inner.into_iter().try_fold(combine.identity(value.dtype), |sum, r| {
                        let at = at.iter().cloned().chain(r).collect();
                        Some(sum.binary(combine.binary(), &self.resolve(body, at)?))
                    })
                }
                Def::Input(_)
                | Def::Weight(_)
                | Def::Reshape(_)
                | Def::Contract { .. }
                | Def::TopK { .. }
                | Def::Stacked { .. } => None,
            })
            .collect()
    }

    /// `expr` with its loop variables set and its loads replaced by contents; `None` where one is unknown.
    fn resolve(&self, expr: &Expr, at: Vec<Idx>) -> Option<Expr> {
        let mut rewriter = Resolve { program: self, at, unknown: false };
        let resolved = expr.rewrite(&mut rewriter);
        (!rewriter.unknown).then_some(resolved)
    }

    /// The elements of a value computed from constants only.
    fn fold_elements(&self, value: &Value) -> Option<Tensor> {
        let len = usize::try_from(numel(&value.shape).as_const()?).ok()?;
        let extents = match &value.def {
            Def::Reduce { extents, .. } => extents.as_slice(),
            _ => &[],
        };
        let steps = usize::try_from(numel(extents).as_const()?).ok()?;
        if len.checked_mul(steps)? > FOLD_LEN {
            return None;
        }
        let constant = |&s: &ValueId| matches!(self.value(s).def, Def::Weight(_));
        if !value.sources().iter().all(constant) || (len > CONTENT_LEN && self.unpacks(value)) {
            return None;
        }
        if let Def::Reshape(source) = value.def {
            let Def::Weight(tensor) = &self.value(source).def else { return None };
            return tensor.reshape(&static_shape(&value.shape)?).ok();
        }
        let mut env = Elements { program: self, at: Vec::new() };
        let mut bytes = Vec::with_capacity(value.dtype.size_bytes(len));
        for i in 0..len {
            let outer = constants(&unflatten(&Idx::from(i), &value.shape))?;
            let result = match &value.def {
                Def::Map(body) => {
                    env.at = outer;
                    eval(body, &mut env)?
                }
                Def::Reduce { combine, body, .. } => {
                    let mut sum = combine.identity(value.dtype).as_const()?;
                    for r in 0..steps {
                        env.at = outer.clone();
                        env.at.extend(constants(&unflatten(&Idx::from(r), extents))?);
                        let element = eval(body, &mut env)?;
                        let expr = |v| Expr::constant(value.dtype, v);
                        sum = expr(sum).binary(combine.binary(), &expr(element)).as_const()?;
                    }
                    sum
                }
                Def::Input(_)
                | Def::Weight(_)
                | Def::Reshape(_)
                | Def::Contract { .. }
                | Def::TopK { .. }
                | Def::Stacked { .. } => return None,
            };
            write_element(value.dtype, i, apply_cast(value.dtype, result), &mut bytes).then_some(())?;
        }
        Tensor::new(value.dtype, &static_shape(&value.shape)?, bytes).ok()
    }

    /// Whether the elements of a packed constant are converted one by one: it is smaller than the result, and stays as
    /// it is.
    fn unpacks(&self, value: &Value) -> bool {
        let Def::Map(_) = value.def else { return false };
        let narrow = |&id: &ValueId| {
            let source = self.value(id);
            source.dtype.is_int()
                && source.dtype.bits() < value.dtype.bits().min(32)
                && numel(&source.shape) == numel(&value.shape)
        };
        value.sources().iter().any(narrow)
    }
}

/// The shape as numbers, when it is constant.
pub fn static_shape(shape: &[Idx]) -> Option<Vec<usize>> {
    shape.iter().map(|d| usize::try_from(d.as_const()?).ok()).collect()
}

fn constants(at: &[Idx]) -> Option<Vec<i64>> {
    at.iter().map(Idx::as_const).collect()
}

fn constant_tensor(value: &Value, content: &[Expr]) -> Option<Tensor> {
    let mut bytes = Vec::new();
    for (i, expr) in content.iter().enumerate() {
        write_element(value.dtype, i, expr.as_const()?, &mut bytes).then_some(())?;
    }
    Tensor::new(value.dtype, &static_shape(&value.shape)?, bytes).ok()
}

struct Resolve<'a> {
    program: &'a Program,
    at: Vec<Idx>,
    unknown: bool,
}

impl Rewrite for Resolve<'_> {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        let value = self.program.value(source);
        let offset = flatten(&at, &value.shape).as_const().and_then(|o| usize::try_from(o).ok());
        let found = match (&value.content, &value.def, offset) {
            (Some(content), _, Some(offset)) => content.get(offset).cloned(),
            (None, Def::Weight(tensor), Some(offset)) => {
                read_element(dtype, tensor.bytes(), offset).map(|v| Expr::constant(dtype, v))
            }
            _ => None,
        };
        found.unwrap_or_else(|| {
            self.unknown = true;
            Expr::int(dtype, 0)
        })
    }

    fn atom(&mut self, atom: &Atom) -> Option<Idx> {
        match atom {
            Atom::Var(var) => self.at.get(var.id as usize).cloned(),
            _ => None,
        }
    }
}

struct Elements<'a> {
    program: &'a Program,
    at: Vec<i64>,
}

impl Env for Elements<'_> {
    fn symbol(&mut self, _: &str) -> Option<i64> {
        None
    }

    fn var(&mut self, id: u32) -> Option<i64> {
        self.at.get(id as usize).copied()
    }

    fn load(&mut self, source: u32, at: &[i64]) -> Option<crate::expr::Value> {
        let value = self.program.value(source);
        let Def::Weight(tensor) = &value.def else { return None };
        let offset = at.iter().zip(tensor.shape()).fold(0usize, |o, (i, d)| o * d + *i as usize);
        read_element(value.dtype, tensor.bytes(), offset)
    }

    fn arg(&mut self, _: u32) -> Option<crate::expr::Value> {
        None
    }
}
