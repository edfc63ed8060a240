//! Tuning in the time between runs, on a thread of its own.
//!
//! Runs go first. The tuner's thread begins a step, a check or a sample of one candidate, only when no run is going on
//! and none has been for a moment; a run that begins meanwhile does not wait for more than that step, and the step is
//! done again if it was a measurement.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::State;
use super::finals::Playing;
use super::jobs::Job;
use super::prepared::{Prepared, Run};
use super::rig::{Pace, Rig};
use super::tuning::{TuneOptions, Tuning};
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::plan::Plan;
use crate::tune::{Bench, Finals, Store};

/// Runs that follow each other faster than this leave no idle time.
const QUIET: Duration = Duration::from_millis(20);

/// What a session's own tuning is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TuneStatus {
    /// There is nothing to tune, or nothing yet.
    Idle,
    /// Kernels are measured.
    Tuning {
        /// How many were.
        done: usize,
        /// How many there are.
        kernels: usize,
    },
    /// It was told to stop.
    Cancelled,
    /// It stopped: why.
    Failed(String),
}

/// The kernels of a run that was just answered.
pub struct Offer {
    pub plan: Arc<Plan>,
    pub run: Run,
    pub jobs: Vec<Job>,
}

struct Gate {
    /// Runs going on.
    running: usize,
    /// Runs that began so far.
    runs: u64,
    /// `runs` when the step at hand began.
    runs_at_step: u64,
    idle_since: Instant,
    offers: VecDeque<Offer>,
    cancelled: bool,
    status: TuneStatus,
}

/// What runs and the tuner's thread share.
struct Shared {
    gate: Mutex<Gate>,
    changed: Condvar,
}

impl Shared {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        // Every change is a single assignment: a panic leaves nothing half done.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An offer is dealt with.
    fn rest(&self) {
        let mut gate = self.gate();
        if gate.offers.is_empty() && !gate.cancelled {
            gate.status = TuneStatus::Idle;
        }
    }
}

/// The error that ends the thread's work.
fn cancelled() -> Error {
    Error::Device { place: "tuning".into(), message: "cancelled".into() }
}

/// In the pauses of the runs.
struct Pauses<'a>(&'a Shared);

impl Pace for Pauses<'_> {
    fn wait(&self) -> Result<()> {
        let mut gate = self.0.gate();
        loop {
            if gate.cancelled {
                return Err(cancelled());
            }
            let quiet = gate.idle_since.elapsed();
            if gate.running == 0 && quiet >= QUIET {
                gate.runs_at_step = gate.runs;
                return Ok(());
            }
            let rest = if gate.running > 0 { QUIET } else { QUIET - quiet };
            let woken = self.0.changed.wait_timeout(gate, rest);
            gate = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn undisturbed(&self) -> bool {
        let gate = self.0.gate();
        gate.runs == gate.runs_at_step
    }
}

/// A run that is going on.
pub struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut gate = self.0.gate();
        gate.running -= 1;
        gate.idle_since = Instant::now();
        drop(gate);
        self.0.changed.notify_all();
    }
}

/// A session's tuner. Dropping it stops the thread after the step at hand.
pub struct Background {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// A thread that tunes what it is offered.
    ///
    /// # Errors
    /// [`Error::Device`] where the system gives no thread.
    pub fn new(
        device: &Device,
        store: &Arc<Mutex<Store>>,
        state: &Arc<Mutex<State>>,
        options: &TuneOptions,
    ) -> Result<Background> {
        let gate = Gate {
            running: 0,
            runs: 0,
            runs_at_step: 0,
            idle_since: Instant::now(),
            offers: VecDeque::new(),
            cancelled: false,
            status: TuneStatus::Idle,
        };
        let shared = Arc::new(Shared { gate: Mutex::new(gate), changed: Condvar::new() });
        let mut worker = Worker {
            shared: shared.clone(),
            device: device.clone(),
            store: store.clone(),
            state: Arc::downgrade(state),
            options: options.clone(),
            rig: None,
        };
        let thread = std::thread::Builder::new().name("tilewright-tune".into()).spawn(move || worker.work());
        let thread = thread.map_err(|error| Error::Device {
            place: "tuning".into(),
            message: format!("no thread to tune on: {error}"),
        })?;
        Ok(Background { shared, thread: Some(thread) })
    }

    /// A run begins; it ends when the turn is dropped.
    pub fn turn(&self) -> Turn<'_> {
        let mut gate = self.shared.gate();
        gate.running += 1;
        gate.runs += 1;
        Turn(&self.shared)
    }

    /// Kernels to tune.
    pub fn offer(&self, offer: Offer) {
        let mut gate = self.shared.gate();
        if !gate.cancelled {
            gate.status = TuneStatus::Tuning { done: 0, kernels: offer.jobs.len() };
            gate.offers.push_back(offer);
        }
        drop(gate);
        self.shared.changed.notify_all();
    }

    pub fn status(&self) -> TuneStatus {
        self.shared.gate().status.clone()
    }

    /// Stop after the step at hand, for good. What is not finished is not kept.
    pub fn cancel(&self) {
        let mut gate = self.shared.gate();
        gate.cancelled = true;
        gate.offers.clear();
        gate.status = TuneStatus::Cancelled;
        drop(gate);
        self.shared.changed.notify_all();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the tuner's thread panicked");
        }
    }
}

/// The tuner's thread.
struct Worker {
    shared: Arc<Shared>,
    device: Device,
    store: Arc<Mutex<Store>>,
    state: Weak<Mutex<State>>,
    options: TuneOptions,
    rig: Option<Rig>,
}

impl Worker {
    fn work(&mut self) {
        while let Some(offer) = self.next() {
            match self.tune(offer) {
                Ok(()) => self.shared.rest(),
                Err(error) => {
                    if self.shared.gate().cancelled {
                        return;
                    }
                    tracing::warn!(%error, "tuning stopped; runs go on with what was known");
                    self.shared.gate().status = TuneStatus::Failed(error.to_string());
                    self.rig = None;
                }
            }
        }
    }

    fn next(&self) -> Option<Offer> {
        let mut gate = self.shared.gate();
        loop {
            if gate.cancelled {
                return None;
            }
            if let Some(offer) = gate.offers.pop_front() {
                return Some(offer);
            }
            gate = self.shared.changed.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn tune(&mut self, offer: Offer) -> Result<()> {
        let Offer { plan, run, mut jobs } = offer;
        let shared = self.shared.clone();
        let pace = Pauses(&shared);
        let (device, store, options) = (self.device.clone(), self.store.clone(), self.options.clone());
        let tuning = Tuning { device: &device, store: &store, options: &options, all: false };
        jobs.retain(|job| !tuning.is_known(job));
        if jobs.is_empty() {
            return Ok(());
        }
        let rig = match &mut self.rig {
            Some(rig) => rig,
            none => none.insert(Rig::new(&device, &store, &pace)?),
        };
        let kernels = jobs.len();
        let trials = tuning.measure(rig, &jobs, Duration::ZERO, &pace, &mut |progress| {
            let mut gate = shared.gate();
            if !gate.cancelled {
                gate.status = TuneStatus::Tuning { done: progress.kernel, kernels };
            }
        })?;
        let finals = Finals::new(&trials, device.caps().timestamps.then_some(0));
        // Compiled before the lock is taken that runs take too.
        let mut kept = Vec::new();
        for (job, schedule) in finals.entrants() {
            pace.wait()?;
            let job = &jobs[job];
            let mut bench =
                Bench::new(&device, &job.label, &job.spec, &job.sizes, &job.input_lens, job.output_len)?;
            // One that fails here fails again below, where the defaults stay for it.
            if bench.output(schedule).is_ok() {
                kept.extend(bench.into_kernels());
            }
        }
        let rig = self.rig.as_ref().ok_or_else(cancelled)?;
        let playing = Playing { device: &device, plan: &plan, jobs: &jobs, deadline: None };
        tuning.confirm(rig, &playing, finals, trials, &pace, &mut |finals, heat| {
            self.with(&plan, |prepared| playing.commands(prepared, &run, finals, heat))
        })?;
        drop(kept);
        self.with(&plan, |prepared| {
            prepared.forget_runs();
            Ok(())
        })
    }

    /// What the session keeps with a plan, between two runs.
    fn with<T>(&self, plan: &Arc<Plan>, work: impl FnOnce(&mut Prepared) -> Result<T>) -> Result<T> {
        Pauses(&self.shared).wait()?;
        let state = self.state.upgrade().ok_or_else(cancelled)?;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || Error::model("tuning", "the plan is no longer in use");
        work(state.model.kept(plan).ok_or_else(gone)?)
    }
}
