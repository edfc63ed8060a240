//! How a kernel computes: the knobs of its skeleton, and the dispatch grid.

use serde::{Deserialize, Serialize};

use super::attention::AttentionSchedule;
use super::caps::Caps;
use super::contract::ContractSchedule;
use super::map::MapSchedule;
use super::reduce::ReduceSchedule;
use super::spec::{Body, KernelSpec, RowResult};
use crate::error::{Error, Result};
use crate::expr::Idx;

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
    /// For [`Body::Attention`].
    Attention(AttentionSchedule),
}

impl Schedule {
    /// Which of its family's algorithms it is for.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Schedule::Map(_) => "map",
            Schedule::Reduce(_) => "reduce",
            Schedule::Contract(_) => "gemm",
            Schedule::Attention(s) => s.algorithm(),
        }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Schedule::Map(s) => write!(f, "workgroup={} per_invocation={}", s.workgroup, s.per_invocation),
            Schedule::Reduce(s) => write!(f, "lanes={} rows={}", s.lanes, s.rows),
            Schedule::Contract(s) => write!(
                f,
                "group_m={} group_n={} micro_m={} micro_n={} split_k={}",
                s.group_m,
                s.group_n,
                s.micro_m,
                s.micro_n4 * 4,
                s.split_k
            ),
            Schedule::Attention(s) => s.fmt(f),
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
        (_, other) => Err(Error::limit(label, format!("schedule {other} does not fit this kernel"))),
    }
}
