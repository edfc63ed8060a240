//! Positions in a shape and their row-major offsets.

use super::Idx;

/// The product of all dimensions: the number of elements of `shape`.
pub fn numel(shape: &[Idx]) -> Idx {
    shape.iter().fold(Idx::from(1i64), |n, d| &n * d)
}

/// The row-major offset of the element `at` of `shape`.
pub fn flatten(at: &[Idx], shape: &[Idx]) -> Idx {
    at.iter().zip(shape).fold(Idx::from(0i64), |offset, (i, d)| &(&offset * d) + i)
}

/// The position in `shape` of the element at row-major `offset`.
pub fn unflatten(offset: &Idx, shape: &[Idx]) -> Vec<Idx> {
    let mut at = vec![Idx::from(0i64); shape.len()];
    let mut stride = Idx::from(1i64);
    for axis in (0..shape.len()).rev() {
        let here = offset.div(&stride);
        let outer = shape[..axis].iter().all(|d| d.is(1));
        at[axis] = if shape[axis].is(1) {
            Idx::from(0i64)
        } else if outer {
            here
        } else {
            here.rem(&shape[axis])
        };
        stride = &stride * &shape[axis];
    }
    at
}

/// Row-major loop variables `first..` over `shape`.
pub fn vars(first: u32, shape: &[Idx]) -> Vec<Idx> {
    shape.iter().enumerate().map(|(i, d)| Idx::var(first + i as u32, d)).collect()
}
