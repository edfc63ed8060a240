//! Row kernels of several forms, with what they compute in float64.

use tilewright::DType;
use tilewright::expr::{Binary, Expr, Idx, Unary};
use tilewright::ir::Combine;
use tilewright::kernel::{Body, KernelSpec, RowResult, Stage};

/// What is done to each row of `x`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// `exp(x - max) / sum exp(x - max)`.
    Softmax,
    /// `(x - mean) / sqrt(variance + 1/16) * gamma + beta`, gamma and beta per position.
    Norm,
    /// `sum of x`, plus a bias per row.
    Sum,
    /// The largest of `x`.
    Max,
    /// The first position of the largest of `x`.
    ArgMax,
    /// The last position of the smallest of `x`.
    LastArgMin,
    /// `sum of x` down the columns of a matrix: neighbours are of other rows.
    Columns,
}
use Form::*;

/// `rows` rows of `extent` positions each.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub form: Form,
    pub rows: usize,
    pub extent: usize,
    /// Whether the extent is a run-time parameter; else the number of rows is.
    pub symbolic: bool,
}

/// Rows short and long, of whole fours and of others, many and one.
pub fn cases() -> Vec<Rows> {
    let table = [
        (Softmax, 5, 128, false),
        (Softmax, 70, 37, false),
        (Softmax, 3, 50, true),
        (Norm, 9, 384, false),
        (Norm, 33, 64, false),
        (Norm, 2, 10, false),
        (Softmax, 2, 4100, true),
        (Norm, 1, 8192, false),
        // Three walks over a row are more turns than lavapipe's loops do.
        (Softmax, 16, 30_001, false),
        (Sum, 70, 20, false),
        (Sum, 3, 40_000, false),
        (Sum, 1, 10_007, true),
        (Max, 1, 8192, false),
        (Max, 40, 96, false),
        (ArgMax, 20, 200, false),
        (ArgMax, 3, 1001, true),
        (ArgMax, 2, 5003, true),
        (LastArgMin, 50, 30, false),
        (LastArgMin, 4, 512, false),
        (Columns, 36, 52, false),
        (Columns, 2, 4500, true),
    ];
    table.into_iter().map(|(form, rows, extent, symbolic)| Rows { form, rows, extent, symbolic }).collect()
}

impl Rows {
    pub fn sizes(&self) -> Vec<i64> {
        vec![if self.symbolic { self.extent } else { self.rows } as i64]
    }

    /// Elements of the inputs.
    pub fn lens(&self) -> Vec<usize> {
        let x = self.rows * self.extent;
        match self.form {
            Norm => vec![x, self.extent, self.extent],
            Sum => vec![x, self.rows],
            Softmax | Max | ArgMax | LastArgMin | Columns => vec![x],
        }
    }

    pub fn spec(&self) -> KernelSpec {
        let (parameter, f32) = (Idx::sym("p0"), DType::F32);
        let number = |n: usize| Idx::from(n as i64);
        let (rows, extent) = match self.symbolic {
            true => (number(self.rows), parameter),
            false => (parameter, number(self.extent)),
        };
        let (row, r) = (Idx::var(0, &rows), Idx::var(1, &extent));
        let load = |source: u32, at: Idx| Expr::load(source, f32, vec![at]);
        let number = |v: f64| Expr::float(f32, v);
        let at = &(&row * &extent) + &r;
        let x = match self.form {
            Columns => load(0, &(&r * &rows) + &row),
            Softmax | Norm | Sum | Max | ArgMax | LastArgMin => load(0, at.clone()),
        };
        let stat = |s: u32| Expr::arg(s, f32);
        let stage = |combine, value| Stage { extent: extent.clone(), combine, value };
        let mean = |s: u32| stat(s).binary(Binary::Div, &Expr::index(extent.clone(), DType::I32).cast(f32));
        // As ArgMax and ArgMin are lowered: the extreme, then the first or last position where it stands.
        let arg = |extreme, pick: Combine| {
            let here = x.equals(stat(0));
            let position = Expr::index(r.clone(), DType::I32);
            let candidate = here.select(&position, &pick.identity(DType::I32));
            let stages = vec![stage(extreme, x.clone()), stage(pick, candidate)];
            (stages, RowResult::PerRow(Expr::arg(1, DType::I32).cast(f32)))
        };
        let each = |value| RowResult::PerElement { extent: extent.clone(), at: at.clone(), value };
        let (stages, result) = match self.form {
            Softmax => {
                let exp = (&x - &stat(0)).unary(Unary::Exp);
                let stages = vec![stage(Combine::Max, x.clone()), stage(Combine::Sum, exp.clone())];
                (stages, each(exp.binary(Binary::Div, &stat(1))))
            }
            Norm => {
                let off = &x - &mean(0);
                let stages = vec![stage(Combine::Sum, x.clone()), stage(Combine::Sum, &off * &off)];
                let deviation = (&mean(1) + &number(0.0625)).unary(Unary::Sqrt);
                let scaled = &off.binary(Binary::Div, &deviation) * &load(1, r.clone());
                (stages, each(&scaled + &load(2, r.clone())))
            }
            Sum => {
                let result = RowResult::PerRow(&stat(0) + &load(1, row.clone()));
                (vec![stage(Combine::Sum, x)], result)
            }
            Max => (vec![stage(Combine::Max, x)], RowResult::PerRow(stat(0))),
            ArgMax => arg(Combine::Max, Combine::Min),
            LastArgMin => arg(Combine::Min, Combine::Max),
            Columns => (vec![stage(Combine::Sum, x)], RowResult::PerRow(stat(0))),
        };
        let inputs = vec![f32; self.lens().len()];
        KernelSpec { inputs, output: f32, params: 1, body: Body::Reduce { rows, stages, result } }
    }

    /// The output in float64.
    pub fn reference(&self, inputs: &[Vec<f32>]) -> Vec<f64> {
        let (rows, extent) = (self.rows, self.extent);
        let at = |row: usize, r: usize| match self.form {
            Columns => r * rows + row,
            Softmax | Norm | Sum | Max | ArgMax | LastArgMin => row * extent + r,
        };
        let mut out = Vec::new();
        for row in 0..rows {
            let x: Vec<f64> = (0..extent).map(|r| f64::from(inputs[0][at(row, r)])).collect();
            let sum: f64 = x.iter().sum();
            let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            match self.form {
                Softmax => {
                    let whole: f64 = x.iter().map(|v| (v - max).exp()).sum();
                    out.extend(x.iter().map(|v| (v - max).exp() / whole));
                }
                Norm => {
                    let mean = sum / extent as f64;
                    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / extent as f64;
                    let weight = |i: usize, r: usize| f64::from(inputs[i][r]);
                    let scaled = |(r, v): (usize, &f64)| {
                        (v - mean) / (variance + 0.0625).sqrt() * weight(1, r) + weight(2, r)
                    };
                    out.extend(x.iter().enumerate().map(scaled));
                }
                Sum => out.push(sum + f64::from(inputs[1][row])),
                Max => out.push(max),
                ArgMax => out.extend(x.iter().position(|&v| v == max).map(|r| r as f64)),
                LastArgMin => {
                    let min = x.iter().copied().fold(f64::INFINITY, f64::min);
                    out.extend(x.iter().rposition(|&v| v == min).map(|r| r as f64));
                }
                Columns => out.push(sum),
            }
        }
        out
    }
}
