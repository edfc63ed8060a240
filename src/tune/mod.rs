//! Choosing among a kernel's candidates by measuring them on the device at hand.
//!
//! - `key`: what a measurement holds for: the kernel exactly, its run-time sizes by bucket, the adapter.
//! - `search`: the order of work over candidates, until a budget is spent: what to do next, without a device.
//! - `finals`: which of the fastest are so in whole runs, too.
//! - `trial`: a candidate, its samples, and which candidate wins.
//! - `record`: what was learned, one line of JSON per tuned kernel; nothing is thrown away.
//!
//! These know no device and no clock, and serve the browser as they are. On native devices:
//!
//! - `bench`: a kernel on its own, with random inputs: time a candidate, take its output.
//! - `clock`: how long dispatches take.
//! - `probe`: what the device can do at best.
//! - `race`: drives a search with a bench.
//! - `store`: the file of records.

#[cfg(not(target_arch = "wasm32"))]
mod bench;
#[cfg(not(target_arch = "wasm32"))]
mod clock;
mod finals;
mod key;
#[cfg(not(target_arch = "wasm32"))]
mod probe;
#[cfg(not(target_arch = "wasm32"))]
mod race;
mod record;
mod search;
#[cfg(not(target_arch = "wasm32"))]
mod store;
mod trial;

#[cfg(not(target_arch = "wasm32"))]
pub use bench::Bench;
#[cfg(not(target_arch = "wasm32"))]
pub use clock::Clock;
pub use finals::{Finals, Heat, Timing};
pub use key::{GENERATOR, Key, Platform, bucket};
#[cfg(not(target_arch = "wasm32"))]
pub use probe::{Sweep, peaks};
#[cfg(not(target_arch = "wasm32"))]
pub use race::{Race, search};
pub use record::{FORMAT, Line, PeaksRecord, Record, Records, with_priors};
pub use search::{Outcome, Search, SearchOptions, Step, Task};
#[cfg(not(target_arch = "wasm32"))]
pub use store::{Merged, Store};
pub use trial::{MARGIN, Status, Trial, clearly_faster, difference, finalists, winner};
