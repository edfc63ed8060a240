//! Where kernels are measured: a device of its own, so that a candidate that hangs or crashes takes nothing with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::jobs::Job;
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::kernel::{Limit, Peaks, Schedule, broken_rule, space};
use crate::tune::{
    Bench, FORMAT, Line, PeaksRecord, Platform, Race, Record, SearchOptions, Status, Store, Sweep, Trial,
    peaks, with_priors,
};

/// Devices opened anew after bad candidates, in one tuning: a driver that goes on failing is left alone.
const MOST_DEVICES: usize = 8;
/// Shares of the roofline from which on the roofline is in doubt: caches lift a kernel above it a little.
const BEYOND: f64 = 1.25;
/// How long a candidate may take, at the least and at the most.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(10);
/// Nanoseconds that lavapipe takes to compile what costs 1: half a second for a text of 28,000 characters.
const CPU_COMPILE_NS: f64 = 100.0;
/// How long a fresh device may take to show that it works.
const ALIVE: Duration = Duration::from_secs(10);

/// Says when a step may begin, and afterwards whether the device was left alone meanwhile.
pub trait Pace {
    /// Returns when the next step may begin.
    ///
    /// # Errors
    /// When there is to be no next step.
    fn wait(&self) -> Result<()>;

    /// Whether nothing else ran since [`Pace::wait`] returned.
    fn undisturbed(&self) -> bool;
}

/// Without regard to anybody.
pub struct AtOnce;

impl Pace for AtOnce {
    fn wait(&self) -> Result<()> {
        Ok(())
    }

    fn undisturbed(&self) -> bool {
        true
    }
}

/// A device to measure on.
pub struct Rig {
    beside: Device,
    device: Device,
    sweep: Sweep,
    opened: usize,
    /// Whether the peaks were measured a second time.
    checked: bool,
    /// What each kernel compiled so far took, by its cost.
    rates: Vec<f64>,
    pub peaks: Peaks,
    pub platform: Platform,
    store: Arc<Mutex<Store>>,
}

impl Rig {
    /// Beside the session's device. The adapter's peaks come from the store, or are measured and kept there.
    pub fn new(beside: &Device, store: &Arc<Mutex<Store>>, pace: &dyn Pace) -> Result<Rig> {
        pace.wait()?;
        let device = beside.apart()?;
        let sweep = Sweep::new(&device)?;
        let platform = Platform::from(beside.info());
        let known = locked(store).peaks(&platform).cloned();
        let is_new = known.is_none();
        let peaks = match known {
            Some(peaks) => peaks,
            None => peaks(&device, &|| pace.wait())?,
        };
        let (beside, store) = (beside.clone(), store.clone());
        let rig = Rig {
            beside,
            device,
            sweep,
            opened: 1,
            checked: false,
            rates: Vec::new(),
            peaks,
            platform,
            store,
        };
        if is_new {
            rig.keep_peaks()?;
        }
        Ok(rig)
    }

    /// Measure the candidates of a kernel; how long it took, without the pauses. `tell` hears of every trial as it changes.
    ///
    /// # Errors
    /// When the default cannot run, the pace ends, or no device works any more. Candidates' failures are recorded.
    pub fn measure(
        &mut self,
        job: &Job,
        budget: Duration,
        most_candidates: usize,
        pace: &dyn Pace,
        tell: &mut dyn FnMut(&[Trial]),
    ) -> Result<(Vec<Trial>, Duration)> {
        self.revive()?;
        let (spec, sizes) = (&job.spec, &job.sizes);
        let options = SearchOptions {
            budget,
            most_candidates,
            // Who wants all of them wants those, too, that follow one as fast as the device can be.
            enough_ns: (most_candidates < usize::MAX).then(|| self.peaks.enough_ns(&job.work)),
            // A candidate that hangs must leave time for the others.
            limit: (budget / 2).clamp(SHORTEST, LONGEST),
            compile_ns: self.compile_ns(),
        };
        let list = self.candidates(job);
        let mut bench = Bench::new(&self.device, &job.label, spec, sizes, &job.input_lens, job.output_len)?;
        // What computes more than it moves is as fast with cold caches, and cold caches take time.
        if self.peaks.limit(&job.work) == Limit::Bytes {
            bench = bench.with_cold_caches(&self.sweep);
        }
        let mut race = Race::new(&mut bench, &list, options);
        loop {
            pace.wait()?;
            if !race.step(&|| pace.undisturbed())? {
                break;
            }
            tell(race.trials());
        }
        let spent = race.spent();
        self.rates.extend(race.compile_rates());
        let trials = race.into_trials();
        for trial in &trials {
            if let Status::Wrong(why) | Status::Failed(why) = &trial.status {
                tracing::warn!(kernel = job.label, schedule = %trial.schedule, why, "a candidate is unusable");
            }
        }
        self.check_peaks(job, &trials, pace)?;
        Ok((trials, spent))
    }

    /// A kernel that beats the roofline shows that the peaks were measured on a busy machine: measure again, and keep
    /// the better. At most once in a tuning.
    fn check_peaks(&mut self, job: &Job, trials: &[Trial], pace: &dyn Pace) -> Result<()> {
        let best_ns = trials.iter().filter_map(Trial::best_ns).min().unwrap_or(u64::MAX);
        if self.checked || self.peaks.share(&job.work, best_ns) < BEYOND {
            return Ok(());
        }
        self.checked = true;
        let again = peaks(&self.device, &|| pace.wait())?;
        self.peaks = self.peaks.best(&again);
        self.keep_peaks()
    }

    fn keep_peaks(&self) -> Result<()> {
        tracing::info!(peaks = ?self.peaks, "measured what the adapter can do at best");
        let (platform, peaks) = (self.platform.clone(), self.peaks.clone());
        locked(&self.store).add(Line::Peaks(PeaksRecord {
            format: FORMAT,
            platform,
            peaks,
            unix_seconds: now(),
        }))
    }

    /// What a unit of cost takes to compile: the mean so far. The driver's cache makes many compilations look cheap, so
    /// on CPU adapters, whose compilers are slow, it is at least what they are known to take.
    fn compile_ns(&self) -> f64 {
        let mean = self.rates.iter().sum::<f64>() / self.rates.len().max(1) as f64;
        if self.device.caps().cpu { mean.max(CPU_COMPILE_NS) } else { mean }
    }

    /// The legal schedules in the order in which they are tried: the default, what won here before, what won
    /// elsewhere, the rest by estimate.
    fn candidates(&self, job: &Job) -> Vec<Schedule> {
        let (spec, sizes, caps) = (&job.spec, &job.sizes, self.device.caps());
        let list = space(spec, sizes, caps, &self.peaks).kept;
        let store = locked(&self.store);
        let own = store.winner(&job.key).into_iter();
        let priors: Vec<&Schedule> = own.chain(store.priors(&job.key, self.platform.kind)).collect();
        with_priors(&list, &priors, |prior| broken_rule(spec, prior, sizes, caps).is_none())
    }

    /// Keep what was found.
    pub fn keep(&self, job: &Job, trials: &[Trial], in_model_ns: Option<[u64; 2]>) -> Result<()> {
        locked(&self.store).add(Line::Kernel(Record {
            format: FORMAT,
            key: job.key.clone(),
            kind: self.platform.kind,
            label: format!("{} {}", job.label, job.output),
            trials: trials.to_vec(),
            in_model_ns,
            unix_seconds: now(),
        }))
    }

    /// Another device where a candidate took the last one with it.
    fn revive(&mut self) -> Result<()> {
        // What was not finished in its own time is not waited for again.
        let mut patience = Duration::from_millis(100);
        while !matches!(self.device.settle(patience), Ok(true)) {
            patience = ALIVE;
            if self.opened == MOST_DEVICES {
                return Err(Error::Device {
                    place: "tuning".into(),
                    message: format!("{MOST_DEVICES} devices hang or are lost; tuning stops"),
                });
            }
            self.opened += 1;
            let fresh = self.beside.apart()?;
            std::mem::replace(&mut self.device, fresh).abandon();
            self.sweep = Sweep::new(&self.device)?;
        }
        Ok(())
    }
}

fn locked(store: &Mutex<Store>) -> std::sync::MutexGuard<'_, Store> {
    // Records are added whole: a panic between two of them does no harm.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
