//! A plan with its device resources: weights, kernels, arenas, and the recorded commands per shape.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::stages::{Earlier, Resident};
use super::{Progress, Stage};
use crate::commands::{self, Commands, Kernels, Memory, Produced, Range, Recorder, from_device, to_device};
use crate::error::{Error, Result};
use crate::gpu::{Binding, Buffer, Device, Dispatch, Kernel, Readback, Recording};
use crate::kernel::{Caps, KernelSpec, Schedule, broken_rule, default_schedule, storage_bytes};
use crate::plan::{Layout, Origin, Plan, Step, SymbolValues};
use crate::tensor::{DType, Tensor};
use crate::tune::{Key, Platform, Store};
use crate::wgsl::{Dialect, Target};

type OnProgress<'a> = Option<&'a (dyn Fn(Progress) + Send + Sync)>;

/// A schedule for a kernel in place of the one it would have.
pub type Wish<'a> = &'a dyn Fn(&KernelSpec, &[i64]) -> Option<Schedule>;

/// Uploaded constants, shared by all plans of a session.
#[derive(Default)]
pub struct Weights {
    uploaded: HashMap<WeightKey, (Tensor, Place)>,
}

/// The address and length of a constant's bytes on the host, and the dtype that the plan holds it as.
type WeightKey = (usize, usize, DType);

/// A constant to upload.
struct Wanted<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    held: DType,
    size_bytes: u64,
}

impl Wanted<'_> {
    fn key(&self) -> WeightKey {
        Weights::key(self.tensor, self.held)
    }
}

/// A piece of memory within a buffer.
#[derive(Clone)]
struct Place {
    buffer: Buffer,
    offset_bytes: u64,
}

/// Weights are packed into buffers of at most this size.
const WEIGHT_BUFFER_BYTES: u64 = 256 << 20;

impl Weights {
    fn key(tensor: &Tensor, held: DType) -> WeightKey {
        (tensor.bytes().as_ptr() as usize, tensor.bytes().len(), held)
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
    fn upload(&mut self, device: &Device, wanted: &[Wanted], progress: OnProgress) -> Result<()> {
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
                let bytes = to_device(w.name, w.tensor, w.held, caps.floats())?;
                device.write(&buffer, offset_bytes, &bytes)?;
                let place = Place { buffer: buffer.clone(), offset_bytes };
                self.uploaded.insert(w.key(), (w.tensor.clone(), place));
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
    /// What stays on the device for the next stage.
    left: Vec<Range>,
}

impl Run {
    /// A step's run-time parameters.
    pub fn sizes(&self, step: &Step) -> Vec<i64> {
        commands::sizes(step, &self.symbols)
    }
}

/// A plan with everything that does not change from run to run.
pub struct Prepared {
    pub plan: Arc<Plan>,
    /// Weights and what was computed from them, inputs, arenas.
    memory: HashMap<Memory, Place>,
    kernels: Kernels,
    /// By number in `kernels`.
    compiled: HashMap<usize, Arc<Kernel>>,
    runs: Vec<Run>,
    /// Sizes whose kernels were tuned or are being tuned.
    tuned: HashSet<SymbolValues>,
    /// What the run at hand computed before this plan.
    pub earlier: Earlier,
    store: Arc<Mutex<Store>>,
}

/// Shapes whose recorded commands are kept.
const RUNS_KEPT: usize = 16;

impl Prepared {
    /// Upload the plan's constants and compute what depends on them alone.
    pub fn new(
        device: &Device,
        plan: Arc<Plan>,
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
                let held = tensor.dtype;
                wanted.push(Wanted { name: &tensor.name, tensor: data, held, size_bytes: bytes });
            }
        }
        weights.upload(device, &wanted, progress)?;
        let mut memory = HashMap::new();
        for (id, tensor) in plan.tensors.iter().enumerate() {
            if let Origin::Weight(data) = &tensor.origin
                && let Some((_, place)) = weights.uploaded.get(&Weights::key(data, tensor.dtype))
            {
                memory.insert(Memory::Constant(id), place.clone());
            }
        }
        let (kernels, compiled, runs) = (Kernels::default(), HashMap::new(), Vec::new());
        let (tuned, earlier) = (HashSet::new(), Earlier::default());
        let mut prepared = Prepared { plan, memory, kernels, compiled, runs, tuned, earlier, store };
        let once = |recorder: &mut Recorder| Ok((recorder.once()?, ()));
        let (recording, ..) =
            prepared.realised(device, &SymbolValues::new(), &|_, _| None, &once, progress)?;
        if !recording.dispatches.is_empty() {
            device.run(&recording)?;
        }
        Ok(prepared)
    }

    /// The sizes of a run with these inputs, after its earlier stages.
    fn symbols(&self, feeds: &[Tensor]) -> SymbolValues {
        let given = feeds.iter().map(|feed| feed.shape().to_vec());
        let shapes: Vec<Vec<usize>> = given.chain(self.earlier.computed.shapes()).collect();
        self.plan.symbol_values(&shapes)
    }

    /// Where lies what a run leaves for the next stage.
    ///
    /// # Errors
    /// [`Error::Model`] for what has no memory.
    pub fn left(&self, run: &Run) -> Result<Vec<Resident>> {
        let missing = || Error::model("session", "what a stage leaves has no memory");
        let resident = |range: &Range| {
            let place = self.memory.get(&range.memory).ok_or_else(missing)?;
            Ok(Resident {
                buffer: place.buffer.clone(),
                offset_bytes: place.offset_bytes + range.offset_bytes,
                size_bytes: range.size_bytes,
            })
        };
        run.left.iter().map(resident).collect()
    }

    /// Upload the inputs, take over what earlier stages left, and give the commands for these sizes.
    pub fn start(&mut self, device: &Device, feeds: &[Tensor], progress: OnProgress) -> Result<Run> {
        let symbols = self.symbols(feeds);
        let run = match self.runs.iter().position(|run| run.symbols == symbols) {
            Some(position) => {
                let run = self.runs.remove(position);
                self.runs.push(run.clone());
                run
            }
            None => {
                let run = self.record(device, &symbols, &|_, _| None, progress)?;
                if self.runs.len() >= RUNS_KEPT {
                    self.runs.remove(0);
                }
                self.runs.push(run.clone());
                run
            }
        };
        for (input, feed) in feeds.iter().enumerate() {
            if let (Some(place), Some(tensor)) =
                (self.memory.get(&Memory::Input(input)), self.plan.inputs[input])
            {
                let planned = &self.plan.tensors[tensor];
                let bytes = to_device(&planned.name, feed, planned.dtype, device.caps().floats())?;
                device.write(&place.buffer, 0, &bytes)?;
            }
        }
        for (position, from) in self.earlier.resident.iter().enumerate() {
            if let Some(to) = self.memory.get(&Memory::Input(feeds.len() + position)) {
                let to = (&to.buffer, to.offset_bytes);
                device.copy((&from.buffer, from.offset_bytes), to, from.size_bytes)?;
            }
        }
        Ok(run)
    }

    /// Whether nobody asked this before for inputs of these shapes.
    pub fn is_new(&mut self, feeds: &[Tensor]) -> bool {
        self.tuned.insert(self.symbols(feeds))
    }

    /// Commands for the sizes of another run, with schedules as wished. They are not kept.
    pub fn record_as(&mut self, device: &Device, like: &Run, wish: Wish) -> Result<Run> {
        self.record(device, &like.symbols, wish, None)
    }

    fn record(
        &mut self,
        device: &Device,
        symbols: &SymbolValues,
        wish: Wish,
        progress: OnProgress,
    ) -> Result<Run> {
        let run = |recorder: &mut Recorder| recorder.run(symbols);
        let (recording, commands, layout) = self.realised(device, symbols, wish, &run, progress)?;
        let steps = commands.dispatches.iter().map(|dispatch| dispatch.step).collect();
        let left = commands.left;
        Ok(Run { recording, layout: Arc::new(layout), symbols: symbols.clone(), steps, left })
    }

    /// Record and realise. A stored winner that does not compile makes way for the next best.
    fn realised<T>(
        &mut self,
        device: &Device,
        symbols: &SymbolValues,
        wish: Wish,
        record: &dyn Fn(&mut Recorder) -> Result<(Commands, T)>,
        progress: OnProgress,
    ) -> Result<(Recording, Commands, T)> {
        loop {
            let (commands, more) = self.recorded(device, wish, |recorder| record(recorder))?;
            match self.realise(device, &commands, progress) {
                Ok(recording) => return Ok((recording, commands, more)),
                Err((Some(step), error)) if !device.is_lost() => {
                    if !self.disown(device, step, symbols, &error)? {
                        return Err(error);
                    }
                }
                Err((_, error)) => return Err(error),
            }
        }
    }

    /// A step's stored winner cannot be compiled or run: the store is told. Whether it was one, other than the default.
    fn disown(&self, device: &Device, step: usize, symbols: &SymbolValues, error: &Error) -> Result<bool> {
        let step = &self.plan.steps[step];
        let (kernel, sizes) = (&self.plan.kernels[step.kernel], commands::sizes(step, symbols));
        let key = Key::new(&kernel.spec, &sizes, &Platform::from(device.info()));
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let used = schedule(&kernel.spec, &sizes, device.caps(), &store, device);
        if used == default_schedule(&kernel.spec, &sizes, device.caps()) {
            return Ok(false);
        }
        tracing::warn!(
            kernel = kernel.label, schedule = %used, %error,
            "a stored winner does not work here; the next best takes its place"
        );
        store.fail(&key, &used, &error.to_string())?;
        Ok(true)
    }

    /// After a run that failed: run the steps with stored winners one by one, and disown those that fail. Whether there
    /// were any; the run's commands are then forgotten.
    pub fn mend(&mut self, device: &Device, run: &Run) -> Result<bool> {
        let mut mended = false;
        let numbers: std::collections::BTreeSet<usize> = run.steps.iter().copied().collect();
        for number in numbers {
            let own = run.steps.iter().zip(&run.recording.dispatches).filter(|(step, _)| **step == number);
            let dispatches = own.map(|(_, dispatch)| dispatch.clone()).collect();
            if let Err(error) = device.run(&Recording { dispatches, readbacks: Vec::new() }) {
                mended |= !device.is_lost() && self.disown(device, number, &run.symbols, &error)?;
            }
        }
        if mended {
            self.forget_runs();
        }
        Ok(mended)
    }

    /// What `record` makes of this plan on this device.
    fn recorded<T>(
        &mut self,
        device: &Device,
        wish: Wish,
        record: impl FnOnce(&mut Recorder) -> Result<T>,
    ) -> Result<T> {
        let (caps, store) = (device.caps(), &self.store);
        let choose = |spec: &KernelSpec, sizes: &[i64]| {
            wish(spec, sizes).unwrap_or_else(|| {
                let store = store.lock().unwrap_or_else(PoisonError::into_inner);
                schedule(spec, sizes, caps, &store, device)
            })
        };
        record(&mut Recorder {
            plan: &self.plan,
            caps,
            target: Target::new(caps, Dialect::Naga),
            choose: &choose,
            kernels: &mut self.kernels,
        })
    }

    /// The device's objects for `commands`: memory, kernels, bindings. Where a kernel cannot be compiled or bound, the
    /// error comes with its step.
    fn realise(
        &mut self,
        device: &Device,
        commands: &Commands,
        progress: OnProgress,
    ) -> Result<Recording, (Option<usize>, Error)> {
        let mut step = None;
        self.realise_all(device, commands, progress, &mut step).map_err(|error| (step, error))
    }

    /// As [`Prepared::realise`]; `at` is the step at hand.
    fn realise_all(
        &mut self,
        device: &Device,
        commands: &Commands,
        progress: OnProgress,
        at: &mut Option<usize>,
    ) -> Result<Recording> {
        self.grow(device, commands)?;
        let total = commands.dispatches.len() as u64;
        let parameters = match commands.parameters.as_slice() {
            [] => None,
            bytes => {
                let buffer = device.uniform("parameters", bytes.len() as u64)?;
                device.write(&buffer, 0, bytes)?;
                Some(Place { buffer, offset_bytes: 0 })
            }
        };
        let place = |range: &Range| {
            match range.memory {
                Memory::Parameters => parameters.as_ref(),
                Memory::Constant(_) | Memory::Input(_) | Memory::Arena(_) => self.memory.get(&range.memory),
            }
            .ok_or_else(|| Error::model(format!("{:?}", range.memory), "there is no such memory"))
        };
        let mut dispatches = Vec::new();
        for dispatch in &commands.dispatches {
            *at = Some(dispatch.step);
            let kernel = match self.compiled.get(&dispatch.kernel) {
                Some(kernel) => kernel.clone(),
                None => {
                    let kernel = device.kernel(&self.kernels.texts()[dispatch.kernel].rendered.shader)?;
                    self.compiled.insert(dispatch.kernel, kernel.clone());
                    kernel
                }
            };
            let mut bindings = Vec::new();
            for range in &dispatch.bindings {
                let Place { buffer, offset_bytes } = place(range)?;
                let offset_bytes = offset_bytes + range.offset_bytes;
                bindings.push(Binding { buffer, offset_bytes, size_bytes: range.size_bytes });
            }
            let bindings = Arc::new(device.bind(&kernel, &bindings)?);
            dispatches.push(Dispatch { kernel, bindings, workgroups: dispatch.workgroups });
            if let Some(progress) = progress {
                progress(Progress { stage: Stage::Compile, done: dispatches.len() as u64, total });
            }
        }
        *at = None;
        let mut readbacks = Vec::new();
        for range in &commands.readbacks {
            let Place { buffer, offset_bytes } = place(range)?.clone();
            let offset_bytes = offset_bytes + range.offset_bytes;
            readbacks.push(Readback { buffer, offset_bytes, size_bytes: range.size_bytes });
        }
        Ok(Recording { dispatches, readbacks })
    }

    /// Make the memory large enough. Commands recorded for buffers that were replaced are dropped.
    fn grow(&mut self, device: &Device, commands: &Commands) -> Result<()> {
        for &(memory, bytes) in &commands.buffers {
            match self.memory.get(&memory) {
                Some(place) if place.buffer.size_bytes() >= bytes => continue,
                Some(_) => self.runs.clear(),
                None => {}
            }
            let label = match memory {
                Memory::Constant(tensor) => self.plan.tensors[tensor].name.clone(),
                Memory::Input(number) => format!("input {number}"),
                Memory::Arena(number) => format!("arena {number}"),
                Memory::Parameters => "parameters".into(),
            };
            let buffer = device.buffer(&label, bytes)?;
            self.memory.insert(memory, Place { buffer, offset_bytes: 0 });
        }
        Ok(())
    }

    /// Forget the recorded commands: the next run chooses schedules anew.
    pub fn forget_runs(&mut self) {
        self.runs.clear();
    }

    /// The outputs, from what was read back.
    pub fn finish(&self, device: &Device, run: &Run, read: Vec<Vec<u8>>) -> Result<Vec<(String, Tensor)>> {
        let mut read = read.into_iter();
        let mut outputs = Vec::new();
        for (output, produced) in self.plan.outputs.iter().zip(commands::outputs(&self.plan, &run.symbols)?) {
            let tensor = match produced {
                Produced::Known(tensor) => tensor,
                Produced::Read { shape, held } => {
                    let bytes = read.next().ok_or_else(|| Error::model(&output.name, "was not read back"))?;
                    from_device(&output.name, output.dtype, &shape, bytes, held, device.caps().floats())?
                }
            };
            outputs.push((output.name.clone(), tensor));
        }
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
        let text = |text: &commands::Text| KernelText {
            label: self.plan.kernels[text.kernel].label.clone(),
            schedule: text.schedule.clone(),
            wgsl: text.rendered.shader.source.clone(),
        };
        let mut texts: Vec<KernelText> = self.kernels.texts().iter().map(text).collect();
        texts.sort_by(|a, b| a.label.cmp(&b.label));
        texts
    }
}

/// The schedule that was measured to be the fastest, where there is one and it is legal here, else the default.
fn schedule(spec: &KernelSpec, sizes: &[i64], caps: &Caps, store: &Store, device: &Device) -> Schedule {
    if !store.is_empty()
        && let Some(winner) = store.winner(&Key::new(spec, sizes, &Platform::from(device.info())))
        && broken_rule(spec, winner, sizes, caps).is_none()
    {
        return winner.clone();
    }
    default_schedule(spec, sizes, caps)
}
