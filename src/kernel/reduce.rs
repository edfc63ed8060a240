//! Knobs of `reduce.wgsl`, `reduce_subgroup.wgsl` and `reduce_serial.wgsl`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::gemv::whole_subgroups;
use super::peaks::Peaks;
use super::row_parts;
use super::rows::{RowReads, positions, whole_fours};
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, TURNS, WORKGROUP_MEMORY, fits, leaves_loops, powers_of_two};
use super::spec::{RowResult, Stage, storage_bytes};
use crate::expr::{Expr, Idx, Node};
use crate::tensor::DType;

/// Knobs of `reduce.wgsl` and `reduce_subgroup.wgsl` (several lanes per row) and `reduce_serial.wgsl` (one).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReduceSchedule {
    /// Invocations that share a row; 1 means that each walks its row alone, without workgroup memory.
    pub lanes: u32,
    /// Rows per workgroup.
    pub rows: u32,
    /// Neighbouring positions that an invocation takes at once: 1, as in records from before there were others, or 4.
    #[serde(default = "one")]
    pub vector: u32,
    /// Positions, or fours, of a lane that are read once and kept in registers.
    #[serde(default)]
    pub kept: u32,
    /// Whether lanes combine within subgroups first.
    #[serde(default)]
    pub subgroups: bool,
    /// Parts of a row, whose statistics a second pass combines; 1 where there is no second pass.
    #[serde(default = "one")]
    pub parts: u32,
}

fn one() -> u32 {
    1
}

impl ReduceSchedule {
    /// One pass by single positions, nothing kept.
    pub const fn plain(lanes: u32, rows: u32) -> ReduceSchedule {
        ReduceSchedule { lanes, rows, vector: 1, kept: 0, subgroups: false, parts: 1 }
    }

    /// Which of the family's algorithms it is.
    pub(super) fn algorithm(&self) -> &'static str {
        match (self.parts > 1, self.kept > 0, self.lanes, self.subgroups) {
            (true, ..) => "reduce in parts",
            (false, true, 1, _) => "reduce_serial in registers",
            (false, true, _, true) => "reduce_subgroup in registers",
            (false, true, _, false) => "reduce in registers",
            (false, false, 1, _) => "reduce_serial",
            (false, false, _, true) => "reduce_subgroup",
            (false, false, _, false) => "reduce",
        }
    }
}

impl std::fmt::Display for ReduceSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ReduceSchedule { lanes, rows, vector, kept, subgroups, parts } = self;
        let subgroups = u32::from(*subgroups);
        write!(f, "lanes={lanes} rows={rows} vector={vector} kept={kept} subgroups={subgroups} parts={parts}")
    }
}

/// Most lanes and rows in the space.
const MOST: (u32, u32) = (1024, 256);
/// Parts of a row in the space.
const PARTS: [u32; 4] = [1, 16, 128, 1024];
/// Most elements that an invocation keeps: of a row that it shares, and of one of its own.
const MOST_KEPT: [u32; 2] = [16, 64];

/// Rows this short are walked by one invocation: splitting them costs more in barriers than it saves.
const SHORT_ROW: i64 = 32;

pub fn points() -> Vec<Schedule> {
    let mut points = Vec::new();
    for lanes in powers_of_two(MOST.0) {
        for rows in powers_of_two(MOST.1) {
            for vector in [1, 4] {
                for subgroups in [false, true].into_iter().take(1 + (lanes > 1) as usize) {
                    let most = MOST_KEPT[usize::from(lanes == 1)] / vector;
                    for kept in [0].into_iter().chain(powers_of_two(most.min(16))) {
                        let point = ReduceSchedule { lanes, rows, vector, kept, subgroups, parts: 1 };
                        points.push(Schedule::Reduce(point));
                    }
                    for parts in PARTS.into_iter().skip(1) {
                        let point = ReduceSchedule { lanes, rows, vector, kept: 0, subgroups, parts };
                        points.push(Schedule::Reduce(point));
                    }
                }
            }
        }
    }
    points
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
    let longest = longest(stages, result, sizes);
    let serial = longest <= SHORT_ROW || (caps.cpu && size(rows, sizes) >= 16);
    let [shared, wide] = [64, 256].map(|lanes| ReduceSchedule::plain(lanes, 1));
    let alone =
        ReduceSchedule::plain(1, 64.min(caps.max_workgroup_invocations).min(caps.max_workgroup_size[0]));
    let legal = |s: &ReduceSchedule| broken_rule(rows, stages, result, s, sizes, caps).is_none();
    let order = if serial { [alone.clone(), shared, wide] } else { [shared, wide, alone.clone()] };
    let base = order.into_iter().find(legal).unwrap_or(alone);
    let parts = [128, 16].map(|parts| ReduceSchedule { parts, ..base.clone() });
    let base = parts.into_iter().find(legal).unwrap_or(base);
    let fours = ReduceSchedule { vector: 4, ..base.clone() };
    let base = if legal(&fours) { fours } else { base };
    let kept = longest.max(1) as u64;
    let kept = kept.div_ceil(u64::from(base.lanes * base.vector)).next_power_of_two().min(1 << 16) as u32;
    let registers = ReduceSchedule { kept, ..base.clone() };
    // A size that is known only when it runs must not change the text.
    let known = positions(stages, result).is_some_and(|extent| extent.as_const().is_some());
    if known && base.parts == 1 && legal(&registers) { registers } else { base }
}

pub fn broken_rule(
    rows: &Idx,
    stages: &[Stage],
    result: &RowResult,
    s: &ReduceSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    let (x, y) = if s.lanes == 1 { (s.rows, 1) } else { (s.lanes, s.rows) };
    // A statistic takes a word, or two where it is 64 bits wide.
    let word = |stage: &Stage| if stage.value.dtype().bits() == 64 { 8 } else { 4 };
    let bytes: u32 = if s.lanes == 1 { 0 } else { stages.iter().map(|st| word(st) * s.lanes * s.rows).sum() };
    let longest = longest(stages, result, sizes).max(1);
    let kept = i64::from(s.kept * s.lanes * s.vector);
    if !fits(caps, x, y) || (s.subgroups && !fits(caps, x * y, 1)) {
        Some(INVOCATIONS)
    } else if bytes > caps.max_workgroup_bytes {
        Some(WORKGROUP_MEMORY)
    } else if x * y < 32 {
        Some("workgroups of fewer than 32 invocations leave lanes idle")
    } else if s.subgroups && !caps.subgroups {
        Some("no subgroup operations")
    } else if s.subgroups && !whole_subgroups(s.lanes, caps) {
        Some("a row shared by less than whole subgroups")
    } else if s.subgroups && !stages.iter().all(|stage| subgroups_combine(stage.value.dtype())) {
        Some("statistics of a type that subgroups do not combine")
    } else if s.lanes > 1 && i64::from(s.lanes / 2) >= longest {
        Some("half of the lanes beyond the row's end")
    } else if leaves_loops(caps, turns(stages, result, s, sizes)) {
        Some(TURNS)
    } else if s.kept * s.vector > MOST_KEPT[usize::from(s.lanes == 1)] {
        Some("more registers than an invocation has, by estimate")
    } else if s.kept > 0 && (kept < longest || kept >= 2 * longest) {
        Some("registers for less than a row, or for twice as much")
    } else if s.kept > 0 && positions(stages, result).is_none() {
        Some("passes of different lengths over a row")
    } else if let Some(rule) = row_parts::broken_rule(rows, stages, result, s, sizes, caps) {
        Some(rule)
    } else if s.vector == 4 && !whole_fours(stages, result) {
        Some("rows that are not whole fours")
    } else if s.vector == 4 || s.kept > 0 {
        reads_rule(stages, result, s, caps)
    } else {
        None
    }
}

/// Turns of an invocation's loops over all passes.
fn turns(stages: &[Stage], result: &RowResult, s: &ReduceSchedule, sizes: Sizes) -> i64 {
    let own = match result {
        RowResult::PerRow(_) => None,
        RowResult::PerElement { extent, .. } => Some(extent),
    };
    let step = i64::from(s.lanes * s.vector * s.parts);
    let turns = |extent: &Idx| size(extent, sizes) / step + 1;
    if s.kept > 0 { 0 } else { stages.iter().map(|stage| &stage.extent).chain(own).map(turns).sum() }
}

/// What subgroup operations take.
fn subgroups_combine(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::I32 | DType::U32)
}

/// Rules about what is read.
fn reads_rule(stages: &[Stage], result: &RowResult, s: &ReduceSchedule, caps: &Caps) -> Option<&'static str> {
    let reads = RowReads::of(stages, result, s.vector, |dtype| storage_bytes(dtype, caps.floats()) <= 4);
    if s.vector == 4 && reads.reads.is_empty() {
        Some("nothing to read by fours")
    } else if s.kept > 0 && reads.shared().is_empty() {
        Some("nothing that is read in two passes over a row")
    } else if s.vector == 4 && bindings(&reads) > caps.max_storage_bindings as usize {
        Some("more bindings than the device allows")
    } else {
        None
    }
}

/// Storage bindings of a kernel that reads by fours what it can: an input read in both ways is bound twice.
fn bindings(reads: &RowReads) -> usize {
    let mut singles = BTreeSet::new();
    for value in &reads.values {
        value.visit(&mut |e: &Expr| {
            if let Node::Load { source, .. } = e.node() {
                singles.insert(*source);
            }
        });
    }
    let fours: BTreeSet<usize> = reads.reads.iter().map(|read| read.input).collect();
    singles.len() + fours.len() + 1
}

/// Bytes at the speed that so many invocations reach, and the steps of the tree in workgroup memory.
pub fn estimate_ns(
    rows: &Idx,
    stages: &[Stage],
    result: &RowResult,
    s: &ReduceSchedule,
    sizes: Sizes,
    caps: &Caps,
    peaks: &Peaks,
) -> f64 {
    let longest = (longest(stages, result, sizes).max(1) as f64 / f64::from(s.parts)).ceil();
    let rows = size(rows, sizes).max(1) as f64 * f64::from(s.parts);
    let groups = (rows / f64::from(s.rows)).ceil();
    let invocations = groups * f64::from(s.rows * s.lanes);
    let steps = (longest / f64::from(s.lanes * s.vector)).ceil();
    // Kept, a row is read once and not once per pass; a read of four costs less than four.
    let passes = stages.len() as f64 + f64::from(matches!(result, RowResult::PerElement { .. }) as u32);
    let reads = if s.kept > 0 { 1.0 + 0.2 * (passes - 1.0) } else { passes };
    let each = if s.vector == 4 { 4.0 * if caps.cpu { 0.5 } else { 0.8 } } else { 1.0 };
    let words = invocations * steps * each * reads;
    let needed = if caps.cpu { 16.0 } else { 16_384.0 };
    let busy = (invocations / needed).min(1.0);
    let barrier_ns = if caps.cpu { 200.0 } else { 20.0 };
    let barriers = match (s.lanes, s.subgroups) {
        (1, _) => 0.0,
        (_, true) => 1.0,
        (lanes, false) => f64::from(lanes.ilog2()),
    };
    let tree =
        groups * barriers * stages.len() as f64 * barrier_ns / if caps.cpu { 1.0 } else { groups.min(64.0) };
    // Lanes of one row read neighbours; rows side by side read a row's length apart.
    let strided = if s.lanes == 1 && !caps.cpu && longest > SHORT_ROW as f64 { 4.0 } else { 1.0 };
    let second = if s.parts > 1 { peaks.launch_ns + rows * 8.0 / peaks.copy_bytes_per_ns } else { 0.0 };
    peaks.launch_ns + words * 4.0 * strided / (peaks.copy_bytes_per_ns * busy) + tree + second
}
