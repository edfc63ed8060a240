//! Smallest, largest and mean element of a tensor.

use serde_json::Value as Json;
use tilewright::expr::read_element;
use tilewright::{DType, Tensor};

use crate::table;

/// What the elements of a tensor are like; all NaN where one of them is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// Whether the elements are integers or bools.
    whole: bool,
}

impl Stats {
    /// Of `tensor`; `None` where it has no elements, or they are no numbers.
    pub fn of(tensor: &Tensor) -> Option<Stats> {
        let (mut min, mut max, mut sum, mut nan) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, false);
        for i in 0..tensor.len() {
            let value = read_element(tensor.dtype(), tensor.bytes(), i)?.to_f64();
            nan |= value.is_nan();
            min = min.min(value);
            max = max.max(value);
            sum += value;
        }
        if tensor.is_empty() {
            return None;
        }
        let whole = tensor.dtype().is_int() || tensor.dtype() == DType::Bool;
        let mean = sum / tensor.len() as f64;
        Some(if nan {
            Stats { min: f64::NAN, max: f64::NAN, mean: f64::NAN, whole }
        } else {
            Stats { min, max, mean, whole }
        })
    }

    /// Minimum, maximum and mean as text.
    pub fn cells(stats: Option<Stats>) -> [String; 3] {
        let Some(stats) = stats else { return ["-", "-", "-"].map(String::from) };
        let extreme = |v: f64| if stats.whole { format!("{v}") } else { table::number(v) };
        [extreme(stats.min), extreme(stats.max), table::number(stats.mean)]
    }

    /// Minimum, maximum and mean for JSON, which has no infinities and no NaN: they become null.
    pub fn json(stats: Option<Stats>) -> [Json; 3] {
        let Some(stats) = stats else { return [Json::Null, Json::Null, Json::Null] };
        let extreme = |v: f64| if stats.whole { Json::from(v as i64) } else { Json::from(v) };
        [extreme(stats.min), extreme(stats.max), Json::from(stats.mean)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_is_not_passed_over() {
        let tensor = Tensor::from_slice(&[3], &[1.0f32, f32::NAN, 3.0]).unwrap();
        let stats = Stats::of(&tensor).unwrap();
        assert!(stats.min.is_nan() && stats.max.is_nan() && stats.mean.is_nan());
        assert_eq!(Stats::json(Some(stats))[0], Json::Null);
    }

    #[test]
    fn integers_stay_integers() {
        let tensor = Tensor::from_slice(&[2], &[-3i64, 4]).unwrap();
        let stats = Stats::of(&tensor);
        assert_eq!(Stats::cells(stats), ["-3", "4", "0.500000"]);
        assert_eq!(Stats::json(stats), [Json::from(-3), Json::from(4), Json::from(0.5)]);
        assert_eq!(Stats::of(&Tensor::from_slice::<f32>(&[0], &[]).unwrap()), None);
    }
}
