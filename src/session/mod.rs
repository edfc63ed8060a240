//! Load a model, run it: the whole flow on one screen.

mod convert;
mod prepared;
mod tuning;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::gpu::{AdapterChoice, AdapterInfo, Device};
use crate::graph::{Dim, Graph, ValueInfo};
use crate::ir::Stop;
use crate::onnx;
use crate::ops::Known;
use crate::plan::{Plan, plan};
use crate::tensor::Tensor;
use crate::tune::Store;

pub use prepared::{KernelText, StepTime};
use prepared::{Prepared, Weights};
pub use tuning::{TuneOptions, TuneProgress, TuneReport, TunedKernel};

/// How a session is made.
#[derive(Clone, Default)]
pub struct SessionOptions {
    /// The adapter to run on.
    pub adapter: AdapterChoice,
    /// Symbolic dimensions with fixed sizes, as `batch = 1`.
    pub dims: BTreeMap<String, usize>,
    /// Compute float64 tensors in float32 rather than refuse them.
    pub allow_f64_as_f32: bool,
    /// Where tuning records are read from and kept; `None` keeps them in memory only. [`Store::default_path`] is the
    /// user's own.
    pub records: Option<PathBuf>,
    /// Called as long work advances: weights uploaded, kernels compiled.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl std::fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionOptions")
            .field("adapter", &self.adapter)
            .field("dims", &self.dims)
            .field("allow_f64_as_f32", &self.allow_f64_as_f32)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

/// How far long work has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// How much of it is done: bytes, or kernels.
    pub done: u64,
    /// How much there is.
    pub total: u64,
}

/// A kind of long work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Weights go to the device; counted in bytes.
    Upload,
    /// Kernels are compiled.
    Compile,
}

/// Where a model comes from.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// A file, which is memory-mapped; external data is looked up beside it.
    Path(PathBuf),
    /// The file's bytes.
    Bytes(bytes::Bytes),
}

impl From<&Path> for ModelSource {
    fn from(path: &Path) -> Self {
        ModelSource::Path(path.into())
    }
}
impl From<PathBuf> for ModelSource {
    fn from(path: PathBuf) -> Self {
        ModelSource::Path(path)
    }
}
impl From<&PathBuf> for ModelSource {
    fn from(path: &PathBuf) -> Self {
        ModelSource::Path(path.clone())
    }
}
impl From<&str> for ModelSource {
    fn from(path: &str) -> Self {
        ModelSource::Path(path.into())
    }
}
impl From<Vec<u8>> for ModelSource {
    fn from(bytes: Vec<u8>) -> Self {
        ModelSource::Bytes(bytes.into())
    }
}

/// A run's outputs, by name, in the model's order.
#[derive(Clone, Debug)]
pub struct Outputs(Vec<(String, Tensor)>);

impl Outputs {
    /// The output of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor)
    }

    /// All outputs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }
}

impl std::ops::Index<&str> for Outputs {
    type Output = Tensor;

    /// The output of that name.
    ///
    /// # Panics
    /// When there is none; [`Outputs::get`] does not.
    fn index(&self, name: &str) -> &Tensor {
        match self.get(name) {
            Some(tensor) => tensor,
            None => panic!("no output {name:?}"),
        }
    }
}

/// A model ready to run on a device. Runs of one session take turns; several sessions run side by side.
pub struct Session {
    device: Device,
    graph: Arc<Graph>,
    options: SessionOptions,
    store: Arc<Mutex<Store>>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("model", &self.graph.name)
            .field("adapter", &self.device.info().name)
            .finish_non_exhaustive()
    }
}

/// What runs leave behind for the next.
#[derive(Default)]
struct State {
    weights: Weights,
    /// Inputs whose contents the plan depends on.
    needed: BTreeSet<usize>,
    /// Whether the plan depends on the sizes of symbols.
    needs_shapes: bool,
    /// Plans by what was known when they were made, the latest last.
    prepared: Vec<(Known, Prepared)>,
    last_dispatches: usize,
}

/// Plans kept for different specialisations of one session.
const PLANS_KEPT: usize = 8;

impl Session {
    /// Load a model: parse, plan, upload the weights. Kernels are compiled when a run first needs them.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Parse`] for what is no ONNX model, [`Error::Model`] for one that makes no sense,
    /// [`Error::Unsupported`] with everything that is not supported at once, [`Error::Adapter`], [`Error::Limit`],
    /// [`Error::OutOfMemory`].
    pub fn load(model: impl Into<ModelSource>, options: &SessionOptions) -> Result<Session> {
        pollster::block_on(Session::load_async(model, options))
    }

    /// [`Session::load`], waiting for the device without blocking.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub async fn load_async(model: impl Into<ModelSource>, options: &SessionOptions) -> Result<Session> {
        let graph = match model.into() {
            ModelSource::Path(path) => onnx::open(&path)?,
            ModelSource::Bytes(bytes) => onnx::parse_bytes(bytes)?,
        };
        let unsupported = crate::ops::unsupported(&graph);
        if !unsupported.is_empty() {
            return Err(Error::Unsupported { items: unsupported });
        }
        let device = Device::open_async(&options.adapter).await?;
        let store = options.records.as_deref().map(Store::open).transpose()?.unwrap_or_default();
        let session = Session {
            device,
            graph: Arc::new(graph),
            options: options.clone(),
            store: Arc::new(Mutex::new(store)),
            state: Mutex::default(),
        };
        let known = session.known();
        let planned = session.prepare(&mut session.lock(), known);
        match planned {
            Ok(()) => Ok(session),
            // Planned at the first run, when the inputs are there.
            Err(Stop::NeedsInputs(inputs)) => {
                session.lock().needed.extend(inputs);
                Ok(session)
            }
            Err(Stop::NeedsShapes) => {
                session.lock().needs_shapes = true;
                Ok(session)
            }
            Err(Stop::Error(error)) => Err(error),
        }
    }

    /// The model's inputs: names, dtypes, symbolic shapes.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.graph.inputs
    }

    /// The model's outputs as it declares them.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.graph.outputs
    }

    /// The adapter in use.
    pub fn adapter(&self) -> &AdapterInfo {
        self.device.info()
    }

    /// Dispatches of the last run; 0 before the first.
    pub fn dispatches(&self) -> usize {
        self.lock().last_dispatches
    }

    /// The plan of the last run, or the one made when the model was loaded.
    pub fn plan(&self) -> Option<Arc<Plan>> {
        self.lock().prepared.last().map(|(_, prepared)| prepared.plan.clone())
    }

    /// Run the model: all inputs by name, in any order.
    ///
    /// # Errors
    /// [`Error::Input`] for a name, dtype or shape that does not fit; [`Error::Limit`] and [`Error::OutOfMemory`] for
    /// sizes beyond the device; [`Error::Device`].
    pub fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        let feeds = self.feeds(inputs)?;
        let mut state = self.lock();
        let prepared = self.ready(&mut state, &feeds)?;
        let run = prepared.start(&self.device, &feeds, self.progress())?;
        let read = self.device.run(&run.recording)?;
        let outputs = prepared.finish(&self.device, &run, read)?;
        state.last_dispatches = run.recording.dispatches.len();
        Ok(Outputs(outputs))
    }

    /// [`Session::run`], waiting for the device without blocking.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn run_async(&self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        let feeds = self.feeds(inputs)?;
        // The lock is not held while waiting: the plan's buffers are taken out for the run, and a run that
        // starts meanwhile makes its own.
        let (known, mut prepared) = {
            let mut state = self.lock();
            self.ready(&mut state, &feeds)?;
            state.prepared.pop().ok_or_else(|| Error::model("session", "no plan"))?
        };
        let run = prepared.start(&self.device, &feeds, self.progress())?;
        let read = self.device.run_async(&run.recording).await?;
        let outputs = prepared.finish(&self.device, &run, read)?;
        let mut state = self.lock();
        state.last_dispatches = run.recording.dispatches.len();
        state.keep(known, prepared);
        Ok(Outputs(outputs))
    }

    /// Run once and time every dispatch; `None` where the device has no timestamps.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn profile(&self, inputs: &[(&str, &Tensor)]) -> Result<Option<Vec<StepTime>>> {
        let feeds = self.feeds(inputs)?;
        let mut state = self.lock();
        let prepared = self.ready(&mut state, &feeds)?;
        let run = prepared.start(&self.device, &feeds, self.progress())?;
        let times = self.device.profile(&run.recording)?;
        Ok(times.map(|times| prepared.step_times(&run, &times)))
    }

    /// The WGSL of every kernel compiled so far.
    pub fn kernels(&self) -> Vec<KernelText> {
        self.lock().prepared.iter().flat_map(|(_, prepared)| prepared.texts()).collect()
    }

    fn progress(&self) -> Option<&(dyn Fn(Progress) + Send + Sync)> {
        self.options.progress.as_deref()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state half changed in a way that matters: plans are replaced whole.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // Records are added whole: a panic between two of them does no harm.
        self.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn known(&self) -> Known {
        Known {
            dims: self.options.dims.clone(),
            allow_f64_as_f32: self.options.allow_f64_as_f32,
            ..Known::default()
        }
    }

    /// Make sure that a plan for `known` stands last in the list.
    fn prepare(&self, state: &mut State, known: Known) -> Result<(), Stop> {
        match state.prepared.iter().position(|(k, _)| *k == known) {
            Some(position) => {
                let entry = state.prepared.remove(position);
                state.prepared.push(entry);
            }
            None => {
                let plan = plan(&self.graph, &known, self.device.caps())?;
                let prepared = Prepared::new(
                    &self.device,
                    plan,
                    &mut state.weights,
                    self.store.clone(),
                    self.progress(),
                )?;
                state.keep(known, prepared);
            }
        }
        Ok(())
    }

    /// A plan that fits these inputs, standing last in the list.
    fn ready<'a>(&self, state: &'a mut State, feeds: &[Tensor]) -> Result<&'a mut Prepared> {
        let mut known = self.known();
        let shapes = || feeds.iter().enumerate().map(|(i, t)| (i, t.shape().to_vec())).collect();
        if state.needs_shapes {
            known.shapes = shapes();
        }
        loop {
            known.contents = state.needed.iter().map(|&i| (i, feeds[i].clone())).collect();
            match self.prepare(state, known.clone()) {
                Ok(()) => {}
                Err(Stop::NeedsInputs(inputs)) if !inputs.is_subset(&state.needed) => {
                    state.needed.extend(inputs);
                    continue;
                }
                Err(Stop::NeedsShapes) if known.shapes.is_empty() => {
                    state.needs_shapes = true;
                    known.shapes = shapes();
                    continue;
                }
                Err(Stop::NeedsInputs(_) | Stop::NeedsShapes) => {
                    return Err(Error::Unsupported {
                        items: vec!["a shape that depends on computed values".into()],
                    });
                }
                Err(Stop::Error(error)) => return Err(error),
            }
            let prepared = latest(state)?;
            if prepared.guards_hold(feeds)? {
                break;
            }
            if !known.shapes.is_empty() {
                return Err(prepared.guard_error(feeds));
            }
            // A symbolic plan assumed sizes equal that are not, as in a broadcast of 1: plan for these sizes.
            tracing::info!(
                "the symbolic plan's assumptions do not hold for these inputs; planning for their sizes"
            );
            known.shapes = shapes();
        }
        latest(state)
    }

    /// The inputs in the model's order, checked against its declarations.
    fn feeds(&self, given: &[(&str, &Tensor)]) -> Result<Vec<Tensor>> {
        let names = || self.inputs().iter().map(|i| format!("{:?}", i.name)).collect::<Vec<_>>().join(", ");
        for (position, (name, _)) in given.iter().enumerate() {
            if !self.inputs().iter().any(|i| i.name == *name) {
                return Err(Error::input(*name, format!("the model has no such input; it has {}", names())));
            }
            if given[..position].iter().any(|(n, _)| n == name) {
                return Err(Error::input(*name, "given twice"));
            }
        }
        let mut sizes: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        let mut feeds = Vec::new();
        for info in self.inputs() {
            let Some((_, tensor)) = given.iter().find(|(name, _)| *name == info.name) else {
                return Err(Error::input(&info.name, format!("missing; the model wants {}", names())));
            };
            if tensor.dtype() != info.dtype {
                return Err(Error::input(
                    &info.name,
                    format!("wants {}, got {}", info.dtype, tensor.dtype()),
                ));
            }
            for (axis, dim) in info.shape.iter().flatten().enumerate() {
                let wanted = match dim {
                    Dim::Static(size) => Some(*size),
                    Dim::Symbol(name) => self.options.dims.get(name).copied(),
                    Dim::Unknown => None,
                };
                let declared = || {
                    let text = |dim: &Dim| match dim {
                        Dim::Symbol(name) if self.options.dims.contains_key(name) => {
                            format!("{name} = {}", self.options.dims[name])
                        }
                        dim => dim.to_string(),
                    };
                    let dims: Vec<String> = info.shape.iter().flatten().map(text).collect();
                    format!("[{}]", dims.join(", "))
                };
                let rank = info.shape.as_ref().map_or(0, Vec::len);
                let got = tensor.shape().get(axis).copied();
                if tensor.shape().len() != rank || (wanted.is_some() && wanted != got) {
                    let text = format!("wants shape {}, got {:?}", declared(), tensor.shape());
                    return Err(Error::input(&info.name, text));
                }
                if let (Dim::Symbol(name), Some(got)) = (dim, got)
                    && let Some((size, other)) = sizes.insert(name, (got, &info.name))
                    && size != got
                {
                    let text = format!("dimension {name:?} is {got} here and {size} in input {other:?}");
                    return Err(Error::input(&info.name, text));
                }
            }
            if info.shape.as_ref().is_some_and(|s| s.is_empty()) && !tensor.shape().is_empty() {
                return Err(Error::input(
                    &info.name,
                    format!("wants a scalar, got shape {:?}", tensor.shape()),
                ));
            }
            feeds.push((*tensor).clone());
        }
        Ok(feeds)
    }
}

fn latest(state: &mut State) -> Result<&mut Prepared> {
    match state.prepared.last_mut() {
        Some((_, prepared)) => Ok(prepared),
        None => Err(Error::model("session", "no plan")),
    }
}

impl State {
    /// Keep a plan; the oldest goes, and with it the constants that no other plan uses.
    fn keep(&mut self, known: Known, new: Prepared) {
        if self.prepared.len() >= PLANS_KEPT {
            self.prepared.remove(0);
        }
        self.prepared.push((known, new));
        self.weights.retain(self.prepared.iter().map(|(_, prepared)| prepared.plan.as_ref()));
    }
}
