//! A model and its plans: which plan serves a run, given what is known of the run's inputs. Needs no device.

mod inputs;
mod stage;

pub use inputs::Given;
pub use stage::Computed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::ir::Stop;
use crate::kernel::Caps;
use crate::ops::Known;
pub use crate::ops::Precision;
use crate::plan::{Plan, plan};
use crate::tensor::Tensor;

/// Plans kept for different specialisations of one model.
const PLANS_KEPT: usize = 8;

/// A model, and the plans made of it so far, each with what `R` its user keeps with it.
#[derive(Debug)]
pub struct Model<R> {
    /// The model as its file says it.
    pub graph: Arc<Graph>,
    dims: BTreeMap<String, usize>,
    precision: Precision,
    /// Inputs whose contents the plan depends on.
    needed: BTreeSet<usize>,
    /// Whether the plan depends on the sizes of symbols.
    needs_shapes: bool,
    /// Whether computed counts are planned for one by one: a plan for any count assumed what does not hold.
    pub exact_counts: bool,
    /// The latest last.
    plans: Vec<Planned<R>>,
}

/// A plan, and what is kept with it.
#[derive(Debug)]
pub struct Planned<R> {
    known: Known,
    /// The plan.
    pub plan: Arc<Plan>,
    /// What is kept with it.
    pub kept: R,
}

/// Makes what is kept with a new plan.
pub type Keep<'a, R> = &'a mut dyn FnMut(&Arc<Plan>) -> Result<R>;

impl<R> Model<R> {
    /// The model `graph`, with some symbolic dimensions fixed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with everything that is not supported at once.
    pub fn new(graph: Graph, dims: BTreeMap<String, usize>, precision: Precision) -> Result<Self> {
        let unsupported = crate::ops::unsupported(&graph);
        if !unsupported.is_empty() {
            return Err(Error::Unsupported { items: unsupported });
        }
        Ok(Model {
            graph: Arc::new(graph),
            dims,
            precision,
            needed: BTreeSet::new(),
            needs_shapes: false,
            exact_counts: false,
            plans: Vec::new(),
        })
    }

    /// Plan ahead of the first run, where that is possible without its inputs.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn plan_ahead(&mut self, caps: &Caps, keep: Keep<R>) -> Result<()> {
        match self.prepare(self.known(), caps, keep) {
            Ok(()) => Ok(()),
            Err(Stop::NeedsInputs(inputs)) => {
                self.needed.extend(inputs);
                Ok(())
            }
            Err(Stop::NeedsShapes) => {
                self.needs_shapes = true;
                Ok(())
            }
            Err(Stop::NeedsValue(_)) => Err(Error::model("plan", "a stage without an end")),
            Err(Stop::Error(error)) => Err(error),
        }
    }

    /// A plan that fits inputs of these shapes, in the model's order; it stands last in the list. `contents` gives an
    /// input's elements where the plan depends on them, `computed` what earlier stages of the run found out. `None`
    /// says that the run must begin again at its first stage.
    ///
    /// # Errors
    /// [`Stop::NeedsInputs`] with the inputs that `contents` must give and does not; else as [`plan`].
    pub fn ready(
        &mut self,
        shapes: &[Vec<usize>],
        contents: &dyn Fn(usize) -> Option<Tensor>,
        computed: &Computed,
        caps: &Caps,
        keep: Keep<R>,
    ) -> Result<Option<&mut Planned<R>>, Stop> {
        let mut known = self.known();
        known.given = computed.given.clone();
        known.resident = computed.resident.iter().map(|(id, held, _)| (*id, *held)).collect();
        let bound: Vec<Vec<usize>> = shapes.iter().cloned().chain(computed.shapes()).collect();
        let all_shapes = || shapes.iter().cloned().enumerate().collect();
        if self.needs_shapes {
            known.shapes = all_shapes();
        }
        loop {
            known.contents = self.needed.iter().filter_map(|&i| Some((i, contents(i)?))).collect();
            if known.contents.len() < self.needed.len() {
                return Err(Stop::NeedsInputs(self.needed.clone()));
            }
            match self.prepare(known.clone(), caps, keep) {
                Ok(()) => {}
                Err(Stop::NeedsInputs(inputs)) if !inputs.is_subset(&self.needed) => {
                    self.needed.extend(inputs);
                    if !computed.is_nothing() {
                        return Ok(None);
                    }
                    continue;
                }
                Err(Stop::NeedsShapes)
                    if known.shapes.is_empty() || !(self.exact_counts || computed.is_nothing()) =>
                {
                    self.needs_shapes = true;
                    if !computed.is_nothing() {
                        // A count may be among the sizes.
                        self.exact_counts = true;
                        return Ok(None);
                    }
                    known.shapes = all_shapes();
                    continue;
                }
                Err(Stop::NeedsInputs(_) | Stop::NeedsShapes | Stop::NeedsValue(_)) => {
                    let items = vec!["a shape that depends on computed values".into()];
                    return Err(Error::Unsupported { items }.into());
                }
                Err(error) => return Err(error),
            }
            let plan = &self.latest()?.plan;
            let Some(broken) = plan.broken_guard(&plan.symbol_values(&bound))? else { break };
            if !(computed.is_nothing() || self.needs_shapes && self.exact_counts) {
                (self.needs_shapes, self.exact_counts) = (true, true);
                return Ok(None);
            }
            if !known.shapes.is_empty() {
                return Err(Error::model("inputs", broken).into());
            }
            // A symbolic plan assumed sizes equal that are not, as in a broadcast of 1: plan for these sizes.
            tracing::info!(
                "the symbolic plan's assumptions do not hold for these inputs; planning for their sizes"
            );
            known.shapes = all_shapes();
        }
        Ok(Some(self.latest()?))
    }

    /// All plans, the latest last.
    pub fn plans(&self) -> &[Planned<R>] {
        &self.plans
    }

    /// The same, to change what is kept with them.
    pub fn plans_mut(&mut self) -> &mut [Planned<R>] {
        &mut self.plans
    }

    /// Whether the plan of a run depends on contents of its inputs.
    pub fn depends_on_contents(&self) -> bool {
        !self.needed.is_empty()
    }

    /// The plan used last.
    ///
    /// # Errors
    /// [`Error::Model`] where there is none yet.
    pub fn latest(&mut self) -> Result<&mut Planned<R>> {
        self.plans.last_mut().ok_or_else(|| Error::model("session", "no plan"))
    }

    /// What is kept with a plan, if it still is one of the model's.
    pub fn kept(&mut self, plan: &Arc<Plan>) -> Option<&mut R> {
        let own = self.plans.iter_mut().find(|planned| Arc::ptr_eq(&planned.plan, plan));
        own.map(|planned| &mut planned.kept)
    }

    /// Take the latest plan out, for a run that goes on without the model.
    ///
    /// # Errors
    /// As [`Model::latest`].
    pub fn take_latest(&mut self) -> Result<Planned<R>> {
        self.plans.pop().ok_or_else(|| Error::model("session", "no plan"))
    }

    /// Keep a plan as the latest; the oldest goes.
    pub fn keep(&mut self, planned: Planned<R>) {
        if self.plans.len() >= PLANS_KEPT {
            self.plans.remove(0);
        }
        self.plans.push(planned);
    }

    fn known(&self) -> Known {
        Known { dims: self.dims.clone(), precision: self.precision, ..Known::default() }
    }

    /// Make sure that a plan for `known` stands last in the list.
    fn prepare(&mut self, known: Known, caps: &Caps, keep: Keep<R>) -> Result<(), Stop> {
        match self.plans.iter().position(|planned| planned.known == known) {
            Some(position) => {
                let planned = self.plans.remove(position);
                self.plans.push(planned);
            }
            None => {
                let plan = Arc::new(plan(&self.graph, &known, caps)?);
                let kept = keep(&plan)?;
                self.keep(Planned { known, plan, kept });
            }
        }
        Ok(())
    }
}
