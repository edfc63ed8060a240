//! A plan with its device resources: weights, kernels, arenas, and the recorded commands per shape.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::device_tensor::DeviceTensor;
use super::recorded::{Bound, Lent, Recorded, Run};
use super::request::{Input, Outputs};
use super::stages::{Earlier, Resident};
use super::weights::{Place, Weights};
use super::winners::{Waiting, Winners};
use super::{Progress, Stage};
use crate::commands::{
    self, Commands, Keep, Kernels, Memory, Produced, Range, Recorder, from_device, to_device,
};
use crate::error::{Error, Result};
use crate::gpu::{Device, Kernel, Recording};
use crate::kernel::{KernelSpec, Schedule, default_schedule};
use crate::plan::{Plan, Step, SymbolValues};
use crate::wgsl::{Dialect, Shader, Target};

pub type OnProgress<'a> = Option<&'a (dyn Fn(Progress) + Send + Sync)>;

/// A schedule for a kernel in place of the one it would have.
pub type Wish<'a> = &'a dyn Fn(&KernelSpec, &[i64]) -> Option<Schedule>;

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

/// A plan with everything that does not change from run to run.
pub struct Prepared {
    pub plan: Arc<Plan>,
    /// Weights and what was computed from them, inputs, arenas.
    pub memory: HashMap<Memory, Place>,
    kernels: Kernels,
    /// By number in `kernels`.
    compiled: HashMap<usize, Arc<Kernel>>,
    /// The latest last.
    recorded: Vec<Arc<Recorded>>,
    /// Sizes whose kernels were tuned or are being tuned.
    tuned: HashSet<SymbolValues>,
    /// What the run at hand computed before this plan.
    pub earlier: Earlier,
    winners: Arc<Winners>,
}

/// Shapes whose recorded commands are kept.
const RECORDED_KEPT: usize = 16;

impl Prepared {
    /// Upload the plan's constants and compute what depends on them alone.
    pub fn new(
        device: &Device,
        plan: Arc<Plan>,
        weights: &mut Weights,
        winners: Arc<Winners>,
        progress: OnProgress,
    ) -> Result<Prepared> {
        let memory = weights.of(&plan, device, progress)?;
        let (kernels, compiled, recorded) = (Kernels::default(), HashMap::new(), Vec::new());
        let (tuned, earlier) = (HashSet::new(), Earlier::default());
        let mut prepared = Prepared { plan, memory, kernels, compiled, recorded, tuned, earlier, winners };
        let (symbols, keep) = (SymbolValues::new(), Keep::default());
        let once = |recorder: &mut Recorder| Ok((recorder.once()?, ()));
        let (bound, commands, _, ()) =
            prepared.realised(device, &symbols, &|_, _| None, &once, &keep, progress)?;
        let recording = prepared.recording(device, &commands, &bound, &Lent::new())?;
        if !recording.dispatches.is_empty() {
            device.run(&recording)?;
        }
        Ok(prepared)
    }

    /// The sizes of a run with these inputs, after its earlier stages.
    fn symbols(&self, feeds: &[Input]) -> SymbolValues {
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
        run.recorded.commands.left.iter().map(resident).collect()
    }

    /// Upload the inputs, take over what earlier stages left, and give the commands for these sizes. The outputs
    /// numbered in `outputs` stay on the device.
    pub fn start(
        &mut self,
        device: &Device,
        feeds: &[Input],
        outputs: &BTreeSet<usize>,
        progress: OnProgress,
    ) -> Result<Run> {
        let symbols = self.symbols(feeds);
        let mut lent = Lent::new();
        for (input, feed) in feeds.iter().enumerate() {
            if let (Some(tensor), Some(_)) = (feed.on_device(), self.plan.inputs[input]) {
                lent.insert(Memory::Input(input), tensor.buffer().clone());
            }
        }
        let inputs = (0..feeds.len()).filter(|&input| lent.contains_key(&Memory::Input(input))).collect();
        let is_given_up = |input: usize, _| matches!(feeds[input], Input::Donated(_));
        let in_place = self.plan.in_place(&symbols, device.caps(), outputs, is_given_up)?;
        let keep = Keep { inputs, outputs: outputs.clone(), in_place };
        let same = |one: &Arc<Recorded>| one.symbols == symbols && one.keep == keep;
        let recorded = match self.recorded.iter().position(same) {
            Some(position) => self.recorded.remove(position),
            None => Arc::new(self.record(device, &symbols, &|_, _| None, &keep, progress)?),
        };
        if self.recorded.len() >= RECORDED_KEPT {
            self.recorded.remove(0);
        }
        self.recorded.push(recorded.clone());
        for &(memory, bytes) in &recorded.commands.buffers {
            if let Memory::Output(number) = memory {
                lent.insert(memory, device.pooled(&self.plan.outputs[number].name, bytes)?);
            }
        }
        for (input, feed) in feeds.iter().enumerate() {
            if let (Input::Host(feed), Some(place), Some(tensor)) =
                (feed, self.memory.get(&Memory::Input(input)), self.plan.inputs[input])
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
        let recording = self.recording(device, &recorded.commands, &recorded.bound, &lent)?;
        Ok(Run { recording, recorded, lent })
    }

    /// Whether nobody asked this before for inputs of these shapes.
    pub fn is_new(&mut self, feeds: &[Input]) -> bool {
        self.tuned.insert(self.symbols(feeds))
    }

    /// Commands for these sizes, with schedules as wished, in memory that is no caller's. They are not kept.
    pub fn record_as(&mut self, device: &Device, symbols: &SymbolValues, wish: Wish) -> Result<Run> {
        let recorded = self.record(device, symbols, wish, &Keep::default(), None)?;
        let lent = Lent::new();
        let recording = self.recording(device, &recorded.commands, &recorded.bound, &lent)?;
        Ok(Run { recording, recorded: Arc::new(recorded), lent })
    }

    fn record(
        &mut self,
        device: &Device,
        symbols: &SymbolValues,
        wish: Wish,
        keep: &Keep,
        progress: OnProgress,
    ) -> Result<Recorded> {
        let run = |recorder: &mut Recorder| recorder.run(symbols, keep);
        let (bound, commands, waiting, layout) =
            self.realised(device, symbols, wish, &run, keep, progress)?;
        let steps = commands.dispatches.iter().map(|dispatch| dispatch.step).collect();
        let (symbols, keep) = (symbols.clone(), keep.clone());
        Ok(Recorded { symbols, keep, layout, steps, waiting, commands, bound })
    }

    /// Record and realise. A stored winner that does not compile makes way for the next best.
    fn realised<T>(
        &mut self,
        device: &Device,
        symbols: &SymbolValues,
        wish: Wish,
        record: &dyn Fn(&mut Recorder) -> Result<(Commands, T)>,
        keep: &Keep,
        progress: OnProgress,
    ) -> Result<(Bound, Commands, Vec<Waiting>, T)> {
        loop {
            let (waiting, (commands, more)) = self.recorded(device, wish, |recorder| record(recorder))?;
            match self.realise(device, &commands, keep, progress) {
                Ok(bound) => return Ok((bound, commands, waiting, more)),
                Err((Some(step), error)) if !device.is_lost() => {
                    if !self.disown(device, self.plan.step(step, &keep.in_place), symbols, &error)? {
                        return Err(error);
                    }
                }
                Err((_, error)) => return Err(error),
            }
        }
    }

    /// A step's stored winner cannot be compiled or run: the store is told. Whether it was one, other than the default.
    fn disown(&self, device: &Device, step: &Step, symbols: &SymbolValues, error: &Error) -> Result<bool> {
        let (kernel, sizes) = (&self.plan.kernels[step.kernel], commands::sizes(step, symbols));
        let (used, _) = self.winners.choose(&kernel.spec, &sizes, device.caps());
        if used == default_schedule(&kernel.spec, &sizes, device.caps()) {
            return Ok(false);
        }
        self.winners.fail(&self.winners.key(&kernel.spec, &sizes), &used, &kernel.label, error)?;
        Ok(true)
    }

    /// After a run that failed: run the steps with stored winners one by one, and disown those that fail. Whether there
    /// were any; the run's commands are then forgotten.
    pub fn mend(&mut self, device: &Device, run: &Run) -> Result<bool> {
        let mut mended = false;
        let steps = &run.recorded.steps;
        // What is done in place has no stored winner, and its tensor is the caller's.
        let in_place = &run.recorded.keep.in_place;
        let numbers: BTreeSet<usize> =
            steps.iter().copied().filter(|number| !in_place.contains(number)).collect();
        for number in numbers {
            let own = steps.iter().zip(&run.recording.dispatches).filter(|(step, _)| **step == number);
            let dispatches = own.map(|(_, dispatch)| dispatch.clone()).collect();
            if let Err(error) = device.run(&Recording { dispatches, readbacks: Vec::new() }) {
                mended |= !device.is_lost()
                    && self.disown(device, &self.plan.steps[number], &run.recorded.symbols, &error)?;
            }
        }
        if mended {
            self.forget_runs();
        }
        Ok(mended)
    }

    /// What `record` makes of this plan on this device, and the winners that wait.
    fn recorded<T>(
        &mut self,
        device: &Device,
        wish: Wish,
        record: impl FnOnce(&mut Recorder) -> Result<T>,
    ) -> Result<(Vec<Waiting>, T)> {
        let (caps, winners) = (device.caps(), &self.winners);
        let waiting = RefCell::new(Vec::new());
        let choose = |spec: &KernelSpec, sizes: &[i64]| {
            wish(spec, sizes).unwrap_or_else(|| {
                let (schedule, waits) = winners.choose(spec, sizes, caps);
                let mut waiting = waiting.borrow_mut();
                if let Some(one) = waits.filter(|one| !waiting.contains(one)) {
                    waiting.push(one);
                }
                schedule
            })
        };
        let recorded = record(&mut Recorder {
            plan: &self.plan,
            caps,
            target: Target::new(caps, Dialect::Naga),
            choose: &choose,
            kernels: &mut self.kernels,
        })?;
        Ok((waiting.into_inner(), recorded))
    }

    /// The texts of a run of these sizes, with schedules as wished, that no run of this plan had.
    pub fn new_texts(&mut self, device: &Device, symbols: &SymbolValues, wish: Wish) -> Result<Vec<Shader>> {
        let (_, (commands, _)) =
            self.recorded(device, wish, |recorder| recorder.run(symbols, &Keep::default()))?;
        let numbers: BTreeSet<usize> = commands.dispatches.iter().map(|dispatch| dispatch.kernel).collect();
        let new = numbers.into_iter().filter(|number| !self.compiled.contains_key(number));
        Ok(new.map(|number| self.kernels.texts()[number].rendered.shader.clone()).collect())
    }

    /// The device's objects for `commands`: memory, kernels, and the bindings in which nothing is lent. Where a kernel
    /// cannot be compiled or bound, the error comes with its step.
    fn realise(
        &mut self,
        device: &Device,
        commands: &Commands,
        keep: &Keep,
        progress: OnProgress,
    ) -> Result<Bound, (Option<usize>, Error)> {
        let mut step = None;
        self.realise_all(device, commands, keep, progress, &mut step).map_err(|error| (step, error))
    }

    /// As [`Prepared::realise`]; `at` is the step at hand.
    fn realise_all(
        &mut self,
        device: &Device,
        commands: &Commands,
        keep: &Keep,
        progress: OnProgress,
        at: &mut Option<usize>,
    ) -> Result<Bound> {
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
        let mut bound = Bound { dispatches: Vec::new(), parameters };
        for dispatch in &commands.dispatches {
            *at = Some(dispatch.step);
            let kernel = match self.compiled.get(&dispatch.kernel) {
                Some(kernel) => kernel.clone(),
                None => {
                    let kernel = device.rendered(&self.kernels.texts()[dispatch.kernel].rendered.shader)?;
                    self.compiled.insert(dispatch.kernel, kernel.clone());
                    kernel
                }
            };
            let is_lent = |range: &Range| match range.memory {
                Memory::Output(_) => true,
                Memory::Input(number) => keep.inputs.contains(&number),
                Memory::Constant(_) | Memory::Arena(_) | Memory::Parameters => false,
            };
            let bindings = match dispatch.bindings.iter().any(is_lent) {
                true => None,
                false => Some(self.bindings(device, dispatch, &kernel, &bound, &Lent::new())?),
            };
            bound.dispatches.push((kernel, bindings));
            if let Some(progress) = progress {
                progress(Progress { stage: Stage::Compile, done: bound.dispatches.len() as u64, total });
            }
        }
        *at = None;
        Ok(bound)
    }

    /// Make the memory large enough. Commands recorded for buffers that were replaced are dropped.
    fn grow(&mut self, device: &Device, commands: &Commands) -> Result<()> {
        for &(memory, bytes) in &commands.buffers {
            match self.memory.get(&memory) {
                Some(place) if place.buffer.size_bytes() >= bytes => continue,
                Some(_) => self.recorded.clear(),
                None => {}
            }
            let label = match memory {
                Memory::Constant(tensor) => self.plan.tensors[tensor].name.clone(),
                Memory::Input(number) => format!("input {number}"),
                Memory::Arena(number) => format!("arena {number}"),
                Memory::Output(_) | Memory::Parameters => continue,
            };
            let buffer = device.buffer(&label, bytes)?;
            self.memory.insert(memory, Place { buffer, offset_bytes: 0 });
        }
        Ok(())
    }

    /// Forget the recorded commands: the next run chooses schedules anew.
    pub fn forget_runs(&mut self) {
        self.recorded.clear();
    }

    /// The outputs, from what was read back and what stayed on the device.
    pub fn finish(&self, device: &Device, run: &Run, read: Vec<Vec<u8>>) -> Result<Outputs> {
        let (mut read, mut kept) = (read.into_iter(), run.recorded.commands.kept.iter());
        let mut outputs = Outputs::default();
        let produced = commands::outputs(&self.plan, &run.recorded.symbols)?;
        for (number, (output, produced)) in self.plan.outputs.iter().zip(produced).enumerate() {
            let missing = || Error::model(&output.name, "was not read back");
            let (name, dtype) = (output.name.as_str(), output.dtype);
            match (produced, run.recorded.keep.outputs.contains(&number)) {
                (Produced::Known(tensor), false) => outputs.add(name, tensor),
                (Produced::Known(tensor), true) => {
                    outputs.add_kept(name, DeviceTensor::new(device, name, &tensor)?)
                }
                (Produced::Read { shape }, false) => {
                    let bytes = read.next().ok_or_else(missing)?;
                    let tensor = from_device(name, dtype, &shape, bytes, dtype, device.caps().floats())?;
                    outputs.add(name, tensor);
                }
                (Produced::Read { shape }, true) => {
                    let buffer = self.kept(device, run, number, kept.next().ok_or_else(missing)?)?;
                    outputs.add_kept(name, DeviceTensor::of(device, buffer, dtype, shape));
                }
            }
        }
        Ok(outputs)
    }

    /// Times by step.
    pub fn step_times(&self, run: &Run, times: &[u64]) -> Vec<StepTime> {
        let step = |(&step, &elapsed_ns): (&usize, &u64)| {
            let step = self.plan.step(step, &run.recorded.keep.in_place);
            StepTime {
                kernel: self.plan.kernels[step.kernel].label.clone(),
                output: self.plan.tensors[step.output].name.clone(),
                elapsed_ns,
            }
        };
        run.recorded.steps.iter().zip(times).map(step).collect()
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
