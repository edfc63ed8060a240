//! Knobs of `map.wgsl`.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, fits, powers_of_two};
use crate::expr::Idx;

/// Knobs of `map.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MapSchedule {
    /// Invocations per workgroup.
    pub workgroup: u32,
    /// Elements per invocation, a workgroup's width apart.
    pub per_invocation: u32,
}

/// Largest workgroup and most elements per invocation in the space.
const MOST: (u32, u32) = (1024, 16);

pub fn points() -> Vec<Schedule> {
    let point = |workgroup| {
        powers_of_two(MOST.1)
            .map(move |per_invocation| Schedule::Map(MapSchedule { workgroup, per_invocation }))
    };
    powers_of_two(MOST.0).flat_map(point).collect()
}

pub fn default(caps: &Caps) -> MapSchedule {
    let workgroup = 64.min(caps.max_workgroup_invocations).min(caps.max_workgroup_size[0]);
    MapSchedule { workgroup, per_invocation: 1 }
}

pub fn broken_rule(s: &MapSchedule, caps: &Caps) -> Option<&'static str> {
    if !fits(caps, s.workgroup, 1) {
        Some(INVOCATIONS)
    } else if s.workgroup < 32 {
        Some("workgroups of fewer than 32 invocations leave lanes idle")
    } else {
        None
    }
}

/// Bytes at the copy's speed, and what the last workgroup wastes.
pub fn estimate_ns(len: &Idx, s: &MapSchedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    let len = size(len, sizes).max(1) as f64;
    let covered = (s.workgroup * s.per_invocation) as f64;
    let padded = (len / covered).ceil() * covered;
    // An invocation costs about as much as the few words that it moves.
    let invocations = padded / s.per_invocation as f64;
    let launched = if caps.cpu { 8.0 } else { 2.0 };
    peaks.launch_ns + (padded * 8.0 + invocations * launched) / peaks.copy_bytes_per_ns
}
