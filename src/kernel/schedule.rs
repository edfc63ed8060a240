//! How a kernel computes: the knobs of its skeleton, and the dispatch grid.

use serde::{Deserialize, Serialize};

use super::apart::ApartSchedule;
use super::attention::AttentionSchedule;
use super::caps::Caps;
use super::contract::ContractSchedule;
use super::conv::ConvSchedule;
use super::cooperative::CooperativeSchedule;
use super::depthwise::DepthwiseSchedule;
use super::gemv::{GemvSchedule, Reduction};
use super::map::MapSchedule;
use super::packed::PackedSchedule;
use super::reduce::ReduceSchedule;
use super::spec::{Body, KernelSpec, RowResult};
use super::subgroup::SubgroupSchedule;
use super::tiled::TiledSchedule;
use super::topk::{MergeSchedule, SortSchedule, TopKSchedule};
use super::transpose::{Across, TransposeSchedule};
use crate::error::{Error, Result};
use crate::expr::Idx;

/// Values of a kernel's parameters, in order.
pub type Sizes<'a> = &'a [i64];

/// The knobs of a skeleton.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Schedule {
    /// For [`Body::Map`] and [`Body::Update`].
    Map(MapSchedule),
    /// For a [`Body::Map`] that reads along another axis than it stores.
    Transpose(TransposeSchedule),
    /// For [`Body::Reduce`].
    Reduce(ReduceSchedule),
    /// For [`Body::Contract`], straight from storage.
    Contract(ContractSchedule),
    /// For [`Body::Contract`], through workgroup memory.
    Tiled(TiledSchedule),
    /// For [`Body::Contract`], with rows handed on within a subgroup.
    Subgroup(SubgroupSchedule),
    /// For [`Body::Contract`], by cooperative-matrix instructions.
    Cooperative(CooperativeSchedule),
    /// For [`Body::Contract`] of few rows or columns.
    Gemv(GemvSchedule),
    /// For [`Body::Conv`].
    Conv(ConvSchedule),
    /// For a [`Body::Conv`] whose output channels read one input channel each.
    Depthwise(DepthwiseSchedule),
    /// For [`Body::Attention`].
    Attention(AttentionSchedule),
    /// For a kernel with a part that kernels of its own compute.
    Apart(ApartSchedule),
    /// For a [`Body::Contract`] or [`Body::Conv`] of 8-bit integers, by packed dot products.
    Packed(PackedSchedule),
    /// For [`Body::TopK`] of few elements.
    TopK(TopKSchedule),
    /// For [`Body::TopK`] of many.
    Sort(SortSchedule),
    /// For a [`Body::TopK`] whose rows are two parts in order.
    Merge(MergeSchedule),
}

impl Schedule {
    /// Parts of a contraction's sum that a second pass adds up; 1 where there is no second pass.
    pub fn split_k(&self) -> u32 {
        match self {
            Schedule::Contract(s) => s.split_k,
            Schedule::Tiled(s) => s.split_k,
            Schedule::Subgroup(s) => s.split_k,
            Schedule::Map(_)
            | Schedule::Transpose(_)
            | Schedule::Reduce(_)
            | Schedule::Cooperative(_)
            | Schedule::Gemv(_)
            | Schedule::Conv(_)
            | Schedule::Depthwise(_)
            | Schedule::Attention(_)
            | Schedule::Apart(_)
            | Schedule::Packed(_)
            | Schedule::TopK(_)
            | Schedule::Sort(_)
            | Schedule::Merge(_) => 1,
        }
    }

    /// Whether it takes one dispatch.
    pub fn is_one_pass(&self) -> bool {
        match self {
            Schedule::Reduce(s) => s.parts == 1,
            Schedule::Attention(s) => s.is_one_pass(),
            Schedule::TopK(s) => s.parts == 1,
            Schedule::Apart(_) | Schedule::Packed(_) | Schedule::Sort(_) => false,
            Schedule::Contract(_) | Schedule::Tiled(_) | Schedule::Subgroup(_) => self.split_k() == 1,
            Schedule::Map(_)
            | Schedule::Transpose(_)
            | Schedule::Cooperative(_)
            | Schedule::Gemv(_)
            | Schedule::Conv(_)
            | Schedule::Depthwise(_)
            | Schedule::Merge(_) => true,
        }
    }

    /// The same in one pass.
    pub(super) fn unsplit(&self) -> Schedule {
        match self.clone() {
            Schedule::Contract(s) => Schedule::Contract(ContractSchedule { split_k: 1, ..s }),
            Schedule::Tiled(s) => Schedule::Tiled(TiledSchedule { split_k: 1, ..s }),
            Schedule::Subgroup(s) => Schedule::Subgroup(SubgroupSchedule { split_k: 1, ..s }),
            other @ (Schedule::Map(_)
            | Schedule::Transpose(_)
            | Schedule::Reduce(_)
            | Schedule::Cooperative(_)
            | Schedule::Gemv(_)
            | Schedule::Attention(_)
            | Schedule::Conv(_)
            | Schedule::Depthwise(_)
            | Schedule::Apart(_)
            | Schedule::Packed(_)
            | Schedule::TopK(_)
            | Schedule::Sort(_)
            | Schedule::Merge(_)) => other,
        }
    }

    /// Rows and columns that a workgroup computes, where the schedule is for a contraction.
    pub(super) fn tile(&self) -> Option<[u32; 2]> {
        match self {
            Schedule::Contract(s) => Some([s.group_m * s.micro_m, s.group_n * s.micro_n4 * 4]),
            Schedule::Tiled(s) => Some(s.tile()),
            Schedule::Subgroup(s) => Some(s.tile()),
            Schedule::Cooperative(s) => Some(s.tile()),
            Schedule::Gemv(s) => Some(s.tile()),
            Schedule::Map(_)
            | Schedule::Transpose(_)
            | Schedule::Reduce(_)
            | Schedule::Conv(_)
            | Schedule::Depthwise(_)
            | Schedule::Attention(_)
            | Schedule::Apart(_)
            | Schedule::Packed(_)
            | Schedule::TopK(_)
            | Schedule::Sort(_)
            | Schedule::Merge(_) => None,
        }
    }

    /// Which of its family's algorithms it is for.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Schedule::Map(_) => "map",
            Schedule::Transpose(_) => "transpose",
            Schedule::Reduce(s) => s.algorithm(),
            Schedule::Contract(s) if s.split_k > 1 => "gemm in parts",
            Schedule::Contract(_) => "gemm",
            Schedule::Tiled(s) if s.split_k > 1 => "gemm_tiled in parts",
            Schedule::Tiled(_) => "gemm_tiled",
            Schedule::Subgroup(s) if s.split_k > 1 => "gemm_subgroup in parts",
            Schedule::Subgroup(_) => "gemm_subgroup",
            Schedule::Cooperative(_) => "gemm_cooperative",
            Schedule::Gemv(GemvSchedule { reduction: Reduction::Workgroup, .. }) => "gemv",
            Schedule::Gemv(GemvSchedule { reduction: Reduction::Subgroup, .. }) => "gemv_subgroup",
            Schedule::Conv(s) if s.subgroup > 0 => "subgroup",
            Schedule::Conv(_) => "direct",
            Schedule::Depthwise(_) => "depthwise",
            Schedule::Attention(s) => s.algorithm(),
            Schedule::Apart(s) => s.algorithm(),
            Schedule::Packed(_) => "packed",
            Schedule::TopK(s) if s.parts > 1 => "selection in parts",
            Schedule::TopK(_) => "selection",
            Schedule::Sort(_) => "sort",
            Schedule::Merge(_) => "merge",
        }
    }

    /// Whether its text is so long that a CPU adapter's compiler takes about a second for it: more than 32 vectors of
    /// sums, each with its own statements.
    pub(super) fn compiles_slowly(&self) -> bool {
        match self {
            Schedule::Contract(s) => s.micro_m * s.micro_n4 > 32,
            Schedule::Subgroup(s) => s.sums() > 32,
            Schedule::Apart(s) => s.rest.compiles_slowly(),
            Schedule::Packed(s) => s.rest.compiles_slowly(),
            Schedule::Map(_)
            | Schedule::Transpose(_)
            | Schedule::Reduce(_)
            | Schedule::Tiled(_)
            | Schedule::Cooperative(_)
            | Schedule::Gemv(_)
            | Schedule::Conv(_)
            | Schedule::Depthwise(_)
            | Schedule::Attention(_)
            | Schedule::TopK(_)
            | Schedule::Sort(_)
            | Schedule::Merge(_) => false,
        }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Schedule::Map(s) => {
                write!(f, "workgroup={} per_invocation={} vector={}", s.workgroup, s.per_invocation, s.vector)
            }
            Schedule::Transpose(s) => s.fmt(f),
            Schedule::Reduce(s) => s.fmt(f),
            Schedule::Contract(s) => {
                let ContractSchedule { group_m, group_n, micro_m, micro_n4, split_k } = s;
                let micro_n = micro_n4 * 4;
                write!(
                    f,
                    "group_m={group_m} group_n={group_n} micro_m={micro_m} micro_n={micro_n} split_k={split_k}"
                )
            }
            Schedule::Tiled(s) => s.fmt(f),
            Schedule::Subgroup(s) => s.fmt(f),
            Schedule::Cooperative(s) => s.fmt(f),
            Schedule::Gemv(s) => s.fmt(f),
            Schedule::Conv(s) => write!(
                f,
                "group={} micro_o={} micro_w={} unroll={} subgroup={}",
                s.group,
                s.micro_o4 * 4,
                s.micro_w,
                s.unroll,
                s.subgroup
            ),
            Schedule::Depthwise(s) => {
                write!(f, "depthwise group={} micro_h={} micro_w={}", s.group, s.micro_h, s.micro_w)
            }
            Schedule::Attention(s) => s.fmt(f),
            Schedule::Apart(s) => s.fmt(f),
            Schedule::Packed(s) => s.fmt(f),
            Schedule::TopK(s) => s.fmt(f),
            Schedule::Sort(s) => s.fmt(f),
            Schedule::Merge(s) => s.fmt(f),
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
        (Body::Map { len, .. } | Body::Update { len, .. }, Schedule::Map(s)) => {
            flat(div(checked(len)?, s.workgroup * s.per_invocation * s.vector))
        }
        (Body::Map { len, value }, Schedule::Transpose(s)) if let Some(across) = Across::of(len, value) => {
            checked(len)?;
            flat(across.tiles(len, s.tile, sizes))
        }
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
        (Body::Contract(body), schedule) if let Some([tile_m, tile_n]) = schedule.tile() => {
            let (b, m, n, _) =
                (checked(&body.batch)?, checked(&body.m)?, checked(&body.n)?, checked(&body.k)?);
            let total = b.saturating_mul(m).saturating_mul(n);
            if total > i32::MAX as i64 {
                return Err(too_large("number of output elements", total, i32::MAX as i64));
            }
            let limit = caps.max_workgroups as i64;
            let (x, y) = (div(n, tile_n), div(m, tile_m));
            if x > limit || y > limit {
                return Err(too_large("number of workgroups", x.max(y), limit));
            }
            Ok([x as u32, y as u32, b.min(limit) as u32])
        }
        (Body::Conv(body), Schedule::Conv(s)) => {
            checked(&body.output_len())?;
            let [d, h, w] = &body.axes;
            let rows = checked(&(&(&body.batch * &d.output) * &h.output))?;
            let positions = rows * div(checked(&w.output)?, s.micro_w);
            let channels = checked(&body.groups)? * div(checked(&body.out_channels)?, 4 * s.micro_o4);
            let [x, z, _] = flat(div(positions, s.group))?;
            if channels > caps.max_workgroups as i64 {
                return Err(too_large("number of workgroups", channels, caps.max_workgroups as i64));
            }
            Ok([x, channels as u32, z])
        }
        (Body::Conv(body), Schedule::Depthwise(s)) => {
            checked(&body.output_len())?;
            let [d, h, w] = &body.axes;
            let channels = checked(&(&(&body.batch * &body.groups) * &body.out_channels))?;
            let blocks = div(checked(&h.output)?, s.micro_h) * div(checked(&w.output)?, s.micro_w);
            flat(div(channels * checked(&d.output)? * blocks, s.group))
        }
        (Body::Attention(body), Schedule::Attention(AttentionSchedule::Fused(s))) => {
            let (b, m, n) = (checked(&body.batch)?, checked(&body.m)?, checked(&body.n)?);
            checked(&body.k)?;
            let total = b.saturating_mul(m).saturating_mul(n);
            if total > i32::MAX as i64 {
                return Err(too_large("number of output elements", total, i32::MAX as i64));
            }
            if s.lanes == 1 {
                flat(div(b * div(m, s.micro_m), s.rows))
            } else {
                flat(b * div(m, s.rows * s.micro_m))
            }
        }
        (Body::TopK(body), Schedule::TopK(TopKSchedule { parts: 1, .. }) | Schedule::Merge(_)) => {
            let [rows, extent, k] = [checked(&body.rows)?, checked(&body.extent)?, checked(&body.k)?];
            let total = rows.saturating_mul(extent.max(k));
            if total > i32::MAX as i64 {
                return Err(too_large("number of elements", total, i32::MAX as i64));
            }
            match schedule {
                _ if k == 0 => Ok([0; 3]),
                Schedule::Merge(s) => flat(div(rows * div(k, s.each), s.workgroup)),
                Schedule::TopK(s) => flat(div(rows, s.rows)),
                _ => Ok([0; 3]),
            }
        }
        (_, other) => Err(Error::limit(label, format!("schedule {other} does not fit this kernel"))),
    }
}
