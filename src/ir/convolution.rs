//! Convolutions: contractions whose right operand is read through sliding windows. The structure is kept beside the
//! contraction's operands, for kernels that walk windows rather than products.

use crate::expr::{Expr, Idx};

/// One spatial axis: tap `k` of output `o` reads `o * stride + k * dilation - before`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvAxis {
    /// Size of the input.
    pub input: Idx,
    /// Number of windows.
    pub output: Idx,
    /// Number of taps.
    pub kernel: i64,
    /// Distance between windows.
    pub stride: i64,
    /// Distance between taps.
    pub dilation: i64,
    /// Padding before the input.
    pub before: Idx,
}

impl ConvAxis {
    /// The axis that is not there: one position, one window, one tap.
    pub fn none() -> ConvAxis {
        let one = Idx::from(1i64);
        ConvAxis {
            input: one.clone(),
            output: one,
            kernel: 1,
            stride: 1,
            dilation: 1,
            before: Idx::from(0i64),
        }
    }
}

/// `out[n, g, m, o] = sum over c, k of w(g, m, c, k) * x(n, g, c, o * stride + k * dilation - before)`, where `x` is
/// zero outside of the input. The expressions' loop variables are numbered as [`ConvVar`].
#[derive(Clone, Debug)]
pub struct Convolution {
    /// Number of groups of channels.
    pub groups: Idx,
    /// Input channels of each.
    pub in_channels: Idx,
    /// Output channels of each.
    pub out_channels: Idx,
    /// Depth, height and width; the leading ones may be [`ConvAxis::none`].
    pub axes: [ConvAxis; 3],
    /// The weight.
    pub w: Expr,
    /// The input.
    pub x: Expr,
}

/// Numbers of a convolution's loop variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvVar {
    /// Element of the batch.
    Batch = 0,
    /// Group of channels.
    Group = 1,
    /// Output channel within the group.
    Out = 2,
    /// Input channel within the group.
    In = 3,
    /// Tap along depth; height and width follow.
    Tap = 4,
    /// Position in the input, or in the output for the epilogue, along depth; height and width follow.
    At = 7,
}

impl ConvVar {
    /// The variable over `extent`.
    pub fn over(self, extent: &Idx) -> Idx {
        Idx::var(self as u32, extent)
    }

    /// The three variables over the extents of depth, height and width.
    pub fn over_axes(self, extents: [&Idx; 3]) -> [Idx; 3] {
        [0, 1, 2].map(|axis| Idx::var(self as u32 + axis as u32, extents[axis]))
    }
}

impl Convolution {
    /// Whether every window is one element and every element has one: a plain matrix product.
    pub fn is_pointwise(&self) -> bool {
        self.axes.iter().all(|axis| axis.kernel == 1 && axis.stride == 1 && axis.input == axis.output)
    }
}
