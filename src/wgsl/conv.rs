//! Renders `conv.wgsl` and `conv_subgroup.wgsl`.

use std::collections::BTreeMap;

use super::product::{self, Lanes};
use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::expr::{Atom, Expr, Idx, Node, Rewrite};
use crate::kernel::{ConvBody, ConvSchedule, ConvVar, KernelSpec};
use crate::tensor::DType;

pub const DIRECT: &str = include_str!("../../shaders/conv.wgsl");
pub const SUBGROUP: &str = include_str!("../../shaders/conv_subgroup.wgsl");

/// Names of a convolution's loop variables, by [`ConvVar`].
const VARS: [&str; 10] = ["n", "g", "m", "c", "kd", "kh", "kw", "d", "h", "w"];

pub fn render(
    label: &str,
    spec: &KernelSpec,
    body: &ConvBody,
    schedule: &ConvSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = Scope::new(spec, target);
    sizes(&mut scope, body, Lanes::Four);
    load_x(&mut scope, body);
    let lanes = if schedule.subgroup == 0 { Lanes::Four } else { Lanes::One };
    load_w(&mut scope, body, lanes);
    let terms = store(&mut scope, body);
    let reach = schedule.reach(body);
    let taps = schedule.taps(body);
    let mut knobs = constants(body);
    knobs.push_str(&format!("const GROUP: u32 = {}u;\n", schedule.group));
    for (name, value) in [
        ("MICRO_O4", i64::from(schedule.micro_o4)),
        ("MICRO_W", i64::from(schedule.micro_w)),
        ("TAPS", taps),
        ("REACH", reach.count),
        ("STEP", reach.step),
    ] {
        knobs.push_str(&format!("const {name}: i32 = {value};\n"));
    }
    let mut counts: BTreeMap<_, _> = [
        ("MICRO_O4", schedule.micro_o4 as usize),
        ("MICRO_W", schedule.micro_w as usize),
        ("TAPS", taps as usize),
        ("REACH", reach.count as usize),
        ("TERMS", terms),
    ]
    .into();
    for (name, count) in
        [("o", counts["MICRO_O4"]), ("p", counts["MICRO_W"]), ("k", counts["TAPS"]), ("j", counts["REACH"])]
    {
        copies(&mut knobs, name, count);
    }
    if schedule.subgroup == 0 {
        return scope.finish(label, "conv.wgsl", DIRECT, knobs, counts);
    }
    let shares = (4 * schedule.micro_o4).div_ceil(schedule.subgroup) as usize;
    knobs.push_str(&format!("const SUBGROUP: i32 = {};\nconst SHARES: i32 = {shares};\n", schedule.subgroup));
    copies(&mut knobs, "s", shares);
    counts.insert("SHARES", shares);
    scope.finish(label, "conv_subgroup.wgsl", SUBGROUP, knobs, counts)
}

/// `const o0: i32 = 0; const o1: i32 = 1; ..`, the numbers of a repeated part's copies.
pub fn copies(knobs: &mut String, name: &str, count: usize) {
    for i in 0..count {
        knobs.push_str(&format!("const {name}{i}: i32 = {i};\n"));
    }
}

/// The axes' constants.
pub fn constants(body: &ConvBody) -> String {
    let mut text = String::new();
    for (axis, name) in body.axes.iter().zip(["D", "H", "W"]) {
        text.push_str(&format!(
            "const KERNEL_{name}: i32 = {};\nconst STRIDE_{name}: i32 = {};\nconst DILATION_{name}: i32 = {};\n",
            axis.kernel, axis.stride, axis.dilation
        ));
    }
    text
}

/// The sizes, and what a sum is.
pub fn sizes(scope: &mut Scope, body: &ConvBody, lanes: Lanes) {
    let sum = scope.device_type(body.sum);
    product::mul_add(scope, body.product, sum, lanes);
    scope.size("batches", &body.batch);
    scope.size("groups", &body.groups);
    scope.size("out_channels", &body.out_channels);
    scope.size("in_channels", &body.in_channels);
    for (axis, name) in body.axes.iter().zip(["d", "h", "w"]) {
        scope.size(&format!("input_{name}"), &axis.input);
        scope.size(&format!("output_{name}"), &axis.output);
        scope.size(&format!("before_{name}"), &axis.before);
    }
}

/// `offset` without the terms of `var`, and what it gains per step of it, where that is the same everywhere.
fn linear(offset: &Idx, var: ConvVar, axis: u32) -> Option<(Idx, Idx)> {
    let id = var as u32 + axis;
    let set = |value: i64| {
        offset.rewrite(&mut |atom| match atom {
            Atom::Var(v) if v.id == id => Some(Idx::from(value)),
            _ => None,
        })
    };
    let (zero, one) = (set(0), set(1));
    let gain = &one - &zero;
    let mut extent = Idx::from(0i64);
    offset.visit(&mut |atom| {
        if let Atom::Var(v) = atom
            && v.id == id
        {
            extent = Idx::var(id, &v.extent);
        }
    });
    (gain.is_size() && *offset == &zero + &(&gain * &extent)).then_some((zero, gain))
}

/// A plain read whose offset is a sum of a start and of steps along `vars`: the input, the start, the steps.
fn affine(expr: &Expr, vars: &[(ConvVar, u32)]) -> Option<(usize, Idx, Vec<Idx>)> {
    let Node::Load { source, at, .. } = expr.node() else { return None };
    let [offset] = at.as_slice() else { return None };
    let mut start = offset.clone();
    let mut steps = Vec::new();
    for &(var, axis) in vars {
        let (rest, step) = linear(&start, var, axis)?;
        start = rest;
        steps.push(step);
    }
    Some((*source as usize, start, steps))
}

/// The row of the input and its elements.
pub fn load_x(scope: &mut Scope, body: &ConvBody) {
    let none = BTreeMap::new();
    let row = "fn row_x(n: i32, g: i32, d: i32, h: i32) -> i32";
    let load = "fn load_x(row: i32, n: i32, g: i32, c: i32, d: i32, h: i32, w: i32) -> Element";
    if let Some((input, start, steps)) = affine(&body.x, &[(ConvVar::In, 0), (ConvVar::At, 2)]) {
        scope.slot(row, &VARS, &none, |p| format!("return {};", p.idx(&start)));
        let element = scope.scalar_load(input, "at");
        return scope.slot(load, &VARS, &none, |p| {
            let (c, w) = (p.idx(&steps[0]), p.idx(&steps[1]));
            format!("let at = row + c * ({c}) + w * ({w});\n    return Element({element});")
        });
    }
    scope.text(&format!("{row} {{ return 0; }}"));
    scope.slot(load, &VARS, &none, |p| format!("return Element({});", p.expr(&body.x)));
}

/// The start of a channel's weights and its taps; of four channels at once, or of one.
pub fn load_w(scope: &mut Scope, body: &ConvBody, lanes: Lanes) {
    let none = BTreeMap::new();
    let row = "fn row_w(g: i32, m: i32) -> i32";
    let tap = "fn tap(row: i32, g: i32, c: i32, kd: i32, kh: i32, kw: i32) -> Element";
    let vars = [(ConvVar::In, 0), (ConvVar::Tap, 0), (ConvVar::Tap, 1), (ConvVar::Tap, 2)];
    if let Some((input, start, steps)) = affine(&body.w, &vars) {
        scope.slot(row, &VARS, &none, |p| format!("return {};", p.idx(&start)));
        let element = scope.scalar_load(input, "at");
        scope.slot(tap, &VARS, &none, |p| {
            let steps: Vec<String> = ["c", "kd", "kh", "kw"]
                .iter()
                .zip(&steps)
                .filter(|(_, step)| !step.is(0))
                .map(|(name, step)| format!(" + {name} * ({})", p.idx(step)))
                .collect();
            format!("let at = row{};\n    return Element({element});", steps.concat())
        });
    } else {
        // The row is the channel.
        scope.text(&format!("{row} {{ return m; }}"));
        let vars = VARS.map(|name| if name == "m" { "row" } else { name });
        scope.slot(tap, &vars, &none, |p| format!("return Element({});", p.expr(&body.w)));
    }
    let (ty, elements, value) = match lanes {
        Lanes::One => ("i32", "Element", "tap(row, g, c, kd, kh, kw)".to_string()),
        Lanes::Four => {
            let taps = ["x", "y", "z", "w"].map(|lane| format!("tap(row.{lane}, g, c, kd, kh, kw)"));
            ("vec4<i32>", "vec4<Element>", format!("vec4<Element>({})", taps.join(", ")))
        }
    };
    scope.text(&format!(
        "fn load_w(row: {ty}, g: i32, c: i32, kd: i32, kh: i32, kw: i32) -> {elements} {{\n    return {value};\n}}"
    ));
}

/// Takes out of an epilogue the reads that depend on the channel alone: arguments 1, 2, ..
struct Terms {
    found: Vec<Expr>,
}

impl Rewrite for Terms {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        let mut by_channel = true;
        at.iter().for_each(|idx| {
            idx.visit(&mut |atom| {
                by_channel &= match atom {
                    Atom::Var(v) => v.id == ConvVar::Group as u32 || v.id == ConvVar::Out as u32,
                    Atom::Data(..) => false,
                    Atom::Sym(_) | Atom::Div(..) | Atom::Mod(..) | Atom::Min(..) | Atom::Max(..) => true,
                }
            })
        });
        let load = Expr::load(source, dtype, at);
        if !by_channel {
            return load;
        }
        let position = self.found.iter().position(|term| *term == load).unwrap_or_else(|| {
            self.found.push(load);
            self.found.len() - 1
        });
        Expr::arg(position as u32 + 1, dtype)
    }

    fn atom(&mut self, _: &Atom) -> Option<Idx> {
        None
    }
}

/// The epilogue, its terms by channel, and the store. Gives the number of terms.
pub fn store(scope: &mut Scope, body: &ConvBody) -> usize {
    let mut terms = Terms { found: Vec::new() };
    let epilogue = body.epilogue.rewrite(&mut terms);
    let types: Vec<&str> = terms.found.iter().map(|term| scope.device_type(term.dtype())).collect();
    let mut args: BTreeMap<u32, String> = [(0, "sum".to_string())].into();
    let (mut parameters, mut values) = (String::new(), String::new());
    for (b, (term, ty)) in terms.found.iter().zip(&types).enumerate() {
        args.insert(b as u32 + 1, format!("term{b}"));
        let signature = format!("fn channel_b{b}(g: i32, m: i32) -> {ty}");
        scope.slot(&signature, &VARS, &BTreeMap::new(), |p| format!("return {};", p.expr(term)));
        parameters.push_str(&format!(", term{b}: {ty}"));
        values.push_str(&format!(", term{b}"));
    }
    let ty = scope.device_type(epilogue.dtype());
    let place = "n: i32, g: i32, m: i32, d: i32, h: i32, w: i32";
    scope.slot(&format!("fn epilogue({place}, sum: Sum{parameters}) -> {ty}"), &VARS, &args, |p| {
        format!("return {};", p.expr(&epilogue))
    });
    let value = scope.narrow(&format!("epilogue(n, g, m, d, h, w, sum{values})"));
    scope.text(&format!(
        "fn store({place}, sum: Sum{parameters}) {{
    let plane = ((n * groups() + g) * out_channels() + m) * output_d() + d;
    result[(plane * output_h() + h) * output_w() + w] = {value};
}}"
    ));
    types.len()
}
