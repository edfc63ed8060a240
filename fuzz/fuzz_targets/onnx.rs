//! The ONNX reader on any bytes: as a model, and as a tensor.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tilewright::onnx::{parse_bytes, parse_tensor};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let _ = parse_bytes(bytes.clone());
    let _ = parse_tensor(bytes);
});
