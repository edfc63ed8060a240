//! Finals in whole runs, by a host that times them: after the races of the run's kernels.

use serde::Serialize;
use wasm_bindgen::prelude::wasm_bindgen;

use super::json::{Fault, to_json};
use super::tuning::TrialText;
use super::{Core, chooser, planned, recorder};
use crate::commands::{Commands, encode};
use crate::error::{Error, Result};
use crate::kernel::KernelSpec;
use crate::tune::{Finals, Heat, Line, Timing};

/// Finals under way.
pub struct Playing {
    finals: Finals,
    heat: Option<Heat>,
    /// By dispatch of the heat's run, the job that it belongs to.
    job_of: Vec<Option<usize>>,
}

/// The next run to time; its commands are in [`Core::words`].
#[derive(Serialize)]
struct HeatText {
    /// Time the run, not its dispatches.
    whole: bool,
    /// Nothing but defaults: it cannot fail.
    is_default: bool,
}

/// What came of the finals.
#[derive(Serialize)]
struct Ended<'a> {
    /// By job.
    kernels: Vec<EndedJob<'a>>,
    /// Time of a whole run by default and under the winners.
    whole_ns: [u64; 2],
    /// The tuning records, one a line.
    records: String,
}

#[derive(Serialize)]
struct EndedJob<'a> {
    trials: Vec<TrialText<'a>>,
    in_model_ns: Option<[u64; 2]>,
}

#[wasm_bindgen]
impl Core {
    /// Begin the finals of the jobs whose races are over. Times of dispatches say something from `shortest_ns` on; without
    /// it there are none.
    pub fn finals(&mut self, shortest_ns: Option<f64>) {
        let trials: Vec<_> = self.jobs.iter().map(|job| job.trials().to_vec()).collect();
        let finals = Finals::new(&trials, shortest_ns.map(|ns| ns as u64));
        self.playing = Some(Playing { finals, heat: None, job_of: Vec::new() });
    }

    /// The next run to time, and as few as may be where time is up: JSON, `null` when all is decided.
    ///
    /// # Errors
    /// When the run of the defaults cannot be written down.
    pub fn finals_next(&mut self, is_late: bool) -> Result<String, Fault> {
        loop {
            let playing = self.playing.as_mut().ok_or_else(no_finals)?;
            playing.heat = playing.finals.next(is_late);
            let Some(heat) = playing.heat.clone() else { return Ok("null".into()) };
            match self.heat_commands(&heat).and_then(|commands| encode(&commands)) {
                Ok(words) => self.words = words,
                Err(error) if heat.is_default() => return Err(error.into()),
                Err(error) => {
                    self.finals_failed(&error.to_string())?;
                    continue;
                }
            }
            let (whole, is_default) = (heat.timing == Timing::Whole, heat.is_default());
            return Ok(to_json(&HeatText { whole, is_default })?);
        }
    }

    /// Nanoseconds of the run: of each dispatch, or one number for the whole.
    ///
    /// # Errors
    /// Without finals.
    pub fn finals_timed(&mut self, times_ns: &[f64]) -> Result<(), Fault> {
        let jobs = self.jobs.len();
        let playing = self.playing.as_mut().ok_or_else(no_finals)?;
        let Some(heat) = playing.heat.take() else { return Ok(()) };
        let times_ns = times_ns.iter().map(|ns| *ns as u64);
        match heat.timing {
            Timing::Whole => playing.finals.record(&times_ns.collect::<Vec<_>>()),
            Timing::Jobs => {
                let mut total_ns = vec![0; jobs];
                for (job, ns) in playing.job_of.iter().zip(times_ns) {
                    if let Some(job) = *job {
                        total_ns[job] += ns;
                    }
                }
                playing.finals.record(&total_ns);
            }
        }
        Ok(())
    }

    /// The run cannot be done.
    ///
    /// # Errors
    /// Without finals.
    pub fn finals_failed(&mut self, why: &str) -> Result<(), Fault> {
        let playing = self.playing.as_mut().ok_or_else(no_finals)?;
        if playing.heat.take().is_some() {
            playing.finals.fail(why);
        }
        Ok(())
    }

    /// End the finals. Their records are JSON, and later runs use them.
    ///
    /// # Errors
    /// Without finals.
    pub fn finals_end(&mut self) -> Result<String, Fault> {
        let Playing { finals, .. } = self.playing.take().ok_or_else(no_finals)?;
        let mut trials: Vec<_> = self.jobs.iter().map(|job| job.trials().to_vec()).collect();
        let in_model_ns = finals.settle(&mut trials);
        let mut records = String::new();
        for ((job, trials), pair) in self.jobs.iter_mut().zip(trials).zip(&in_model_ns) {
            let Some(record) = &mut job.record else { continue };
            (record.trials, record.in_model_ns) = (trials, *pair);
            let line = Line::Kernel(record.clone());
            records.push_str(&line.text()?);
            records.push('\n');
            self.records.insert(line);
        }
        let jobs = self.jobs.iter().zip(in_model_ns);
        let kernels = jobs.map(|(job, in_model_ns)| EndedJob {
            trials: job.trials().iter().map(TrialText::from).collect(),
            in_model_ns,
        });
        let kernels = kernels.collect();
        Ok(to_json(&Ended { kernels, whole_ns: finals.whole_ns(), records })?)
    }

    /// The commands of the run in which each job has its finalist.
    fn heat_commands(&mut self, heat: &Heat) -> Result<Commands> {
        let playing = self.playing.as_mut().ok_or_else(no_finals)?;
        let (number, symbols) = self.last.clone().ok_or_else(no_finals)?;
        let others = chooser(&self.records, &self.platform, &self.caps);
        let choose = |spec: &KernelSpec, sizes: &[i64]| {
            let job = self.jobs.iter().position(|job| *spec == job.spec && *sizes == job.sizes);
            let finalist = job.and_then(|job| playing.finals.finalist(job, heat.finalists[job]));
            finalist.cloned().unwrap_or_else(|| others(spec, sizes))
        };
        let planned = planned(&mut self.model, number)?;
        let plan = planned.plan.clone();
        let kernels = &mut planned.kept.kernels;
        let (commands, _) = recorder(&plan, &self.caps, &choose, kernels, |r| r.run(&symbols))?;
        let job_of = |step: usize| {
            let step = &plan.steps[step];
            let sizes = crate::commands::sizes(step, &symbols);
            self.jobs.iter().position(|job| job.kernel == step.kernel && job.sizes == sizes)
        };
        playing.job_of = commands.dispatches.iter().map(|dispatch| job_of(dispatch.step)).collect();
        Ok(commands)
    }
}

fn no_finals() -> Error {
    Error::model("tune", "no finals are under way")
}
