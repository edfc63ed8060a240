//! Division and remainder in canonical form, and sums of both that come together again.

use super::{Atom, Idx, Monomial};

impl Idx {
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

    /// Replace `(x / d) * d * t + (x % d) * t` by `x * t`, and `((x / a) % b) * a * t + (x % a) * t` by
    /// `(x % (a * b)) * t`, until nothing changes.
    pub(super) fn recombine(mut self) -> Idx {
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
