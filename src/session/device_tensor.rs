//! Tensors in device memory.

use crate::commands::{from_device, to_device};
use crate::error::Result;
use crate::gpu::{Buffer, Device, Readback, Recording};
use crate::kernel::storage_bytes;
use crate::plan::bound_bytes;
use crate::tensor::{DType, Tensor};

/// A tensor in the memory of a device: an output that a run left there, see [`super::Request::keep`], or an upload of
/// [`super::Session::upload`]. Any session on the same device takes it as an input.
///
/// It owns its memory and nobody writes to it. When it is dropped, the memory serves the next tensor of about its size;
/// what no tensor needs is freed. A tensor keeps its device open, and does not outlive its loss: every use is then an error.
#[derive(Debug)]
pub struct DeviceTensor {
    device: Device,
    buffer: Buffer,
    dtype: DType,
    shape: Vec<usize>,
}

/// For messages of what has no name.
const PLACE: &str = "device tensor";

impl DeviceTensor {
    /// A copy of `tensor` on a device.
    pub(super) fn new(device: &Device, name: &str, tensor: &Tensor) -> Result<DeviceTensor> {
        let (dtype, floats) = (tensor.dtype(), device.caps().floats());
        let bytes = to_device(name, tensor, dtype, floats)?;
        let buffer = device.pooled(name, bound_bytes(tensor.len(), storage_bytes(dtype, floats)))?;
        device.write(&buffer, 0, &bytes)?;
        Ok(DeviceTensor::of(device, buffer, dtype, tensor.shape().to_vec()))
    }

    /// What lies at the beginning of `buffer`, in the device's form of `dtype`.
    pub(super) fn of(device: &Device, buffer: Buffer, dtype: DType, shape: Vec<usize>) -> DeviceTensor {
        DeviceTensor { device: device.clone(), buffer, dtype, shape }
    }

    /// The elements' dtype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Read it back.
    ///
    /// # Errors
    /// [`crate::Error::Device`], also for a device that was lost.
    pub fn to_host(&self) -> Result<Tensor> {
        self.read(self.device.run(&self.readback())?)
    }

    /// [`DeviceTensor::to_host`], waiting for the device without blocking.
    ///
    /// # Errors
    /// As [`DeviceTensor::to_host`].
    pub async fn to_host_async(&self) -> Result<Tensor> {
        self.read(self.device.run_async(&self.readback()).await?)
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    fn readback(&self) -> Recording {
        let len: usize = self.shape.iter().product();
        let size_bytes = (len * storage_bytes(self.dtype, self.device.caps().floats())) as u64;
        let readback = Readback { buffer: self.buffer.clone(), offset_bytes: 0, size_bytes };
        Recording { dispatches: Vec::new(), readbacks: vec![readback] }
    }

    fn read(&self, read: Vec<Vec<u8>>) -> Result<Tensor> {
        let bytes = read.into_iter().next().unwrap_or_default();
        from_device(PLACE, self.dtype, &self.shape, bytes, self.dtype, self.device.caps().floats())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdapterChoice, Error, Session, SessionOptions};

    #[test]
    fn another_device_s_tensor_and_a_lost_device_s_are_refused() {
        if std::env::var_os("TILEWRIGHT_SKIP_GPU").is_some_and(|value| value == "1") {
            return;
        }
        let session = Session::load("examples/data/mlp.onnx", &SessionOptions::default()).unwrap();
        let elsewhere = Device::open(&AdapterChoice::Best).unwrap().apart().unwrap();
        let x =
            DeviceTensor::new(&elsewhere, "x", &Tensor::from_slice(&[1, 4], &[0f32; 4]).unwrap()).unwrap();
        let error = session.request().input("x", &x).run().unwrap_err();
        assert!(matches!(error, Error::Input { .. }), "{error:?}");
        assert!(error.to_string().starts_with("input \"x\": is on another device"), "{error}");
        elsewhere.destroy();
        let error = x.to_host().unwrap_err().to_string();
        assert!(error.contains("device lost"), "{error}");
    }
}
