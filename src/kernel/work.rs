//! What a kernel must do at the least, whatever its schedule: arithmetic, and bytes moved.

use std::collections::{HashMap, HashSet};

use super::peaks::Peaks;
use super::schedule::{Sizes, size};
use super::spec::{AttentionResult, Body, KernelSpec, RowResult, storage_bytes};
use crate::expr::{Atom, Expr, Floats, Node};
use crate::tensor::DType;

/// Arithmetic and traffic of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Additions, multiplications and other functions of floats, each as one.
    pub flops: f64,
    /// Bytes of the output, and of each input what is read of it, once.
    pub bytes: f64,
    /// Whether the arithmetic is in 16-bit floats.
    pub f16: bool,
}

/// What a kernel's speed is bound by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Arithmetic.
    Arithmetic,
    /// Bytes moved.
    Bytes,
}

/// Arithmetic and loads of an expression, per evaluation.
#[derive(Default)]
struct Count {
    flops: f64,
    loads: HashMap<usize, f64>,
}

impl Count {
    /// Add `expr`, evaluated `times` times.
    fn add(&mut self, expr: &Expr, times: f64) {
        self.walk(expr, times, &mut HashSet::new());
    }

    fn walk(&mut self, expr: &Expr, times: f64, seen: &mut HashSet<usize>) {
        if !seen.insert(expr.id()) {
            return;
        }
        let counts = expr.dtype().is_float();
        match expr.node() {
            Node::Const(_) | Node::Index(..) | Node::Arg(..) => {}
            Node::Load { source, at, .. } => {
                *self.loads.entry(*source as usize).or_default() += times;
                let mut places = Vec::new();
                at.iter().for_each(|idx| {
                    idx.visit(&mut |atom| {
                        if let Atom::Data(value, _) = atom {
                            places.push(value.clone());
                        }
                    })
                });
                places.iter().for_each(|place| self.walk(place, times, seen));
            }
            Node::Unary(_, a) => {
                self.flops += if counts { times } else { 0.0 };
                self.walk(a, times, seen);
            }
            Node::Binary(_, a, b) => {
                self.flops += if counts { times } else { 0.0 };
                self.walk(a, times, seen);
                self.walk(b, times, seen);
            }
            Node::Cast(_, a) | Node::Bits(_, a) => self.walk(a, times, seen),
            Node::Select(c, a, b) => {
                self.walk(c, times, seen);
                self.walk(a, times, seen);
                self.walk(b, times, seen);
            }
        }
    }
}

impl Work {
    /// Of `spec` at these sizes, with inputs of `input_lens` elements and an output of `output_len`; `floats` are
    /// those that the device stores.
    pub fn of(
        spec: &KernelSpec,
        sizes: Sizes,
        input_lens: &[usize],
        output_len: usize,
        floats: Floats,
    ) -> Work {
        let extent = |idx| size(idx, sizes).max(0) as f64;
        let mut count = Count::default();
        let mut dtype = DType::F32;
        match &spec.body {
            Body::Map { len, value } | Body::Update { len, value, .. } => count.add(value, extent(len)),
            Body::Reduce { rows, stages, result } => {
                let rows = extent(rows);
                for stage in stages {
                    let times = rows * extent(&stage.extent);
                    count.add(&stage.value, times);
                    count.flops += times;
                }
                match result {
                    RowResult::PerRow(value) => count.add(value, rows),
                    RowResult::PerElement { extent: own, value, .. } => count.add(value, rows * extent(own)),
                }
            }
            Body::Contract(body) => {
                let outputs = extent(&body.batch) * extent(&body.m) * extent(&body.n);
                let products = outputs * extent(&body.k);
                count.flops = 2.0 * products;
                // What the operands' expressions compute is done per element at best, not per product.
                for operand in [&body.a, &body.b] {
                    let mut loads = Count::default();
                    loads.add(operand, products);
                    loads.loads.into_iter().for_each(|(i, n)| *count.loads.entry(i).or_default() += n);
                }
                count.add(&body.epilogue, outputs);
                dtype = body.sum;
            }
            Body::Conv(body) => {
                let len = body.output_len();
                let outputs = extent(&len);
                let taps: i64 = body.axes.iter().map(|axis| axis.kernel).product();
                let products = outputs * extent(&body.in_channels) * taps as f64;
                count.flops = 2.0 * products;
                // As a contraction's.
                for operand in [&body.w, &body.x] {
                    let mut loads = Count::default();
                    loads.add(operand, products);
                    loads.loads.into_iter().for_each(|(i, n)| *count.loads.entry(i).or_default() += n);
                }
                count.add(&body.epilogue, outputs);
                dtype = body.sum;
            }
            Body::TopK(body) => count.add(&body.key, extent(&body.rows) * extent(&body.extent)),
            Body::Attention(body) => {
                let [batch, m, n, k, d] = [&body.batch, &body.m, &body.n, &body.k, &body.d].map(extent);
                let pairs = batch * m * body.mean_keys(sizes);
                for (operand, times) in
                    [(&body.query, batch * m * d), (&body.key, batch * k * d), (&body.value, batch * k * n)]
                {
                    let mut loads = Count::default();
                    loads.add(operand, times);
                    loads.loads.into_iter().for_each(|(i, n)| *count.loads.entry(i).or_default() += n);
                }
                count.add(&body.score, pairs);
                // Products; and the maximum, the exponential and the sum of the weights.
                count.flops += 2.0 * pairs * (d + n) + 4.0 * pairs;
                if let AttentionResult::Mixed { epilogue, .. } = &body.result {
                    count.add(epilogue, batch * m * n);
                }
            }
        }
        let read = |(input, (&dtype, &len)): (usize, (&DType, &usize))| {
            // A gather reads a few rows of its table.
            let loads = count.loads.get(&input).copied().unwrap_or(0.0);
            loads.min(len as f64) * storage_bytes(dtype, floats) as f64
        };
        let inputs: f64 = spec.inputs.iter().zip(input_lens).enumerate().map(read).sum();
        let output = (output_len * storage_bytes(spec.output, floats)) as f64;
        Work { flops: count.flops, bytes: inputs + output, f16: floats.f16 && dtype == DType::F16 }
    }
}

impl Peaks {
    fn flops_per_ns(&self, work: &Work) -> f64 {
        let f16 = self.f16_flops_per_ns.filter(|_| work.f16);
        f16.unwrap_or(self.f32_flops_per_ns)
    }

    /// The time that no schedule beats: arithmetic or bytes at peak speed, whichever takes longer.
    pub fn roofline_ns(&self, work: &Work) -> f64 {
        (work.flops / self.flops_per_ns(work)).max(work.bytes / self.copy_bytes_per_ns)
    }

    /// Which of the two it is.
    pub fn limit(&self, work: &Work) -> Limit {
        if work.flops / self.flops_per_ns(work) > work.bytes / self.copy_bytes_per_ns {
            Limit::Arithmetic
        } else {
            Limit::Bytes
        }
    }

    /// The part of the roofline that a kernel reached in `ns`; above 1 where caches served what the copy that measured
    /// the peak had to fetch.
    pub fn share(&self, work: &Work, ns: u64) -> f64 {
        self.roofline_ns(work) / ns.max(1) as f64
    }

    /// A time that a search need not try to beat: within a twentieth of the roofline and a dispatch's own cost.
    pub fn enough_ns(&self, work: &Work) -> u64 {
        ((self.roofline_ns(work) + self.launch_ns) * 1.05) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Binary, Idx, Unary};
    use crate::kernel::{ContractBody, Product};

    fn load(source: u32, at: Idx) -> Expr {
        Expr::load(source, DType::F32, vec![at])
    }

    fn var(number: u32, extent: i64) -> Idx {
        Idx::var(number, &extent.into())
    }

    #[test]
    fn a_gather_reads_what_it_loads_and_a_product_counts_twice() {
        let i = var(0, 100);
        let value = load(0, i.clone()).binary(Binary::Add, &load(1, i)).unary(Unary::Exp);
        let spec = KernelSpec {
            inputs: vec![DType::F32; 2],
            output: DType::F32,
            params: 0,
            body: Body::Map { len: 100i64.into(), value },
        };
        let work = Work::of(&spec, &[], &[100, 5000], 100, Floats::default());
        assert_eq!(work, Work { flops: 200.0, bytes: 1200.0, f16: false });

        let [m, n, k] = [(1, 8), (2, 16), (3, 32)].map(|(number, extent)| var(number, extent));
        let body = ContractBody {
            batch: 1i64.into(),
            m: 8i64.into(),
            n: 16i64.into(),
            k: 32i64.into(),
            a: load(0, &(&m * &32i64.into()) + &k),
            b: load(1, &(&k * &16i64.into()) + &n),
            sum: DType::F32,
            product: Product::Numbers,
            f16_sum: false,
            epilogue: Expr::arg(0, DType::F32),
        };
        let spec = KernelSpec { body: Body::Contract(body), ..spec };
        let work = Work::of(&spec, &[], &[256, 512], 128, Floats::default());
        assert_eq!(work, Work { flops: 8192.0, bytes: 4.0 * (256.0 + 512.0 + 128.0), f16: false });

        let peaks = Peaks {
            copy_bytes_per_ns: 10.0,
            f32_flops_per_ns: 20.0,
            f16_flops_per_ns: None,
            launch_ns: 100.0,
        };
        assert_eq!((peaks.roofline_ns(&work), peaks.limit(&work)), (409.6, Limit::Arithmetic));
        assert_eq!(peaks.share(&work, 4096), 0.1);
        assert_eq!(peaks.enough_ns(&work), 535);
    }
}
