//! Knobs of `gemm.wgsl`.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, fits, powers_of_two};
use super::spec::ContractBody;
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
    ContractSchedule { group_m, group_n: lanes / group_m, micro_m, micro_n4, split_k: 1 }
}

/// A sum is not split into parts shorter than this ...
const SHORTEST_PART: i64 = 64;
/// ... nor where there are more outputs than this.
const MANY_OUTPUTS: i64 = 1 << 18;

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
    let [batch, m, n, k] = [&body.batch, &body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1));
    let (tile_m, tile_n) = (s.micro_m as i64, s.micro_n4 as i64 * 4);
    let idle = |group: u32, tile: i64, extent: i64| group > 1 && (group as i64 / 2) * tile >= extent;
    if !fits(caps, s.group_n, s.group_m) {
        Some(INVOCATIONS)
    } else if s.group_m * s.group_n < 32 || s.group_m * s.group_n > 256 {
        Some("workgroups of fewer than 32 or more than 256 invocations")
    } else if registers(s) > if caps.cpu { 1024 } else { 160 } {
        Some("more registers than an invocation has, by estimate")
    } else if tile_m >= 2 * m || tile_n >= 2 * n.max(4) {
        Some("a tile twice as large as the output")
    } else if s.split_k > 1 && (k / s.split_k as i64) < SHORTEST_PART {
        Some("parts of the sum shorter than 64 terms")
    } else if s.split_k > 1 && body.k.as_const().is_none_or(|k| k % (4 * s.split_k as i64) != 0) {
        Some("a sum that does not divide into equal parts of whole fours")
    } else if s.split_k > 1 && batch * m * n * s.split_k as i64 * 4 > caps.max_storage_binding_bytes as i64 {
        Some("partial sums beyond what the device binds")
    } else if s.split_k > 1 && batch * m * n > MANY_OUTPUTS {
        Some("the sum split where the outputs alone keep a device busy")
    } else if idle(s.group_m, tile_m, m) && s.group_m * s.group_n > 32 {
        Some("half of the workgroup beyond the output's rows")
    } else if idle(s.group_n, tile_n, n) && s.group_m * s.group_n > 32 {
        Some("half of the workgroup beyond the output's columns")
    } else {
        None
    }
}

/// Products at peak speed, loads at a multiple of it, and idle invocations.
pub fn estimate_ns(
    body: &ContractBody,
    s: &ContractSchedule,
    sizes: Sizes,
    caps: &Caps,
    peaks: &Peaks,
) -> f64 {
    let [batch, m, n, k] = [&body.batch, &body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1) as f64);
    let padded = |extent: f64, tile: u32| (extent / tile as f64).ceil() * tile as f64;
    let (tile_m, tile_n) = (s.group_m * s.micro_m, s.group_n * s.micro_n4 * 4);
    let products = batch * padded(m, tile_m) * padded(n, tile_n) * k;
    let loads_per_product = 1.0 / (4 * s.micro_n4) as f64 + 1.0 / s.micro_m as f64;
    let load_cost = if caps.cpu { 8.0 } else { 4.0 };
    let invocations = products / (k * (s.micro_m * s.micro_n4 * 4) as f64);
    let needed = if caps.cpu { 64.0 } else { 16_384.0 };
    let busy = (invocations * s.split_k as f64 / needed).min(1.0);
    let second_pass = match s.split_k {
        1 => 0.0,
        parts => peaks.launch_ns + 8.0 * batch * m * n * parts as f64 / peaks.copy_bytes_per_ns,
    };
    peaks.launch_ns
        + second_pass
        + 2.0 * products * (1.0 + loads_per_product * load_cost) / (peaks.f32_flops_per_ns * busy)
}
