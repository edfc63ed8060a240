//! Renders `reduce.wgsl`, `reduce_subgroup.wgsl` and `reduce_serial.wgsl`.

use std::collections::BTreeMap;

use super::contract::copies;
use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::expr::{Expr, Idx};
use crate::kernel::{
    Combine, KernelSpec, ReduceSchedule, RowReads, RowResult, Stage, row_positions, stores_fours,
};
use crate::tensor::DType;

pub const SHARED: &str = include_str!("../../shaders/reduce.wgsl");
pub const SUBGROUP: &str = include_str!("../../shaders/reduce_subgroup.wgsl");
pub const SERIAL: &str = include_str!("../../shaders/reduce_serial.wgsl");

/// Loop variables.
const VARS: [&str; 2] = ["row", "r"];
const LANES: [&str; 4] = ["x", "y", "z", "w"];

pub fn render(
    label: &str,
    spec: &KernelSpec,
    rows: &Idx,
    stages: &[Stage],
    result: &RowResult,
    schedule: &ReduceSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = Scope::new(spec, target);
    let none = BTreeMap::new();
    scope.size("rows", rows);
    let reads = RowReads::of(stages, result, schedule.vector, |dtype| scope.has_vectors(dtype));
    let mut passes = Passes { scope, reads, stages: stages.len(), schedule };
    if schedule.kept > 0 {
        passes.kept(row_positions(stages, result).unwrap_or(rows));
    } else if schedule.vector == 4 {
        passes.offsets();
    }
    for (s, stage) in stages.iter().enumerate() {
        let dtype = stage.value.dtype();
        let scope = &mut passes.scope;
        let ty = scope.device_type(dtype);
        scope.text(&format!("alias Stat_s{s} = {ty};"));
        scope.size(&format!("extent_s{s}"), &stage.extent);
        scope.value(&format!("identity_s{s}"), &[], &none, &stage.combine.identity(dtype));
        let pair: BTreeMap<u32, String> = [(0, "a".to_string()), (1, "b".to_string())].into();
        let combined = Expr::arg(0, dtype).binary(stage.combine.binary(), &Expr::arg(1, dtype));
        scope.slot(&format!("fn combine_s{s}(a: Stat_s{s}, b: Stat_s{s}) -> Stat_s{s}"), &[], &pair, |p| {
            let text = p.expr(&combined);
            format!("return {text};")
        });
        passes.statistic(s, &stage.value);
        passes.scope.region(format!("join_s{s}"), join(s, stage.combine));
    }
    let (extent, at, value) = match result {
        RowResult::PerRow(value) => (Idx::from(1i64), None, value),
        RowResult::PerElement { extent, at, value } => (extent.clone(), Some(at), value),
    };
    passes.scope.size("result_extent", &extent);
    passes.store(at, value);
    let ReduceSchedule { lanes, rows, vector, kept, .. } = schedule;
    let knobs = format!(
        "const ROWS: u32 = {rows}u;\nconst VECTOR: i32 = {vector};\nconst KEPT: i32 = {kept};\n{}",
        copies("j", "i32", *kept)
    );
    let counts = [("STAGES", stages.len()), ("KEPT", *kept as usize)].into();
    let scope = passes.scope;
    if *lanes == 1 {
        return scope.finish(label, "reduce_serial.wgsl", SERIAL, knobs, counts);
    }
    let knobs = format!("const LANES: u32 = {lanes}u;\n{knobs}");
    if schedule.subgroups {
        return scope.finish(label, "reduce_subgroup.wgsl", SUBGROUP, knobs, counts);
    }
    scope.finish(label, "reduce.wgsl", SHARED, knobs, counts)
}

/// The statement by which the invocations of a subgroup get what all of theirs make together.
fn join(s: usize, combine: Combine) -> String {
    let function = match combine {
        Combine::Sum => "subgroupAdd",
        Combine::Prod => "subgroupMul",
        Combine::Max => "subgroupMax",
        Combine::Min => "subgroupMin",
    };
    format!("    stat_s{s} = {function}(stat_s{s});\n")
}

/// The passes over a row, in text.
struct Passes<'a> {
    scope: Scope<'a>,
    reads: RowReads,
    stages: usize,
    schedule: &'a ReduceSchedule,
}

impl Passes<'_> {
    fn statistics(&self) -> BTreeMap<u32, String> {
        (0..self.stages).map(|s| (s as u32, format!("stat_s{s}"))).collect()
    }

    /// `fn offset{n}(row, r) -> i32` for each read.
    fn offsets(&mut self) {
        for (number, read) in self.reads.reads.iter().enumerate() {
            self.scope.slot(
                &format!("fn offset{number}(row: i32, r: i32) -> i32"),
                &VARS,
                &BTreeMap::new(),
                |p| format!("return {};", p.idx(&read.offset)),
            );
        }
    }

    fn load(&self, number: usize) -> String {
        let (input, offset) = (self.reads.reads[number].input, format!("offset{number}(row, r)"));
        match self.schedule.vector {
            4 => self.scope.vector_load(input, &offset),
            _ => self.scope.scalar_load(input, &offset),
        }
    }

    fn element_type(&self, number: usize) -> &'static str {
        self.scope.device_type(self.scope.input(self.reads.reads[number].input))
    }

    /// What is kept of a position, how it is read, and how many positions there are.
    fn kept(&mut self, positions: &Idx) {
        self.offsets();
        self.scope.size("positions", positions);
        let (mut fields, mut loads) = (Vec::new(), Vec::new());
        for number in self.reads.shared() {
            let element = self.element_type(number);
            let ty = if self.schedule.vector == 4 { format!("vec4<{element}>") } else { element.into() };
            fields.push(format!("v{number}: {ty}"));
            loads.push(self.load(number));
        }
        self.scope.text(&format!("struct Here {{ {} }}", fields.join(", ")));
        let loads = loads.join(", ");
        self.scope.text(&format!("fn look(row: i32, r: i32) -> Here {{ return Here({loads}); }}"));
    }

    /// `fn {name}_element(row, r, ..)`, what pass number `pass` computes at one position from what it reads there, and
    /// calls of it for the one or four positions of a step.
    fn elements(&mut self, pass: usize, name: &str) -> Vec<String> {
        let own = self.reads.own[pass].clone();
        let (mut args, mut parameters) = (self.statistics(), String::new());
        for (local, &number) in own.iter().enumerate() {
            args.insert((self.stages + local) as u32, format!("v{number}"));
            parameters.push_str(&format!(", v{number}: {}", self.element_type(number)));
        }
        let value = self.reads.values[pass].clone();
        let ty = self.scope.device_type(value.dtype());
        let signature = format!("fn {name}_element(row: i32, r: i32{parameters}) -> {ty}");
        self.scope.slot(&signature, &VARS, &args, |p| format!("return {};", p.expr(&value)));
        let element = |(i, lane): (usize, &str)| {
            let lane = if self.schedule.vector == 4 { format!(".{lane}") } else { String::new() };
            let values: String = own.iter().map(|number| format!(", v{number}{lane}")).collect();
            format!("{name}_element(row, r + {i}{values})")
        };
        LANES.into_iter().enumerate().take(self.schedule.vector as usize).map(element).collect()
    }

    /// The reads of pass number `pass`, those that are kept from `here` where that is at hand.
    fn lets(&self, pass: usize, here: bool) -> String {
        let shared = self.reads.shared();
        let one = |&number: &usize| {
            let kept = here && shared.contains(&number);
            let text = if kept { format!("here.v{number}") } else { self.load(number) };
            format!("    let v{number} = {text};\n")
        };
        self.reads.own[pass].iter().map(one).collect()
    }

    /// A function of `(row, r)`, and one that has what is kept of the position.
    fn function(&mut self, pass: usize, [name, kept]: [&str; 2], ty: &str, body: &str) {
        let arrow = if ty.is_empty() { String::new() } else { format!(" -> {ty}") };
        let text = format!("fn {name}(row: i32, r: i32){arrow} {{\n{}    {body}\n}}", self.lets(pass, false));
        self.scope.text(&text);
        if self.schedule.kept > 0 {
            let lets = self.lets(pass, true);
            let text = format!("fn {kept}(row: i32, r: i32, here: Here){arrow} {{\n{lets}    {body}\n}}");
            self.scope.text(&text);
        }
    }

    /// What is combined into statistic `s` at a step; of four positions, their combination.
    fn statistic(&mut self, s: usize, value: &Expr) {
        let name = format!("value_s{s}");
        if self.schedule.vector == 1 && self.schedule.kept == 0 {
            let statistics = self.statistics();
            return self.scope.value(&name, &VARS, &statistics, value);
        }
        let elements = self.elements(s, &name);
        let body = match elements.as_slice() {
            [x, y, z, w] => {
                format!("return combine_s{s}(combine_s{s}({x}, {y}), combine_s{s}({z}, {w}));")
            }
            others => format!("return {};", others.concat()),
        };
        let ty = format!("Stat_s{s}");
        self.function(s, [&name, &format!("kept_s{s}")], &ty, &body);
    }

    /// The store of the results of a step, at `at` or, without, of the row's one result.
    fn store(&mut self, at: Option<&Idx>, value: &Expr) {
        let statistics = self.statistics();
        let Some(at) = at else {
            self.scope.value("result_value", &VARS, &statistics, value);
            let stored = self.scope.narrow("result_value(row, r)");
            self.scope.text(&format!("fn store(row: i32, r: i32) {{ result[row] = {stored}; }}"));
            if self.schedule.kept > 0 {
                self.scope.text("fn kept_store(row: i32, r: i32, here: Here) { store(row, r); }");
            }
            return;
        };
        if self.schedule.vector == 1 && self.schedule.kept == 0 {
            self.scope.value("result_value", &VARS, &statistics, value);
            let stored = self.scope.narrow("result_value(row, r)");
            return self.scope.slot("fn store(row: i32, r: i32)", &VARS, &statistics, |p| {
                let at = p.idx(at);
                format!("result[{at}] = {stored};")
            });
        }
        self.scope.slot("fn place(row: i32, r: i32) -> i32", &VARS, &statistics, |p| {
            format!("return {};", p.idx(at))
        });
        let elements = self.elements(self.stages, "result");
        let elements: Vec<String> = elements.iter().map(|element| self.scope.narrow(element)).collect();
        let body = if self.schedule.vector == 4 && self.stores_vectors(at, value.dtype()) {
            let vector = self.scope.vector_store(&elements);
            format!("result[place(row, r) / 4] = {vector};")
        } else {
            let store = |(i, text): (usize, &String)| format!("result[place(row, r + {i})] = {text};");
            let stores: Vec<String> = elements.iter().enumerate().map(store).collect();
            stores.join("\n    ")
        };
        self.function(self.stages, ["store", "kept_store"], "", &body);
    }

    fn stores_vectors(&self, at: &Idx, dtype: DType) -> bool {
        stores_fours(at) && self.scope.has_vectors(dtype)
    }
}
