//! What to compute ([`KernelSpec`]), how ([`Schedule`]), and what the device allows ([`Caps`]).
//!
//! A family of kernels has a file for its knobs: their points, the rules that cut them, an estimate that orders what is
//! left, and a sound default.

mod apart;
mod attention;
mod attention_passes;
mod caps;
mod contract;
mod conv;
mod cooperative;
mod depthwise;
mod fours;
mod gemv;
mod generic;
mod map;
mod moved;
mod operand;
mod packed;
mod passes;
mod peaks;
mod reduce;
mod row_parts;
mod rows;
mod schedule;
mod space;
mod spec;
mod split_k;
mod subgroup;
mod tiled;
mod topk;
mod topk_passes;
mod transpose;
mod work;

pub use crate::ir::{Combine, ConvVar, before, last};
pub use apart::{ApartSchedule, Part};
pub use attention::{AttentionSchedule, FusedSchedule};
pub(crate) use attention::{columns, stride};
pub use caps::{AdapterKind, Caps, CooperativeSize};
pub use contract::ContractSchedule;
pub use conv::{ConvSchedule, Reach};
pub use cooperative::CooperativeSchedule;
pub(crate) use cooperative::element as cooperative_element;
pub use depthwise::DepthwiseSchedule;
pub(crate) use fours::{in_fours, take as take_fours};
pub use gemv::{GemvSchedule, Reduction};
pub use map::MapSchedule;
pub use operand::Along;
pub(crate) use operand::consecutive;
pub use packed::PackedSchedule;
pub use passes::{Pass, Slot, passes};
pub use peaks::Peaks;
pub use reduce::ReduceSchedule;
pub(crate) use rows::{RowReads, positions as row_positions, stores_fours};
pub use schedule::{Schedule, Sizes, grid, size};
pub use space::{
    MOST_CANDIDATES, Space, broken_rule, candidates, default_schedule, estimate_ns, points, space,
};
pub use spec::{
    AttentionBody, AttentionResult, Body, ContractBody, ConvBody, KernelSpec, Product, RowResult, Stage,
    TopKBody, storage_bytes, storage_type, stored,
};
pub use subgroup::SubgroupSchedule;
pub use tiled::TiledSchedule;
pub use topk::{MergeSchedule, SortSchedule, TopKSchedule};
pub(crate) use transpose::Across;
pub use transpose::TransposeSchedule;
pub use work::{Limit, Work};
