//! Inputs: what the command line gives, checked against the model, and random values for the rest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tilewright::expr::{Value, write_element};
use tilewright::graph::{Dim, ValueInfo};
use tilewright::{DType, Tensor};

use crate::failure::{Failure, Result};
use crate::npy;
use crate::table::{quoted, shape};

/// The size of a symbolic dimension that nothing gives.
pub const DEFAULT_SIZE: usize = 1;

/// An input of a run.
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its elements.
    pub tensor: Tensor,
    /// Whether they are random.
    pub random: bool,
}

/// The symbol of an axis, by which `--dim` gives its size; an axis without one is called after its input.
pub fn symbol(input: &str, axis: usize, dim: &Dim) -> Option<String> {
    match dim {
        Dim::Static(_) => None,
        Dim::Symbol(name) => Some(name.clone()),
        Dim::Unknown => Some(format!("{input}.{axis}")),
    }
}

/// A declared input in words, as `"x" float32 [batch, 3]`.
pub fn describe(info: &ValueInfo) -> String {
    let dims = info.shape.as_deref().map_or("of any shape".into(), shape);
    format!("{:?} {} {dims}", info.name, info.dtype)
}

/// The sizes of `--dim`.
///
/// # Errors
/// [`Failure::Usage`] for a name that no input's shape has, and for one given twice.
pub fn sizes(inputs: &[ValueInfo], given: &[(String, usize)]) -> Result<BTreeMap<String, usize>> {
    let mut names = Vec::new();
    for info in inputs {
        for (axis, dim) in info.shape.iter().flatten().enumerate() {
            names.extend(symbol(&info.name, axis, dim).filter(|name| !names.contains(name)));
        }
    }
    let mut sizes = BTreeMap::new();
    for (name, size) in given {
        if !names.contains(name) {
            let there = if names.is_empty() { "none".into() } else { quoted(&names) };
            return Err(Failure::Usage(format!(
                "--dim: no input has a dimension {name:?}; there are: {there}"
            )));
        }
        if sizes.insert(name.clone(), *size).is_some() {
            return Err(Failure::Usage(format!("--dim: {name:?} is given twice")));
        }
    }
    Ok(sizes)
}

/// The files of `--input`, by the model's inputs.
///
/// # Errors
/// [`Failure::Usage`] for a name that the model lacks, and for one given twice.
pub fn files<'a>(
    inputs: &[ValueInfo],
    given: &'a [(String, PathBuf)],
) -> Result<BTreeMap<&'a str, &'a PathBuf>> {
    let mut files = BTreeMap::new();
    for (name, file) in given {
        if !inputs.iter().any(|info| info.name == *name) {
            let there: Vec<String> = inputs.iter().map(describe).collect();
            let there = if there.is_empty() { "none".into() } else { there.join(", ") };
            return Err(Failure::Usage(format!("--input: the model has no input {name:?}; it has: {there}")));
        }
        if files.insert(name.as_str(), file).is_some() {
            return Err(Failure::Usage(format!("--input: {name:?} is given twice")));
        }
    }
    Ok(files)
}

/// All inputs, in the model's order; `note` is told what was made up or converted.
///
/// # Errors
/// Files that cannot be read; sizes in them that contradict `sizes`; inputs that cannot be made up.
pub fn fill(
    inputs: &[ValueInfo],
    files: &BTreeMap<&str, &PathBuf>,
    sizes: &BTreeMap<String, usize>,
    seed: u64,
    note: &mut dyn FnMut(&str),
) -> Result<Vec<Input>> {
    let mut read = BTreeMap::new();
    let mut known = sizes.clone();
    for info in inputs {
        let Some(file) = files.get(info.name.as_str()) else { continue };
        let npy::Converted { tensor, note: conversion } = npy::read(file, info.dtype)?;
        conversion.iter().for_each(|text| note(text));
        for (axis, dim) in info.shape.iter().flatten().enumerate() {
            let (Some(name), Some(&got)) = (symbol(&info.name, axis, dim), tensor.shape().get(axis)) else {
                continue;
            };
            if let Some(want) = sizes.get(&name).filter(|&&want| want != got) {
                let message = format!(
                    "input {:?}: dimension {name:?} is {got} in {}, and {want} by --dim",
                    info.name,
                    file.display()
                );
                return Err(Failure::Failed(message));
            }
            known.entry(name).or_insert(got);
        }
        read.insert(info.name.as_str(), tensor);
    }
    let mut filled = Vec::new();
    for info in inputs {
        let (tensor, random) = match read.remove(info.name.as_str()) {
            Some(tensor) => (tensor, false),
            None => (made_up(info, &mut known, seed, note)?, true),
        };
        filled.push(Input { name: info.name.clone(), tensor, random });
    }
    Ok(filled)
}

fn made_up(
    info: &ValueInfo,
    known: &mut BTreeMap<String, usize>,
    seed: u64,
    note: &mut dyn FnMut(&str),
) -> Result<Tensor> {
    let Some(declared) = &info.shape else {
        let name = &info.name;
        let message = format!("input {name:?} has no declared shape: give it with --input {name}=FILE.npy");
        return Err(Failure::Usage(message));
    };
    let mut dims = Vec::new();
    for (axis, dim) in declared.iter().enumerate() {
        dims.push(match (dim, symbol(&info.name, axis, dim)) {
            (Dim::Static(size), _) => *size,
            (_, Some(name)) => *known.entry(name).or_insert_with_key(|name| {
                note(&format!("dimension {name:?} is not given: {DEFAULT_SIZE} (--dim {name}=N sets it)"));
                DEFAULT_SIZE
            }),
            (_, None) => DEFAULT_SIZE,
        });
    }
    let name = &info.name;
    let tensor = random(info.dtype, &dims, seed ^ fingerprint(name))
        .map_err(|failure| Failure::Failed(format!("input {name:?}: {failure}")))?;
    note(&format!("input {name:?} is not given: random {} {}, seed {seed}", info.dtype, shape(&dims)));
    Ok(tensor)
}

/// FNV-1a: the name's part in the seed, so that an input's values do not depend on which others are given.
fn fingerprint(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// From the normal distribution, by Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Floats of mean 0 and variance 1; integers 0 or 1, which are valid as tokens, indices and masks; bools.
fn random(dtype: DType, dims: &[usize], seed: u64) -> Result<Tensor> {
    let too_large = |why| Failure::Failed(format!("random {dtype} {}: {why}", shape(dims)));
    let len = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&len| len <= i32::MAX as usize);
    let len = len.ok_or_else(|| too_large("more than the 2147483647 elements that shaders can index"))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact((len * dtype.bits()).div_ceil(8)).map_err(|_| too_large("no memory for them"))?;
    let mut random = Random(seed);
    for i in 0..len {
        let value =
            if dtype.is_float() { Value::F(random.normal()) } else { Value::I((random.next() >> 63) as i64) };
        if !write_element(dtype, i, value, &mut bytes) {
            return Err(Failure::Failed(format!("there are no random values of {dtype}")));
        }
    }
    Ok(Tensor::new(dtype, dims, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Stats;

    #[test]
    fn random_values_are_as_documented() {
        let normal = random(DType::F32, &[100, 100], 1).unwrap();
        let values = normal.to_vec::<f32>().unwrap();
        let variance = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64;
        let stats = Stats::of(&normal).unwrap();
        assert!(stats.mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{stats:?}, variance {variance}");
        for dtype in [DType::I64, DType::U8, DType::I4, DType::Bool] {
            let stats = Stats::of(&random(dtype, &[101], 2).unwrap()).unwrap();
            assert_eq!((stats.min, stats.max), (0.0, 1.0), "{dtype}");
        }
        assert!(random(DType::F32, &[usize::MAX, 2], 0).is_err());
        assert!(random(DType::F32, &[1 << 50], 0).is_err());
    }

    #[test]
    fn seeds_decide() {
        let make = |seed| random(DType::F16, &[8], seed).unwrap();
        assert_eq!(make(3), make(3));
        assert_ne!(make(3), make(4));
    }
}
