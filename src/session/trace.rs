//! What a session tells of its runs, through `tracing`: see the table in the crate's documentation.

use std::fmt::Write as _;

use super::prepared::Prepared;
use super::recorded::Run;
use crate::error::Result;
use crate::gpu::Device;

/// The target of times.
const TIME: &str = "tilewright::time";

/// Where somebody listens: run once more with timestamps, and tell what each kernel took.
pub fn time(device: &Device, prepared: &Prepared, run: &Run) -> Result<()> {
    if !tracing::enabled!(target: "tilewright::time", tracing::Level::DEBUG) {
        return Ok(());
    }
    let Some(times) = device.profile(&run.recording)? else {
        tracing::debug!(target: TIME, "{} has no timestamps", device.info().name);
        return Ok(());
    };
    let jobs = prepared.jobs(run, Some(&times), device.caps(), &device.info().into());
    let mut text = format!("{:<16} {:>5} {:>10} {:>10} {:>8}", "kernel", "uses", "ms", "GFLOP/s", "GB/s");
    for job in &jobs {
        // Billions a second are units a nanosecond.
        let rate = |amount: f64| amount * job.uses as f64 / job.total_ns.max(1) as f64;
        let _ = write!(
            text,
            "\n{:<16} {:>5} {:>10.4} {:>10.2} {:>8.2}  {}",
            job.label,
            job.uses,
            job.total_ns as f64 / 1e6,
            rate(job.work.flops),
            rate(job.work.bytes),
            job.output
        );
    }
    let all: u64 = times.iter().sum();
    let _ = write!(text, "\n{:<16} {:>5} {:>10.4}", "all", times.len(), all as f64 / 1e6);
    tracing::debug!(target: TIME, "{text}");
    Ok(())
}
