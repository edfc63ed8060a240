//! Matrix products in all layouts, with what they compute in float64.

use tilewright::DType;
use tilewright::expr::{Binary, Expr, Idx};
use tilewright::kernel::{
    Body, Caps, ContractBody, KernelSpec, Peaks, Product, Schedule, broken_rule, points,
};

/// How an operand lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// Row by row.
    Rows,
    /// Column by column.
    Columns,
    /// Row by row, two elements apart.
    Strided,
    /// Row by row, with a border of zeros: its element (r, c) is the stored (r, c - 1), and 0 where c is 0.
    Bordered,
}
use Layout::*;

/// `relu(A * B + bias)`, B times, one element of bias per column.
#[derive(Clone, Debug)]
pub struct Contraction {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Layout,
    pub b: Layout,
    pub dtype: DType,
    /// Whether M is a run-time parameter.
    pub symbolic: bool,
    /// Whether sums may be taken in f16, on devices that have it.
    pub f16_sum: bool,
}

/// Shapes: of whole tiles, with tails everywhere, of one row and of one column, deep ones.
pub fn shapes() -> Vec<Contraction> {
    let table = [
        (1, 64, 64, 64, Rows, Rows, DType::F32, false),
        (2, 33, 70, 37, Rows, Rows, DType::F32, true),
        (1, 37, 68, 36, Columns, Columns, DType::F32, false),
        (1, 41, 50, 29, Columns, Columns, DType::F32, false),
        (3, 34, 36, 24, Strided, Bordered, DType::F32, false),
        (1, 48, 96, 64, Rows, Columns, DType::F16, true),
        (2, 43, 61, 54, Columns, Rows, DType::F16, false),
        (1, 32, 32, 512, Rows, Rows, DType::F32, false),
        (1, 1, 132, 256, Rows, Rows, DType::F32, true),
        (1, 1, 75, 260, Rows, Columns, DType::F32, false),
        (2, 5, 67, 131, Rows, Columns, DType::F32, false),
        (1, 7, 40, 128, Rows, Bordered, DType::F16, false),
        (1, 150, 3, 140, Rows, Rows, DType::F32, false),
        (1, 1, 1, 300, Rows, Columns, DType::F32, false),
        // More terms than lavapipe's loops take turns.
        (1, 2, 9, 300_007, Rows, Rows, DType::F32, true),
    ];
    let row = |(batch, m, n, k, a, b, dtype, symbolic)| Contraction {
        batch,
        m,
        n,
        k,
        a,
        b,
        dtype,
        symbolic,
        f16_sum: false,
    };
    let rows: Vec<Contraction> = table.into_iter().map(row).collect();
    let halves: Vec<Contraction> = rows
        .iter()
        .filter(|case| ![Strided, Bordered].contains(&case.a) && case.b != Bordered && case.k < 1000)
        .map(|case| Contraction { dtype: DType::F16, f16_sum: true, ..case.clone() })
        .collect();
    [rows, halves].concat()
}

/// Their specs and run-time sizes.
pub fn all() -> Vec<(KernelSpec, Vec<i64>)> {
    shapes().iter().map(|c| (c.spec(), c.sizes())).collect()
}

/// Every legal schedule: the space before it is cut to its best few.
pub fn legal(spec: &KernelSpec, sizes: &[i64], caps: &Caps) -> Vec<Schedule> {
    points(spec, sizes, caps, &Peaks::typical(caps))
        .into_iter()
        .filter(|point| broken_rule(spec, point, sizes, caps).is_none())
        .collect()
}

/// The kind of a schedule, as `Tiled` or `Apart Epilogue`.
pub fn kind(schedule: &Schedule) -> String {
    match schedule {
        Schedule::Apart(s) => format!("Apart {:?}", s.part),
        other => format!("{other:?}").split('(').next().unwrap_or_default().into(),
    }
}

impl Contraction {
    /// A name for case `number`.
    pub fn label(&self, number: usize) -> String {
        format!("{number}: {}x{}x{}x{}", self.batch, self.m, self.n, self.k)
    }

    pub fn sizes(&self) -> Vec<i64> {
        if self.symbolic { vec![self.m as i64] } else { Vec::new() }
    }

    /// Elements of A, B and the bias.
    pub fn lens(&self) -> [usize; 3] {
        let twice = |layout| if layout == Strided { 2 } else { 1 };
        let a = self.batch * self.m * self.k * twice(self.a);
        [a, self.batch * self.k * self.n * twice(self.b), self.n]
    }

    /// Where element `(r, c)` of a matrix lies; `None` for the border.
    fn place(layout: Layout, batch: usize, [rows, columns]: [usize; 2], r: usize, c: usize) -> Option<usize> {
        let first = batch * rows * columns;
        match layout {
            Rows => Some(first + r * columns + c),
            Columns => Some(first + c * rows + r),
            Strided => Some(2 * (first + r * columns + c)),
            Bordered => (c > 0).then(|| first + r * columns + c - 1),
        }
    }

    fn operand(
        layout: Layout,
        source: u32,
        dtype: DType,
        batch: &Idx,
        sizes: [&Idx; 2],
        at: [&Idx; 2],
    ) -> Expr {
        let ([rows, columns], [r, c]) = (sizes, at);
        let first = &(batch * rows) * columns;
        let load = |at: Idx| Expr::load(source, dtype, vec![at]);
        match layout {
            Rows => load(&(&first + &(r * columns)) + c),
            Columns => load(&(&first + &(c * rows)) + r),
            Strided => load(&(&(&first + &(r * columns)) + c) * &Idx::from(2i64)),
            Bordered => {
                let before = &(&(&first + &(r * columns)) + c) - &Idx::from(1i64);
                let border = Expr::index(c.clone(), DType::I32).binary(Binary::Eq, &Expr::int(DType::I32, 0));
                border.select(&Expr::float(dtype, 0.0), &load(before))
            }
        }
    }

    pub fn spec(&self) -> KernelSpec {
        let [batch, n, k] = [self.batch, self.n, self.k].map(Idx::from);
        let m = if self.symbolic { Idx::sym("p0") } else { Idx::from(self.m) };
        let extents = [&batch, &m, &n, &k];
        let [bv, mv, nv, kv] = [0, 1, 2, 3].map(|id| Idx::var(id as u32, extents[id]));
        let dtype = if self.f16_sum { DType::F16 } else { DType::F32 };
        let sum = Expr::arg(0, dtype).cast(DType::F32);
        let bias = Expr::load(2, DType::F32, vec![nv.clone()]);
        let epilogue = sum.binary(Binary::Add, &bias).binary(Binary::Max, &Expr::float(DType::F32, 0.0));
        let body = ContractBody {
            a: Self::operand(self.a, 0, self.dtype, &bv, [&m, &k], [&mv, &kv]),
            b: Self::operand(self.b, 1, self.dtype, &bv, [&k, &n], [&kv, &nv]),
            sum: dtype,
            product: Product::Numbers,
            f16_sum: self.f16_sum,
            epilogue,
            batch,
            m,
            n,
            k,
        };
        KernelSpec {
            inputs: vec![self.dtype, self.dtype, DType::F32],
            output: DType::F32,
            params: usize::from(self.symbolic),
            body: Body::Contract(body),
        }
    }

    /// The result in float64 from the elements of A, B and the bias, and how far it may be off: not at all, as products
    /// of multiples of 1/64 are exact, and so are sums of a few hundred of them in any order; in f16 by four times what a
    /// random walk of `K` steps gets to whose steps are the roundings of sums of products.
    pub fn reference(&self, inputs: &[Vec<f32>; 3]) -> Vec<(f64, f64)> {
        let [a, b, bias] = inputs;
        let read = |values: &[f32], at: Option<usize>| at.map_or(0.0, |at| f64::from(values[at]));
        let mut out = Vec::with_capacity(self.batch * self.m * self.n);
        for batch in 0..self.batch {
            for m in 0..self.m {
                for (n, &bias) in bias.iter().enumerate() {
                    let product = |k| {
                        let left = Self::place(self.a, batch, [self.m, self.k], m, k);
                        let right = Self::place(self.b, batch, [self.k, self.n], k, n);
                        read(a, left) * read(b, right)
                    };
                    let sum: f64 = (0..self.k).map(product).sum();
                    let squares: f64 = (0..self.k).map(|k| product(k).powi(2)).sum();
                    let walk = (self.k as f64 * squares).sqrt() / 2048.0;
                    let off = if self.f16_sum { 4.0 * walk } else { 0.0 };
                    out.push(((sum + f64::from(bias)).max(0.0), off));
                }
            }
        }
        out
    }
}
