//! Which reads of an expression are of four neighbours at once, or of a place of their own.

use std::collections::HashSet;

use crate::expr::{Atom, Expr, Idx, Node, Rewrite};
use crate::tensor::DType;

/// Whether a size is a multiple of four, whatever its symbols are.
pub fn in_fours(size: &Idx) -> bool {
    size.terms().iter().all(|(_, c)| c % 4 == 0)
}

/// Whether `idx` is the same at `4 q` to `4 q + 3` of `var`.
fn is_steady(idx: &Idx, var: u32) -> bool {
    idx.terms().iter().all(|(atoms, _)| {
        atoms.iter().all(|atom| match atom {
            Atom::Sym(_) => true,
            Atom::Var(v) => v.id != var,
            Atom::Div(x, d) => {
                is_steady(d, var) && (is_steady(x, var) || (in_fours(d) && starts_four(x, var)))
            }
            Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => is_steady(a, var) && is_steady(b, var),
            Atom::Data(..) => false,
        })
    })
}

/// Whether `idx` is `4 p` to `4 p + 3` at `4 q` to `4 q + 3` of `var`, for some `p`.
pub fn starts_four(idx: &Idx, var: u32) -> bool {
    let (mut along, mut aligned) = (0, true);
    for (atoms, c) in idx.terms() {
        let steps = match atoms.as_slice() {
            [Atom::Var(v)] => v.id == var && *c == 1,
            [Atom::Mod(x, d)] => *c == 1 && in_fours(d) && is_steady(d, var) && starts_four(x, var),
            _ => false,
        };
        if steps {
            along += 1;
        } else {
            let term = atoms.iter().fold(Idx::from(1i64), |product, atom| &product * &Idx::from_atom(atom));
            aligned &= c % 4 == 0 && is_steady(&term, var);
        }
    }
    along == 1 && aligned
}

/// A read of four neighbours, or of one element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Read {
    /// The input.
    pub input: usize,
    /// Its dtype.
    pub dtype: DType,
    /// Where the (first) element lies.
    pub offset: Idx,
}

/// `value` with its reads of four neighbours along `var` as arguments from `first` on, and these reads. Those under a
/// condition stay as they are: unconditional, they might be of elements that do not exist.
pub fn take(value: &Expr, var: u32, first: u32, allowed: impl Fn(DType) -> bool) -> (Expr, Vec<Read>) {
    take_where(value, first, |dtype, offset| allowed(dtype) && starts_four(offset, var))
}

/// The same for single reads of a place that depends on `var`.
pub fn take_singles(value: &Expr, var: u32, first: u32) -> (Expr, Vec<Read>) {
    take_where(value, first, |_, offset| {
        let (mut along, mut plain) = (false, true);
        offset.visit(&mut |atom| {
            along |= matches!(atom, Atom::Var(v) if v.id == var);
            plain &= !matches!(atom, Atom::Data(..));
        });
        along && plain
    })
}

/// The same for reads of such a dtype and place.
pub fn take_where(value: &Expr, first: u32, allowed: impl Fn(DType, &Idx) -> bool) -> (Expr, Vec<Read>) {
    let mut conditional = HashSet::new();
    value.visit(&mut |e| {
        if let Node::Select(_, a, b) = e.node() {
            for branch in [a, b] {
                branch.visit(&mut |e| {
                    if matches!(e.node(), Node::Load { .. }) {
                        conditional.insert(e.clone());
                    }
                });
            }
        }
    });
    let mut taker = Take { first, allowed, conditional, found: Vec::new() };
    let value = value.rewrite(&mut taker);
    (value, taker.found)
}

struct Take<F> {
    first: u32,
    allowed: F,
    conditional: HashSet<Expr>,
    found: Vec<Read>,
}

impl<F: Fn(DType, &Idx) -> bool> Rewrite for Take<F> {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        let load = Expr::load(source, dtype, at.clone());
        let [offset] = at.as_slice() else { return load };
        if self.conditional.contains(&load) || !(self.allowed)(dtype, offset) {
            return load;
        }
        let read = Read { input: source as usize, dtype, offset: offset.clone() };
        let position = self.found.iter().position(|known| *known == read).unwrap_or_else(|| {
            self.found.push(read);
            self.found.len() - 1
        });
        Expr::arg(self.first + position as u32, dtype)
    }

    fn atom(&mut self, _: &Atom) -> Option<Idx> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_found() {
        let n = |value: i64| Idx::from(value);
        let i = Idx::var(0, &n(1 << 20));
        let row = Idx::var(1, &n(100));
        let rows: [(Idx, bool); 9] = [
            (i.clone(), true),
            (&i + &n(8), true),
            (&i + &n(2), false),
            (&i * &n(2), false),
            (i.rem(&n(64)), true),
            (i.rem(&n(6)), false),
            // As of a transposition that leaves the last axis where it is.
            (&(&i.div(&n(64)).rem(&n(12)) * &n(640)) + &i.rem(&n(64)), true),
            (&(&row * &n(16)) + &i, true),
            (&(&row * &n(3)) + &i, false),
        ];
        for (idx, want) in rows {
            assert_eq!(starts_four(&idx, 0), want, "{idx}");
        }
    }

    #[test]
    fn reads_under_a_condition_stay() {
        let i = Idx::var(0, &Idx::from(64i64));
        let load = |input| Expr::load(input, DType::F32, vec![i.clone()]);
        let chosen = Expr::load(2, DType::Bool, vec![i.clone()]).select(&load(0), &load(1));
        let (value, fours) = take(&(&chosen + &load(3)), 0, 0, |_| true);
        let inputs: Vec<usize> = fours.iter().map(|four| four.input).collect();
        assert_eq!(inputs, [2, 3], "{value}");
    }
}
