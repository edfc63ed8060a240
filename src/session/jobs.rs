//! The kernels of a run, as things to tune: each once, whatever the number of its dispatches.

use std::collections::BTreeMap;

use super::prepared::Prepared;
use super::recorded::Run;
use crate::kernel::Peaks;
use crate::kernel::{Caps, KernelSpec, Work, default_schedule, estimate_ns, size};
use crate::tune::{Key, Platform};

/// A kernel at sizes.
#[derive(Clone, Debug)]
pub struct Job {
    /// The kernel's name in the plan.
    pub label: String,
    /// What it computes first, as `gelu_5 float32 [1, 128, 1536]`.
    pub output: String,
    pub spec: KernelSpec,
    pub sizes: Vec<i64>,
    pub key: Key,
    /// Dispatches of it in a run.
    pub uses: usize,
    /// Time of them all in a run.
    pub total_ns: u64,
    pub input_lens: Vec<usize>,
    pub output_len: usize,
    pub work: Work,
    /// Its number in the plan.
    pub kernel: usize,
}

impl Prepared {
    /// The kernels of a run, those that take most of it first. Those whose tensors are
    /// reached through windows are left as they are. `times` are of each dispatch, where they are known; estimates
    /// stand in for them.
    pub fn jobs(&self, run: &Run, times: Option<&[u64]>, caps: &Caps, platform: &Platform) -> Vec<Job> {
        // A step may take several passes.
        let mut steps: BTreeMap<usize, u64> = BTreeMap::new();
        for (position, &step) in run.recorded.steps.iter().enumerate() {
            *steps.entry(step).or_default() +=
                times.and_then(|times| times.get(position)).copied().unwrap_or(0);
        }
        let (peaks, layout) = (Peaks::typical(caps), &run.recorded.layout);
        let mut jobs: Vec<Job> = Vec::new();
        for (number, elapsed_ns) in steps {
            // What is done in place has one schedule.
            if run.recorded.keep.in_place.contains(&number) {
                continue;
            }
            let step = &self.plan.steps[number];
            let mut tensors = step.inputs.iter().chain([&step.output]);
            if tensors.any(|&t| layout.size_bytes[t] > caps.max_storage_binding_bytes) {
                continue;
            }
            let (kernel, sizes) = (&self.plan.kernels[step.kernel], run.recorded.sizes(step));
            let spec = &kernel.spec;
            let elapsed_ns = match times {
                Some(_) => elapsed_ns,
                None => {
                    let default = default_schedule(spec, &sizes, caps);
                    estimate_ns(spec, &default, &sizes, caps, &peaks) as u64
                }
            };
            let same = |job: &&mut Job| job.kernel == step.kernel && job.sizes == sizes;
            if let Some(job) = jobs.iter_mut().find(same) {
                job.uses += 1;
                job.total_ns += elapsed_ns;
                continue;
            }
            let len = |t: &usize| layout.shapes[*t].iter().product();
            let input_lens: Vec<usize> = step.inputs.iter().map(len).collect();
            let tensor = &self.plan.tensors[step.output];
            let shape = &layout.shapes[step.output];
            jobs.push(Job {
                label: kernel.label.clone(),
                output: format!("{} {} {shape:?}", tensor.name, tensor.dtype),
                key: Key::new(spec, &sizes, platform),
                uses: 1,
                total_ns: elapsed_ns,
                work: Work::of(spec, &sizes, &input_lens, len(&step.output), caps.floats()),
                // Of a stack, one slice.
                output_len: size(&spec.output_len(), &sizes) as usize,
                input_lens,
                kernel: step.kernel,
                spec: spec.clone(),
                sizes,
            });
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job.total_ns));
        jobs
    }
}
