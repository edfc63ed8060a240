//! Non-maximum suppression: of boxes that overlap, the one with the highest score.
//!
//! The boxes of a class whose scores pass are put in order, and go by blocks of 32 of them, for all batches and classes at
//! once. Of a block, those are free that overlap none that was taken before; which of the free ones stay is worked out
//! in a word of a bit for each, box after box. How many boxes pass is read back, so work is done for as many alone.

use super::filter::compact;
use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, Unary, numel, unflatten, vars};
use crate::ir::{Combine, Program, Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[op(
    "NonMaxSuppression",
    10,
    "the boxes with the highest scores that overlap no better one; how many pass the score's threshold is read back",
    suppress,
)];

/// Boxes of a block: bits of a word.
const BLOCK: usize = 32;

/// Bits that one kernel works out: written as a tree, its expression doubles with each.
const BITS_AT_ONCE: usize = 4;

fn suppress(cx: &mut Cx) -> Lowering {
    let (boxes, scores) = (cx.input(0)?, cx.input(1)?);
    let most = match cx.optional(2) {
        Some(most) => cx.program.integers(most)?.first().copied().unwrap_or(0).max(0),
        None => 0,
    };
    let scalar = |cx: &Cx, i: usize| {
        let id = cx.optional(i)?;
        Some(cx.program.load(id, &vec![Idx::from(0i64); cx.program.rank(id)]))
    };
    let overlap_limit = scalar(cx, 3).unwrap_or(Expr::float(DType::F32, 0.0));
    let score_limit = scalar(cx, 4);
    let form = match cx.int_or("center_point_box", 0)? {
        0 => corners,
        1 => centre,
        other => return Err(cx.error(format!("center_point_box wants 0 or 1, got {other}"))),
    };
    let rank = cx.program.rank(scores);
    if rank != 3 {
        return Err(cx.error(format!("scores want three axes, got {rank}")));
    }
    let p = &mut *cx.program;
    if most == 0 {
        return Ok(vec![p.map(vec![Idx::from(0i64), Idx::from(3i64)], Expr::int(DType::I64, 0))]);
    }
    let ranked = Ranked::new(p, boxes, scores, score_limit, form)?;
    let most = match i32::try_from(most) {
        Ok(most) => Idx::from(i64::from(most)).smaller(&ranked.len),
        Err(_) => ranked.len.clone(),
    };
    let (taken, count) = ranked.take(p, most, &overlap_limit)?;
    let all = p.shape(taken).to_vec();
    let at = vars(0, &all);
    let wanted = Expr::number(&at[2]).below(p.load(count, &at[..2]));
    let wanted = p.map(all.clone(), wanted);
    let wanted = p.reshape(wanted, vec![numel(&all)])?;
    let selected = compact(p, wanted, 3, |p, place| {
        let at = unflatten(place, &all);
        let rank = p.load(taken, &at).to_position(&ranked.len);
        let place = p.load(ranked.order, &[at[0].clone(), at[1].clone(), rank]);
        vec![at[0].clone(), at[1].clone(), place.to_position(&p.shape(scores)[2])]
    })?;
    Ok(vec![selected])
}

/// The boxes of each class whose scores pass, the best first, equal ones by position.
struct Ranked {
    /// Of the batch and the class.
    rows: Vec<Idx>,
    /// As many as pass in the class of which most do.
    len: Idx,
    /// `[B, C, len]`: where each stands among the boxes.
    order: ValueId,
    /// `[B, C]`: how many pass.
    passing: ValueId,
    /// `[B, C, whole blocks, 4]`: the lower and upper end along either axis.
    ends: ValueId,
}

impl Ranked {
    /// # Errors
    /// [`Stop::NeedsValue`] where it is not known yet how many pass `score_limit`.
    fn new(
        p: &mut Program,
        boxes: ValueId,
        scores: ValueId,
        score_limit: Option<Expr>,
        form: Form,
    ) -> Result<Ranked, Stop> {
        let shape = p.shape(scores).to_vec();
        let (rows, all) = (shape[..2].to_vec(), shape[2].clone());
        let passes = |score: &Expr| match &score_limit {
            Some(limit) => limit.below(score),
            None => Expr::bool(true),
        };
        let (zero, one) = (Expr::int(DType::I32, 0), Expr::int(DType::I32, 1));
        let (passing, len) = match &score_limit {
            None => (p.map(rows.clone(), Expr::number(&all)), all.clone()),
            Some(_) => {
                let passing =
                    p.reduce(scores, &[2], false, Combine::Sum, |e| passes(e).select(&one, &zero))?;
                let most = p.reduce(passing, &[0, 1], false, Combine::Max, Expr::clone)?;
                let most = p.unary(most, |most| most.larger(zero.clone()));
                (passing, p.computed_size(most)?)
            }
        };
        let order = p.top_k(rows.clone(), all.clone(), len.clone(), true, |p, at| {
            let score = p.load(scores, at);
            passes(&score).select(&score, &Combine::Max.identity(score.dtype()))
        });
        let block = Idx::from(BLOCK);
        let ends = vec![rows[0].clone(), rows[1].clone(), &len.div_ceil(&block) * &block, Idx::from(4i64)];
        let at = vars(0, &ends);
        let rank = at[2].smaller(&(&len - &Idx::from(1i64)));
        let place = p.load(order, &[at[0].clone(), at[1].clone(), rank]).to_position(&all);
        let coordinate = |i: usize| p.load(boxes, &[at[0].clone(), place.clone(), Idx::from(i)]);
        let [(top, bottom), (left, right)] = [0, 1].map(|axis| form(&coordinate, axis));
        let end = |i: i64, here: &Expr, other: &Expr| {
            Expr::number(&at[3]).equals(Expr::int(DType::I32, i)).select(here, other)
        };
        let body = end(0, &top, &end(1, &bottom, &end(2, &left, &right)));
        let ends = p.map(ends, body);
        Ok(Ranked { rows, len, order, passing, ends })
    }

    /// Whether the box of class `at` at `rank` passes.
    fn passes(&self, p: &Program, at: &[Idx], rank: &Idx) -> Expr {
        Expr::number(rank).below(p.load(self.passing, &at[..2]))
    }

    /// Whether two boxes of class `at` overlap by more than `limit`.
    fn overlap(&self, p: &Program, at: &[Idx], a: &Idx, b: &Idx, limit: &Expr) -> Expr {
        let ends = |rank: &Idx| {
            [0, 1, 2, 3].map(|i| {
                p.load(self.ends, &[at[0].clone(), at[1].clone(), rank.clone(), Idx::from(i as i64)])
            })
        };
        overlap(&ends(a), &ends(b), limit)
    }

    /// The ranks of those that are taken, `[B, C, most]`, and how many are, `[B, C]`, `most` or more standing for all.
    fn take(&self, p: &mut Program, most: Idx, limit: &Expr) -> Result<(ValueId, ValueId), Stop> {
        let (block, rows) = (Idx::from(BLOCK), self.rows.clone());
        let wide = |extent: &Idx| [rows.clone(), vec![extent.clone()]].concat();
        let (zero, one) = (Expr::int(DType::I32, 0), Expr::int(DType::I32, 1));
        let (no, bits) = (Expr::bool(false), |bits: i64| Expr::int(DType::U32, bits));
        let bit = |i: &Idx| bits(1).binary(Binary::Shl, &Expr::index(i.clone(), DType::U32));
        // The later boxes of its block that each overlaps.
        let ranks = p.shape(self.ends)[2].clone();
        let covers = p.reduction(wide(&ranks), vec![block.clone()], Combine::Sum, |p, at, r| {
            let other = &(&at[2].div(&block) * &block) + &r[0];
            let is_later = Expr::number(&at[2]).below(Expr::number(&other));
            let counts = is_later.and(self.passes(p, at, &at[2]));
            let covers = counts.select(&self.overlap(p, at, &at[2], &other, limit), &no);
            covers.select(&bit(&r[0]), &bits(0))
        });
        let taken = p.map(wide(&most), zero.clone());
        let count = p.map(rows.clone(), zero.clone());
        let (last, _) = p.repeat(ranks.div(&block), &[taken, count], |p, number_of_block, states| {
            let (taken, count) = (states[0], states[1]);
            let rank = |i: &Idx| &(number_of_block * &block) + i;
            // No more were taken than went before. As if by one that was, where it does not pass.
            let before = (&rank(&Idx::from(0i64)) + &Idx::from(1i64)).smaller(&most);
            let is_covered = p.reduction(wide(&block), vec![before], Combine::Max, |p, at, r| {
                let other = p.load(taken, &[at[0].clone(), at[1].clone(), r[0].clone()]).to_position(&ranks);
                let is_taken = Expr::number(&r[0]).below(p.load(count, &at[..2]));
                let by_it = is_taken.select(&self.overlap(p, at, &other, &rank(&at[2]), limit), &no);
                let is_covered = self.passes(p, at, &rank(&at[2])).select(&by_it, &Expr::bool(true));
                is_covered.select(&one, &zero)
            });
            let free = p.reduction(rows.clone(), vec![block.clone()], Combine::Sum, |p, at, r| {
                let is_covered = p.load(is_covered, &[at[0].clone(), at[1].clone(), r[0].clone()]);
                is_covered.equals(&zero).select(&bit(&r[0]), &bits(0))
            });
            let at = vars(0, &rows);
            let few = Idx::from(BITS_AT_ONCE);
            let (stay, _) = p.repeat(block.div(&few), &[free], |p, group, words| {
                let word = (0..BITS_AT_ONCE).fold(p.load(words[0], &at), |word, i| {
                    let i = &(group * &few) + &Idx::from(i);
                    let covers = p.load(covers, &[at[0].clone(), at[1].clone(), rank(&i)]);
                    let down = word.binary(Binary::Shr, &Expr::index(i, DType::U32));
                    let stays = down.binary(Binary::BitAnd, &bits(1));
                    word.binary(Binary::BitAnd, &(stays * covers).unary(Unary::BitNot))
                });
                Ok((vec![p.map(rows.clone(), word)], vec![]))
            })?;
            let stay = stay[0];
            // The ranks of those that stay, moved together.
            let staying = p.reduction(wide(&block), vec![block.clone()], Combine::Max, |p, at, r| {
                let (word, bit) = (p.load(stay, &at[..2]), bit(&r[0]));
                let before = ones(&word.binary(Binary::BitAnd, &(&bit - bits(1))));
                let stays = bits(0).below(word.binary(Binary::BitAnd, &bit));
                stays.and(before.equals(Expr::number(&at[2]))).select(&Expr::number(&rank(&r[0])), &zero)
            });
            let at = vars(0, &wide(&most));
            let (old, full) = (p.load(taken, &at), p.load(count, &at[..2]));
            let place = (Expr::number(&at[2]) - &full).smaller(Expr::int(DType::I32, BLOCK as i64 - 1));
            let new = p.load(staying, &[at[0].clone(), at[1].clone(), place.to_position(&block)]);
            let taken = p.map(wide(&most), Expr::number(&at[2]).below(&full).select(&old, &new));
            let at = vars(0, &rows);
            let body = p.load(count, &at) + ones(&p.load(stay, &at));
            let count = p.map(rows.clone(), body);
            Ok((vec![taken, count], vec![]))
        })?;
        Ok((last[0], last[1]))
    }
}

/// How many bits of a word are set, as int32: pairs of bits are added up, then pairs of these sums, and so on.
fn ones(word: &Expr) -> Expr {
    let bits = |bits: i64| Expr::int(DType::U32, bits);
    let fold = |x: &Expr, shift: i64, mask: i64| {
        let part = |x: &Expr| x.binary(Binary::BitAnd, &bits(mask));
        part(x) + part(&x.binary(Binary::Shr, &bits(shift)))
    };
    let masks = [(1, 0x5555_5555), (2, 0x3333_3333), (4, 0x0f0f_0f0f)];
    let bytes = masks.into_iter().fold(word.clone(), |sums, (shift, mask)| fold(&sums, shift, mask));
    (bytes * bits(0x0101_0101)).binary(Binary::Shr, &bits(24)).cast(DType::I32)
}

/// A box's lower and upper end along one axis, from its four numbers.
type Form = fn(&dyn Fn(usize) -> Expr, usize) -> (Expr, Expr);

/// Two corners, in any order.
fn corners(coordinate: &dyn Fn(usize) -> Expr, axis: usize) -> (Expr, Expr) {
    let (a, b) = (coordinate(axis), coordinate(axis + 2));
    (a.smaller(&b), a.larger(&b))
}

/// The centre and the size.
fn centre(coordinate: &dyn Fn(usize) -> Expr, axis: usize) -> (Expr, Expr) {
    let (middle, half) = (coordinate(axis), coordinate(axis + 2) / 2.0);
    (&middle - &half, &middle + &half)
}

/// Whether the intersection of two boxes, each given by its lower and upper ends, is more than `limit` of their union.
fn overlap(a: &[Expr; 4], b: &[Expr; 4], limit: &Expr) -> Expr {
    let zero = Expr::float(a[0].dtype(), 0.0);
    let area = |ends: &[Expr; 4]| (&ends[1] - &ends[0]) * (&ends[3] - &ends[2]);
    let common = [a[0].larger(&b[0]), a[1].smaller(&b[1]), a[2].larger(&b[2]), a[3].smaller(&b[3])];
    let (intersection, areas) = (area(&common), [area(a), area(b)]);
    let union = &(&areas[0] + &areas[1]) - &intersection;
    let meet = common[0].below(&common[1]).and(common[2].below(&common[3]));
    let sizes = [&intersection, &areas[0], &areas[1], &union];
    let proper = sizes.into_iter().fold(meet, |all, size| all.and(zero.below(size)));
    proper.and(limit.binary(Binary::Lt, &(&intersection / &union)))
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, f32s, t};

    /// Two boxes that overlap by half, and one apart.
    #[test]
    fn the_best_of_those_that_overlap() {
        let boxes = f32s(&[1, 3, 4], &[0., 0., 1., 1., 0., 0., 1., 0.5, 5., 5., 6., 6.]);
        let scores = f32s(&[1, 1, 3], &[0.5, 0.9, 0.2]);
        let limit = |v: f32| t(&[1], &[v]);
        for (most, overlap, score, want) in [
            (3, 0.4, 0.0, vec![0i64, 0, 1, 0, 0, 2]),
            (3, 0.6, 0.0, vec![0, 0, 1, 0, 0, 0, 0, 0, 2]),
            (1, 0.6, 0.0, vec![0, 0, 1]),
            (3, 0.6, 0.4, vec![0, 0, 1, 0, 0, 0]),
            (0, 0.6, 0.0, vec![]),
        ] {
            let inputs =
                [boxes.clone(), scores.clone(), t(&[1], &[most as i64]), limit(overlap), limit(score)];
            Case::new("NonMaxSuppression", &[], inputs).gives([t(&[want.len() / 3, 3], &want)]);
        }
    }

    /// A hundred boxes, which is several blocks, against the definition: the best that is left, again and again.
    #[test]
    fn more_boxes_than_a_block_has() {
        let (classes, len) = (2, 100);
        let noise = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0;
        let boxes: Vec<f32> =
            (0..len).flat_map(|i| [noise(i), noise(i + 500), noise(i) + 0.3, noise(i + 500) + 0.3]).collect();
        // Some are equal.
        let scores: Vec<f32> = (0..classes * len).map(|i| (noise(3 * i) * 32.0).round() / 32.0).collect();
        let overlap = |a: usize, b: usize| {
            let [a, b] = [a, b].map(|i| &boxes[4 * i..4 * i + 4]);
            let side = |axis: usize| a[axis + 2].min(b[axis + 2]) - a[axis].max(b[axis]);
            let area = |x: &[f32]| (x[2] - x[0]) * (x[3] - x[1]);
            let common = side(0).max(0.0) * side(1).max(0.0);
            common / (area(a) + area(b) - common) > 0.25
        };
        for (most, limit) in [(5, 0.25), (100, 0.25), (i64::MAX, -1.0)] {
            let mut want = Vec::new();
            for class in 0..classes {
                let score = |&i: &usize| scores[class * len + i];
                let mut order: Vec<usize> = (0..len).filter(|i| score(i) > limit).collect();
                order.sort_by(|a, b| score(b).total_cmp(&score(a)));
                let mut taken: Vec<usize> = Vec::new();
                for i in order {
                    if (taken.len() as i64) < most && !taken.iter().any(|&other| overlap(other, i)) {
                        taken.push(i);
                        want.extend([0, class as i64, i as i64]);
                    }
                }
            }
            let inputs = [
                f32s(&[1, len, 4], &boxes),
                f32s(&[1, classes, len], &scores),
                t(&[1], &[most]),
                t(&[1], &[0.25f32]),
                t(&[1], &[limit]),
            ];
            Case::new("NonMaxSuppression", &[], inputs).gives([t(&[want.len() / 3, 3], &want)]);
        }
    }
}
