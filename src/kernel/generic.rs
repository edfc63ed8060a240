//! Sizes of products and convolutions as run-time parameters. With constants in its text every layer has a kernel of its
//! own; on a CPU adapter compiling one takes longer than a run of the whole network, and constants gain nothing there.
//! With its sizes in a uniform, one text serves all layers that differ in nothing else.

use super::passes::Pass;
use super::schedule::Schedule;
use super::spec::{Body, ContractBody, ConvBody, KernelSpec};
use crate::expr::{Atom, Expr, Idx, Node, Rewrite};
use crate::ir::ConvAxis;
use crate::tensor::DType;

/// Constants below this stay: they are steps and taps rather than sizes of a layer.
const SMALLEST: i64 = 5;

/// `pass` with the constants in its sizes and offsets as further parameters, equal ones as the same. Only where operands
/// are read as they lie: to find a place by dividing by a parameter, for every element, costs more than by a constant.
pub fn generic(pass: Pass) -> Pass {
    if !pass.spec.exprs().into_iter().all(is_plain) {
        return pass;
    }
    let mut constants = Constants { first: pass.spec.params, values: Vec::new(), by_fours: false };
    let body = match (&pass.spec.body, &pass.schedule) {
        (Body::Contract(body), Schedule::Contract(_) | Schedule::Subgroup(_)) => {
            constants.by_fours = true;
            Body::Contract(constants.contract(body))
        }
        (Body::Conv(body), Schedule::Conv(_) | Schedule::Depthwise(_)) => Body::Conv(constants.conv(body)),
        (
            Body::Map { .. }
            | Body::Update { .. }
            | Body::Reduce { .. }
            | Body::Contract(_)
            | Body::Conv(_)
            | Body::Attention(_)
            | Body::TopK(_),
            _,
        ) => return pass,
    };
    let params = pass.spec.params + constants.values.len();
    Pass {
        spec: KernelSpec { params, body, ..pass.spec },
        sizes: [pass.sizes, constants.values].concat(),
        ..pass
    }
}

/// Whether nothing is divided, compared or looked up to find a place.
fn is_plain(expr: &Expr) -> bool {
    let mut plain = true;
    expr.visit(&mut |e| {
        plain &= !matches!(e.node(), Node::Index(..));
    });
    expr.visit_indices(&mut |idx| {
        plain &= idx.terms().iter().all(|(atoms, _)| {
            atoms.iter().all(|atom| match atom {
                Atom::Sym(_) | Atom::Var(_) => true,
                Atom::Div(..) | Atom::Mod(..) | Atom::Min(..) | Atom::Max(..) | Atom::Data(..) => false,
            })
        })
    });
    plain
}

/// The constants that became parameters, whose numbers begin with `first`.
struct Constants {
    first: usize,
    values: Vec<i64>,
    /// Whether one that divides by four becomes four times a parameter, so that it is still known to.
    by_fours: bool,
}

impl Constants {
    /// `value` as a parameter.
    fn parameter(&mut self, value: i64) -> Idx {
        if value < SMALLEST {
            return Idx::from(value);
        }
        let factor = if self.by_fours && value % 4 == 0 { 4 } else { 1 };
        let value = value / factor;
        let number = self.values.iter().position(|known| *known == value).unwrap_or_else(|| {
            self.values.push(value);
            self.values.len() - 1
        });
        &Idx::sym(&format!("p{}", self.first + number)) * &Idx::from(factor)
    }

    fn contract(&mut self, body: &ContractBody) -> ContractBody {
        ContractBody {
            batch: self.idx(&body.batch),
            m: self.idx(&body.m),
            n: self.idx(&body.n),
            k: self.idx(&body.k),
            a: body.a.rewrite(self),
            b: body.b.rewrite(self),
            epilogue: body.epilogue.rewrite(self),
            ..*body
        }
    }

    fn conv(&mut self, body: &ConvBody) -> ConvBody {
        let axes = body.axes.each_ref().map(|axis| ConvAxis {
            input: self.idx(&axis.input),
            output: self.idx(&axis.output),
            before: self.idx(&axis.before),
            ..*axis
        });
        ConvBody {
            batch: self.idx(&body.batch),
            groups: self.idx(&body.groups),
            out_channels: self.idx(&body.out_channels),
            in_channels: self.idx(&body.in_channels),
            axes,
            w: body.w.rewrite(self),
            x: body.x.rewrite(self),
            epilogue: body.epilogue.rewrite(self),
            ..*body
        }
    }

    fn idx(&mut self, idx: &Idx) -> Idx {
        idx.terms().iter().fold(Idx::from(0i64), |sum, (atoms, factor)| {
            let product = atoms.iter().fold(self.parameter(*factor), |product, atom| {
                let atom = match atom {
                    Atom::Var(var) => Idx::var(var.id, &self.idx(&var.extent)),
                    Atom::Sym(_)
                    | Atom::Div(..)
                    | Atom::Mod(..)
                    | Atom::Min(..)
                    | Atom::Max(..)
                    | Atom::Data(..) => Idx::from_atom(atom),
                };
                &product * &atom
            });
            &sum + &product
        })
    }
}

impl Rewrite for Constants {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        Expr::load(source, dtype, at.iter().map(|idx| self.idx(idx)).collect())
    }

    fn atom(&mut self, _: &Atom) -> Option<Idx> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::moved::Moved;
    use crate::kernel::{ContractSchedule, Slot, size};

    /// `A[m, k] * B[b, k, n]` of a symbolic batch of 3, B read at `b * K * N + place(k * N + n)`.
    fn product([m, n, k]: [i64; 3], place: &dyn Fn(Idx) -> Idx) -> Pass {
        let [batch, rows, columns, terms] = [Idx::sym("p0"), Idx::from(m), Idx::from(n), Idx::from(k)];
        let var = |number: u32| Idx::var(number, [&batch, &rows, &columns, &terms][number as usize]);
        let load = |input, at| Expr::load(input, DType::F32, vec![at]);
        let body = ContractBody {
            a: load(0, &(&var(1) * &terms) + &var(3)),
            b: load(1, &(&var(0) * &(&terms * &columns)) + &place(&(&var(3) * &columns) + &var(2))),
            sum: DType::F32,
            f16_sum: false,
            product: crate::kernel::Product::Numbers,
            epilogue: Expr::arg(0, DType::F32),
            batch: batch.clone(),
            m: rows.clone(),
            n: columns.clone(),
            k: terms.clone(),
        };
        let spec = KernelSpec {
            inputs: vec![DType::F32; 2],
            output: DType::F32,
            params: 1,
            body: Body::Contract(body),
        };
        let schedule = ContractSchedule { group_m: 8, group_n: 8, micro_m: 4, micro_n4: 1, split_k: 1 };
        Pass {
            inputs: Moved::all(&spec),
            len: spec.output_len(),
            spec,
            sizes: vec![3],
            schedule: Schedule::Contract(schedule),
            output: Slot::Output,
        }
    }

    #[test]
    fn products_that_differ_in_sizes_alone_become_one() {
        let dims = [[64, 196, 96], [576, 784, 32], [64, 49, 96]];
        let [small, large, odd] = dims.map(|dims| generic(product(dims, &|place| place)));
        assert_eq!(small.spec, large.spec);
        assert_eq!(small.sizes, [3, 16, 49, 24, 96 * 196 / 4]);
        assert_eq!(large.sizes, [3, 144, 196, 8, 32 * 784 / 4]);
        assert_ne!(small.spec, odd.spec, "whole fours are still known to be");
        for (pass, [m, n, _]) in [small, large, odd].into_iter().zip(dims) {
            assert_eq!(size(&pass.spec.output_len(), &pass.sizes), 3 * m * n);
            assert_eq!(size(&pass.len, &pass.sizes), 3 * m * n);
        }
    }

    #[test]
    fn a_place_found_by_division_keeps_its_constants() {
        let divided = product([64, 196, 96], &|place| place.div(&Idx::from(5i64)));
        let (spec, same) = (divided.spec.clone(), generic(divided));
        assert_eq!((same.spec, same.sizes), (spec, vec![3]));
    }
}
