//! What is known of values while a program is built: by their contents, and by what earlier stages of a run computed.

use std::collections::BTreeSet;

use super::content::CONTENT_LEN;
use super::{Def, Given, Needed, Program, Stop, ValueId};
use crate::expr::{Atom, Expr, Idx, Value, numel, read_element};
use crate::tensor::Tensor;

impl Program {
    /// The elements of a small value as sizes, or which inputs they depend on.
    pub fn sizes(&self, id: ValueId) -> Result<Vec<Idx>, Stop> {
        let value = self.value(id);
        if let Some(content) = &value.content
            && let Some(sizes) = content.iter().map(Expr::as_idx).collect::<Option<Vec<_>>>()
        {
            return Ok(sizes);
        }
        match self.answer(id) {
            Some(Given::Elements(_)) => Ok(self.integers(id)?.into_iter().map(Idx::from).collect()),
            Some(Given::Count) => Ok(vec![self.computed_size(id)?]),
            None => Err(self.needs(id)),
        }
    }

    /// A computed number as a size; the plan is for any value of it.
    pub fn computed_size(&self, id: ValueId) -> Result<Idx, Stop> {
        let value = self.value(id);
        if let Some([count]) = value.content.as_deref()
            && let Some(count) = count.as_idx()
        {
            return Ok(count);
        }
        match self.answer(id) {
            Some(Given::Count) => Ok(Idx::sym(&count_name(id))),
            Some(Given::Elements(_)) => Ok(Idx::from(self.integers(id)?.first().copied().unwrap_or(0))),
            None => Err(Stop::NeedsValue(Needed { value: id, is_count: true, live: BTreeSet::new() })),
        }
    }

    /// What an earlier stage computed, for whoever cannot go on without.
    fn answer(&self, id: ValueId) -> Option<&Given> {
        self.given.get(&id).or_else(|| self.answers.get(&id))
    }

    /// The elements of a value, where they are constants.
    pub fn known(&self, id: ValueId) -> Option<Vec<Value>> {
        let value = self.value(id);
        if let Some(all) = self.given.get(&id).and_then(elements) {
            return Some(all);
        }
        if let Some(content) = &value.content
            && let Some(constants) = content.iter().map(Expr::as_const).collect()
        {
            return Some(constants);
        }
        match &value.def {
            Def::Weight(tensor) => read(tensor),
            Def::Input(_)
            | Def::Reshape(_)
            | Def::Map(_)
            | Def::Reduce { .. }
            | Def::Contract { .. }
            | Def::TopK { .. }
            | Def::Stacked { .. } => None,
        }
    }

    /// The elements of a small value as constants, or what they depend on.
    pub fn constants(&self, id: ValueId) -> Result<Vec<Value>, Stop> {
        let answered = || self.answers.get(&id).and_then(elements);
        self.known(id).or_else(answered).ok_or_else(|| self.needs(id))
    }

    /// The elements of a small value as constant integers.
    pub fn integers(&self, id: ValueId) -> Result<Vec<i64>, Stop> {
        Ok(self.constants(id)?.into_iter().map(Value::to_i64).collect())
    }

    /// A size as a number.
    ///
    /// # Errors
    /// [`Stop::NeedsShapes`] where it is not known yet; [`Stop::Error`] where it is negative.
    pub fn known_size(&self, size: &Idx) -> Result<usize, Stop> {
        let size = size.as_const().ok_or(Stop::NeedsShapes)?;
        usize::try_from(size).map_err(|_| self.error(format!("a size of {size}")))
    }

    /// A shape as numbers, as [`Program::known_size`].
    pub fn known_shape(&self, id: ValueId) -> Result<Vec<usize>, Stop> {
        self.shape(id).iter().map(|size| self.known_size(size)).collect()
    }

    /// The values that these depend on, they among them.
    pub fn reachable(&self, from: impl IntoIterator<Item = ValueId>) -> BTreeSet<ValueId> {
        let (mut seen, mut stack) = (BTreeSet::new(), from.into_iter().collect::<Vec<_>>());
        while let Some(id) = stack.pop() {
            if seen.insert(id) {
                stack.extend(self.value(id).sources());
            }
        }
        seen
    }

    /// Why `id` is not known: it is worked out from small graph inputs, whose contents make it known before the
    /// run, or from symbols; else it is computed on the device.
    fn needs(&self, id: ValueId) -> Stop {
        let mut inputs = BTreeSet::new();
        let (mut symbolic, mut small) = (false, true);
        for id in self.reachable([id]) {
            if let Def::Input(number) = self.value(id).def {
                inputs.insert(number);
            }
            let value = self.value(id);
            small &=
                self.answer(id).is_none() && (matches!(value.def, Def::Weight(_)) || is_small(&value.shape));
            value.shape.iter().for_each(|size| symbolic |= has_symbol(size));
            for expr in value.exprs() {
                expr.visit_indices(&mut |idx| symbolic |= has_symbol(idx));
            }
        }
        if inputs.is_empty() && symbolic {
            return Stop::NeedsShapes;
        }
        if small && !inputs.is_empty() {
            return Stop::NeedsInputs(inputs);
        }
        Stop::NeedsValue(Needed { value: id, is_count: false, live: BTreeSet::new() })
    }
}

fn read(tensor: &Tensor) -> Option<Vec<Value>> {
    (0..tensor.len()).map(|i| read_element(tensor.dtype(), tensor.bytes(), i)).collect()
}

fn elements(given: &Given) -> Option<Vec<Value>> {
    match given {
        Given::Elements(tensor) => read(tensor),
        Given::Count => None,
    }
}

/// The symbol for a count that was computed.
pub fn count_name(id: ValueId) -> String {
    format!("count {id}")
}

/// Whether a symbol occurs in `idx`.
fn has_symbol(idx: &Idx) -> bool {
    let mut found = false;
    idx.visit(&mut |atom| found |= matches!(atom, Atom::Sym(_)));
    found
}

/// Whether `shape` is constant and has no more elements than are kept as contents.
fn is_small(shape: &[Idx]) -> bool {
    numel(shape).as_const().is_some_and(|count| usize::try_from(count).is_ok_and(|n| n <= CONTENT_LEN))
}
