//! What every renderer shares: bindings, names of loads and parameters, slot functions, helpers.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::template::{Fill, fill};
use super::{BindingKind, Bound, Dialect, Rendered, Shader, Target, words};
use crate::error::Result;
use crate::expr::{Expr, Floats, HELPERS, Idx, Names, Printer, device_type};
use crate::kernel::{KernelSpec, storage_bytes, storage_type};
use crate::tensor::DType;

/// How an input is bound: its position and its elements per array entry (1, or 4 for vector loads).
type Access = (usize, usize);

/// The text being put together for one kernel.
pub struct Scope<'a> {
    spec: &'a KernelSpec,
    target: Target,
    /// Inputs in use, numbered in the order of first use.
    used: RefCell<Vec<Access>>,
    helpers: BTreeSet<&'static str>,
    slots: String,
    /// Other regions of the skeleton, by name.
    regions: BTreeMap<String, String>,
    output_width: usize,
}

/// Names within one slot function.
struct Locals<'a> {
    scope: &'a Scope<'a>,
    vars: &'a [&'a str],
    args: &'a BTreeMap<u32, String>,
}

impl Names for Locals<'_> {
    fn var(&self, id: u32) -> String {
        self.vars.get(id as usize).unwrap_or(&"0").to_string()
    }

    fn symbol(&self, name: &str) -> String {
        format!("params.{name}")
    }

    fn load(&self, source: u32, dtype: DType, offset: &str) -> String {
        let name = self.scope.binding(source as usize, 1);
        widen(&format!("{name}[{offset}]"), dtype, self.scope.target.floats)
    }

    fn arg(&self, number: u32) -> String {
        self.args.get(&number).cloned().unwrap_or_default()
    }
}

/// A stored element as its computing type.
fn widen(text: &str, dtype: DType, floats: Floats) -> String {
    match (storage_type(dtype, floats), dtype) {
        (_, DType::Bool) => format!("({text} != 0u)"),
        ("f16", _) => format!("f32({text})"),
        _ => text.into(),
    }
}

impl<'a> Scope<'a> {
    pub fn new(spec: &'a KernelSpec, target: Target) -> Self {
        Scope {
            spec,
            target,
            used: RefCell::default(),
            helpers: BTreeSet::new(),
            slots: String::new(),
            regions: BTreeMap::new(),
            output_width: 1,
        }
    }

    /// The name of an input's binding, `t2` or, for vector loads, `t2v`.
    fn binding(&self, input: usize, width: usize) -> String {
        let mut used = self.used.borrow_mut();
        if !used.contains(&(input, width)) {
            used.push((input, width));
        }
        if width == 1 { format!("t{input}") } else { format!("t{input}v") }
    }

    /// The dtype of an input.
    pub fn input(&self, input: usize) -> DType {
        self.spec.inputs[input]
    }

    /// An element of an input, at an offset that is already text, in its computing type.
    pub fn scalar_load(&self, input: usize, offset: &str) -> String {
        widen(&format!("{}[{offset}]", self.binding(input, 1)), self.spec.inputs[input], self.target.floats)
    }

    /// Four consecutive elements of an input as a vector of its computing type; `offset` is a multiple of 4.
    pub fn vector_load(&self, input: usize, offset: &str) -> String {
        let dtype = self.spec.inputs[input];
        let name = self.binding(input, 4);
        let storage = storage_type(dtype, self.target.floats);
        let text = format!("{name}[{offset} / 4]");
        let text = if self.target.words64 { format!("four_{storage}({text})") } else { text };
        match (storage, dtype) {
            (_, DType::Bool) => format!("({text} != vec4<u32>(0u))"),
            ("f16", _) => format!("vec4<f32>({text})"),
            _ => text,
        }
    }

    /// Four values of the output's storage type as an entry of the output, which is bound as an array of such.
    pub fn vector_store(&mut self, values: &[String]) -> String {
        self.output_width = 4;
        let ty = self.output_type();
        let vector = format!("vec4<{ty}>({})", values.join(", "));
        if self.target.words64 { format!("words_{ty}({vector})") } else { vector }
    }

    /// A value as the output's storage type.
    pub fn narrow(&self, text: &str) -> String {
        match (storage_type(self.spec.output, self.target.floats), self.spec.output) {
            (_, DType::Bool) => format!("select(0u, 1u, {text})"),
            ("f16", _) => format!("f16({text})"),
            _ => text.into(),
        }
    }

    /// The output's storage type.
    pub fn output_type(&self) -> &'static str {
        storage_type(self.spec.output, self.target.floats)
    }

    /// The WGSL type that a dtype is computed in.
    pub fn device_type(&self, dtype: DType) -> &'static str {
        device_type(dtype, self.target.floats)
    }

    /// Whether elements of a dtype are read and stored by fours.
    pub fn has_vectors(&self, dtype: DType) -> bool {
        storage_bytes(dtype, self.target.floats) <= 4
    }

    /// A slot as it stands.
    pub fn text(&mut self, text: &str) {
        self.slots.push_str(text);
        self.slots.push('\n');
    }

    /// The text of a region of the skeleton that only it has.
    pub fn region(&mut self, name: String, text: String) {
        self.regions.insert(name, text);
    }

    /// `fn name() -> i32` that returns a size.
    pub fn size(&mut self, name: &str, size: &Idx) {
        // No array has no elements; no compiler knows that.
        let is_opaque = self.target.opaque_sizes && size.as_const().is_none();
        let zero = if is_opaque { " + i32(arrayLength(&result) == 0u)" } else { "" };
        let text = self.function(&format!("fn {name}() -> i32"), &[], &BTreeMap::new(), |p| {
            let text = p.idx(size);
            format!("return {text}{zero};")
        });
        self.text(&text);
    }

    /// A slot function: `body` prints its expressions and gives the last statement.
    pub fn slot(
        &mut self,
        signature: &str,
        vars: &[&str],
        args: &BTreeMap<u32, String>,
        body: impl FnOnce(&mut Printer) -> String,
    ) {
        let text = self.function(signature, vars, args, body);
        self.text(&text);
    }

    /// A slot function that returns an expression in its computing type.
    pub fn value(&mut self, name: &str, vars: &[&str], args: &BTreeMap<u32, String>, expr: &Expr) {
        let parameters: Vec<String> = vars.iter().map(|v| format!("{v}: i32")).collect();
        let signature = format!("fn {name}({}) -> {}", parameters.join(", "), self.device_type(expr.dtype()));
        self.slot(&signature, vars, args, |p| {
            let text = p.expr(expr);
            format!("return {text};")
        });
    }

    fn function(
        &mut self,
        signature: &str,
        vars: &[&str],
        args: &BTreeMap<u32, String>,
        body: impl FnOnce(&mut Printer) -> String,
    ) -> String {
        let (text, helpers) = {
            let locals = Locals { scope: self, vars, args };
            let mut printer = Printer::new(&locals, self.target.floats, 1);
            let last = body(&mut printer);
            printer.lines.push(format!("    {last}"));
            (printer.lines.join("\n"), printer.helpers)
        };
        self.helpers.extend(helpers);
        format!("{signature} {{\n{text}\n}}")
    }

    /// The finished kernel: `skeleton` with everything filled in.
    pub fn finish(
        self,
        label: &str,
        file: &str,
        skeleton: &str,
        knobs: String,
        counts: BTreeMap<&'static str, usize>,
    ) -> Result<Rendered> {
        let (mut text, mut kinds, mut bound) = (String::new(), Vec::new(), Vec::new());
        let line = |text: &mut String, number: usize, rest: String| {
            text.push_str(&format!("@group(0) @binding({number}) {rest};\n"));
        };
        let mut words = BTreeSet::new();
        let words64 = self.target.words64;
        let array = |ty: &str, width: usize| match width {
            1 => format!("array<{ty}>"),
            _ if words64 => format!("array<{}>", words::entry(ty)),
            _ => format!("array<vec{width}<{ty}>>"),
        };
        let mut used = self.used.borrow().clone();
        used.sort_unstable();
        for (input, width) in used {
            let storage = storage_type(self.spec.inputs[input], self.target.floats);
            if words64 && width == 4 {
                words.insert(words::read(storage));
            }
            let ty = array(storage, width);
            let name = if width == 1 { format!("t{input}") } else { format!("t{input}v") };
            line(&mut text, bound.len(), format!("var<storage, read> {name}: {ty}"));
            kinds.push(BindingKind::Read);
            bound.push(Bound::Input(input));
        }
        if words64 && self.output_width == 4 {
            words.insert(words::store(self.output_type()));
        }
        let ty = array(self.output_type(), self.output_width);
        line(&mut text, bound.len(), format!("var<storage, read_write> result: {ty}"));
        kinds.push(BindingKind::ReadWrite);
        bound.push(Bound::Output);
        if self.spec.params > 0 {
            let fields: Vec<String> = (0..self.spec.params).map(|i| format!("p{i}: i32")).collect();
            text.insert_str(0, &format!("struct Params {{ {} }}\n", fields.join(", ")));
            line(&mut text, bound.len(), "var<uniform> params: Params".into());
            kinds.push(BindingKind::Uniform);
            bound.push(Bound::Params);
        }
        let words: String = words.into_iter().map(|function| format!("{function}\n")).collect();
        let helpers = helper_text(self.helpers) + &words;
        let mut regions = self.regions;
        let slots = format!("{helpers}{}", self.slots);
        regions.extend([("bindings", text), ("knobs", knobs), ("slot", slots)].map(|(n, t)| (n.into(), t)));
        let body = fill(file, skeleton, &Fill { regions, counts })?;
        let uses_f16 = body.contains("f16>") || body.contains("f16(");
        let mut enable = String::new();
        if uses_f16 && self.target.floats.f16 {
            enable.push_str("enable f16;\n");
        }
        let operations = ["subgroupAdd(", "subgroupBroadcast(", "subgroup_invocation_id"];
        let uses_subgroups = operations.iter().any(|operation| body.contains(operation));
        // naga knows subgroup operations without being told, and refuses to be.
        if self.target.dialect == Dialect::Browser && uses_subgroups {
            enable.push_str("enable subgroups;\n");
        }
        let shader = Shader { label: label.into(), source: format!("{enable}{body}"), bindings: kinds };
        Ok(Rendered { shader, bound })
    }
}

/// The text of the named scalar functions and of those they call.
fn helper_text(mut names: BTreeSet<&'static str>) -> String {
    if names.is_empty() {
        return String::new();
    }
    // Name, and text from after `fn ` to before the closing brace.
    let functions: Vec<(&str, &str)> = HELPERS
        .split("\nfn ")
        .skip(1)
        .filter_map(|text| {
            Some((text.split_once('(')?.0, text.split_once("\n}\n").map_or(text, |(body, _)| body)))
        })
        .collect();
    // A function calls only those above it.
    for (name, text) in functions.iter().rev() {
        if names.contains(name) {
            let calls = |other: &str| {
                text.match_indices(other).any(|(at, _)| text[at + other.len()..].starts_with('('))
            };
            names.extend(
                functions.iter().map(|(other, _)| *other).filter(|other| other != name && calls(other)),
            );
        }
    }
    let wanted = functions.iter().filter(|(name, _)| names.contains(name));
    wanted.map(|(_, body)| format!("fn {body}\n}}\n")).collect()
}
