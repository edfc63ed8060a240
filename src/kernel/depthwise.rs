//! Knobs of `conv_depthwise.wgsl`.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::conv::Reach;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, fits, powers_of_two};
use super::spec::ConvBody;

/// Knobs of `conv_depthwise.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DepthwiseSchedule {
    /// Invocations per workgroup.
    pub group: u32,
    /// Rows of outputs per invocation.
    pub micro_h: u32,
    /// Neighbouring outputs of a row per invocation.
    pub micro_w: u32,
}

/// Largest workgroup, rows and outputs of a row in the space.
const MOST: (u32, u32, u32) = (256, 8, 8);

pub fn points() -> Vec<Schedule> {
    let mut points = Vec::new();
    for micro_h in powers_of_two(MOST.1) {
        for micro_w in powers_of_two(MOST.2) {
            for group in powers_of_two(MOST.0) {
                points.push(Schedule::Depthwise(DepthwiseSchedule { group, micro_h, micro_w }));
            }
        }
    }
    points
}

impl DepthwiseSchedule {
    /// Rows and elements of a row that an invocation reads.
    pub fn reach(&self, body: &ConvBody) -> [Reach; 2] {
        let [_, h, w] = &body.axes;
        [Reach::new(h, self.micro_h, h.kernel), Reach::new(w, self.micro_w, w.kernel)]
    }
}

/// Whether each output channel reads one input channel.
pub fn applies(body: &ConvBody) -> bool {
    body.in_channels.is(1)
}

pub fn default(body: &ConvBody, sizes: Sizes, caps: &Caps) -> DepthwiseSchedule {
    let [_, h, w] = &body.axes;
    let largest = |extent: &_, most: u32| {
        (size(extent, sizes).max(1) as u64).next_power_of_two().min(u64::from(most)) as u32
    };
    let group = 64.min(caps.max_workgroup_invocations);
    DepthwiseSchedule { group, micro_h: largest(&h.output, 2), micro_w: largest(&w.output, 4) }
}

/// The text grows with the window that a block of outputs reads.
pub fn broken_rule(
    body: &ConvBody,
    s: &DepthwiseSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    let [_, h, w] = &body.axes;
    let [rows, columns] = s.reach(body);
    let products = i64::from(s.micro_h * s.micro_w) * h.kernel * w.kernel;
    let output = |axis: usize| size(&body.axes[axis].output, sizes).max(1);
    if !applies(body) {
        Some("more than one input channel for an output channel")
    } else if !fits(caps, s.group, 1) {
        Some(INVOCATIONS)
    } else if s.group < 32 {
        Some("workgroups that leave lanes idle")
    } else if rows.count * columns.count > 100 || products > 800 {
        Some("too much text for one block of outputs")
    } else if i64::from(s.micro_h) >= 2 * output(1) || i64::from(s.micro_w) >= 2 * output(2) {
        Some("a block twice as large as the output")
    } else {
        None
    }
}

/// Reads, weights and stores, and idle invocations.
pub fn estimate_ns(body: &ConvBody, s: &DepthwiseSchedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    let value = |idx| size(idx, sizes).max(1) as f64;
    let blocks = |extent: f64, each: u32| (extent / f64::from(each)).ceil();
    let [d, h, w] = &body.axes;
    let channels = value(&body.batch) * value(&body.groups) * value(&body.out_channels);
    let positions =
        value(&d.output) * blocks(value(&h.output), s.micro_h) * blocks(value(&w.output), s.micro_w);
    let invocations = blocks(channels * positions, s.group) * f64::from(s.group);
    let [rows, columns] = s.reach(body).map(|reach| reach.count as f64);
    let outputs = f64::from(s.micro_h * s.micro_w);
    let taps = (h.kernel * w.kernel) as f64;
    let (load_cost, needed) = if caps.cpu { (32.0, 64.0) } else { (4.0, 16_384.0) };
    let busy = (invocations / needed).min(1.0);
    let work = d.kernel as f64 * (outputs * taps + (rows * columns + taps) * load_cost) + outputs * load_cost;
    peaks.launch_ns + 2.0 * invocations * work / (peaks.f32_flops_per_ns * busy)
}
