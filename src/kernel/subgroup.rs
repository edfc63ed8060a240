//! Knobs of `gemm_subgroup.wgsl`: a contraction whose rows are read once per subgroup and handed on by broadcast.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::contract::{ONE_CORE, busy, read_cost};
use super::operand::reads;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, fits, powers_of_two};
use super::spec::ContractBody;
use super::split_k;
use super::tiled::{NOT_A_WORD, is_word};

/// Knobs of `gemm_subgroup.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SubgroupSchedule {
    /// Invocations per subgroup: the only size that the device has.
    pub subgroup: u32,
    /// Subgroups per workgroup, one below the other.
    pub groups: u32,
    /// Rows that an invocation reads; it computes `subgroup` times as many.
    pub rows: u32,
    /// Columns per invocation, in fours.
    pub micro_n4: u32,
    /// Parts of the sum that are computed side by side and added up by a second pass; 1 takes no second pass.
    pub split_k: u32,
}

impl std::fmt::Display for SubgroupSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SubgroupSchedule { subgroup, groups, rows, micro_n4, split_k } = self;
        let micro_n = micro_n4 * 4;
        write!(f, "subgroup={subgroup} groups={groups} rows={rows} micro_n={micro_n} split_k={split_k}")
    }
}

impl SubgroupSchedule {
    /// Rows and columns that a workgroup computes.
    pub fn tile(&self) -> [u32; 2] {
        [self.groups * self.rows * self.subgroup, 4 * self.subgroup * self.micro_n4]
    }

    /// Vectors of sums per invocation.
    pub fn sums(&self) -> u32 {
        self.rows * self.subgroup * self.micro_n4
    }
}

/// Smallest and largest subgroup, most rows, subgroups and parts of the sum in the space.
const SUBGROUPS: [u32; 4] = [4, 8, 16, 32];
const MOST: (u32, u32, u32) = (8, 8, 16);

/// Vectors of sums that an invocation may have. On a CPU adapter they are in memory soon anyway, and what limits them is
/// the time that compiling takes.
const MOST_SUMS: [u32; 2] = [32, 64];

pub fn points() -> Vec<Schedule> {
    let mut points = Vec::new();
    for subgroup in SUBGROUPS {
        for groups in powers_of_two(MOST.0) {
            for rows in powers_of_two(MOST.1) {
                for micro_n4 in [1, 2] {
                    points.extend(powers_of_two(MOST.2).map(|split_k| {
                        Schedule::Subgroup(SubgroupSchedule { subgroup, groups, rows, micro_n4, split_k })
                    }));
                }
            }
        }
    }
    points
}

/// The default on CPU adapters, for outputs that fill a subgroup's tile: on lavapipe twice as fast as tiles without
/// broadcasts, and quicker to compile. `None` elsewhere.
pub fn default(body: &ContractBody, sizes: Sizes, caps: &Caps) -> Option<SubgroupSchedule> {
    let [subgroup, largest] = caps.subgroup_size;
    if !caps.cpu || subgroup != largest || subgroup == 0 {
        return None;
    }
    let m = size(&body.m, sizes).max(1) as u64;
    let products: i64 =
        [&body.batch, &body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1)).into_iter().product();
    let most_rows = (TILE_ROWS[usize::from(products >= MANY_PRODUCTS)] / subgroup).max(1);
    let rows = m.div_ceil(u64::from(subgroup)).next_power_of_two().min(u64::from(most_rows)) as u32;
    let split_k = split_k::fewest(body, sizes, caps);
    let schedule = SubgroupSchedule { subgroup, groups: 1, rows, micro_n4: 1, split_k };
    broken_rule(body, &schedule, sizes, caps).is_none().then_some(schedule)
}

/// Rows of a tile on CPU adapters by default, for few products and for many: 32 run a third faster than 16 on lavapipe
/// and take it twice as long to compile (400 ms more, on a loaded machine).
const TILE_ROWS: [u32; 2] = [16, 32];
const MANY_PRODUCTS: i64 = 1 << 28;

pub fn broken_rule(
    body: &ContractBody,
    s: &SubgroupSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    let (m, n) = (size(&body.m, sizes), size(&body.n, sizes));
    let [tile_m, tile_n] = s.tile().map(i64::from);
    if !caps.subgroups {
        Some("no subgroup operations")
    } else if caps.subgroup_size != [s.subgroup; 2] {
        Some("a subgroup size that is not the only one of the device")
    } else if !fits(caps, s.subgroup * s.groups, 1) {
        Some(INVOCATIONS)
    } else if s.sums() > MOST_SUMS[usize::from(caps.cpu)] {
        Some("more registers than an invocation has, by estimate")
    } else if caps.cpu && s.groups > 1 {
        Some(ONE_CORE)
    } else if tile_m >= 2 * m || tile_n >= 2 * n {
        Some("a tile twice as large as the output")
    } else if !is_word(body.sum) {
        Some(NOT_A_WORD)
    } else {
        split_k::broken_rule(body, s.split_k, split_k::turns(body, s.split_k, sizes), sizes, caps)
    }
}

/// Products and broadcasts at peak speed, reads of storage at their cost against them, whole tiles, and as much of the
/// device as there are workgroups for.
pub fn estimate_ns(
    body: &ContractBody,
    s: &SubgroupSchedule,
    sizes: Sizes,
    caps: &Caps,
    peaks: &Peaks,
) -> f64 {
    let [batch, m, n, k] = [&body.batch, &body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1) as f64);
    let [tile_m, tile_n] = s.tile().map(f64::from);
    let groups = batch * (m / tile_m).ceil() * (n / tile_n).ceil();
    let invocations = groups * f64::from(s.subgroup * s.groups);
    let [line, _, block] = reads(body);
    let broadcasts = f64::from(4 * s.rows * s.subgroup);
    let broadcast_cost = if caps.cpu { 0.5 } else { 4.0 };
    let read = line * f64::from(s.rows) + block * f64::from(s.micro_n4);
    let per_four = f64::from(16 * s.sums()) + broadcasts * broadcast_cost + read * read_cost(caps);
    let split = f64::from(s.split_k);
    let arithmetic = 2.0 * invocations * (k / 4.0).ceil() * per_four;
    split_k::estimate_ns(body, s.split_k, sizes, peaks)
        + peaks.launch_ns
        + arithmetic / (peaks.f32_flops_per_ns * busy(groups * split, invocations * split, caps))
}
