//! A run's inputs against the model's declarations.

use std::collections::BTreeMap;

use super::Model;
use crate::error::{Error, Result};
use crate::graph::{Dim, ValueInfo};
use crate::tensor::DType;

/// What a run gives for an input.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The input's name.
    pub name: &'a str,
    /// The elements' dtype.
    pub dtype: DType,
    /// The shape.
    pub shape: &'a [usize],
}

impl<R> Model<R> {
    /// For every input of the model, which of `given` it is.
    ///
    /// # Errors
    /// [`Error::Input`] for a name, dtype or shape that does not fit.
    pub fn order(&self, given: &[Given]) -> Result<Vec<usize>> {
        let inputs = &self.graph.inputs;
        let names = || inputs.iter().map(|i| format!("{:?}", i.name)).collect::<Vec<_>>().join(", ");
        for (position, Given { name, .. }) in given.iter().enumerate() {
            if !inputs.iter().any(|i| i.name == *name) {
                return Err(Error::input(*name, format!("the model has no such input; it has {}", names())));
            }
            if given[..position].iter().any(|other| other.name == *name) {
                return Err(Error::input(*name, "given twice"));
            }
        }
        let mut sizes: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        let mut order = Vec::new();
        for info in inputs {
            let Some(position) = given.iter().position(|given| given.name == info.name) else {
                return Err(Error::input(&info.name, format!("missing; the model wants {}", names())));
            };
            self.check(info, given[position], &mut sizes)?;
            order.push(position);
        }
        Ok(order)
    }

    /// Whether `given` is what `info` declares; `sizes` holds the symbols met so far, with who said so.
    fn check<'a>(
        &self,
        info: &'a ValueInfo,
        given: Given,
        sizes: &mut BTreeMap<&'a str, (usize, &'a str)>,
    ) -> Result<()> {
        let refuse = |text: String| Err(Error::input(&info.name, text));
        if given.dtype != info.dtype {
            return refuse(format!("wants {}, got {}", info.dtype, given.dtype));
        }
        let Some(dims) = &info.shape else { return Ok(()) };
        if dims.is_empty() && !given.shape.is_empty() {
            return refuse(format!("wants a scalar, got shape {:?}", given.shape));
        }
        for (axis, dim) in dims.iter().enumerate() {
            let wanted = match dim {
                Dim::Static(size) => Some(*size),
                Dim::Symbol(name) => self.dims.get(name).copied(),
                Dim::Unknown => None,
            };
            let got = given.shape.get(axis).copied();
            if given.shape.len() != dims.len() || (wanted.is_some() && wanted != got) {
                return refuse(format!("wants shape {}, got {:?}", self.declared(dims), given.shape));
            }
            if let (Dim::Symbol(name), Some(got)) = (dim, got)
                && let Some((size, other)) = sizes.insert(name, (got, &info.name))
                && size != got
            {
                return refuse(format!("dimension {name:?} is {got} here and {size} in input {other:?}"));
            }
        }
        Ok(())
    }

    /// A declared shape, with the sizes that were fixed.
    fn declared(&self, dims: &[Dim]) -> String {
        let text = |dim: &Dim| match dim {
            Dim::Symbol(name) => match self.dims.get(name) {
                Some(size) => format!("{name} = {size}"),
                None => name.clone(),
            },
            Dim::Static(_) | Dim::Unknown => dim.to_string(),
        };
        format!("[{}]", dims.iter().map(text).collect::<Vec<_>>().join(", "))
    }
}
