//! Knobs of `conv.wgsl` and `conv_subgroup.wgsl`.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, fits, powers_of_two};
use super::spec::ConvBody;
use crate::ir::ConvAxis;

/// Knobs of `conv.wgsl`, and of `conv_subgroup.wgsl` where there is a subgroup.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConvSchedule {
    /// Invocations per workgroup, along the output's positions.
    pub group: u32,
    /// Output channels per invocation, in fours.
    pub micro_o4: u32,
    /// Neighbouring outputs of a row per invocation.
    pub micro_w: u32,
    /// Whether all taps of a row are unrolled, so that neighbouring outputs share what they read.
    pub unroll: bool,
    /// Invocations of a subgroup that share the weights they read; 0 where each reads its own.
    pub subgroup: u32,
}

/// Largest workgroup, fours of output channels, outputs of a row, subgroup in the space.
const MOST: (u32, u32, u32, u32) = (256, 8, 8, 64);

pub fn points() -> Vec<Schedule> {
    let mut points = Vec::new();
    for subgroup in std::iter::once(0).chain(powers_of_two(MOST.3).filter(|&s| s >= 4)) {
        for unroll in [true, false] {
            for micro_o4 in powers_of_two(MOST.1) {
                for micro_w in powers_of_two(MOST.2) {
                    for group in powers_of_two(MOST.0) {
                        let s = ConvSchedule { group, micro_o4, micro_w, unroll, subgroup };
                        points.push(Schedule::Conv(s));
                    }
                }
            }
        }
    }
    points
}

/// What `outputs` neighbours read along an axis through `taps` taps each: `count` elements, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Distance between the elements.
    pub step: i64,
    /// Number of elements.
    pub count: i64,
}

impl Reach {
    /// Along `axis`.
    pub fn new(axis: &ConvAxis, outputs: u32, taps: i64) -> Reach {
        let outputs = i64::from(outputs);
        let step = match (outputs, taps) {
            (1, _) => axis.dilation,
            (_, 1) => axis.stride,
            _ => gcd(axis.stride, axis.dilation),
        };
        Reach { step, count: ((outputs - 1) * axis.stride + (taps - 1) * axis.dilation) / step + 1 }
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl ConvSchedule {
    /// Taps of a row in the unrolled text.
    pub fn taps(&self, body: &ConvBody) -> i64 {
        if self.unroll { body.axes[2].kernel } else { 1 }
    }

    /// Elements of the input that an invocation reads for these taps.
    pub fn reach(&self, body: &ConvBody) -> Reach {
        Reach::new(&body.axes[2], self.micro_w, self.taps(body))
    }

    /// Reads of weights for one tap.
    fn weight_loads(&self) -> i64 {
        i64::from(if self.subgroup == 0 {
            4 * self.micro_o4
        } else {
            (4 * self.micro_o4).div_ceil(self.subgroup)
        })
    }
}

/// Eight channels by eight outputs on CPU adapters: sixteen channels were up to 1.5 times as fast on lavapipe, and took
/// three times as long to compile (`tune --op conv --shape N=1,C=64,H=56,W=56,O=64,K=3,P=1`). Elsewhere subgroups must
/// show by measurement that they are worth it.
pub fn default(body: &ConvBody, sizes: Sizes, caps: &Caps) -> ConvSchedule {
    let [smallest, largest] = caps.subgroup_size;
    let subgroup =
        if caps.cpu && caps.subgroups && smallest == largest && smallest >= 4 { smallest } else { 0 };
    let largest = |extent: i64, most: u32| (extent as u64).next_power_of_two().min(most as u64) as u32;
    let (m, w) = (size(&body.out_channels, sizes).max(1), size(&body.axes[2].output, sizes).max(1));
    let micro_o4 = largest((m + 3) / 4, 2);
    let micro_w = largest(w, if caps.cpu { 8 } else { 4 });
    let group = if caps.cpu { 8.max(subgroup) } else { 64 };
    let mut s = ConvSchedule { group, micro_o4, micro_w, unroll: true, subgroup };
    s.unroll = broken_rule(body, &s, sizes, caps).is_none();
    s
}

/// Words of registers that the sums, the elements and the weights take.
fn registers(body: &ConvBody, s: &ConvSchedule) -> i64 {
    let outputs = i64::from(4 * s.micro_o4 * s.micro_w);
    outputs + s.reach(body).count * 2 + i64::from(4 * s.micro_o4)
}

/// Registers are limited, on a CPU adapter by compile time.
pub fn broken_rule(body: &ConvBody, s: &ConvSchedule, sizes: Sizes, caps: &Caps) -> Option<&'static str> {
    let (m, w) = (size(&body.out_channels, sizes).max(1), size(&body.axes[2].output, sizes).max(1));
    let kernel = body.axes[2].kernel;
    if !fits(caps, s.group, 1) {
        Some(INVOCATIONS)
    } else if s.subgroup != 0 && (!caps.subgroups || caps.subgroup_size != [s.subgroup; 2]) {
        Some("another subgroup size than the device's")
    } else if s.subgroup != 0 && !s.group.is_multiple_of(s.subgroup) {
        Some("a workgroup that is not whole subgroups")
    } else if s.group < if caps.cpu { 8 } else { 32 } {
        Some("workgroups that leave lanes idle")
    } else if s.unroll && kernel == 1 {
        Some("nothing to unroll")
    } else if registers(body, s) > if caps.cpu { 320 } else { 160 } {
        Some("more registers than an invocation has, by estimate")
    } else if s.unroll && s.reach(body).count * kernel > 128 {
        Some("too much text for one row of taps")
    } else if s.micro_o4 > 1 && i64::from(4 * s.micro_o4) >= 2 * m {
        Some("twice as many channels as there are")
    } else if i64::from(s.micro_w) >= 2 * w {
        Some("twice as many outputs as a row has")
    } else {
        None
    }
}

/// Products at peak speed, reads at a multiple of it, and idle invocations.
pub fn estimate_ns(body: &ConvBody, s: &ConvSchedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    let value = |idx| size(idx, sizes).max(1) as f64;
    let blocks = |extent: f64, each: u32| (extent / f64::from(each)).ceil();
    let [d, h, w] = &body.axes;
    let positions =
        value(&body.batch) * value(&d.output) * value(&h.output) * blocks(value(&w.output), s.micro_w);
    let channels = value(&body.groups) * blocks(value(&body.out_channels), 4 * s.micro_o4);
    let invocations = blocks(positions, s.group) * f64::from(s.group) * channels;
    let taps = s.taps(body) as f64;
    let rows = value(&body.in_channels) * (d.kernel * h.kernel) as f64 * (w.kernel as f64 / taps);
    let products = taps * f64::from(4 * s.micro_o4 * s.micro_w);
    let loads = s.reach(body).count as f64 + taps * s.weight_loads() as f64;
    let load_cost = if caps.cpu { 32.0 } else { 4.0 };
    let needed = if caps.cpu { 64.0 } else { 16_384.0 };
    let busy = (invocations / needed).min(1.0);
    let work = 2.0 * invocations * rows * (products + loads * load_cost);
    peaks.launch_ns + work / (peaks.f32_flops_per_ns * busy)
}
