//! Weights in other files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use prost::Message;
use tilewright::onnx::{open, parse, proto::*};
use tilewright::{DType, Error};

use crate::build::*;

/// `external_data`: keys and values.
type Entries<'a> = &'a [(&'a str, &'a str)];

/// The small model with `w` in another file.
fn with_external(entries: Entries) -> Vec<u8> {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: key.to_string(),
        value: value.to_string(),
    };
    let mut m = small();
    graph_of(&mut m).initializer[0] = TensorProto {
        external_data: entries.iter().map(entry).collect(),
        data_location: LOCATION_EXTERNAL,
        ..tensor("w", DType::F32, &[2])
    };
    m.encode_to_vec()
}

fn open_in(folder: &Path, entries: Entries) -> Result<Vec<f32>, Error> {
    let path = folder.join("m.onnx");
    fs::write(&path, with_external(entries)).unwrap();
    open(&path)?.initializers["w"].to_vec()
}

/// A folder with `w.bin` (12 bytes: 1.0, 2.0, 3.0) and `sub/w.bin`, in a folder with `secret.bin`.
fn folder() -> tempfile::TempDir {
    let outer = tempfile::tempdir().unwrap();
    let data = [1.0f32, 2.0, 3.0].map(f32::to_le_bytes).concat();
    fs::create_dir_all(outer.path().join("model/sub")).unwrap();
    for name in ["secret.bin", "model/w.bin", "model/sub/w.bin"] {
        fs::write(outer.path().join(name), &data).unwrap();
    }
    outer
}

#[test]
fn files_beside_the_model_are_read() {
    let outer = folder();
    let cases: &[(Entries, [f32; 2])] = &[
        (&[("location", "w.bin")], [1.0, 2.0]),
        (&[("location", "w.bin"), ("offset", "4")], [2.0, 3.0]),
        (&[("location", "w.bin"), ("offset", "4"), ("length", "8"), ("checksum", "?")], [2.0, 3.0]),
        (&[("location", "./sub/w.bin"), ("length", "8")], [1.0, 2.0]),
    ];
    for (entries, wanted) in cases {
        assert_eq!(open_in(&outer.path().join("model"), entries).unwrap(), wanted, "{entries:?}");
    }
}

#[test]
fn wrong_locations_are_refused_by_name() {
    let outer = folder();
    let secret = outer.path().join("secret.bin");
    let cases: &[(Entries, &str)] = &[
        (&[], r#"initializer "w": external data: no location is given"#),
        (&[("location", "")], "no location is given"),
        (&[("location", "none.bin")], r#"initializer "w": external data in "none.bin": "#),
        (&[("location", "../secret.bin")], r#"in "../secret.bin": the location must not contain "..""#),
        (&[("location", "sub/../../secret.bin")], r#"the location must not contain "..""#),
        (
            &[("location", secret.to_str().unwrap())],
            "must be relative to the model's folder, got an absolute path",
        ),
        (&[("location", "sub")], "this is a folder, wanted a file"),
        (&[("location", "w.bin"), ("offset", "-4")], r#"offset wants a number of bytes, got "-4""#),
        (&[("location", "w.bin"), ("length", "all")], r#"length wants a number of bytes, got "all""#),
        (
            &[("location", "w.bin"), ("offset", "8")],
            r#"external data in "w.bin": wants 8 bytes from byte 8 on, got a file of 12 bytes"#,
        ),
        (&[("location", "w.bin"), ("offset", "18446744073709551615")], "got a file of 12 bytes"),
        (
            &[("location", "w.bin"), ("length", "12")],
            "float32 of shape [2] wants 8 bytes, got 12 in external data",
        ),
    ];
    for (entries, wanted) in cases {
        let error = open_in(&outer.path().join("model"), entries).unwrap_err().to_string();
        assert!(error.contains(wanted), "wanted {wanted}\n   got {error}");
    }
}

#[cfg(unix)]
#[test]
fn links_must_stay_beside_the_model() {
    use std::os::unix::fs::symlink;
    let outer = folder();
    let model = outer.path().join("model");
    symlink("../secret.bin", model.join("out.bin")).unwrap();
    symlink("sub/w.bin", model.join("in.bin")).unwrap();
    assert_eq!(open_in(&model, &[("location", "in.bin")]).unwrap(), [1.0, 2.0]);
    let error = open_in(&model, &[("location", "out.bin")]).unwrap_err().to_string();
    assert!(error.contains(r#"external data in "out.bin": it is a link to "#), "{error}");
    assert!(error.contains("outside the model's folder"), "{error}");

    // A download cache: both are links into one folder of blobs.
    let (blobs, snapshot) = (outer.path().join("blobs"), outer.path().join("snapshot"));
    fs::create_dir(&blobs).unwrap();
    fs::create_dir(&snapshot).unwrap();
    fs::write(blobs.join("1"), with_external(&[("location", "w.bin")])).unwrap();
    fs::copy(model.join("w.bin"), blobs.join("2")).unwrap();
    symlink("../blobs/1", snapshot.join("m.onnx")).unwrap();
    symlink("../blobs/2", snapshot.join("w.bin")).unwrap();
    assert_eq!(
        open(&snapshot.join("m.onnx")).unwrap().initializers["w"].to_vec::<f32>().unwrap(),
        [1.0, 2.0]
    );
}

#[test]
fn files_in_memory_are_shared() {
    let bytes = Bytes::from(with_external(&[("location", "w.bin"), ("offset", "4")]));
    let data = Bytes::from([1.0f32, 2.0, 3.0].map(f32::to_le_bytes).concat());
    let files = BTreeMap::from([("w.bin".to_string(), data.clone())]);
    let graph = parse(bytes.clone(), &files).unwrap();
    assert_eq!(graph.initializers["w"].bytes().as_ptr(), data[4..].as_ptr());

    let error = parse(bytes.clone(), &BTreeMap::new()).unwrap_err().to_string();
    assert!(error.contains(r#"external data in "w.bin": not among the files given"#), "{error}");
    let error = tilewright::onnx::parse_bytes(bytes).unwrap_err().to_string();
    assert!(
        error.contains("a model given as bytes has no folder to find it in; load the model by path"),
        "{error}"
    );
}

#[test]
fn a_model_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.onnx");
    fs::write(&empty, "").unwrap();
    for (path, wanted) in [
        (folder.path().join("none.onnx"), "none.onnx: "),
        (folder.path().to_path_buf(), "this is a folder, wanted a file"),
        (empty, "empty.onnx: not an ONNX model: the file is empty"),
    ] {
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
