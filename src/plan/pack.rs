//! Constants of narrow integers lie in device memory as the model has them: packed, first element in the low bits.
//! To a kernel they are arrays of 32-bit words, of which it takes what it reads apart. Tensors that kernels write
//! take a word per element: two invocations must not write to one word.

use std::collections::{BTreeSet, HashMap};

use crate::expr::{Binary, Expr, Idx};
use crate::ir::{Def, Program, ValueId};
use crate::tensor::{DType, Tensor};

/// The packed constants of a program, as words.
pub type Packed = HashMap<ValueId, Tensor>;

/// Which constants are packed: not those that are read back.
pub fn pack(program: &Program, read_back: &BTreeSet<ValueId>) -> Packed {
    let ids = 0..program.values.len() as ValueId;
    ids.filter(|id| !read_back.contains(id)).filter_map(|id| Some((id, words(program, id)?))).collect()
}

/// Whether the value is a constant that can be packed.
pub fn is_packable(program: &Program, id: ValueId) -> bool {
    words(program, id).is_some()
}

/// The elements as words; `None` for other dtypes, and where they do not fill whole words.
fn words(program: &Program, id: ValueId) -> Option<Tensor> {
    let Def::Weight(tensor) = &program.value(id).def else { return None };
    let dtype = tensor.dtype();
    if !dtype.is_int() || dtype.bits() >= 32 || program.dtype(id) != dtype {
        return None;
    }
    let bits = tensor.len() * dtype.bits();
    (bits > 0 && bits % 32 == 0).then(|| tensor.view(DType::U32, &[bits / 32]).ok()).flatten()
}

/// The element at `offset` of a packed tensor whose words are those of `source`.
pub fn element(source: u32, dtype: DType, offset: &Idx) -> Expr {
    let per_word = Idx::from(32 / dtype.bits());
    let word = Expr::load(source, DType::U32, vec![offset.div(&per_word)]);
    let shift = &offset.rem(&per_word) * &Idx::from(dtype.bits());
    word.binary(Binary::Shr, &Expr::index(shift, DType::U32)).cast(dtype)
}
