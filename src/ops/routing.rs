//! Which experts a token of a mixture goes to, and the tokens of each expert together.

use super::prefix::running;
use super::softmax::softmax;
use super::{Cx, topk};
use crate::expr::{Binary, Expr, Idx, Unary, vars};
use crate::ir::{Combine, Program, Stop, ValueId};
use crate::tensor::DType;

/// The experts of each token, `[tokens, k]`, and what each counts for, in float32.
pub struct Choice {
    pub experts: ValueId,
    pub weights: ValueId,
    /// How many there are to choose from.
    pub count: Idx,
}

impl Choice {
    /// Expert number `slot` of a token.
    fn expert(&self, p: &Program, token: &Idx, slot: &Idx) -> Idx {
        p.load(self.experts, &[token.clone(), slot.clone()]).to_position(&self.count)
    }
}

/// The `k` experts for which `router: [tokens, experts]` is largest; of equal ones the first. They count for the softmax
/// of these numbers, taken over the chosen where weights are normalized, else over all; or for what
/// `given: [tokens, experts]` says.
pub fn choose(cx: &mut Cx, router: ValueId, given: Option<ValueId>) -> Result<Choice, Stop> {
    let (k, normalized) = (cx.int_or("k", 1)?, cx.int_or("normalize_routing_weights", 0)? != 0);
    let sparse = cx.int_or("use_sparse_mixer", 0)? != 0;
    if sparse && k != 2 {
        return Err(cx.error(format!("use_sparse_mixer wants k=2, got {k}")));
    }
    let p = &mut *cx.program;
    let [tokens, count] = p.shape(router) else { return Err(p.error("router_probs wants two axes")) };
    let (shape, count) = (vec![tokens.clone(), Idx::from(k)], count.clone());
    if k < 1 || count.as_const().is_some_and(|count| k > count) {
        return Err(p.error(format!("k={k} of {count} experts")));
    }
    let router = p.cast(router, DType::F32);
    let experts = topk::first(p, router, 1, Idx::from(k), true);
    let mut choice = Choice { experts, weights: router, count };
    let chosen = |p: &mut Program, x: ValueId| {
        let at = vars(0, &shape);
        let body = p.load(x, &[at[0].clone(), choice.expert(p, &at[0], &at[1])]);
        p.map(shape.clone(), body)
    };
    choice.weights = match (given, normalized) {
        (Some(given), _) => {
            let given = p.cast(given, DType::F32);
            let weights = chosen(p, given);
            if normalized {
                let sum = p.reduce(weights, &[1], false, Combine::Sum, Expr::clone)?;
                p.along(weights, &[1], &[sum], |w, sum| w / &sum[0])
            } else {
                weights
            }
        }
        (None, _) if sparse => sparse_weights(p, router, &choice),
        (None, true) => {
            let numbers = chosen(p, router);
            softmax(p, numbers, &[1])?
        }
        (None, false) => {
            let shares = softmax(p, router, &[1])?;
            chosen(p, shares)
        }
    };
    Ok(choice)
}

/// Numbers that are further below the largest than this part of the larger magnitude do not count in the sparse mixer.
const NEAR: f64 = 0.02;

/// As ONNX Runtime's sparse mixer: a chosen expert counts for the softmax of its number over those that were left when
/// it was chosen and are near it: `1 / sum of e^(x_j - x)` over `j` with `x - x_j <= 0.02 max(|x_j|, x)`.
fn sparse_weights(p: &mut Program, router: ValueId, choice: &Choice) -> ValueId {
    let shape = p.shape(choice.experts).to_vec();
    let sums = p.reduction(shape, vec![choice.count.clone()], Combine::Sum, |p, at, other| {
        let best = p.load(router, &[at[0].clone(), choice.expert(p, &at[0], &at[1])]);
        let x = p.load(router, &[at[0].clone(), other[0].clone()]);
        let is_near = (&best - &x).at_most(x.abs().larger(&best) * NEAR);
        let is_first = Expr::number(&at[1]).equals(Expr::int(DType::I32, 0));
        let first = p.load(choice.experts, &[at[0].clone(), Idx::from(0i64)]);
        let is_left = is_first.or(Expr::number(&other[0]).equals(first).unary(Unary::Not));
        is_near.and(is_left).select(&(x - best).exp(), &Expr::float(DType::F32, 0.0))
    });
    p.unary(sums, |sum| Expr::float(DType::F32, 1.0) / sum)
}

/// The pairs of a token and one of its experts, those of an expert together: in tiles of some rows, all of one expert.
///
/// Pair `p` is of token `p / k`. An expert's first tile follows the last one of the expert before it, so with `rank` the
/// number of earlier pairs of the same expert,
///
/// ```text
/// place[p] = rows * (pairs q of smaller experts with rank[q] % rows = 0) + rank[p]
/// ```
///
/// Places that are left over repeat pair 0; nobody reads what becomes of them. Pairs are counted in blocks, so that the work
/// is pairs times the size and the number of blocks.
pub struct Tiles<'a> {
    choice: &'a Choice,
    /// Number of tiles.
    pub count: Idx,
    /// Rows of a tile.
    pub rows: Idx,
    pairs: Idx,
    /// `[tokens, k]` in a row: the expert of each pair.
    experts: ValueId,
    order: Option<Order>,
}

/// Where each pair is, and which pair is in each place. Without it, the pairs are in their own order.
struct Order {
    places: ValueId,
    pairs: ValueId,
}

/// Rows of a tile at the most: what a workgroup of a matrix product computes together.
const ROWS: i64 = 16;

/// Pairs of a block: the square root of some thousand.
const BLOCK: i64 = 64;

impl<'a> Tiles<'a> {
    /// Tiles of as many rows as an expert has pairs on average, which for a few tokens is one.
    pub fn new(p: &mut Program, choice: &'a Choice) -> Result<Tiles<'a>, Stop> {
        let [tokens, k] = [0, 1].map(|axis| p.shape(choice.experts)[axis].clone());
        let (pairs, one) = (&tokens * &k, Idx::from(1i64));
        let rows = pairs.div_ceil(&choice.count).smaller(&Idx::from(ROWS)).larger(&one);
        // Each expert's last tile lacks at most all rows but one.
        let most = (&pairs + &(&choice.count * &(&rows - &one))).div(&rows);
        let count = pairs.smaller(&most);
        let experts = p.reshape(choice.experts, vec![pairs.clone()])?;
        let mut tiles = Tiles { choice, count, rows, pairs, experts, order: None };
        if !tiles.rows.is(1) {
            tiles.order = Some(tiles.in_order(p));
        }
        Ok(tiles)
    }

    fn in_order(&self, p: &mut Program) -> Order {
        let counts = self.counts(p);
        let firsts = self.firsts(p, counts);
        let places = self.places(p, counts, firsts);
        Order { places, pairs: self.pairs_in_places(p, counts, firsts, places) }
    }

    fn blocks(&self) -> Idx {
        self.pairs.div_ceil(&Idx::from(BLOCK))
    }

    /// `[blocks, experts]`: how many pairs of the expert there are in this block and before it.
    fn counts(&self, p: &mut Program) -> ValueId {
        let (experts, shape) = (self.experts, vec![self.blocks(), self.choice.count.clone()]);
        let counts = p.reduction(shape, vec![Idx::from(BLOCK)], Combine::Sum, |p, at, r| {
            let pair = in_block(&at[0], &r[0]);
            let is_there = Expr::number(&pair).below(Expr::number(&self.pairs));
            let is_of_it = p.load(experts, &[pair]).equals(Expr::number(&at[1]));
            one_if(&is_there.select(&is_of_it, &Expr::bool(false)))
        });
        running(p, counts, 0, Combine::Sum)
    }

    /// `[experts]`: the first tile of each.
    fn firsts(&self, p: &mut Program, counts: ValueId) -> ValueId {
        let (all, last) = (vec![self.choice.count.clone()], &self.blocks() - &Idx::from(1i64));
        p.reduction(all.clone(), all, Combine::Sum, |p, at, other| {
            let count = p.load(counts, &[last.clone(), other[0].clone()]);
            let rows = Expr::number(&self.rows);
            let tiles = (count + &rows - Expr::int(DType::I32, 1)).binary(Binary::Div, &rows);
            Expr::number(&other[0]).below(Expr::number(&at[0])).select(&tiles, &Expr::int(DType::I32, 0))
        })
    }

    /// `[pairs]`: the place of each.
    fn places(&self, p: &mut Program, counts: ValueId, firsts: ValueId) -> ValueId {
        let (experts, shape) = (self.experts, vec![self.pairs.clone()]);
        let block = |pair: &Idx| pair.div(&Idx::from(BLOCK));
        let in_own = p.reduction(shape.clone(), vec![Idx::from(BLOCK)], Combine::Sum, |p, at, r| {
            let other = in_block(&block(&at[0]), &r[0]);
            let is_earlier = Expr::number(&other).below(Expr::number(&at[0]));
            let is_same = p.load(experts, &[other]).equals(p.load(experts, at));
            one_if(&is_earlier.select(&is_same, &Expr::bool(false)))
        });
        let at = vars(0, &shape);
        let expert = p.load(experts, &at).to_position(&self.choice.count);
        let last = &block(&at[0]) - &Idx::from(1i64);
        let is_in_first = Expr::number(&at[0]).below(Expr::int(DType::I32, BLOCK));
        let before = p.load(counts, &[last, expert.clone()]);
        let rank = is_in_first.select(&Expr::int(DType::I32, 0), &before) + p.load(in_own, &at);
        let place = p.load(firsts, &[expert]) * Expr::number(&self.rows) + rank;
        p.map(shape, place)
    }

    /// `[tiles * rows]`, the way back: a place is of the last expert that begins before it, and its pair in the first block
    /// with which there are enough of the expert's.
    fn pairs_in_places(&self, p: &mut Program, counts: ValueId, firsts: ValueId, places: ValueId) -> ValueId {
        let (zero, blocks, expert_count) = (Expr::int(DType::I32, 0), self.blocks(), &self.choice.count);
        let tiles = vec![self.count.clone()];
        let of_tile = p.reduction(tiles, vec![expert_count.clone()], Combine::Max, |p, at, expert| {
            let begins = p.load(firsts, expert).at_most(Expr::number(&at[0]));
            begins.select(&Expr::number(&expert[0]), &zero)
        });
        let all = vec![&self.count * &self.rows];
        let block_of = p.reduction(all.clone(), vec![blocks.clone()], Combine::Sum, |p, at, block| {
            let expert = p.load(of_tile, &[at[0].div(&self.rows)]).to_position(expert_count);
            let rank = Expr::number(&at[0])
                - p.load(firsts, std::slice::from_ref(&expert)) * Expr::number(&self.rows);
            one_if(&p.load(counts, &[block[0].clone(), expert]).at_most(rank))
        });
        let most = &blocks + &Idx::from(1i64);
        p.reduction(all, vec![Idx::from(BLOCK)], Combine::Max, |p, at, r| {
            let pair = in_block(&p.load(block_of, at).to_position(&most), &r[0]);
            let is_there = Expr::number(&pair).below(Expr::number(&self.pairs));
            let is_here = p.load(places, std::slice::from_ref(&pair)).equals(Expr::number(&at[0]));
            is_there.select(&is_here.select(&Expr::number(&pair), &zero), &zero)
        })
    }

    /// The pair in a row of a tile.
    fn pair(&self, p: &Program, tile: &Idx, row: &Idx) -> Idx {
        let place = &(tile * &self.rows) + row;
        match &self.order {
            Some(order) => p.load(order.pairs, &[place]).to_position(&self.pairs),
            None => place,
        }
    }

    /// The token in a row of a tile.
    pub fn token(&self, p: &Program, tile: &Idx, row: &Idx) -> Idx {
        self.pair(p, tile, row).div(&p.shape(self.choice.experts)[1])
    }

    /// The expert of a tile.
    pub fn expert(&self, p: &Program, tile: &Idx) -> Idx {
        let pair = self.pair(p, tile, &Idx::from(0i64));
        p.load(self.experts, &[pair]).to_position(&self.choice.count)
    }

    /// `x: [tiles, rows, n]` back to the tokens: the sum over each one's pairs of weight * x, `[tokens, n]`.
    pub fn mixed(&self, p: &mut Program, x: ValueId) -> Result<ValueId, Stop> {
        let (n, dtype) = (p.shape(x)[2].clone(), p.dtype(x));
        let places = &self.count * &self.rows;
        let x = p.reshape(x, vec![places.clone(), n.clone()])?;
        let [tokens, k] = [0, 1].map(|axis| p.shape(self.choice.experts)[axis].clone());
        let sum = p.reduction(vec![tokens, n], vec![k.clone()], Combine::Sum, |p, at, slot| {
            let pair = &(&at[0] * &k) + &slot[0];
            let place = match &self.order {
                Some(order) => p.load(order.places, &[pair]).to_position(&places),
                None => pair,
            };
            let weight = p.load(self.choice.weights, &[at[0].clone(), slot[0].clone()]);
            p.load(x, &[place, at[1].clone()]).cast(DType::F32) * weight
        });
        Ok(p.cast(sum, dtype))
    }
}

fn one_if(so: &Expr) -> Expr {
    so.select(&Expr::int(DType::I32, 1), &Expr::int(DType::I32, 0))
}

/// Pair number `r` of a block.
fn in_block(block: &Idx, r: &Idx) -> Idx {
    &(block * &Idx::from(BLOCK)) + r
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, f32s, int, text};

    /// Expert e multiplies by e + 1; expert 2 gets no token.
    #[test]
    fn tokens_find_their_experts_in_blocks_of_any_number() {
        for tokens in [3, 63, 64, 150] {
            let expert = |token: usize| [0, 4, 3, 1, 4, 4, 0][(token * token / 5) % 7];
            let x: Vec<f32> = (0..tokens).map(|token| token as f32).collect();
            let router: Vec<f32> =
                (0..tokens * 5).map(|i| if i % 5 == expert(i / 5) { 1.0 } else { 0.0 }).collect();
            let weights = f32s(&[5, 1, 1], &[1.0, 2.0, 3.0, 4.0, 5.0]);
            let want: Vec<f32> = (0..tokens).map(|token| (token * (expert(token) + 1)) as f32).collect();
            let attributes =
                [("k", int(1)), ("normalize_routing_weights", int(1)), ("activation_type", text("identity"))];
            let inputs = [
                f32s(&[tokens, 1], &x),
                f32s(&[tokens, 5], &router),
                weights,
                f32s(&[5, 1], &[0.0; 5]),
                f32s(&[5, 1, 1], &[1.0; 5]),
            ];
            Case::new("com.microsoft.MoE", &attributes, inputs).gives([f32s(&[tokens, 1], &want)]);
        }
    }
}
