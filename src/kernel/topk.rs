//! Knobs of `topk.wgsl` and `merge.wgsl`.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, TURNS, WORKGROUP_MEMORY, fits, leaves_loops, powers_of_two};
use super::spec::TopKBody;

/// Knobs of `topk.wgsl`: a selection of at most `keep` elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TopKSchedule {
    /// Invocations that share a row.
    pub lanes: u32,
    /// Rows per workgroup.
    pub rows: u32,
    /// Elements of a row that are kept in order.
    pub keep: u32,
    /// Candidates that are gathered before they are sorted.
    pub queue: u32,
    /// Parts of a row, among whose selections a second pass selects; 1 where there is no second pass.
    pub parts: u32,
}

/// Knobs of `merge.wgsl`: two runs of a row, in order, become one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MergeSchedule {
    /// Invocations per workgroup.
    pub workgroup: u32,
    /// Neighbouring places that an invocation fills.
    pub each: u32,
}

/// Runs of `run.keep` elements put in order, and merged: a merge sort, by several passes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SortSchedule {
    /// How a run is put in order.
    pub run: TopKSchedule,
    /// How two are merged.
    pub merge: MergeSchedule,
}

impl std::fmt::Display for TopKSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TopKSchedule { lanes, rows, keep, queue, parts } = self;
        write!(f, "lanes={lanes} rows={rows} keep={keep} queue={queue} parts={parts}")
    }
}

impl std::fmt::Display for MergeSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "merge workgroup={} each={}", self.workgroup, self.each)
    }
}

impl std::fmt::Display for SortSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sort {} {}", self.run, self.merge)
    }
}

/// Lanes, rows and parts in the space.
const LANES: [u32; 4] = [8, 32, 64, 256];
const ROWS: [u32; 3] = [1, 4, 16];
const PARTS: [u32; 4] = [1, 4, 16, 64];
/// Queues, as multiples of the lanes.
const QUEUES: [u32; 3] = [2, 4, 16];
/// Longest run in the space.
const LONGEST_RUN: u32 = 2048;
/// Places that an invocation of a merge fills.
const EACH: [u32; 3] = [4, 8, 16];
/// Elements kept by default where it is not known how many are wanted: sizes must not change the text.
const USUAL: u32 = 256;
/// Parts of a row are not shorter than this ...
const SHORTEST_PART: i64 = 1 << 10;
/// ... nor rows cut where there are more of them, on a GPU and on a CPU adapter.
const MANY_ROWS: [i64; 2] = [1 << 8, 1 << 3];

impl TopKSchedule {
    /// Bytes of workgroup memory for keys of so many: entries, counts of queues, and the longest of these.
    fn workgroup_bytes(&self, key_bytes: u32) -> u32 {
        self.rows * ((self.keep + self.queue) * (key_bytes + 4) + 4) + 4
    }

    /// Turns of an invocation's loops at the most: where every element is a candidate.
    fn turns(&self, extent: i64) -> i64 {
        let [lanes, rows, keep, queue] = [self.lanes, self.rows, self.keep, self.queue].map(i64::from);
        let each = |len: i64| len / lanes + 2;
        let [sorts, merges] = [queue, keep].map(|len| i64::from(len.ilog2()));
        let merge = sorts * (sorts + 3) / 2 * each(queue / 2) + (merges + 1) * each(keep / 2) + each(queue);
        let steps = 2 * extent / queue + 1;
        steps * (each(queue / 2) + rows + 1) + (steps / 2 + 1) * merge
    }

    /// Whether the device leaves its loops before rows of `extent` elements are done.
    fn leaves_loops(&self, extent: i64, caps: &Caps) -> bool {
        leaves_loops(caps, self.turns(extent))
    }
}

fn key_bytes(body: &TopKBody) -> u32 {
    if body.key.dtype().bits() == 64 { 8 } else { 4 }
}

/// The power of two that holds the wanted elements.
fn keep(body: &TopKBody, sizes: Sizes) -> u32 {
    (size(&body.k, sizes).clamp(1, i64::from(LONGEST_RUN)) as u32).next_power_of_two()
}

pub fn points(body: &TopKBody, sizes: Sizes) -> Vec<Schedule> {
    if body.split.is_some() {
        return EACH.map(|each| Schedule::Merge(MergeSchedule { workgroup: 64, each })).into();
    }
    let mut points = Vec::new();
    for lanes in LANES {
        for queue in QUEUES.map(|times| times * lanes) {
            for rows in ROWS {
                for parts in PARTS {
                    let keep = keep(body, sizes);
                    points.push(Schedule::TopK(TopKSchedule { lanes, rows, keep, queue, parts }));
                }
            }
            for keep in powers_of_two(LONGEST_RUN).filter(|&keep| keep >= USUAL) {
                let run = TopKSchedule { lanes, rows: 1, keep, queue, parts: 1 };
                let merge = |each| MergeSchedule { workgroup: 64, each };
                let sort = |each| Schedule::Sort(SortSchedule { run: run.clone(), merge: merge(each) });
                points.extend(EACH.map(sort));
            }
        }
    }
    points
}

/// A selection where the device's workgroups hold what is wanted, with 64 lanes or half the row's elements, by several rows
/// in a workgroup where these are short, and in parts where they are long and few; else a sort.
pub fn default(body: &TopKBody, sizes: Sizes, caps: &Caps) -> Schedule {
    if body.split.is_some() {
        return Schedule::Merge(MergeSchedule { workgroup: 64, each: 8 });
    }
    let keep = if body.k.as_const().is_some() { keep(body, sizes) } else { USUAL };
    let half = body.extent.as_const().map_or(64, |extent| (extent / 2).clamp(4, 64) as u32);
    let lanes = half.next_power_of_two().min(64);
    let legal = |s: &TopKSchedule| broken_selection(body, s, sizes, caps).is_none();
    let of = |parts| TopKSchedule { lanes, rows: 64 / lanes, keep, queue: lanes * 8, parts };
    if let Some(found) = [16, 64, 4, 1].map(of).into_iter().find(legal) {
        return Schedule::TopK(found);
    }
    let run = |keep| TopKSchedule { lanes: 64, rows: 1, keep, queue: 512, parts: 1 };
    let fits = |run: &TopKSchedule| run.workgroup_bytes(key_bytes(body)) <= caps.max_workgroup_bytes;
    let run = [1024, 512].map(run).into_iter().find(fits).unwrap_or(run(USUAL));
    Schedule::Sort(SortSchedule { run, merge: MergeSchedule { workgroup: 64, each: 8 } })
}

pub fn broken_rule(body: &TopKBody, schedule: &Schedule, sizes: Sizes, caps: &Caps) -> Option<&'static str> {
    match schedule {
        Schedule::Merge(_) if body.split.is_none() => Some("a merge of a row that is in no order"),
        Schedule::Merge(_) => None,
        Schedule::Sort(s) => broken_limit(body, &s.run, caps),
        Schedule::TopK(s) => broken_selection(body, s, sizes, caps),
        _ => Some("of another kernel family"),
    }
}

fn broken_selection(body: &TopKBody, s: &TopKSchedule, sizes: Sizes, caps: &Caps) -> Option<&'static str> {
    let [rows, extent, k] = [&body.rows, &body.extent, &body.k].map(|idx| size(idx, sizes).max(1));
    let parts = i64::from(s.parts);
    if k > i64::from(s.keep) {
        Some("fewer elements kept than are wanted")
    } else if i64::from(s.lanes) >= 2 * extent.max(4) {
        Some("half of the lanes beyond the row's end")
    } else if s.rows > 1 && i64::from(s.rows) >= 2 * rows {
        Some("half of the workgroup beyond the last row")
    } else if s.parts > 1 && extent / i64::from(s.parts) < SHORTEST_PART.max(4 * k) {
        Some("parts of a row that are short, or hardly longer than what is wanted of them")
    } else if s.parts > 1 && rows > MANY_ROWS[usize::from(caps.cpu)] && !s.leaves_loops(extent, caps) {
        Some("rows in parts where the rows alone keep a device busy")
    } else if s.leaves_loops((extent / parts + 1).max(if parts > 1 { k * parts } else { 0 }), caps) {
        Some(TURNS)
    } else {
        broken_limit(body, s, caps)
    }
}

fn broken_limit(body: &TopKBody, s: &TopKSchedule, caps: &Caps) -> Option<&'static str> {
    if !fits(caps, s.lanes, s.rows) {
        Some(INVOCATIONS)
    } else if s.lanes * s.rows < 32 {
        Some("workgroups of fewer than 32 invocations leave lanes idle")
    } else if s.workgroup_bytes(key_bytes(body)) > caps.max_workgroup_bytes {
        Some(WORKGROUP_MEMORY)
    } else {
        None
    }
}

/// Elements at the copy's speed, a barrier per stage of the networks, and their comparisons.
pub fn estimate_ns(body: &TopKBody, schedule: &Schedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    let [rows, extent, k] = [&body.rows, &body.extent, &body.k].map(|idx| size(idx, sizes).max(1) as f64);
    // Workgroups that run beside each other.
    let beside = if caps.cpu { 2.0 } else { 64.0 };
    let barrier_ns = if caps.cpu { 200.0 } else { 20.0 };
    let selection = |s: &TopKSchedule, rows: f64, extent: f64, k: f64| {
        let [lanes, keep, queue] = [s.lanes, s.keep, s.queue].map(f64::from);
        // What comes before the k-th of those before it, in a row in random order.
        let candidates = (k * (1.0 + (extent / k).max(1.0).ln())).min(extent);
        let merges = 1.0 + (2.0 * candidates / queue).floor();
        let stages = merges * (queue.log2() * (queue.log2() + 1.0) / 2.0 + keep.log2() + 1.0);
        let steps = (2.0 * extent / queue).ceil();
        let reads = extent / lanes + stages * (queue / 2.0 / lanes).ceil();
        let each_ns = (3.0 * steps + stages) * barrier_ns + reads * if caps.cpu { 20.0 } else { 10.0 };
        let groups = (rows / f64::from(s.rows)).ceil();
        peaks.launch_ns + (groups / beside).ceil() * each_ns
    };
    let merge = |s: &MergeSchedule, len: f64, split: f64| {
        let each = f64::from(s.each);
        let reads = len / each * (2.0 * split.max(2.0).log2() + 2.0 * each);
        let busy = (len / each / if caps.cpu { 16.0 } else { 16_384.0 }).min(1.0);
        peaks.launch_ns + reads * 8.0 / (peaks.copy_bytes_per_ns * busy)
    };
    match schedule {
        Schedule::TopK(s) if s.parts > 1 => {
            let parts = f64::from(s.parts);
            selection(s, rows * parts, extent / parts, k) + selection(s, rows, parts * k, k)
        }
        Schedule::TopK(s) => selection(s, rows, extent, k),
        Schedule::Sort(s) => {
            let run = f64::from(s.run.keep);
            let runs = (extent / run).ceil();
            let merges = runs.log2().ceil();
            let wanted = k.min(extent);
            selection(&s.run, rows * runs, run, run) + merges * merge(&s.merge, rows * wanted, extent / 2.0)
        }
        Schedule::Merge(s) => merge(s, rows * k, extent / 2.0),
        _ => f64::INFINITY,
    }
}
