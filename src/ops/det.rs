//! Determinants: of small matrices by cofactors, of others by elimination.

use super::math::{Lowering, op};
use super::reduce::widen;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, vars};
use crate::ir::{Program, Stop, ValueId};

/// The family.
pub const OPS: &[OpDef] = &[op("Det", 11, "the determinants of matrices", det)];

/// Rows of a matrix whose cofactors are written out, at the most: 5 would need 120 products of 5.
const WRITTEN_OUT: usize = 4;

fn det(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    let [outer @ .., rows, columns] = shape.as_slice() else {
        return Err(cx.error("wants at least two axes"));
    };
    let p = &mut *cx.program;
    p.equate(rows, columns, "rows and columns of a matrix")?;
    let (x, dtype) = widen(p, x);
    let det = match rows.as_const().and_then(|rows| usize::try_from(rows).ok()) {
        Some(len) if len <= WRITTEN_OUT => {
            let at = vars(0, outer);
            let element = |row: usize, column: usize| {
                p.load(x, &[at.as_slice(), &[Idx::from(row), Idx::from(column)]].concat())
            };
            let one = Expr::int(p.dtype(x), 1);
            let body = minor(&element, 0, &(0..len).collect::<Vec<_>>(), &one);
            p.map(outer.to_vec(), body)
        }
        _ => eliminated(p, x, outer, rows)?,
    };
    Ok(vec![p.cast(det, dtype)])
}

/// The determinant of the rows from `row` on and these columns.
fn minor(element: &dyn Fn(usize, usize) -> Expr, row: usize, columns: &[usize], one: &Expr) -> Expr {
    let term = |(i, &column): (usize, &usize)| {
        let rest: Vec<usize> = columns.iter().copied().filter(|&c| c != column).collect();
        (i % 2 == 1, element(row, column) * minor(element, row + 1, &rest, one))
    };
    let sum = columns
        .iter()
        .enumerate()
        .map(term)
        .reduce(|(_, sum), (odd, term)| (false, if odd { sum - term } else { sum + term }));
    sum.map_or_else(|| one.clone(), |(_, sum)| sum)
}

/// The product of the pivots of Gaussian elimination with partial pivoting (Golub and Van Loan, Matrix Computations,
/// 3.4), negated for each exchange of rows; a repetition for each column.
fn eliminated(p: &mut Program, x: ValueId, outer: &[Idx], len: &Idx) -> Result<ValueId, Stop> {
    let dtype = p.dtype(x);
    let matrix = [outer, &[len.clone(), len.clone()]].concat();
    let (none, one) = (Expr::int(dtype, 0), Expr::int(dtype, 1));
    let product = p.map(outer.to_vec(), one);
    let (states, _) = p.repeat(len.clone(), &[x, product], |p, step, states| {
        let (left, product) = (states[0], states[1]);
        let element = |p: &Program, outer: &[Idx], row: &Idx, column: &Idx| {
            p.load(left, &[outer, &[row.clone(), column.clone()]].concat())
        };
        // The largest element of the column; rows above have had their turn.
        let largest = p.top_k(outer.to_vec(), len.clone(), Idx::from(1i64), true, |p, at| {
            let (outer, row) = (&at[..at.len() - 1], &at[at.len() - 1]);
            let size = element(p, outer, row, step).abs();
            Expr::number(step).at_most(Expr::number(row)).select(&size, &Expr::int(dtype, -1))
        });
        let pivot = |p: &Program, outer: &[Idx]| {
            let row = p.load(largest, &[outer, &[Idx::from(0i64)]].concat());
            (row.to_position(len), row)
        };
        let at = vars(0, outer);
        let (row, number) = pivot(p, &at);
        let value = element(p, &at, &row, step);
        let signed = number.equals(Expr::number(step)).select(&value, &value.negated());
        let next = p.load(product, &at) * signed;
        let next = p.map(outer.to_vec(), next);
        // Below, each row, or the one that changed places with the pivot's, less its share of the pivot's row.
        let at = vars(0, &matrix);
        let (outer, row, column) = (&at[..at.len() - 2], &at[at.len() - 2], &at[at.len() - 1]);
        let (pivot_row, number) = pivot(p, outer);
        let is_pivot = number.equals(Expr::number(row));
        let own = |p: &Program, column: &Idx| {
            is_pivot.select(&element(p, outer, step, column), &element(p, outer, row, column))
        };
        let value = element(p, outer, &pivot_row, step);
        // A column of zeros has nothing to take away, and the product is 0 already.
        let share = value.equals(&none).select(&none, &(own(p, step) / &value));
        let body = own(p, column) - share * element(p, outer, &pivot_row, column);
        let left = p.map(matrix.clone(), body);
        Ok((vec![left, next], vec![]))
    })?;
    Ok(states[1])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, f32s};

    #[test]
    fn of_two_to_five_rows() {
        let rows: [(usize, &[f32], f32); 6] = [
            (2, &[1.0, 2.0, 3.0, 4.0], -2.0),
            (3, &[2.0, 0.0, 1.0, 1.0, 3.0, 2.0, 1.0, 1.0, 4.0], 18.0),
            (4, &[1., 2., 0., 1., 0., 3., 1., 2., 2., 1., 1., 0., 1., 0., 2., 1.], 8.0),
            // A cycle of five rows, even, with a factor for each, and one of four beside a fixed one, odd.
            (
                5,
                &[
                    0., 2., 0., 0., 0., 0., 0., 3., 0., 0., 0., 0., 0., 4., 0., 0., 0., 0., 0., 5., 6., 0.,
                    0., 0., 0.,
                ],
                720.0,
            ),
            (
                5,
                &[
                    0., 2., 0., 0., 0., 0., 0., 3., 0., 0., 0., 0., 0., 4., 0., 5., 0., 0., 0., 0., 0., 0.,
                    0., 0., 6.,
                ],
                -720.0,
            ),
            // Two equal rows.
            (
                5,
                &[
                    1., 2., 3., 4., 5., 0., 1., 0., 2., 0., 1., 2., 3., 4., 5., 0., 0., 1., 0., 7., 1., 0.,
                    0., 0., 1.,
                ],
                0.0,
            ),
        ];
        for (len, x, want) in rows {
            Case::new("Det", &[], [f32s(&[1, len, len], x)]).gives_about([f32s(&[1], &[want])]);
        }
    }

    #[test]
    fn of_nothing_and_of_zeros() {
        Case::new("Det", &[], [f32s(&[0, 0], &[])]).gives([f32s(&[], &[1.0])]);
        Case::new("Det", &[], [f32s(&[2, 6, 6], &[0.0; 72])]).gives([f32s(&[2], &[0.0, 0.0])]);
    }
}
