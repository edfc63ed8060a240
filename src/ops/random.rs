//! Random numbers: the same on every device, in every run, for the same seed.
//!
//! Element `i` of a tensor, in row-major order, is made from `philox(i)`: Philox2x32 with ten rounds (Salmon and others,
//! "Parallel random numbers: as easy as 1, 2, 3", 2011) of the counter `(i, 0)` under the node's seed as the key. The
//! key is the bits of the attribute `seed`, a float32; where there is none, the 32-bit FNV-1a hash of the node's name.

use super::math::{Lowering, op};
use super::prefix::prefix;
use super::reduce::to_float;
use super::softmax::softmax;
use super::{Cx, OpDef};
use crate::expr::{Binary, Expr, Idx, flatten, vars};
use crate::graph::Attribute;
use crate::ir::{Combine, Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op("RandomUniform", 1, "uniform in low..high; Philox2x32-10 under the seed", |cx| {
        let shape = shape(cx)?;
        let dtype = cx.dtype_attribute("dtype")?.unwrap_or(DType::F32);
        uniform_in(cx, shape, dtype)
    }),
    op(
        "RandomUniformLike",
        1,
        "uniform in low..high, of the input's shape; Philox2x32-10 under the seed",
        |cx| {
            let (shape, dtype) = like(cx)?;
            uniform_in(cx, shape, dtype)
        },
    ),
    op("RandomNormal", 1, "normally distributed; Philox2x32-10 under the seed", |cx| {
        let shape = shape(cx)?;
        let dtype = cx.dtype_attribute("dtype")?.unwrap_or(DType::F32);
        normal(cx, shape, dtype)
    }),
    op(
        "RandomNormalLike",
        1,
        "normally distributed, of the input's shape; Philox2x32-10 under the seed",
        |cx| {
            let (shape, dtype) = like(cx)?;
            normal(cx, shape, dtype)
        },
    ),
    op(
        "Bernoulli",
        15,
        "1 with the probability that the input says; Philox2x32-10 under the seed",
        bernoulli,
    ),
    op(
        "Multinomial",
        7,
        "classes drawn by their log-probabilities; Philox2x32-10 under the seed",
        multinomial,
    ),
];

/// The two words of `philox(counter)` under `key`.
fn philox(counter: &Expr, key: u32) -> [Expr; 2] {
    let word = |v: u32| Expr::int(DType::U32, v as i64);
    let (mut low, mut high) = (counter.cast(DType::U32), word(0));
    let mut key = key;
    for _ in 0..10 {
        let product = low.cast(DType::U64) * Expr::int(DType::U64, 0xD256_D193);
        let top = product.binary(Binary::Shr, &Expr::int(DType::U64, 32)).cast(DType::U32);
        (low, high) =
            (top.binary(Binary::BitXor, &word(key)).binary(Binary::BitXor, &high), product.cast(DType::U32));
        key = key.wrapping_add(0x9E37_79B9);
    }
    [low, high]
}

/// A word as a number in 0..1, a multiple of 2^-24.
fn unit(word: &Expr) -> Expr {
    word.binary(Binary::Shr, &Expr::int(DType::U32, 8)).cast(DType::F32) * (0.5f64.powi(24))
}

/// The key of the node's numbers.
fn key(cx: &Cx) -> Result<u32, Stop> {
    match cx.node.attributes.get("seed") {
        // Dropout's is an integer.
        Some(Attribute::Int(seed)) => Ok(*seed as u32),
        Some(_) => Ok((cx.float_or("seed", 0.0)? as f32).to_bits()),
        None => {
            let name = if cx.node.name.is_empty() { cx.node.outputs.concat() } else { cx.node.name.clone() };
            Ok(name.bytes().fold(0x811C_9DC5u32, |hash, b| (hash ^ b as u32).wrapping_mul(0x0100_0193)))
        }
    }
}

/// The node's two words at `at` of `shape`.
fn words(cx: &Cx, at: &[Idx], shape: &[Idx]) -> Result<[Expr; 2], Stop> {
    Ok(philox(&Expr::index(flatten(at, shape), DType::I32), key(cx)?))
}

/// The node's uniform number at each place of `shape`.
pub(super) fn uniform(cx: &Cx, shape: &[Idx]) -> Result<Expr, Stop> {
    Ok(unit(&words(cx, &vars(0, shape), shape)?[0]))
}

fn shape(cx: &Cx) -> Result<Vec<Idx>, Stop> {
    let shape = cx.ints("shape")?.ok_or_else(|| cx.error("attribute \"shape\" is missing"))?;
    Ok(shape.into_iter().map(Idx::from).collect())
}

/// Shape and dtype of the result, from the input where no attribute says otherwise.
fn like(cx: &Cx) -> Result<(Vec<Idx>, DType), Stop> {
    let x = cx.input(0)?;
    let dtype = cx.dtype_attribute("dtype")?.unwrap_or(cx.program.dtype(x));
    Ok((cx.program.shape(x).to_vec(), dtype))
}

fn uniform_in(cx: &mut Cx, shape: Vec<Idx>, dtype: DType) -> Lowering {
    let (low, high) = (cx.float_or("low", 0.0)?, cx.float_or("high", 1.0)?);
    let body = (uniform(cx, &shape)? * (high - low) + Expr::float(DType::F32, low)).cast(dtype);
    Ok(vec![cx.program.map(shape, body)])
}

/// By Box and Muller: `sqrt(-2 ln u) cos(2 pi v)`, `u` in 0..=1 without 0.
fn normal(cx: &mut Cx, shape: Vec<Idx>, dtype: DType) -> Lowering {
    let (mean, scale) = (cx.float_or("mean", 0.0)?, cx.float_or("scale", 1.0)?);
    let [u, v] = words(cx, &vars(0, &shape), &shape)?;
    let length = ((unit(&u) + 0.5f64.powi(24)).log() * -2.0).sqrt();
    let turn = (unit(&v) * std::f64::consts::TAU).unary(crate::expr::Unary::Cos);
    let body = (length * turn * scale + Expr::float(DType::F32, mean)).cast(dtype);
    Ok(vec![cx.program.map(shape, body)])
}

fn bernoulli(cx: &mut Cx) -> Lowering {
    let (shape, dtype) = like(cx)?;
    let at = vars(0, &shape);
    let chance = cx.program.load(cx.input(0)?, &at).cast(DType::F32);
    let body = uniform(cx, &shape)?.below(chance).cast(dtype);
    Ok(vec![cx.program.map(shape, body)])
}

fn multinomial(cx: &mut Cx) -> Lowering {
    let dtype = cx.dtype_attribute("dtype")?.unwrap_or(DType::I32);
    let samples = Idx::from(cx.int_or("sample_size", 1)?);
    let x = cx.input(0)?;
    let (wide, _) = to_float(cx.program, x);
    let [batch, classes] = cx.program.shape(wide) else { return Err(cx.error("wants two axes")) };
    let (out, classes) = (vec![batch.clone(), samples], classes.clone());
    let chances = softmax(cx.program, wide, &[1])?;
    let sums = prefix(cx.program, chances, 1, Combine::Sum);
    // The last sum may fall short of 1.
    let last = &classes - &Idx::from(1i64);
    let drawn: ValueId = {
        let body = uniform(cx, &out)?;
        cx.program.map(out.clone(), body)
    };
    let body = cx.program.reduction(out, vec![last], Combine::Sum, |p, at, r| {
        let passed = p.load(sums, &[at[0].clone(), r[0].clone()]).cast(DType::F32).at_most(p.load(drawn, at));
        passed.cast(DType::I32)
    });
    Ok(vec![cx.program.cast(body, dtype)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::case::{Case, int, list, t};

    /// The known answers of the authors' own implementation (Random123).
    #[test]
    fn the_generator_is_philox() {
        let ones = Expr::int(DType::U32, 0);
        let words = philox(&ones, 0).map(|word| word.as_const().map(|v| v.to_i64()));
        assert_eq!(words, [Some(0xff1d_ae59), Some(0x6cd1_0df2)]);
    }

    fn drawn(op: &str, attributes: &[(&str, Attribute)]) -> Vec<f32> {
        let shape = [("shape", list(&[100, 100]))];
        let case = Case::new(op, &[&shape, attributes].concat(), []);
        case.run_with_known_sizes()[0].to_vec().unwrap()
    }

    #[test]
    fn numbers_are_spread_as_they_should() {
        let seed = || ("seed", Attribute::Float(7.0));
        let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len() as f32;
        let variance = |v: &[f32], m: f32| v.iter().map(|x| (x - m) * (x - m)).sum::<f32>() / v.len() as f32;
        let u = drawn(
            "RandomUniform",
            &[seed(), ("low", Attribute::Float(2.0)), ("high", Attribute::Float(4.0))],
        );
        assert!(u.iter().all(|v| (2.0..4.0).contains(v)));
        assert!((mean(&u) - 3.0).abs() < 0.03 && (variance(&u, 3.0) - 1.0 / 3.0).abs() < 0.02);
        let n = drawn(
            "RandomNormal",
            &[seed(), ("mean", Attribute::Float(1.0)), ("scale", Attribute::Float(3.0))],
        );
        assert!((mean(&n) - 1.0).abs() < 0.15 && (variance(&n, 1.0) - 9.0).abs() < 0.5);
        assert_eq!(
            u,
            drawn(
                "RandomUniform",
                &[seed(), ("low", Attribute::Float(2.0)), ("high", Attribute::Float(4.0))]
            )
        );
        assert_ne!(u[..100], drawn("RandomUniform", &[("seed", Attribute::Float(8.0))])[..100]);
    }

    #[test]
    fn like_an_input_is_like_its_shape() {
        let seed = || ("seed", Attribute::Float(7.0));
        for op in ["RandomUniform", "RandomNormal"] {
            let (name, input) = (format!("{op}Like"), t(&[100, 100], &[0f32; 10_000]));
            let outputs = Case::new(&name, &[seed()], [input]).run_with_known_sizes();
            assert_eq!(outputs[0].to_vec::<f32>().unwrap(), drawn(op, &[seed()]), "{name}");
        }
    }

    #[test]
    fn chances_are_kept() {
        let p = t(&[4000], &[0.25f32; 4000]);
        let y = Case::new("Bernoulli", &[("dtype", int(6))], [p]).run_with_known_sizes()[0]
            .to_vec::<i32>()
            .unwrap();
        let ones = y.iter().filter(|&&v| v == 1).count();
        assert!((900..1100).contains(&ones) && y.iter().all(|v| [0, 1].contains(v)), "{ones}");
        let logs = t(&[1, 3], &[0.5f32.ln(), 0.0f32.ln(), 0.5f32.ln()]);
        let case = Case::new("Multinomial", &[("sample_size", int(1000))], [logs]);
        let y = case.run_with_known_sizes()[0].to_vec::<i32>().unwrap();
        let low = y.iter().filter(|&&v| v == 0).count();
        assert!((420..580).contains(&low) && y.iter().all(|v| [0, 2].contains(v)), "{low}");
    }

    #[test]
    fn dropout_keeps_the_mean() {
        let inputs = [t(&[4000], &[1f32; 4000]), t(&[], &[0.75f32]), t(&[], &[true])];
        let y = Case::new("Dropout", &[("seed", int(3))], inputs).outputs(2).run_with_known_sizes();
        let (y, mask) = (y[0].to_vec::<f32>().unwrap(), y[1].to_vec::<bool>().unwrap());
        assert!(y.iter().zip(&mask).all(|(&y, &on)| y == if on { 4.0 } else { 0.0 }));
        assert!((900..1100).contains(&mask.iter().filter(|&&on| on).count()));
    }
}
