//! The whole program on the CPU, one element at a time: slow and literal. Tests compare the device with it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::build::Program;
use super::{Def, Repeat, ValueId, before};
use crate::error::{Error, Result};
use crate::expr::{Env, Expr, Idx, Value, apply_cast, eval, eval_idx, read_element, write_element};
use crate::tensor::{DType, Tensor};

impl Program {
    /// The values of `wanted`, given the graph inputs in order. Every element of every value they depend on
    /// is computed by [`crate::expr::eval`], with no optimisation at all.
    ///
    /// # Errors
    /// [`Error::Model`] where an element reads out of bounds or a dtype has no scalar form on the CPU.
    pub fn evaluate(&self, inputs: &[Tensor], wanted: &[ValueId]) -> Result<Vec<Tensor>> {
        let mut symbols = BTreeMap::new();
        for value in &self.values {
            let Def::Input(number) = value.def else { continue };
            let tensor = inputs.get(number).ok_or_else(|| Error::model(&value.name, "no such input"))?;
            for (dim, &size) in value.shape.iter().zip(tensor.shape()) {
                if let Some(crate::expr::Atom::Sym(name)) = dim.as_atom() {
                    symbols.insert(name.to_string(), size as i64);
                }
            }
        }
        let mut run = Run { program: self, inputs, symbols, done: HashMap::new(), at: Vec::new() };
        run.repeats(0..self.values.len() as ValueId)?;
        wanted.iter().map(|&id| run.tensor(id)).collect()
    }
}

struct Run<'a> {
    program: &'a Program,
    inputs: &'a [Tensor],
    symbols: BTreeMap<String, i64>,
    done: HashMap<ValueId, (Vec<i64>, Vec<Value>)>,
    at: Vec<i64>,
}

impl Run<'_> {
    fn tensor(&mut self, id: ValueId) -> Result<Tensor> {
        self.compute(id)?;
        let (shape, elements) = &self.done[&id];
        let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
        let dtype = self.program.value(id).dtype;
        let mut bytes = Vec::new();
        for (i, &element) in elements.iter().enumerate() {
            if !write_element(dtype, i, element, &mut bytes) {
                return Err(Error::model(&self.program.value(id).name, format!("no scalar form of {dtype}")));
            }
        }
        Tensor::new(dtype, &shape, bytes)
    }

    fn size(&mut self, idx: &Idx) -> Result<i64> {
        eval_idx(idx, self).ok_or_else(|| Error::model(idx.to_string(), "unbound symbol"))
    }

    fn sizes(&mut self, shape: &[Idx]) -> Result<Vec<i64>> {
        shape.iter().map(|d| self.size(d)).collect()
    }

    fn compute(&mut self, id: ValueId) -> Result<()> {
        if self.done.contains_key(&id) {
            return Ok(());
        }
        let program = self.program;
        let value = program.value(id);
        for source in value.sources() {
            self.compute(source)?;
        }
        let shape = self.sizes(&value.shape)?;
        let len: i64 = shape.iter().product();
        let failed = || Error::model(&value.name, "an element cannot be evaluated");
        let elements = match &value.def {
            Def::Input(number) => all(&self.inputs[*number]).ok_or_else(failed)?,
            Def::Weight(tensor) => all(tensor).ok_or_else(failed)?,
            Def::Reshape(source) => self.done[source].1.clone(),
            Def::Map(body) => self.elements(value.dtype, &shape, &[], None, std::slice::from_ref(body))?,
            Def::Reduce { extents, combine, body } => {
                let extents = self.sizes(extents)?;
                let identity = combine.identity(value.dtype).as_const().ok_or_else(failed)?;
                let fold = (identity, combine.binary());
                self.elements(value.dtype, &shape, &extents, Some(fold), std::slice::from_ref(body))?
            }
            // Made with the repetitions.
            Def::Stacked { .. } => return Err(failed()),
            Def::TopK { extent, key, largest } => self.order(&shape, extent, key, *largest)?,
            Def::Contract { k, a, b, .. } => {
                let k = self.sizes(k)?;
                let zero = Expr::int(value.dtype, 0).as_const().ok_or_else(failed)?;
                let fold = (zero, crate::expr::Binary::Add);
                self.elements(value.dtype, &shape, &k, Some(fold), &[a.clone(), b.clone()])?
            }
        };
        debug_assert_eq!(elements.len() as i64, len);
        self.done.insert(id, (shape, elements));
        Ok(())
    }

    /// Compute what is repeated among the values `within`.
    fn repeats(&mut self, within: Range<ValueId>) -> Result<()> {
        let holds = |outer: &Range<ValueId>, inner: &Range<ValueId>| {
            outer != inner && outer.start <= inner.start && inner.end <= outer.end
        };
        let inside = self.program.repeats.iter().filter(|repeat| holds(&within, &repeat.values));
        let is_outermost =
            |repeat: &&Repeat| !inside.clone().any(|other| holds(&other.values, &repeat.values));
        inside.clone().filter(is_outermost).try_for_each(|repeat| self.repeat(repeat))
    }

    /// Compute the values of a repetition as often as it says.
    fn repeat(&mut self, repeat: &Repeat) -> Result<()> {
        let program = self.program;
        for &(old, _) in &repeat.states {
            self.compute(old)?;
        }
        let mut stacks = vec![Vec::new(); repeat.stacks.len()];
        for step in 0..self.size(&repeat.count)? {
            self.symbols.insert(repeat.step.to_string(), step);
            self.done.retain(|id, _| !repeat.values.contains(id));
            self.repeats(repeat.values.clone())?;
            for (&id, stack) in repeat.stacks.iter().zip(&mut stacks) {
                let value = program.value(id);
                let Def::Stacked { body, .. } = &value.def else { continue };
                for source in value.sources() {
                    self.compute(source)?;
                }
                let shape = self.sizes(&value.shape[1..])?;
                stack.extend(self.elements(value.dtype, &shape, &[], None, std::slice::from_ref(body))?);
            }
            for &(_, new) in &repeat.states {
                self.compute(new)?;
            }
            for &(old, new) in &repeat.states {
                let state = self.done[&new].clone();
                self.done.insert(old, state);
            }
        }
        for (&id, stack) in repeat.stacks.iter().zip(stacks) {
            let shape = self.sizes(&program.value(id).shape)?;
            self.done.insert(id, (shape, stack));
        }
        Ok(())
    }

    /// The positions of the first elements of every row, in order.
    fn order(&mut self, shape: &[i64], extent: &Idx, key: &Expr, largest: bool) -> Result<Vec<Value>> {
        let (&k, rows) = shape.split_last().ok_or_else(|| Error::model("evaluate", "rows have no axis"))?;
        let extent = self.size(extent)?;
        let all = [rows, &[extent]].concat();
        let keys = self.elements(key.dtype(), &all, &[], None, std::slice::from_ref(key))?;
        let mut out = Vec::new();
        for row in keys.chunks(extent.max(1) as usize) {
            let keys: Vec<Expr> = row.iter().map(|&value| Expr::constant(key.dtype(), value)).collect();
            let comes = |a: &usize, b: &usize| {
                before(&keys[*a], &keys[*b], largest).as_const().is_some_and(Value::to_bool)
            };
            let mut order: Vec<usize> = (0..keys.len()).collect();
            order.sort_by(|a, b| comes(b, a).cmp(&comes(a, b)));
            out.extend(order.iter().take(k as usize).map(|&position| Value::I(position as i64)));
        }
        Ok(out)
    }

    /// Every element of `shape`: the product of `factors`, folded over `inner` where there is a fold.
    /// Float sums are kept in f64.
    fn elements(
        &mut self,
        dtype: DType,
        shape: &[i64],
        inner: &[i64],
        fold: Option<(Value, crate::expr::Binary)>,
        factors: &[Expr],
    ) -> Result<Vec<Value>> {
        let wide = if dtype.is_float() { DType::F64 } else { dtype };
        let (len, steps): (i64, i64) = (shape.iter().product(), inner.iter().product());
        let failed = || Error::model("evaluate", "an element reads outside its tensor");
        let mut out = Vec::with_capacity(len as usize);
        for i in 0..len {
            let outer = position(i, shape);
            let mut sum = fold.map(|(identity, _)| identity);
            for r in 0..steps {
                self.at = outer.clone();
                self.at.extend(position(r, inner));
                let mut product: Option<Value> = None;
                for factor in factors {
                    let v = eval(factor, self).ok_or_else(failed)?;
                    product = Some(match product {
                        None => v,
                        Some(p) => crate::expr::apply_binary(crate::expr::Binary::Mul, p, v, wide),
                    });
                }
                let element = product.ok_or_else(failed)?;
                sum = Some(match (sum, fold) {
                    (Some(sum), Some((_, op))) => crate::expr::apply_binary(op, sum, element, wide),
                    _ => element,
                });
            }
            out.push(apply_cast(dtype, sum.ok_or_else(failed)?));
        }
        Ok(out)
    }
}

fn all(tensor: &Tensor) -> Option<Vec<Value>> {
    (0..tensor.len()).map(|i| read_element(tensor.dtype(), tensor.bytes(), i)).collect()
}

fn position(offset: i64, shape: &[i64]) -> Vec<i64> {
    let mut at = vec![0; shape.len()];
    let mut rest = offset;
    for axis in (0..shape.len()).rev() {
        let extent = shape[axis].max(1);
        at[axis] = rest % extent;
        rest /= extent;
    }
    at
}

impl Env for Run<'_> {
    fn symbol(&mut self, name: &str) -> Option<i64> {
        self.symbols.get(name).copied()
    }

    fn var(&mut self, id: u32) -> Option<i64> {
        self.at.get(id as usize).copied()
    }

    fn load(&mut self, source: u32, at: &[i64]) -> Option<Value> {
        let (shape, elements) = self.done.get(&source)?;
        let mut offset = 0;
        for (&i, &d) in at.iter().zip(shape) {
            if i < 0 || i >= d {
                return None;
            }
            offset = offset * d + i;
        }
        elements.get(offset as usize).copied()
    }

    fn arg(&mut self, _: u32) -> Option<Value> {
        None
    }
}
