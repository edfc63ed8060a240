//! Loads of a contraction's operands: finds out along which axis one can be read four elements at a time.

use std::collections::BTreeMap;

use super::scope::Scope;
use crate::expr::{Expr, Idx};
use crate::kernel::{ContractBody, consecutive, in_fours};
use crate::tensor::DType;

/// Loop variables of a contraction.
const M: u32 = 1;
const N: u32 = 2;
const K: u32 = 3;

/// Names of the loop variables.
const VARS: [&str; 4] = ["b", "m", "n", "k"];

/// One operand: A over (m, k) or B over (k, n).
pub struct Operand<'a> {
    letter: &'static str,
    outer: &'static str,
    outer_size: &'static str,
    var: u32,
    expr: &'a Expr,
    extent: &'a Idx,
    k: &'a Idx,
    /// The dtype of sums; `None` for f16, which nothing else is computed in.
    sum: Option<DType>,
}

impl<'a> Operand<'a> {
    /// The left operand.
    pub fn a(body: &'a ContractBody) -> Self {
        let (expr, extent, k) = (&body.a, &body.m, &body.k);
        Operand {
            letter: "a",
            outer: "m",
            outer_size: "size_m()",
            var: M,
            expr,
            extent,
            k,
            sum: sum_of(body),
        }
    }

    /// The right operand.
    pub fn b(body: &'a ContractBody) -> Self {
        let (expr, extent, k) = (&body.b, &body.n, &body.k);
        Operand {
            letter: "b",
            outer: "n",
            outer_size: "size_n()",
            var: N,
            expr,
            extent,
            k,
            sum: sum_of(body),
        }
    }

    /// The input and offset, where fours along `var` can be read at once.
    fn fours(&self, scope: &Scope, var: u32, extent: &Idx) -> Option<(usize, &'a Idx)> {
        vector(scope, self.expr, var).filter(|_| in_fours(extent))
    }

    /// `(b, m, k)` of A, `(b, k, n)` of B.
    fn parameters(&self) -> [&'static str; 3] {
        if self.var == M { ["b", "m", "k"] } else { ["b", "k", "n"] }
    }

    fn signature(&self, function: &str, result: &str) -> String {
        let parameters: Vec<String> = self.parameters().iter().map(|p| format!("{p}: i32")).collect();
        format!("fn {function}_{}({}) -> {result}", self.letter, parameters.join(", "))
    }

    /// A call of one of its functions, at row or column `outer` and position `k`.
    fn call(&self, function: &str, outer: &str, k: &str) -> String {
        let (first, second) = if self.var == M { (outer, k) } else { (k, outer) };
        format!("{function}_{}(b, {first}, {second})", self.letter)
    }

    fn offset(&self, scope: &mut Scope, offset: &Idx) {
        scope.slot(&self.signature("offset", "i32"), &VARS, &BTreeMap::new(), |p| {
            let offset = p.idx(offset);
            format!("return {offset};")
        });
    }

    /// `at_a`, one element.
    fn element(&self, scope: &mut Scope) {
        let same = self.sum.is_some_and(|sum| scope.device_type(self.expr.dtype()) == scope.device_type(sum));
        scope.slot(&self.signature("at", "Element"), &VARS, &BTreeMap::new(), |p| {
            let text = p.expr(self.expr);
            if same { format!("return {text};") } else { format!("return Element({text});") }
        });
    }

    /// `load_a(b, m, k) -> vec4<Element>`: four elements along K, zero beyond its end.
    pub fn line(&self, scope: &mut Scope) {
        let signature = self.signature("load", "vec4<Element>");
        if let Some((input, offset)) = self.fours(scope, K, self.k) {
            self.offset(scope, offset);
            let text = scope.vector_load(input, &self.call("offset", self.outer, "k"));
            return scope.text(&format!("{signature} {{ return vec4<Element>({text}); }}"));
        }
        self.element(scope);
        let lanes: Vec<String> =
            (0..4).map(|i| within_k(self.k, i, "Element()", |k| self.call("at", self.outer, k))).collect();
        scope.text(&format!("{signature} {{\n    return vec4<Element>({});\n}}", lanes.join(", ")));
    }

    /// `load_b(b, k, n) -> Tile`: four rows or columns times four positions of K, a vector of the former for each of
    /// the latter. Zero beyond the end of K; beyond the end of the other axis, anything.
    pub fn block(&self, scope: &mut Scope) {
        let signature = self.signature("load", "Tile");
        let outer = self.outer;
        // Vectors along the outer axis are rows of the tile as they are.
        if let Some((input, offset)) = self.fours(scope, self.var, self.extent) {
            self.offset(scope, offset);
            let row = |k: &str| {
                format!("vec4<Element>({})", scope.vector_load(input, &self.call("offset", outer, k)))
            };
            let rows: Vec<String> = (0..4).map(|i| within_k(self.k, i, "vec4<Element>()", row)).collect();
            return scope.text(&tile(&signature, &rows));
        }
        // Vectors along K are its columns.
        if let Some((input, offset)) = self.fours(scope, K, self.k) {
            self.offset(scope, offset);
            let mut text = format!("{signature} {{\n    let last = {} - 1;\n", self.outer_size);
            for (i, name) in ["x", "y", "z", "w"].iter().enumerate() {
                let at = format!("min({outer} + {i}, last)");
                let load = scope.vector_load(input, &self.call("offset", &at, "k"));
                text.push_str(&format!("    let {name} = vec4<Element>({load});\n"));
            }
            text.push_str("    return Tile(\n");
            for c in ["x", "y", "z", "w"] {
                text.push_str(&format!("        vec4<Element>(x.{c}, y.{c}, z.{c}, w.{c}),\n"));
            }
            text.push_str("    );\n}");
            return scope.text(&text);
        }
        self.element(scope);
        let at = |i: usize| {
            if in_fours(self.extent) {
                format!("{outer} + {i}")
            } else {
                format!("min({outer} + {i}, {} - 1)", self.outer_size)
            }
        };
        let loads: Vec<String> = (0..4).map(|i| self.call("at", &at(i), "k")).collect();
        let row = self.signature("row", "vec4<Element>");
        scope.text(&format!("{row} {{\n    return vec4<Element>({});\n}}", loads.join(", ")));
        let rows: Vec<String> =
            (0..4).map(|i| within_k(self.k, i, "vec4<Element>()", |k| self.call("row", outer, k))).collect();
        scope.text(&tile(&signature, &rows));
    }
}

fn sum_of(body: &ContractBody) -> Option<DType> {
    (!body.f16_sum).then_some(body.sum)
}

/// As [`consecutive`], for elements that are read by fours.
pub fn vector<'a>(scope: &Scope, expr: &'a Expr, var: u32) -> Option<(usize, &'a Idx)> {
    consecutive(expr, var).filter(|_| scope.has_vectors(expr.dtype()))
}

/// A tile of four rows.
fn tile(signature: &str, rows: &[String]) -> String {
    format!("{signature} {{\n    return Tile(\n        {},\n    );\n}}", rows.join(",\n        "))
}

/// What `load` gives at position `k + i`, `zero` where that is beyond the end of K. Without a branch: each of a
/// tile's many elements would have one, and some drivers' compilers take minutes over that.
fn within_k(size: &Idx, i: usize, zero: &str, load: impl Fn(&str) -> String) -> String {
    if in_fours(size) || i == 0 {
        return load(&format!("k + {i}"));
    }
    let clamped = load(&format!("min(k + {i}, size_k() - 1)"));
    format!("select({zero}, {clamped}, k + {i} < size_k())")
}
