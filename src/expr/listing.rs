//! Expressions written down node by node, each distinct node once: as long as the expression is large, where a tree
//! repeats what is shared. Equal expressions have one listing, however much of them is shared in memory.

use std::collections::HashMap;
use std::fmt::Write;

use super::index::Idx;
use super::scalar::{Const, Expr, Node};
use super::value::Value;

/// The nodes so far, in order of their first use.
#[derive(Default)]
pub struct Listing {
    text: String,
    /// The number of a node by what it is made of.
    numbers: HashMap<String, usize>,
    /// The same by address, so that no node is looked at twice.
    seen: HashMap<usize, String>,
}

impl Listing {
    /// The expression as nodes `n0 = ..; n1 = ..;` and then the last of them.
    pub fn of(expr: &Expr) -> String {
        let mut listing = Listing::default();
        let last = listing.expr(expr);
        listing.text + &last
    }

    /// The name of a node, which is written down if it is new. Leaves are their own names.
    fn expr(&mut self, expr: &Expr) -> String {
        if let Some(name) = self.seen.get(&expr.id()) {
            return name.clone();
        }
        let name = match expr.node() {
            Node::Const(Const { dtype, value }) => match value {
                Value::F(v) => format!("{v:?}:{dtype}"),
                Value::I(v) => format!("{v}:{dtype}"),
                Value::B(v) => v.to_string(),
            },
            Node::Arg(number, dtype) => format!("arg{number}:{dtype}"),
            Node::Index(idx, dtype) => {
                let idx = self.idx(idx);
                self.named(format!("({idx}):{dtype}"))
            }
            Node::Load { source, dtype, at } => {
                let at: Vec<String> = at.iter().map(|idx| self.idx(idx)).collect();
                self.named(format!("t{source}[{}]:{dtype}", at.join(", ")))
            }
            Node::Unary(op, a) => {
                let a = self.expr(a);
                self.named(format!("{op:?}({a})"))
            }
            Node::Binary(op, a, b) => {
                let (a, b) = (self.expr(a), self.expr(b));
                self.named(format!("{op:?}({a}, {b})"))
            }
            Node::Select(c, a, b) => {
                let (c, a, b) = (self.expr(c), self.expr(a), self.expr(b));
                self.named(format!("{c} ? {a} : {b}"))
            }
            Node::Cast(dtype, a) => {
                let a = self.expr(a);
                self.named(format!("{dtype}({a})"))
            }
            Node::Bits(dtype, a) => {
                let a = self.expr(a);
                self.named(format!("bits {dtype}({a})"))
            }
        };
        self.seen.insert(expr.id(), name.clone());
        name
    }

    /// An index, with the values that it reads by name.
    fn idx(&mut self, idx: &Idx) -> String {
        idx.written(&mut |value, extent| {
            let (value, extent) = (self.expr(value), self.idx(extent));
            format!("[{value} < {extent}]")
        })
    }

    fn named(&mut self, made_of: String) -> String {
        let number = self.numbers.len();
        if let Some(known) = self.numbers.get(&made_of) {
            return format!("n{known}");
        }
        let _ = write!(self.text, "n{number} = {made_of}; ");
        self.numbers.insert(made_of, number);
        format!("n{number}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn doubled(times: usize) -> Expr {
        let x = Expr::load(0, DType::F32, vec![Idx::sym("n")]);
        (0..times).fold(x, |x, _| &x + &x)
    }

    #[test]
    fn what_is_shared_is_written_once() {
        assert_eq!(format!("{:?}", doubled(2)), "n0 = t0[n]:float32; n1 = Add(n0, n0); n2 = Add(n1, n1); n2");
        assert!(format!("{:?}", doubled(1000)).len() < 40_000);
    }

    #[test]
    fn equal_expressions_have_one_listing_and_others_another() {
        let x = || Expr::load(0, DType::F32, vec![Idx::sym("n")]);
        let shared = {
            let e = x().exp();
            &e * &e
        };
        assert_eq!(format!("{shared:?}"), format!("{:?}", x().exp() * x().exp()));
        let data = |extent: i64| {
            let at = Expr::load(1, DType::I32, vec![]).to_position(&Idx::from(extent));
            Expr::load(0, DType::F32, vec![at])
        };
        let n = Idx::sym("n");
        let different = [
            x(),
            doubled(1),
            x().cast(DType::F16),
            Expr::load(0, DType::F16, vec![n.clone()]),
            Expr::load(1, DType::F32, vec![n.clone()]),
            Expr::index(n.clone(), DType::I32),
            Expr::index(n, DType::I64),
            Expr::int(DType::I32, 1),
            Expr::int(DType::I64, 1),
            Expr::float(DType::F32, 1.0),
            Expr::float(DType::F32, 0.0),
            Expr::float(DType::F32, -0.0),
            data(4),
            data(5),
            &x().exp() + &x().log(),
            &x().log() + &x().exp(),
        ];
        let texts: Vec<String> = different.iter().map(|e| format!("{e:?}")).collect();
        for (i, text) in texts.iter().enumerate() {
            assert!(!texts[..i].contains(text), "{text}");
        }
    }
}
