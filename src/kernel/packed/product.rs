//! The parts of a packed product of matrices: words lie along K.

use super::Parts;
use super::operand::Pair;
use super::words::Packing;
use crate::expr::Idx;
use crate::kernel::apart::Part;
use crate::kernel::spec::{Body, ContractBody, KernelSpec, Product};
use crate::tensor::DType;

/// Loop variable of K.
const K: u32 = 3;

/// The first operand that is made from codes and no constant.
pub fn dequantized(body: &ContractBody) -> Option<Part> {
    let pair = Pair::of(&body.a, &body.b, body.sum, &[K])?;
    let parts = [(Part::A, &pair.left), (Part::B, &pair.right)];
    parts.into_iter().find(|(_, operand)| !operand.is_constant()).map(|(part, _)| part)
}

pub fn parts(spec: &KernelSpec, body: &ContractBody) -> Option<Parts> {
    if body.product != Product::Numbers {
        return None;
    }
    let pair = Pair::of(&body.a, &body.b, body.sum, &[K])?;
    let axis = |var: u32, extent: &Idx| (var, extent.clone());
    let rows = [axis(0, &body.batch), axis(1, &body.m)];
    let columns = [axis(0, &body.batch), axis(2, &body.n)];
    let mut packing = Packing::new(spec, axis(K, &body.k), pair.byte);
    let a = packing.words(&pair.left, &rows, &[]);
    let b = packing.words(&pair.right, &columns, &[]);
    let along = [packing.axis()];
    let sums = [
        pair.right.zero.is_some().then(|| packing.sums(&a, &rows, &along)),
        pair.left.zero.is_some().then(|| packing.sums(&b, &columns, &along)),
    ];
    let product = ContractBody {
        k: packing.axis().1,
        a,
        b,
        product: pair.product(),
        sum: DType::I32,
        epilogue: pair.epilogue(spec, &body.epilogue, &body.k, sums),
        ..body.clone()
    };
    Some(Parts::new(packing, Body::Contract(product), body.k.clone(), pair.most_terms))
}
