//! Where a run's outputs come from.

use crate::error::{Error, Result};
use crate::expr::{Env, Expr, Value, eval, write_element};
use crate::plan::{Plan, PlanOutput, Source, SymbolValues, shape};
use crate::tensor::Tensor;

/// Where an output of a run comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Produced {
    /// It is known beforehand.
    Known(Tensor),
    /// It is read back; readbacks stand in the order of the outputs.
    Read {
        /// Its shape.
        shape: Vec<usize>,
    },
}

/// The outputs of a run with these sizes, in the plan's order.
///
/// # Errors
/// [`Error::Model`] for a size or an element that is not known.
pub fn outputs(plan: &Plan, symbols: &SymbolValues) -> Result<Vec<Produced>> {
    let produce = |output: &PlanOutput| {
        let shape = shape(&output.shape, symbols, &output.name)?;
        Ok(match &output.source {
            Source::Constant(tensor) => Produced::Known(tensor.clone()),
            Source::Host(content) => Produced::Known(host_tensor(output, &shape, content, symbols)?),
            Source::Device(_) => Produced::Read { shape },
        })
    };
    plan.outputs.iter().map(produce).collect()
}

/// An output whose elements are sizes and constants.
fn host_tensor(
    output: &PlanOutput,
    shape: &[usize],
    content: &[Expr],
    symbols: &SymbolValues,
) -> Result<Tensor> {
    let mut bytes = Vec::new();
    for (i, element) in content.iter().enumerate() {
        let value = eval(element, &mut Sizes(symbols));
        if !value.is_some_and(|v| write_element(output.dtype, i, v, &mut bytes)) {
            return Err(Error::model(&output.name, format!("{element} is not known at run time")));
        }
    }
    Tensor::new(output.dtype, shape, bytes)
}

struct Sizes<'a>(&'a SymbolValues);

impl Env for Sizes<'_> {
    fn symbol(&mut self, name: &str) -> Option<i64> {
        self.0.get(name).copied()
    }
    fn var(&mut self, _: u32) -> Option<i64> {
        None
    }
    fn load(&mut self, _: u32, _: &[i64]) -> Option<Value> {
        None
    }
    fn arg(&mut self, _: u32) -> Option<Value> {
        None
    }
}
