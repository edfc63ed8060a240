//! Work and traffic of an operation in a time.

use tilewright::kernel::{Caps, Peaks, Work};

use crate::one_op::OneOp;

/// Rates, and the part of what the device can do at best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Arithmetic; `None` for operations that move more than they compute.
    pub gflops: Option<f64>,
    /// Traffic, with each input and output once.
    pub gbytes: f64,
    /// Of the roofline.
    pub share: Option<f64>,
}

impl Rate {
    /// Of `op` in `ns`.
    pub fn of(op: &OneOp, caps: &Caps, peaks: Option<&Peaks>, ns: u64) -> Rate {
        // Billions a second are units a nanosecond.
        let per_ns = |amount: f64| amount / ns.max(1) as f64;
        let (flops, bytes) = (op.flops(), op.bytes(caps.floats()));
        let work = Work { flops: flops.unwrap_or(0.0), bytes, f16: false };
        Rate {
            gflops: flops.map(per_ns),
            gbytes: per_ns(bytes),
            share: peaks.map(|peaks| peaks.share(&work, ns)),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{:.1} GB/s", self.gbytes);
        if let Some(gflops) = self.gflops {
            text = format!("{gflops:.1} GFLOP/s, {text}");
        }
        if let Some(share) = self.share {
            text += &format!(", {:.0}% of the measured peak", share * 100.0);
        }
        text
    }
}
