//! Weights of 2 to 8 bits with a scale, and a zero point, per block. They are unpacked where they are read.

use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, vars};
use crate::ir::{Axes, Program, Stop, ValueId};
use crate::tensor::DType;

type Lowering = Result<Vec<ValueId>, Stop>;

const fn ms(name: &'static str, doc: &'static str, lower: fn(&mut Cx) -> Lowering) -> OpDef {
    OpDef::new("com.microsoft", name, 1, doc, lower)
}

/// The family.
pub const OPS: &[OpDef] = &[
    ms(
        "MatMulNBits",
        "A * B^T + bias, B of 2 to 8 bits in blocks along K, which g_idx may name per element",
        matmul,
    ),
    ms(
        "GatherBlockQuantized",
        "the slices that indices name, of blocks of 2, 4 or 8 bits, float8 or float4; 0 for indices outside",
        gather,
    ),
];

/// Number `i` of those packed into the bytes along the last axis of `x`, low bits first; `at` is where, without that
/// axis.
pub(super) fn unpacked(p: &Program, x: ValueId, at: &[Idx], i: &Idx, bits: i64) -> Expr {
    let byte = |i: Idx| p.load(x, &[at, &[i]].concat()).cast(DType::I32);
    let number = |i: Idx| Expr::index(i, DType::I32);
    let mask = Expr::int(DType::I32, (1 << bits) - 1);
    if bits == 8 {
        return byte(i.clone());
    }
    if 8 % bits == 0 {
        let per_byte = Idx::from(8 / bits);
        let shift = number(&i.rem(&per_byte) * &Idx::from(bits));
        return byte(i.div(&per_byte)).binary(Binary::Shr, &shift).binary(Binary::BitAnd, &mask);
    }
    // It may lie in two bytes: of its first and of its last bit.
    let (eight, first) = (Idx::from(8i64), i * &Idx::from(bits));
    let last = &first + &Idx::from(bits - 1);
    let high = byte(last.div(&eight)).binary(Binary::Shl, &Expr::int(DType::I32, 8));
    let both = byte(first.div(&eight)).binary(Binary::BitOr, &high);
    both.binary(Binary::Shr, &number(first.rem(&eight))).binary(Binary::BitAnd, &mask)
}

/// The attribute `name`, 4 unless given, which must be one of these.
pub(super) fn bits(cx: &Cx, name: &str, default: i64, supported: &[i64]) -> Result<i64, Stop> {
    match cx.int_or(name, default)? {
        bits if supported.contains(&bits) => Ok(bits),
        other => Err(cx.unsupported(format!("{name}={other}"))),
    }
}

fn matmul(cx: &mut Cx) -> Lowering {
    let (a, b, scales) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (zeros, bias) = (cx.optional(3), cx.optional(5));
    let (k, n) = (cx.int_or("K", 0)?, cx.int_or("N", 0)?);
    let (size, bits) = (cx.int_or("block_size", 0)?, bits(cx, "bits", 4, &[2, 3, 4, 5, 6, 7, 8])?);
    let groups = cx.optional(4);
    if cx.int_or("weight_prepacked", 0)? != 0 {
        return Err(cx.unsupported("prepacked weights"));
    }
    if k < 1 || n < 1 || size < 1 {
        return Err(cx.error(format!("wants K, N and block_size above 0, got {k}, {n} and {size}")));
    }
    let shape = cx.program.shape(a).to_vec();
    let Some((last, rows)) = shape.split_last() else { return Err(cx.error("A wants at least one axis")) };
    cx.program.equate(last, &Idx::from(k), "inner axes of a matrix product")?;
    let (block, blocks) = (Idx::from(size), (k + size - 1) / size);
    let p = &mut *cx.program;
    let biased = |p: &mut Program, y: ValueId| match bias {
        Some(bias) => Ok(vec![p.elementwise(&[y, bias], |e| &e[0] + &e[1])?]),
        None => Ok(vec![y]),
    };
    // A projection that is left out has weights without elements, and is 0.
    if p.shape(b).iter().any(|d| d.is(0)) {
        let zero = Expr::int(p.dtype(a), 0);
        let y = p.map([rows, &[Idx::from(n)]].concat(), zero);
        return biased(p, y);
    }
    // Scales and unpacked zero points come as `[N, blocks]` or flat.
    let table = |p: &mut Program, x: ValueId| p.reshape(x, vec![Idx::from(n), Idx::from(blocks)]);
    let scales = table(p, scales)?;
    let packed = zeros.is_some_and(|zeros| p.dtype(zeros) == DType::U8);
    let zeros = match zeros {
        Some(zeros) if packed => {
            let bytes = (blocks * bits + 7) / 8;
            Some(p.reshape(zeros, vec![Idx::from(n), Idx::from(bytes)])?)
        }
        Some(zeros) => Some(table(p, zeros)?),
        None => None,
    };
    let m = vec![crate::expr::numel(rows)];
    let flat = p.reshape(a, vec![m[0].clone(), Idx::from(k)])?;
    let extents = Axes { m, n: vec![Idx::from(n)], k: vec![Idx::from(k)], ..Axes::default() };
    let product = p.contract(extents, |p, at| {
        let (row, i) = (&at.n[0], &at.k[0]);
        let mut place = [row.clone(), i.div(&block)];
        let code = unpacked(p, b, &place, &i.rem(&block), bits).cast(DType::F32);
        if let Some(groups) = groups {
            place[1] = p.load(groups, &at.k).to_position(&Idx::from(blocks));
        }
        let zero = match zeros {
            Some(zeros) if packed => unpacked(p, zeros, &place[..1], &place[1], bits).cast(DType::F32),
            Some(zeros) => p.load(zeros, &place).cast(DType::F32),
            None => Expr::float(DType::F32, (1 << (bits - 1)) as f64),
        };
        let element = p.load(flat, &[at.m[0].clone(), i.clone()]);
        let weight = (code - zero) * p.load(scales, &place).cast(DType::F32);
        let dtype = element.dtype();
        (element, weight.cast(dtype))
    });
    let y = p.reshape(product, [rows, &[Idx::from(n)]].concat())?;
    biased(p, y)
}

fn gather(cx: &mut Cx) -> Lowering {
    let (data, indices, scales, zeros) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.optional(3));
    let mut shape = cx.program.shape(data).to_vec();
    let dtype = cx.program.dtype(data);
    let bits = bits(cx, "bits", 4, &[2, 4, 8])?;
    // Bytes are packed; the other dtypes are one number per element.
    let packed = dtype == DType::U8;
    if !packed && !matches!(dtype, DType::I4 | DType::U4) && !dtype.is_float() {
        return Err(cx.unsupported(format!("data of {dtype}")));
    }
    let rank = shape.len();
    if let (true, Some(last)) = (packed, shape.last_mut()) {
        *last = &*last * &Idx::from(8 / bits);
    }
    let axis = cx.axis(cx.int_or("gather_axis", 0)?, rank)?;
    let quantized = cx.axis(cx.int_or("quantize_axis", 1)?, rank)?;
    let block = match cx.int_or("block_size", 128)? {
        0 => shape[quantized].clone(),
        size if size > 0 => Idx::from(size),
        size => return Err(cx.error(format!("block_size={size}"))),
    };
    let after = axis + cx.program.rank(indices);
    let mut out = shape.clone();
    out.splice(axis..=axis, cx.program.shape(indices).iter().cloned());
    let p = &mut *cx.program;
    let i = vars(0, &out);
    let index = super::index::from_front(&p.load(indices, &i[axis..after]), &shape[axis]);
    let bound = |i: Idx| Expr::index(i, index.dtype());
    let inside = bound(Idx::from(0i64)).at_most(&index).and(index.below(bound(shape[axis].clone())));
    let mut at = i.clone();
    at.splice(axis..after, [index.to_position(&shape[axis])]);
    let element = |p: &Program, x: ValueId, at: &[Idx]| match at.split_last() {
        Some((last, rest)) if packed => unpacked(p, x, rest, last, bits),
        _ => p.load(x, at),
    };
    let code = element(p, data, &at).cast(DType::F32);
    let mut place = at.clone();
    place[quantized] = place[quantized].div(&block);
    let zero = match zeros {
        Some(zeros) => element(p, zeros, &place).cast(DType::F32),
        None => Expr::float(DType::F32, if packed { (1 << (bits - 1)) as f64 } else { 0.0 }),
    };
    let scale = p.load_broadcast(scales, &place);
    let real = inside.select(&((code - zero) * scale.cast(DType::F32)), &Expr::float(DType::F32, 0.0));
    Ok(vec![p.map(out, real.cast(scale.dtype()))])
}
