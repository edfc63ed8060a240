//! How the elements of a contraction's operands lie in memory.

use super::fours::in_fours;
use super::spec::ContractBody;
use crate::expr::{Atom, Expr, Idx, Node};

/// The axis along which an operand's elements follow each other in memory, in whole fours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// The axis of the sum.
    K,
    /// The other: rows of A, columns of B.
    Outer,
    /// None that is known.
    Neither,
}

impl ContractBody {
    /// How A lies.
    pub fn along_a(&self) -> Along {
        along(&self.a, [1, 3], [&self.m, &self.k])
    }

    /// How B lies.
    pub fn along_b(&self) -> Along {
        along(&self.b, [2, 3], [&self.n, &self.k])
    }
}

/// The axis of `expr` over two variables of these extents: the outer one and K.
fn along(expr: &Expr, vars: [u32; 2], extents: [&Idx; 2]) -> Along {
    let fours = |i: usize| in_fours(extents[i]) && consecutive(expr, vars[i]).is_some();
    if fours(0) {
        Along::Outer
    } else if fours(1) {
        Along::K
    } else {
        Along::Neither
    }
}

/// The input and offset of `expr`, when it is nothing but a load whose elements follow each other along
/// `var`, starting at multiples of four.
pub fn consecutive(expr: &Expr, var: u32) -> Option<(usize, &Idx)> {
    let Node::Load { source, at, .. } = expr.node() else { return None };
    let [offset] = at.as_slice() else { return None };
    let mut along = false;
    for (atoms, c) in offset.terms() {
        let is_var = |atom: &Atom| matches!(atom, Atom::Var(v) if v.id == var);
        if atoms.len() == 1 && is_var(&atoms[0]) && *c == 1 {
            along = true;
            continue;
        }
        let mut inside = false;
        for atom in atoms {
            inside |= is_var(atom);
            Idx::from_atom(atom).visit(&mut |a| inside |= is_var(a));
        }
        if inside || c % 4 != 0 {
            return None;
        }
    }
    along.then_some((*source as usize, offset))
}

/// Reads of storage that fours by fours of both operands take: `[a line of A along K, a 4 x 4 block of A, of B]`.
pub fn reads(body: &ContractBody) -> [f64; 3] {
    let block = |along: Along| match along {
        Along::K | Along::Outer => 4.0,
        Along::Neither => 16.0,
    };
    let line = match consecutive(&body.a, 3) {
        Some(_) if in_fours(&body.k) => 1.0,
        Some(_) | None => 4.0,
    };
    [line, block(body.along_a()), block(body.along_b())]
}
