//! Load a model, run it.
//!
//! | file | what |
//! |---|---|
//! | `request`, `device_tensor` | what a run takes and gives |
//! | `run` | a run, stage by stage (`stages`) |
//! | `prepared`, `weights`, `recorded` | a plan, its constants, its commands, with the device's objects |
//! | `tuning`, `jobs`, `rig`, `finals` | tuning at once |
//! | `winners` | the schedules that runs use |
//! | `background`, `pauses` | between runs: compiling winners, tuning |
//! | `trace` | times of a run for who listens |

mod background;
mod device_tensor;
mod finals;
mod jobs;
mod pauses;
mod prepared;
mod recorded;
mod request;
mod rig;
mod run;
mod stages;
mod trace;
mod tuning;
mod weights;
mod winners;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::gpu::{AdapterChoice, AdapterInfo, Checks, Device};
use crate::graph::{Graph, ValueInfo};
use crate::ir::Stop;
use crate::model::{Model, Precision};
use crate::onnx;
use crate::plan::Plan;
use crate::tensor::Tensor;
use crate::tune::Store;

pub use background::TuneStatus;
use background::{Background, Offer};
pub use device_tensor::DeviceTensor;
use pauses::Turn;
use prepared::Prepared;
pub use prepared::{KernelText, StepTime};
use recorded::Run;
pub use request::{Input, Outputs, Request};
use stages::Earlier;
use tuning::Tuning;
pub use tuning::{TuneMode, TuneOptions, TuneProgress, TuneReport, TunedKernel};
use weights::Weights;
use winners::Winners;

/// How a session is made.
#[derive(Clone, Default)]
pub struct SessionOptions {
    /// The adapter to run on.
    pub adapter: AdapterChoice,
    /// Symbolic dimensions with fixed sizes, as `batch = 1`.
    pub dims: BTreeMap<String, usize>,
    /// Compute float64 tensors in float32 rather than refuse them.
    pub allow_f64_as_f32: bool,
    /// Let matrix products of float16 operands add up in float16, where the device has it, which is faster on some and
    /// far less exact: a sum of K products is off by at most `K * 2^-11` times the sum of their absolute values, and
    /// overflows beyond 65504. Otherwise sums are taken in float32.
    pub f16_sums: bool,
    /// Where tuning records are read from and kept; `None` keeps them in memory only. [`Store::default_path`] is the
    /// user's own.
    pub records: Option<PathBuf>,
    /// When kernels are tuned without [`Session::tune`] being called.
    pub tune: TuneMode,
    /// Whether kernels check that they stay within their memory, as they do unless told otherwise; see [`Checks::off`].
    /// Records of one kind say nothing of the other.
    pub checks: Checks,
    /// Called as long work advances: weights uploaded, kernels compiled, kernels tuned before a first run.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl std::fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionOptions")
            .field("adapter", &self.adapter)
            .field("dims", &self.dims)
            .field("allow_f64_as_f32", &self.allow_f64_as_f32)
            .field("f16_sums", &self.f16_sums)
            .field("records", &self.records)
            .field("tune", &self.tune)
            .field("checks", &self.checks)
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
    /// Kernels are tuned before the first run, in [`TuneMode::Full`].
    Tune,
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

/// A model ready to run on a device. Runs of one session take turns; several sessions run side by side.
pub struct Session {
    device: Device,
    graph: Arc<Graph>,
    options: SessionOptions,
    store: Arc<Mutex<Store>>,
    state: Arc<Mutex<State>>,
    winners: Arc<Winners>,
    /// Where there is something to do between runs.
    background: Option<Background>,
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
struct State {
    model: Model<Prepared>,
    weights: Weights,
    last_dispatches: usize,
}

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
        let precision = Precision { f64_as_f32: options.allow_f64_as_f32, f16_sums: options.f16_sums };
        let model = Model::new(graph, options.dims.clone(), precision)?;
        let device = Device::open_with_async(&options.adapter, options.checks).await?;
        let store = options.records.as_deref().map(Store::open).transpose()?.unwrap_or_default();
        let store = Arc::new(Mutex::new(store));
        let graph = model.graph.clone();
        let state = Arc::new(Mutex::new(State { model, weights: Weights::default(), last_dispatches: 0 }));
        let (tunes, is_empty) = (options.tune.clone(), store.lock().is_ok_and(|store| store.is_empty()));
        let winners = Arc::new(Winners::new(&store, &device, matches!(tunes, TuneMode::Full(_))));
        let works = |options| Background::new(&device, &store, &winners, &state, options).map(Some);
        let background = match tunes {
            TuneMode::Background(options) => works(options)?,
            TuneMode::Off if !is_empty => works(TuneOptions::default())?,
            TuneMode::Off | TuneMode::Full(_) => None,
        };
        let session = Session { device, graph, options: options.clone(), store, winners, state, background };
        {
            let State { model, weights, .. } = &mut *session.lock();
            model.plan_ahead(session.device.caps(), &mut |plan| session.prepared(plan, weights))?;
        }
        Ok(session)
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
        self.lock().model.plans().last().map(|planned| planned.plan.clone())
    }

    /// Copy a tensor to the session's device, for any number of runs.
    ///
    /// # Errors
    /// [`Error::Limit`] for a dtype without a form on the device and beyond its largest buffer; [`Error::OutOfMemory`];
    /// [`Error::Device`].
    pub fn upload(&self, tensor: &Tensor) -> Result<DeviceTensor> {
        DeviceTensor::new(&self.device, "upload", tensor)
    }

    /// The WGSL of every kernel compiled so far.
    pub fn kernels(&self) -> Vec<KernelText> {
        self.lock().model.plans().iter().flat_map(|planned| planned.kept.texts()).collect()
    }

    /// What the session's own tuning is at; [`TuneStatus::Idle`] where it does none in the background.
    pub fn tune_status(&self) -> TuneStatus {
        self.background.as_ref().map_or(TuneStatus::Idle, Background::status)
    }

    /// Stop tuning in the background, for good, after the sample at hand. Kernels whose tuning was not finished keep their
    /// schedules.
    pub fn cancel_tuning(&self) {
        if let Some(background) = &self.background {
            background.cancel();
        }
    }

    /// Wait until the stored winners that the runs so far did without are compiled: the next run uses them. They are
    /// compiled all the same where nobody waits.
    pub fn wait_for_winners(&self) {
        if let Some(background) = &self.background {
            background.wait_for_winners();
        }
    }

    /// A run begins, and goes before what is done between runs.
    fn turn(&self) -> Option<Turn<'_>> {
        self.background.as_ref().map(Background::turn)
    }

    /// Before a first run in [`TuneMode::Full`].
    fn tune_first(&self, prepared: &mut Prepared, feeds: &[Input]) -> Result<()> {
        let TuneMode::Full(options) = &self.options.tune else { return Ok(()) };
        if !prepared.is_new(feeds) {
            return Ok(());
        }
        let (device, store, winners) = (&self.device, &self.store, &self.winners);
        let tuning = Tuning { device, store, winners, options, all: false };
        let run = prepared.start(&self.device, feeds, &BTreeSet::new(), self.progress())?;
        let jobs = prepared.jobs(&run, None, self.device.caps(), &self.adapter().into());
        if jobs.iter().all(|job| tuning.is_known(job)) {
            return Ok(());
        }
        let tell = |done: usize, total: usize| {
            if let Some(progress) = self.progress() {
                progress(Progress { stage: Stage::Tune, done: done as u64, total: total as u64 });
            }
        };
        let report = tuning.tune(prepared, feeds, &mut |p| tell(p.kernel, p.kernels))?;
        tell(report.kernels.len(), report.kernels.len());
        Ok(())
    }

    /// After a run: what there is to do because of it.
    fn offer(&self, prepared: &mut Prepared, run: &Run, feeds: &[Input]) {
        let Some(background) = &self.background else { return };
        let waiting = self.winners.take(&run.recorded.waiting);
        let tunes = matches!(self.options.tune, TuneMode::Background(_));
        let jobs = match tunes && prepared.is_new(feeds) {
            true => prepared.jobs(run, None, self.device.caps(), &self.adapter().into()),
            false => Vec::new(),
        };
        if !(waiting.is_empty() && jobs.is_empty()) {
            let (plan, symbols) = (prepared.plan.clone(), run.recorded.symbols.clone());
            background.offer(Offer { plan, symbols, waiting, jobs });
        }
    }

    fn progress(&self) -> Option<&(dyn Fn(Progress) + Send + Sync)> {
        self.options.progress.as_deref()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state half changed in a way that matters: plans are replaced whole.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn prepared(&self, plan: &Arc<Plan>, weights: &mut Weights) -> Result<Prepared> {
        tracing::debug!(target: "tilewright::plan", "{plan}");
        Prepared::new(&self.device, plan.clone(), weights, self.winners.clone(), self.progress())
    }

    /// The plan of the first stage of a run, with its device resources.
    fn first<'a>(&self, state: &'a mut State, feeds: &[Input]) -> Result<&'a mut Prepared> {
        self.ready(state, feeds, &Earlier::default())?.ok_or_else(|| Error::model("session", "no plan"))
    }

    /// A plan that fits these inputs and what was computed before, with its device resources; `None` where the run must
    /// begin again.
    fn ready<'a>(
        &self,
        state: &'a mut State,
        feeds: &[Input],
        earlier: &Earlier,
    ) -> Result<Option<&'a mut Prepared>> {
        let shapes: Vec<Vec<usize>> = feeds.iter().map(|feed| feed.shape().to_vec()).collect();
        let State { model, weights, .. } = state;
        let mut is_new = false;
        let unread = Cell::new(None);
        let contents = |i: usize| match feeds.get(i)?.to_host() {
            Ok(tensor) => Some(tensor),
            Err(error) => {
                unread.set(Some(error));
                None
            }
        };
        let ready = model.ready(&shapes, &contents, &earlier.computed, self.device.caps(), &mut |plan| {
            is_new = true;
            self.prepared(plan, weights)
        });
        match ready {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::NeedsInputs(_) | Stop::NeedsShapes | Stop::NeedsValue(_)) => {
                let absent =
                    || Error::model("session", "the plan wants an input that the model does not have");
                return Err(unread.take().unwrap_or_else(absent));
            }
        }
        if is_new {
            weights.retain(model.plans().iter().map(|planned| planned.plan.as_ref()));
        }
        let prepared = &mut model.latest()?.kept;
        prepared.earlier = earlier.clone();
        Ok(Some(prepared))
    }
}
