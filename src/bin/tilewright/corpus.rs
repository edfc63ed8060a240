//! The shapes of `tilewright bench`.

use tilewright::DType;

use crate::failure::Result;
use crate::one_op::{OneOp, Op};

/// Few, from networks that are in use: what a change makes slower should show in one of them. Names of results,
/// so a row stays as it is once it stands here.
const SHAPES: &[(Op, &str, DType)] = &[
    // Square; the feed-forward block and the logits of a small transformer; one token.
    (Op::Gemm, "M=512,N=512,K=512", DType::F32),
    (Op::Gemm, "M=512,N=512,K=512", DType::F16),
    (Op::Gemm, "M=128,N=1536,K=384", DType::F32),
    (Op::Gemm, "M=128,N=64,K=128,B=12", DType::F32),
    (Op::Gemm, "M=1,N=4096,K=1024", DType::F32),
    // The stem, a 3x3 and a 1x1 layer of a residual network; a depthwise layer.
    (Op::Conv, "N=1,C=3,H=224,W=224,O=64,K=7,S=2,P=3", DType::F32),
    (Op::Conv, "N=1,C=64,H=56,W=56,O=64,K=3,P=1", DType::F32),
    (Op::Conv, "N=1,C=256,H=14,W=14,O=512,K=1", DType::F32),
    (Op::Conv, "N=1,C=96,H=56,W=56,O=96,K=3,P=1,G=96", DType::F32),
    // A small encoder, a long sequence, a token against a long cache.
    (Op::Attention, "M=128,K=128,B=12,D=32", DType::F32),
    (Op::Attention, "M=1500,K=1500,B=6", DType::F32),
    (Op::Attention, "M=1,K=2048,B=32", DType::F32),
    // Attention over 128 positions in 12 heads; the classes of an image network.
    (Op::Softmax, "ROWS=1536,COLS=128", DType::F32),
    (Op::Softmax, "ROWS=16,COLS=50257", DType::F32),
    (Op::Layernorm, "ROWS=128,COLS=768", DType::F32),
    (Op::Map, "N=1048576", DType::F32),
    (Op::Map, "N=1048576", DType::F16),
    // The channels of an image as its last axis; a large matrix.
    (Op::Transpose, "ROWS=192,COLS=3136", DType::F32),
    (Op::Transpose, "ROWS=1024,COLS=1024", DType::F32),
];

/// The operations, of one kind where that is asked for.
///
/// # Errors
/// Never, as a test makes sure.
pub fn operations(only: Option<Op>) -> Result<Vec<OneOp>> {
    let wanted = SHAPES.iter().filter(|(op, ..)| only.is_none_or(|only| only == *op));
    wanted.map(|(op, shape, dtype)| OneOp::new(*op, &parsed(shape)?, *dtype)).collect()
}

fn parsed(shape: &str) -> Result<crate::one_op::Shape> {
    shape.parse().map_err(crate::failure::Failure::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_an_operation_with_a_name_of_its_own() {
        let operations = operations(None).unwrap();
        assert_eq!(operations.len(), SHAPES.len());
        let names: std::collections::BTreeSet<String> = operations.iter().map(OneOp::describe).collect();
        assert_eq!(names.len(), SHAPES.len());
    }
}
