//! Renders `attention.wgsl` and `attention_serial.wgsl`.

use std::collections::BTreeMap;

use super::operand::vector;
use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::expr::{Expr, Idx};
use crate::kernel::{AttentionBody, AttentionResult, FusedSchedule, KernelSpec, columns, in_fours, stride};

pub const SHARED: &str = include_str!("../../shaders/attention.wgsl");
pub const SERIAL: &str = include_str!("../../shaders/attention_serial.wgsl");

/// Loop variables of the body.
const VARS: [&str; 5] = ["b", "m", "n", "k", "d"];
const N: u32 = 2;
const D: u32 = 4;

pub fn render(
    label: &str,
    spec: &KernelSpec,
    body: &AttentionBody,
    schedule: &FusedSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = Scope::new(spec, target);
    for (name, size) in
        [("batches", &body.batch), ("size_m", &body.m), ("size_n", &body.n), ("size_d", &body.d)]
    {
        scope.size(name, size);
    }
    scope.slot("fn keys(b: i32, m: i32) -> i32", &VARS, &BTreeMap::new(), |p| {
        let keys = p.idx(&body.keys);
        format!("return {keys};")
    });
    fours(&mut scope, "query", ["b", "m", "d"], &body.query, D, &body.d);
    fours(&mut scope, "key", ["b", "k", "d"], &body.key, D, &body.d);
    fours(&mut scope, "value", ["b", "k", "n"], &body.value, N, &body.n);
    let dot: BTreeMap<u32, String> = [(0, "dot".to_string())].into();
    scope.slot("fn score(b: i32, m: i32, k: i32, dot: f32) -> f32", &VARS, &dot, |p| {
        let score = p.expr(&body.score);
        format!("return {score};")
    });
    store(&mut scope, spec, body);
    let columns = columns(body, schedule);
    let copies = |name: &str, count: u32| -> String {
        (0..count).map(|i| format!("const {name}{i}: i32 = {i};\n")).collect()
    };
    let serial = schedule.lanes == 1;
    let group = if serial {
        format!("const ROWS: u32 = {}u;\n", schedule.rows)
    } else {
        format!("const LANES: i32 = {};\nconst ROWS: i32 = {};\n", schedule.lanes, schedule.rows)
    };
    let knobs = format!(
        "{group}const MICRO_M: i32 = {};\nconst MICRO_K: i32 = {};\n{}{}{}",
        schedule.micro_m,
        schedule.micro_k,
        copies("m", schedule.micro_m),
        copies("k", schedule.micro_k),
        copies("n", columns),
    );
    let counts = [
        ("MICRO_M", schedule.micro_m as usize),
        ("MICRO_K", schedule.micro_k as usize),
        ("COLUMNS", columns as usize),
    ]
    .into();
    if serial {
        return scope.finish(label, "attention_serial.wgsl", SERIAL, knobs, counts);
    }
    let row = stride(body).filter(|_| schedule.staged);
    steps(&mut scope, row);
    scope.finish(label, "attention.wgsl", SHARED, knobs, counts)
}

/// `fn load_name(..) -> vec4<f32>`: four elements of an operand along `var`, zero beyond `extent`.
fn fours(scope: &mut Scope, name: &str, parameters: [&str; 3], expr: &Expr, var: u32, extent: &Idx) {
    let (none, along) = (BTreeMap::new(), parameters[2]);
    let typed = parameters.map(|p| format!("{p}: i32")).join(", ");
    let signature = format!("fn load_{name}({typed}) -> vec4<f32>");
    let whole = in_fours(extent);
    if let (Some((input, offset)), true) = (vector(scope, expr, var), whole) {
        scope.slot(&format!("fn offset_{name}({typed}) -> i32"), &VARS, &none, |p| {
            let offset = p.idx(offset);
            format!("return {offset};")
        });
        // Lanes beyond the last column repeat it.
        let [b, row, _] = parameters;
        let at = if var == N { "min(n, size_n() - 4)" } else { along };
        let load = scope.vector_load(input, &format!("offset_{name}({b}, {row}, {at})"));
        return scope.text(&format!("{signature} {{ return vec4<f32>({load}); }}"));
    }
    let convert = scope.device_type(expr.dtype()) != "f32";
    scope.slot(&format!("fn {name}_at({typed}) -> f32"), &VARS, &none, |p| {
        let text = p.expr(expr);
        if convert { format!("return f32({text});") } else { format!("return {text};") }
    });
    let [b, row, _] = parameters;
    let lane = |i: usize| {
        let at = format!("{name}_at({b}, {row}, min({along} + {i}, size_{along}() - 1))");
        if whole || i == 0 { at } else { format!("select(0.0, {at}, {along} + {i} < size_{along}())") }
    };
    let lanes: Vec<String> = (0..4).map(lane).collect();
    scope.text(&format!("{signature} {{\n    return vec4<f32>({});\n}}", lanes.join(", ")));
}

/// What comes of the weighted sums of four columns, and of a row's statistics.
fn store(scope: &mut Scope, spec: &KernelSpec, body: &AttentionBody) {
    let signature = "fn store(b: i32, m: i32, n: i32, sums: vec4<f32>, weights: f32)";
    let row_signature = "fn store_row(b: i32, m: i32, top: f32, weights: f32)";
    let lanes = ["x", "y", "z", "w"];
    let within = |i: usize, store: &str| {
        if i == 0 { format!("    {store}\n") } else { format!("    if (n + {i} < size_n()) {{ {store} }}\n") }
    };
    match &body.result {
        AttentionResult::Parts => {
            let first = "let first = (b * size_m() + m) * (size_n() + 2)";
            let stores: String =
                (0..4).map(|i| within(i, &format!("result[first + {i}] = sums.{};", lanes[i]))).collect();
            scope.text(&format!("{signature} {{\n    {first} + n;\n{stores}}}"));
            scope.text(&format!(
                "{row_signature} {{\n    {first} + size_n();\n    result[first] = top;\n    result[first + 1] = weights;\n}}"
            ));
        }
        AttentionResult::Mixed { mean, epilogue, .. } => {
            let sums: BTreeMap<u32, String> = [(0, "sum".to_string()), (1, "weights".to_string())].into();
            scope.slot("fn mean(sum: f32, weights: f32) -> f32", &VARS, &sums, |p| {
                let mean = p.expr(mean);
                format!("return {mean};")
            });
            let arg: BTreeMap<u32, String> = [(0, "mixed".to_string())].into();
            let ty = scope.device_type(epilogue.dtype());
            scope.slot(
                &format!("fn epilogue(b: i32, m: i32, n: i32, mixed: f32) -> {ty}"),
                &VARS,
                &arg,
                |p| {
                    let text = p.expr(epilogue);
                    format!("return {text};")
                },
            );
            let offset = "let first = (b * size_m() + m) * size_n() + n;";
            let value = |i: usize| {
                scope.narrow(&format!("epilogue(b, m, n + {i}, mean(sums.{}, weights))", lanes[i]))
            };
            let text = if in_fours(&body.n) && scope.has_vectors(spec.output) {
                let values: Vec<String> = (0..4).map(value).collect();
                let vector = scope.vector_store(&values);
                format!("    result[first / 4] = {vector};\n")
            } else {
                (0..4).map(|i| within(i, &format!("result[first + {i}] = {};", value(i)))).collect()
            };
            scope.text(&format!("{signature} {{\n    {offset}\n{text}}}"));
            scope.text(&format!("{row_signature} {{}}"));
        }
    }
}

/// Where a step's keys and values come from: storage, or rows of `row` vectors in workgroup memory.
fn steps(scope: &mut Scope, row: Option<u32>) {
    if let Some(row) = row {
        scope.text(&format!("const ROW: i32 = {row};\nvar<workgroup> tile: array<vec4<f32>, STEP * ROW>;"));
    }
    for (name, plural, along) in [("key", "keys", "d"), ("value", "values", "n")] {
        let stage = format!("fn stage_{plural}(b: i32, first: i32, last: i32, invocation: i32)");
        let step = format!("fn step_{name}(b: i32, k: i32, position: i32, {along}: i32) -> vec4<f32>");
        if row.is_none() {
            scope.text(&format!("{stage} {{}}\n{step} {{ return load_{name}(b, k, {along}); }}"));
            continue;
        }
        scope.text(&format!(
            "{stage} {{
    let width = (size_{along}() + 3) / 4;
    for (var i = invocation; i < STEP * width; i += LANES * ROWS) {{
        let position = i / width;
        let column = i - position * width;
        tile[position * ROW + column] = load_{name}(b, min(first + position, last), column * 4);
    }}
}}
{step} {{ return tile[position * ROW + min({along} / 4, ROW - 1)]; }}"
        ));
    }
}
