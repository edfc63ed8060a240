//! Operands of quantized products: codes, zero points and scales, with the numbers that they stand for.

use tilewright::{DType, Tensor};

use super::net::{Net, int, made_up};

/// Zero points of an operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Zero {
    Absent,
    /// One.
    Tensor,
    /// One per row of A, column of B or output channel.
    Each,
}

/// What is multiplied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// Integers, by MatMulInteger and ConvInteger.
    Integers,
    /// Floats that DequantizeLinear made, by MatMul and Conv.
    Floats,
}

/// Made-up codes, the least and the largest among them.
pub fn codes(dtype: DType, shape: &[usize], seed: u32) -> Tensor {
    let floats = made_up(shape, seed).to_vec::<f32>().unwrap();
    let mut bytes: Vec<u8> = floats.iter().map(|x| ((x + 1.0) * 128.0) as u8).collect();
    let extremes = if dtype == DType::U8 { [0, 255] } else { [128, 127] };
    bytes.iter_mut().zip(extremes).for_each(|(byte, extreme)| *byte = extreme);
    Tensor::new(dtype, shape, bytes).unwrap()
}

pub fn numbers(tensor: &Tensor) -> Vec<i64> {
    let number =
        |&byte: &u8| if tensor.dtype() == DType::U8 { i64::from(byte) } else { i64::from(byte as i8) };
    tensor.bytes().iter().map(number).collect()
}

/// An operand: its codes, and the zero points and scales of all its elements or of positions along an axis.
pub struct Operand {
    pub name: &'static str,
    pub codes: Tensor,
    numbers: Vec<i64>,
    pub zero: Option<Tensor>,
    zeros: Vec<i64>,
    scale: Tensor,
    axis: usize,
}

impl Operand {
    pub fn new(
        name: &'static str,
        seed: u32,
        dtype: DType,
        shape: &[usize],
        zero: Zero,
        axis: usize,
    ) -> Operand {
        let shared: &[usize] = if zero == Zero::Each { &shape[axis..=axis] } else { &[] };
        let zero = (zero != Zero::Absent).then(|| codes(dtype, shared, seed + 2));
        let scale = made_up(shared, seed + 4);
        let codes = codes(dtype, shape, seed);
        let zeros = zero.as_ref().map_or(vec![0], numbers);
        Operand { name, numbers: numbers(&codes), codes, zero, zeros, scale, axis }
    }

    /// `codes - zero` of the element at `at`.
    pub fn number(&self, at: &[usize]) -> i64 {
        let offset = at.iter().zip(self.codes.shape()).fold(0, |offset, (i, n)| offset * n + i);
        self.numbers[offset] - self.zeros[if self.zeros.len() > 1 { at[self.axis] } else { 0 }]
    }

    pub fn scale(&self, position: usize) -> f64 {
        f64::from(self.scale.to_vec::<f32>().unwrap()[if self.scale.len() > 1 { position } else { 0 }])
    }

    /// The net with the operand: as `a`, its zero point as `a_zero`; where floats are wanted, dequantized as `a_real`.
    pub fn add(&self, net: Net, form: Form) -> Net {
        let Operand { name, axis, .. } = self;
        let (zero, scale, real) = (format!("{name}_zero"), format!("{name}_scale"), format!("{name}_real"));
        let net = self.zero.iter().fold(net, |net, tensor| net.weight(&zero, tensor));
        if form == Form::Integers {
            return net;
        }
        let zero = self.zero.as_ref().map_or("-", |_| &zero);
        net.weight(&scale, &self.scale).node(
            "DequantizeLinear",
            &format!("{name} {scale} {zero}"),
            &real,
            &[int("axis", *axis as i64)],
        )
    }

    pub fn dims(&self) -> String {
        self.codes.shape().iter().map(|n| format!("{n} ")).collect()
    }
}
