//! Sizes and places for the dimensions of one run.
//!
//! Arenas are shared by tensors whose lifetimes do not overlap: greedy by size ("Efficient Memory Management
//! for Deep Neural Net Inference", Pisarchyk and Lee 2020). A device binds a whole buffer either for reading or
//! for writing in one dispatch, so a step's output never lies in an arena that the step reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Origin, Plan, PlanTensor, Source, TensorId};
use crate::error::{Error, Result};
use crate::expr::{Atom, Idx};
use crate::ir::Guard;
use crate::kernel::{Caps, storage_bytes};

/// Values of the model's symbols.
pub type SymbolValues = BTreeMap<Arc<str>, i64>;

/// Where a tensor lies during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the arena.
    pub arena: usize,
    /// Offset in it.
    pub offset_bytes: u64,
}

/// Sizes and places under given dimensions.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Shape of every tensor.
    pub shapes: Vec<Vec<usize>>,
    /// Bytes of every tensor as bound: at least 16, whole vectors.
    pub size_bytes: Vec<u64>,
    /// Places of the tensors that are computed in every run.
    pub places: BTreeMap<TensorId, Place>,
    /// Sizes of the arenas.
    pub arena_bytes: Vec<u64>,
    /// Bytes that tensors of the run would take if none were reused.
    pub unshared_bytes: u64,
}

/// The value of a size.
///
/// # Errors
/// [`Error::Model`] when a symbol has no value or the size is negative.
pub fn size(idx: &Idx, symbols: &SymbolValues, place: &str) -> Result<usize> {
    let value = idx.eval(&mut |atom| match atom {
        Atom::Sym(name) => symbols
            .get(name)
            .copied()
            .ok_or_else(|| Error::model(place, format!("dimension {name:?} is not given by any input"))),
        _ => Err(Error::model(place, format!("{idx} is no size"))),
    })?;
    usize::try_from(value).map_err(|_| {
        let formula = if idx.as_const().is_some() { String::new() } else { format!(" = {idx}") };
        Error::model(place, format!("a size wants to be 0 or more, got {value}{formula}"))
    })
}

/// The values of a shape.
pub fn shape(dims: &[Idx], symbols: &SymbolValues, place: &str) -> Result<Vec<usize>> {
    dims.iter().map(|d| size(d, symbols, place)).collect()
}

/// Bytes that a tensor of `len` elements is given: whole vectors of four words, at least one.
pub fn bound_bytes(len: usize, element_bytes: usize) -> u64 {
    (len as u64).saturating_mul(element_bytes as u64).div_ceil(16).saturating_mul(16).max(16)
}

/// Bytes of a tensor of shape `dims` on a device.
///
/// # Errors
/// [`Error::Limit`] when it has more elements than shaders can index, or is larger than the largest buffer.
pub fn tensor_bytes(tensor: &PlanTensor, dims: &[usize], caps: &Caps) -> Result<u64> {
    let len = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= i32::MAX as usize);
    let len = len.ok_or_else(|| {
        let message = format!("{dims:?} has more than the {} elements that shaders can index", i32::MAX);
        Error::limit(&tensor.name, message)
    })?;
    let (bytes, limit) =
        (bound_bytes(len, storage_bytes(tensor.dtype, caps.floats())), caps.max_buffer_bytes);
    if bytes > limit {
        let message =
            format!("{} {dims:?} takes {bytes} bytes, the device's largest buffer {limit}", tensor.dtype);
        return Err(Error::limit(format!("tensor {:?}", tensor.name), message));
    }
    Ok(bytes)
}

impl Plan {
    /// Values of the symbols under inputs of these shapes.
    pub fn symbol_values(&self, shapes: &[Vec<usize>]) -> SymbolValues {
        let size = |(input, axis): (usize, usize)| {
            shapes.get(input).and_then(|shape| shape.get(axis)).map_or(0, |&d| d as i64)
        };
        self.symbols().into_iter().map(|(name, at)| (name, size(at))).collect()
    }

    /// What planning assumed and these sizes break, in words.
    ///
    /// # Errors
    /// As [`size`].
    pub fn broken_guard(&self, symbols: &SymbolValues) -> Result<Option<String>> {
        for guard in &self.guards {
            let left = size(&guard.left, symbols, &guard.place)?;
            let right = size(&guard.right, symbols, &guard.place)?;
            if !guard.relation.holds(left as i64, right as i64) {
                let Guard { place, left: a, right: b, .. } = guard;
                let demand = guard.relation.demand(format!("{a} = {left}"), format!("{b} = {right}"));
                return Ok(Some(format!("{place}: {demand}")));
            }
        }
        Ok(None)
    }

    /// Sizes and places for the dimensions `symbols` on a device; no places for the tensors in `apart`, which have memory
    /// elsewhere.
    ///
    /// # Errors
    /// [`Error::Limit`] when a tensor is larger than the device's largest buffer, naming both sizes.
    pub fn layout(&self, symbols: &SymbolValues, caps: &Caps, apart: &BTreeSet<TensorId>) -> Result<Layout> {
        let (mut shapes, mut size_bytes) = (Vec::new(), Vec::new());
        for tensor in &self.tensors {
            let dims = shape(&tensor.shape, symbols, &tensor.name)?;
            size_bytes.push(tensor_bytes(tensor, &dims, caps)?);
            shapes.push(dims);
        }
        let alignment = (caps.storage_offset_alignment as u64).max(16);
        let mut lifetimes = self.lifetimes();
        lifetimes.retain(|tensor, _| !apart.contains(tensor));
        let arenas = self.colour(&lifetimes);
        let mut places = BTreeMap::new();
        let mut arena_bytes = Vec::new();
        for arena in arenas {
            place_arena(
                &arena,
                &lifetimes,
                &size_bytes,
                alignment,
                caps.max_buffer_bytes,
                &mut places,
                &mut arena_bytes,
            );
        }
        let unshared_bytes = lifetimes.keys().map(|&t| size_bytes[t]).sum();
        Ok(Layout { shapes, size_bytes, places, arena_bytes, unshared_bytes })
    }

    /// First and last step at which each tensor of the run must be kept.
    fn lifetimes(&self) -> BTreeMap<TensorId, (usize, usize)> {
        let mut lifetimes = BTreeMap::new();
        for (number, step) in self.steps.iter().enumerate() {
            for &input in &step.inputs {
                if let Some((_, last)) = lifetimes.get_mut(&input) {
                    *last = number;
                }
            }
            if matches!(self.tensors[step.output].origin, Origin::Run) {
                lifetimes.insert(step.output, (number, number));
            }
        }
        let read_back = self.outputs.iter().filter_map(|output| match output.source {
            Source::Device(tensor) => Some(tensor),
            Source::Host(_) | Source::Constant(_) => None,
        });
        let live = self.next.iter().flat_map(|next| next.live.iter().map(|&(_, tensor)| tensor));
        for tensor in read_back.chain(live) {
            if let Some((_, last)) = lifetimes.get_mut(&tensor) {
                *last = self.steps.len();
            }
        }
        for repeat in &self.repeats {
            let (start, end) = (repeat.steps.start, repeat.steps.end - 1);
            for (first, last) in lifetimes.values_mut() {
                if *first < start && *last >= start {
                    *last = end.max(*last);
                }
            }
            for stack in &repeat.stacks {
                lifetimes.entry(*stack).and_modify(|(first, _)| *first = start);
            }
            // Either may hold the last state.
            for &(old, new) in &repeat.states {
                let last = [old, new].iter().filter_map(|t| Some(lifetimes.get(t)?.1)).max().unwrap_or(end);
                let first = lifetimes.get(&old).map_or(start, |&(first, _)| first);
                lifetimes.extend([old, new].map(|t| (t, (first, last.max(end)))));
            }
        }
        lifetimes
    }

    /// Tensors by arena, such that no step reads the arena that it writes. States, which change places, have arenas of
    /// their own.
    fn colour(&self, lifetimes: &BTreeMap<TensorId, (usize, usize)>) -> Vec<Vec<TensorId>> {
        let mut arena_of: BTreeMap<TensorId, usize> = BTreeMap::new();
        let mut arenas: Vec<Vec<TensorId>> = Vec::new();
        let states = self.repeats.iter().flat_map(|repeat| &repeat.states);
        let states: BTreeSet<TensorId> = states.flat_map(|&(old, new)| [old, new]).collect();
        for step in self.steps.iter().filter(|step| lifetimes.contains_key(&step.output)) {
            let read: Vec<usize> = step.inputs.iter().filter_map(|t| arena_of.get(t).copied()).collect();
            let is_open = |&arena: &usize| {
                let tensors: &[TensorId] = arenas.get(arena).map_or(&[], Vec::as_slice);
                !read.contains(&arena) && tensors.first().is_none_or(|first| !states.contains(first))
            };
            let arena = match states.contains(&step.output) {
                true => arenas.len(),
                false => (0..).find(is_open).unwrap_or(0),
            };
            if arena == arenas.len() {
                arenas.push(Vec::new());
            }
            arenas[arena].push(step.output);
            arena_of.insert(step.output, arena);
        }
        arenas
    }
}

/// Place tensors, largest first, at the lowest offset that is free for their whole life; what exceeds the
/// largest buffer goes on in another one.
fn place_arena(
    tensors: &[TensorId],
    lifetimes: &BTreeMap<TensorId, (usize, usize)>,
    size_bytes: &[u64],
    alignment: u64,
    limit: u64,
    places: &mut BTreeMap<TensorId, Place>,
    arena_bytes: &mut Vec<u64>,
) {
    let mut left: Vec<TensorId> = tensors.to_vec();
    left.sort_by_key(|&t| std::cmp::Reverse(size_bytes[t]));
    while !left.is_empty() {
        let arena = arena_bytes.len();
        let (mut placed, mut over, mut end): (Vec<(TensorId, u64)>, Vec<TensorId>, u64) = (vec![], vec![], 0);
        for t in left {
            let (first, last) = lifetimes[&t];
            let mut busy: Vec<(u64, u64)> = placed
                .iter()
                .filter(|(other, _)| lifetimes[other].0 <= last && lifetimes[other].1 >= first)
                .map(|&(other, offset)| (offset, offset + size_bytes[other]))
                .collect();
            busy.sort_unstable();
            let offset = busy.iter().fold(0u64, |free, &(start, stop)| {
                if free + size_bytes[t] <= start { free } else { free.max(stop.next_multiple_of(alignment)) }
            });
            if offset + size_bytes[t] > limit && !placed.is_empty() {
                over.push(t);
                continue;
            }
            placed.push((t, offset));
            end = end.max(offset + size_bytes[t]);
        }
        for (t, offset_bytes) in placed {
            places.insert(t, Place { arena, offset_bytes });
        }
        arena_bytes.push(end);
        left = over;
    }
}
