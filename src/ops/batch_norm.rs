//! Batch normalisation: statistics that are given, or the batch's own.

use super::Cx;
use super::math::Lowering;
use super::norm::centre;
use super::reduce::widen;
use crate::expr::{Idx, vars};
use crate::ir::Stop;

/// Whether mean and variance are the batch's own: where an attribute says so, in opsets 7 to 13 where more than the
/// result is wanted.
fn trains(cx: &Cx) -> Result<bool, Stop> {
    Ok(match cx.opset {
        14.. => cx.int_or("training_mode", 0)? != 0,
        7.. => cx.node.outputs.iter().skip(1).any(|name| !name.is_empty()),
        _ => cx.int_or("is_test", 0)? == 0,
    })
}

/// `x * a[c] + b[c]` with `a = scale / sqrt(var + e)` and `b = bias - mean * a`, which fold to constants. `c` is the
/// channel or, before opset 9 where the node says so, the place in all axes but the batch's.
/// In training mode mean and variance are those of the batch, and the running ones move towards them.
pub(super) fn batch_normalization(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let epsilon = cx.float_or("epsilon", 1e-5)?;
    let momentum = cx.float_or("momentum", 0.9)?;
    let training = trains(cx)?;
    let by_channel = cx.opset >= 9 || cx.int_or("spatial", 1)? != 0;
    let saves = cx.opset < 14;
    let mut inputs = [0; 4];
    for (i, slot) in inputs.iter_mut().enumerate() {
        *slot = cx.input(i + 1)?;
    }
    let [scale, bias, mean, variance] = inputs;
    let p = &mut *cx.program;
    let shape = p.shape(x).to_vec();
    if shape.is_empty() {
        return Err(p.error("x wants at least one axis"));
    }
    // A batch of plain numbers without a channel axis has one channel.
    let one = Idx::from(1i64);
    let rest = if shape.len() == 1 { std::slice::from_ref(&one) } else { &shape[1..] };
    let features = if by_channel { &rest[..1] } else { rest };
    for id in inputs {
        if p.rank(id) != features.len() {
            let (got, want) = (p.rank(id), features.len());
            return Err(p.error(format!("scale, bias, mean and variance want {want} axes, got {got}")));
        }
        for (axis, size) in features.iter().enumerate() {
            let own = p.shape(id)[axis].clone();
            p.equate(size, &own, "channels")?;
        }
    }
    let (x, dtype) = widen(p, x);
    let wide = p.dtype(x);
    let (mut statistics, mut others) = ([mean, variance], vec![]);
    if training {
        let first = if by_channel { 2 } else { shape.len() };
        let axes: Vec<usize> = (0..1).chain(first..shape.len()).collect();
        let (_, variance, mean) = centre(p, x, &axes)?;
        let own = [p.reshape(mean, features.to_vec())?, p.reshape(variance, features.to_vec())?];
        for (old, new) in statistics.into_iter().zip(own) {
            others.push(p.elementwise(&[old, new], |e| {
                (e[0].cast(wide) * momentum + &e[1] * (1.0 - momentum)).cast(e[0].dtype())
            })?);
        }
        if saves {
            others.extend(own.map(|own| p.cast(own, dtype)));
        }
        statistics = own;
    }
    let [mean, variance] = statistics;
    let a = p.elementwise(&[scale, variance], |e| e[0].cast(wide) / (e[1].cast(wide) + epsilon).sqrt())?;
    let b = p.elementwise(&[bias, mean, a], |e| e[0].cast(wide) - e[1].cast(wide) * &e[2])?;
    let at = vars(0, &shape);
    let feature = at.get(1..=features.len()).map_or_else(|| vec![Idx::from(0i64)], <[Idx]>::to_vec);
    let body = p.load(x, &at) * p.load(a, &feature) + p.load(b, &feature);
    let y = p.map(shape, body.cast(dtype));
    Ok([vec![y], others].concat())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute::{Float, Int};
    use crate::ops::case::{Case, f32s};

    /// Two images of one channel and two elements, 1, 3 and 5, 7: mean 4 and variance 5, or by element 3, 5 and 4, 4.
    #[test]
    fn a_batch_trains_by_what_its_opset_says() {
        let x = f32s(&[2, 1, 2], &[1.0, 3.0, 5.0, 7.0]);
        let numbers = |shape: &[usize], v: f32| f32s(shape, &vec![v; shape.iter().product()]);
        let attributes = [("epsilon", Float(0.0)), ("momentum", Float(0.5))];
        let root = 5f32.sqrt();
        let y = f32s(&[2, 1, 2], &[-3.0 / root, -1.0 / root, 1.0 / root, 3.0 / root]);
        let running = [f32s(&[1], &[3.0]), f32s(&[1], &[4.0])];
        let saved = [f32s(&[1], &[4.0]), f32s(&[1], &[5.0])];
        let inputs = |shape: &[usize]| {
            let [scale, bias, mean, variance] = [1.0, 0.0, 2.0, 3.0].map(|v| numbers(shape, v));
            [x.clone(), scale, bias, mean, variance]
        };
        let old = [vec![y.clone()], running.to_vec(), saved.to_vec()].concat();
        let new = [vec![y], running.to_vec()].concat();
        for (opset, extra, want) in [
            (6, ("is_test", Int(0)), &old),
            (9, ("epsilon", Float(0.0)), &old),
            (14, ("training_mode", Int(1)), &new),
        ] {
            let attributes = [attributes.as_slice(), &[extra]].concat();
            let case = Case { opset, ..Case::new("BatchNormalization", &attributes, inputs(&[1])) };
            case.outputs(want.len()).gives_about(want.clone());
        }
        let attributes = [attributes.as_slice(), &[("spatial", Int(0))]].concat();
        let case = Case { opset: 7, ..Case::new("BatchNormalization", &attributes, inputs(&[1, 2])) };
        let want = [f32s(&[2, 1, 2], &[-1.0, -1.0, 1.0, 1.0]), f32s(&[1, 2], &[2.5, 3.5])];
        case.outputs(5).gives_about(want);
    }
}
