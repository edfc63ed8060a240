//! A model's plan without a session: for the best adapter, or for any WebGPU device where there is none.

use std::collections::{BTreeMap, HashSet};

use tilewright::expr::Floats;
use tilewright::gpu::Device;
use tilewright::graph::Graph;
use tilewright::ir::Stop;
use tilewright::kernel::{Caps, KernelSpec, Schedule, Work, candidates, default_schedule};
use tilewright::ops::{Known, Precision};
use tilewright::plan::{Layout, Origin, Plan, Step, SymbolValues, plan};
use tilewright::wgsl::{self, Dialect, Target};
use tilewright::{AdapterChoice, AdapterInfo, Error, adapters, onnx};

use crate::failure::{Failure, Result};
use crate::fill::DEFAULT_SIZE;
use crate::one_op::OneOp;

/// What the plan is made for.
pub struct Machine {
    /// The best adapter of this machine, if it has one.
    pub adapter: Option<AdapterInfo>,
    /// Its capabilities, or those that WebGPU promises everywhere.
    pub caps: Caps,
}

impl Machine {
    /// This one.
    pub fn here() -> Result<Machine> {
        let adapter = adapters()?.into_iter().next();
        let caps = adapter.as_ref().map(|adapter| adapter.caps.clone()).unwrap_or_default();
        Ok(Machine { adapter, caps })
    }

    /// With the adapter that was asked for; [`Machine::here`] where none was.
    ///
    /// # Errors
    /// [`Error::Adapter`] where there is no such adapter.
    pub fn of(choice: Option<&AdapterChoice>) -> Result<Machine> {
        let Some(choice) = choice else { return Machine::here() };
        let adapter = Device::open(choice)?.info().clone();
        Ok(Machine { caps: adapter.caps.clone(), adapter: Some(adapter) })
    }

    /// In words.
    pub fn describe(&self) -> String {
        match &self.adapter {
            Some(adapter) => adapter.to_string(),
            None => "any WebGPU device, as this machine has no adapter".into(),
        }
    }
}

/// A plan, and what follows from it for the sizes at hand.
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Sizes and places in memory.
    pub layout: Layout,
    /// Values of the dimensions that stayed symbolic.
    pub symbols: SymbolValues,
    /// Whether the symbolic plan did not hold for these sizes, and this is one for them alone.
    pub specialised: bool,
}

/// What came of planning.
pub enum Outcome {
    /// A plan.
    Planned(Box<Planned>),
    /// None without the contents or the shapes of these inputs.
    NeedsInputs(Vec<String>),
    /// None.
    Failed(Error),
}

/// Plan `graph` for sizes `dims`; dimensions not among them stay symbolic, and are 1 in the layout.
pub fn make(graph: &Graph, dims: &BTreeMap<String, usize>, precision: Precision, caps: &Caps) -> Outcome {
    make_at(graph, dims, &[], precision, caps)
}

/// As [`make`], with symbolic dimensions as in these shapes of the inputs.
pub fn make_at(
    graph: &Graph,
    dims: &BTreeMap<String, usize>,
    shapes: &[Vec<usize>],
    precision: Precision,
    caps: &Caps,
) -> Outcome {
    let known = Known { dims: dims.clone(), precision, ..Known::default() };
    match planned(graph, known, shapes, caps) {
        Ok(planned) => Outcome::Planned(Box::new(planned)),
        Err(Stop::Error(error)) => Outcome::Failed(error),
        Err(Stop::NeedsInputs(numbers)) => {
            let names = numbers.iter().filter_map(|&number| graph.inputs.get(number));
            Outcome::NeedsInputs(names.map(|info| info.name.clone()).collect())
        }
        Err(Stop::NeedsShapes | Stop::NeedsValue(_)) => {
            Outcome::NeedsInputs(graph.inputs.iter().map(|info| info.name.clone()).collect())
        }
    }
}

/// The plan of one operation.
///
/// # Errors
/// [`Failure::Failed`] for what cannot be planned.
pub fn of_op(op: &OneOp, caps: &Caps) -> Result<Box<Planned>> {
    let graph = onnx::parse_bytes(op.model().into())?;
    match make(&graph, &BTreeMap::new(), Precision::default(), caps) {
        Outcome::Planned(planned) => Ok(planned),
        Outcome::Failed(error) => Err(error.into()),
        Outcome::NeedsInputs(_) => Err(Failure::Failed(format!("{} cannot be planned", op.describe()))),
    }
}

fn planned(graph: &Graph, mut known: Known, shapes: &[Vec<usize>], caps: &Caps) -> Result<Planned, Stop> {
    let mut plan = plan(graph, &known, caps)?;
    let mut symbols = symbol_values(&plan, shapes);
    let specialised = plan.broken_guard(&symbols)?.is_some();
    if specialised {
        // As a session does where a symbolic plan took sizes for equal that are not, as in a broadcast of 1.
        for (number, dims) in plan.input_shapes.iter().enumerate() {
            let place = &graph.inputs[number].name;
            known.shapes.insert(number, tilewright::plan::shape(dims, &symbols, place)?);
        }
        plan = tilewright::plan::plan(graph, &known, caps)?;
        symbols = symbol_values(&plan, shapes);
    }
    let layout = plan.layout(&symbols, caps, &Default::default())?;
    Ok(Planned { plan, layout, symbols, specialised })
}

fn symbol_values(plan: &Plan, shapes: &[Vec<usize>]) -> SymbolValues {
    let size = |(input, axis): (usize, usize)| {
        shapes.get(input).and_then(|shape| shape.get(axis)).map_or(DEFAULT_SIZE as i64, |&size| size as i64)
    };
    plan.symbols().into_iter().map(|(name, at)| (name, size(at))).collect()
}

/// Device memory of a session.
pub struct Memory {
    /// The model's constants.
    pub weights_bytes: u64,
    /// What is computed from constants alone, once.
    pub once_bytes: u64,
    /// The inputs.
    pub inputs_bytes: u64,
    /// What a run computes, in memory that is reused.
    pub arena_bytes: u64,
    /// The same if nothing were reused.
    pub unshared_bytes: u64,
}

impl Memory {
    /// All of it, which a run needs at once.
    pub fn peak_bytes(&self) -> u64 {
        self.weights_bytes + self.once_bytes + self.inputs_bytes + self.arena_bytes
    }
}

/// A kernel's text under one schedule.
pub struct KernelSource {
    /// The kernel's name in the plan.
    pub label: String,
    /// The schedule.
    pub schedule: Schedule,
    /// How many steps use it, among them those that run once.
    pub steps: usize,
    /// The text.
    pub wgsl: String,
}

/// A kernel at sizes, and its candidates there.
pub struct Space {
    /// The kernel's name in the plan.
    pub label: String,
    /// What it computes.
    pub spec: KernelSpec,
    /// Its run-time parameters.
    pub sizes: Vec<i64>,
    /// Its output the first time, as `y float32 [1, 128]`.
    pub output: String,
    /// How many steps are like this.
    pub steps: usize,
    /// Whether they run once, when a session starts.
    pub once: bool,
    /// Elements of its inputs.
    pub input_lens: Vec<usize>,
    /// Elements of its output.
    pub output_len: usize,
    /// Its legal schedules, the default first.
    pub candidates: Vec<Schedule>,
}

impl Space {
    /// What it must do at the least.
    pub fn work(&self, floats: Floats) -> Work {
        Work::of(&self.spec, &self.sizes, &self.input_lens, self.output_len, floats)
    }

    /// The schedule of an untuned run.
    ///
    /// # Errors
    /// [`Error::Limit`] where the device allows none.
    pub fn default(&self) -> Result<&Schedule, Error> {
        self.candidates.first().ok_or_else(|| Error::Limit {
            place: self.label.clone(),
            message: "no legal schedule on this device".into(),
        })
    }
}

impl Planned {
    /// Every kernel at its sizes, in the order of the plan's steps.
    pub fn spaces(&self, caps: &Caps) -> Vec<Space> {
        let mut found: Vec<(usize, Space)> = Vec::new();
        for step in &self.plan.steps {
            let kernel = &self.plan.kernels[step.kernel];
            let sizes: Vec<i64> =
                step.params.iter().map(|p| self.symbols.get(p).copied().unwrap_or(0)).collect();
            let same = |(number, space): &&mut (usize, Space)| *number == step.kernel && space.sizes == sizes;
            if let Some((_, space)) = found.iter_mut().find(same) {
                space.steps += 1;
                continue;
            }
            let shape = &self.layout.shapes[step.output];
            let tensor = &self.plan.tensors[step.output];
            let len = |t: &usize| self.layout.shapes[*t].iter().product();
            let space = Space {
                label: kernel.label.clone(),
                spec: kernel.spec.clone(),
                output: format!("{} {} {}", tensor.name, tensor.dtype, crate::table::shape(shape)),
                steps: 1,
                once: self.is_once(step),
                input_lens: step.inputs.iter().map(len).collect(),
                output_len: len(&step.output),
                candidates: candidates(&kernel.spec, &sizes, caps),
                sizes,
            };
            found.push((step.kernel, space));
        }
        found.into_iter().map(|(_, space)| space).collect()
    }

    /// Whether the step runs once, when a session starts.
    pub fn is_once(&self, step: &Step) -> bool {
        matches!(self.plan.tensors[step.output].origin, Origin::Once)
    }

    /// What the plan takes of device memory.
    pub fn memory(&self) -> Memory {
        let (mut weights_bytes, mut once_bytes, mut inputs_bytes) = (0, 0, 0);
        let mut uploaded = HashSet::new();
        for (tensor, &size_bytes) in self.plan.tensors.iter().zip(&self.layout.size_bytes) {
            match &tensor.origin {
                Origin::Weight(data) => {
                    // A session uploads equal bytes once.
                    if uploaded.insert((data.bytes().as_ptr(), data.bytes().len(), data.dtype())) {
                        weights_bytes += size_bytes;
                    }
                }
                Origin::Once => once_bytes += size_bytes,
                Origin::Input(_) => inputs_bytes += size_bytes,
                Origin::Run => {}
            }
        }
        let arena_bytes = self.layout.arena_bytes.iter().sum();
        let unshared_bytes = self.layout.unshared_bytes;
        Memory { weights_bytes, once_bytes, inputs_bytes, arena_bytes, unshared_bytes }
    }

    /// The text of every kernel, once for each schedule that its steps have by default.
    ///
    /// # Errors
    /// As [`wgsl::render`].
    pub fn kernels(&self, caps: &Caps) -> Result<Vec<KernelSource>, Error> {
        let target = Target::new(caps, Dialect::Naga);
        let mut found: Vec<(usize, KernelSource)> = Vec::new();
        for step in &self.plan.steps {
            let kernel = &self.plan.kernels[step.kernel];
            let sizes: Vec<i64> =
                step.params.iter().map(|p| self.symbols.get(p).copied().unwrap_or(0)).collect();
            let schedule = default_schedule(&kernel.spec, &sizes, caps);
            let same = |(number, source): &&mut (usize, KernelSource)| {
                *number == step.kernel && source.schedule == schedule
            };
            if let Some((_, source)) = found.iter_mut().find(same) {
                source.steps += 1;
                continue;
            }
            let passes = wgsl::render_passes(&kernel.label, &kernel.spec, &schedule, &sizes, caps, target)?;
            let texts: Vec<String> = passes.into_iter().map(|(_, pass)| pass.shader.source).collect();
            let wgsl = texts.join("\n");
            found.push((step.kernel, KernelSource { label: kernel.label.clone(), schedule, steps: 1, wgsl }));
        }
        found.sort_by_key(|(number, _)| *number);
        Ok(found.into_iter().map(|(_, source)| source).collect())
    }
}
