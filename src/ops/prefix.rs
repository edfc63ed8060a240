//! Running sums and the like, and what is found with them: the elements that are wanted, moved together.
//!
//! An axis is cut into blocks. The blocks' totals are scanned in the same way, and an element combines the total of
//! the blocks before its own with what lies before it in its own: 256 steps each, whatever the length.

use crate::expr::{Binary, Expr, Idx};
use crate::ir::{Combine, Program, Stop, ValueId};
use crate::tensor::DType;

/// Elements of a block.
const BLOCK: i64 = 256;

/// Levels of blocks where the length is a symbol: enough for 2^32 elements.
const LEVELS: usize = 3;

/// `out[.., i, ..] = combine over j <= i of x[.., j, ..]` along `axis`.
pub(super) fn prefix(p: &mut Program, x: ValueId, axis: usize, combine: Combine) -> ValueId {
    scan(p, x, axis, combine, LEVELS)[0]
}

/// As [`prefix`], by looking at all elements for each: for a short axis.
pub(super) fn running(p: &mut Program, x: ValueId, axis: usize, combine: Combine) -> ValueId {
    let shape = p.shape(x).to_vec();
    let len = shape[axis].clone();
    let none = combine.identity(p.dtype(x));
    p.reduction(shape, vec![len], combine, |p, at, r| {
        let mut from = at.to_vec();
        from[axis] = r[0].clone();
        Expr::number(&r[0]).at_most(Expr::number(&at[axis])).select(&p.load(x, &from), &none)
    })
}

/// The running results, then those of the blocks, of the blocks of blocks, ...
fn scan(p: &mut Program, x: ValueId, axis: usize, combine: Combine, levels: usize) -> Vec<ValueId> {
    let shape = p.shape(x).to_vec();
    let (len, block) = (shape[axis].clone(), Idx::from(BLOCK));
    let none = combine.identity(p.dtype(x));
    if levels == 0 || len.as_const().is_some_and(|len| len <= BLOCK) {
        return vec![running(p, x, axis, combine)];
    }
    let mut totals = shape.clone();
    totals[axis] = len.div_ceil(&block);
    let totals = p.reduction(totals, vec![block.clone()], combine, |p, at, r| {
        let mut from = at.to_vec();
        let place = &(&at[axis] * &block) + &r[0];
        let inside = Expr::number(&place).below(Expr::number(&len));
        from[axis] = place;
        inside.select(&p.load(x, &from), &none)
    });
    let mut all = scan(p, totals, axis, combine, levels - 1);
    let before = all[0];
    let own = p.reduction(shape.clone(), vec![block.clone()], combine, |p, at, r| {
        let mut from = at.to_vec();
        let place = &(&at[axis].div(&block) * &block) + &r[0];
        let inside = Expr::number(&place).at_most(Expr::number(&at[axis]));
        from[axis] = place;
        inside.select(&p.load(x, &from), &none)
    });
    let at = crate::expr::vars(0, &shape);
    let mut from = at.clone();
    let own_block = at[axis].div(&block);
    from[axis] = &own_block - &Idx::from(1i64);
    let is_first = Expr::number(&own_block).equals(Expr::int(DType::I32, 0));
    let earlier = is_first.select(&none, &p.load(before, &from));
    let body = earlier.binary(combine.binary(), &p.load(own, &at));
    let running = p.map(shape, body);
    all.insert(0, running);
    all
}

/// How many of the vector `wanted`, of bools, are true, and the positions of these, in order.
///
/// # Errors
/// [`Stop::NeedsValue`] where the number is not known yet.
pub(super) fn positions(p: &mut Program, wanted: ValueId) -> Result<(Idx, ValueId), Stop> {
    let ones = p.cast(wanted, DType::I32);
    let total = p.reduce(ones, &[0], false, Combine::Sum, Expr::clone)?;
    let count = p.computed_size(total)?;
    // The ranks, of blocks first: how many of them are not above j says where to look on.
    let mut found: Option<ValueId> = None;
    for ranks in scan(p, ones, 0, Combine::Sum, LEVELS).into_iter().rev() {
        let len = p.shape(ranks)[0].clone();
        let extent = if found.is_some() { Idx::from(BLOCK) } else { len.clone() };
        let within = p.reduction(vec![count.clone()], vec![extent], Combine::Sum, |p, at, r| {
            let place =
                Expr::number(&r[0]) + found.map_or(Expr::int(DType::I32, 0), |found| first(p, found, at));
            let rank = p.load(ranks, &[place.to_position(&len)]);
            let is_before = place.below(Expr::number(&len)).and(rank.at_most(Expr::number(&at[0])));
            is_before.select(&Expr::int(DType::I32, 1), &Expr::int(DType::I32, 0))
        });
        found = Some(match found {
            None => within,
            Some(outer) => {
                let at = crate::expr::vars(0, std::slice::from_ref(&count));
                let body = first(p, outer, &at) + p.load(within, &at);
                p.map(vec![count.clone()], body)
            }
        });
    }
    Ok((count, found.unwrap_or(total)))
}

/// Where the block of an element of `blocks` begins.
fn first(p: &Program, blocks: ValueId, at: &[Idx]) -> Expr {
    p.load(blocks, at) * Expr::int(DType::I32, BLOCK)
}

/// `out[.., i, ..] = x[.., i - 1, ..]` along `axis`, `none` at its beginning.
pub(super) fn shifted(p: &mut Program, x: ValueId, axis: usize, none: &Expr) -> ValueId {
    let shape = p.shape(x).to_vec();
    let at = crate::expr::vars(0, &shape);
    let mut from = at.clone();
    from[axis] = &at[axis] - &Idx::from(1i64);
    let is_first = Expr::index(at[axis].clone(), DType::I32).binary(Binary::Eq, &Expr::int(DType::I32, 0));
    let body = is_first.select(none, &p.load(x, &from));
    p.map(shape, body)
}

/// `x` backwards along `axis`.
pub(super) fn reversed(p: &mut Program, x: ValueId, axis: usize) -> ValueId {
    let shape = p.shape(x).to_vec();
    let last = &shape[axis] - &Idx::from(1i64);
    p.view(x, shape, |at| {
        let mut from = at.to_vec();
        from[axis] = &last - &at[axis];
        from
    })
}
