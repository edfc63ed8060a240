//! The pauses of a session's runs, and who uses them.
//!
//! Runs go first. The session's thread begins a step only when no run is going on and none has been for a moment; a run
//! that begins meanwhile does not wait for more than that step.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::rig::Pace;
use crate::error::{Error, Result};

/// Runs that follow each other faster than this leave no idle time.
const QUIET: Duration = Duration::from_millis(20);
/// How long a step that must come to its turn waits for a pause; then it comes after the next run.
const PATIENCE: Duration = Duration::from_millis(100);

struct Gate {
    /// Runs going on.
    running: usize,
    /// Runs that began so far.
    runs: u64,
    /// `runs` when the step at hand began.
    runs_at_step: u64,
    idle_since: Instant,
    /// Whether a step is at hand that no run may overlap.
    alone: bool,
    /// Whether such a step has waited long enough.
    is_due: bool,
    /// No more tuning.
    cancelled: bool,
    /// No more of anything.
    closed: bool,
}

/// What runs and the session's thread share.
pub struct Pauses {
    gate: Mutex<Gate>,
    changed: Condvar,
}

/// The error that ends the thread's work.
pub fn cancelled() -> Error {
    Error::Device { place: "tuning".into(), message: "cancelled".into() }
}

impl Pauses {
    pub fn new() -> Pauses {
        let gate = Gate {
            running: 0,
            runs: 0,
            runs_at_step: 0,
            idle_since: Instant::now(),
            alone: false,
            is_due: false,
            cancelled: false,
            closed: false,
        };
        Pauses { gate: Mutex::new(gate), changed: Condvar::new() }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // Every change is a single assignment: a panic leaves nothing half done.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn woken<'a>(&'a self, gate: MutexGuard<'a, Gate>, limit: Duration) -> MutexGuard<'a, Gate> {
        self.changed.wait_timeout(gate, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    /// A run begins; it ends when the turn is dropped.
    pub fn turn(&self) -> Turn<'_> {
        let mut gate = self.gate();
        while gate.alone {
            gate = self.woken(gate, PATIENCE);
        }
        gate.running += 1;
        gate.runs += 1;
        Turn(self)
    }

    /// Wait for a step that no run overlaps: for a pause or, where runs leave none, for the end of a run.
    ///
    /// # Errors
    /// Where the session ends.
    pub fn alone(&self) -> Result<Alone<'_>> {
        let start = Instant::now();
        let mut gate = self.gate();
        loop {
            if gate.closed {
                (gate.alone, gate.is_due) = (false, false);
                return Err(cancelled());
            }
            let quiet = gate.idle_since.elapsed();
            gate.is_due = start.elapsed() >= PATIENCE;
            if gate.alone || (gate.running == 0 && (quiet >= QUIET || gate.is_due)) {
                (gate.alone, gate.is_due) = (true, false);
                return Ok(Alone(self));
            }
            gate = self.woken(gate, QUIET);
        }
    }

    /// No more tuning.
    pub fn cancel(&self) {
        self.gate().cancelled = true;
        self.changed.notify_all();
    }

    /// No more steps.
    pub fn close(&self) {
        self.gate().closed = true;
        self.changed.notify_all();
    }
}

/// For tuning.
impl Pace for Pauses {
    fn wait(&self) -> Result<()> {
        let mut gate = self.gate();
        loop {
            if gate.cancelled || gate.closed {
                return Err(cancelled());
            }
            let quiet = gate.idle_since.elapsed();
            if gate.running == 0 && quiet >= QUIET {
                gate.runs_at_step = gate.runs;
                return Ok(());
            }
            let rest = if gate.running > 0 { QUIET } else { QUIET - quiet };
            gate = self.woken(gate, rest);
        }
    }

    fn undisturbed(&self) -> bool {
        let gate = self.gate();
        gate.runs == gate.runs_at_step
    }
}

/// A run that is going on.
pub struct Turn<'a>(&'a Pauses);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut gate = self.0.gate();
        gate.running -= 1;
        gate.idle_since = Instant::now();
        // Handed over here: the next run may begin before the thread wakes up.
        gate.alone |= gate.is_due && gate.running == 0;
        drop(gate);
        self.0.changed.notify_all();
    }
}

/// A step at hand that no run overlaps.
pub struct Alone<'a>(&'a Pauses);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.gate().alone = false;
        self.0.changed.notify_all();
    }
}
