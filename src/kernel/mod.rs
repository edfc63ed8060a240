//! What to compute ([`KernelSpec`]), how ([`Schedule`]), and what the device allows ([`Caps`]).
//!
//! A family of kernels has a file for its knobs: their points, the rules that cut them, an estimate that orders what is
//! left, and a sound default.

mod attention;
mod attention_passes;
mod caps;
mod contract;
mod map;
mod passes;
mod peaks;
mod reduce;
mod schedule;
mod space;
mod spec;
mod split_k;
mod work;

pub use attention::{AttentionSchedule, FusedSchedule};
pub(crate) use attention::{columns, stride};
pub use caps::{AdapterKind, Caps, CooperativeSize};
pub use contract::ContractSchedule;
pub use map::MapSchedule;
pub use passes::{Pass, Slot, passes};
pub use peaks::Peaks;
pub use reduce::ReduceSchedule;
pub use schedule::{Schedule, Sizes, grid, size};
pub use space::{MOST_CANDIDATES, Space, broken_rule, candidates, default_schedule, estimate_ns, space};
pub use spec::{
    AttentionBody, AttentionResult, Body, ContractBody, KernelSpec, RowResult, Stage, storage_bytes,
    storage_type, stored,
};
pub use work::{Limit, Work};
