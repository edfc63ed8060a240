//! Knobs of `attention.wgsl` and `attention_serial.wgsl`.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, WORKGROUP_MEMORY, fits, powers_of_two};
use super::spec::AttentionBody;

/// Knobs of `attention.wgsl` (several lanes per query) and `attention_serial.wgsl` (one).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttentionSchedule {
    /// Invocations that share a query: each has keys of its own, then columns of its own. 1 means that each walks its
    /// queries alone, without workgroup memory.
    pub lanes: u32,
    /// Groups of queries per workgroup.
    pub rows: u32,
    /// Queries per invocation.
    pub micro_m: u32,
    /// Keys per invocation and step.
    pub micro_k: u32,
    /// Whether keys and values of a step are brought to workgroup memory first.
    pub staged: bool,
}

/// Most lanes, rows, queries and keys in the space.
const MOST: (u32, u32, u32, u32) = (32, 128, 8, 8);

pub fn points() -> Vec<Schedule> {
    let mut points = Vec::new();
    for lanes in powers_of_two(MOST.0) {
        for rows in powers_of_two(MOST.1) {
            for micro_m in powers_of_two(MOST.2) {
                for micro_k in powers_of_two(MOST.3) {
                    for staged in [false, true].into_iter().take(1 + (lanes > 1) as usize) {
                        points.push(AttentionSchedule { lanes, rows, micro_m, micro_k, staged });
                    }
                }
            }
        }
    }
    points.into_iter().map(Schedule::Attention).collect()
}

/// A workgroup of 128, four queries and four keys per invocation, is what register tiles of GPUs bear; where its memory
/// does not suffice, fewer keys, then fewer queries. On a CPU adapter an invocation for itself.
pub fn default(body: &AttentionBody, sizes: Sizes, caps: &Caps) -> AttentionSchedule {
    let m = size(&body.m, sizes).max(1) as u64;
    let queries = |most: u32| m.next_power_of_two().min(most as u64) as u32;
    let serial = |micro_m: u32| AttentionSchedule { lanes: 1, rows: 32, micro_m, micro_k: 4, staged: false };
    if !caps.cpu {
        let lanes = fours(body).next_power_of_two().min(16);
        for (micro_m, micro_k) in [(4, 4), (4, 2), (2, 2), (2, 1), (1, 1)] {
            let micro_m = queries(micro_m);
            let rows = (m.div_ceil(micro_m as u64).next_power_of_two() as u32).min(128 / lanes).max(32 / lanes);
            let shared = AttentionSchedule { lanes, rows, micro_m, micro_k, staged: true };
            if broken_rule(body, &shared, sizes, caps).is_none() {
                return shared;
            }
        }
    }
    let first = [4, 2].map(|micro_m| serial(queries(micro_m)));
    first.into_iter().find(|s| broken_rule(body, s, sizes, caps).is_none()).unwrap_or_else(|| serial(1))
}

/// Columns in fours.
fn fours(body: &AttentionBody) -> u32 {
    body.n.as_const().map_or(1, |n| (n as u32).div_ceil(4)).max(1)
}

/// Fours of columns per lane.
pub fn columns(body: &AttentionBody, s: &AttentionSchedule) -> u32 {
    fours(body).div_ceil(s.lanes)
}

/// Fours of a row of keys or values in workgroup memory: one more than a row has, so that rows start in different banks.
pub fn stride(body: &AttentionBody) -> Option<u32> {
    let depth = u32::try_from(body.d.as_const()?).ok()?.div_ceil(4);
    Some(depth.max(fours(body)) + 1)
}

/// Words of registers for sums, scores and operands.
fn registers(body: &AttentionBody, s: &AttentionSchedule) -> u32 {
    let columns = columns(body, s);
    s.micro_m * (4 * columns + s.micro_k + 6) + 4 * s.micro_k
}

fn workgroup_bytes(body: &AttentionBody, s: &AttentionSchedule) -> u32 {
    let (keys, queries) = (s.lanes * s.micro_k, s.rows * s.micro_m);
    let tile = if s.staged { 16 * keys * stride(body).unwrap_or(0) } else { 0 };
    if s.lanes == 1 { 0 } else { 4 * queries * (keys + 1) + 4 * queries * s.lanes + tile }
}

pub fn broken_rule(
    body: &AttentionBody,
    s: &AttentionSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    let [batch, m, k] = [&body.batch, &body.m, &body.k].map(|idx| size(idx, sizes).max(1));
    let invocations = s.lanes * s.rows;
    // Alone, invocations of one workgroup may belong to several heads.
    let groups = (m as u64).div_ceil(s.micro_m as u64) * if s.lanes == 1 { batch as u64 } else { 1 };
    if !fits(caps, s.lanes, s.rows) {
        Some(INVOCATIONS)
    } else if !(32..=256).contains(&invocations) {
        Some("workgroups of fewer than 32 or more than 256 invocations")
    } else if s.staged && stride(body).is_none() {
        Some("keys of unknown size in workgroup memory")
    } else if workgroup_bytes(body, s) > caps.max_workgroup_bytes {
        Some(WORKGROUP_MEMORY)
    } else if registers(body, s) > if caps.cpu { 1024 } else { 160 } {
        Some("more registers than an invocation has, by estimate")
    } else if s.lanes > 1 && s.lanes >= 2 * fours(body) {
        Some("half of the lanes beyond the columns")
    } else if s.micro_m as i64 >= 2 * m {
        Some("a tile twice as large as the queries")
    } else if (s.lanes * s.micro_k) as i64 >= 2 * k.max(16) {
        Some("a step twice as large as the keys")
    } else if invocations > 32 && s.rows > 1 && (s.rows / 2) as u64 >= groups {
        Some("half of the workgroup beyond the queries")
    } else {
        None
    }
}

/// Products at peak speed, loads and exponentials at a multiple of it, and idle invocations.
pub fn estimate_ns(
    body: &AttentionBody,
    s: &AttentionSchedule,
    sizes: Sizes,
    caps: &Caps,
    peaks: &Peaks,
) -> f64 {
    let [batch, m, k, d] = [&body.batch, &body.m, &body.k, &body.d].map(|idx| size(idx, sizes).max(1) as f64);
    let padded = |extent: f64, tile: u32| (extent / tile as f64).ceil() * tile as f64;
    let queries = padded(m, s.micro_m * if s.lanes == 1 { 1 } else { s.rows });
    let n = (4 * columns(body, s) * s.lanes) as f64;
    let pairs = batch * queries * padded(k, s.lanes * s.micro_k);
    let load = if caps.cpu { 8.0 } else { 4.0 } / if s.staged { 4.0 } else { 1.0 };
    let dots = d * (1.0 + load * (1.0 / s.micro_k as f64 + 1.0 / s.micro_m as f64) / 4.0);
    let sums = n * (1.0 + load / s.micro_m as f64 / 4.0 + 1.0 / (s.micro_k * s.lanes) as f64);
    let exponential = 16.0;
    let barriers = match (s.lanes, caps.cpu) {
        (1, _) => 0.0,
        (_, false) => 16.0,
        (_, true) => 512.0,
    } / s.micro_k as f64;
    let invocations = batch * queries / s.micro_m as f64 * s.lanes as f64;
    let needed = if caps.cpu { 64.0 } else { 16_384.0 };
    let busy = (invocations / needed).min(1.0);
    peaks.launch_ns + 2.0 * pairs * (dots + sums + exponential + barriers) / (peaks.f32_flops_per_ns * busy)
}
