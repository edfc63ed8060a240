//! Index expressions: integer polynomials over symbols, loop variables and floor divisions, kept in one
//! canonical form so that equal expressions compare equal and `(i / 8) * 8 + i % 8` becomes `i`.
//!
//! Every atom is assumed to be non-negative; symbols are sizes. That is what makes floor division and
//! WGSL's truncating division the same thing, and bounds provable by looking at signs.

mod bounds;
mod divide;
mod row_major;

pub use row_major::{flatten, numel, unflatten, vars};

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::expr::Expr;

/// A loop variable: its number in the kernel, and its extent (it runs over `0..extent`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Var {
    /// Number in the kernel or definition.
    pub id: u32,
    /// One more than its largest value.
    pub extent: Idx,
}

/// A factor of a term.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// A symbolic dimension.
    Sym(Arc<str>),
    /// A loop variable.
    Var(Arc<Var>),
    /// Floor division.
    Div(Idx, Idx),
    /// Remainder.
    Mod(Idx, Idx),
    /// Smaller of two.
    Min(Idx, Idx),
    /// Larger of two.
    Max(Idx, Idx),
    /// A value read from a tensor, which lies in `0..extent`.
    Data(Expr, Idx),
}

type Monomial = Vec<Atom>;

/// An index expression: a sum of integer multiples of products of atoms.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Idx(Arc<Vec<(Monomial, i64)>>);

impl From<i64> for Idx {
    fn from(value: i64) -> Self {
        Idx(Arc::new(if value == 0 { vec![] } else { vec![(vec![], value)] }))
    }
}

impl From<usize> for Idx {
    fn from(value: usize) -> Self {
        Idx::from(value as i64)
    }
}

impl Idx {
    /// A symbolic dimension.
    pub fn sym(name: &str) -> Idx {
        Idx::atom(Atom::Sym(name.into()))
    }

    /// The loop variable `id`, which runs over `0..extent`. A variable of extent 1 is 0.
    pub fn var(id: u32, extent: &Idx) -> Idx {
        if extent.as_const() == Some(1) {
            return Idx::from(0i64);
        }
        Idx::atom(Atom::Var(Arc::new(Var { id, extent: extent.clone() })))
    }

    /// A value read from a tensor, already known to lie in `0..extent`.
    pub fn data(value: Expr, extent: &Idx) -> Idx {
        if extent.as_const() == Some(1) {
            return Idx::from(0i64);
        }
        Idx::atom(Atom::Data(value, extent.clone()))
    }

    /// The atom as an expression of its own.
    pub fn from_atom(atom: &Atom) -> Idx {
        Idx::atom(atom.clone())
    }

    fn atom(atom: Atom) -> Idx {
        Idx(Arc::new(vec![(vec![atom], 1)]))
    }

    /// The terms: products of atoms with their coefficients.
    pub fn terms(&self) -> &[(Vec<Atom>, i64)] {
        &self.0
    }

    /// The value, when it is a constant.
    pub fn as_const(&self) -> Option<i64> {
        match self.0.as_slice() {
            [] => Some(0),
            [(m, c)] if m.is_empty() => Some(*c),
            _ => None,
        }
    }

    /// The atom, when the expression is just one.
    pub fn as_atom(&self) -> Option<&Atom> {
        match self.0.as_slice() {
            [(m, 1)] if m.len() == 1 => Some(&m[0]),
            _ => None,
        }
    }

    /// Whether this is the constant `value`.
    pub fn is(&self, value: i64) -> bool {
        self.as_const() == Some(value)
    }

    fn from_map(map: BTreeMap<Monomial, i64>) -> Idx {
        Idx(Arc::new(map.into_iter().filter(|(_, c)| *c != 0).collect()))
    }

    fn collect(terms: impl IntoIterator<Item = (Monomial, i64)>) -> Idx {
        let mut map = BTreeMap::new();
        for (monomial, c) in terms {
            let entry = map.entry(monomial).or_insert(0i64);
            *entry = entry.saturating_add(c);
        }
        Idx::from_map(map)
    }

    /// `self + factor * other`, by going along the terms of both, which are in order.
    fn plus(&self, other: &Idx, factor: i64) -> Idx {
        let (mut own, mut others) = (self.0.as_slice(), other.0.as_slice());
        let mut sum = Vec::with_capacity(own.len() + others.len());
        while let ([(a, x), ..], [(b, y), ..]) = (own, others) {
            let order = a.cmp(b);
            let c = match order {
                Ordering::Less => *x,
                Ordering::Equal => x.saturating_add(y.saturating_mul(factor)),
                Ordering::Greater => y.saturating_mul(factor),
            };
            if c != 0 {
                sum.push((if order.is_le() { a } else { b }.clone(), c));
            }
            own = &own[usize::from(order.is_le())..];
            others = &others[usize::from(order.is_ge())..];
        }
        sum.extend_from_slice(own);
        sum.extend(others.iter().map(|(atoms, y)| (atoms.clone(), y.saturating_mul(factor))));
        Idx(Arc::new(sum))
    }

    /// `self * factor`.
    fn times(&self, factor: i64) -> Idx {
        match factor {
            0 => Idx::from(0i64),
            1 => self.clone(),
            _ => Idx(Arc::new(self.0.iter().map(|(m, c)| (m.clone(), c.saturating_mul(factor))).collect())),
        }
    }

    fn term(monomial: Monomial, c: i64) -> Idx {
        Idx::collect([(monomial, c)])
    }

    /// The value under bindings of symbols, variables and tensor reads.
    ///
    /// # Errors
    /// What `env` says of an unbound atom; a zero divisor gives 0.
    pub fn eval<E>(&self, env: &mut dyn FnMut(&Atom) -> Result<i64, E>) -> Result<i64, E> {
        let mut sum = 0i64;
        for (atoms, c) in self.0.iter() {
            let mut product = *c;
            for atom in atoms {
                let value = match atom {
                    Atom::Div(a, b) => a.eval(env)?.checked_div_euclid(b.eval(env)?).unwrap_or(0),
                    Atom::Mod(a, b) => a.eval(env)?.checked_rem_euclid(b.eval(env)?).unwrap_or(0),
                    Atom::Min(a, b) => a.eval(env)?.min(b.eval(env)?),
                    Atom::Max(a, b) => a.eval(env)?.max(b.eval(env)?),
                    Atom::Sym(_) | Atom::Var(_) | Atom::Data(..) => env(atom)?,
                };
                product = product.saturating_mul(value);
            }
            sum = sum.saturating_add(product);
        }
        Ok(sum)
    }

    /// Rebuild with some atoms replaced: `f` gives the replacement of a symbol, variable or read, or
    /// `None` to keep it (its own parts are still rewritten).
    pub fn rewrite(&self, f: &mut dyn FnMut(&Atom) -> Option<Idx>) -> Idx {
        let mut sum = Idx::from(0i64);
        for (atoms, c) in self.0.iter() {
            let mut product = Idx::from(*c);
            for atom in atoms {
                let replaced = match f(atom) {
                    Some(idx) => idx,
                    None => match atom {
                        Atom::Div(a, b) => a.rewrite(f).div(&b.rewrite(f)),
                        Atom::Mod(a, b) => a.rewrite(f).rem(&b.rewrite(f)),
                        Atom::Min(a, b) => a.rewrite(f).smaller(&b.rewrite(f)),
                        Atom::Max(a, b) => a.rewrite(f).larger(&b.rewrite(f)),
                        Atom::Var(v) => Idx::var(v.id, &v.extent.rewrite(f)),
                        Atom::Sym(_) | Atom::Data(..) => Idx::atom(atom.clone()),
                    },
                };
                product = &product * &replaced;
            }
            sum = &sum + &product;
        }
        sum
    }

    /// Visit every atom, outer ones first, extents of variables included.
    pub fn visit(&self, f: &mut dyn FnMut(&Atom)) {
        for (atoms, _) in self.0.iter() {
            for atom in atoms {
                f(atom);
                match atom {
                    Atom::Div(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                        a.visit(f);
                        b.visit(f);
                    }
                    Atom::Var(v) => v.extent.visit(f),
                    Atom::Data(_, extent) => extent.visit(f),
                    Atom::Sym(_) => {}
                }
            }
        }
    }

    /// Whether the symbol `name` occurs in it.
    pub fn mentions(&self, name: &str) -> bool {
        let mut found = false;
        self.visit(&mut |atom| found |= matches!(atom, Atom::Sym(symbol) if **symbol == *name));
        found
    }

    /// Whether any loop variable or tensor read occurs in it.
    pub fn is_size(&self) -> bool {
        let mut size = true;
        self.visit(&mut |atom| size &= !matches!(atom, Atom::Var(_) | Atom::Data(..)));
        size
    }
}

impl std::ops::Add for &Idx {
    type Output = Idx;
    fn add(self, other: &Idx) -> Idx {
        let sum = self.plus(other, 1);
        let has_mod = |idx: &Idx| idx.0.iter().any(|(m, _)| m.iter().any(|a| matches!(a, Atom::Mod(..))));
        if sum.0.len() > 1 && has_mod(&sum) { sum.recombine() } else { sum }
    }
}

impl std::ops::Sub for &Idx {
    type Output = Idx;
    fn sub(self, other: &Idx) -> Idx {
        self.plus(other, -1)
    }
}

impl std::ops::Mul for &Idx {
    type Output = Idx;
    fn mul(self, other: &Idx) -> Idx {
        match (self.as_const(), other.as_const()) {
            (Some(factor), _) => return other.times(factor),
            (_, Some(factor)) => return self.times(factor),
            (None, None) => {}
        }
        Idx::collect(self.0.iter().flat_map(|(a, x)| {
            other.0.iter().map(move |(b, y)| {
                let mut atoms: Monomial = a.iter().chain(b).cloned().collect();
                atoms.sort();
                (atoms, x.saturating_mul(*y))
            })
        }))
    }
}

impl Idx {
    /// The index as text, with what `data` makes of the values that it reads and their extents.
    pub(super) fn written(&self, data: &mut dyn FnMut(&Expr, &Idx) -> String) -> String {
        let mut text = String::new();
        for (position, (atoms, c)) in self.0.iter().rev().enumerate() {
            text += match (position, *c < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            };
            let size = c.unsigned_abs();
            let mut factors = Vec::new();
            if size != 1 || atoms.is_empty() {
                factors.push(size.to_string());
            }
            for atom in atoms {
                let mut pair = |a: &Idx, b: &Idx| (a.written(data), b.written(data));
                factors.push(match atom {
                    Atom::Sym(name) => name.to_string(),
                    Atom::Var(v) => format!("i{}", v.id),
                    Atom::Div(a, b) => {
                        let (a, b) = pair(a, b);
                        format!("(({a}) / ({b}))")
                    }
                    Atom::Mod(a, b) => {
                        let (a, b) = pair(a, b);
                        format!("(({a}) % ({b}))")
                    }
                    Atom::Min(a, b) => {
                        let (a, b) = pair(a, b);
                        format!("min({a}, {b})")
                    }
                    Atom::Max(a, b) => {
                        let (a, b) = pair(a, b);
                        format!("max({a}, {b})")
                    }
                    Atom::Data(value, extent) => data(value, extent),
                });
            }
            text += &factors.join("*");
        }
        if text.is_empty() { "0".into() } else { text }
    }
}

impl std::fmt::Display for Idx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.written(&mut |value, _| format!("[{value}]")))
    }
}

impl std::fmt::Debug for Idx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.written(&mut |value, extent| format!("[{value:?} < {extent:?}]")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(name: &str) -> Idx {
        Idx::sym(name)
    }
    fn n(value: i64) -> Idx {
        Idx::from(value)
    }

    #[test]
    fn what_may_leave_32_bits() {
        let i = Idx::var(0, &n(10));
        let most = i64::from(i32::MAX);
        let rows = [
            (&i * &n(most / 9), false),
            (&i * &n(most / 9 + 1), true),
            (&(&i * &n(most / 9)) + &n(10), true),
            (&s("t") * &n(most), false),
            (&s("t") * &n(most + 1), true),
            (&n(0) - &(&i * &n(most / 9 + 1)), true),
        ];
        for (idx, want) in rows {
            assert_eq!(idx.may_leave_i32(), want, "{idx}");
        }
    }

    #[test]
    fn simplification_table() {
        let (b, t, h) = (s("b"), s("t"), n(12));
        let flat = Idx::var(0, &(&(&b * &t) * &h));
        let i = Idx::var(1, &n(8));
        let j = Idx::var(2, &t);
        let rows = [
            (flat.div(&h).div(&t), flat.div(&(&h * &t))),
            (&(&flat.div(&h) * &h) + &flat.rem(&h), flat.clone()),
            (
                flatten(
                    &unflatten(&flat, &[b.clone(), t.clone(), h.clone()]),
                    &[b.clone(), t.clone(), h.clone()],
                ),
                flat.clone(),
            ),
            ((&(&n(8) * &j) + &i).div(&n(8)), j.clone()),
            ((&(&n(8) * &j) + &i).rem(&n(8)), i.clone()),
            ((&(&i * &t) + &j).div(&t), i.clone()),
            ((&(&i * &t) + &j).rem(&t), j.clone()),
            ((&(&n(4) * &j) + &n(2)).div(&n(8)), j.div(&n(2))),
            ((&(&t * &flat) + &j).div(&(&h * &t)), flat.div(&h)),
            ((&(&t * &flat) + &j).rem(&(&h * &t)), &(&t * &flat.rem(&h)) + &j),
            (flat.rem(&(&h * &t)).rem(&h), flat.rem(&h)),
            (flat.rem(&(&h * &t)).div(&h), flat.div(&h).rem(&t)),
            (n(5).smaller(&n(3)), n(3)),
            (t.larger(&n(0)), t.clone()),
            ((&t + &n(1)).smaller(&t), t.clone()),
            ((&(&t + &b) * &n(4)).div(&(&t + &b)), n(4)),
            ((&(&(&t + &b) * &i) + &j).div(&(&t + &b)), i.clone()),
        ];
        for (got, want) in rows {
            assert_eq!(got, want);
        }
    }

    #[test]
    fn evaluation_agrees_before_and_after_simplification() {
        let shape = [n(3), s("t"), n(5)];
        let flat = Idx::var(0, &numel(&shape));
        for offset in 0..3 * 7 * 5 {
            let at: Vec<i64> = unflatten(&flat, &shape)
                .iter()
                .map(|i| {
                    i.eval::<()>(&mut |atom| match atom {
                        Atom::Sym(_) => Ok(7),
                        _ => Ok(offset),
                    })
                    .unwrap()
                })
                .collect();
            assert_eq!(at, [offset / 35, offset / 5 % 7, offset % 5]);
        }
    }
}
