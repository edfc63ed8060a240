//! Updates in place: what is written where an output takes over the memory of an input that it is an update of.

use super::fuse::Fusion;
use super::pack::Packed;
use super::spec::{Made, make as made};
use super::through_reshapes;
use crate::ir::{Program, ValueId};

/// The kernel that writes what is new in `root`, and the value that all else is from; `None` where `root` is no update, or
/// what is new is only known in its own kernel.
pub fn make(program: &Program, fusion: &Fusion, packed: &Packed, root: ValueId) -> Option<(ValueId, Made)> {
    let update = program.value(root).update.as_ref()?;
    let Some(expanded) = fusion.expand_update(root, update) else {
        let name = &program.value(root).name;
        tracing::debug!(name, "is written whole: what is new is computed with the rest");
        return None;
    };
    Some((through_reshapes(program, update.base), made(program, packed, root, expanded)))
}
