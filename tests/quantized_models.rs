//! Quantized and float16 variants of the networks, as ONNX Runtime's own tools make them, against ONNX Runtime.
//!
//! `tests/models/quantized.txt` lists them, with tolerances; `tools/quantize_models.py` makes those marked quick, and
//! all of them for `TILEWRIGHT_MODELS=all`.

mod support;

use std::path::Path;
use std::time::Instant;

use support::{compare, say};
use tilewright::{Session, Tensor};

/// A row of the table.
struct Variant {
    name: String,
    is_quick: bool,
    tolerance: f64,
    cases: Vec<String>,
}

fn variants() -> Vec<Variant> {
    let row = |row: Vec<String>| match row.as_slice() {
        [model, variant, pace, tolerance, cases @ ..] if !cases.is_empty() => Variant {
            name: format!("{model}-{variant}"),
            is_quick: pace == "quick",
            tolerance: tolerance.parse().unwrap_or_else(|_| panic!("quantized.txt: tolerance {tolerance:?}")),
            cases: cases.to_vec(),
        },
        other => {
            panic!("quantized.txt: want a model, a variant, a pace, a tolerance, and cases, got {other:?}")
        }
    };
    support::rows(&support::root().join("tests/models/quantized.txt")).into_iter().map(row).collect()
}

fn read(folder: &Path, role: &str, name: &str) -> Tensor {
    support::read_npy(&folder.join(format!("{role}_{}.npy", name.replace('/', "_"))))
}

/// The largest error over the outputs of a case.
fn error(session: &Session, folder: &Path) -> Result<f64, String> {
    let inputs: Vec<(String, Tensor)> = session
        .inputs()
        .iter()
        .map(|value| (value.name.clone(), read(folder, "input", &value.name)))
        .collect();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let got = session.run(&inputs).map_err(|e| e.to_string())?;
    let mut worst = 0.0f64;
    for value in session.outputs() {
        let want = read(folder, "output", &value.name);
        let found = got.get(&value.name).ok_or_else(|| format!("output {}: missing", value.name))?;
        worst = worst.max(compare::relative_error(found, &want).map_err(|e| format!("{}: {e}", value.name))?);
    }
    Ok(worst)
}

#[test]
fn variants_agree_with_onnx_runtime() {
    if support::skip_gpu("quantized models") {
        return;
    }
    let all = std::env::var("TILEWRIGHT_MODELS").is_ok_and(|which| which == "all");
    let (mut table, mut failures) = (String::new(), Vec::new());
    for variant in variants().into_iter().filter(|variant| all || variant.is_quick) {
        let Variant { name, tolerance, cases, .. } = variant;
        let start = Instant::now();
        let session = support::load(&support::test_data(&format!("models/{name}.onnx")));
        let session = match session {
            Ok(session) => session,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        for case in cases {
            match error(&session, &support::test_data(&format!("models/{name}.cases/{case}"))) {
                Ok(error) => {
                    let seconds = start.elapsed().as_secs_f64();
                    table += &format!(
                        "\n  {name:<24} {case:<16} {error:>8.1e} of {tolerance:.1e}, after {seconds:.1} s"
                    );
                    if error > tolerance {
                        failures
                            .push(format!("{name}, {case}: error {error:.1e}, want at most {tolerance:.0e}"));
                    }
                }
                Err(message) => failures.push(format!("{name}, {case}: {message}")),
            }
        }
    }
    say!("{table}");
    assert!(failures.is_empty(), "differs from ONNX Runtime\n  {}", failures.join("\n  "));
}
