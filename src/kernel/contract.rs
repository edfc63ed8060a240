//! Knobs of `gemm.wgsl`.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::operand::reads;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, fits, powers_of_two};
use super::spec::ContractBody;
use super::split_k;
use crate::expr::Node;

/// Knobs of `gemm.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContractSchedule {
    /// Invocations per workgroup along M.
    pub group_m: u32,
    /// Invocations per workgroup along N.
    pub group_n: u32,
    /// Rows per invocation.
    pub micro_m: u32,
    /// Columns per invocation, in fours.
    pub micro_n4: u32,
    /// Parts of the sum that are computed side by side and added up by a second pass; 1 takes no second pass.
    pub split_k: u32,
}

/// Largest workgroup axis, rows, fours of columns and parts of the sum in the space.
const MOST: (u32, u32, u32, u32) = (256, 32, 8, 16);

pub fn points() -> Vec<Schedule> {
    let mut points = Vec::new();
    for micro_m in powers_of_two(MOST.1) {
        for micro_n4 in powers_of_two(MOST.2) {
            for group_m in powers_of_two(MOST.0) {
                for group_n in powers_of_two(MOST.0) {
                    points.extend(powers_of_two(MOST.3).map(|split_k| {
                        Schedule::Contract(ContractSchedule { group_m, group_n, micro_m, micro_n4, split_k })
                    }));
                }
            }
        }
    }
    points
}

/// On lavapipe 8x8 tiles were the fastest for all shapes of the eight test networks with M and N of at least 8
/// (`Session::tune`); GPUs run out of registers sooner, so 4x4 stands first there.
pub fn default(body: &ContractBody, sizes: Sizes, caps: &Caps) -> ContractSchedule {
    let (m, n) = (size(&body.m, sizes).max(1), size(&body.n, sizes).max(1));
    let largest = |extent: i64, most: u32| (extent as u64).next_power_of_two().min(most as u64) as u32;
    let most = if caps.cpu { 8 } else { 4 };
    // An operand with a window or a condition in it is read element by element: a narrow tile keeps the code short.
    let wide = matches!(body.b.node(), Node::Load { .. });
    let (micro_m, micro_n4) = (largest(m, most), largest((n + 3) / 4, if wide { most / 4 } else { 1 }));
    // Few distinct defaults, so that a change of sequence length rarely means another pipeline.
    let lanes = if caps.cpu { 32 } else { 64 };
    let group_m = if m <= micro_m as i64 {
        1
    } else if n <= 8 * micro_n4 as i64 {
        lanes / 2
    } else {
        lanes / 8
    };
    let split_k = split_k::fewest(body, sizes, caps);
    ContractSchedule { group_m, group_n: lanes / group_m, micro_m, micro_n4, split_k }
}

/// On a CPU adapter a workgroup is walked by one core, so a larger one is only coarser work to share out.
pub const ONE_CORE: &str = "a workgroup larger than a CPU adapter has a use for";

/// Words of registers that a tile of sums and its operands take.
fn registers(s: &ContractSchedule) -> u32 {
    4 * (s.micro_m * s.micro_n4 + s.micro_m + 4 * s.micro_n4)
}

/// A tile of more than twice the output's extent is waste; registers are limited, on a CPU adapter by compile time.
pub fn broken_rule(
    body: &ContractBody,
    s: &ContractSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    let [m, n] = [&body.m, &body.n].map(|idx| size(idx, sizes).max(1));
    let (tile_m, tile_n) = (s.micro_m as i64, s.micro_n4 as i64 * 4);
    let idle = |group: u32, tile: i64, extent: i64| group > 1 && (group as i64 / 2) * tile >= extent;
    if !fits(caps, s.group_n, s.group_m) {
        Some(INVOCATIONS)
    } else if s.group_m * s.group_n < 32 || s.group_m * s.group_n > 256 {
        Some("workgroups of fewer than 32 or more than 256 invocations")
    } else if caps.cpu && s.group_m * s.group_n > 32 {
        Some(ONE_CORE)
    } else if registers(s) > if caps.cpu { 416 } else { 160 } {
        Some("more registers than an invocation has, by estimate")
    } else if tile_m >= 2 * m || tile_n >= 2 * n.max(4) {
        Some("a tile twice as large as the output")
    } else if idle(s.group_m, tile_m, m) && s.group_m * s.group_n > 32 {
        Some("half of the workgroup beyond the output's rows")
    } else if idle(s.group_n, tile_n, n) && s.group_m * s.group_n > 32 {
        Some("half of the workgroup beyond the output's columns")
    } else {
        split_k::broken_rule(body, s.split_k, split_k::turns(body, s.split_k, sizes), sizes, caps)
    }
}

/// Products at peak speed, reads of storage at their cost against them, whole tiles, and as much of the device as
/// there are invocations for.
pub fn estimate_ns(
    body: &ContractBody,
    s: &ContractSchedule,
    sizes: Sizes,
    caps: &Caps,
    peaks: &Peaks,
) -> f64 {
    let [batch, m, n, k] = [&body.batch, &body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1) as f64);
    let tiles = |extent: f64, tile: u32| (extent / f64::from(tile)).ceil();
    let (micro_m, micro_n4) = (f64::from(s.micro_m), f64::from(s.micro_n4));
    let groups = batch * tiles(m, s.group_m * s.micro_m) * tiles(n, s.group_n * s.micro_n4 * 4);
    let invocations = groups * f64::from(s.group_m * s.group_n);
    let [line, _, block] = reads(body);
    let products = 16.0 * micro_m * micro_n4;
    let per_four = products + read_cost(caps) * (line * micro_m + block * micro_n4);
    let steps = invocations * (k / 4.0).ceil();
    split_k::estimate_ns(body, s.split_k, sizes, peaks)
        + peaks.launch_ns
        + 2.0 * steps * per_four
            / (peaks.f32_flops_per_ns
                * busy(groups * f64::from(s.split_k), invocations * f64::from(s.split_k), caps))
}

/// A read of storage, of up to four words, against a product. On lavapipe it is a loop over a subgroup's invocations.
pub fn read_cost(caps: &Caps) -> f64 {
    if caps.cpu { 64.0 } else { 16.0 }
}

/// The part of a device that so many workgroups and invocations keep busy.
pub fn busy(groups: f64, invocations: f64, caps: &Caps) -> f64 {
    if caps.cpu { (groups / 4.0).min(1.0) } else { (invocations / 16_384.0).min(1.0) }
}
