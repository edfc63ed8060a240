//! Pools: reductions over sliding windows, or over all spatial axes.

use super::reduce::{to_float, widen};
use super::window::{Window, kernel_shape, taps, windows};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, flatten};
use crate::ir::{Combine, Program, Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn op(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("", name, 1, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    op("MaxPool", "largest in each window, and where it is", max_pool),
    op("AveragePool", "mean of each window", average_pool),
    op("LpPool", "(sum of |x|^p)^(1/p) of each window", |cx| {
        let power = cx.int_or("p", 2)? as f64;
        let (x, dtype) = wide_input(cx)?;
        let windows = pool_windows(cx, x)?;
        let sum = pooled(cx.program, x, &windows, Combine::Sum, |e| norm_term(e, power));
        let y = cx.program.unary(sum, |e| norm_root(e, power));
        Ok(vec![cx.program.cast(y, dtype)])
    }),
    op("GlobalAveragePool", "mean over all spatial axes", |cx| {
        global(cx, |p, x, axes| {
            let (wide, dtype) = widen(p, x);
            let mean = p.mean(wide, axes)?;
            Ok(p.cast(mean, dtype))
        })
    }),
    op("GlobalMaxPool", "largest over all spatial axes", |cx| {
        global(cx, |p, x, axes| p.reduce(x, axes, false, Combine::Max, Expr::clone))
    }),
    op("GlobalLpPool", "(sum of |x|^p)^(1/p) over all spatial axes", |cx| {
        let power = cx.int_or("p", 2)? as f64;
        global(cx, |p, x, axes| {
            let (wide, dtype) = to_float(p, x);
            let sum = p.reduce(wide, axes, false, Combine::Sum, |e| norm_term(e, power))?;
            let y = p.unary(sum, |e| norm_root(e, power));
            Ok(p.cast(y, dtype))
        })
    }),
];

/// `|x|^p`.
pub(super) fn norm_term(x: &Expr, p: f64) -> Expr {
    match p {
        1.0 => x.abs(),
        2.0 => x * x,
        _ => x.abs().power(p),
    }
}

/// `x^(1/p)`.
pub(super) fn norm_root(x: &Expr, p: f64) -> Expr {
    match p {
        1.0 => x.clone(),
        2.0 => x.sqrt(),
        _ => x.power(1.0 / p),
    }
}

fn wide_input(cx: &mut Cx) -> Result<(ValueId, DType), Stop> {
    let x = cx.input(0)?;
    Ok(widen(cx.program, x))
}

fn global(cx: &mut Cx, f: impl FnOnce(&mut Program, ValueId, &[usize]) -> Result<ValueId, Stop>) -> Lowering {
    let x = cx.input(0)?;
    let axes: Vec<usize> = (2..cx.program.rank(x)).collect();
    let y = f(cx.program, x, &axes)?;
    Ok(vec![cx.program.keep_axes(x, y, &axes)?])
}

/// The windows of a pool over `x`.
fn pool_windows(cx: &Cx, x: ValueId) -> Result<Vec<Window>, Stop> {
    let spatial = cx.program.shape(x).get(2..).unwrap_or_default().to_vec();
    let kernel: Vec<Idx> = kernel_shape(cx, spatial.len())?.into_iter().map(Idx::from).collect();
    windows(cx, &spatial, &kernel)
}

/// The result's shape over `x`, and the taps.
fn extents(p: &Program, x: ValueId, windows: &[Window]) -> (Vec<Idx>, Vec<Idx>) {
    let outputs = windows.iter().map(|w| w.output.clone());
    let shape = p.shape(x)[..2].iter().cloned().chain(outputs).collect();
    (shape, windows.iter().map(|w| w.kernel.clone()).collect())
}

/// `combine over the taps inside of f(x)`.
fn pooled(
    p: &mut Program,
    x: ValueId,
    windows: &[Window],
    combine: Combine,
    f: impl FnOnce(&Expr) -> Expr,
) -> ValueId {
    let (shape, kernel) = extents(p, x, windows);
    p.reduction(shape, kernel, combine, |p, o, k| {
        let (at, inside) = taps(windows, &o[2..], k);
        let element = f(&p.load(x, &[o[..2].to_vec(), at].concat()));
        inside.select(&element, &combine.identity(element.dtype()))
    })
}

fn max_pool(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let windows = pool_windows(cx, x)?;
    let y = pooled(cx.program, x, &windows, Combine::Max, Expr::clone);
    if !cx.gives(1) {
        return Ok(vec![y]);
    }
    let column_major = cx.int_or("storage_order", 0)? != 0;
    let (shape, kernel) = extents(cx.program, x, &windows);
    let indices = cx.program.reduction(shape, kernel, Combine::Min, |p, o, k| {
        let (at, inside) = taps(&windows, &o[2..], k);
        let full = [o[..2].to_vec(), at.clone()].concat();
        let here = p.load(x, &full).equals(p.load(y, o));
        let x_shape = p.shape(x);
        let offset = if column_major {
            let backwards = |all: &[Idx]| all.iter().rev().cloned().collect::<Vec<_>>();
            let order = |all: &[Idx]| [all[..2].to_vec(), backwards(&all[2..])].concat();
            flatten(&order(&full), &order(x_shape))
        } else {
            flatten(&full, x_shape)
        };
        let none = Combine::Min.identity(DType::I32);
        inside.select(&here.select(&Expr::index(offset, DType::I32), &none), &none)
    });
    Ok(vec![y, cx.program.cast(indices, DType::I64)])
}

fn average_pool(cx: &mut Cx) -> Lowering {
    let (x, dtype) = wide_input(cx)?;
    let windows = pool_windows(cx, x)?;
    let padded = cx.int_or("count_include_pad", 0)? != 0;
    let wide = cx.program.dtype(x);
    let sum = pooled(cx.program, x, &windows, Combine::Sum, Expr::clone);
    let (shape, kernel) = extents(cx.program, x, &windows);
    // How many taps count, per window: a constant where sizes are.
    let counts = cx.program.reduction(shape[2..].to_vec(), kernel, Combine::Sum, |_, o, k| {
        let taps = windows.iter().zip(o).zip(k);
        let inside = taps.fold(Expr::bool(true), |all, ((w, o), k)| {
            let position = w.position(o, k);
            all.and(if padded { w.inside_padded(&position) } else { w.inside(&position) })
        });
        inside.select(&Expr::int(wide, 1), &Expr::int(wide, 0))
    });
    let y = cx.program.elementwise(&[sum, counts], |e| &e[0] / &e[1])?;
    Ok(vec![cx.program.cast(y, dtype)])
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, count, f32s, list, run};
    use crate::graph::Attribute::Int;

    #[test]
    fn padding_counts_on_demand() {
        let x = count(&[1, 1, 4]);
        let attributes = |extra: &[(&'static str, i64)]| {
            let extra = extra.iter().map(|&(name, value)| (name, Int(value)));
            [("kernel_shape", list(&[3])), ("pads", list(&[1, 1]))]
                .into_iter()
                .chain(extra)
                .collect::<Vec<_>>()
        };
        let one = std::slice::from_ref(&x);
        check("MaxPool", 12, &attributes(&[]), one, &f32s(&[1, 1, 4], &[1.0, 2.0, 3.0, 3.0]));
        check("AveragePool", 11, &attributes(&[]), one, &f32s(&[1, 1, 4], &[0.5, 1.0, 2.0, 2.5]));
        let third = 1.0 / 3.0;
        let want = f32s(&[1, 1, 4], &[third, 1.0, 2.0, 5.0 * third]);
        check("AveragePool", 11, &attributes(&[("count_include_pad", 1)]), one, &want);
        check("LpPool", 18, &attributes(&[("p", 1)]), one, &f32s(&[1, 1, 4], &[1.0, 3.0, 6.0, 5.0]));
    }

    #[test]
    fn ceil_mode_adds_a_window_that_starts_inside() {
        let attributes = [("kernel_shape", list(&[3])), ("strides", list(&[2])), ("ceil_mode", Int(1))];
        let x = count(&[1, 1, 6]);
        check("MaxPool", 12, &attributes, std::slice::from_ref(&x), &f32s(&[1, 1, 3], &[2.0, 4.0, 5.0]));
        check("AveragePool", 19, &attributes, &[x], &f32s(&[1, 1, 3], &[1.0, 3.0, 4.5]));
        // A window that would start past the input is left out.
        let attributes = [("kernel_shape", list(&[1])), ("strides", list(&[2])), ("ceil_mode", Int(1))];
        check("MaxPool", 12, &attributes, &[count(&[1, 1, 4])], &f32s(&[1, 1, 2], &[0.0, 2.0]));
    }

    #[test]
    fn where_the_largest_is() {
        let x = f32s(&[1, 2, 2, 2], &[1.0, 4.0, 4.0, 0.0, 7.0, 6.0, 5.0, 4.0]);
        for (order, want) in [(0, [1i64, 4]), (1, [1, 4])] {
            let attributes = [("kernel_shape", list(&[2, 2])), ("storage_order", Int(order))];
            let got = run("MaxPool", 12, &attributes, std::slice::from_ref(&x), 2);
            assert_eq!(got[0].to_vec::<f32>().unwrap(), [4.0, 7.0]);
            assert_eq!(got[1].to_vec::<i64>().unwrap(), want, "order {order}");
        }
    }

    #[test]
    fn global_pools_keep_their_axes() {
        let x = count(&[1, 2, 2, 2]);
        for (op, want) in [("GlobalAveragePool", [1.5, 5.5]), ("GlobalMaxPool", [3.0, 7.0])] {
            check(op, 1, &[], std::slice::from_ref(&x), &f32s(&[1, 2, 1, 1], &want));
        }
    }
}
