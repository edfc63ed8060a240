//! Maps that read along another axis than they store, with what they compute in float64.

use tilewright::DType;
use tilewright::expr::{Binary, Expr, Idx, flatten, unflatten};
use tilewright::kernel::{Body, KernelSpec};

/// What else is in the map beside the transposed input `x`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum With {
    /// Nothing: `x`.
    Nothing,
    /// `2 * x + bias`, one element of bias per element of the last axis.
    Bias,
    /// `x + y`, `y` transposed as `x` is.
    Another,
    /// `x + y`, `y` as the output lies.
    Straight,
    /// `x` where the first axis of the output is not 0, else -1.
    Condition,
}
use With::*;

/// `x`, its axes in the order of `axes`.
#[derive(Clone, Debug)]
pub struct Transposition {
    pub shape: Vec<usize>,
    pub axes: Vec<usize>,
    pub with: With,
    pub dtype: DType,
    /// Which axis of `x` is a run-time parameter.
    pub symbolic: Option<usize>,
    /// Elements along the two axes that change places, axes that stay together being one; `None` where it is not for
    /// tiles.
    pub sides: Option<[usize; 2]>,
}

/// Of whole tiles and of others, with axes between those that are exchanged, and some that are none.
pub fn cases() -> Vec<Transposition> {
    let plain = |shape: &[usize], axes: &[usize]| Transposition {
        shape: shape.into(),
        axes: axes.into(),
        with: Nothing,
        dtype: DType::F32,
        symbolic: None,
        sides: None,
    };
    let of =
        |shape: &[usize], axes: &[usize], sides| Transposition { sides: Some(sides), ..plain(shape, axes) };
    vec![
        of(&[64, 64], &[1, 0], [64, 64]),
        of(&[37, 101], &[1, 0], [37, 101]),
        Transposition { with: Bias, ..of(&[3, 50, 33], &[0, 2, 1], [50, 33]) },
        Transposition { with: Another, ..of(&[20, 3, 40], &[2, 1, 0], [20, 40]) },
        Transposition { with: Straight, ..of(&[2, 24, 3, 17], &[0, 2, 3, 1], [24, 51]) },
        of(&[2, 5, 16, 24], &[0, 3, 1, 2], [80, 24]),
        Transposition { symbolic: Some(0), ..of(&[40, 24], &[1, 0], [40, 24]) },
        Transposition { symbolic: Some(1), with: Bias, ..of(&[40, 24], &[1, 0], [40, 24]) },
        Transposition { symbolic: Some(1), ..of(&[2, 33, 4, 16], &[0, 2, 3, 1], [33, 64]) },
        Transposition { dtype: DType::F16, ..of(&[70, 36], &[1, 0], [70, 36]) },
        Transposition { dtype: DType::I32, ..of(&[70, 36], &[1, 0], [70, 36]) },
        // Neighbours stay neighbours; the read is of what may not exist; too small; nothing moves.
        plain(&[6, 20, 32], &[1, 0, 2]),
        Transposition { with: Condition, ..plain(&[40, 40], &[1, 0]) },
        plain(&[4, 500], &[1, 0]),
        Transposition { with: Bias, ..plain(&[30, 40], &[0, 1]) },
    ]
}

impl Transposition {
    pub fn sizes(&self) -> Vec<i64> {
        self.symbolic.map(|axis| self.shape[axis] as i64).into_iter().collect()
    }

    /// Elements of the inputs.
    pub fn lens(&self) -> Vec<usize> {
        let len = self.shape.iter().product();
        let last = self.axes.last().map_or(1, |&axis| self.shape[axis]);
        match self.with {
            Nothing | Condition => vec![len],
            Bias => vec![len, last],
            Another | Straight => vec![len, len],
        }
    }

    pub fn spec(&self) -> KernelSpec {
        let size = |(axis, &n): (usize, &usize)| match self.symbolic {
            Some(symbolic) if symbolic == axis => Idx::sym("p0"),
            Some(_) | None => Idx::from(n),
        };
        let shape: Vec<Idx> = self.shape.iter().enumerate().map(size).collect();
        let out: Vec<Idx> = self.axes.iter().map(|&axis| shape[axis].clone()).collect();
        let len = shape.iter().fold(Idx::from(1i64), |n, d| &n * d);
        let i = Idx::var(0, &len);
        let place = unflatten(&i, &out);
        let mut from = place.clone();
        self.axes.iter().zip(&place).for_each(|(&axis, at)| from[axis] = at.clone());
        let load = |source, at| Expr::load(source, self.dtype, vec![at]);
        let x = load(0, flatten(&from, &shape));
        let value = match self.with {
            Nothing => x,
            Bias => {
                let last = place.last().cloned().unwrap_or(Idx::from(0i64));
                &(&x * &Expr::float(self.dtype, 2.0)) + &load(1, last)
            }
            Another => &x + &load(1, flatten(&from, &shape)),
            Straight => &x + &load(1, i),
            Condition => {
                let zero = Expr::index(Idx::from(0i64), DType::I32);
                let later = zero.binary(Binary::Lt, &Expr::index(place[0].clone(), DType::I32));
                later.select(&x, &Expr::float(self.dtype, -1.0))
            }
        };
        KernelSpec {
            inputs: vec![self.dtype; self.lens().len()],
            output: self.dtype,
            params: self.sizes().len(),
            body: Body::Map { len, value },
        }
    }

    /// The output in float64.
    pub fn reference(&self, inputs: &[Vec<f64>]) -> Vec<f64> {
        let out: Vec<usize> = self.axes.iter().map(|&axis| self.shape[axis]).collect();
        let mut values = Vec::new();
        for i in 0..inputs[0].len() {
            let (mut rest, mut place) = (i, vec![0; out.len()]);
            for (at, n) in place.iter_mut().zip(&out).rev() {
                (*at, rest) = (rest % n, rest / n);
            }
            let mut from = vec![0; out.len()];
            self.axes.iter().zip(&place).for_each(|(&axis, &at)| from[axis] = at);
            let from = from.iter().zip(&self.shape).fold(0, |offset, (at, n)| offset * n + at);
            let x = inputs[0][from];
            values.push(match self.with {
                Nothing => x,
                Bias => 2.0 * x + inputs[1][place[place.len() - 1]],
                Another => x + inputs[1][from],
                Straight => x + inputs[1][i],
                Condition if place[0] == 0 => -1.0,
                Condition => x,
            });
        }
        values
    }
}
