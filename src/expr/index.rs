//! Index expressions: integer polynomials over symbols, loop variables and floor divisions, kept in one
//! canonical form so that equal expressions compare equal and `(i / 8) * 8 + i % 8` becomes `i`.
//!
//! Every atom is assumed to be non-negative; symbols are sizes. That is what makes floor division and
//! WGSL's truncating division the same thing, and bounds provable by looking at signs.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::scalar::Expr;

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
            *entry = entry.wrapping_add(c);
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
                Ordering::Equal => x.wrapping_add(y.wrapping_mul(factor)),
                Ordering::Greater => y.wrapping_mul(factor),
            };
            if c != 0 {
                sum.push((if order.is_le() { a } else { b }.clone(), c));
            }
            own = &own[usize::from(order.is_le())..];
            others = &others[usize::from(order.is_ge())..];
        }
        sum.extend_from_slice(own);
        sum.extend(others.iter().map(|(atoms, y)| (atoms.clone(), y.wrapping_mul(factor))));
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

    /// `self / divisor`, rounded down; both non-negative. A zero divisor gives zero.
    pub fn div(&self, divisor: &Idx) -> Idx {
        if divisor.is(1) {
            return self.clone();
        }
        match (self.as_const(), divisor.as_const()) {
            (_, Some(0)) => return Idx::from(0i64),
            (Some(a), Some(b)) => return Idx::from(a.div_euclid(b)),
            _ => {}
        }
        let (quotient, rest) = self.divide_terms(divisor);
        if rest.is(0) {
            return quotient;
        }
        if !quotient.is(0) && rest.is_non_negative() {
            return &quotient + &rest.div(divisor);
        }
        if rest.is_non_negative() && rest.is_below(divisor) {
            return quotient;
        }
        let whole = self;
        // (x / a) / b = x / (a * b);   (x % (a * b)) / a = (x / a) % b
        match whole.as_atom() {
            Some(Atom::Div(x, a)) => return x.div(&(a * divisor)),
            Some(Atom::Mod(x, ab)) => {
                let (b, rest) = ab.divide_terms(divisor);
                if rest.is(0) {
                    return x.div(divisor).rem(&b);
                }
            }
            _ => {}
        }
        // (g * x + r) / (g * d) = x / d where 0 <= r < g
        for (g, d) in whole.factors_of(divisor) {
            let (x, r) = whole.divide_terms(&g);
            if !x.is(0) && r.is_non_negative() && r.is_below(&g) {
                return x.div(&d);
            }
        }
        Idx::atom(Atom::Div(whole.clone(), divisor.clone()))
    }

    /// Ways to write `divisor` as a product `g * d` where `g` may divide some of the terms: numbers that divide a
    /// coefficient, largest first, or what is left without the divisor's number or one of its sizes.
    fn factors_of(&self, divisor: &Idx) -> Vec<(Idx, Idx)> {
        if let Some(d) = divisor.as_const() {
            return self.common_factors(d).into_iter().map(|g| (Idx::from(g), Idx::from(d / g))).collect();
        }
        let content = divisor.0.iter().fold(0, |g, (_, c)| gcd(g, c.unsigned_abs())) as i64;
        let atoms = divisor.0.first().map_or(&[][..], |(atoms, _)| atoms.as_slice());
        let number = (content > 1).then(|| Idx::from(content));
        let parts = number.into_iter().chain(atoms.iter().map(Idx::from_atom));
        let split = |d: Idx| {
            let (g, rest) = divisor.divide_terms(&d);
            (rest.is(0) && !g.is(1)).then_some((g, d))
        };
        parts.filter_map(split).collect()
    }

    /// Divisors of `d`, largest first, that divide at least one coefficient.
    fn common_factors(&self, d: i64) -> Vec<i64> {
        let mut found: Vec<i64> = self
            .0
            .iter()
            .map(|(_, c)| gcd(c.unsigned_abs(), d.unsigned_abs()) as i64)
            .filter(|&g| g > 1)
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found
    }

    /// `self % divisor`; both non-negative.
    pub fn rem(&self, divisor: &Idx) -> Idx {
        if divisor.is(1) {
            return Idx::from(0i64);
        }
        match (self.as_const(), divisor.as_const()) {
            (_, Some(0)) => return Idx::from(0i64),
            (Some(a), Some(b)) => return Idx::from(a.rem_euclid(b)),
            _ => {}
        }
        let (quotient, rest) = self.divide_terms(divisor);
        if rest.is(0) {
            return rest;
        }
        if rest.is_non_negative() {
            if rest.is_below(divisor) {
                return rest;
            }
            if !quotient.is(0) {
                return rest.rem(divisor);
            }
        }
        // (x % (a * b)) % a = x % a
        if let Some(Atom::Mod(x, ab)) = self.as_atom()
            && ab.divide_terms(divisor).1.is(0)
        {
            return x.rem(divisor);
        }
        // (g * x + r) % (g * d) = g * (x % d) + r where 0 <= r < g
        for (g, d) in self.factors_of(divisor) {
            let (x, r) = self.divide_terms(&g);
            if !x.is(0) && r.is_non_negative() && r.is_below(&g) {
                return &(&g * &x.rem(&d)) + &r;
            }
        }
        Idx::atom(Atom::Mod(self.clone(), divisor.clone()))
    }

    /// `self = quotient * divisor + rest`, the quotient taking every term that the divisor divides.
    fn divide_terms(&self, divisor: &Idx) -> (Idx, Idx) {
        let [(d_atoms, d_coef)] = divisor.0.as_slice() else {
            return if self == divisor {
                (Idx::from(1i64), Idx::from(0i64))
            } else {
                self.divide_sum(divisor)
            };
        };
        let (mut quotient, mut rest) = (Vec::new(), Vec::new());
        for (atoms, c) in self.0.iter() {
            match (remove_atoms(atoms, d_atoms), c % d_coef) {
                (Some(left), 0) => quotient.push((left, c / d_coef)),
                _ => rest.push((atoms.clone(), *c)),
            }
        }
        (Idx::collect(quotient), Idx::collect(rest))
    }

    /// Division by a sum of terms, as `(a*s + a*t + b) / (s + t)`: by the divisor's last term.
    fn divide_sum(&self, divisor: &Idx) -> (Idx, Idx) {
        let Some((lead_atoms, lead_coef)) = divisor.0.last() else { return (Idx::from(0i64), self.clone()) };
        for (atoms, c) in self.0.iter().rev() {
            let Some(left) = remove_atoms(atoms, lead_atoms) else { continue };
            if c % lead_coef != 0 {
                continue;
            }
            let factor = Idx::term(left, c / lead_coef);
            let rest = self - &(&factor * divisor);
            if rest.0.len() + divisor.0.len() == self.0.len() {
                let (more, rest) = rest.divide_sum(divisor);
                return (&factor + &more, rest);
            }
        }
        (Idx::from(0i64), self.clone())
    }

    /// `self / divisor` rounded up.
    pub fn div_ceil(&self, divisor: &Idx) -> Idx {
        (&(self + divisor) - &Idx::from(1i64)).div(divisor)
    }

    /// The smaller of two.
    pub fn smaller(&self, other: &Idx) -> Idx {
        match (self.as_const(), other.as_const()) {
            (Some(a), Some(b)) => return Idx::from(a.min(b)),
            _ if self.is_at_most(other) => return self.clone(),
            _ if other.is_at_most(self) => return other.clone(),
            _ => {}
        }
        Idx::atom(Atom::Min(self.clone(), other.clone()))
    }

    /// The larger of two.
    pub fn larger(&self, other: &Idx) -> Idx {
        match (self.as_const(), other.as_const()) {
            (Some(a), Some(b)) => return Idx::from(a.max(b)),
            _ if self.is_at_most(other) => return other.clone(),
            _ if other.is_at_most(self) => return self.clone(),
            _ => {}
        }
        Idx::atom(Atom::Max(self.clone(), other.clone()))
    }

    /// The smallest and largest values as polynomials over symbols (and opaque sizes made of them).
    fn bounds(&self) -> Option<(Idx, Idx)> {
        let (mut low, mut high) = (Idx::from(0i64), Idx::from(0i64));
        for (atoms, c) in self.0.iter() {
            let (mut term_low, mut term_high) = (Idx::from(1i64), Idx::from(1i64));
            for atom in atoms {
                let (l, h) = atom.bounds()?;
                term_low = &term_low * &l;
                term_high = &term_high * &h;
            }
            let c_idx = Idx::from(*c);
            let (l, h) = if *c > 0 { (term_low, term_high) } else { (term_high, term_low) };
            low = &low + &(&c_idx * &l);
            high = &high + &(&c_idx * &h);
        }
        Some((low, high))
    }

    fn has_no_negative_term(&self) -> bool {
        self.0.iter().all(|(_, c)| *c >= 0)
    }

    /// Whether the value is provably at least zero.
    pub fn is_non_negative(&self) -> bool {
        self.has_no_negative_term() || self.bounds().is_some_and(|(low, _)| low.has_no_negative_term())
    }

    /// Whether `self <= other`, provably.
    pub fn is_at_most(&self, other: &Idx) -> bool {
        (other - self).is_non_negative()
    }

    /// Whether `self < other`, provably.
    pub fn is_below(&self, other: &Idx) -> bool {
        let Some((_, high)) = self.bounds() else { return false };
        let gap = &(other - &high) - &Idx::from(1i64);
        gap.has_no_negative_term()
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

    /// Whether any loop variable or tensor read occurs in it.
    pub fn is_size(&self) -> bool {
        let mut size = true;
        self.visit(&mut |atom| size &= !matches!(atom, Atom::Var(_) | Atom::Data(..)));
        size
    }

    /// Replace `(x / d) * d * t + (x % d) * t` by `x * t`, and `((x / a) % b) * a * t + (x % a) * t` by
    /// `(x % (a * b)) * t`, until nothing changes.
    fn recombine(mut self) -> Idx {
        while let Some(simpler) = self.recombine_once() {
            self = simpler;
        }
        self
    }

    fn recombine_once(&self) -> Option<Idx> {
        for (atoms, c) in self.0.iter() {
            for (position, atom) in atoms.iter().enumerate() {
                let Atom::Mod(x, d) = atom else { continue };
                let mut others = atoms.clone();
                others.remove(position);
                let scale = Idx::term(others, *c);
                let quotient = x.div(d);
                let this = Idx::term(atoms.clone(), *c);
                let partner = &(&scale * d) * &quotient;
                if !partner.is(0) && self.contains(&partner) {
                    return Some(&(&(self - &this) - &partner) + &(&scale * x));
                }
                for (other_atoms, other_c) in self.0.iter() {
                    for candidate in other_atoms {
                        let Atom::Mod(y, e) = candidate else { continue };
                        if *y != quotient {
                            continue;
                        }
                        let other = Idx::term(other_atoms.clone(), *other_c);
                        if other == &(&scale * d) * &Idx::atom(candidate.clone()) {
                            return Some(&(&(self - &this) - &other) + &(&scale * &x.rem(&(d * e))));
                        }
                    }
                }
            }
        }
        None
    }

    /// Whether every term of `part` is a term of this sum.
    fn contains(&self, part: &Idx) -> bool {
        part.0.iter().all(|term| self.0.binary_search(term).is_ok())
    }
}

impl Atom {
    fn bounds(&self) -> Option<(Idx, Idx)> {
        let one = Idx::from(1i64);
        let below = |extent: &Idx| Some((Idx::from(0i64), &extent.bounds()?.1 - &one));
        let opaque = Idx::atom(self.clone());
        if opaque.is_size() && !matches!(self, Atom::Min(..) | Atom::Max(..)) {
            return Some((opaque.clone(), opaque));
        }
        match self {
            Atom::Sym(_) => Some((opaque.clone(), opaque)),
            Atom::Var(v) => below(&v.extent),
            Atom::Data(_, extent) => below(extent),
            Atom::Mod(_, d) => below(d),
            Atom::Div(a, b) => {
                let (_, high) = a.bounds()?;
                (b.is_size() && high.is_non_negative()).then(|| (Idx::from(0i64), high.div(b)))
            }
            Atom::Max(a, b) => {
                let ((al, _), (bl, _)) = (a.bounds()?, b.bounds()?);
                let low =
                    if al.is_non_negative() || bl.is_non_negative() { Idx::from(0i64) } else { return None };
                opaque.is_size().then_some((low, opaque))
            }
            Atom::Min(a, b) => {
                let ((al, ah), (bl, bh)) = (a.bounds()?, b.bounds()?);
                if !(al.is_non_negative() && bl.is_non_negative()) {
                    return None;
                }
                Some((Idx::from(0i64), if bh.as_const().is_some() { bh } else { ah }))
            }
        }
    }
}

/// `atoms` without those of `gone`, or `None` when one is missing. Both sorted.
fn remove_atoms(atoms: &[Atom], gone: &[Atom]) -> Option<Monomial> {
    let mut left = atoms.to_vec();
    for atom in gone {
        let position = left.iter().position(|a| a == atom)?;
        left.remove(position);
    }
    Some(left)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
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

impl std::fmt::Display for Idx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("0");
        }
        for (position, (atoms, c)) in self.0.iter().rev().enumerate() {
            let sign = if *c < 0 { "-" } else { "+" };
            match (position, *c < 0) {
                (0, false) => {}
                (0, true) => f.write_str("-")?,
                _ => write!(f, " {sign} ")?,
            }
            let size = c.unsigned_abs();
            if size != 1 || atoms.is_empty() {
                write!(f, "{size}{}", if atoms.is_empty() { "" } else { "*" })?;
            }
            for (i, atom) in atoms.iter().enumerate() {
                if i > 0 {
                    f.write_str("*")?;
                }
                match atom {
                    Atom::Sym(name) => f.write_str(name)?,
                    Atom::Var(v) => write!(f, "i{}", v.id)?,
                    Atom::Div(a, b) => write!(f, "(({a}) / ({b}))")?,
                    Atom::Mod(a, b) => write!(f, "(({a}) % ({b}))")?,
                    Atom::Min(a, b) => write!(f, "min({a}, {b})")?,
                    Atom::Max(a, b) => write!(f, "max({a}, {b})")?,
                    Atom::Data(e, _) => write!(f, "[{e}]")?,
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Idx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// The product of all dimensions: the number of elements of `shape`.
pub fn numel(shape: &[Idx]) -> Idx {
    shape.iter().fold(Idx::from(1i64), |n, d| &n * d)
}

/// The row-major offset of the element `at` of `shape`.
pub fn flatten(at: &[Idx], shape: &[Idx]) -> Idx {
    at.iter().zip(shape).fold(Idx::from(0i64), |offset, (i, d)| &(&offset * d) + i)
}

/// The position in `shape` of the element at row-major `offset`.
pub fn unflatten(offset: &Idx, shape: &[Idx]) -> Vec<Idx> {
    let mut at = vec![Idx::from(0i64); shape.len()];
    let mut stride = Idx::from(1i64);
    for axis in (0..shape.len()).rev() {
        let here = offset.div(&stride);
        let outer = shape[..axis].iter().all(|d| d.is(1));
        at[axis] = if shape[axis].is(1) {
            Idx::from(0i64)
        } else if outer {
            here
        } else {
            here.rem(&shape[axis])
        };
        stride = &stride * &shape[axis];
    }
    at
}

/// Row-major loop variables `first..` over `shape`.
pub fn vars(first: u32, shape: &[Idx]) -> Vec<Idx> {
    shape.iter().enumerate().map(|(i, d)| Idx::var(first + i as u32, d)).collect()
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
