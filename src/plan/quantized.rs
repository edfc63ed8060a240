//! Quantized values: 8-bit integers that are inputs or that a map rounds floats to. They are stored as they are, and made
//! numbers again where they are read, as quantized constants are: so a product sees codes, zero point and scale, and may
//! multiply the codes (`kernel/packed`).

use super::chain::Cost;
use super::pack::is_packable;
use super::through_reshapes;
use crate::expr::{Expr, numel};
use crate::ir::{Def, Program, ValueId};

/// Whether `body`, of the map `id`, is a few instructions on a quantized value or constant, element for element.
pub fn is_dequantization(program: &Program, id: ValueId, body: &Expr) -> bool {
    let Cost { loads, steps, heavy } = Cost::of(body);
    let from_codes = |&source: &ValueId| {
        let source = through_reshapes(program, source);
        (is_packable(program, source) || is_quantized(program, source))
            && numel(program.shape(source)) == numel(program.shape(id))
    };
    loads <= 3 && steps <= 4 && !heavy && program.value(id).sources().iter().any(from_codes)
}

fn is_quantized(program: &Program, id: ValueId) -> bool {
    let value = program.value(id);
    let is_stored = match &value.def {
        Def::Input(_) => true,
        Def::Map(body) => Cost::of(body).heavy,
        Def::Weight(_)
        | Def::Reshape(_)
        | Def::Reduce { .. }
        | Def::Contract { .. }
        | Def::TopK { .. }
        | Def::Stacked { .. } => false,
    };
    is_stored && value.dtype.is_int() && value.dtype.bits() == 8
}
