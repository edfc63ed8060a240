//! Tuning by a host: which kernels of a run are worth it, and a race of candidates for each, step by step. The host
//! measures in the run's own memory, with the data that the run has there.

use std::time::Duration;

use serde::Serialize;
use wasm_bindgen::prelude::wasm_bindgen;

use super::json::{Fault, to_json};
use super::{Core, chooser, planned, recorder};
use crate::commands::{Commands, encode};
use crate::error::{Error, Result};
use crate::expr::read_element;
use crate::kernel::{KernelSpec, Schedule, broken_rule, candidates, stored};
use crate::tensor::DType;
use crate::tune::{
    FORMAT, Key, Line, Outcome, Record, Search, SearchOptions, Step, Task, Trial, difference, with_priors,
};

/// A kernel at sizes.
#[derive(Clone)]
pub struct Job {
    /// The first of its steps.
    step: usize,
    pub kernel: usize,
    label: String,
    output: String,
    pub spec: KernelSpec,
    pub sizes: Vec<i64>,
    uses: usize,
    total_ns: u64,
    /// What came of its race.
    pub record: Option<Record>,
}

impl Job {
    /// The trials of its race, once that is over.
    pub fn trials(&self) -> &[Trial] {
        self.record.as_ref().map_or(&[], |record| &record.trials)
    }
}

/// A race under way.
pub struct Race {
    number: usize,
    job: Job,
    search: Search,
    step: Option<Step>,
    /// The default's output.
    reference: Vec<f64>,
}

/// A [`Job`] as the host sees it.
#[derive(Serialize)]
struct JobText<'a> {
    label: &'a str,
    output: &'a str,
    step: usize,
    uses: usize,
    total_ns: u64,
}

/// What to do next in a race; the commands are in [`Core::words`], what they write is read back.
#[derive(Serialize)]
struct StepText {
    trial: usize,
    schedule: String,
    check: bool,
    /// What a dispatch took before, if anything did.
    guess_ns: Option<u64>,
}

/// A [`Trial`] as the host sees it.
#[derive(Serialize)]
pub struct TrialText<'a> {
    schedule: String,
    status: &'a crate::tune::Status,
    best_ns: Option<u64>,
    samples_ns: &'a [u64],
    compile_ns: u64,
}

impl<'a> From<&'a Trial> for TrialText<'a> {
    fn from(trial: &'a Trial) -> Self {
        TrialText {
            schedule: trial.schedule.to_string(),
            status: &trial.status,
            best_ns: trial.best_ns(),
            samples_ns: &trial.samples_ns,
            compile_ns: trial.compile_ns,
        }
    }
}

#[wasm_bindgen]
impl Core {
    /// Take in tuning records, one a line; later runs use them.
    pub fn read_records(&mut self, lines: &str) {
        self.records.read(lines);
    }

    /// The kernels of the run prepared last, those that take most of it first: JSON. `step_ns` holds the time of each
    /// step of the plan in a run.
    ///
    /// # Errors
    /// Without a run.
    pub fn jobs(&mut self, step_ns: &[f64]) -> Result<String, Fault> {
        let (number, symbols) =
            self.last.clone().ok_or_else(|| Error::model("tune", "nothing was run yet"))?;
        let plan = planned(&mut self.model, number)?.plan.clone();
        let layout = plan.layout(&symbols, &self.caps)?;
        let mut jobs: Vec<Job> = Vec::new();
        for (number, step) in plan.steps.iter().enumerate() {
            let total_ns = step_ns.get(number).copied().unwrap_or(0.0) as u64;
            let mut tensors = step.inputs.iter().chain([&step.output]);
            // What is reached through windows is left as it is, as is what does not run every time.
            if total_ns == 0 || tensors.any(|&t| layout.size_bytes[t] > self.caps.max_storage_binding_bytes) {
                continue;
            }
            let sizes = crate::commands::sizes(step, &symbols);
            if let Some(job) = jobs.iter_mut().find(|job| job.kernel == step.kernel && job.sizes == sizes) {
                job.uses += 1;
                job.total_ns += total_ns;
                continue;
            }
            let (kernel, tensor) = (&plan.kernels[step.kernel], &plan.tensors[step.output]);
            jobs.push(Job {
                step: number,
                kernel: step.kernel,
                label: kernel.label.clone(),
                output: format!("{} {} {:?}", tensor.name, tensor.dtype, layout.shapes[step.output]),
                spec: kernel.spec.clone(),
                sizes,
                uses: 1,
                total_ns,
                record: None,
            });
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job.total_ns));
        self.jobs = jobs;
        let texts = self.jobs.iter().map(|Job { label, output, step, uses, total_ns, .. }| JobText {
            label,
            output,
            step: *step,
            uses: *uses,
            total_ns: *total_ns,
        });
        Ok(to_json(&texts.collect::<Vec<_>>())?)
    }

    /// Begin the race of a job's candidates.
    ///
    /// # Errors
    /// For a job that does not exist.
    pub fn race(&mut self, number: usize, budget_ms: f64, most_candidates: usize) -> Result<(), Fault> {
        let job =
            self.jobs.get(number).ok_or_else(|| Error::model("tune", "there is no such kernel"))?.clone();
        let key = Key::new(&job.spec, &job.sizes, &self.platform);
        let legal = candidates(&job.spec, &job.sizes, &self.caps);
        let ordered = with_priors(&legal, &self.records.priors(&key, self.platform.kind), |prior| {
            broken_rule(&job.spec, prior, &job.sizes, &self.caps).is_none()
        });
        let budget = Duration::try_from_secs_f64(budget_ms / 1e3).unwrap_or(Duration::MAX);
        let options = SearchOptions { budget, most_candidates, ..SearchOptions::default() };
        let search = Search::new(&ordered, options);
        self.race = Some(Race { number, job, search, step: None, reference: Vec::new() });
        Ok(())
    }

    /// What to do next, after so many milliseconds at work: JSON, `null` when the race is over.
    ///
    /// # Errors
    /// When the default itself cannot be written down; another candidate's failure is recorded in its trial.
    pub fn race_next(&mut self, spent_ms: f64) -> Result<String, Fault> {
        let spent = Duration::try_from_secs_f64(spent_ms / 1e3).unwrap_or(Duration::MAX);
        loop {
            let race = self.race.as_mut().ok_or_else(no_race)?;
            let Some(step) = race.search.next(spent) else { return Ok("null".into()) };
            race.step = Some(step.clone());
            let job = race.job.clone();
            match self.candidate(&job, &step.schedule).and_then(|commands| encode(&commands)) {
                Ok(words) => self.words = words,
                Err(error) if step.trial == 0 => return Err(error.into()),
                Err(error) => {
                    self.race_failed(&error.to_string())?;
                    continue;
                }
            }
            let (check, guess_ns) = match step.task {
                Task::Check => (true, None),
                Task::Sample { guess_ns } => (false, guess_ns),
            };
            let schedule = step.schedule.to_string();
            return Ok(to_json(&StepText { trial: step.trial, schedule, check, guess_ns })?);
        }
    }

    /// The step's output, and how long it took until it was there.
    ///
    /// # Errors
    /// Without a race.
    pub fn race_checked(&mut self, output: &[u8], elapsed_ns: f64) -> Result<(), Fault> {
        let floats = self.caps.floats();
        let race = self.race.as_mut().ok_or_else(no_race)?;
        let Some(step) = race.step.take() else { return Ok(()) };
        let output = numbers(stored(race.job.spec.output, floats), output);
        let differs = if step.trial == 0 {
            race.reference = output;
            None
        } else {
            difference(&race.job.spec, &race.reference, &output)
        };
        race.search.record(&step, Outcome::Checked { difference: differs, compile_ns: elapsed_ns as u64 });
        Ok(())
    }

    /// The time of one dispatch.
    ///
    /// # Errors
    /// Without a race.
    pub fn race_sampled(&mut self, ns: f64) -> Result<(), Fault> {
        let race = self.race.as_mut().ok_or_else(no_race)?;
        if let Some(step) = race.step.take() {
            race.search.record(&step, Outcome::Sampled((ns as u64).max(1)));
        }
        Ok(())
    }

    /// The step's candidate cannot be compiled or run.
    ///
    /// # Errors
    /// Without a race.
    pub fn race_failed(&mut self, why: &str) -> Result<(), Fault> {
        let race = self.race.as_mut().ok_or_else(no_race)?;
        if let Some(step) = race.step.take() {
            race.search.record(&step, Outcome::Failed(why.into()));
        }
        Ok(())
    }

    /// The trials so far: JSON.
    ///
    /// # Errors
    /// Without a race.
    pub fn race_trials(&self) -> Result<String, Fault> {
        let race = self.race.as_ref().ok_or_else(no_race)?;
        Ok(to_json(&race.search.trials().iter().map(TrialText::from).collect::<Vec<_>>())?)
    }

    /// End the race. Runs use its winner until the finals say otherwise.
    ///
    /// # Errors
    /// Without a race.
    pub fn race_end(&mut self, unix_seconds: f64) -> Result<(), Fault> {
        let Race { number, job, search, .. } = self.race.take().ok_or_else(no_race)?;
        let record = Record {
            format: FORMAT,
            key: Key::new(&job.spec, &job.sizes, &self.platform),
            kind: self.platform.kind,
            label: format!("{} {}", job.label, job.output),
            trials: search.into_trials(),
            in_model_ns: None,
            unix_seconds: unix_seconds as u64,
        };
        self.records.insert(Line::Kernel(record.clone()));
        if let Some(job) = self.jobs.get_mut(number) {
            job.record = Some(record);
        }
        Ok(())
    }

    /// The commands of a job's step under `schedule`, its output read back.
    fn candidate(&mut self, job: &Job, schedule: &Schedule) -> Result<Commands> {
        let (number, symbols) = self.last.clone().ok_or_else(no_race)?;
        let others = chooser(&self.records, &self.platform, &self.caps);
        let choose = |spec: &KernelSpec, sizes: &[i64]| {
            if *spec == job.spec && *sizes == job.sizes { schedule.clone() } else { others(spec, sizes) }
        };
        let planned = planned(&mut self.model, number)?;
        let plan = planned.plan.clone();
        let kernels = &mut planned.kept.kernels;
        let (mut commands, _) = recorder(&plan, &self.caps, &choose, kernels, |r| r.run(&symbols))?;
        commands.dispatches.retain(|dispatch| dispatch.step == job.step);
        // The output is bound to the last of a step's passes, after its inputs and before its parameters.
        let last = commands.dispatches.last().map(|dispatch| (dispatch, &kernels.texts()[dispatch.kernel]));
        let output = last.and_then(|(dispatch, text)| {
            let bound = &text.rendered.bound;
            let at = bound.iter().position(|bound| matches!(bound, crate::wgsl::Bound::Output))?;
            dispatch.bindings.get(at).copied()
        });
        commands.readbacks = output.into_iter().collect();
        Ok(commands)
    }
}

fn no_race() -> Error {
    Error::model("tune", "no race is under way")
}

fn numbers(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let len = bytes.len() * 8 / dtype.bits().max(1);
    (0..len).map(|i| read_element(dtype, bytes, i).map_or(f64::NAN, |v| v.to_f64())).collect()
}
