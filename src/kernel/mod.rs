//! What to compute, how, and what the device allows.

mod caps;

pub use caps::{Caps, CooperativeSize};
