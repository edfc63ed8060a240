//! Walks over scalar expressions: rebuilding them with other leaves, and visiting them.

use std::collections::{HashMap, HashSet};

use super::index::{Atom, Idx};
use super::scalar::{Expr, Node};
use super::value::Value;
use crate::tensor::DType;

impl Expr {
    /// Rebuild with loads replaced by `load(source, dtype, at)` (`at` not yet rewritten) and atoms of
    /// indices replaced by `atom`. Shared parts stay shared.
    pub fn rewrite(&self, rewriter: &mut dyn Rewrite) -> Expr {
        rewrite(self, rewriter, &mut HashMap::new())
    }

    /// Visit every node once, parents first. Indices' data reads are visited too.
    pub fn visit(&self, f: &mut dyn FnMut(&Expr)) {
        let mut seen = HashSet::new();
        visit(self, &mut seen, f);
    }

    /// Visit every index expression of the loads and numbers in it, data reads' included.
    pub fn visit_indices(&self, f: &mut dyn FnMut(&Idx)) {
        self.visit(&mut |e| match e.node() {
            Node::Index(idx, _) => f(idx),
            Node::Load { at, .. } => at.iter().for_each(&mut *f),
            Node::Const(_)
            | Node::Arg(..)
            | Node::Unary(..)
            | Node::Binary(..)
            | Node::Select(..)
            | Node::Cast(..)
            | Node::Bits(..) => {}
        });
    }
}

/// How [`Expr::rewrite`] replaces the leaves.
pub trait Rewrite {
    /// The replacement of a load whose indices are already rewritten.
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr;
    /// The replacement of an index atom, `None` to keep it. Data reads are rewritten by the walk.
    fn atom(&mut self, atom: &Atom) -> Option<Idx>;
    /// The replacement of an argument.
    fn arg(&mut self, number: u32, dtype: DType) -> Expr {
        Expr::arg(number, dtype)
    }
}

type Memo = HashMap<usize, (Expr, Expr)>;

/// Rewrite an index, data reads included.
pub fn rewrite_idx(idx: &Idx, rewriter: &mut dyn Rewrite, memo: &mut Memo) -> Idx {
    idx.rewrite(&mut |atom| match atom {
        Atom::Data(value, extent) => {
            let value = rewrite(value, rewriter, memo);
            let extent = rewrite_idx(extent, rewriter, memo);
            Some(value.to_position(&extent))
        }
        _ => rewriter.atom(atom),
    })
}

fn rewrite(expr: &Expr, rewriter: &mut dyn Rewrite, memo: &mut Memo) -> Expr {
    if let Some((_, done)) = memo.get(&expr.id()) {
        return done.clone();
    }
    let done = match expr.node() {
        Node::Const(_) => expr.clone(),
        Node::Index(idx, dtype) => Expr::index(rewrite_idx(idx, rewriter, memo), *dtype),
        Node::Load { source, dtype, at } => {
            let at = at.iter().map(|i| rewrite_idx(i, rewriter, memo)).collect();
            rewriter.load(*source, *dtype, at)
        }
        Node::Arg(number, dtype) => rewriter.arg(*number, *dtype),
        Node::Unary(op, a) => rewrite(a, rewriter, memo).unary(*op),
        Node::Binary(op, a, b) => rewrite(a, rewriter, memo).binary(*op, &rewrite(b, rewriter, memo)),
        Node::Select(c, a, b) => {
            let c = rewrite(c, rewriter, memo);
            match c.as_const() {
                Some(Value::B(true)) => rewrite(a, rewriter, memo),
                Some(Value::B(false)) => rewrite(b, rewriter, memo),
                _ => c.select(&rewrite(a, rewriter, memo), &rewrite(b, rewriter, memo)),
            }
        }
        Node::Cast(dtype, a) => rewrite(a, rewriter, memo).cast(*dtype),
        Node::Bits(dtype, a) => rewrite(a, rewriter, memo).bits(*dtype),
    };
    memo.insert(expr.id(), (expr.clone(), done.clone()));
    done
}

fn visit(expr: &Expr, seen: &mut HashSet<usize>, f: &mut dyn FnMut(&Expr)) {
    if !seen.insert(expr.id()) {
        return;
    }
    f(expr);
    let in_index = |idx: &Idx, seen: &mut HashSet<usize>, f: &mut dyn FnMut(&Expr)| {
        let mut reads = Vec::new();
        idx.visit(&mut |atom| {
            if let Atom::Data(value, _) = atom {
                reads.push(value.clone());
            }
        });
        reads.iter().for_each(|value| visit(value, seen, f));
    };
    match expr.node() {
        Node::Const(_) | Node::Arg(..) => {}
        Node::Index(idx, _) => in_index(idx, seen, f),
        Node::Load { at, .. } => at.iter().for_each(|idx| in_index(idx, seen, f)),
        Node::Unary(_, a) | Node::Cast(_, a) | Node::Bits(_, a) => visit(a, seen, f),
        Node::Binary(_, a, b) => {
            visit(a, seen, f);
            visit(b, seen, f);
        }
        Node::Select(c, a, b) => {
            visit(c, seen, f);
            visit(a, seen, f);
            visit(b, seen, f);
        }
    }
}
