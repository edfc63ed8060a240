//! Renders `gemm.wgsl`, and the parts that all skeletons of contractions share.

use std::collections::BTreeMap;

use super::operand::Operand;
use super::product::{self, Lanes};
use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::kernel::{ContractBody, ContractSchedule, KernelSpec, in_fours};

pub const SKELETON: &str = include_str!("../../shaders/gemm.wgsl");

pub fn render(
    label: &str,
    spec: &KernelSpec,
    body: &ContractBody,
    schedule: &ContractSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = Scope::new(spec, target);
    sums(&mut scope, body);
    Operand::a(body).line(&mut scope);
    Operand::b(body).block(&mut scope);
    store(&mut scope, spec, body);
    let ContractSchedule { group_m, group_n, micro_m, micro_n4, .. } = schedule;
    let knobs = format!(
        "const GROUP_M: u32 = {group_m}u;\nconst GROUP_N: u32 = {group_n}u;\n\
         const MICRO_M: i32 = {micro_m};\nconst MICRO_N4: i32 = {micro_n4};\n{}{}",
        copies("m", "i32", *micro_m),
        copies("n", "i32", *micro_n4),
    );
    let counts = [("MICRO_M", *micro_m as usize), ("MICRO_N4", *micro_n4 as usize)].into();
    scope.finish(label, "gemm.wgsl", SKELETON, knobs, counts)
}

/// Constants `name0`, `name1`, ..: the numbers of a repeated region's copies.
pub fn copies(name: &str, ty: &str, count: u32) -> String {
    (0..count).map(|i| format!("const {name}{i}: {ty} = {i};\n")).collect()
}

/// The sizes, and what a sum is.
pub fn sums(scope: &mut Scope, body: &ContractBody) {
    let sum = if body.f16_sum { "f16" } else { scope.device_type(body.sum) };
    product::mul_add(scope, body.product, sum, Lanes::Four);
    for (name, size) in
        [("batches", &body.batch), ("size_m", &body.m), ("size_n", &body.n), ("size_k", &body.k)]
    {
        scope.size(name, size);
    }
}

/// `store(b, m, n, sum)`: the epilogue of four sums along N, those beyond its end left out.
pub fn store(scope: &mut Scope, spec: &KernelSpec, body: &ContractBody) {
    let sum = if body.f16_sum { "f32(sum)" } else { "sum" };
    let args: BTreeMap<u32, String> = [(0, sum.to_string())].into();
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
        let vector = scope.vector_store(&values);
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
