//! Renders `conv_depthwise.wgsl`.

use super::conv::{constants, copies, load_w, load_x, sizes, store};
use super::product::Lanes;
use super::scope::Scope;
use super::{Rendered, Target};
use crate::error::Result;
use crate::kernel::{ConvBody, DepthwiseSchedule, KernelSpec};

pub const SKELETON: &str = include_str!("../../shaders/conv_depthwise.wgsl");

pub fn render(
    label: &str,
    spec: &KernelSpec,
    body: &ConvBody,
    schedule: &DepthwiseSchedule,
    target: Target,
) -> Result<Rendered> {
    let mut scope = Scope::new(spec, target);
    sizes(&mut scope, body, Lanes::One);
    load_x(&mut scope, body);
    load_w(&mut scope, body, Lanes::One);
    let terms = store(&mut scope, body);
    let [rows, columns] = schedule.reach(body);
    let [_, h, w] = &body.axes;
    let mut knobs = constants(body);
    knobs.push_str(&format!("const GROUP: u32 = {}u;\n", schedule.group));
    for (name, value) in [
        ("MICRO_H", i64::from(schedule.micro_h)),
        ("MICRO_W", i64::from(schedule.micro_w)),
        ("REACH_H", rows.count),
        ("REACH_W", columns.count),
        ("STEP_H", rows.step),
        ("STEP_W", columns.step),
    ] {
        knobs.push_str(&format!("const {name}: i32 = {value};\n"));
    }
    let repeated = [
        ("MICRO_H", "q", schedule.micro_h as usize),
        ("MICRO_W", "p", schedule.micro_w as usize),
        ("KERNEL_H", "r", h.kernel as usize),
        ("KERNEL_W", "k", w.kernel as usize),
        ("REACH_H", "i", rows.count as usize),
        ("REACH_W", "j", columns.count as usize),
    ];
    repeated.iter().for_each(|(_, name, count)| copies(&mut knobs, name, *count));
    let counts = repeated.iter().map(|&(count, _, n)| (count, n)).chain([("TERMS", terms)]).collect();
    scope.finish(label, "conv_depthwise.wgsl", SKELETON, knobs, counts)
}
