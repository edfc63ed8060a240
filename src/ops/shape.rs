//! Shapes, and the same elements under another one.

use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, numel};
use crate::ir::{Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("Shape", 1, "sizes of the axes start..end, as int64", shape),
    op("Size", 1, "number of elements, as int64", |cx| {
        let len = numel(cx.program.shape(cx.input(0)?));
        Ok(vec![cx.program.scalar(Expr::index(len, DType::I64))])
    }),
    op("Reshape", 1, "the same elements under a given shape; 0 keeps a size, -1 takes what is left", reshape),
    op("Flatten", 1, "axes before and after `axis` merged into two", flatten),
    op("Squeeze", 1, "axes of size 1 removed", squeeze),
    op("Unsqueeze", 1, "axes of size 1 inserted", unsqueeze),
    op("Transpose", 1, "axes reordered", transpose),
    op("Expand", 8, "broadcast together with a given shape", expand),
    op("Tile", 1, "repeated along each axis", tile),
    op("DepthToSpace", 1, "blocks of channels to blocks of positions", depth_to_space),
    op("SpaceToDepth", 1, "blocks of positions to blocks of channels", space_to_depth),
];

fn shape(cx: &mut Cx) -> Lowering {
    let sizes = cx.program.shape(cx.input(0)?).to_vec();
    let rank = sizes.len() as i64;
    let clamp = |axis: i64| (if axis < 0 { axis + rank } else { axis }).clamp(0, rank) as usize;
    let (start, end) = (clamp(cx.int_or("start", 0)?), clamp(cx.int_or("end", rank)?));
    let kept = sizes.get(start..end).unwrap_or_default();
    let elements: Vec<Expr> = kept.iter().map(|d| Expr::index(d.clone(), DType::I64)).collect();
    Ok(vec![cx.program.list(DType::I64, &elements)])
}

fn reshape(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let wanted = cx.sizes_at(1, "shape")?.ok_or_else(|| cx.error("input \"shape\" is missing"))?;
    let keeps_zeros = cx.int_or("allowzero", 0)? != 0;
    let have = cx.program.shape(x).to_vec();
    let mut free = None;
    let mut shape = Vec::with_capacity(wanted.len());
    for (axis, size) in wanted.into_iter().enumerate() {
        shape.push(match size.as_const() {
            Some(-1) if free.is_some() => return Err(cx.error("shape has more than one -1")),
            Some(-1) => {
                free = Some(axis);
                Idx::from(1i64)
            }
            Some(0) if !keeps_zeros => {
                let kept = have.get(axis).cloned();
                kept.ok_or_else(|| {
                    cx.error(format!("shape wants to keep axis {axis} of rank {}", have.len()))
                })?
            }
            Some(size) if size < 0 => return Err(cx.error(format!("shape has a size of {size}"))),
            _ => size,
        });
    }
    if let Some(axis) = free {
        let rest = numel(&shape);
        if rest.is(0) {
            return Err(cx.error("the -1 of shape could be any size, as another size is 0"));
        }
        shape[axis] = numel(&have).div(&rest);
    }
    Ok(vec![cx.program.reshape(x, shape)?])
}

fn flatten(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x);
    let (axis, rank) = (cx.int_or("axis", 1)?, shape.len());
    let axis = if axis == rank as i64 { rank } else { cx.axis(axis, rank)? };
    let merged = vec![numel(&shape[..axis]), numel(&shape[axis..])];
    Ok(vec![cx.program.reshape(x, merged)?])
}

fn squeeze(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    let axes = match cx.ints_at(1, "axes")? {
        Some(axes) => cx.axes(&axes, shape.len())?,
        None => (0..shape.len()).filter(|&axis| shape[axis].is(1)).collect(),
    };
    for &axis in &axes {
        cx.program.equate(&shape[axis], &Idx::from(1i64), &format!("axis {axis}, which is removed"))?;
    }
    let kept = shape.into_iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, d)| d);
    Ok(vec![cx.program.reshape(x, kept.collect())?])
}

fn unsqueeze(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let axes = cx.ints_at(1, "axes")?.ok_or_else(|| cx.error("axes are missing"))?;
    let mut shape = cx.program.shape(x).to_vec();
    for axis in cx.axes(&axes, shape.len() + axes.len())? {
        shape.insert(axis, Idx::from(1i64));
    }
    Ok(vec![cx.program.reshape(x, shape)?])
}

fn transpose(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let rank = cx.program.rank(x);
    let order = match cx.ints("perm")? {
        Some(order) => order.iter().map(|&axis| cx.axis(axis, rank)).collect::<Result<Vec<_>, Stop>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..rank) {
        return Err(cx.error(format!("perm {order:?} does not name each of {rank} axes once")));
    }
    Ok(vec![cx.program.transpose(x, &order)])
}

fn expand(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let wanted = cx.program.sizes(cx.input(1)?)?;
    let shape = cx.program.broadcast(&[cx.program.shape(x).to_vec(), wanted])?;
    Ok(vec![cx.program.expand(x, shape)])
}

fn tile(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let shape = cx.program.shape(x).to_vec();
    let repeats =
        if cx.opset < 6 { repeats_of_axis(cx, shape.len())? } else { cx.program.sizes(cx.input(1)?)? };
    if repeats.len() != shape.len() {
        return Err(cx.error(format!("wants {} repeats, one per axis, got {}", shape.len(), repeats.len())));
    }
    let tiled = shape.iter().zip(&repeats).map(|(d, n)| d * n).collect();
    Ok(vec![cx.program.view(x, tiled, |i| i.iter().zip(&shape).map(|(i, d)| i.rem(d)).collect())])
}

/// Before opset 6 one axis is named, and how often it is repeated, in the dtype of the tensor.
fn repeats_of_axis(cx: &Cx, rank: usize) -> Result<Vec<Idx>, Stop> {
    let number = |i: usize| {
        let all = cx.program.integers(cx.input(i)?)?;
        all.first().copied().ok_or_else(|| cx.error(format!("input {i} is empty")))
    };
    let (count, axis) = (number(1)?, cx.axis(number(2)?, rank)?);
    Ok((0..rank).map(|i| Idx::from(if i == axis { count } else { 1 })).collect())
}

/// The input of shape [N, C, H, W] and the block's side.
fn blocks(cx: &Cx) -> Result<(ValueId, [Idx; 4], Idx), Stop> {
    let x = cx.input(0)?;
    let side = cx.int("blocksize")?.filter(|&side| side > 0);
    let side = side.ok_or_else(|| cx.error("blocksize must be at least 1"))?;
    let shape = <[Idx; 4]>::try_from(cx.program.shape(x).to_vec());
    let shape = shape.map_err(|shape| cx.error(format!("wants rank 4, got {}", shape.len())))?;
    Ok((x, shape, Idx::from(side)))
}

/// Whether the block is the slower part of a channel's number (DCR) or the faster (CRD).
fn depth_first(cx: &Cx) -> Result<bool, Stop> {
    match cx.string_or("mode", "DCR")?.as_str() {
        "DCR" => Ok(true),
        "CRD" => Ok(false),
        other => Err(cx.error(format!("mode wants DCR or CRD, got {other:?}"))),
    }
}

fn depth_to_space(cx: &mut Cx) -> Lowering {
    let (x, [n, c, h, w], side) = blocks(cx)?;
    let area = &side * &side;
    let depth = c.div(&area);
    cx.program.equate(&c, &(&depth * &area), "channels, in whole blocks")?;
    let depth_first = depth_first(cx)?;
    let shape = vec![n, depth.clone(), &h * &side, &w * &side];
    Ok(vec![cx.program.view(x, shape, |i| {
        let block = &(&i[2].rem(&side) * &side) + &i[3].rem(&side);
        let channel = if depth_first { &(&block * &depth) + &i[1] } else { &(&i[1] * &area) + &block };
        vec![i[0].clone(), channel, i[2].div(&side), i[3].div(&side)]
    })])
}

fn space_to_depth(cx: &mut Cx) -> Lowering {
    let (x, [n, c, h, w], side) = blocks(cx)?;
    let (rows, columns) = (h.div(&side), w.div(&side));
    cx.program.equate(&h, &(&rows * &side), "rows, in whole blocks")?;
    cx.program.equate(&w, &(&columns * &side), "columns, in whole blocks")?;
    let depth_first = depth_first(cx)?;
    let area = &side * &side;
    let shape = vec![n, &c * &area, rows, columns];
    Ok(vec![cx.program.view(x, shape, |i| {
        let (block, channel) = match depth_first {
            true => (i[1].div(&c), i[1].rem(&c)),
            false => (i[1].rem(&area), i[1].div(&area)),
        };
        let row = &(&i[2] * &side) + &block.div(&side);
        let column = &(&i[3] * &side) + &block.rem(&side);
        vec![i[0].clone(), channel, row, column]
    })])
}

#[cfg(test)]
mod tests {
    use crate::ops::case::{Case, count, f32s, int, ints, list, text};

    #[test]
    fn shape_and_size() {
        let x = count(&[2, 3, 4]);
        for (attributes, want) in [
            (vec![], vec![2, 3, 4]),
            (vec![("start", int(1))], vec![3, 4]),
            (vec![("start", int(-9)), ("end", int(-1))], vec![2, 3]),
            (vec![("start", int(2)), ("end", int(1))], vec![]),
        ] {
            Case::new("Shape", &attributes, [x.clone()]).gives([ints(&want)]);
        }
        Case::new("Size", &[], [x]).gives([ints(&[24]).reshape(&[]).unwrap()]);
    }

    #[test]
    fn forms_of_opset_1() {
        let (x, twice, first) = (count(&[1, 2]), f32s(&[1], &[2.0]), f32s(&[1], &[0.0]));
        let of_opset_1 =
            |op, attributes: &[_], inputs: Vec<_>| Case { opset: 1, ..Case::new(op, attributes, inputs) };
        let tiled = of_opset_1("Tile", &[], vec![x.clone(), twice, first]);
        tiled.gives([f32s(&[2, 2], &[0.0, 1.0, 0.0, 1.0])]);
        let reshaped = of_opset_1("Reshape", &[("shape", list(&[2, -1]))], vec![x.clone()]);
        reshaped.gives([count(&[2, 1])]);
        let parts = f32s(&[2], &[1.0, 1.0]);
        let split = of_opset_1("Split", &[("axis", int(1))], vec![x.clone(), parts]).outputs(2);
        split.gives([f32s(&[1, 1], &[0.0]), f32s(&[1, 1], &[1.0])]);
        let padded = of_opset_1("Pad", &[("paddings", list(&[0, 1, 0, 0]))], vec![x]);
        padded.gives([f32s(&[1, 3], &[0.0, 0.0, 1.0])]);
    }

    #[test]
    fn other_shapes_for_the_same_elements() {
        let x = count(&[2, 1, 6]);
        let rows = [
            ("Reshape", vec![], Some(vec![0, -1, 3]), vec![2, 2, 3]),
            ("Reshape", vec![], Some(vec![-1]), vec![12]),
            ("Reshape", vec![("allowzero", int(1))], Some(vec![12, 1]), vec![12, 1]),
            ("Flatten", vec![], None, vec![2, 6]),
            ("Flatten", vec![("axis", int(-1))], None, vec![2, 6]),
            ("Flatten", vec![("axis", int(3))], None, vec![12, 1]),
            ("Squeeze", vec![], Some(vec![-2]), vec![2, 6]),
            ("Unsqueeze", vec![], Some(vec![0, -1]), vec![1, 2, 1, 6, 1]),
        ];
        for (op, attributes, sizes, want) in rows {
            let inputs = [Some(x.clone()), sizes.map(|sizes| ints(&sizes))];
            let inputs: Vec<_> = inputs.into_iter().flatten().collect();
            Case::new(op, &attributes, inputs).gives([x.reshape(&want).unwrap()]);
        }
        Case::new("Squeeze", &[], [x.clone()]).gives_if_sizes_are_known([x.reshape(&[2, 6]).unwrap()]);
    }

    #[test]
    fn elements_moved_and_repeated() {
        let (x, of) = (count(&[2, 3]), |shape: &[usize], v: &[f32]| crate::ops::case::t(shape, v));
        Case::new("Transpose", &[], [x.clone()]).gives([of(&[3, 2], &[0., 3., 1., 4., 2., 5.])]);
        let order = [("perm", list(&[0, 1]))];
        Case::new("Transpose", &order, [x.clone()]).gives([x.clone()]);
        let tiled = of(&[2, 6], &[0., 1., 2., 0., 1., 2., 3., 4., 5., 3., 4., 5.]);
        Case::new("Tile", &[], [x, ints(&[1, 2])]).gives([tiled]);
        let expanded = of(&[2, 2, 2], &[0., 0., 1., 1., 0., 0., 1., 1.]);
        Case::new("Expand", &[], [count(&[2, 1]), ints(&[2, 1, 2])]).gives_if_sizes_are_known([expanded]);
    }

    #[test]
    fn blocks_of_channels_and_of_positions() {
        let of = crate::ops::case::t::<f32>;
        let side = [("blocksize", int(2))];
        let deep = count(&[1, 8, 1, 1]);
        let dcr = of(&[1, 2, 2, 2], &[0., 2., 4., 6., 1., 3., 5., 7.]);
        Case::new("DepthToSpace", &side, [deep.clone()]).gives([dcr.clone()]);
        let crd = [("blocksize", int(2)), ("mode", text("CRD"))];
        Case::new("DepthToSpace", &crd, [deep.clone()]).gives([deep.reshape(&[1, 2, 2, 2]).unwrap()]);
        Case::new("SpaceToDepth", &side, [dcr]).gives([deep]);
    }
}
