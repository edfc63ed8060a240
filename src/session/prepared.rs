//! A plan with its device resources: weights, kernels, arenas, and the recorded commands per shape.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::convert::{from_device, to_device};
use super::windows::{self, Part, Range};
use super::{Progress, Stage};
use crate::error::{Error, Result};
use crate::expr::{Expr, Value, write_element};
use crate::gpu::{BindGroup, Binding, Buffer, Device, Dispatch, Kernel, Readback, Recording};
use crate::kernel::{KernelSpec, Schedule, candidates, grid, storage_bytes};
use crate::plan::{Layout, Origin, Plan, PlanOutput, Source, Step, SymbolValues, TensorId};
use crate::tensor::{DType, Tensor};
use crate::tune::{Key, Store};
use crate::wgsl::{self, Bound, Dialect, Target};

type OnProgress<'a> = Option<&'a (dyn Fn(Progress) + Send + Sync)>;

/// Uploaded constants, shared by all plans of a session.
#[derive(Default)]
pub struct Weights {
    uploaded: HashMap<WeightKey, (Tensor, Range)>,
}

/// The address and length of a constant's bytes on the host, and the dtype that the device holds it as.
type WeightKey = (usize, usize, DType);

/// A constant to upload.
struct Wanted<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    dtype: DType,
    size_bytes: u64,
}

impl Wanted<'_> {
    fn key(&self) -> WeightKey {
        Weights::key(self.tensor, self.dtype)
    }
}

/// Weights are packed into buffers of at most this size.
const WEIGHT_BUFFER_BYTES: u64 = 256 << 20;

impl Weights {
    fn key(tensor: &Tensor, dtype: DType) -> WeightKey {
        (tensor.bytes().as_ptr() as usize, tensor.bytes().len(), dtype)
    }

    /// Free what none of `plans` uses.
    pub fn retain<'a>(&mut self, plans: impl Iterator<Item = &'a Plan>) {
        let used: HashSet<_> = plans
            .flat_map(|plan| &plan.tensors)
            .filter_map(|tensor| match &tensor.origin {
                Origin::Weight(data) => Some(Weights::key(data, tensor.dtype)),
                Origin::Input(_) | Origin::Once | Origin::Run => None,
            })
            .collect();
        self.uploaded.retain(|key, _| used.contains(key));
    }

    /// Upload those of `wanted` that are not there yet.
    fn upload(
        &mut self,
        device: &Device,
        wanted: &[Wanted],
        progress: OnProgress,
    ) -> Result<()> {
        let caps = device.caps();
        let alignment = caps.storage_offset_alignment as u64;
        let mut new: Vec<_> = wanted.iter().filter(|w| !self.uploaded.contains_key(&w.key())).collect();
        new.sort_by_key(|w| w.key());
        new.dedup_by_key(|w| w.key());
        let total = new.iter().map(|w| w.size_bytes).sum();
        let mut done = 0;
        let mut rest = new.as_slice();
        while !rest.is_empty() {
            let limit = WEIGHT_BUFFER_BYTES.min(caps.max_buffer_bytes);
            let (mut end, mut offsets) = (0u64, Vec::new());
            for w in rest {
                let offset = end.next_multiple_of(alignment);
                if !offsets.is_empty() && offset + w.size_bytes > limit {
                    break;
                }
                offsets.push(offset);
                end = offset + w.size_bytes;
            }
            let (now, later) = rest.split_at(offsets.len());
            let buffer = device.buffer("weights", end)?;
            for (w, &offset_bytes) in now.iter().zip(&offsets) {
                let bytes = to_device(w.name, w.tensor, w.dtype, caps.floats())?;
                device.write(&buffer, offset_bytes, &bytes)?;
                let range = Range { buffer: buffer.clone(), offset_bytes, size_bytes: w.size_bytes };
                self.uploaded.insert(w.key(), (w.tensor.clone(), range));
                done += w.size_bytes;
                if let Some(progress) = progress {
                    progress(Progress { stage: Stage::Upload, done, total });
                }
            }
            rest = later;
        }
        Ok(())
    }
}

/// A compiled kernel under one schedule.
struct Compiled {
    kernel: Arc<Kernel>,
    bound: Vec<Bound>,
    source: String,
}

/// The WGSL of a kernel.
#[derive(Clone, Debug)]
pub struct KernelText {
    /// The kernel's name in the plan.
    pub label: String,
    /// The schedule it was rendered for.
    pub schedule: Schedule,
    /// The text.
    pub wgsl: String,
}

/// The time of one dispatch.
#[derive(Clone, Debug)]
pub struct StepTime {
    /// The kernel's name in the plan.
    pub kernel: String,
    /// The value it computed.
    pub output: String,
    /// Time on the device.
    pub elapsed_ns: u64,
}

/// Commands for one set of dimensions.
#[derive(Clone)]
pub struct Run {
    pub recording: Recording,
    pub layout: Arc<Layout>,
    symbols: SymbolValues,
    /// The plan's step behind each dispatch.
    pub steps: Vec<usize>,
    /// Where each tensor read back begins in the list of outputs.
    read: Vec<TensorId>,
}

impl Run {
    /// A step's run-time parameters.
    pub fn sizes(&self, step: &Step) -> Vec<i64> {
        step.params.iter().map(|p| self.symbols.get(p).copied().unwrap_or(0)).collect()
    }
}

/// A plan with everything that does not change from run to run.
pub struct Prepared {
    pub plan: Arc<Plan>,
    stored: HashMap<TensorId, Range>,
    /// By kernel, which of its inputs are windowed, and schedule.
    compiled: HashMap<(usize, Option<Vec<bool>>, Schedule), Compiled>,
    inputs: Vec<Option<Buffer>>,
    arenas: Vec<Buffer>,
    runs: Vec<Run>,
    store: Arc<Mutex<Store>>,
}

/// Shapes whose recorded commands are kept.
const RUNS_KEPT: usize = 16;

impl Prepared {
    /// Upload the plan's constants and compute what depends on them alone.
    pub fn new(
        device: &Device,
        plan: Plan,
        weights: &mut Weights,
        store: Arc<Mutex<Store>>,
        progress: OnProgress,
    ) -> Result<Prepared> {
        let caps = device.caps();
        let mut wanted = Vec::new();
        for tensor in &plan.tensors {
            if let Origin::Weight(data) = &tensor.origin {
                let bytes = crate::plan::bound_bytes(data.len(), storage_bytes(tensor.dtype, caps.floats()));
                let limit = caps.max_buffer_bytes;
                if bytes > limit {
                    let message = format!(
                        "weight of shape {:?} takes {bytes} bytes, the device's largest buffer {limit}",
                        data.shape()
                    );
                    return Err(Error::limit(format!("tensor {:?}", tensor.name), message));
                }
                let dtype = tensor.dtype;
                wanted.push(Wanted { name: &tensor.name, tensor: data, dtype, size_bytes: bytes });
            }
        }
        weights.upload(device, &wanted, progress)?;
        let mut stored = HashMap::new();
        for (id, tensor) in plan.tensors.iter().enumerate() {
            if let Origin::Weight(data) = &tensor.origin
                && let Some((_, range)) = weights.uploaded.get(&Weights::key(data, tensor.dtype))
            {
                stored.insert(id, range.clone());
            }
        }
        let inputs = vec![None; plan.inputs.len()];
        let mut prepared = Prepared {
            plan: Arc::new(plan),
            stored,
            compiled: HashMap::new(),
            inputs,
            arenas: Vec::new(),
            runs: Vec::new(),
            store,
        };
        prepared.run_once(device, progress)?;
        Ok(prepared)
    }

    /// The steps that depend on constants alone.
    fn run_once(&mut self, device: &Device, progress: OnProgress) -> Result<()> {
        let plan = self.plan.clone();
        let once = |step: &&Step| matches!(plan.tensors[step.output].origin, Origin::Once);
        let steps: Vec<&Step> = plan.steps.iter().filter(once).collect();
        if steps.is_empty() {
            return Ok(());
        }
        let none = SymbolValues::new();
        for step in &steps {
            let tensor = &plan.tensors[step.output];
            let dims = crate::plan::shape(&tensor.shape, &none, &tensor.name)?;
            let bytes = crate::plan::bound_bytes(
                dims.iter().product(),
                storage_bytes(tensor.dtype, device.caps().floats()),
            );
            let buffer = device.buffer(&tensor.name, bytes)?;
            self.stored.insert(step.output, Range { buffer, offset_bytes: 0, size_bytes: bytes });
        }
        let ranges = self.stored.clone();
        let (dispatches, _) =
            self.dispatches(device, &steps, &none, |t| ranges.get(&t).cloned(), progress)?;
        device.run(&Recording { dispatches, readbacks: Vec::new() })?;
        Ok(())
    }

    /// Sizes of the symbols under these inputs.
    fn symbols(&self, feeds: &[Tensor]) -> SymbolValues {
        let size = |(input, axis): (usize, usize)| feeds[input].shape().get(axis).map_or(0, |&d| d as i64);
        self.plan.symbols().into_iter().map(|(name, at)| (name, size(at))).collect()
    }

    /// Whether the sizes are what planning assumed.
    pub fn guards_hold(&self, feeds: &[Tensor]) -> Result<bool> {
        Ok(self.broken_guard(feeds)?.is_none())
    }

    fn broken_guard(&self, feeds: &[Tensor]) -> Result<Option<String>> {
        let symbols = self.symbols(feeds);
        for guard in &self.plan.guards {
            let left = crate::plan::size(&guard.left, &symbols, &guard.place)?;
            let right = crate::plan::size(&guard.right, &symbols, &guard.place)?;
            if left != right {
                return Ok(Some(format!(
                    "{}: {} is {left} and {} is {right}, and they must be equal",
                    guard.place, guard.left, guard.right
                )));
            }
        }
        Ok(None)
    }

    /// The error for inputs whose sizes contradict each other.
    pub fn guard_error(&self, feeds: &[Tensor]) -> Error {
        match self.broken_guard(feeds) {
            Ok(Some(message)) => Error::model("inputs", message),
            Ok(None) => Error::model("inputs", "their sizes do not fit the model"),
            Err(error) => error,
        }
    }

    /// Upload the inputs and give the commands for their shapes.
    pub fn start(&mut self, device: &Device, feeds: &[Tensor], progress: OnProgress) -> Result<Run> {
        let symbols = self.symbols(feeds);
        let run = match self.runs.iter().position(|run| run.symbols == symbols) {
            Some(position) => {
                let run = self.runs.remove(position);
                self.runs.push(run.clone());
                run
            }
            None => {
                let run = self.record(device, symbols, progress)?;
                if self.runs.len() >= RUNS_KEPT {
                    self.runs.remove(0);
                }
                self.runs.push(run.clone());
                run
            }
        };
        for (input, feed) in feeds.iter().enumerate() {
            if let (Some(buffer), Some(tensor)) = (&self.inputs[input], self.plan.inputs[input]) {
                let planned = &self.plan.tensors[tensor];
                let bytes = to_device(&planned.name, feed, planned.dtype, device.caps().floats())?;
                device.write(buffer, 0, &bytes)?;
            }
        }
        Ok(run)
    }

    /// Allocate for these dimensions and write down the commands.
    fn record(&mut self, device: &Device, symbols: SymbolValues, progress: OnProgress) -> Result<Run> {
        let plan = self.plan.clone();
        let layout = plan.layout(&symbols, device.caps())?;
        self.grow(device, &layout)?;
        let (stored, inputs, arenas) = (self.stored.clone(), self.inputs.clone(), self.arenas.clone());
        let range = |t: TensorId| {
            let size_bytes = layout.size_bytes[t];
            match plan.tensors[t].origin {
                Origin::Weight(_) | Origin::Once => stored.get(&t).cloned(),
                Origin::Input(number) => {
                    inputs[number].clone().map(|buffer| Range { buffer, offset_bytes: 0, size_bytes })
                }
                Origin::Run => layout.places.get(&t).map(|place| Range {
                    buffer: arenas[place.arena].clone(),
                    offset_bytes: place.offset_bytes,
                    size_bytes,
                }),
            }
        };
        let numbered: Vec<(usize, &Step)> = plan
            .steps
            .iter()
            .enumerate()
            .filter(|(_, step)| matches!(plan.tensors[step.output].origin, Origin::Run))
            .collect();
        let each_run: Vec<&Step> = numbered.iter().map(|(_, step)| *step).collect();
        let (dispatches, kept) = self.dispatches(device, &each_run, &symbols, range, progress)?;
        let steps = kept.into_iter().map(|i| numbered[i].0).collect();
        let (mut readbacks, mut read) = (Vec::new(), Vec::new());
        for output in &plan.outputs {
            let Source::Device(t) = output.source else { continue };
            let missing = || Error::model(&output.name, "the output has no memory");
            let Range { buffer, offset_bytes, .. } = range(t).ok_or_else(missing)?;
            let len: usize = layout.shapes[t].iter().product();
            let size_bytes = (len * storage_bytes(plan.tensors[t].dtype, device.caps().floats())) as u64;
            readbacks.push(Readback { buffer, offset_bytes, size_bytes });
            read.push(t);
        }
        let recording = Recording { dispatches, readbacks };
        Ok(Run { recording, layout: Arc::new(layout), symbols, steps, read })
    }

    /// Make inputs and arenas large enough. Commands recorded for buffers that were replaced are dropped.
    fn grow(&mut self, device: &Device, layout: &Layout) -> Result<()> {
        let mut replaced = false;
        for (input, tensor) in self.plan.inputs.iter().enumerate() {
            let Some(tensor) = *tensor else { continue };
            let bytes = layout.size_bytes[tensor];
            if self.inputs[input].as_ref().is_none_or(|b| b.size_bytes() < bytes) {
                self.inputs[input] = Some(device.buffer(&self.plan.tensors[tensor].name, bytes)?);
                replaced = true;
            }
        }
        for (arena, &bytes) in layout.arena_bytes.iter().enumerate() {
            let label = format!("arena {arena}");
            if arena == self.arenas.len() {
                self.arenas.push(device.buffer(&label, bytes)?);
            } else if self.arenas[arena].size_bytes() < bytes {
                self.runs.clear();
                self.arenas[arena] = device.buffer(&label, bytes)?;
            }
        }
        if replaced {
            self.runs.clear();
        }
        Ok(())
    }

    /// The dispatches of `steps`, those of nothing left out, and the positions of those kept.
    fn dispatches(
        &mut self,
        device: &Device,
        steps: &[&Step],
        symbols: &SymbolValues,
        range: impl Fn(TensorId) -> Option<Range>,
        progress: OnProgress,
    ) -> Result<(Vec<Dispatch>, Vec<usize>)> {
        let plan = self.plan.clone();
        let mut params = Params::new(device);
        let mut ready = Vec::new();
        for (position, step) in steps.iter().enumerate() {
            let kernel = &plan.kernels[step.kernel];
            let sizes: Vec<i64> = step.params.iter().map(|p| symbols.get(p).copied().unwrap_or(0)).collect();
            let memory = |t: &TensorId| {
                range(*t)
                    .ok_or_else(|| Error::model(&plan.tensors[*t].name, "a tensor of the plan has no memory"))
            };
            let inputs = step.inputs.iter().map(memory).collect::<Result<Vec<_>>>()?;
            let output = memory(&step.output)?;
            for part in windows::parts(device.caps(), &plan, step, &sizes, inputs, output)? {
                let spec = part.split.as_ref().map_or(&kernel.spec, |split| &split.spec);
                let schedule = self.schedule(device, spec, &part.sizes);
                let schedule = schedule
                    .ok_or_else(|| Error::limit(&kernel.label, "no legal schedule on this device"))?;
                let workgroups = grid(&kernel.label, spec, &schedule, &part.sizes, device.caps())?;
                if workgroups.contains(&0) {
                    continue;
                }
                let params_at = params.add(&part.sizes);
                ready.push((position, part, schedule, workgroups, params_at));
            }
        }
        let total = ready.len() as u64;
        let uniform = params.upload()?;
        let (mut dispatches, mut kept) = (Vec::new(), Vec::new());
        for (position, part, schedule, workgroups, (offset_bytes, size_bytes)) in ready {
            let compiled = self.compile(device, steps[position].kernel, &part, schedule)?;
            let mut bindings = Vec::new();
            for bound in &compiled.bound {
                let binding = match bound {
                    Bound::Input(i) => part.inputs.get(*i).map(Range::binding),
                    Bound::Output => Some(part.output.binding()),
                    Bound::Params => {
                        uniform.as_ref().map(|buffer| Binding { buffer, offset_bytes, size_bytes })
                    }
                };
                let label = &plan.kernels[steps[position].kernel].label;
                bindings.push(binding.ok_or_else(|| Error::model(label, "a binding has no memory"))?);
            }
            let kernel = compiled.kernel.clone();
            let group: BindGroup = device.bind(&kernel, &bindings)?;
            dispatches.push(Dispatch { kernel, bindings: Arc::new(group), workgroups });
            kept.push(position);
            if let Some(progress) = progress {
                progress(Progress { stage: Stage::Compile, done: dispatches.len() as u64, total });
            }
        }
        Ok((dispatches, kept))
    }

    /// The schedule that was measured to be the fastest, where there is one and it is legal here, else the default.
    fn schedule(&self, device: &Device, spec: &KernelSpec, sizes: &[i64]) -> Option<Schedule> {
        let legal = candidates(spec, sizes, device.caps());
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if !store.is_empty()
            && let Some(winner) = store.winner(&Key::new(spec, sizes, device.info()))
            && legal.contains(winner)
        {
            return Some(winner.clone());
        }
        legal.into_iter().next()
    }

    /// Forget the recorded commands: the next run chooses schedules anew.
    pub fn forget_runs(&mut self) {
        self.runs.clear();
    }

    fn compile(
        &mut self,
        device: &Device,
        kernel: usize,
        part: &Part,
        schedule: Schedule,
    ) -> Result<&Compiled> {
        let key = (kernel, part.windowed.clone(), schedule);
        if !self.compiled.contains_key(&key) {
            let target = Target { floats: device.caps().floats(), dialect: Dialect::Naga };
            let planned = &self.plan.kernels[kernel];
            let spec = part.split.as_ref().map_or(&planned.spec, |split| &split.spec);
            let rendered = wgsl::render(&planned.label, spec, &key.2, target)?;
            tracing::debug!(target: "tilewright::wgsl", kernel = planned.label, "{}", rendered.shader.source);
            let compiled = Compiled {
                kernel: device.kernel(&rendered.shader)?,
                bound: rendered.bound,
                source: rendered.shader.source,
            };
            self.compiled.insert(key.clone(), compiled);
        }
        self.compiled.get(&key).ok_or_else(|| Error::model("session", "kernel lost"))
    }

    /// The outputs, from what was read back.
    pub fn finish(&self, device: &Device, run: &Run, read: Vec<Vec<u8>>) -> Result<Vec<(String, Tensor)>> {
        let mut read = run.read.iter().zip(read);
        let mut outputs = Vec::new();
        for output in &self.plan.outputs {
            let shape = crate::plan::shape(&output.shape, &run.symbols, &output.name)?;
            let tensor = match &output.source {
                Source::Constant(tensor) => tensor.clone(),
                Source::Host(content) => host_tensor(output, &shape, content, &run.symbols)?,
                Source::Device(_) => {
                    let missing = || Error::model(&output.name, "was not read back");
                    let (&held, bytes) = read.next().ok_or_else(missing)?;
                    let (held, floats) = (self.plan.tensors[held].dtype, device.caps().floats());
                    from_device(&output.name, output.dtype, &shape, bytes, held, floats)?
                }
            };
            outputs.push((output.name.clone(), tensor));
        }
        debug_assert_eq!(run.layout.shapes.len(), self.plan.tensors.len());
        Ok(outputs)
    }

    /// Times by step.
    pub fn step_times(&self, run: &Run, times: &[u64]) -> Vec<StepTime> {
        let step = |(&step, &elapsed_ns): (&usize, &u64)| {
            let step = &self.plan.steps[step];
            StepTime {
                kernel: self.plan.kernels[step.kernel].label.clone(),
                output: self.plan.tensors[step.output].name.clone(),
                elapsed_ns,
            }
        };
        run.steps.iter().zip(times).map(step).collect()
    }

    /// The text of every kernel compiled so far.
    pub fn texts(&self) -> Vec<KernelText> {
        let text = |((kernel, _, schedule), compiled): (&(usize, Option<Vec<bool>>, Schedule), &Compiled)| {
            KernelText {
                label: self.plan.kernels[*kernel].label.clone(),
                schedule: schedule.clone(),
                wgsl: compiled.source.clone(),
            }
        };
        let mut texts: Vec<KernelText> = self.compiled.iter().map(text).collect();
        texts.sort_by(|a, b| a.label.cmp(&b.label));
        texts
    }
}

/// A graph output whose elements are sizes and constants.
fn host_tensor(
    output: &PlanOutput,
    shape: &[usize],
    content: &[Expr],
    symbols: &SymbolValues,
) -> Result<Tensor> {
    struct Sizes<'a>(&'a SymbolValues);
    impl crate::expr::Env for Sizes<'_> {
        fn symbol(&mut self, name: &str) -> Option<i64> {
            self.0.get(name).copied()
        }
        fn var(&mut self, _: u32) -> Option<i64> {
            None
        }
        fn load(&mut self, _: u32, _: &[i64]) -> Option<Value> {
            None
        }
        fn arg(&mut self, _: u32) -> Option<Value> {
            None
        }
    }
    let mut bytes = Vec::new();
    for (i, element) in content.iter().enumerate() {
        let value = crate::expr::eval(element, &mut Sizes(symbols));
        if !value.is_some_and(|v| write_element(output.dtype, i, v, &mut bytes)) {
            return Err(Error::model(&output.name, format!("{element} is not known at run time")));
        }
    }
    Tensor::new(output.dtype, shape, bytes)
}

/// The run-time parameters of all steps in one uniform buffer; equal ones stand there once.
struct Params<'a> {
    device: &'a Device,
    bytes: Vec<u8>,
    at: BTreeMap<Vec<i64>, (u64, u64)>,
}

impl<'a> Params<'a> {
    fn new(device: &'a Device) -> Self {
        Params { device, bytes: Vec::new(), at: BTreeMap::new() }
    }

    /// Offset and size of these parameters.
    fn add(&mut self, sizes: &[i64]) -> (u64, u64) {
        if sizes.is_empty() {
            return (0, 0);
        }
        let alignment = self.device.caps().uniform_offset_alignment.max(16) as usize;
        let bytes = &mut self.bytes;
        *self.at.entry(sizes.to_vec()).or_insert_with(|| {
            bytes.resize(bytes.len().next_multiple_of(alignment), 0);
            let offset = bytes.len() as u64;
            sizes.iter().for_each(|&size| bytes.extend((size as i32).to_le_bytes()));
            bytes.resize(bytes.len().next_multiple_of(16), 0);
            (offset, bytes.len() as u64 - offset)
        })
    }

    fn upload(&self) -> Result<Option<Buffer>> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let buffer = self.device.uniform("parameters", self.bytes.len() as u64)?;
        self.device.write(&buffer, 0, &self.bytes)?;
        Ok(Some(buffer))
    }
}
