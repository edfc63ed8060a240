//! Knobs of `attention.wgsl` and `attention_serial.wgsl`, and of attention without fusion.

use serde::{Deserialize, Serialize};

use super::attention_passes::{Unfused, unfused};
use super::caps::Caps;
use super::contract::busy;
use super::peaks::Peaks;
use super::reduce::{self, ReduceSchedule};
use super::schedule::{Schedule, Sizes, size};
use super::space::{
    self, INVOCATIONS, TURNS, WORKGROUP_MEMORY, default_schedule, fits, leaves_loops, powers_of_two,
};
use super::spec::{AttentionBody, Body, KernelSpec};

/// How an attention kernel computes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AttentionSchedule {
    /// One pass over keys and values.
    Fused(FusedSchedule),
    /// Scores, their softmax, and its product with the values as three kernels.
    Unfused {
        /// For the scores.
        scores: Box<Schedule>,
        /// For the softmax.
        weights: ReduceSchedule,
        /// For the product with the values.
        mixed: Box<Schedule>,
    },
}

/// Knobs of `attention.wgsl` (several lanes per query) and `attention_serial.wgsl` (one).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FusedSchedule {
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
    /// Parts of the keys that are walked side by side and combined by a second pass; 1 takes no second pass.
    pub split_k: u32,
}

impl AttentionSchedule {
    /// As [`Schedule::algorithm`].
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            AttentionSchedule::Fused(s) if s.lanes == 1 => "fused, each invocation for itself",
            AttentionSchedule::Fused(_) => "fused, through workgroup memory",
            AttentionSchedule::Unfused { .. } => "unfused",
        }
    }

    /// Whether one kernel does it all.
    pub(crate) fn is_one_pass(&self) -> bool {
        matches!(self, AttentionSchedule::Fused(s) if s.split_k == 1)
    }
}

impl std::fmt::Display for AttentionSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AttentionSchedule::Fused(s) => write!(
                f,
                "lanes={} rows={} micro_m={} micro_k={} staged={} split_k={}",
                s.lanes, s.rows, s.micro_m, s.micro_k, s.staged as u32, s.split_k
            ),
            AttentionSchedule::Unfused { scores, weights, mixed } => {
                let parts = [
                    ("scores", (**scores).clone()),
                    ("weights", Schedule::Reduce(weights.clone())),
                    ("mixed", (**mixed).clone()),
                ];
                let knobs = parts.iter().flat_map(|(part, schedule)| {
                    let knobs: Vec<String> = schedule.to_string().split(' ').map(str::to_string).collect();
                    knobs.into_iter().map(move |knob| format!("{part}.{knob}"))
                });
                f.write_str(&knobs.collect::<Vec<_>>().join(" "))
            }
        }
    }
}

/// Most lanes, rows, queries, keys and parts in the space.
const MOST: (u32, u32, u32, u32, u32) = (32, 128, 8, 8, 32);
/// Invocations that a CPU adapter runs together: a workgroup is one core's, and may be no larger.
const SIMD: u32 = 8;
/// Schedules of each contraction that are tried without fusion.
const UNFUSED_EACH: usize = 4;

pub fn points(
    spec: &KernelSpec,
    body: &AttentionBody,
    sizes: Sizes,
    caps: &Caps,
    peaks: &Peaks,
) -> Vec<Schedule> {
    let mut points = Vec::new();
    for lanes in powers_of_two(MOST.0) {
        for rows in powers_of_two(MOST.1) {
            for micro_m in powers_of_two(MOST.2) {
                for micro_k in powers_of_two(MOST.3) {
                    for split_k in powers_of_two(MOST.4) {
                        for staged in [false, true].into_iter().take(1 + (lanes > 1) as usize) {
                            let point = FusedSchedule { lanes, rows, micro_m, micro_k, staged, split_k };
                            points.push(AttentionSchedule::Fused(point));
                        }
                    }
                }
            }
        }
    }
    points.extend(unfused_points(spec, body, sizes, caps, peaks));
    points.into_iter().map(Schedule::Attention).collect()
}

/// The first few schedules of either contraction with each other.
fn unfused_points(
    spec: &KernelSpec,
    body: &AttentionBody,
    sizes: Sizes,
    caps: &Caps,
    peaks: &Peaks,
) -> Vec<AttentionSchedule> {
    let Some(parts) = unfused(spec, body) else { return Vec::new() };
    let tiles = |spec: &KernelSpec| -> Vec<Box<Schedule>> {
        let kept = space::space(spec, sizes, caps, peaks).kept.into_iter().filter_map(contract);
        kept.take(UNFUSED_EACH).collect()
    };
    let Some(weights) = softmax_default(&parts, sizes, caps) else { return Vec::new() };
    let mixes = tiles(&parts.mixed.0);
    let with = |scores: Box<Schedule>| {
        let (weights, mixes) = (weights.clone(), mixes.clone());
        mixes.into_iter().map(move |mixed| AttentionSchedule::Unfused {
            scores: scores.clone(),
            weights: weights.clone(),
            mixed,
        })
    };
    tiles(&parts.scores.0).into_iter().flat_map(with).collect()
}

/// The schedule, where it is one of a contraction in one pass.
fn contract(schedule: Schedule) -> Option<Box<Schedule>> {
    (schedule.tile().is_some() && schedule.split_k() == 1).then(|| Box::new(schedule))
}

/// On lavapipe one kernel takes less time than three for single queries (decoding), and for heads of 32 with few keys; for
/// heads of 64 only with tiles that take its compiler several times as long. Each invocation is for itself there. On GPUs a
/// workgroup of 128 with four queries and four keys per invocation is what register tiles bear; where workgroup memory
/// does not suffice, fewer keys, then fewer queries.
pub fn default(spec: &KernelSpec, body: &AttentionBody, sizes: Sizes, caps: &Caps) -> AttentionSchedule {
    let legal = |s: &AttentionSchedule| broken_rule(spec, body, s, sizes, caps).is_none();
    if caps.cpu
        && size(&body.m, sizes) > 1
        && (fours(body) > 8 || size(&body.k, sizes) > 16)
        && let Some(schedule) = unfused_default(spec, body, sizes, caps).filter(legal)
    {
        return schedule;
    }
    let m = size(&body.m, sizes).max(1) as u64;
    let few = |most: u32| m.next_power_of_two().min(most as u64) as u32;
    let lanes = fours(body).next_power_of_two().min(16);
    let parts = parts(body, sizes);
    let shared = [(4, 4), (4, 2), (2, 2), (2, 1), (1, 1)].map(|(most, micro_k)| {
        let micro_m = few(most);
        let groups = m.div_ceil(micro_m as u64).next_power_of_two().min(128) as u32;
        let rows = groups.min(128 / lanes).max(32 / lanes).max(1);
        FusedSchedule { lanes, rows, micro_m, micro_k, staged: true, split_k: parts }
    });
    let serial = |most| {
        let micro_m = few(most);
        let alone = FusedSchedule { lanes: 1, rows: 32, micro_m, micro_k: 2, staged: false, split_k: 1 };
        if caps.cpu { over_cores(alone, body, sizes) } else { alone }
    };
    let alone = [4, 2, 1].map(serial);
    let fused = shared.into_iter().filter(|_| !caps.cpu).chain(alone).map(AttentionSchedule::Fused);
    // Without fusion anything works.
    fused
        .into_iter()
        .find(legal)
        .or_else(|| unfused_default(spec, body, sizes, caps))
        .unwrap_or(AttentionSchedule::Fused(serial(1)))
}

fn unfused_default(
    spec: &KernelSpec,
    body: &AttentionBody,
    sizes: Sizes,
    caps: &Caps,
) -> Option<AttentionSchedule> {
    let parts = unfused(spec, body)?;
    let of = |spec: &KernelSpec| default_schedule(spec, sizes, caps);
    let weights = softmax_default(&parts, sizes, caps)?;
    let (scores, mixed) = (contract(of(&parts.scores.0))?, contract(of(&parts.mixed.0))?);
    Some(AttentionSchedule::Unfused { scores, weights, mixed })
}

/// One pass for the softmax between the two contractions.
fn softmax_default(parts: &Unfused, sizes: Sizes, caps: &Caps) -> Option<ReduceSchedule> {
    let Body::Reduce { rows, stages, result } = &parts.weights.0.body else { return None };
    Some(reduce::default(rows, stages, result, sizes, caps))
}

/// Workgroups that keep a CPU's cores busy.
const CORES: i64 = 8;

/// The same with fewer invocations per workgroup, then with the keys in parts, where there is less than a workgroup for
/// each core.
fn over_cores(s: FusedSchedule, body: &AttentionBody, sizes: Sizes) -> FusedSchedule {
    let [batch, m, k] = [&body.batch, &body.m, &body.k].map(|idx| size(idx, sizes).max(1));
    let queries = batch * (m as u64).div_ceil(s.micro_m.into()) as i64;
    let rows = (queries / CORES).clamp(SIMD.into(), s.rows.into()) as u32;
    let rows = 1 << rows.ilog2();
    let wanted = (CORES * i64::from(rows) / queries).min(k / SHORTEST_PART).clamp(1, MOST.4.into());
    FusedSchedule { rows, split_k: 1 << wanted.ilog2(), ..s }
}

/// Keys are not split into parts shorter than this ...
const SHORTEST_PART: i64 = 64;
/// ... nor where there are more queries than this over all heads.
const MANY_QUERIES: i64 = 1 << 12;

/// Parts of the keys that bring a GPU about this many workgroups.
fn parts(body: &AttentionBody, sizes: Sizes) -> u32 {
    let [batch, m, k] = [&body.batch, &body.m, &body.k].map(|idx| size(idx, sizes).max(1));
    let groups = batch * ((m + 31) / 32);
    let wanted = (256 / groups.max(1)).min(k / SHORTEST_PART).clamp(1, MOST.4 as i64) as u32;
    1 << wanted.ilog2()
}

/// Columns in fours.
fn fours(body: &AttentionBody) -> u32 {
    body.n.as_const().map_or(1, |n| (n as u32).div_ceil(4)).max(1)
}

/// Fours of columns per lane.
pub fn columns(body: &AttentionBody, s: &FusedSchedule) -> u32 {
    fours(body).div_ceil(s.lanes)
}

/// Fours of a row of keys or values in workgroup memory: one more than a row has, so that rows start in different banks.
pub fn stride(body: &AttentionBody) -> Option<u32> {
    let depth = u32::try_from(body.d.as_const()?).ok()?.div_ceil(4);
    Some(depth.max(fours(body)) + 1)
}

/// Words of registers for sums, scores and operands.
fn registers(body: &AttentionBody, s: &FusedSchedule) -> u32 {
    s.micro_m * (4 * columns(body, s) + s.micro_k + 6) + 4 * s.micro_k
}

fn workgroup_bytes(body: &AttentionBody, s: &FusedSchedule) -> u32 {
    let (keys, queries) = (s.lanes * s.micro_k, s.rows * s.micro_m);
    let tile = if s.staged { 16 * keys * stride(body).unwrap_or(0) } else { 0 };
    if s.lanes == 1 { 0 } else { 4 * queries * (keys + 1) + 4 * queries * s.lanes + tile }
}

pub fn broken_rule(
    spec: &KernelSpec,
    body: &AttentionBody,
    s: &AttentionSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    match s {
        AttentionSchedule::Fused(s) => fused_rule(body, s, sizes, caps),
        AttentionSchedule::Unfused { scores, weights, mixed } => {
            let Some(parts) = unfused(spec, body) else { return Some("parts of keys without fusion") };
            let [batch, m, k] = [&body.batch, &body.m, &body.k].map(|idx| size(idx, sizes).max(1));
            if batch.saturating_mul(m).saturating_mul(k) as u64 > caps.max_storage_binding_bytes / 4 {
                return Some("scores beyond what the device binds");
            }
            if scores.split_k() != 1 || mixed.split_k() != 1 {
                return Some("sums split within attention without fusion");
            }
            let rule = |spec: &KernelSpec, schedule| space::broken_rule(spec, &schedule, sizes, caps);
            rule(&parts.scores.0, (**scores).clone())
                .or_else(|| rule(&parts.weights.0, Schedule::Reduce(weights.clone())))
                .or_else(|| rule(&parts.mixed.0, (**mixed).clone()))
        }
    }
}

fn fused_rule(body: &AttentionBody, s: &FusedSchedule, sizes: Sizes, caps: &Caps) -> Option<&'static str> {
    let [batch, m, n, k] = [&body.batch, &body.m, &body.n, &body.k].map(|idx| size(idx, sizes).max(1));
    let invocations = s.lanes * s.rows;
    let fewest = if caps.cpu { SIMD } else { 32 };
    let steps = k / i64::from(s.split_k * s.lanes * s.micro_k) + 1;
    let turns = steps * (size(&body.d, sizes) / 4 + 2 + i64::from((s.lanes - 1) * s.micro_k));
    // Alone, invocations of one workgroup may belong to several heads.
    let groups = (m as u64).div_ceil(s.micro_m as u64) * if s.lanes == 1 { batch as u64 } else { 1 };
    if !fits(caps, s.lanes, s.rows) {
        Some(INVOCATIONS)
    } else if !(fewest..=256).contains(&invocations) {
        Some("workgroups of fewer invocations than the device runs together, or of more than 256")
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
    } else if s.micro_k > 1 && (s.lanes * s.micro_k) as i64 >= 2 * k {
        Some("a step twice as large as the keys")
    } else if leaves_loops(caps, turns) {
        Some(TURNS)
    } else if invocations > 32 && s.rows > 1 && (s.rows / 2) as u64 >= groups {
        Some("half of the workgroup beyond the queries")
    } else if s.split_k > 1 && k / (s.split_k as i64) < SHORTEST_PART {
        Some("parts of fewer than 64 keys")
    } else if s.split_k > 1 && batch * m > MANY_QUERIES {
        Some("keys split where the queries alone keep a device busy")
    } else if s.split_k > 1
        && (batch * m * (n + 2) * s.split_k as i64) as u64 > caps.max_storage_binding_bytes / 4
    {
        Some("partial sums beyond what the device binds")
    } else {
        None
    }
}

pub fn estimate_ns(
    spec: &KernelSpec,
    body: &AttentionBody,
    s: &AttentionSchedule,
    sizes: Sizes,
    caps: &Caps,
    peaks: &Peaks,
) -> f64 {
    match s {
        AttentionSchedule::Fused(s) => fused_ns(body, s, sizes, caps, peaks),
        AttentionSchedule::Unfused { scores, weights, mixed } => {
            let Some(parts) = unfused(spec, body) else { return f64::INFINITY };
            let time = |spec: &KernelSpec, s| space::estimate_ns(spec, &s, sizes, caps, peaks);
            time(&parts.scores.0, (**scores).clone())
                + time(&parts.weights.0, Schedule::Reduce(weights.clone()))
                + time(&parts.mixed.0, (**mixed).clone())
        }
    }
}

/// Products at peak speed, loads and exponentials at a multiple of it, and idle invocations.
fn fused_ns(body: &AttentionBody, s: &FusedSchedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    let [batch, m, d] = [&body.batch, &body.m, &body.d].map(|idx| size(idx, sizes).max(1) as f64);
    let k = body.mean_keys(sizes);
    let padded = |extent: f64, tile: u32| (extent / tile as f64).ceil() * tile as f64;
    let queries = padded(m, s.micro_m * if s.lanes == 1 { 1 } else { s.rows });
    let n = (4 * columns(body, s) * s.lanes) as f64;
    let pairs = batch * queries * padded(k / s.split_k as f64, s.lanes * s.micro_k) * s.split_k as f64;
    let load = if caps.cpu { 8.0 } else { 4.0 } / if s.staged { 4.0 } else { 1.0 };
    let dots = d * (1.0 + load * (1.0 / s.micro_k as f64 + 1.0 / s.micro_m as f64) / 4.0);
    let sums = n * (1.0 + load / s.micro_m as f64 / 4.0 + 1.0 / (s.micro_k * s.lanes) as f64);
    let exponential = 16.0;
    let barriers = match (s.lanes, caps.cpu) {
        (1, _) => 0.0,
        (_, false) => 16.0,
        (_, true) => 512.0,
    } / s.micro_k as f64;
    let invocations = batch * queries / s.micro_m as f64 * (s.lanes * s.split_k) as f64;
    let busy = busy((invocations / f64::from(s.lanes * s.rows)).ceil(), invocations, caps);
    let second_pass = match s.split_k {
        1 => 0.0,
        parts => peaks.launch_ns + 8.0 * batch * m * n * parts as f64 / peaks.copy_bytes_per_ns,
    };
    let time = 2.0 * pairs * (dots + sums + exponential + barriers) / (peaks.f32_flops_per_ns * busy);
    peaks.launch_ns + second_pass + time
}
