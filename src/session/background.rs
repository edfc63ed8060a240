//! What a session does in the pauses of its runs, on a thread of its own: it compiles the stored winners that runs did
//! not wait for, and tunes. A step that a run disturbed is done again if it was a measurement.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::State;
use super::finals::Playing;
use super::jobs::Job;
use super::pauses::{Pauses, Turn, cancelled};
use super::prepared::Prepared;
use super::rig::{Pace, Rig};
use super::tuning::{TuneOptions, Tuning};
use super::winners::{Waiting, Winners};
use crate::error::{Error, Result};
use crate::gpu::{Device, Dispatch, Recording};
use crate::kernel::KernelSpec;
use crate::plan::{Plan, SymbolValues};
use crate::tune::{Bench, Finals, Store};

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

/// What a run that was just answered leaves to do.
pub struct Offer {
    pub plan: Arc<Plan>,
    pub symbols: SymbolValues,
    /// Winners to compile.
    pub waiting: Vec<Waiting>,
    /// Kernels to tune.
    pub jobs: Vec<Job>,
}

struct Desk {
    offers: VecDeque<Offer>,
    /// Winners offered and not dealt with.
    waiting: usize,
    status: TuneStatus,
    closed: bool,
}

/// What the session and its thread share.
struct Shared {
    pauses: Pauses,
    desk: Mutex<Desk>,
    changed: Condvar,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // A panic leaves an offer behind at the worst.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn woken<'a>(&'a self, desk: MutexGuard<'a, Desk>) -> MutexGuard<'a, Desk> {
        self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner)
    }

    /// Unless tuning was cancelled.
    fn tell(&self, status: TuneStatus) {
        let mut desk = self.desk();
        if desk.status != TuneStatus::Cancelled {
            desk.status = status;
        }
    }

    /// No more offers are dealt with.
    fn close(&self) {
        let mut desk = self.desk();
        desk.closed = true;
        desk.offers.clear();
        desk.waiting = 0;
        drop(desk);
        self.pauses.close();
        self.changed.notify_all();
    }
}

/// A session's thread. Dropping it stops the thread after the step at hand.
pub struct Background {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// A thread that deals with what it is offered.
    ///
    /// # Errors
    /// [`Error::Device`] where the system gives no thread.
    pub fn new(
        device: &Device,
        store: &Arc<Mutex<Store>>,
        winners: &Arc<Winners>,
        state: &Arc<Mutex<State>>,
        options: TuneOptions,
    ) -> Result<Background> {
        let desk = Desk { offers: VecDeque::new(), waiting: 0, status: TuneStatus::Idle, closed: false };
        let shared = Shared { pauses: Pauses::new(), desk: Mutex::new(desk), changed: Condvar::new() };
        let shared = Arc::new(shared);
        let mut worker = Worker {
            shared: shared.clone(),
            device: device.clone(),
            store: store.clone(),
            winners: winners.clone(),
            state: Arc::downgrade(state),
            options,
            rig: None,
        };
        let thread = std::thread::Builder::new().name("tilewright-tune".into()).spawn(move || worker.work());
        let thread = thread.map_err(|error| Error::Device {
            place: "session".into(),
            message: format!("no thread to tune and compile on: {error}"),
        })?;
        Ok(Background { shared, thread: Some(thread) })
    }

    /// A run begins; it ends when the turn is dropped.
    pub fn turn(&self) -> Turn<'_> {
        self.shared.pauses.turn()
    }

    /// Winners to compile and kernels to tune.
    pub fn offer(&self, offer: Offer) {
        let mut desk = self.shared.desk();
        if desk.closed {
            return;
        }
        if !offer.jobs.is_empty() && desk.status != TuneStatus::Cancelled {
            desk.status = TuneStatus::Tuning { done: 0, kernels: offer.jobs.len() };
        }
        desk.waiting += offer.waiting.len();
        desk.offers.push_back(offer);
        drop(desk);
        self.shared.changed.notify_all();
    }

    pub fn status(&self) -> TuneStatus {
        self.shared.desk().status.clone()
    }

    /// Stop tuning after the step at hand, for good. What is not finished is not kept.
    pub fn cancel(&self) {
        self.shared.desk().status = TuneStatus::Cancelled;
        self.shared.pauses.cancel();
    }

    /// Wait until all winners offered so far were dealt with.
    pub fn wait_for_winners(&self) {
        let mut desk = self.shared.desk();
        while desk.waiting > 0 {
            desk = self.shared.woken(desk);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the session's thread panicked");
        }
    }
}

/// The session's thread.
struct Worker {
    shared: Arc<Shared>,
    device: Device,
    store: Arc<Mutex<Store>>,
    winners: Arc<Winners>,
    state: Weak<Mutex<State>>,
    options: TuneOptions,
    rig: Option<Rig>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // After a panic, too: nobody is to wait for what will not come.
        self.shared.close();
    }
}

impl Worker {
    fn work(&mut self) {
        while let Some(offer) = self.next() {
            self.compile(&offer);
            let was_tuned = self.tune(offer);
            let desk = self.shared.desk();
            if desk.closed {
                return;
            }
            let is_last = desk.offers.is_empty();
            drop(desk);
            match was_tuned {
                Ok(()) if is_last => self.shared.tell(TuneStatus::Idle),
                Ok(()) => {}
                Err(error) => {
                    if self.shared.desk().status != TuneStatus::Cancelled {
                        tracing::warn!(%error, "tuning stopped; runs go on with what was known");
                    }
                    self.shared.tell(TuneStatus::Failed(error.to_string()));
                    self.rig = None;
                }
            }
        }
    }

    fn next(&self) -> Option<Offer> {
        let mut desk = self.shared.desk();
        loop {
            if desk.closed {
                return None;
            }
            if let Some(offer) = desk.offers.pop_front() {
                return Some(offer);
            }
            desk = self.shared.woken(desk);
        }
    }

    /// Compile the winners that wait, each in a pause, and have runs use them.
    fn compile(&self, offer: &Offer) {
        for one in &offer.waiting {
            if let Err(error) = self.compile_one(offer, one) {
                // The plan is gone, the session ends or the device is lost: another run may offer it again.
                tracing::debug!(schedule = %one.schedule, %error, "a stored winner was not compiled");
                self.winners.give_back(&one.key);
            }
            let mut desk = self.shared.desk();
            desk.waiting = desk.waiting.saturating_sub(1);
            drop(desk);
            self.shared.changed.notify_all();
        }
    }

    /// Compile what a winner wants, and run it once: some drivers compile at the first dispatch.
    ///
    /// # Errors
    /// When it cannot be tried. What is tried and does not work is told to the store.
    fn compile_one(&self, Offer { plan, symbols, .. }: &Offer, one: &Waiting) -> Result<()> {
        let device = &self.device;
        let wish = |spec: &KernelSpec, sizes: &[i64]| {
            (self.winners.key(spec, sizes) == one.key).then(|| one.schedule.clone())
        };
        let texts = {
            let _alone = self.shared.pauses.alone()?;
            self.with(plan, |prepared| prepared.new_texts(device, symbols, &wish))?
        };
        let label = texts.first().map_or("", |text| &text.label);
        // Drivers that compile here do so while runs go on.
        let compiled = texts.iter().map(|text| device.rendered(text)).collect::<Result<Vec<_>>>();
        let _alone = self.shared.pauses.alone()?;
        let works = match compiled {
            Ok(kernels) => {
                let run = self.with(plan, |prepared| Ok(prepared.record_as(device, symbols, &wish)))?;
                run.and_then(|run| {
                    let all = &run.recording.dispatches;
                    let first = |kernel| {
                        all.iter().find(|dispatch: &&Dispatch| Arc::ptr_eq(kernel, &dispatch.kernel)).cloned()
                    };
                    let dispatches = kernels.iter().filter_map(first).collect();
                    device.run(&Recording { dispatches, readbacks: Vec::new() })
                })
            }
            Err(error) => Err(error),
        };
        match works {
            Ok(_) => self.winners.ready(&one.key),
            Err(error) if device.is_lost() => return Err(error),
            Err(error) => self.winners.fail(&one.key, &one.schedule, label, &error)?,
        }
        // Runs choose anew.
        let state = self.state.upgrade().ok_or_else(cancelled)?;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.model.plans_mut().iter_mut().for_each(|planned| planned.kept.forget_runs());
        Ok(())
    }

    fn tune(&mut self, offer: Offer) -> Result<()> {
        let Offer { plan, symbols, mut jobs, .. } = offer;
        let shared = self.shared.clone();
        let pace = &shared.pauses;
        let (device, store, options) = (self.device.clone(), self.store.clone(), self.options.clone());
        let winners = self.winners.clone();
        let tuning =
            Tuning { device: &device, store: &store, winners: &winners, options: &options, all: false };
        jobs.retain(|job| !tuning.is_known(job));
        if jobs.is_empty() {
            return Ok(());
        }
        let rig = match &mut self.rig {
            Some(rig) => rig,
            none => none.insert(Rig::new(&device, &store, pace)?),
        };
        let kernels = jobs.len();
        let trials = tuning.measure(rig, &jobs, Duration::ZERO, pace, &mut |progress| {
            shared.tell(TuneStatus::Tuning { done: progress.kernel, kernels });
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
        tuning.confirm(rig, &playing, finals, trials, pace, &mut |finals, heat| {
            pace.wait()?;
            let _alone = pace.alone()?;
            self.with(&plan, |prepared| playing.commands(prepared, &symbols, finals, heat))
        })?;
        drop(kept);
        let _alone = pace.alone()?;
        self.with(&plan, |prepared| {
            prepared.forget_runs();
            Ok(())
        })
    }

    /// What the session keeps with a plan, between two runs.
    fn with<T>(&self, plan: &Arc<Plan>, work: impl FnOnce(&mut Prepared) -> Result<T>) -> Result<T> {
        let state = self.state.upgrade().ok_or_else(cancelled)?;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || Error::model("session", "the plan is no longer in use");
        work(state.model.kept(plan).ok_or_else(gone)?)
    }
}
