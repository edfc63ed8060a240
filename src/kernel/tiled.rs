//! Knobs of `gemm_tiled.wgsl`: a contraction through workgroup memory.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::contract::{busy, read_cost};
use super::operand::reads;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, WORKGROUP_MEMORY, fits, powers_of_two};
use super::spec::ContractBody;
use super::split_k;
use crate::tensor::DType;

/// Knobs of `gemm_tiled.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TiledSchedule {
    /// Invocations per workgroup along M.
    pub group_m: u32,
    /// Invocations per workgroup along N.
    pub group_n: u32,
    /// Rows per invocation, in fours.
    pub micro_m4: u32,
    /// Columns per invocation, in fours.
    pub micro_n4: u32,
    /// Positions of K between two barriers.
    pub tile_k: u32,
    /// Vectors by which a row of workgroup memory is longer than the tile.
    pub pad: u32,
    /// Parts of the sum that are computed side by side and added up by a second pass; 1 takes no second pass.
    pub split_k: u32,
}

impl std::fmt::Display for TiledSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TiledSchedule { group_m, group_n, micro_m4, micro_n4, tile_k, pad, split_k } = self;
        let (micro_m, micro_n) = (micro_m4 * 4, micro_n4 * 4);
        write!(f, "group_m={group_m} group_n={group_n} micro_m={micro_m} micro_n={micro_n} ")?;
        write!(f, "tile_k={tile_k} pad={pad} split_k={split_k}")
    }
}

impl TiledSchedule {
    /// Rows and columns that a workgroup computes.
    pub fn tile(&self) -> [u32; 2] {
        [4 * self.group_m * self.micro_m4, 4 * self.group_n * self.micro_n4]
    }

    fn workgroup_bytes(&self) -> u32 {
        let rows = self.group_m * self.micro_m4 + self.group_n * self.micro_n4 + 2 * self.pad;
        16 * self.tile_k * rows
    }
}

/// Longest side of a workgroup, fours of a micro-tile and parts of the sum in the space.
const MOST: (u32, u32, u32) = (32, 2, 16);
/// Steps of K in the space.
const STEPS: [u32; 3] = [8, 16, 32];

/// Invocations of a workgroup.
const INVOCATION_RANGE: std::ops::RangeInclusive<u32> = 32..=256;

pub fn points() -> Vec<Schedule> {
    let mut points = Vec::new();
    for micro_m4 in powers_of_two(MOST.1) {
        for micro_n4 in powers_of_two(MOST.1) {
            for group_m in powers_of_two(MOST.0) {
                for group_n in powers_of_two(MOST.0) {
                    for tile_k in STEPS {
                        for pad in [0, 1] {
                            points.extend(powers_of_two(MOST.2).map(|split_k| {
                                let s = TiledSchedule {
                                    group_m,
                                    group_n,
                                    micro_m4,
                                    micro_n4,
                                    tile_k,
                                    pad,
                                    split_k,
                                };
                                Schedule::Tiled(s)
                            }));
                        }
                    }
                }
            }
        }
    }
    points
}

/// The default where the output is large enough to fill a GPU with tiles; `None` where it is not, or where the device
/// is a CPU, whose caches do better without copies.
///
/// 64x64 tiles by 256 invocations are what others found to be within a few per cent of the best on most GPUs.
pub fn default(body: &ContractBody, sizes: Sizes, caps: &Caps) -> Option<TiledSchedule> {
    let large =
        TiledSchedule { group_m: 16, group_n: 16, micro_m4: 1, micro_n4: 1, tile_k: 16, pad: 1, split_k: 1 };
    let small = TiledSchedule { group_m: 8, group_n: 8, ..large.clone() };
    let tiles = |s: &TiledSchedule| {
        let [m, n] = s.tile().map(i64::from);
        size(&body.batch, sizes) * (size(&body.m, sizes) / m) * (size(&body.n, sizes) / n)
    };
    let chosen = if tiles(&large) >= 64 { large } else { small };
    let usable = !caps.cpu && tiles(&chosen) >= 4 && broken_rule(body, &chosen, sizes, caps).is_none();
    usable.then_some(chosen)
}

pub fn broken_rule(
    body: &ContractBody,
    s: &TiledSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    let (m, n, k) = (size(&body.m, sizes), size(&body.n, sizes), size(&body.k, sizes));
    let [tile_m, tile_n] = s.tile().map(i64::from);
    let (long, short) = (s.group_m.max(s.group_n), s.group_m.min(s.group_n));
    if !fits(caps, s.group_n, s.group_m) {
        Some(INVOCATIONS)
    } else if s.workgroup_bytes() > caps.max_workgroup_bytes {
        Some(WORKGROUP_MEMORY)
    } else if !INVOCATION_RANGE.contains(&(s.group_m * s.group_n)) {
        Some("workgroups of fewer than 32 or more than 256 invocations")
    } else if long > 4 * short {
        Some("a workgroup more than four times as long as wide copies more than it uses")
    } else if tile_m >= 2 * m.max(4) || tile_n >= 2 * n.max(4) {
        Some("a tile twice as large as the output")
    } else if i64::from(s.tile_k) >= 2 * k.max(8) {
        Some("a step of K twice as long as K")
    } else if !is_word(body.sum) {
        Some(NOT_A_WORD)
    } else {
        // Walking a tile and copying it are loops, too.
        split_k::broken_rule(body, s.split_k, 8 * split_k::turns(body, s.split_k, sizes), sizes, caps)
    }
}

/// Whether a sum is a float or a whole number of 32 bits on the device.
pub fn is_word(sum: DType) -> bool {
    (sum.is_float() && sum != DType::F64) || matches!(sum, DType::I32 | DType::U32)
}

/// The rule of [`is_word`].
pub const NOT_A_WORD: &str = "narrow integers and 64-bit numbers are multiplied straight from storage";

/// Products at peak speed, reads of workgroup memory and of storage at their cost against them, whole tiles, and as
/// much of the device as there are workgroups for.
pub fn estimate_ns(body: &ContractBody, s: &TiledSchedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    let [batch, m, n, k] = [&body.batch, &body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1) as f64);
    let [tile_m, tile_n] = s.tile().map(f64::from);
    let groups = batch * (m / tile_m).ceil() * (n / tile_n).ceil();
    let steps = (k / f64::from(s.tile_k)).ceil();
    let products = groups * tile_m * tile_n * steps * f64::from(s.tile_k);
    // Per product: reads of workgroup memory by the invocation, reads of storage by the workgroup.
    let near = 1.0 / f64::from(16 * s.micro_m4) + 1.0 / f64::from(16 * s.micro_n4);
    let [_, block_a, block_b] = reads(body);
    let far = block_a / tile_n + block_b / tile_m;
    let near_cost = if caps.cpu { read_cost(caps) } else { 1.0 };
    let conflicts = if s.pad == 0 && !caps.cpu { 1.2 } else { 1.0 };
    // Neighbours copy neighbours: a read of storage here is as good as one of many.
    let far_cost = read_cost(caps) / 16.0;
    let barriers_ns = if caps.cpu { groups * steps * 400.0 } else { steps * 200.0 };
    let split = f64::from(s.split_k);
    let invocations = groups * f64::from(s.group_m * s.group_n);
    let arithmetic = 2.0 * products * (1.0 + near * near_cost * conflicts + far * far_cost);
    split_k::estimate_ns(body, s.split_k, sizes, peaks)
        + peaks.launch_ns
        + arithmetic / (peaks.f32_flops_per_ns * busy(groups * split, invocations * split, caps))
        + barriers_ns / split
}
