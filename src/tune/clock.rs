//! How long dispatches take on a device, told by its timestamps, or by the host's clock where it has none.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::gpu::{Device, Dispatch, Recording};

/// A clock for one device.
#[derive(Clone, Debug)]
pub struct Clock {
    device: Device,
    /// The smallest difference that it shows.
    step_ns: u64,
    /// What a run of nothing takes by this clock: nothing, by timestamps.
    overhead_ns: u64,
    /// How long to wait for a run.
    limit: Duration,
}

/// A sample lasts this long at the least ...
const SAMPLE_NS: u64 = 2_000_000;
/// ... and this many times what the clock cannot tell apart, so that the error is below a per cent.
const SAMPLE_STEPS: u64 = 100;
/// Repetitions in one sample at the most.
const MOST_REPEATS: u64 = 256;
/// Longer than this a kernel hangs, unless the clock is told otherwise.
const LIMIT: Duration = Duration::from_secs(60);

impl Clock {
    /// The device's clock, whose resolution is measured.
    ///
    /// # Errors
    /// What the device says.
    pub fn new(device: &Device) -> Result<Clock> {
        let mut clock = Clock { device: device.clone(), step_ns: 1, overhead_ns: 0, limit: LIMIT };
        match device.clock_ns()? {
            Some(step_ns) => clock.step_ns = step_ns,
            None => {
                let mut least = u64::MAX;
                for _ in 0..5 {
                    let start = Instant::now();
                    device.run(&Recording::default())?;
                    least = least.min(start.elapsed().as_nanos() as u64);
                }
                // What submitting takes varies by about as much as it takes.
                (clock.step_ns, clock.overhead_ns) = (least, least);
            }
        }
        Ok(clock)
    }

    /// Wait no longer than this for a run.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// How long to wait for a run.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// How often to repeat what takes `guess_ns`, so that the time is well above what the clock can tell apart.
    pub fn repeats(&self, guess_ns: u64) -> usize {
        let sample_ns = SAMPLE_NS.max(self.step_ns.saturating_mul(SAMPLE_STEPS));
        (sample_ns / guess_ns.max(1)).clamp(1, MOST_REPEATS) as usize
    }

    /// Nanoseconds of `dispatches`, the mean of `repeats` times, after `before`, which is not timed.
    ///
    /// # Errors
    /// As [`Device::run_within`].
    pub fn time(&self, before: &[Dispatch], dispatches: &[Dispatch], repeats: usize) -> Result<u64> {
        let repeats = repeats.max(1);
        let timed = vec![dispatches; repeats].concat();
        let recording = |dispatches: Vec<Dispatch>| Recording { dispatches, readbacks: Vec::new() };
        let all = recording([before, &timed].concat());
        let total_ns: u64 = match self.device.profile_within(&all, self.limit)? {
            Some(times) => times.iter().skip(before.len()).sum(),
            None => {
                if !before.is_empty() {
                    self.device.run_within(&recording(before.to_vec()), self.limit)?;
                }
                let timed = recording(timed);
                let start = Instant::now();
                self.device.run_within(&timed, self.limit)?;
                (start.elapsed().as_nanos() as u64).saturating_sub(self.overhead_ns)
            }
        };
        Ok((total_ns / repeats as u64).max(1))
    }
}
