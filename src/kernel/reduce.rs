//! Knobs of `reduce.wgsl` and `reduce_serial.wgsl`.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, WORKGROUP_MEMORY, fits, powers_of_two};
use super::spec::{RowResult, Stage};
use crate::expr::Idx;

/// Knobs of `reduce.wgsl` (several lanes per row) and `reduce_serial.wgsl` (one).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReduceSchedule {
    /// Invocations that share a row; 1 means that each walks its row alone, without workgroup memory.
    pub lanes: u32,
    /// Rows per workgroup.
    pub rows: u32,
}

/// Most lanes and rows in the space.
const MOST: (u32, u32) = (1024, 256);

/// Rows this short are walked by one invocation: splitting them costs more in barriers than it saves.
const SHORT_ROW: i64 = 32;

pub fn points() -> Vec<Schedule> {
    let point =
        |lanes| powers_of_two(MOST.1).map(move |rows| Schedule::Reduce(ReduceSchedule { lanes, rows }));
    powers_of_two(MOST.0).flat_map(point).collect()
}

/// Positions of the longest pass over a row.
pub fn longest(stages: &[Stage], result: &RowResult, sizes: Sizes) -> i64 {
    let own = match result {
        RowResult::PerRow(_) => 0,
        RowResult::PerElement { extent, .. } => size(extent, sizes),
    };
    stages.iter().map(|s| size(&s.extent, sizes)).chain([own]).max().unwrap_or(1)
}

pub fn default(
    rows: &Idx,
    stages: &[Stage],
    result: &RowResult,
    sizes: Sizes,
    caps: &Caps,
) -> ReduceSchedule {
    // On a CPU adapter a row per lane keeps every SIMD lane busy without a barrier, once there are rows enough.
    let serial = longest(stages, result, sizes) <= SHORT_ROW || (caps.cpu && size(rows, sizes) >= 16);
    let shared = ReduceSchedule { lanes: 64, rows: 1 };
    if !serial && broken_rule(stages, &shared, caps).is_none() {
        return shared;
    }
    ReduceSchedule { lanes: 1, rows: 64.min(caps.max_workgroup_invocations).min(caps.max_workgroup_size[0]) }
}

pub fn broken_rule(stages: &[Stage], s: &ReduceSchedule, caps: &Caps) -> Option<&'static str> {
    let (x, y) = if s.lanes == 1 { (s.rows, 1) } else { (s.lanes, s.rows) };
    // A statistic takes a word, or two where it is 64 bits wide.
    let word = |stage: &Stage| if stage.value.dtype().bits() == 64 { 8 } else { 4 };
    let bytes: u32 = if s.lanes == 1 { 0 } else { stages.iter().map(|st| word(st) * s.lanes * s.rows).sum() };
    if !fits(caps, x, y) {
        Some(INVOCATIONS)
    } else if bytes > caps.max_workgroup_bytes {
        Some(WORKGROUP_MEMORY)
    } else if x * y < 32 {
        Some("workgroups of fewer than 32 invocations leave lanes idle")
    } else {
        None
    }
}

/// Bytes at the speed that so many invocations reach, and the steps of the tree in workgroup memory.
pub fn estimate_ns(
    rows: &Idx,
    longest: i64,
    s: &ReduceSchedule,
    sizes: Sizes,
    caps: &Caps,
    peaks: &Peaks,
) -> f64 {
    let rows = size(rows, sizes).max(1) as f64;
    let groups = (rows / s.rows as f64).ceil();
    let steps = (longest.max(1) as f64 / s.lanes as f64).ceil();
    let words = groups * (s.rows * s.lanes) as f64 * steps;
    let invocations = groups * (s.rows * s.lanes) as f64;
    let needed = if caps.cpu { 16.0 } else { 16_384.0 };
    let busy = (invocations / needed).min(1.0);
    let barrier_ns = if caps.cpu { 200.0 } else { 20.0 };
    let tree =
        groups * f64::from(s.lanes.ilog2()) * barrier_ns / if caps.cpu { 1.0 } else { groups.min(64.0) };
    // Lanes of one row read neighbours; rows side by side read a row's length apart.
    let strided = if s.lanes == 1 && !caps.cpu && longest > SHORT_ROW { 4.0 } else { 1.0 };
    peaks.launch_ns + words * 4.0 * strided / (peaks.copy_bytes_per_ns * busy) + tree
}
