//! Knobs of `gemm_cooperative.wgsl`: a contraction by the device's cooperative-matrix instructions.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::contract::{busy, read_cost};
use super::operand::reads;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, WORKGROUP_MEMORY, fits, powers_of_two};
use super::spec::ContractBody;
use crate::tensor::DType;

/// Knobs of `gemm_cooperative.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CooperativeSchedule {
    /// Rows, columns and depth of a matrix instruction.
    pub size: u32,
    /// Invocations per subgroup: the only size that the device has.
    pub subgroup: u32,
    /// Subgroups per workgroup along M.
    pub groups_m: u32,
    /// Subgroups per workgroup along N.
    pub groups_n: u32,
    /// Matrices of sums per subgroup along M.
    pub micro_m: u32,
    /// The same along N.
    pub micro_n: u32,
    /// Positions of K between two barriers.
    pub tile_k: u32,
}

impl std::fmt::Display for CooperativeSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let CooperativeSchedule { size, subgroup, groups_m, groups_n, micro_m, micro_n, tile_k } = self;
        write!(f, "matrix={size} subgroup={subgroup} groups_m={groups_m} groups_n={groups_n} ")?;
        write!(f, "matrices_m={micro_m} matrices_n={micro_n} tile_k={tile_k}")
    }
}

impl CooperativeSchedule {
    /// Rows and columns that a workgroup computes.
    pub fn tile(&self) -> [u32; 2] {
        [self.groups_m * self.micro_m * self.size, self.groups_n * self.micro_n * self.size]
    }

    fn invocations(&self) -> u32 {
        self.subgroup * self.groups_m * self.groups_n
    }

    fn workgroup_bytes(&self, element: &str) -> u32 {
        let [tile_m, tile_n] = self.tile();
        let bytes = if element == "f16" { 2 } else { 4 };
        // Each array is aligned to its element.
        bytes * self.tile_k * (tile_m + tile_n) + 4 * self.size * self.size * self.groups_m * self.groups_n
    }
}

/// Sizes of matrices and subgroups in the space, most subgroups and matrices along a side, and steps of K.
const SIZES: [u32; 2] = [8, 16];
const SUBGROUPS: [u32; 5] = [4, 8, 16, 32, 64];
const MOST: (u32, u32) = (4, 4);
const STEPS: [u32; 2] = [16, 32];

pub fn points() -> Vec<Schedule> {
    let mut points = Vec::new();
    for size in SIZES {
        for subgroup in SUBGROUPS {
            for groups_m in powers_of_two(MOST.0) {
                for groups_n in powers_of_two(MOST.0) {
                    for micro_m in powers_of_two(MOST.1) {
                        for micro_n in powers_of_two(MOST.1) {
                            points.extend(STEPS.map(|tile_k| {
                                let groups = [groups_m, groups_n];
                                Schedule::Cooperative(CooperativeSchedule {
                                    size,
                                    subgroup,
                                    groups_m: groups[0],
                                    groups_n: groups[1],
                                    micro_m,
                                    micro_n,
                                    tile_k,
                                })
                            }));
                        }
                    }
                }
            }
        }
    }
    points
}

/// The element type of the matrices that hold both operands without loss; `None` where there is none.
pub fn element(body: &ContractBody, f16: bool) -> Option<&'static str> {
    match (body.a.dtype(), body.b.dtype(), body.sum) {
        (DType::F16, DType::F16, DType::F16 | DType::F32) if f16 => Some("f16"),
        (DType::F32, DType::F32, DType::F32) => Some("f32"),
        (_, _, _) => None,
    }
}

pub fn broken_rule(
    body: &ContractBody,
    s: &CooperativeSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    let (m, n) = (size(&body.m, sizes), size(&body.n, sizes));
    let [tile_m, tile_n] = s.tile().map(i64::from);
    let Some(element) = element(body, caps.f16) else {
        return Some("operands that no cooperative matrix holds without loss");
    };
    let listed = caps.cooperative.iter().any(|listed| {
        [listed.m, listed.n, listed.k] == [s.size; 3] && listed.ab == element && listed.c == "f32"
    });
    if !listed {
        Some("cooperative matrices of a size or type that the device has not")
    } else if caps.subgroup_size != [s.subgroup; 2] {
        Some("a subgroup size that is not the only one of the device")
    } else if !fits(caps, s.invocations(), 1) || s.invocations() > 256 {
        Some(INVOCATIONS)
    } else if s.workgroup_bytes(element) > caps.max_workgroup_bytes {
        Some(WORKGROUP_MEMORY)
    } else if s.micro_m * s.micro_n > 8 {
        Some("more registers than an invocation has, by estimate")
    } else if tile_m >= 2 * m || tile_n >= 2 * n {
        Some("a tile twice as large as the output")
    } else {
        None
    }
}

/// Matrix products at several times the arithmetic peak, copies to workgroup memory at their cost, whole tiles, and as much
/// of the device as there are invocations for.
pub fn estimate_ns(
    body: &ContractBody,
    s: &CooperativeSchedule,
    sizes: Sizes,
    caps: &Caps,
    peaks: &Peaks,
) -> f64 {
    let [batch, m, n, k] = [&body.batch, &body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1) as f64);
    let [tile_m, tile_n] = s.tile().map(f64::from);
    let groups = batch * (m / tile_m).ceil() * (n / tile_n).ceil();
    let steps = (k / f64::from(s.tile_k)).ceil();
    let products = groups * tile_m * tile_n * steps * f64::from(s.tile_k);
    let [_, block_a, block_b] = reads(body);
    let far = block_a / tile_n + block_b / tile_m;
    let near = (1.0 / f64::from(s.micro_m) + 1.0 / f64::from(s.micro_n)) / f64::from(s.size);
    let speed = if caps.cpu { 2.0 } else { 4.0 };
    let per_product = (1.0 + near * 4.0) / speed + far * read_cost(caps) / 16.0;
    let invocations = groups * f64::from(s.invocations());
    let barriers_ns = if caps.cpu { groups * steps * 400.0 } else { steps * 200.0 };
    peaks.launch_ns
        + 2.0 * products * per_product / (peaks.f32_flops_per_ns * busy(groups, invocations, caps))
        + barriers_ns
}
