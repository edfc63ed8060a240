//! A kernel with everything inlined, before its inputs are numbered.

use crate::expr::{Expr, Idx};
use crate::ir::{Combine, ConvAxis, ValueId};

/// A statistic with everything inlined.
pub struct ExpandedStage {
    /// The reduction; later expressions name its result as the argument of this number.
    pub id: ValueId,
    /// Number of positions.
    pub extent: Idx,
    /// How two are combined.
    pub combine: Combine,
    /// What is combined.
    pub value: Expr,
}

/// What attention makes of queries and keys, with everything inlined.
pub struct Scores {
    /// The contraction; the score names its result as the argument of this number.
    pub id: ValueId,
    /// The head size.
    pub d: Idx,
    /// The queries.
    pub query: Expr,
    /// The keys.
    pub key: Expr,
    /// The score.
    pub score: Expr,
    /// The mean, as in [`crate::kernel::AttentionResult`].
    pub mean: Expr,
}

/// A kernel with everything inlined. Loads name stored values, by row-major offset; arguments name the
/// reduction or contraction whose result they are.
#[allow(missing_docs)]
pub enum Expanded {
    Map {
        shape: Vec<Idx>,
        value: Expr,
    },
    Update {
        extents: Vec<Idx>,
        at: Idx,
        when: Expr,
        value: Expr,
    },
    Rows {
        rows: Idx,
        stages: Vec<ExpandedStage>,
        extent: Option<Idx>,
        at: Idx,
        result: Expr,
    },
    Contract {
        core: ValueId,
        batch: Idx,
        m: Idx,
        n: Idx,
        k: Idx,
        a: Expr,
        b: Expr,
        epilogue: Expr,
    },
    /// Sizes: batch, groups, output and input channels of each.
    Conv {
        core: ValueId,
        sizes: [Idx; 4],
        axes: [ConvAxis; 3],
        w: Expr,
        x: Expr,
        epilogue: Expr,
    },
    Attention {
        core: ValueId,
        batch: Idx,
        m: Idx,
        n: Idx,
        k: Idx,
        scores: Scores,
        value: Expr,
        epilogue: Expr,
    },
    TopK {
        rows: Idx,
        extent: Idx,
        k: Idx,
        key: Expr,
        largest: bool,
    },
}

impl Expanded {
    /// All expressions.
    pub fn exprs(&self) -> Vec<&Expr> {
        match self {
            Expanded::Map { value, .. } | Expanded::TopK { key: value, .. } => vec![value],
            Expanded::Update { when, value, .. } => vec![when, value],
            Expanded::Rows { stages, result, .. } => {
                stages.iter().map(|s| &s.value).chain([result]).collect()
            }
            Expanded::Contract { a, b, epilogue, .. } => vec![a, b, epilogue],
            Expanded::Conv { w, x, epilogue, .. } => vec![w, x, epilogue],
            Expanded::Attention { scores, value, epilogue, .. } => {
                vec![&scores.query, &scores.key, &scores.score, value, epilogue]
            }
        }
    }
}
