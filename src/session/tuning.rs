//! Tuning a session's kernels: measure the candidates of each, confirm the winners in whole runs, keep them for the
//! next runs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Session;
use super::finals::{Commands, Playing};
use super::jobs::Job;
use super::prepared::Prepared;
use super::recorded::Run;
use super::request::Input;
use super::rig::{AtOnce, Pace, Rig};
use super::winners::Winners;
use crate::error::Result;
use crate::gpu::Device;
use crate::kernel::{Peaks, Work};
use crate::tensor::Tensor;
use crate::tune::{Finals, Key, Platform, Store, Trial, winner};

/// When a session tunes its kernels.
#[derive(Clone, Debug, Default)]
pub enum TuneMode {
    /// Never by itself: kernels run with stored winners, or with their defaults. A winner that takes longer to compile
    /// than it saves in a run is compiled after the first answer, between runs, and used from then on; see
    /// [`Session::wait_for_winners`].
    #[default]
    Off,
    /// After the first answer, on a thread of its own, in the time between runs. A run goes on at once, while at most
    /// one sample of the tuner's is still on the device; winners are swapped in between runs, stored ones as in
    /// [`TuneMode::Off`].
    Background(TuneOptions),
    /// Before the first run of each plan and size, which uses all stored winners.
    Full(TuneOptions),
}

/// How much to tune.
#[derive(Clone, Debug)]
pub struct TuneOptions {
    /// Time for all kernels together, shared out by the time that each takes in a run.
    pub budget: Duration,
    /// Candidates per kernel, the default included; `usize::MAX` tries all, also after one that is as fast as the device can
    /// be.
    pub most_candidates: usize,
}

impl Default for TuneOptions {
    fn default() -> Self {
        TuneOptions { budget: Duration::from_secs(30), most_candidates: 16 }
    }
}

/// How far tuning has got: one kernel's trials so far.
#[derive(Debug)]
pub struct TuneProgress<'a> {
    /// Number of the kernel, from 0.
    pub kernel: usize,
    /// Number of kernels.
    pub kernels: usize,
    /// The kernel's name in the plan.
    pub label: &'a str,
    /// Its trials, the default first.
    pub trials: &'a [Trial],
}

/// A kernel at the sizes of the inputs given, and its trials.
#[derive(Clone, Debug)]
pub struct TunedKernel {
    /// The kernel's name in the plan.
    pub label: String,
    /// What it computes first, as `gelu_5 float32 [1, 128, 1536]`.
    pub output: String,
    /// Dispatches of it in a run.
    pub uses: usize,
    /// What it is measured for.
    pub key: Key,
    /// Every candidate, the default first.
    pub trials: Vec<Trial>,
    /// What it must do at the least.
    pub work: Work,
    /// Time of all its dispatches in a run of the whole model, by default and under the winner, where both were timed
    /// there.
    pub in_model_ns: Option<[u64; 2]>,
}

impl TunedKernel {
    /// The best time of the default schedule.
    pub fn default_ns(&self) -> Option<u64> {
        self.trials.first().and_then(Trial::best_ns)
    }

    /// The best time of the winner.
    pub fn best_ns(&self) -> Option<u64> {
        winner(&self.trials).and_then(Trial::best_ns)
    }
}

/// What tuning found.
#[derive(Clone, Debug)]
pub struct TuneReport {
    /// The kernels, those that take most of a run first.
    pub kernels: Vec<TunedKernel>,
    /// What the adapter can do at best.
    pub peaks: Peaks,
    /// Time of a whole run by default, with the readback of outputs: the best of a few.
    pub before_ns: u64,
    /// The same under the winners. Never more than by default, but for noise: winners that make the whole slower are
    /// rejected.
    pub after_ns: u64,
}

/// Profiles of a run before tuning; the best counts.
const PROFILES: usize = 3;
/// The part of a budget that is for kernels on their own; the rest is for whole runs.
const ALONE: f64 = 0.8;

impl Session {
    /// Measure the candidates of every kernel at the sizes of `inputs`, and use the winners from the next run on.
    /// With [`super::SessionOptions::records`], what is learned is kept for later sessions.
    ///
    /// A candidate wins only if its output agrees with the default schedule's; what cannot be compiled or run is
    /// recorded with its error and passed over. Winners are confirmed in whole runs.
    ///
    /// # Errors
    /// As [`Session::run`]; [`crate::Error::Io`] when the records cannot be written.
    pub fn tune(
        &self,
        inputs: &[(&str, &Tensor)],
        options: &TuneOptions,
        progress: &mut dyn FnMut(TuneProgress),
    ) -> Result<TuneReport> {
        let _turn = self.turn();
        let mut state = self.lock();
        let feeds = self.feeds(&state, self.all_of(inputs))?;
        // Where a run has several stages, the first is tuned.
        let prepared = self.first(&mut state, &feeds)?;
        let (device, store, winners) = (&self.device, &self.store, &self.winners);
        let tuning = Tuning { device, store, winners, options, all: true };
        tuning.tune(prepared, &feeds, progress)
    }
}

/// What a tuning works with.
pub struct Tuning<'a> {
    pub device: &'a Device,
    pub store: &'a Arc<Mutex<Store>>,
    pub winners: &'a Winners,
    pub options: &'a TuneOptions,
    /// Whether kernels that have a record are measured again.
    pub all: bool,
}

impl Tuning<'_> {
    /// Tune the kernels of a run with these inputs, here and now.
    pub fn tune(
        &self,
        prepared: &mut Prepared,
        feeds: &[Input],
        progress: &mut dyn FnMut(TuneProgress),
    ) -> Result<TuneReport> {
        let start = Instant::now();
        let deadline = start.checked_add(self.options.budget);
        let (device, caps) = (self.device, self.device.caps());
        let run = prepared.start(device, feeds, &Default::default(), None)?;
        // Some drivers compile at the first dispatch.
        device.run(&run.recording)?;
        let times = profile(device, &run)?;
        let platform = Platform::from(device.info());
        let mut jobs = prepared.jobs(&run, times.as_deref(), caps, &platform);
        if !self.all {
            jobs.retain(|job| !self.is_known(job));
        }
        let mut rig = Rig::new(device, self.store, &AtOnce)?;
        let trials = self.measure(&mut rig, &jobs, start.elapsed(), &AtOnce, progress)?;
        let playing = Playing { device, plan: &prepared.plan.clone(), jobs: &jobs, deadline };
        let finals = Finals::new(&trials, caps.timestamps.then_some(0));
        let confirmed = self.confirm(&rig, &playing, finals, trials, &AtOnce, &mut |finals, heat| {
            playing.commands(prepared, &run.recorded.symbols, finals, heat)
        })?;
        prepared.forget_runs();
        let Confirmed { trials, in_model_ns, whole_ns: [before_ns, after_ns] } = confirmed;
        let kernels =
            jobs.into_iter().zip(trials).zip(in_model_ns).map(|((job, trials), in_model_ns)| TunedKernel {
                label: job.label,
                output: job.output,
                uses: job.uses,
                key: job.key,
                work: job.work,
                trials,
                in_model_ns,
            });
        Ok(TuneReport { kernels: kernels.collect(), peaks: rig.peaks, before_ns, after_ns })
    }

    pub fn is_known(&self, job: &Job) -> bool {
        self.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&job.key).is_some()
    }

    /// Measure the kernels on their own. The budget is shared out by the time that each takes in a run; what one leaves
    /// is for those after it. Pauses do not count; `spent` was spent before. Of kernels that cannot be measured there are
    /// no trials.
    pub fn measure(
        &self,
        rig: &mut Rig,
        jobs: &[Job],
        mut spent: Duration,
        pace: &dyn Pace,
        progress: &mut dyn FnMut(TuneProgress),
    ) -> Result<Vec<Vec<Trial>>> {
        let mut all = Vec::new();
        let mut time_left: u64 = jobs.iter().map(|job| job.total_ns).sum();
        for (number, job) in jobs.iter().enumerate() {
            let share = job.total_ns as f64 / time_left.max(1) as f64;
            let left = self.options.budget.mul_f64(ALONE).saturating_sub(spent);
            let budget = Duration::try_from_secs_f64(left.as_secs_f64() * share).unwrap_or(left);
            time_left -= job.total_ns;
            let mut tell = |trials: &[Trial]| {
                progress(TuneProgress { kernel: number, kernels: jobs.len(), label: &job.label, trials });
            };
            let (trials, took) = match rig.measure(job, budget, self.options.most_candidates, pace, &mut tell)
            {
                Ok(measured) => measured,
                Err(error) if pace.wait().is_err() => return Err(error),
                Err(error) => {
                    tracing::warn!(kernel = job.label, %error, "a kernel cannot be measured");
                    (Vec::new(), Duration::ZERO)
                }
            };
            all.push(trials);
            spent += took;
        }
        Ok(all)
    }

    /// Have the winners confirmed in whole runs and keep what was found.
    pub fn confirm(
        &self,
        rig: &Rig,
        playing: &Playing,
        mut finals: Finals,
        mut trials: Vec<Vec<Trial>>,
        pace: &dyn Pace,
        commands: Commands,
    ) -> Result<Confirmed> {
        playing.play(&mut finals, pace, commands)?;
        if let Some(why) = finals.overruled() {
            tracing::warn!(why, "the defaults stay");
        }
        let in_model_ns = finals.settle(&mut trials);
        for ((job, trials), pair) in playing.jobs.iter().zip(&trials).zip(&in_model_ns) {
            if !trials.is_empty() {
                rig.keep(job, trials, *pair)?;
                // Compiled for the finals.
                self.winners.ready(&job.key);
            }
        }
        Ok(Confirmed { trials, in_model_ns, whole_ns: finals.whole_ns() })
    }
}

/// The kernels' trials after the finals.
pub struct Confirmed {
    pub trials: Vec<Vec<Trial>>,
    /// By job: time of all its dispatches in a run, by default and under the winner.
    pub in_model_ns: Vec<Option<[u64; 2]>>,
    /// A whole run by default and under the winners.
    pub whole_ns: [u64; 2],
}

/// Time of each dispatch in the best of a few runs; `None` where the device has no timestamps.
fn profile(device: &Device, run: &Run) -> Result<Option<Vec<u64>>> {
    let mut best: Option<Vec<u64>> = None;
    for _ in 0..PROFILES {
        let Some(now) = device.profile(&run.recording)? else { return Ok(None) };
        if best.as_ref().is_none_or(|best| now.iter().sum::<u64>() < best.iter().sum()) {
            best = Some(now);
        }
    }
    Ok(best)
}
