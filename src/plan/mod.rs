//! From a tensor program to a [`Plan`]: a printable list of kernel steps over numbered tensors.
//!
//! The plan is symbolic: it is made once, and [`Plan::layout`] gives sizes, offsets and dispatch sizes for
//! the dimensions of a run.

mod attention;
mod chain;
mod fuse;
mod layout;
mod narrow;
mod pack;
mod print;
mod quantized;
mod range;
mod repeat;
mod spec;
mod split;
mod stages;
mod update;
mod visible;

pub use layout::{Layout, Place, SymbolValues, bound_bytes, shape, size, tensor_bytes};
pub use repeat::{Repeat, Turn};
pub use split::{SplitKernel, split};

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::expr::{Expr, Idx, Node};
use crate::graph::Graph;
use crate::ir::{Def, Guard, Program, Stop, ValueId};
use crate::kernel::{Caps, KernelSpec};
use crate::ops::{self, Known, Lowered};
use crate::tensor::{DType, Tensor};

/// Number of a tensor in its [`Plan`].
pub type TensorId = usize;

/// Where a tensor's elements come from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Graph input number n, uploaded for every run.
    Input(usize),
    /// A constant of the model, uploaded once.
    Weight(Tensor),
    /// Computed from constants alone: once, when the session starts.
    Once,
    /// Computed in every run, in memory that is reused.
    Run,
}

/// A tensor in device memory.
#[derive(Clone, Debug)]
pub struct PlanTensor {
    /// The value's name in the model, or one derived from the node that made it.
    pub name: String,
    /// The element type; 32-bit where the model says 64-bit and all elements are proven to fit, and for the words of
    /// packed constants.
    pub dtype: DType,
    /// The shape.
    pub shape: Vec<Idx>,
    /// Where its elements come from.
    pub origin: Origin,
}

/// One dispatch.
#[derive(Clone, Debug)]
pub struct Step {
    /// Number of its kernel in [`Plan::kernels`].
    pub kernel: usize,
    /// The kernel's inputs.
    pub inputs: Vec<TensorId>,
    /// The tensor it writes.
    pub output: TensorId,
    /// The model's symbols behind the kernel's parameters, in order.
    pub params: Vec<Arc<str>>,
}

/// A step in place: its output, if it lies in the memory of an input of the same shape that nothing else reads, is that
/// input with some elements replaced.
#[derive(Clone, Debug)]
pub struct InPlace {
    /// The number of the graph input.
    pub input: usize,
    /// The input.
    pub base: TensorId,
    /// What writes the elements; it does not read the input, nor need what only the other form reads.
    pub step: Step,
}

/// Where a graph output comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Read back from a tensor.
    Device(TensorId),
    /// Known on the host: sizes and constants.
    Host(Vec<Expr>),
    /// A constant.
    Constant(Tensor),
}

/// A graph output.
#[derive(Clone, Debug)]
pub struct PlanOutput {
    /// Its name.
    pub name: String,
    /// Its dtype.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<Idx>,
    /// Where it comes from.
    pub source: Source,
}

/// A kernel and its name for messages.
#[derive(Clone, Debug)]
pub struct PlanKernel {
    /// As `gemm_3`.
    pub label: String,
    /// What it computes.
    pub spec: KernelSpec,
}

/// What the next stage of a run depends on. The plan's outputs are the values to read back.
#[derive(Clone, Debug)]
pub struct Next {
    /// The values, and whether each only counts something, so that the next plan is good for any.
    pub asked: Vec<(ValueId, bool)>,
    /// Tensors that stay on the device for the next stage, by the values that they are.
    pub live: Vec<(ValueId, TensorId)>,
}

/// What a model does, as a list of kernel steps.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Tensors by graph input, in order; `None` for inputs whose contents are part of the plan. After them stand what
    /// earlier stages left on the device, and their counts, which have no tensor.
    pub inputs: Vec<Option<TensorId>>,
    /// Shapes that the inputs must have, in order. A count stands as the shape `[count]`.
    pub input_shapes: Vec<Vec<Idx>>,
    /// The stage that comes next, planned for what this one computes; `None` in the last one.
    pub next: Option<Next>,
    /// The outputs, in order.
    pub outputs: Vec<PlanOutput>,
    /// The tensors.
    pub tensors: Vec<PlanTensor>,
    /// The kernels, each once.
    pub kernels: Vec<PlanKernel>,
    /// The steps, in order; those whose output is [`Origin::Once`] run when the session starts.
    pub steps: Vec<Step>,
    /// What may be done instead of the steps of these numbers.
    pub updates: BTreeMap<usize, InPlace>,
    /// Which of them are repeated, in order, those in which others stand before these.
    pub repeats: Vec<Repeat>,
    /// What a run must check of its sizes.
    pub guards: Vec<Guard>,
}

/// Make the plan of `graph` for a device.
///
/// # Errors
/// As [`ops::lower`]; [`Error::Limit`] where a dtype or constant has no form on the device.
pub fn plan(graph: &Graph, known: &Known, caps: &Caps) -> Result<Plan, Stop> {
    let mut lowered = ops::lower(graph, known)?;
    let mut live = Vec::new();
    if let Some(next) = &lowered.next {
        live = stages::live(&lowered.program, next, graph.inputs.len());
        // Nodes may have no names of their own.
        let named = |&(id, _): &(ValueId, bool)| (format!("{} {id}", lowered.program.value(id).name), id);
        lowered.outputs = next.asked.iter().map(named).collect();
    }
    let counts = stages::enter(&mut lowered, known, graph.inputs.len());
    let dtypes: Vec<DType> = lowered.outputs.iter().map(|(_, id)| lowered.program.dtype(*id)).collect();
    narrow::narrow(&mut lowered.program);
    widen_outputs(&mut lowered, &dtypes);
    let mut plan = build(&lowered, &dtypes, &live, counts, caps)?;
    refuse_f64(&plan, caps.floats().f64, known.precision.f64_as_f32)?;
    if known.precision.f16_sums && caps.f16 {
        plan.kernels.iter_mut().for_each(|kernel| kernel.spec.allow_f16_sums());
    }
    Ok(plan)
}

/// Outputs that narrowing changed get the model's dtypes again, so that what lies on the device is what the model says.
/// Those that are known on the host are given there as they should be.
fn widen_outputs(lowered: &mut Lowered, dtypes: &[DType]) {
    let program = &mut lowered.program;
    for ((name, id), &dtype) in lowered.outputs.iter_mut().zip(dtypes) {
        let stored = through_reshapes(program, *id);
        if host_source(program, *id, stored).is_none() {
            program.place.clone_from(name);
            *id = program.cast(*id, dtype);
        }
    }
}

/// What a device lacks of float64 is computed in float32, which is for the user to allow. Bits cannot be.
fn refuse_f64(plan: &Plan, native: bool, allowed: bool) -> Result<()> {
    if native {
        return Ok(());
    }
    let lacks = |e: &Expr| match e.node() {
        Node::Bits(_, a) if a.dtype() == DType::F64 || e.dtype() == DType::F64 => Some("the bits of float64"),
        _ if allowed || e.dtype() != DType::F64 || e.as_const().is_some() => None,
        _ => Some("float64"),
    };
    for step in &plan.steps {
        let mut found = None;
        for expr in plan.kernels[step.kernel].spec.exprs() {
            expr.visit(&mut |e| found = found.or_else(|| lacks(e)));
        }
        if let Some(what) = found {
            let name = &plan.tensors[step.output].name;
            let item = format!(
                "{what} in the kernel of {name:?}: the device computes it in float32; allow_f64_as_f32 accepts that"
            );
            return Err(Error::Unsupported { items: vec![item] });
        }
    }
    Ok(())
}

/// Bindings of a kernel that are not its inputs' first: the output, the parameters' uniform is no storage,
/// and two operands may be bound a second time for vector loads.
const RESERVED_BINDINGS: u32 = 3;

fn build(
    lowered: &Lowered,
    dtypes: &[DType],
    live: &[ValueId],
    counts: Vec<Idx>,
    caps: &Caps,
) -> Result<Plan> {
    let program = &lowered.program;
    let wanted: Vec<(ValueId, Option<Source>)> = lowered
        .outputs
        .iter()
        .map(|(_, id)| {
            let stored = through_reshapes(program, *id);
            (stored, host_source(program, *id, stored))
        })
        .collect();
    let read_back = wanted.iter().filter(|(_, host)| host.is_none()).map(|(id, _)| *id);
    let mut roots: BTreeSet<ValueId> = read_back.chain(live.iter().copied()).collect();
    roots.extend(repeat::stored(program, &roots));
    let carried = program.repeats.iter().flat_map(|repeat| repeat.states.iter().flat_map(|&(a, b)| [a, b]));
    let carried: BTreeSet<ValueId> = carried.collect();
    let most_inputs = caps.max_storage_bindings.saturating_sub(RESERVED_BINDINGS).max(2) as usize;
    let fusion = fuse::fuse(program, &roots, most_inputs);
    let packed = pack::pack(program, &roots);
    let mut builder = Builder { program, packed: &packed, tensors: Vec::new(), numbers: HashMap::new() };
    let (mut kernels, mut known_kernels) = (Vec::new(), HashMap::<KernelSpec, usize>::new());
    let mut steps = Vec::new();
    for (number, &id) in lowered.inputs.iter().enumerate() {
        if matches!(program.value(id).def, Def::Input(n) if n == number) {
            builder.tensor(id, Origin::Input(number))?;
        }
    }
    let mut number = |spec: KernelSpec| {
        *known_kernels.entry(spec.clone()).or_insert_with(|| {
            let label = format!("{}_{}", spec.family(), kernels.len());
            kernels.push(PlanKernel { label, spec });
            kernels.len() - 1
        })
    };
    for &root in fusion.drafts.keys() {
        let made = spec::make(program, &packed, root, fusion.expand(root));
        let inputs = made.sources.iter().map(|&id| builder.source(id)).collect::<Result<Vec<_>>>()?;
        let kernel = number(made.spec);
        let constant = |&t: &TensorId| matches!(builder.tensors[t].origin, Origin::Weight(_) | Origin::Once);
        let once = made.params.is_empty() && inputs.iter().all(constant) && !carried.contains(&root);
        let output = builder.tensor(root, if once { Origin::Once } else { Origin::Run })?;
        steps.push(Step { kernel, inputs, output, params: made.params });
    }
    let made: Vec<ValueId> = fusion.drafts.keys().copied().collect();
    let repeats = program.repeats.iter().filter_map(|repeat| {
        let [start, end] =
            [repeat.values.start, repeat.values.end].map(|id| made.partition_point(|&m| m < id));
        let number = |id| builder.numbers.get(id).copied();
        let states = repeat.states.iter().map(|(old, new)| Some((number(old)?, number(new)?)));
        Some(Repeat {
            steps: start..end,
            step: repeat.step.clone(),
            count: repeat.count.clone(),
            states: states.collect::<Option<_>>()?,
            stacks: repeat.stacks.iter().filter_map(number).collect(),
        })
    });
    let mut repeats: Vec<Repeat> = repeats.filter(|repeat: &Repeat| !repeat.steps.is_empty()).collect();
    // Those in which others stand come before these; they ended after them.
    repeats.reverse();
    repeats.sort_by_key(|repeat| (repeat.steps.start, Reverse(repeat.steps.end)));
    let mut outputs = Vec::new();
    for (((name, id), &dtype), (stored, host)) in lowered.outputs.iter().zip(dtypes).zip(wanted) {
        let value = program.value(*id);
        let source = match host {
            Some(source) => source,
            None => Source::Device(builder.source(stored)?),
        };
        outputs.push(PlanOutput { name: name.clone(), dtype, shape: value.shape.clone(), source });
    }
    let mut updates = BTreeMap::new();
    for (position, &root) in fusion.drafts.keys().enumerate().filter(|_| lowered.next.is_none()) {
        let Some((base, made)) = update::make(program, &fusion, &packed, root) else { continue };
        let Some(&base) = builder.numbers.get(&base) else { continue };
        let Origin::Input(input) = builder.tensors[base].origin else { continue };
        let inputs = made.sources.iter().map(|&id| builder.source(id)).collect::<Result<Vec<_>>>()?;
        let output = steps[position].output;
        // Until then, others may read what was there.
        let is_read_later = steps[position + 1..].iter().any(|step| step.inputs.contains(&base));
        let is_repeated = repeats.iter().any(|repeat| repeat.steps.contains(&position));
        let is_output = outputs.iter().any(|o| matches!(o.source, Source::Device(t) if t == base));
        let same_dtype = builder.tensors[base].dtype == builder.tensors[output].dtype;
        if !is_read_later && !is_repeated && !is_output && same_dtype && !inputs.contains(&base) {
            let step = Step { kernel: number(made.spec), inputs, output, params: made.params };
            updates.insert(position, InPlace { input, base, step });
        }
    }
    let next = match &lowered.next {
        Some(next) => {
            let keep = |&id: &ValueId| Ok((id, builder.source(id)?));
            let live = live.iter().map(keep).collect::<Result<_>>()?;
            Some(Next { asked: next.asked.clone(), live })
        }
        None => None,
    };
    let inputs = lowered.inputs.iter().map(|id| builder.numbers.get(id).copied());
    let input_shapes = lowered.inputs.iter().map(|&id| program.shape(id).to_vec());
    Ok(Plan {
        inputs: inputs.chain(counts.iter().map(|_| None)).collect(),
        input_shapes: input_shapes.chain(counts.iter().map(|count| vec![count.clone()])).collect(),
        next,
        outputs,
        tensors: builder.tensors,
        kernels,
        steps,
        updates,
        repeats,
        guards: program.guards.clone(),
    })
}

/// The value that holds the elements of `id`.
fn through_reshapes(program: &Program, id: ValueId) -> ValueId {
    match program.value(id).def {
        Def::Reshape(source) => through_reshapes(program, source),
        Def::Input(_)
        | Def::Weight(_)
        | Def::Map(_)
        | Def::Reduce { .. }
        | Def::Contract { .. }
        | Def::TopK { .. }
        | Def::Stacked { .. } => id,
    }
}

fn host_source(program: &Program, id: ValueId, stored: ValueId) -> Option<Source> {
    if let Def::Weight(tensor) = &program.value(stored).def {
        if tensor.place().is_some() {
            return None;
        }
        let shape = crate::ir::static_shape(program.shape(id))?;
        return Some(Source::Constant(tensor.reshape(&shape).ok()?));
    }
    program.value(id).content.clone().map(Source::Host)
}

struct Builder<'a> {
    program: &'a Program,
    packed: &'a pack::Packed,
    tensors: Vec<PlanTensor>,
    numbers: HashMap<ValueId, TensorId>,
}

impl Builder<'_> {
    fn tensor(&mut self, id: ValueId, origin: Origin) -> Result<TensorId> {
        let value = self.program.value(id);
        if matches!(value.dtype, DType::String | DType::Complex64 | DType::Complex128) {
            return Err(Error::limit(
                &value.name,
                format!("{} tensors have no form on the device", value.dtype),
            ));
        }
        let name = value.name.clone();
        let (dtype, shape, origin) = match self.packed.get(&id) {
            Some(words) => (words.dtype(), vec![Idx::from(words.len())], Origin::Weight(words.clone())),
            None => (value.dtype, value.shape.clone(), origin),
        };
        self.tensors.push(PlanTensor { name, dtype, shape, origin });
        self.numbers.insert(id, self.tensors.len() - 1);
        Ok(self.tensors.len() - 1)
    }

    fn source(&mut self, id: ValueId) -> Result<TensorId> {
        if let Some(&number) = self.numbers.get(&id) {
            return Ok(number);
        }
        match &self.program.value(id).def {
            Def::Weight(tensor) => self.tensor(id, Origin::Weight(tensor.clone())),
            Def::Input(number) => self.tensor(id, Origin::Input(*number)),
            Def::Reshape(_)
            | Def::Map(_)
            | Def::Reduce { .. }
            | Def::Contract { .. }
            | Def::TopK { .. }
            | Def::Stacked { .. } => {
                Err(Error::model(&self.program.value(id).name, "is read before it is made"))
            }
        }
    }
}

impl Plan {
    /// The symbols that the inputs' shapes bind, with input and axis.
    pub fn symbols(&self) -> BTreeMap<Arc<str>, (usize, usize)> {
        let mut found = BTreeMap::new();
        for (input, shape) in self.input_shapes.iter().enumerate() {
            for (axis, dim) in shape.iter().enumerate() {
                if let Some(crate::expr::Atom::Sym(name)) = dim.as_atom() {
                    found.entry(name.clone()).or_insert((input, axis));
                }
            }
        }
        found
    }

    /// A step, as it is done where the steps numbered in `in_place` are done so.
    pub fn step(&self, number: usize, in_place: &BTreeSet<usize>) -> &Step {
        match self.updates.get(&number) {
            Some(update) if in_place.contains(&number) => &update.step,
            _ => &self.steps[number],
        }
    }

    /// Dispatches in every run.
    pub fn dispatches(&self) -> usize {
        self.steps.iter().filter(|step| matches!(self.tensors[step.output].origin, Origin::Run)).count()
    }
}
