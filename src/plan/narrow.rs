//! 64-bit integers become 32-bit ones where all that is computed is proven to fit: positions, sizes, small
//! constants. The others are two words on the device, exact and slower.

use std::collections::{BTreeSet, HashMap};

use super::range::{self, Range};
use crate::expr::{Atom, Binary, Const, Expr, Idx, Node, Value, numel};
use crate::ir::{Combine, Def, Program, ValueId};
use crate::tensor::DType;

/// Narrow every value that can be. Products of 64-bit matrices, for which there is no kernel, become reductions.
pub fn narrow(program: &mut Program) {
    let mut narrowing = Narrowing { values: Vec::new(), done: HashMap::new() };
    let states: BTreeSet<ValueId> =
        program.repeats.iter().flat_map(|repeat| &repeat.states).flat_map(|&(old, new)| [old, new]).collect();
    for (id, value) in program.values.iter_mut().enumerate() {
        narrowing.done.clear();
        let (mut def, mut dtype, mut range) = narrowing.value(&value.def, value.dtype);
        if states.contains(&(id as ValueId)) {
            // Only the first of many is what the definition says.
            if let Def::Map(body) = def {
                def = Def::Map(body.cast(value.dtype));
            }
            (dtype, range) = (value.dtype, Range::of(value.dtype));
        }
        (value.def, value.dtype) = (def, dtype);
        if let Some(update) = &mut value.update {
            update.at = update.at.iter().map(|idx| narrowing.idx(idx)).collect();
            update.when = narrowing.expr(&update.when).0;
            update.value = narrowing.expr(&update.value).0.cast(dtype);
        }
        narrowing.values.push((dtype, range));
    }
}

fn is_wide(dtype: DType) -> bool {
    matches!(dtype, DType::I64 | DType::U64)
}

struct Narrowing {
    /// Dtype and range of the values so far.
    values: Vec<(DType, Range)>,
    /// Expressions done, by address, with the original to keep it alive.
    done: HashMap<usize, (Expr, Expr, Range)>,
}

impl Narrowing {
    /// The definition, dtype and range of a value.
    fn value(&mut self, def: &Def, dtype: DType) -> (Def, DType, Range) {
        match def {
            Def::Input(_) => (def.clone(), dtype, Range::of(dtype)),
            Def::Weight(tensor) if is_wide(dtype) => {
                let range = Range::of_tensor(tensor);
                (def.clone(), if range.fits_i32() { DType::I32 } else { dtype }, range)
            }
            Def::Weight(_) => (def.clone(), dtype, Range::of(dtype)),
            Def::Reshape(source) => {
                let (dtype, range) = self.values[*source as usize];
                (def.clone(), dtype, range)
            }
            Def::Map(body) => {
                let (body, range) = self.expr(body);
                let body = if is_wide(dtype) && range.fits_i32() { body.cast(DType::I32) } else { body };
                (Def::Map(body.clone()), body.dtype(), range)
            }
            Def::Reduce { extents, combine, body } => {
                let (body, range) = self.expr(body);
                let extents: Vec<Idx> = extents.iter().map(|idx| self.idx(idx)).collect();
                let (dtype, range) = reduced(dtype, *combine, &extents, &body, range);
                let body = body.cast(dtype);
                (Def::Reduce { extents, combine: *combine, body }, dtype, range)
            }
            Def::Stacked { at, body } => {
                let (body, range) = self.expr(body);
                (Def::Stacked { at: at.clone(), body: body.cast(dtype) }, dtype, range)
            }
            Def::TopK { extent, key, largest } => {
                let (extent, (key, _)) = (self.idx(extent), self.expr(key));
                let most = Range::of_idx(&extent).high - 1;
                (Def::TopK { extent, key, largest: *largest }, dtype, Range::new(0, most.max(0)))
            }
            Def::Contract { batch, m, k, a, b, windows } => {
                let ((a, a_range), (b, b_range)) = (self.expr(a), self.expr(b));
                let k: Vec<Idx> = k.iter().map(|idx| self.idx(idx)).collect();
                let windows = windows.clone().map(|mut windows| {
                    (windows.w, windows.x) = (self.expr(&windows.w).0, self.expr(&windows.x).0);
                    windows
                });
                if !is_wide(dtype) {
                    return (
                        Def::Contract { batch: *batch, m: *m, k, a, b, windows },
                        dtype,
                        Range::of(dtype),
                    );
                }
                let terms = range::mul(a_range, b_range);
                let sum = range::mul(terms, Range::of_idx(&numel(&k))).union(terms);
                if sum.fits_i32() && a.dtype() == DType::I32 && b.dtype() == DType::I32 {
                    return (Def::Contract { batch: *batch, m: *m, k, a, b, windows }, DType::I32, sum);
                }
                let body = a.cast(dtype).binary(Binary::Mul, &b.cast(dtype));
                let def = match k.as_slice() {
                    [] => Def::Map(body),
                    _ => Def::Reduce { extents: k, combine: Combine::Sum, body },
                };
                (def, dtype, Range::of(dtype))
            }
        }
    }

    fn idx(&mut self, idx: &Idx) -> Idx {
        idx.rewrite(&mut |atom| match atom {
            Atom::Data(value, extent) => {
                let (value, _) = self.expr(value);
                Some(value.cast(DType::I32).to_position(&self.idx(extent)))
            }
            Atom::Sym(_) | Atom::Var(_) | Atom::Div(..) | Atom::Mod(..) | Atom::Min(..) | Atom::Max(..) => {
                None
            }
        })
    }

    /// An expression, 32-bit where it can be, and its range.
    fn expr(&mut self, expr: &Expr) -> (Expr, Range) {
        if let Some((_, done, range)) = self.done.get(&expr.id()) {
            return (done.clone(), *range);
        }
        let (done, range) = self.narrowed(expr);
        self.done.insert(expr.id(), (expr.clone(), done.clone(), range));
        (done, range)
    }

    fn narrowed(&mut self, expr: &Expr) -> (Expr, Range) {
        let dtype = expr.dtype();
        match expr.node() {
            Node::Const(Const { value, .. }) => {
                let range = match value {
                    Value::I(v) if dtype == DType::U64 => Range::new(*v as u64 as i128, *v as u64 as i128),
                    Value::I(v) => Range::new(*v as i128, *v as i128),
                    Value::F(_) | Value::B(_) => Range::of(dtype),
                };
                let narrow = is_wide(dtype) && range.fits_i32();
                (if narrow { expr.cast(DType::I32) } else { expr.clone() }, range)
            }
            Node::Index(idx, _) => {
                let idx = self.idx(idx);
                let range = Range::of_idx(&idx);
                (Expr::index(idx, if is_wide(dtype) { DType::I32 } else { dtype }), range.wrapped(dtype))
            }
            Node::Load { source, at, .. } => {
                let at = at.iter().map(|idx| self.idx(idx)).collect();
                let (dtype, range) = self.values[*source as usize];
                (Expr::load(*source, dtype, at), range)
            }
            Node::Arg(..) => (expr.clone(), Range::of(dtype)),
            Node::Unary(op, a) => {
                let old = a.dtype();
                let (a, a_range) = self.expr(a);
                let range = range::unary(*op, a_range).unwrap_or(a_range);
                let a = if range.narrows(old) { a } else { a.cast(old) };
                (a.unary(*op), range.wrapped(dtype))
            }
            Node::Binary(op, a, b) => {
                let old = a.dtype();
                let ((a, a_range), (b, b_range)) = (self.expr(a), self.expr(b));
                let range = match op.is_comparison() {
                    true => Some(Range::of(DType::Bool)),
                    false => range::binary(*op, a_range, b_range),
                };
                let range = range.unwrap_or(Range::of(old));
                let narrow = a.dtype() == b.dtype() && range.narrows(old);
                let (a, b) = if narrow { (a, b) } else { (a.cast(old), b.cast(old)) };
                (a.binary(*op, &b), range.wrapped(dtype))
            }
            Node::Select(c, a, b) => {
                let ((c, _), (a, a_range), (b, b_range)) = (self.expr(c), self.expr(a), self.expr(b));
                let (a, b) = if a.dtype() == b.dtype() { (a, b) } else { (a.cast(dtype), b.cast(dtype)) };
                (c.select(&a, &b), a_range.union(b_range))
            }
            Node::Bits(_, a) => {
                let from = a.dtype();
                let (a, _) = self.expr(a);
                (a.cast(from).bits(dtype), Range::of(dtype))
            }
            Node::Cast(_, a) => {
                let from = a.dtype();
                let (a, a_range) = self.expr(a);
                let range = if from.is_float() { Range::of(dtype) } else { a_range.wrapped(dtype) };
                let narrow = is_wide(dtype) && range.fits_i32() && !from.is_float();
                (a.cast(if narrow { DType::I32 } else { dtype }), range)
            }
        }
    }
}

/// Dtype and range of a reduction.
fn reduced(dtype: DType, combine: Combine, extents: &[Idx], body: &Expr, range: Range) -> (DType, Range) {
    if !is_wide(dtype) {
        return (dtype, Range::of(dtype));
    }
    let count = Range::of_idx(&numel(extents));
    let all = match combine {
        Combine::Sum => range::mul(range, count).union(Range::new(0, 0)),
        // An empty one gives the smallest or largest 64-bit number.
        Combine::Max | Combine::Min if count.low > 0 => range,
        Combine::Prod | Combine::Max | Combine::Min => Range::of(dtype),
    };
    let narrow = all.fits_i32() && body.dtype() == DType::I32;
    (if narrow { DType::I32 } else { dtype }, all.wrapped(dtype))
}
