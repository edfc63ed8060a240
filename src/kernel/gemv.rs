//! Knobs of `gemv.wgsl` and `gemv_subgroup.wgsl`: contractions of few rows or few columns.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::contract::{busy, read_cost};
use super::operand::{Along, reads};
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, TURNS, WORKGROUP_MEMORY, fits, leaves_loops, powers_of_two};
use super::spec::ContractBody;
use super::split_k;
use super::tiled::{NOT_A_WORD, is_word};

/// How the invocations that share a sum add up their parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reduction {
    /// In workgroup memory, by halves.
    Workgroup,
    /// Within subgroups first.
    Subgroup,
}

/// Knobs of `gemv.wgsl` and `gemv_subgroup.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GemvSchedule {
    /// Invocations that share a sum.
    pub lanes_k: u32,
    /// Groups of them per workgroup along M.
    pub lanes_m: u32,
    /// Groups of them per workgroup along N.
    pub lanes_n: u32,
    /// Rows per invocation.
    pub micro_m: u32,
    /// Columns per invocation, in fours.
    pub micro_n4: u32,
    /// How they add up.
    pub reduction: Reduction,
}

impl std::fmt::Display for GemvSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let GemvSchedule { lanes_k, lanes_m, lanes_n, micro_m, micro_n4, reduction } = self;
        let micro_n = micro_n4 * 4;
        let reduction = match reduction {
            Reduction::Workgroup => "workgroup",
            Reduction::Subgroup => "subgroup",
        };
        write!(f, "lanes_k={lanes_k} lanes_m={lanes_m} lanes_n={lanes_n} ")?;
        write!(f, "micro_m={micro_m} micro_n={micro_n} reduction={reduction}")
    }
}

impl GemvSchedule {
    /// Rows and columns that a workgroup computes.
    pub fn tile(&self) -> [u32; 2] {
        [self.lanes_m * self.micro_m, 4 * self.lanes_n * self.micro_n4]
    }

    /// Whether neighbouring invocations are neighbours along K: where the large operand's elements are.
    pub fn along_k(&self, body: &ContractBody) -> bool {
        let large = if self.lanes_m > 1 { body.along_a() } else { body.along_b() };
        large == Along::K
    }

    fn invocations(&self) -> u32 {
        self.lanes_k * self.lanes_m * self.lanes_n
    }

    fn workgroup_bytes(&self) -> u32 {
        16 * self.invocations() * self.micro_m * self.micro_n4
    }
}

/// Most rows, or columns, of a product that counts as one of a matrix and a vector.
const FEW: i64 = 8;
/// Most invocations that share a sum, and groups of them, and fours of columns.
const MOST: (u32, u32, u32) = (256, 64, 2);

pub fn points() -> Vec<Schedule> {
    let mut points = Vec::new();
    for lanes_k in powers_of_two(MOST.0).skip(1) {
        for lanes in powers_of_two(MOST.1) {
            for micro_m in powers_of_two(FEW as u32) {
                for micro_n4 in powers_of_two(MOST.2) {
                    for reduction in [Reduction::Workgroup, Reduction::Subgroup] {
                        let wide = GemvSchedule {
                            lanes_k,
                            lanes_m: 1,
                            lanes_n: lanes,
                            micro_m,
                            micro_n4,
                            reduction,
                        };
                        if lanes > 1 {
                            let tall = GemvSchedule { lanes_m: lanes, lanes_n: 1, ..wide.clone() };
                            points.push(Schedule::Gemv(tall));
                        }
                        points.push(Schedule::Gemv(wide));
                    }
                }
            }
        }
    }
    points
}

/// The default on GPUs for few rows or columns: 256 invocations, which read 256 fours of the large operand at once.
/// `None` for other shapes, and on CPU adapters, where a barrier costs more than the idle cores that it would fill.
pub fn default(body: &ContractBody, sizes: Sizes, caps: &Caps) -> Option<GemvSchedule> {
    let (m, n) = (size(&body.m, sizes).max(1), size(&body.n, sizes).max(1));
    if caps.cpu || m.min(n) > FEW {
        return None;
    }
    let micro_m = if m <= FEW { (m as u32).next_power_of_two() } else { 1 };
    let lanes_k = match if m <= n { body.along_b() } else { body.along_a() } {
        Along::K => 32,
        Along::Outer | Along::Neither => 8,
    };
    let lanes = 128 / lanes_k;
    let (lanes_m, lanes_n) = if m <= FEW { (1, lanes) } else { (lanes, 1) };
    let reduction = Reduction::Workgroup;
    let schedule = GemvSchedule { lanes_k, lanes_m, lanes_n, micro_m, micro_n4: 1, reduction };
    broken_rule(body, &schedule, sizes, caps).is_none().then_some(schedule)
}

pub fn broken_rule(body: &ContractBody, s: &GemvSchedule, sizes: Sizes, caps: &Caps) -> Option<&'static str> {
    let [m, n, k] = [&body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1));
    let [tile_m, tile_n] = s.tile().map(i64::from);
    if m.min(n) > FEW {
        Some("a product of two matrices")
    } else if !fits(caps, s.invocations(), 1) {
        Some(INVOCATIONS)
    } else if s.workgroup_bytes() > caps.max_workgroup_bytes {
        Some(WORKGROUP_MEMORY)
    } else if !(32..=256).contains(&s.invocations()) {
        Some("workgroups of fewer than 32 or more than 256 invocations")
    } else if s.reduction == Reduction::Subgroup && !caps.subgroups {
        Some("no subgroup operations")
    } else if s.reduction == Reduction::Subgroup && !(s.along_k(body) && whole_subgroups(s.lanes_k, caps)) {
        Some("a sum shared by less than whole subgroups")
    } else if 4 * i64::from(s.lanes_k) >= 2 * k.max(4) {
        Some("half of the invocations beyond the end of the sum")
    } else if (m <= FEW && s.lanes_m > 1) || (m > FEW && s.lanes_n > 1) {
        Some("invocations side by side along the short side of the output")
    } else if tile_m >= 2 * m || tile_n >= 2 * n.max(4) {
        Some("a tile twice as large as the output")
    } else if s.micro_m * s.micro_n4 > 8 {
        Some("more registers than an invocation has, by estimate")
    } else if !is_word(body.sum) {
        Some(NOT_A_WORD)
    } else if leaves_loops(caps, split_k::turns(body, s.lanes_k, sizes)) {
        Some(TURNS)
    } else {
        None
    }
}

/// Whether so many invocations, which share a sum, are whole subgroups of any size that the device has.
pub(super) fn whole_subgroups(lanes: u32, caps: &Caps) -> bool {
    let [smallest, largest] = caps.subgroup_size;
    smallest >= 4 && largest >= smallest && lanes >= largest
}

/// Reads at their cost, products at peak speed, as much of the device as there are invocations for, and the steps in
/// which the sums are added up.
pub fn estimate_ns(body: &ContractBody, s: &GemvSchedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    let [batch, m, n, k] = [&body.batch, &body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1) as f64);
    let [tile_m, tile_n] = s.tile().map(f64::from);
    let groups = batch * (m / tile_m).ceil() * (n / tile_n).ceil();
    let invocations = groups * f64::from(s.invocations());
    let steps = (k / f64::from(4 * s.lanes_k)).ceil();
    let (micro_m, micro_n4) = (f64::from(s.micro_m), f64::from(s.micro_n4));
    let [line, _, block] = reads(body);
    let read = line * micro_m + block * micro_n4;
    // A workgroup's reads of the large operand lie together where its invocations are neighbours.
    let scattered = if s.along_k(body) && s.lanes_k < 8 && !caps.cpu { 2.0 } else { 1.0 };
    let work = invocations * steps * (16.0 * micro_m * micro_n4 + read * read_cost(caps) * scattered);
    let levels = match s.reduction {
        Reduction::Workgroup => f64::from(s.lanes_k.ilog2()) + 1.0,
        Reduction::Subgroup => 2.0,
    };
    let barriers_ns = if caps.cpu { groups * levels * 400.0 } else { levels * 100.0 };
    peaks.launch_ns + 2.0 * work / (peaks.f32_flops_per_ns * busy(groups, invocations, caps)) + barriers_ns
}
