//! A plan at given sizes, written down as commands.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::windows::{Part, parts};
use super::{Commands, Dispatch, Keep, Kept, Memory, Range};
use crate::error::{Error, Result};
use crate::kernel::{Caps, KernelSpec, Pass, Schedule, Slot, grid, passes, size, storage_bytes};
use crate::plan::{
    Layout, Origin, Plan, Source, Step, SymbolValues, TensorId, Turn, bound_bytes, tensor_bytes,
};
use crate::wgsl::{self, Bound, Rendered, Target};

/// Picks the schedule of a kernel at given values of its parameters.
pub type Choose<'a> = &'a dyn Fn(&KernelSpec, &[i64]) -> Schedule;

/// A rendered kernel.
#[derive(Clone, Debug)]
pub struct Text {
    /// The kernel's number in the plan.
    pub kernel: usize,
    /// The schedule it was rendered for.
    pub schedule: Schedule,
    /// The text, and what to bind.
    pub rendered: Arc<Rendered>,
}

/// What a text depends on: the plan's kernel, which of its inputs are windowed, its schedule, and the number and the
/// schedule of the pass.
type Variant = (usize, Option<Vec<bool>>, Schedule, usize, Schedule);

/// The kernels of a plan that were rendered so far, each once, numbered in that order.
#[derive(Clone, Debug, Default)]
pub struct Kernels {
    texts: Vec<Text>,
    numbers: HashMap<Variant, usize>,
}

impl Kernels {
    /// All of them.
    pub fn texts(&self) -> &[Text] {
        &self.texts
    }

    /// The number of a pass's text; `label` names it in messages.
    fn number(&mut self, variant: Variant, pass: &Pass, label: &str, target: Target) -> Result<usize> {
        if let Some(&number) = self.numbers.get(&variant) {
            return Ok(number);
        }
        let rendered = Arc::new(wgsl::render(label, &pass.spec, &pass.schedule, target)?);
        let source = &rendered.shader.source;
        tracing::debug!(target: "tilewright::wgsl", kernel = label, "{source}");
        self.texts.push(Text { kernel: variant.0, schedule: variant.2.clone(), rendered });
        self.numbers.insert(variant, self.texts.len() - 1);
        Ok(self.texts.len() - 1)
    }
}

/// Writes down what a plan does.
pub struct Recorder<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What the device allows.
    pub caps: &'a Caps,
    /// What the kernels are rendered for.
    pub target: Target,
    /// How each kernel computes.
    pub choose: Choose<'a>,
    /// The kernels rendered before; new ones are added.
    pub kernels: &'a mut Kernels,
}

impl Recorder<'_> {
    /// What depends on constants alone, for the start of a session. Nothing is read back.
    ///
    /// # Errors
    /// As [`Recorder::run`].
    pub fn once(&mut self) -> Result<Commands> {
        let plan = self.plan;
        let is_once = |t: TensorId| matches!(plan.tensors[t].origin, Origin::Once);
        let mut buffers = Vec::new();
        for step in plan.steps.iter().filter(|step| is_once(step.output)) {
            let range = self.constant(step.output)?;
            buffers.push((range.memory, range.size_bytes));
        }
        let mut scratch = Scratch { first_arena: 0, size_bytes: Vec::new() };
        let turn = |step| Turn { step, symbols: SymbolValues::new() };
        let turns = (0..plan.steps.len()).map(turn).collect();
        let (dispatches, parameters) =
            self.dispatches(is_once, turns, &BTreeSet::new(), &|this, _, t| this.constant(t), &mut scratch)?;
        buffers.extend(scratch.buffers());
        Ok(Commands { buffers, parameters, dispatches, ..Commands::default() })
    }

    /// A run with these sizes.
    ///
    /// # Errors
    /// [`Error::Limit`] naming a tensor or kernel that is too large for the device; [`Error::Model`] for a size that
    /// is not known.
    pub fn run(&mut self, symbols: &SymbolValues, keep: &Keep) -> Result<(Commands, Layout)> {
        let plan = self.plan;
        let own = own_memory(plan, keep);
        let layout = plan.layout(symbols, self.caps, &own.keys().copied().collect())?;
        let range = |t: TensorId| {
            let size_bytes = layout.size_bytes[t];
            let at = |memory, offset_bytes| Range { memory, offset_bytes, size_bytes };
            match plan.tensors[t].origin {
                Origin::Weight(_) | Origin::Once => Some(at(Memory::Constant(t), 0)),
                Origin::Input(number) => Some(at(Memory::Input(number), 0)),
                Origin::Run => match own.get(&t) {
                    Some(&(memory, _)) => Some(at(memory, 0)),
                    None => {
                        layout.places.get(&t).map(|place| at(Memory::Arena(place.arena), place.offset_bytes))
                    }
                },
            }
            .ok_or_else(|| Error::model(&plan.tensors[t].name, "a tensor of the plan has no memory"))
        };
        let inputs = plan.inputs.iter().enumerate().filter(|(input, _)| !keep.inputs.contains(input));
        let inputs = inputs.filter_map(|(input, t)| Some((Memory::Input(input), (*t)?)));
        let mut buffers: Vec<(Memory, u64)> =
            inputs.map(|(memory, t)| (memory, layout.size_bytes[t])).collect();
        let arenas = layout.arena_bytes.iter().enumerate();
        buffers.extend(arenas.map(|(arena, &bytes)| (Memory::Arena(arena), bytes)));
        for (&t, &(memory, _)) in &own {
            if let Memory::Output(_) = memory {
                buffers.push((memory, layout.size_bytes[t]));
            }
        }
        let in_run = |t: TensorId| matches!(plan.tensors[t].origin, Origin::Run);
        let mut scratch = Scratch { first_arena: layout.arena_bytes.len(), size_bytes: Vec::new() };
        let place = |_: &Self, turn: &Turn, t| range(plan.holder(t, Some(turn.step), &turn.symbols)?);
        let needed = plan.needed(&keep.in_place);
        let mut turns = plan.turns(symbols)?;
        turns.retain(|turn| needed.contains(&turn.step));
        let (dispatches, parameters) =
            self.dispatches(in_run, turns, &keep.in_place, &place, &mut scratch)?;
        buffers.extend(scratch.buffers());
        let (mut readbacks, mut kept) = (Vec::new(), Vec::new());
        for (number, output) in plan.outputs.iter().enumerate() {
            let Source::Device(t) = output.source else { continue };
            if keep.outputs.contains(&number) {
                let is_own = own.get(&t).is_some_and(|&(_, output)| output == number);
                kept.push(Kept { range: range(t)?, is_own });
                continue;
            }
            let len: usize = layout.shapes[t].iter().product();
            let bytes = len * storage_bytes(plan.tensors[t].dtype, self.caps.floats());
            let size_bytes = (bytes as u64).next_multiple_of(4);
            readbacks.push(Range { size_bytes, ..range(plan.holder(t, None, symbols)?)? });
        }
        let left = plan.next.iter().flat_map(|next| &next.live);
        let left = left.map(|&(_, t)| range(plan.holder(t, None, symbols)?));
        let left = left.collect::<Result<_>>()?;
        Ok((Commands { buffers, parameters, dispatches, readbacks, left, kept }, layout))
    }

    /// All of a tensor whose size is constant.
    fn constant(&self, t: TensorId) -> Result<Range> {
        let tensor = &self.plan.tensors[t];
        let dims = crate::plan::shape(&tensor.shape, &SymbolValues::new(), &tensor.name)?;
        let size_bytes = tensor_bytes(tensor, &dims, self.caps)?;
        Ok(Range { memory: Memory::Constant(t), offset_bytes: 0, size_bytes })
    }

    /// The dispatches of the turns whose output is `wanted`, those of nothing left out, and their parameters.
    fn dispatches(
        &mut self,
        wanted: impl Fn(TensorId) -> bool,
        turns: Vec<Turn>,
        in_place: &BTreeSet<usize>,
        range: &dyn Fn(&Self, &Turn, TensorId) -> Result<Range>,
        scratch: &mut Scratch,
    ) -> Result<(Vec<Dispatch>, Vec<u8>)> {
        let plan = self.plan;
        let mut parameters = Parameters::new(self.caps);
        let mut dispatches = Vec::new();
        for turn in &turns {
            let step = plan.step(turn.step, in_place);
            if !wanted(step.output) {
                continue;
            }
            let sizes = sizes(step, &turn.symbols);
            let inputs = step.inputs.iter().map(|&t| range(self, turn, t)).collect::<Result<Vec<_>>>()?;
            let output = range(self, turn, step.output)?;
            for part in parts(self.caps, plan, step, &sizes, inputs, output)? {
                self.part(turn.step, step, &part, &mut parameters, scratch, &mut dispatches)?;
            }
        }
        Ok((dispatches, parameters.bytes))
    }

    /// The passes of a step, or of a part of it; none where there is nothing to compute.
    fn part(
        &mut self,
        number: usize,
        step: &Step,
        part: &Part,
        parameters: &mut Parameters,
        scratch: &mut Scratch,
        dispatches: &mut Vec<Dispatch>,
    ) -> Result<()> {
        let planned = &self.plan.kernels[step.kernel];
        let spec = part.split.as_ref().map_or(&planned.spec, |split| &split.spec);
        let schedule = (self.choose)(spec, &part.sizes);
        let passes = passes(spec, &schedule, &part.sizes, self.caps);
        for (position, pass) in passes.iter().enumerate() {
            let label = wgsl::pass_label(&planned.label, position, passes.len());
            let workgroups = grid(&label, &pass.spec, &pass.schedule, &pass.sizes, self.caps)?;
            if workgroups.contains(&0) {
                continue;
            }
            let variant =
                (step.kernel, part.windowed.clone(), schedule.clone(), position, pass.schedule.clone());
            let kernel = self.kernels.number(variant, pass, &label, self.target)?;
            let mut slot = |slot: Slot, bytes: Option<u64>| match slot {
                Slot::Input(i) => part.inputs.get(i).copied(),
                Slot::Output => Some(part.output),
                Slot::Scratch(i) => Some(scratch.range(i, bytes)),
            };
            let element_bytes = storage_bytes(pass.spec.output, self.caps.floats());
            let output_bytes = bound_bytes(size(&pass.len, &pass.sizes) as usize, element_bytes);
            let output = slot(pass.output, Some(output_bytes));
            let mut bindings = Vec::new();
            for bound in &self.kernels.texts[kernel].rendered.bound {
                let range = match bound {
                    Bound::Input(i) => pass.inputs.get(*i).and_then(|&input| slot(input, None)),
                    Bound::Output => output,
                    Bound::Params => parameters.add(&pass.sizes),
                };
                bindings.push(range.ok_or_else(|| Error::model(&label, "a binding has no memory"))?);
            }
            dispatches.push(Dispatch { kernel, step: number, bindings, workgroups });
        }
        Ok(())
    }
}

/// The tensors that a run computes into memory of their own, with that memory and the outputs that they are: each is one
/// output, and others of the same tensor are copies.
fn own_memory(plan: &Plan, keep: &Keep) -> BTreeMap<TensorId, (Memory, usize)> {
    let mut own = BTreeMap::new();
    for &number in &keep.outputs {
        if let Some(Source::Device(t)) = plan.outputs.get(number).map(|output| &output.source)
            && matches!(plan.tensors[*t].origin, Origin::Run)
        {
            own.entry(*t).or_insert((Memory::Output(number), number));
        }
    }
    for step in &keep.in_place {
        if let Some(update) = plan.updates.get(step)
            && let Some((memory, _)) = own.get_mut(&update.step.output)
        {
            *memory = Memory::Input(update.input);
        }
    }
    own
}

/// Memory between the passes of a step: arenas behind those of the layout, shared by all steps.
struct Scratch {
    first_arena: usize,
    /// Bytes that each is given, and bytes of what was last written to it.
    size_bytes: Vec<(u64, u64)>,
}

impl Scratch {
    /// Scratch number `i`: for `bytes` to be written, or what was written last.
    fn range(&mut self, i: usize, bytes: Option<u64>) -> Range {
        if i >= self.size_bytes.len() {
            self.size_bytes.resize(i + 1, (0, 0));
        }
        let (most, last) = &mut self.size_bytes[i];
        if let Some(bytes) = bytes {
            (*most, *last) = (bytes.max(*most), bytes);
        }
        Range { memory: Memory::Arena(self.first_arena + i), offset_bytes: 0, size_bytes: *last }
    }

    fn buffers(&self) -> impl Iterator<Item = (Memory, u64)> {
        let arena = |(i, &(most, _)): (usize, &(u64, u64))| (Memory::Arena(self.first_arena + i), most);
        self.size_bytes.iter().enumerate().map(arena)
    }
}

/// The run-time parameters of a step's kernel.
pub fn sizes(step: &Step, symbols: &SymbolValues) -> Vec<i64> {
    step.params.iter().map(|p| symbols.get(p).copied().unwrap_or(0)).collect()
}

/// The run-time parameters of all steps in one uniform buffer; equal ones stand there once.
struct Parameters {
    alignment: usize,
    bytes: Vec<u8>,
    at: BTreeMap<Vec<i64>, Range>,
}

impl Parameters {
    fn new(caps: &Caps) -> Self {
        let alignment = caps.uniform_offset_alignment.max(16) as usize;
        Parameters { alignment, bytes: Vec::new(), at: BTreeMap::new() }
    }

    /// Where these stand; nowhere if there are none.
    fn add(&mut self, sizes: &[i64]) -> Option<Range> {
        if sizes.is_empty() {
            return None;
        }
        let (bytes, alignment) = (&mut self.bytes, self.alignment);
        Some(*self.at.entry(sizes.to_vec()).or_insert_with(|| {
            bytes.resize(bytes.len().next_multiple_of(alignment), 0);
            let offset_bytes = bytes.len() as u64;
            sizes.iter().for_each(|&size| bytes.extend((size as i32).to_le_bytes()));
            bytes.resize(bytes.len().next_multiple_of(16), 0);
            let size_bytes = bytes.len() as u64 - offset_bytes;
            Range { memory: Memory::Parameters, offset_bytes, size_bytes }
        }))
    }
}
