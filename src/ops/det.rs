//! Determinants of small matrices, by cofactors.

use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, vars};

/// The family.
pub const OPS: &[OpDef] = &[op("Det", 11, "the determinants of matrices of at most 4 x 4", det)];

/// Rows of a matrix at the most: 5 would need 120 products of 5.
const MOST: usize = 4;

fn det(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    let [outer @ .., rows, columns] = shape.as_slice() else {
        return Err(cx.error("wants at least two axes"));
    };
    cx.program.equate(rows, columns, "rows and columns of a matrix")?;
    let len = cx.program.known_size(rows)?;
    if len > MOST {
        return Err(cx.unsupported(format!("the determinant of {len} x {len}; at most {MOST} x {MOST} is")));
    }
    let at = vars(0, outer);
    let element = |row: usize, column: usize| {
        cx.program.load(x, &[at.as_slice(), &[Idx::from(row), Idx::from(column)]].concat())
    };
    let body = minor(&element, 0, &(0..len).collect::<Vec<_>>(), &cx.number(x, 1.0));
    Ok(vec![cx.program.map(outer.to_vec(), body)])
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

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, f32s};

    #[test]
    fn of_two_three_and_four_rows() {
        let rows: [(usize, &[f32], f32); 3] = [
            (2, &[1.0, 2.0, 3.0, 4.0], -2.0),
            (3, &[2.0, 0.0, 1.0, 1.0, 3.0, 2.0, 1.0, 1.0, 4.0], 18.0),
            (4, &[1., 2., 0., 1., 0., 3., 1., 2., 2., 1., 1., 0., 1., 0., 2., 1.], 8.0),
        ];
        for (len, x, want) in rows {
            Case::new("Det", &[], [f32s(&[1, len, len], x)]).gives_about([f32s(&[1], &[want])]);
        }
    }
}
