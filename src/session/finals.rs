//! Plays the finals of a run's kernels on the session's device; [`Finals`] says what to time and decides.

use std::collections::HashMap;
use std::time::Instant;

use super::jobs::Job;
use super::prepared::{Prepared, Run};
use super::rig::Pace;
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::kernel::KernelSpec;
use crate::plan::Plan;
use crate::tune::{Finals, Heat, Timing};

/// A run whose kernels are in the finals.
pub struct Playing<'a> {
    pub device: &'a Device,
    pub plan: &'a Plan,
    pub jobs: &'a [Job],
    /// When to leave it at the rounds there were.
    pub deadline: Option<Instant>,
}

/// Writes down the run of a heat.
pub type Commands<'a> = &'a mut dyn FnMut(&Finals, &Heat) -> Result<Run>;

impl Playing<'_> {
    /// Commands of a run in which each job has its finalist, and every other kernel what it has anyway.
    pub fn commands(&self, prepared: &mut Prepared, like: &Run, finals: &Finals, heat: &Heat) -> Result<Run> {
        let wish = |spec: &KernelSpec, sizes: &[i64]| {
            let same = |job: &Job| job.sizes == sizes && job.spec == *spec;
            let job = self.jobs.iter().position(same)?;
            finals.finalist(job, heat.finalists[job]).cloned()
        };
        prepared.record_as(self.device, like, &wish)
    }

    /// Play until all is decided. Where runs fail under others than the defaults, these stay.
    ///
    /// # Errors
    /// When a run of the defaults fails, the device is lost, or the pace ends.
    pub fn play(&self, finals: &mut Finals, pace: &dyn Pace, commands: Commands) -> Result<()> {
        let mut runs: HashMap<Vec<usize>, Run> = HashMap::new();
        while let Some(heat) = finals.next(self.deadline.is_some_and(|deadline| Instant::now() > deadline)) {
            if !runs.contains_key(&heat.finalists) {
                match commands(finals, &heat) {
                    Ok(run) => drop(runs.insert(heat.finalists.clone(), run)),
                    Err(error) => {
                        self.fail(finals, &heat, pace, error)?;
                        continue;
                    }
                }
            }
            pace.wait()?;
            match self.timed(&runs[&heat.finalists], heat.timing) {
                // What a run of somebody else disturbed is done again.
                Ok(times_ns) if pace.undisturbed() => finals.record(&times_ns),
                Ok(_) => {}
                Err(error) => self.fail(finals, &heat, pace, error)?,
            }
        }
        Ok(())
    }

    fn fail(&self, finals: &mut Finals, heat: &Heat, pace: &dyn Pace, error: Error) -> Result<()> {
        if heat.is_default() || self.device.is_lost() || pace.wait().is_err() {
            return Err(error);
        }
        finals.fail(&error.to_string());
        Ok(())
    }

    /// Nanoseconds of the run, as a heat wants them.
    fn timed(&self, run: &Run, timing: Timing) -> Result<Vec<u64>> {
        match timing {
            Timing::Jobs => {
                let mut total_ns = vec![0; self.jobs.len()];
                let times = self.device.profile(&run.recording)?.unwrap_or_default();
                for (&step, ns) in run.steps.iter().zip(times) {
                    if let Some(job) = self.job_of(run, step) {
                        total_ns[job] += ns;
                    }
                }
                Ok(total_ns)
            }
            Timing::Whole => {
                let start = Instant::now();
                self.device.run(&run.recording)?;
                Ok(vec![start.elapsed().as_nanos() as u64])
            }
        }
    }

    /// The job that a step of the plan belongs to.
    fn job_of(&self, run: &Run, step: usize) -> Option<usize> {
        let step = &self.plan.steps[step];
        let sizes = run.sizes(step);
        self.jobs.iter().position(|job| job.kernel == step.kernel && job.sizes == sizes)
    }
}
