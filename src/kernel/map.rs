//! Knobs of `map.wgsl`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::fours::{in_fours, take};
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, fits, powers_of_two};
use super::spec::{KernelSpec, storage_bytes};
use crate::expr::{Expr, Idx, Node};

/// Knobs of `map.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MapSchedule {
    /// Invocations per workgroup.
    pub workgroup: u32,
    /// Elements, or fours, per invocation, a workgroup's width apart.
    pub per_invocation: u32,
    /// Neighbouring elements that are computed and stored together: 1, as in records from before there were others, or 4.
    #[serde(default = "single")]
    pub vector: u32,
}

fn single() -> u32 {
    1
}

/// Largest workgroup and most elements per invocation in the space.
const MOST: (u32, u32) = (1024, 16);

pub fn points() -> Vec<Schedule> {
    let mut points = Vec::new();
    for vector in [1, 4] {
        for workgroup in powers_of_two(MOST.0) {
            for per_invocation in powers_of_two(MOST.1) {
                points.push(Schedule::Map(MapSchedule { workgroup, per_invocation, vector }));
            }
        }
    }
    points
}

pub fn default(spec: &KernelSpec, len: &Idx, value: &Expr, caps: &Caps) -> MapSchedule {
    let workgroup = 64.min(caps.max_workgroup_invocations).min(caps.max_workgroup_size[0]);
    let fours = MapSchedule { workgroup, per_invocation: 1, vector: 4 };
    if broken_rule(spec, len, value, &fours, caps).is_none() {
        return fours;
    }
    // A CPU does better with few large workgroups where it goes by single elements: `bench --op transpose`.
    let single = MapSchedule { workgroup: 256, per_invocation: 4, vector: 1 };
    if caps.cpu && broken_rule(spec, len, value, &single, caps).is_none() {
        return single;
    }
    MapSchedule { vector: 1, ..fours }
}

/// The schedule of an update.
pub fn single_elements(caps: &Caps) -> MapSchedule {
    let workgroup = 64.min(caps.max_workgroup_invocations).min(caps.max_workgroup_size[0]);
    MapSchedule { workgroup, per_invocation: 1, vector: 1 }
}

/// Storage bindings of a kernel that reads by fours what it can: an input read in both ways is bound twice.
fn bindings(value: &Expr, caps: &Caps) -> u32 {
    let (rest, fours) = take(value, 0, 0, |dtype| storage_bytes(dtype, caps.floats()) <= 4);
    let mut singles = BTreeSet::new();
    rest.visit(&mut |e| {
        if let Node::Load { source, .. } = e.node() {
            singles.insert(*source);
        }
    });
    let fours: BTreeSet<usize> = fours.iter().map(|four| four.input).collect();
    (singles.len() + fours.len() + 1) as u32
}

pub fn broken_rule(
    spec: &KernelSpec,
    len: &Idx,
    value: &Expr,
    s: &MapSchedule,
    caps: &Caps,
) -> Option<&'static str> {
    if !fits(caps, s.workgroup, 1) {
        Some(INVOCATIONS)
    } else if s.workgroup < 32 {
        Some("workgroups of fewer than 32 invocations leave lanes idle")
    } else if s.vector == 4 && (!in_fours(len) || storage_bytes(spec.output, caps.floats()) > 4) {
        Some("an output that is not whole fours of words")
    } else if s.vector == 4
        && take(value, 0, 0, |dtype| storage_bytes(dtype, caps.floats()) <= 4).1.is_empty()
    {
        Some("nothing to read by fours")
    } else if s.vector == 4 && bindings(value, caps) > caps.max_storage_bindings {
        Some("more bindings than the device allows")
    } else {
        None
    }
}

/// Bytes at the copy's speed, and what the last workgroup wastes.
pub fn estimate_ns(len: &Idx, s: &MapSchedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    let len = size(len, sizes).max(1) as f64;
    let covered = (s.workgroup * s.per_invocation * s.vector) as f64;
    let padded = (len / covered).ceil() * covered;
    // An invocation costs about as much as the few words that it moves.
    let invocations = padded / (s.per_invocation * s.vector) as f64;
    let launched = if caps.cpu { 8.0 } else { 2.0 };
    peaks.launch_ns + (padded * 8.0 + invocations * launched) / peaks.copy_bytes_per_ns
}
