//! What to compute ([`KernelSpec`]), how ([`Schedule`]), and what the device allows ([`Caps`]).

mod caps;
mod schedule;
mod spec;

pub use caps::{Caps, CooperativeSize};
pub use schedule::{ContractSchedule, MapSchedule, ReduceSchedule, Schedule, Sizes, candidates, grid, size};
pub use spec::{Body, ContractBody, KernelSpec, RowResult, Stage, storage_bytes, storage_type, stored};
