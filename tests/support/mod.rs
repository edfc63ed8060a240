//! What the tests share: where data lies, the device, `.npy` files, comparison.
#![allow(dead_code, unused_macros, unused_imports)] // each test binary uses its own part of this

pub mod codes;
pub mod compare;
pub mod contractions;
pub mod corpus;
pub mod kernels;
pub mod maps;
pub mod net;
pub mod rows;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use tilewright::{AdapterChoice, Element, Error, Session, SessionOptions, Tensor};

/// Print a line that `cargo test` does not capture: tables are for reading when all is well.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}
pub(crate) use say;

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file or folder under `target/test-data`. Panics with the command that makes it where it is missing.
pub fn test_data(relative: &str) -> PathBuf {
    let path = root().join("target/test-data").join(relative);
    assert!(path.exists(), "{} is missing: run `make test-data`", path.display());
    path
}

/// The text of a file of the repository.
pub fn read_text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The rows of a table in a text file: words, without empty lines and lines that begin with `#`.
pub fn rows(path: &Path) -> Vec<Vec<String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    read_text(path).lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()).map(words).collect()
}

/// Whether tests that need a device are to be passed over: `TILEWRIGHT_SKIP_GPU=1`. Says so where it is.
pub fn skip_gpu(test: &str) -> bool {
    let skip = std::env::var("TILEWRIGHT_SKIP_GPU").is_ok_and(|v| v == "1");
    if skip {
        say!("{test}: not run, TILEWRIGHT_SKIP_GPU=1");
    }
    skip
}

/// The options of every test's sessions. `TILEWRIGHT_ADAPTER=NAME` chooses another adapter than the best.
pub fn options() -> SessionOptions {
    let mut options = SessionOptions { allow_f64_as_f32: true, ..SessionOptions::default() };
    if let Ok(name) = std::env::var("TILEWRIGHT_ADAPTER") {
        options.adapter = AdapterChoice::Name(name);
    }
    options
}

/// Load a model file. Panics without an adapter: a test that needs a device fails where there is none.
pub fn load(path: &Path) -> tilewright::Result<Session> {
    let session = Session::load(path, &options());
    if let Err(Error::Adapter(message)) = &session {
        panic!(
            "this test needs a GPU or a software Vulkan driver: {message}\n\
             `tools/setup.sh demo` installs one; TILEWRIGHT_SKIP_GPU=1 passes over the tests that need one"
        );
    }
    session
}

/// The tensor in an `.npy` file.
pub fn read_npy(path: &Path) -> Tensor {
    let fail = |e: &dyn std::fmt::Display| -> ! { panic!("{}: {e}", path.display()) };
    let file = File::open(path).unwrap_or_else(|e| fail(&e));
    let npy = npyz::NpyFile::new(BufReader::new(file)).unwrap_or_else(|e| fail(&e));
    if npy.order() != npyz::Order::C {
        fail(&"want row-major order");
    }
    let shape: Vec<usize> = npy.shape().iter().map(|&d| d as usize).collect();
    let tensor = match npy.dtype().descr().trim_matches('\'') {
        "<f4" => elements::<f32, _>(npy, &shape),
        "<f8" => elements::<f64, _>(npy, &shape),
        "<i8" => elements::<i64, _>(npy, &shape),
        "<i4" => elements::<i32, _>(npy, &shape),
        "|u1" => elements::<u8, _>(npy, &shape),
        "|b1" => elements::<bool, _>(npy, &shape),
        other => fail(&format!("dtype {other} is none that a test writes")),
    };
    tensor.unwrap_or_else(|e| fail(&e))
}

fn elements<T: Element + npyz::Deserialize, R: std::io::Read>(
    npy: npyz::NpyFile<R>,
    shape: &[usize],
) -> Result<Tensor, String> {
    let values: Vec<T> = npy.into_vec().map_err(|e| e.to_string())?;
    Tensor::from_slice(shape, &values).map_err(|e| e.to_string())
}
