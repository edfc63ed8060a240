//! Tuning a session's kernels in place: measure the candidates of each, keep the winners for the next runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Session;
use crate::error::{Error, Result};
use crate::kernel::candidates;
use crate::plan::Plan;
use crate::tensor::Tensor;
use crate::tune::{Bench, Key, Record, SearchOptions, Status, Trial, search, winner};

/// How much to tune.
#[derive(Clone, Debug)]
pub struct TuneOptions {
    /// Time for all kernels together, shared out by the time that each takes in a run.
    pub budget: Duration,
    /// Candidates per kernel, the default included.
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
    /// Time on the device of a whole run before, the best of a few.
    pub before_ns: u64,
    /// The same after.
    pub after_ns: u64,
}

/// A kernel to tune.
struct Job {
    step: usize,
    sizes: Vec<i64>,
    uses: usize,
    total_ns: u64,
    input_lens: Vec<usize>,
    output_len: usize,
    shape: Vec<usize>,
}

/// Whole runs timed before and after.
const WHOLE_RUNS: usize = 3;

impl Session {
    /// Measure the candidates of every kernel at the sizes of `inputs`, and use the winners from the next run on.
    /// With [`super::SessionOptions::records`], what is learned is kept for later sessions.
    ///
    /// A candidate wins only if its output agrees with the default schedule's; what cannot be compiled or run is
    /// recorded with its error and passed over.
    ///
    /// # Errors
    /// As [`Session::run`]; [`Error::Io`] when the records cannot be written.
    pub fn tune(
        &self,
        inputs: &[(&str, &Tensor)],
        options: &TuneOptions,
        progress: &mut dyn FnMut(TuneProgress),
    ) -> Result<TuneReport> {
        let start = Instant::now();
        let mut state = self.lock();
        let feeds = super::feeds(&state.model, inputs)?;
        let device = &self.device;
        let prepared = self.ready(&mut state, &feeds)?;
        let plan = prepared.plan.clone();
        let run = prepared.start(device, &feeds, self.progress())?;
        // Some drivers compile at the first dispatch.
        device.run(&run.recording)?;
        let (before_ns, times) = prepared.whole_run(device, &run, WHOLE_RUNS)?;
        let jobs = prepared.jobs(&run, &times, device.caps().max_storage_binding_bytes);
        let mut kernels = Vec::new();
        let mut time_left: u64 = jobs.iter().map(|job| job.total_ns).sum();
        for (number, job) in jobs.iter().enumerate() {
            let kernel = &plan.kernels[plan.steps[job.step].kernel];
            let share = job.total_ns as f64 / time_left.max(1) as f64;
            let left = options.budget.saturating_sub(start.elapsed());
            let budget = Duration::try_from_secs_f64(left.as_secs_f64() * share).unwrap_or(left);
            time_left -= job.total_ns;
            let list = candidates(&kernel.spec, &job.sizes, device.caps());
            let key = Key::new(&kernel.spec, &job.sizes, device.info());
            let search_options = SearchOptions { budget, most_candidates: options.most_candidates };
            let mut tell = |trials: &[Trial]| {
                let label = &kernel.label;
                progress(TuneProgress { kernel: number, kernels: jobs.len(), label, trials });
            };
            let mut bench =
                Bench::new(device, &kernel.label, &kernel.spec, &job.sizes, &job.input_lens, job.output_len)?;
            let trials = search(&mut bench, &list, &search_options, &mut tell)?;
            for trial in &trials {
                if let Status::Wrong(why) | Status::Failed(why) = &trial.status {
                    tracing::warn!(kernel = kernel.label, schedule = %trial.schedule, why, "a candidate is unusable");
                }
            }
            let output = describe(&plan, job);
            kernels.push(TunedKernel { label: kernel.label.clone(), output, uses: job.uses, key, trials });
        }
        let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        {
            let mut store = self.store();
            for kernel in &kernels {
                let (key, label) = (kernel.key.clone(), format!("{} {}", kernel.label, kernel.output));
                let trials = kernel.trials.clone();
                store.add(Record { format: crate::tune::FORMAT, key, label, trials, unix_seconds })?;
            }
        }
        prepared.forget_runs();
        let run = prepared.start(device, &feeds, self.progress())?;
        device.run(&run.recording)?;
        let (after_ns, _) = prepared.whole_run(device, &run, WHOLE_RUNS)?;
        Ok(TuneReport { kernels, before_ns, after_ns })
    }
}

fn describe(plan: &Plan, job: &Job) -> String {
    let tensor = &plan.tensors[plan.steps[job.step].output];
    format!("{} {} {:?}", tensor.name, tensor.dtype, job.shape)
}

impl super::prepared::Prepared {
    /// The best total of a few timed runs, and the time of each dispatch in it.
    fn whole_run(
        &self,
        device: &crate::gpu::Device,
        run: &super::prepared::Run,
        times: usize,
    ) -> Result<(u64, Vec<u64>)> {
        let mut best: Option<Vec<u64>> = None;
        for _ in 0..times {
            let now = match device.profile(&run.recording)? {
                Some(now) => now,
                // Without timestamps every dispatch counts the same.
                None => {
                    let start = Instant::now();
                    device.run(&run.recording)?;
                    let each =
                        start.elapsed().as_nanos() as u64 / run.recording.dispatches.len().max(1) as u64;
                    vec![each; run.recording.dispatches.len()]
                }
            };
            if best.as_ref().is_none_or(|b| now.iter().sum::<u64>() < b.iter().sum()) {
                best = Some(now);
            }
        }
        let best = best.ok_or_else(|| Error::model("tune", "nothing was timed"))?;
        Ok((best.iter().sum(), best))
    }

    /// The kernels of a run, those that take most of it first. Those whose tensors are
    /// reached through windows are left as they are.
    fn jobs(&self, run: &super::prepared::Run, times: &[u64], max_binding_bytes: u64) -> Vec<Job> {
        // A step may take several passes.
        let mut elapsed_ns: BTreeMap<usize, u64> = BTreeMap::new();
        for (&step, &ns) in run.steps.iter().zip(times) {
            *elapsed_ns.entry(step).or_default() += ns;
        }
        let mut jobs: Vec<Job> = Vec::new();
        for (number, elapsed_ns) in elapsed_ns {
            let step = &self.plan.steps[number];
            let mut tensors = step.inputs.iter().chain([&step.output]);
            if tensors.any(|&t| run.layout.size_bytes[t] > max_binding_bytes) {
                continue;
            }
            let sizes = run.sizes(step);
            let same = |job: &&mut Job| self.plan.steps[job.step].kernel == step.kernel && job.sizes == sizes;
            if let Some(job) = jobs.iter_mut().find(same) {
                job.uses += 1;
                job.total_ns += elapsed_ns;
                continue;
            }
            let len = |t: &usize| run.layout.shapes[*t].iter().product();
            jobs.push(Job {
                step: number,
                sizes,
                uses: 1,
                total_ns: elapsed_ns,
                input_lens: step.inputs.iter().map(len).collect(),
                output_len: len(&step.output),
                shape: run.layout.shapes[step.output].clone(),
            });
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job.total_ns));
        jobs
    }
}
