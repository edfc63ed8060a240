//! What a kernel computes: expressions over its own loop variables, inputs and parameters, in a canonical
//! form, so that the six layers of a network share one kernel.

use super::schedule::{Sizes, size};
use crate::expr::{Atom, Expr, Floats, Idx, device_type};
use crate::ir::{Combine, ConvAxis};
use crate::tensor::DType;

/// One kernel. In its expressions a load's source is a position in `inputs` and its index one row-major
/// offset; symbols are `p0`, `p1`, ..., the run-time parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelSpec {
    /// Dtypes of the inputs.
    pub inputs: Vec<DType>,
    /// Dtype of the output.
    pub output: DType,
    /// Number of run-time parameters.
    pub params: usize,
    /// The computation.
    pub body: Body,
}

/// The computation, by family; each has its skeletons.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// `out[i] = value(i)` for `i` below `len`; loop variable 0 is `i`.
    Map {
        /// Number of elements.
        len: Idx,
        /// What each is.
        value: Expr,
    },
    /// `out[at(i)] = value(i)` for those `i` below `len` for which `when(i)` holds; the other elements stay. Loop variable 0
    /// is `i`.
    Update {
        /// Number of elements that may be written.
        len: Idx,
        /// Where each goes.
        at: Idx,
        /// Whether it goes there.
        when: Expr,
        /// What it is.
        value: Expr,
    },
    /// Row by row: statistics, each of which may use those before it, then the result. Loop variable 0 is
    /// the row, 1 the position within it; argument `s` is statistic number `s`.
    Reduce {
        /// Number of rows.
        rows: Idx,
        /// The statistics, in order.
        stages: Vec<Stage>,
        /// What is stored.
        result: RowResult,
    },
    /// `out[b, m, n] = epilogue(sum over k of a(b, m, k) * b(b, k, n))`.
    Contract(ContractBody),
    /// `out[n, g, m, o] = epilogue(sum over c, k of w(g, m, c, k) * x(n, g, c, o * stride + k * dilation - before))`.
    Conv(ConvBody),
    /// `out[b, m, n] = sum over k of softmax over k of score(b, m, k) * v(b, k, n)`.
    Attention(AttentionBody),
    /// The positions of the first `k` elements of each row.
    TopK(TopKBody),
}

/// One statistic of a row: `combine over r < extent of value(row, r)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stage {
    /// Number of positions.
    pub extent: Idx,
    /// How two are combined.
    pub combine: Combine,
    /// What is combined.
    pub value: Expr,
}

/// What a row kernel stores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RowResult {
    /// `out[row] = value(row)`.
    PerRow(Expr),
    /// `out[at(row, r)] = value(row, r)` for `r` below `extent`.
    PerElement {
        /// Number of positions.
        extent: Idx,
        /// Where it goes.
        at: Idx,
        /// What is stored.
        value: Expr,
    },
}

/// A batched matrix product with arbitrary loads. Loop variables 0 to 3 are `b`, `m`, `n`, `k`; argument 0 of
/// the epilogue is the sum.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContractBody {
    /// Number of products.
    pub batch: Idx,
    /// Rows of the output.
    pub m: Idx,
    /// Columns of the output.
    pub n: Idx,
    /// Terms of each sum.
    pub k: Idx,
    /// The left operand at `(b, m, k)`.
    pub a: Expr,
    /// The right operand at `(b, k, n)`.
    pub b: Expr,
    /// What is multiplied.
    pub product: Product,
    /// The dtype of the sum.
    pub sum: DType,
    /// Whether a sum of f16 may be taken in f16: `gemm`, `gemm_tiled` and `gemv` do so, all others take it in f32, as
    /// all do where this is false.
    pub f16_sum: bool,
    /// What is stored at `(b * m + row) * n + column`.
    pub epilogue: Expr,
}

/// What one multiplication of a contraction or convolution is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// Of two numbers.
    Numbers,
    /// Of two words of four signed bytes each, first in the low bits: the sum of the four products.
    SignedBytes,
    /// Of two words of four unsigned bytes each.
    UnsignedBytes,
}

impl ContractBody {
    /// The same with sums in f32, for kernels that hand sums on within subgroups or matrices.
    pub(crate) fn with_f32_sums(&self) -> ContractBody {
        ContractBody { f16_sum: false, ..self.clone() }
    }
}

/// A convolution, `x` being zero outside of the input. Loop variables are numbered as [`crate::ir::ConvVar`]; argument 0
/// of the epilogue is the sum.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvBody {
    /// Elements of the batch.
    pub batch: Idx,
    /// Groups of channels.
    pub groups: Idx,
    /// Output channels per group.
    pub out_channels: Idx,
    /// Input channels per group.
    pub in_channels: Idx,
    /// Depth, height and width.
    pub axes: [ConvAxis; 3],
    /// The weight.
    pub w: Expr,
    /// The input, at a position inside.
    pub x: Expr,
    /// What is multiplied.
    pub product: Product,
    /// The dtype of the sum.
    pub sum: DType,
    /// What is stored, in the order of batch, group, output channel, depth, height, width.
    pub epilogue: Expr,
}

impl ConvBody {
    /// Number of output elements.
    pub fn output_len(&self) -> Idx {
        let channels = &(&self.batch * &self.groups) * &self.out_channels;
        self.axes.iter().fold(channels, |len, axis| &len * &axis.output)
    }
}

/// Softmax attention with arbitrary loads, scores and masks. Loop variables 0 to 4 are `b`, `m` (the query), `n`
/// (the column of V), `k` (the key) and `d` (the position in a head):
///
/// ```text
/// score(b, m, k) = score(dot),      dot = sum over d of query(b, m, d) * key(b, k, d)
/// w(b, m, k)     = exp(score(b, m, k) - max(lowest finite number, max over k of score(b, m, k)))
/// out[b, m, n]   = result(sum over k of w(b, m, k) * value(b, k, n), sum over k of w(b, m, k))
/// ```
///
/// Scales, soft caps, masks, causal and sliding windows are part of `score`; grouped heads and caches of the loads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionBody {
    /// Number of heads over all batches that share keys.
    pub batch: Idx,
    /// Queries.
    pub m: Idx,
    /// Columns of V and of the output.
    pub n: Idx,
    /// Keys, at the most.
    pub k: Idx,
    /// Keys of product `b` that query `m` may see: the score of those beyond is minus infinity. It does not shrink with
    /// the query.
    pub keys: Idx,
    /// The head size: terms of each dot product.
    pub d: Idx,
    /// Q at `(b, m, d)`.
    pub query: Expr,
    /// K at `(b, k, d)`.
    pub key: Expr,
    /// V at `(b, k, n)`.
    pub value: Expr,
    /// The dtype of the dot product.
    pub dot: DType,
    /// The score at `(b, m, k)`, in float32; argument 0 is the dot product.
    pub score: Expr,
    /// What is stored.
    pub result: AttentionResult,
}

/// What an attention kernel stores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AttentionResult {
    /// `out[(b * m + query) * n + column]`.
    Mixed {
        /// The weighted mean of values, in float32: argument 0 is the weighted sum, argument 1 the sum of weights. Says
        /// what a query that sees no key gives.
        mean: Expr,
        /// Its dtype in the epilogue.
        dtype: DType,
        /// What is stored at `(b, m, n)`; argument 0 is the mean.
        epilogue: Expr,
    },
    /// Rows of n + 2: the weighted sums, the largest score, and the sum of weights, for a pass that combines them.
    Parts,
}

impl AttentionBody {
    /// Keys that a query sees on average: as many as the middle one.
    pub(super) fn mean_keys(&self, sizes: Sizes) -> f64 {
        let middle = Idx::from(size(&self.m, sizes) / 2);
        let at = |atom: &Atom| match atom {
            Atom::Var(var) => Some(if var.id == 1 { middle.clone() } else { Idx::from(0i64) }),
            Atom::Sym(_) | Atom::Div(..) | Atom::Mod(..) | Atom::Min(..) | Atom::Max(..) | Atom::Data(..) => {
                None
            }
        };
        size(&self.keys.rewrite(&mut |atom| at(atom)), sizes).max(1) as f64
    }
}

/// `out[row, j] = position(row, r)` for the `r < extent` that stands at place `j < k` in order of the keys, equal ones by
/// `r`. Loop variable 0 is the row, 1 is `r`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopKBody {
    /// Number of rows.
    pub rows: Idx,
    /// Number of elements of a row.
    pub extent: Idx,
    /// How many of them are wanted, `extent` at the most.
    pub k: Idx,
    /// What they are compared by, as [`crate::ir::before`] does.
    pub key: Expr,
    /// Whether large keys come first.
    pub largest: bool,
    /// What is stored, an int32.
    pub position: Expr,
    /// Where a row is known to be two parts that are in order already: the length of the first.
    pub split: Option<Idx>,
}

impl KernelSpec {
    /// Lets a product of f16 operands take its sums in f16.
    pub fn allow_f16_sums(&mut self) {
        if let Body::Contract(body) = &mut self.body {
            body.f16_sum = [body.a.dtype(), body.b.dtype(), body.sum] == [DType::F16; 3];
        }
    }

    /// Whether sums may be taken in f16.
    pub fn has_f16_sums(&self) -> bool {
        matches!(&self.body, Body::Contract(body) if body.f16_sum)
    }

    /// Whether it rounds sums of floats to integers: the order of the terms then decides what is near a half.
    pub fn rounds_sums(&self) -> bool {
        let sums_floats = match &self.body {
            Body::Contract(body) => body.sum.is_float(),
            Body::Conv(body) => body.sum.is_float(),
            Body::Reduce { stages, .. } => {
                stages.iter().any(|stage| stage.combine == Combine::Sum && stage.value.dtype().is_float())
            }
            Body::Attention(_) => true,
            Body::Map { .. } | Body::Update { .. } | Body::TopK(_) => false,
        };
        self.output.is_int() && sums_floats
    }

    /// The family's name.
    pub fn family(&self) -> &'static str {
        match self.body {
            Body::Map { .. } => "map",
            Body::Update { .. } => "update",
            Body::Reduce { .. } => "reduce",
            Body::Contract(_) => "gemm",
            Body::Conv(_) => "conv",
            Body::Attention(_) => "attention",
            Body::TopK(_) => "topk",
        }
    }

    /// Number of elements that are written.
    pub fn output_len(&self) -> Idx {
        match &self.body {
            Body::Map { len, .. } | Body::Update { len, .. } => len.clone(),
            Body::Reduce { rows, result: RowResult::PerRow(_), .. } => rows.clone(),
            Body::Reduce { rows, result: RowResult::PerElement { extent, .. }, .. } => rows * extent,
            Body::Contract(c) => &(&c.batch * &c.m) * &c.n,
            Body::Conv(c) => c.output_len(),
            Body::TopK(c) => &c.rows * &c.k,
            Body::Attention(a) => {
                let extra = match a.result {
                    AttentionResult::Mixed { .. } => 0i64,
                    AttentionResult::Parts => 2,
                };
                &(&a.batch * &a.m) * &(&a.n + &Idx::from(extra))
            }
        }
    }

    /// All expressions of the kernel.
    pub fn exprs(&self) -> Vec<&Expr> {
        match &self.body {
            Body::Map { value, .. } => vec![value],
            Body::Update { when, value, .. } => vec![when, value],
            Body::Reduce { stages, result, .. } => {
                let last = match result {
                    RowResult::PerRow(value) | RowResult::PerElement { value, .. } => value,
                };
                stages.iter().map(|s| &s.value).chain([last]).collect()
            }
            Body::Contract(c) => vec![&c.a, &c.b, &c.epilogue],
            Body::Conv(c) => vec![&c.w, &c.x, &c.epilogue],
            Body::TopK(c) => vec![&c.key, &c.position],
            Body::Attention(a) => {
                let last: &[&Expr] = match &a.result {
                    AttentionResult::Mixed { mean, epilogue, .. } => &[mean, epilogue],
                    AttentionResult::Parts => &[],
                };
                [&[&a.query, &a.key, &a.value, &a.score], last].concat()
            }
        }
    }

    /// Its extents: what decides how much there is to do.
    fn extents(&self) -> Vec<&Idx> {
        match &self.body {
            Body::Map { len, .. } | Body::Update { len, .. } => vec![len],
            Body::Reduce { rows, stages, result } => {
                let last = match result {
                    RowResult::PerRow(_) => None,
                    RowResult::PerElement { extent, .. } => Some(extent),
                };
                [rows].into_iter().chain(stages.iter().map(|s| &s.extent)).chain(last).collect()
            }
            Body::Contract(c) => vec![&c.batch, &c.m, &c.n, &c.k],
            Body::Conv(c) => {
                let axes = c.axes.iter().flat_map(|axis| [&axis.input, &axis.output, &axis.before]);
                axes.chain([&c.batch, &c.groups, &c.out_channels, &c.in_channels]).collect()
            }
            Body::TopK(c) => [&c.rows, &c.extent, &c.k].into_iter().chain(&c.split).collect(),
            Body::Attention(a) => vec![&a.batch, &a.m, &a.n, &a.k, &a.keys, &a.d],
        }
    }

    /// Which run-time parameters its extents depend on. The others only say where things lie, as the number of a
    /// recurrence's step.
    pub fn sizing_params(&self) -> Vec<bool> {
        let extents = self.extents();
        let is_sizing = |name: String| extents.iter().any(|extent| extent.mentions(&name));
        (0..self.params).map(|number| is_sizing(format!("p{number}"))).collect()
    }
}

/// The dtype whose numbers a dtype's elements are held as in device memory. Booleans and narrow integers take a
/// word, 64-bit integers two, the low one first. Floats are held as they are where the device has them, and as
/// 32-bit ones where it does not.
pub fn stored(dtype: DType, floats: Floats) -> DType {
    match dtype {
        DType::F16 if floats.f16 => DType::F16,
        DType::F64 if floats.f64 => DType::F64,
        DType::I64 | DType::U64 => dtype,
        DType::Bool => DType::U32,
        _ if dtype.is_unsigned_int() => DType::U32,
        _ if dtype.is_int() => DType::I32,
        _ => DType::F32,
    }
}

/// The WGSL type of a dtype's elements in device memory.
pub fn storage_type(dtype: DType, floats: Floats) -> &'static str {
    match stored(dtype, floats) {
        DType::F16 => "f16",
        stored => device_type(stored, floats),
    }
}

/// Bytes per element in device memory.
pub fn storage_bytes(dtype: DType, floats: Floats) -> usize {
    stored(dtype, floats).bits() / 8
}
