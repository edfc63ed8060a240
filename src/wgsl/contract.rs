//! Renders `gemm.wgsl`: finds out along which axis each operand can be read four elements at a time.

use std::collections::BTreeMap;

use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::expr::{Atom, Expr, Idx, Node};
use crate::kernel::{ContractBody, ContractSchedule, KernelSpec};

pub const SKELETON: &str = include_str!("../../shaders/gemm.wgsl");

/// Loop variables of a contraction.
const N: u32 = 2;
const K: u32 = 3;

pub fn render(
    label: &str,
    spec: &KernelSpec,
    body: &ContractBody,
    schedule: &ContractSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = Scope::new(spec, target);
    let sum = scope.device_type(body.sum);
    scope.text(&format!("alias Sum = {sum};"));
    for (name, size) in
        [("batches", &body.batch), ("size_m", &body.m), ("size_n", &body.n), ("size_k", &body.k)]
    {
        scope.size(name, size);
    }
    let product = if sum == "f32" { "fma(vec4<Sum>(a), b, c)" } else { "vec4<Sum>(a) * b + c" };
    scope.text(&format!(
        "fn mul_add(a: Sum, b: vec4<Sum>, c: vec4<Sum>) -> vec4<Sum> {{ return {product}; }}"
    ));
    load_a(&mut scope, body, sum);
    load_b(&mut scope, body, sum);
    store(&mut scope, spec, body);
    let copies = |name: &str, count: u32| -> String {
        (0..count).map(|i| format!("const {name}{i}: i32 = {i};\n")).collect()
    };
    let knobs = format!(
        "const GROUP_M: u32 = {}u;\nconst GROUP_N: u32 = {}u;\nconst MICRO_M: i32 = {};\nconst MICRO_N4: i32 = {};\n{}{}",
        schedule.group_m,
        schedule.group_n,
        schedule.micro_m,
        schedule.micro_n4,
        copies("m", schedule.micro_m),
        copies("n", schedule.micro_n4),
    );
    let counts = [("MICRO_M", schedule.micro_m as usize), ("MICRO_N4", schedule.micro_n4 as usize)].into();
    scope.finish(label, "gemm.wgsl", SKELETON, knobs, counts)
}

/// Whether a size is a constant multiple of four.
pub fn in_fours(size: &Idx) -> bool {
    size.as_const().is_some_and(|n| n % 4 == 0)
}

/// The input and offset of `expr`, when it is nothing but a load whose elements follow each other along
/// `var`, starting at multiples of four.
fn consecutive(expr: &Expr, var: u32) -> Option<(usize, &Idx)> {
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

/// As [`consecutive`], for elements that are read by fours.
pub fn vector<'a>(scope: &Scope, expr: &'a Expr, var: u32) -> Option<(usize, &'a Idx)> {
    consecutive(expr, var).filter(|_| scope.has_vectors(expr.dtype()))
}

fn load_a(scope: &mut Scope, body: &ContractBody, sum: &str) {
    let (vars, none) = (["b", "m", "n", "k"], BTreeMap::new());
    let signature = "fn load_a(b: i32, m: i32, k: i32) -> vec4<Sum>";
    if let (Some((input, offset)), true) = (vector(scope, &body.a, K), in_fours(&body.k)) {
        let mut text = String::new();
        scope.slot("fn offset_a(b: i32, m: i32, k: i32) -> i32", &vars, &none, |p| {
            let offset = p.idx(offset);
            format!("return {offset};")
        });
        text.push_str(&scope.vector_load(input, "offset_a(b, m, k)"));
        return scope.text(&format!("{signature} {{ return vec4<Sum>({text}); }}"));
    }
    element(scope, "a_at", &["b", "m", "k"], &body.a, sum);
    let lanes: Vec<String> =
        (0..4).map(|i| within_k(&body.k, i, "Sum()", |k| format!("a_at(b, m, {k})"))).collect();
    scope.text(&format!("{signature} {{\n    return vec4<Sum>({});\n}}", lanes.join(", ")));
}

fn load_b(scope: &mut Scope, body: &ContractBody, sum: &str) {
    let (vars, none) = (["b", "m", "n", "k"], BTreeMap::new());
    let signature = "fn load_b(b: i32, k: i32, n: i32) -> Tile";
    let offset_slot = |scope: &mut Scope, offset: &Idx| {
        scope.slot("fn offset_b(b: i32, k: i32, n: i32) -> i32", &vars, &none, |p| {
            let offset = p.idx(offset);
            format!("return {offset};")
        });
    };
    // Vectors along N are rows of the tile as they are.
    if let (Some((input, offset)), true) = (vector(scope, &body.b, N), in_fours(&body.n)) {
        offset_slot(scope, offset);
        let row =
            |k: &str| format!("vec4<Sum>({})", scope.vector_load(input, &format!("offset_b(b, {k}, n)")));
        let rows: Vec<String> = (0..4).map(|i| within_k(&body.k, i, "vec4<Sum>()", row)).collect();
        return scope.text(&tile(signature, &rows));
    }
    // Vectors along K are its columns.
    if let (Some((input, offset)), true) = (vector(scope, &body.b, K), in_fours(&body.k)) {
        offset_slot(scope, offset);
        let mut text = format!("{signature} {{\n    let last = size_n() - 1;\n");
        for (i, name) in ["x", "y", "z", "w"].iter().enumerate() {
            let load = scope.vector_load(input, &format!("offset_b(b, k, min(n + {i}, last))"));
            text.push_str(&format!("    let {name} = vec4<Sum>({load});\n"));
        }
        text.push_str("    return Tile(\n");
        for c in ["x", "y", "z", "w"] {
            text.push_str(&format!("        vec4<Sum>(x.{c}, y.{c}, z.{c}, w.{c}),\n"));
        }
        text.push_str("    );\n}");
        return scope.text(&text);
    }
    element(scope, "b_at", &["b", "k", "n"], &body.b, sum);
    let at =
        |i: usize| if in_fours(&body.n) { format!("n + {i}") } else { format!("min(n + {i}, size_n() - 1)") };
    let loads: Vec<String> = (0..4).map(|i| format!("b_at(b, k, {})", at(i))).collect();
    let loads = loads.join(", ");
    scope.text(&format!(
        "fn row_b(b: i32, k: i32, n: i32) -> vec4<Sum> {{\n    return vec4<Sum>({loads});\n}}"
    ));
    let rows: Vec<String> =
        (0..4).map(|i| within_k(&body.k, i, "vec4<Sum>()", |k| format!("row_b(b, {k}, n)"))).collect();
    scope.text(&tile(signature, &rows));
}

/// A tile of four rows.
fn tile(signature: &str, rows: &[String]) -> String {
    format!("{signature} {{\n    return Tile(\n        {},\n    );\n}}", rows.join(",\n        "))
}

/// `fn name(vars) -> Sum`, one element of an operand.
fn element(scope: &mut Scope, name: &str, parameters: &[&str], expr: &Expr, sum: &str) {
    let parameters: Vec<String> = parameters.iter().map(|p| format!("{p}: i32")).collect();
    let signature = format!("fn {name}({}) -> Sum", parameters.join(", "));
    let same = scope.device_type(expr.dtype()) == sum;
    scope.slot(&signature, &["b", "m", "n", "k"], &BTreeMap::new(), |p| {
        let text = p.expr(expr);
        if same { format!("return {text};") } else { format!("return Sum({text});") }
    });
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

fn store(scope: &mut Scope, spec: &KernelSpec, body: &ContractBody) {
    let args: BTreeMap<u32, String> = [(0, "sum".to_string())].into();
    let ty = scope.device_type(body.epilogue.dtype());
    let signature = format!("fn epilogue(b: i32, m: i32, n: i32, sum: Sum) -> {ty}");
    scope.slot(&signature, &["b", "m", "n", "k"], &args, |p| {
        let text = p.expr(&body.epilogue);
        format!("return {text};")
    });
    let signature = "fn store(b: i32, m: i32, n: i32, sum: vec4<Sum>)";
    let offset = "let first = (b * size_m() + m) * size_n() + n;";
    let lanes = ["x", "y", "z", "w"];
    let value = |scope: &Scope, i: usize| scope.narrow(&format!("epilogue(b, m, n + {i}, sum.{})", lanes[i]));
    debug_assert_eq!(scope.device_type(spec.output), ty);
    if in_fours(&body.n) && scope.has_vectors(spec.output) {
        let values: Vec<String> = (0..4).map(|i| value(scope, i)).collect();
        let vector = format!("vec4<{}>({})", scope.output_type(), values.join(", "));
        scope.widen_output();
        return scope.text(&format!("{signature} {{\n    {offset}\n    result[first / 4] = {vector};\n}}"));
    }
    let mut text = format!("{signature} {{\n    {offset}\n");
    for i in 0..4 {
        let store = format!("result[first + {i}] = {};", value(scope, i));
        let line = if i == 0 { store } else { format!("if (n + {i} < size_n()) {{ {store} }}") };
        text.push_str(&format!("    {line}\n"));
    }
    text.push('}');
    scope.text(&text);
}
