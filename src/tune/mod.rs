//! Choosing among a kernel's candidates by measuring them on the device at hand.
//!
//! - `key`: what a measurement holds for: the kernel exactly, its run-time sizes by bucket, the adapter.
//! - `bench`: a kernel on its own, with random inputs: time a candidate, compare its output with the default's.
//! - `search`: the order of work over candidates, until a budget is spent.
//! - `store`: what was learned, one line of JSON per tuned kernel; nothing is thrown away.

mod bench;
mod key;
mod search;
mod store;

pub use bench::Bench;
pub use key::{GENERATOR, Key, bucket};
pub use search::{SearchOptions, Status, Trial, search, winner};
pub use store::{FORMAT, Merged, Record, Store};
