//! Is this a model file at all, and is all of it there? Answered from the outermost fields, before
//! decoding, so that the answer names a format or a missing length and not a protobuf detail.

use crate::error::{Error, Result};

/// Formats that are met in place of an ONNX file: offset, bytes there, name.
const OTHER_FORMATS: &[(usize, &[u8], &str)] = &[
    (0, b"version https://git-lfs", "a Git LFS pointer (fetch the file itself)"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"PK\x03\x04", "a ZIP archive (as PyTorch's .pt)"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\x89HDF", "an HDF5 file (as Keras's .h5)"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"\x93NUMPY", "a NumPy file"),
    (0, b"\x80\x02", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (4, b"TFL3", "a TensorFlow Lite file"),
    (4, b"ORTM", "an ONNX Runtime .ort file"),
    (8, b"{\"", "a safetensors file"),
];

/// Bytes looked at to tell text from protobuf; a model's first fields are shorter than that.
const TEXT_PROBE_BYTES: usize = 512;

/// The fields of `ModelProto`: number, wire type, name.
const MODEL_FIELDS: &[(u64, u64, &str)] = &[
    (1, VARINT, "ir_version"),
    (2, LEN, "producer_name"),
    (3, LEN, "producer_version"),
    (4, LEN, "domain"),
    (5, VARINT, "model_version"),
    (6, LEN, "doc_string"),
    (7, LEN, "graph"),
    (8, LEN, "opset_import"),
    (14, LEN, "metadata_props"),
    (20, LEN, "training_info"),
    (25, LEN, "functions"),
    (26, LEN, "configuration"),
];

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LEN: u64 = 2;
const FIXED32: u64 = 5;

/// Checks that `bytes` are laid out as a `ModelProto`, without decoding it.
///
/// # Errors
/// [`Error::Parse`]: not an ONNX model, and what it looks like; or cut off, and where.
pub(super) fn check_model(place: &str, bytes: &[u8]) -> Result<()> {
    let not_onnx = |why: String| Error::parse(place, format!("not an ONNX model: {why}"));
    if bytes.is_empty() {
        return Err(not_onnx("the file is empty".into()));
    }
    for (offset, magic, name) in OTHER_FORMATS {
        if bytes.get(*offset..).is_some_and(|rest| rest.starts_with(magic)) {
            return Err(not_onnx(format!("this is {name}")));
        }
    }
    let probe = &bytes[..bytes.len().min(TEXT_PROBE_BYTES)];
    if probe.iter().all(|b| *b >= b' ' || matches!(b, b'\t' | b'\n' | b'\r')) {
        return Err(not_onnx("this looks like text".into()));
    }

    let mut at = 0;
    while at < bytes.len() {
        let field_at = at;
        let cut_off = |what: String| {
            if field_at == 0 {
                not_onnx(what)
            } else {
                Error::parse(place, format!("the file is cut off or damaged: {what}"))
            }
        };
        let Some(key) = varint(bytes, &mut at) else {
            return Err(cut_off(format!("no field can be read at byte {field_at}")));
        };
        let (number, wire_type) = (key >> 3, key & 7);
        let known = MODEL_FIELDS.iter().find(|field| field.0 == number);
        let name = match known {
            Some((_, wanted, name)) if *wanted == wire_type => *name,
            Some((_, wanted, name)) => {
                let what =
                    format!("field {name} at byte {field_at} wants wire type {wanted}, got {wire_type}");
                return Err(cut_off(what));
            }
            // Later versions of ONNX may add fields, but none has begun a file with one.
            None if field_at > 0 && number > 0 => "unknown",
            None => return Err(cut_off(format!("ModelProto has no field {number}, as at byte {field_at}"))),
        };
        let remaining_bytes = |at: usize| (bytes.len() - at) as u64;
        let payload_bytes = match wire_type {
            VARINT => varint(bytes, &mut at).map(|_| 0),
            FIXED64 => Some(8),
            LEN => varint(bytes, &mut at),
            FIXED32 => Some(4),
            _ => return Err(cut_off(format!("wire type {wire_type} at byte {field_at}"))),
        };
        match payload_bytes {
            Some(len) if len <= remaining_bytes(at) => at += len as usize,
            Some(len) => {
                let what = format!("field {name} wants {len} bytes, got {}", remaining_bytes(at));
                return Err(cut_off(what));
            }
            None => return Err(cut_off(format!("field {name} at byte {field_at} ends too early"))),
        }
    }
    Ok(())
}

/// A protobuf varint at `at`, which moves behind it.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
