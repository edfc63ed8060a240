//! Counts of n-grams.

use super::join::join;
use super::math::{Lowering, op};
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, vars};
use crate::ir::{Combine, Stop, ValueId};
use crate::tensor::{DType, Tensor};

/// The family.
pub const OPS: &[OpDef] =
    &[op("TfIdfVectorizer", 9, "how often each n-gram of a pool occurs in a row of integers", tf_idf)];

/// Places of a result's row at most.
const MOST_PLACES: i64 = 1 << 24;

/// Every n-gram of the pool is compared with every window of the row, at every skip.
fn tf_idf(cx: &mut Cx) -> Lowering {
    let x = cx.input(0)?;
    let Some(pool) = cx.ints("pool_int64s")? else {
        return Err(cx.unsupported("pool_strings"));
    };
    let wanted = |name: &str| cx.error(format!("attribute {name:?} is missing"));
    let counts = cx.ints("ngram_counts")?.ok_or_else(|| wanted("ngram_counts"))?;
    let indexes = cx.ints("ngram_indexes")?.ok_or_else(|| wanted("ngram_indexes"))?;
    let lengths = [cx.int_or("min_gram_length", 1)?, cx.int_or("max_gram_length", 1)?];
    let skips = cx.int_or("max_skip_count", 0)?.clamp(0, i32::MAX as i64);
    let mode = cx.string_or("mode", "TF")?;
    let weights = cx.floats("weights")?;
    let shape = cx.program.shape(x).to_vec();
    let Some((columns, outer)) = shape.split_last().filter(|_| shape.len() <= 2) else {
        return Err(cx.error(format!("wants one or two axes, got {}", shape.len())));
    };
    // The counts of all n-grams of the pool, by length.
    let mut parts: Vec<ValueId> = Vec::new();
    let ends = counts.iter().skip(1).copied().chain([pool.len() as i64]);
    for (length, (&start, end)) in (1i64..).zip(counts.iter().zip(ends)) {
        let tokens = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let tokens = tokens.and_then(|(start, end)| pool.get(start..end));
        let tokens = tokens.ok_or_else(|| cx.error(format!("ngram_counts {counts:?} leave the pool")))?;
        let grams = tokens.len() / length as usize;
        if grams == 0 {
            continue;
        }
        let out = [outer, &[Idx::from(grams)]].concat();
        if !(lengths[0]..=lengths[1]).contains(&length) {
            parts.push(cx.program.map(out, Expr::int(DType::I32, 0)));
            continue;
        }
        let table = Tensor::from_slice(&[grams, length as usize], tokens)?;
        let table = cx.program.weight(table);
        // Single elements have nothing to skip, and nothing is as far apart as the row is long.
        let strides = if length == 1 { Idx::from(1i64) } else { Idx::from(skips + 1).smaller(columns) };
        let loops = vec![strides, columns.clone()];
        parts.push(cx.program.reduction(out, loops, Combine::Sum, |p, at, r| {
            let stride = &r[0] + &Idx::from(1i64);
            let place = |i: i64| &r[1] + &(&stride * &Idx::from(i));
            let mut found = Expr::number(&place(length - 1)).below(Expr::number(columns));
            for i in 0..length {
                let token = p.load(x, &[&at[..outer.len()], &[place(i)]].concat()).cast(DType::I64);
                let same = token.equals(p.load(table, &[at[outer.len()].clone(), Idx::from(i)]));
                found = found.select(&same, &Expr::bool(false));
            }
            found.select(&Expr::int(DType::I32, 1), &Expr::int(DType::I32, 0))
        }));
    }
    if let Some(wrong) = indexes.iter().find(|i| !(0..MOST_PLACES).contains(*i)) {
        return Err(cx.error(format!("ngram_indexes want 0 to {}, got {wrong}", MOST_PLACES - 1)));
    }
    let width = indexes.iter().max().map_or(0, |&last| last + 1);
    let out = [outer, &[Idx::from(width)]].concat();
    let all: i64 =
        parts.iter().map(|&part| cx.program.shape(part)[outer.len()].as_const().unwrap_or(0)).sum();
    if all != indexes.len() as i64 {
        return Err(cx.error(format!("{} ngram_indexes for {all} n-grams", indexes.len())));
    }
    if parts.is_empty() {
        return Ok(vec![cx.program.map(out, Expr::float(DType::F32, 0.0))]);
    }
    let found = join(cx.program, parts, outer.len());
    // Which n-gram counts for a place of the result; -1 where none does.
    let mut grams = vec![-1; width as usize];
    for (gram, &place) in indexes.iter().enumerate().rev() {
        grams[place as usize] = gram as i64;
    }
    let grams = vector(cx, &grams)?;
    let weights = match (weights, mode.as_str()) {
        (_, "TF") | (None, _) => vec![1.0; indexes.len()],
        (Some(weights), "IDF" | "TFIDF") if weights.len() == indexes.len() => weights,
        (_, other) => return Err(cx.error(format!("mode {other:?} with weights that do not fit"))),
    };
    let weights = Tensor::from_slice(&[weights.len()], &weights)?;
    let weights = cx.program.weight(weights);
    let p = &mut *cx.program;
    let at = vars(0, &out);
    let gram = p.load(grams, &at[outer.len()..]);
    let place = gram.to_position(&Idx::from(all));
    let count = p.load(found, &[&at[..outer.len()], std::slice::from_ref(&place)].concat());
    let count = if mode == "IDF" { count.smaller(Expr::int(DType::I32, 1)) } else { count };
    let value = count.cast(DType::F32) * p.load(weights, &[place]);
    let body = gram.below(Expr::int(DType::I64, 0)).select(&Expr::float(DType::F32, 0.0), &value);
    Ok(vec![p.map(out, body)])
}

fn vector(cx: &mut Cx, values: &[i64]) -> Result<ValueId, Stop> {
    Ok(cx.program.weight(Tensor::from_slice(&[values.len()], values)?))
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::case::{Case, int, list, t, text};

    #[test]
    fn pairs_with_and_without_a_gap() {
        let attributes = |skips: i64, mode: &str| {
            [
                ("mode", text(mode)),
                ("min_gram_length", int(2)),
                ("max_gram_length", int(2)),
                ("max_skip_count", int(skips)),
                ("ngram_counts", list(&[0, 1])),
                ("ngram_indexes", list(&[2, 0, 1])),
                ("pool_int64s", list(&[7, 1, 2, 1, 3])),
                ("weights", Attribute::Floats(vec![1.0, 0.5, 2.0])),
            ]
        };
        let x = t(&[5], &[1i32, 2, 3, 1, 2]);
        for (skips, mode, want) in
            [(0, "TF", [2f32, 0., 0.]), (1, "TF", [2., 1., 0.]), (1, "IDF", [0.5, 2., 0.])]
        {
            Case::new("TfIdfVectorizer", &attributes(skips, mode), [x.clone()]).gives([t(&[3], &want)]);
        }
    }
}
