//! What a run takes and gives: tensors on the host, and tensors that stay on the device.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::Session;
use super::device_tensor::DeviceTensor;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// An input of a run.
#[derive(Debug)]
pub enum Input<'a> {
    /// Uploaded for the run.
    Host(&'a Tensor),
    /// Read where it lies.
    Device(&'a DeviceTensor),
    /// The same, and given up: an output that stays on the device and is this tensor with a part replaced is made in its
    /// memory, by writing that part.
    Donated(DeviceTensor),
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Input::Host(tensor)
    }
}
impl<'a> From<&'a DeviceTensor> for Input<'a> {
    fn from(tensor: &'a DeviceTensor) -> Self {
        Input::Device(tensor)
    }
}
impl From<DeviceTensor> for Input<'_> {
    fn from(tensor: DeviceTensor) -> Self {
        Input::Donated(tensor)
    }
}

impl Input<'_> {
    pub(super) fn dtype(&self) -> DType {
        match self {
            Input::Host(tensor) => tensor.dtype(),
            Input::Device(tensor) => tensor.dtype(),
            Input::Donated(tensor) => tensor.dtype(),
        }
    }

    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Input::Host(tensor) => tensor.shape(),
            Input::Device(tensor) => tensor.shape(),
            Input::Donated(tensor) => tensor.shape(),
        }
    }

    pub(super) fn on_device(&self) -> Option<&DeviceTensor> {
        match self {
            Input::Host(_) => None,
            Input::Device(tensor) => Some(tensor),
            Input::Donated(tensor) => Some(tensor),
        }
    }

    /// The elements, where the plan depends on them.
    pub(super) fn to_host(&self) -> Result<Tensor> {
        match self {
            Input::Host(tensor) => Ok((*tensor).clone()),
            Input::Device(tensor) => tensor.to_host(),
            Input::Donated(tensor) => tensor.to_host(),
        }
    }
}

/// A run to be made: where each input comes from, and which outputs stay on the device.
///
/// ```
/// # use tilewright::{Session, SessionOptions, Tensor};
/// # let session = Session::load("examples/data/mlp.onnx", &SessionOptions::default())?;
/// # let x = Tensor::from_slice(&[2, 4], &[1.0f32, 0.0, -1.0, 2.0, 0.5, 0.5, 0.5, 0.5])?;
/// let mut outputs = session.request().input("x", &x).keep("probabilities").run()?;
/// let probabilities = outputs.take_kept("probabilities").expect("it was asked for");
/// assert_eq!(probabilities.shape(), [2, 3]);
/// assert_eq!(probabilities.to_host()?, session.run(&[("x", &x)])?["probabilities"]);
/// # Ok::<(), tilewright::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Request<'a> {
    session: &'a Session,
    pub(super) inputs: Vec<(Cow<'a, str>, Input<'a>)>,
    keep: Vec<Cow<'a, str>>,
}

impl<'a> Request<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        Request { session, inputs: Vec::new(), keep: Vec::new() }
    }

    /// The input of that name: a [`Tensor`], or a [`DeviceTensor`], which is read where it lies. A device tensor that is
    /// moved in is given up: where an output is this tensor with a part replaced, is kept ([`Request::keep`]) and has the
    /// same shape, it takes over the memory, and only that part is written. So it is with the caches of
    /// GroupQueryAttention, when they have room for all positions, and with TensorScatter, ScatterND and ScatterElements
    /// without a reduction, whose indices must differ, as ONNX wants. Positions of a cache that no sequence has reached
    /// stay as they are. If the run fails, the tensor is gone.
    pub fn input(mut self, name: impl Into<Cow<'a, str>>, tensor: impl Into<Input<'a>>) -> Self {
        self.inputs.push((name.into(), tensor.into()));
        self
    }

    /// Leave the output of that name on the device, in memory of its own; [`Outputs::take_kept`] gives it.
    pub fn keep(mut self, name: impl Into<Cow<'a, str>>) -> Self {
        self.keep.push(name.into());
        self
    }

    /// Run the model.
    ///
    /// # Errors
    /// As [`Session::run`]; also [`Error::Input`] for a tensor on another device, and [`Error::Model`] for an output that
    /// the model does not have.
    pub fn run(self) -> Result<Outputs> {
        let session = self.session;
        session.run_request(self)
    }

    /// [`Request::run`], waiting for the device without blocking.
    ///
    /// # Errors
    /// As [`Request::run`].
    pub async fn run_async(self) -> Result<Outputs> {
        let session = self.session;
        session.run_request_async(self).await
    }

    /// The numbers of the outputs that stay on the device.
    pub(super) fn kept(&self) -> Result<BTreeSet<usize>> {
        let outputs = self.session.outputs();
        let mut kept = BTreeSet::new();
        for name in &self.keep {
            let of_name = || (0..outputs.len()).filter(|&number| outputs[number].name == *name);
            if of_name().next().is_none() {
                let names: Vec<String> = outputs.iter().map(|info| format!("{:?}", info.name)).collect();
                let message = format!("the model has no such output; it has {}", names.join(", "));
                return Err(Error::model(format!("output {name:?}"), message));
            }
            kept.extend(of_name());
        }
        Ok(kept)
    }
}

/// A run's outputs, by name, in the model's order.
#[derive(Debug, Default)]
pub struct Outputs {
    host: Vec<(String, Tensor)>,
    kept: Vec<(String, DeviceTensor)>,
}

impl Outputs {
    pub(super) fn add(&mut self, name: &str, tensor: Tensor) {
        self.host.push((name.to_owned(), tensor));
    }

    pub(super) fn add_kept(&mut self, name: &str, tensor: DeviceTensor) {
        self.kept.push((name.to_owned(), tensor));
    }

    /// The output of that name, where it came to the host.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.host.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor)
    }

    /// All outputs that came to the host.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.host.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The output of that name, where it stayed on the device and was not taken before.
    pub fn take_kept(&mut self, name: &str) -> Option<DeviceTensor> {
        let position = self.kept.iter().position(|(n, _)| n == name)?;
        Some(self.kept.remove(position).1)
    }
}

impl std::ops::Index<&str> for Outputs {
    type Output = Tensor;

    /// The output of that name.
    ///
    /// # Panics
    /// When there is none, or it stayed on the device; [`Outputs::get`] does not.
    fn index(&self, name: &str) -> &Tensor {
        match self.get(name) {
            Some(tensor) => tensor,
            None => panic!("no output {name:?} on the host"),
        }
    }
}
