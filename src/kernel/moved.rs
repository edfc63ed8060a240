//! A kernel's expressions as one of its passes has them.

use super::passes::Slot;
use super::spec::KernelSpec;
use crate::expr::{Atom, Expr, Idx, Rewrite};
use crate::tensor::DType;

/// Replaces loop variables and arguments; the pass's inputs are numbered in the order of first use, behind those that
/// it begins with.
pub struct Moved {
    /// The pass's inputs.
    pub inputs: Vec<Slot>,
    /// What becomes of the variables 0, 1, ...; those beyond stay.
    pub vars: Vec<Idx>,
    /// What becomes of the arguments 0, 1, ...; those beyond stay.
    pub args: Vec<Expr>,
}

impl Moved {
    pub fn new(inputs: Vec<Slot>, vars: Vec<Idx>) -> Moved {
        Moved { inputs, vars, args: Vec::new() }
    }

    /// All inputs of the kernel, in its own order.
    pub fn all(spec: &KernelSpec) -> Vec<Slot> {
        (0..spec.inputs.len()).map(Slot::Input).collect()
    }

    /// The dtypes of the pass's inputs, where scratch memory holds `scratch`.
    pub fn dtypes(&self, spec: &KernelSpec, scratch: DType) -> Vec<DType> {
        let dtype = |slot: &Slot| match slot {
            Slot::Input(i) => spec.inputs[*i],
            Slot::Output | Slot::Scratch(_) => scratch,
        };
        self.inputs.iter().map(dtype).collect()
    }
}

impl Rewrite for Moved {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        let slot = Slot::Input(source as usize);
        let position = self.inputs.iter().position(|&input| input == slot).unwrap_or_else(|| {
            self.inputs.push(slot);
            self.inputs.len() - 1
        });
        Expr::load(position as u32, dtype, at)
    }

    fn atom(&mut self, atom: &Atom) -> Option<Idx> {
        match atom {
            Atom::Var(var) => self.vars.get(var.id as usize).cloned(),
            Atom::Sym(_) | Atom::Div(..) | Atom::Mod(..) | Atom::Min(..) | Atom::Max(..) | Atom::Data(..) => {
                None
            }
        }
    }

    fn arg(&mut self, number: u32, dtype: DType) -> Expr {
        self.args.get(number as usize).cloned().unwrap_or_else(|| Expr::arg(number, dtype))
    }
}
