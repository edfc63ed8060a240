//! Bounds of index expressions, proven from the extents of variables and the signs of terms.

use super::{Atom, Idx};

impl Idx {
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

    /// Whether the coefficients, or the constant bounds, lie outside of int32; symbols are taken to be small enough.
    pub fn may_leave_i32(&self) -> bool {
        let outside = |v: i64| i32::try_from(v).is_err();
        let bound = |b: &Idx| b.as_const().is_some_and(outside);
        self.0.iter().any(|(_, c)| outside(*c))
            || self.bounds().is_some_and(|(low, high)| bound(&low) || bound(&high))
    }

    /// Whether `self < other`, provably.
    pub fn is_below(&self, other: &Idx) -> bool {
        let Some((_, high)) = self.bounds() else { return false };
        let gap = &(other - &high) - &Idx::from(1i64);
        gap.has_no_negative_term()
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
