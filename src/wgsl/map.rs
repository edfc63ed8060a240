//! Renders `map.wgsl`.

use std::collections::BTreeMap;

use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::expr::{Expr, Idx};
use crate::kernel::{KernelSpec, MapSchedule, take_fours};

pub const SKELETON: &str = include_str!("../../shaders/map.wgsl");

pub fn render(
    label: &str,
    spec: &KernelSpec,
    len: &Idx,
    value: &Expr,
    schedule: &MapSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = Scope::new(spec, target);
    scope.size("len", len);
    if schedule.vector == 4 {
        store_fours(&mut scope, value);
    } else {
        scope.value("value", &["i"], &BTreeMap::new(), value);
        let stored = scope.narrow("value(i)");
        scope.text(&format!("fn store(i: i32) {{ result[i] = {stored}; }}"));
    }
    finish(scope, label, schedule)
}

/// The same over the elements that an update writes, each of which goes where `at` says, if `when` does.
pub fn render_update(
    label: &str,
    spec: &KernelSpec,
    (len, at): (&Idx, &Idx),
    (when, value): (&Expr, &Expr),
    schedule: &MapSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = Scope::new(spec, target);
    scope.size("len", len);
    let none = BTreeMap::new();
    scope.slot("fn at(i: i32) -> i32", &["i"], &none, |p| format!("return {};", p.idx(at)));
    scope.value("when", &["i"], &none, when);
    scope.value("value", &["i"], &none, value);
    let stored = scope.narrow("value(i)");
    scope.text(&format!("fn store(i: i32) {{ if (when(i)) {{ result[at(i)] = {stored}; }} }}"));
    finish(scope, label, schedule)
}

fn finish(scope: Scope, label: &str, schedule: &MapSchedule) -> Result<Rendered> {
    let knobs = format!(
        "const WORKGROUP: u32 = {}u;\nconst PER_INVOCATION: u32 = {}u;\nconst VECTOR: i32 = {};\n",
        schedule.workgroup, schedule.per_invocation, schedule.vector
    );
    scope.finish(label, "map.wgsl", SKELETON, knobs, BTreeMap::new())
}

/// Four elements at once: what they read of neighbours is read as vectors, all else element by element.
fn store_fours(scope: &mut Scope, value: &Expr) {
    let (value, fours) = take_fours(value, 0, 0, |dtype| scope.has_vectors(dtype));
    let (mut args, mut parameters, mut loads) = (BTreeMap::new(), String::new(), String::new());
    for (number, four) in fours.iter().enumerate() {
        let name = format!("offset{number}");
        scope.slot(&format!("fn {name}(i: i32) -> i32"), &["i"], &BTreeMap::new(), |p| {
            format!("return {};", p.idx(&four.offset))
        });
        let load = scope.vector_load(four.input, &format!("{name}(i)"));
        loads.push_str(&format!("    let v{number} = {load};\n"));
        parameters.push_str(&format!(", v{number}: {}", scope.device_type(scope.input(four.input))));
        args.insert(number as u32, format!("v{number}"));
    }
    let signature = format!("fn value(i: i32{parameters}) -> {}", scope.device_type(value.dtype()));
    scope.slot(&signature, &["i"], &args, |p| format!("return {};", p.expr(&value)));
    let element = |(i, lane): (usize, &str)| {
        let lanes: String = (0..fours.len()).map(|number| format!(", v{number}.{lane}")).collect();
        scope.narrow(&format!("value(i + {i}{lanes})"))
    };
    let elements: Vec<String> = ["x", "y", "z", "w"].into_iter().enumerate().map(element).collect();
    let vector = scope.vector_store(&elements);
    scope.text(&format!("fn store(i: i32) {{\n{loads}    result[i / 4] = {vector};\n}}"));
}
