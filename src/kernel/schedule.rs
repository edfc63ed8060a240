//! How a kernel computes: the knobs of its skeleton, the legal candidates, and the dispatch grid.
//!
//! Every list of candidates starts with a sound default, so that an untuned run works.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::spec::{Body, ContractBody, KernelSpec, RowResult};
use crate::error::{Error, Result};
use crate::expr::{Idx, Node};

/// Values of a kernel's parameters, in order.
pub type Sizes<'a> = &'a [i64];

/// The knobs of a skeleton.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Schedule {
    /// For [`Body::Map`].
    Map(MapSchedule),
    /// For [`Body::Reduce`].
    Reduce(ReduceSchedule),
    /// For [`Body::Contract`].
    Contract(ContractSchedule),
}

/// Knobs of `map.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MapSchedule {
    /// Invocations per workgroup.
    pub workgroup: u32,
    /// Elements per invocation, a workgroup's width apart.
    pub per_invocation: u32,
}

/// Knobs of `reduce.wgsl` (several lanes per row) and `reduce_serial.wgsl` (one).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReduceSchedule {
    /// Invocations that share a row; 1 means that each walks its row alone, without workgroup memory.
    pub lanes: u32,
    /// Rows per workgroup.
    pub rows: u32,
}

/// Knobs of `gemm.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContractSchedule {
    /// Invocations per workgroup along M.
    pub group_m: u32,
    /// Invocations per workgroup along N.
    pub group_n: u32,
    /// Rows per invocation.
    pub micro_m: u32,
    /// Columns per invocation, in fours.
    pub micro_n4: u32,
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Schedule::Map(s) => write!(f, "workgroup={} per_invocation={}", s.workgroup, s.per_invocation),
            Schedule::Reduce(s) => write!(f, "lanes={} rows={}", s.lanes, s.rows),
            Schedule::Contract(s) => write!(
                f,
                "group_m={} group_n={} micro_m={} micro_n={}",
                s.group_m,
                s.group_n,
                s.micro_m,
                s.micro_n4 * 4
            ),
        }
    }
}

/// The value of a size under the parameters; parameters are the symbols `p0`, `p1`, ...
pub fn size(idx: &Idx, sizes: Sizes) -> i64 {
    idx.eval::<()>(&mut |atom| match atom {
        crate::expr::Atom::Sym(name) => name
            .strip_prefix('p')
            .and_then(|n| n.parse::<usize>().ok())
            .and_then(|n| sizes.get(n))
            .copied()
            .ok_or(()),
        _ => Err(()),
    })
    .unwrap_or(0)
}

/// The legal schedules of a kernel at these sizes, the default first, never empty. Legal means: workgroups
/// within the device's limits of invocations, extents and workgroup memory.
pub fn candidates(spec: &KernelSpec, sizes: Sizes, caps: &Caps) -> Vec<Schedule> {
    match &spec.body {
        Body::Map { .. } => map_candidates(caps),
        Body::Reduce { rows, stages, result } => {
            let own = match result {
                RowResult::PerRow(_) => 0,
                RowResult::PerElement { extent, .. } => size(extent, sizes),
            };
            let length = stages.iter().map(|s| size(&s.extent, sizes)).chain([own]).max().unwrap_or(1);
            reduce_candidates(size(rows, sizes), length, stages.len(), caps)
        }
        Body::Contract(body) => contract_candidates(body, sizes, caps),
    }
}

fn fits(caps: &Caps, x: u32, y: u32) -> bool {
    x <= caps.max_workgroup_size[0]
        && y <= caps.max_workgroup_size[1]
        && x * y <= caps.max_workgroup_invocations
}

fn map_candidates(caps: &Caps) -> Vec<Schedule> {
    let all = [(64, 1), (64, 4), (128, 1), (128, 4), (256, 1), (256, 4), (32, 1), (1, 1)];
    let legal = all.into_iter().filter(|&(workgroup, _)| fits(caps, workgroup, 1));
    legal
        .map(|(workgroup, per_invocation)| Schedule::Map(MapSchedule { workgroup, per_invocation }))
        .collect()
}

/// Rows this short are walked by one invocation: splitting them costs more in barriers than it saves.
const SHORT_ROW: i64 = 32;

fn reduce_candidates(rows: i64, length: i64, stages: usize, caps: &Caps) -> Vec<Schedule> {
    let serial = [(1, 64), (1, 32), (1, 1)];
    let shared = [(64, 1), (128, 1), (256, 1), (32, 2), (16, 4), (8, 8)];
    // On a CPU adapter a row per lane keeps every SIMD lane busy without a barrier, once there are rows enough.
    let serial_first = length <= SHORT_ROW || (caps.cpu && rows >= 16);
    let all: Vec<(u32, u32)> = if serial_first {
        serial.into_iter().chain(shared).collect()
    } else {
        shared.into_iter().chain(serial).collect()
    };
    let bytes = |lanes: u32, rows: u32| if lanes == 1 { 0 } else { lanes * rows * 4 * stages as u32 };
    all.into_iter()
        .filter(|&(lanes, rows)| fits(caps, lanes, rows) && bytes(lanes, rows) <= caps.max_workgroup_bytes)
        .map(|(lanes, rows)| Schedule::Reduce(ReduceSchedule { lanes, rows }))
        .collect()
}

/// Register tiles of `micro_m` rows by 4 `micro_n4` columns in workgroups of `group_m` by `group_n`. The larger the
/// tile, the fewer loads per product; a tile of more than twice the output's extent is waste and left out.
/// On lavapipe 8x8 tiles were the fastest for all shapes of the eight test networks with M and N of at least 8
/// (`Session::tune`); GPUs run out of registers sooner, so 4x4 stands first there.
fn contract_candidates(body: &ContractBody, sizes: Sizes, caps: &Caps) -> Vec<Schedule> {
    let (m, n) = (size(&body.m, sizes).max(1), size(&body.n, sizes).max(1));
    let largest = |extent: i64, most: u32| (extent as u64).next_power_of_two().min(most as u64) as u32;
    let columns = |n4: u32| n4 as i64 * 4;
    let most = if caps.cpu { 8 } else { 4 };
    // An operand with a window or a condition in it is read element by element: a narrow tile keeps the code short.
    let wide = matches!(body.b.node(), Node::Load { .. });
    let (micro_m, micro_n4) = (largest(m, most), largest((n + 3) / 4, if wide { most / 4 } else { 1 }));
    // Few distinct defaults, so that a change of sequence length rarely means another pipeline.
    let lanes = if caps.cpu { 32 } else { 64 };
    let group_m = if m <= micro_m as i64 {
        1
    } else if n <= 2 * columns(micro_n4) {
        lanes / 2
    } else {
        lanes / 8
    };
    let group_n = lanes / group_m;
    let mut all = vec![(group_m, group_n, micro_m, micro_n4)];
    let tiles: &[(u32, u32)] = if caps.cpu { &[(16, 4), (32, 4), (16, 8), (16, 2), (8, 4)] } else { &[] };
    let common = [(8, 2), (4, 2), (8, 1), (4, 1), (2, 2), (2, 1), (1, 2), (1, 1)];
    for &(micro_m, micro_n4) in tiles.iter().chain(&common) {
        for (group_m, group_n) in [(16, 16), (4, 8), (8, 8), (1, 64), (4, 16), (16, 4)] {
            all.push((group_m, group_n, micro_m, micro_n4));
        }
    }
    let wasteful = |micro_m: u32, micro_n4: u32| micro_m as i64 >= 2 * m || columns(micro_n4) >= 2 * n.max(4);
    let mut kept: Vec<(u32, u32, u32, u32)> = Vec::new();
    for knobs in all {
        let (group_m, group_n, micro_m, micro_n4) = knobs;
        if fits(caps, group_n, group_m) && !wasteful(micro_m, micro_n4) && !kept.contains(&knobs) {
            kept.push(knobs);
        }
    }
    kept.into_iter()
        .map(|(group_m, group_n, micro_m, micro_n4)| {
            Schedule::Contract(ContractSchedule { group_m, group_n, micro_m, micro_n4 })
        })
        .collect()
}

/// Workgroups to dispatch. Indices in shaders are 32-bit: sizes beyond that are an error.
///
/// # Errors
/// [`Error::Limit`] when a size does not fit 31 bits or the grid exceeds the device's.
pub fn grid(
    label: &str,
    spec: &KernelSpec,
    schedule: &Schedule,
    sizes: Sizes,
    caps: &Caps,
) -> Result<[u32; 3]> {
    let too_large = |what: &str, value: i64, limit: i64| {
        Error::limit(label, format!("{what} is {value}, the device allows {limit}"))
    };
    let checked = |idx: &Idx| {
        let value = size(idx, sizes);
        if (0..=i32::MAX as i64).contains(&value) {
            Ok(value)
        } else {
            Err(too_large("a size", value, i32::MAX as i64))
        }
    };
    // One axis of workgroups, folded over two when it exceeds the limit of one.
    let flat = |count: i64| {
        let limit = caps.max_workgroups as i64;
        if count <= limit {
            return Ok([count as u32, 1, 1]);
        }
        let y = (count + limit - 1) / limit;
        if y <= limit {
            Ok([limit as u32, y as u32, 1])
        } else {
            Err(too_large("number of workgroups", count, limit * limit))
        }
    };
    let div = |a: i64, b: u32| (a + b as i64 - 1) / b as i64;
    match (&spec.body, schedule) {
        (Body::Map { len, .. }, Schedule::Map(s)) => flat(div(checked(len)?, s.workgroup * s.per_invocation)),
        (Body::Reduce { rows, result, .. }, Schedule::Reduce(s)) => {
            let rows = checked(rows)?;
            if let RowResult::PerElement { extent, .. } = result {
                let total = rows.saturating_mul(checked(extent)?);
                if total > i32::MAX as i64 {
                    return Err(too_large("number of elements", total, i32::MAX as i64));
                }
            }
            flat(div(rows, s.rows))
        }
        (Body::Contract(body), Schedule::Contract(s)) => {
            let (b, m, n, _) =
                (checked(&body.batch)?, checked(&body.m)?, checked(&body.n)?, checked(&body.k)?);
            let total = b.saturating_mul(m).saturating_mul(n);
            if total > i32::MAX as i64 {
                return Err(too_large("number of output elements", total, i32::MAX as i64));
            }
            let limit = caps.max_workgroups as i64;
            let (x, y) = (div(n, s.group_n * s.micro_n4 * 4), div(m, s.group_m * s.micro_m));
            if x > limit || y > limit {
                return Err(too_large("number of workgroups", x.max(y), limit));
            }
            Ok([x as u32, y as u32, b.min(limit) as u32])
        }
        (_, other) => Err(Error::limit(label, format!("schedule {other} does not fit this kernel"))),
    }
}
