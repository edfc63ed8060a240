//! Eight networks as an exporter leaves them, every output against ONNX Runtime's.
//!
//! A model's cases run through one session, first in order and then in reverse, so that what an earlier shape left
//! behind shows. `TILEWRIGHT_MODELS=all` runs every case instead of those in `tests/models/quick.txt`.

mod support;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use support::{compare, say};
use tilewright::{Session, Tensor};

macro_rules! models {
    ($($name:ident)*) => {
        const MODELS: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { check(stringify!($name)); })*
    };
}
models! { minilm resnet18 mobilenetv2 vit_tiny t5_small_enc whisper_tiny_enc gpt2_6l llama_4l }

/// One model at a time: they would share the device, and their times would say nothing.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Case {
    name: String,
    inputs: Vec<(String, Tensor)>,
    /// Expected outputs, in the order of the session's.
    outputs: Vec<(String, Tensor)>,
    first_ms: f64,
    steady_ms: f64,
    dispatches: usize,
    worst_error: f64,
}

fn listing(model: &str) -> serde_json::Value {
    let path = support::root().join(format!("tests/models/{model}.cases.json"));
    serde_json::from_str(&support::read_text(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The names of the cases to run: those of quick.txt, or all.
fn case_names(model: &str, listing: &serde_json::Value) -> Vec<String> {
    match std::env::var("TILEWRIGHT_MODELS").as_deref() {
        Ok("all") => {
            let cases = listing["cases"].as_array().expect("a list of cases");
            cases.iter().map(|case| case["name"].as_str().expect("a name").to_owned()).collect()
        }
        Ok(other) => panic!("TILEWRIGHT_MODELS={other}: want `all`, or nothing for the quick cases"),
        Err(_) => {
            let rows = support::rows(&support::root().join("tests/models/quick.txt"));
            let row = rows.into_iter().find(|row| row[0] == model);
            row.unwrap_or_else(|| panic!("tests/models/quick.txt has no case of {model}"))[1..].to_vec()
        }
    }
}

fn read_case(model: &str, name: String, session: &Session) -> Case {
    let folder = support::test_data(&format!("models/{model}.cases/{name}"));
    let read = |role: &str, value: &str| {
        let tensor = support::read_npy(&folder.join(format!("{role}_{}.npy", value.replace('/', "_"))));
        (value.to_owned(), tensor)
    };
    let inputs = session.inputs().iter().map(|value| read("input", &value.name)).collect();
    let outputs: Vec<_> = session.outputs().iter().map(|value| read("output", &value.name)).collect();
    let files = std::fs::read_dir(&folder).expect("a folder that exists").flatten();
    let expected = files.filter(|file| file.file_name().to_string_lossy().starts_with("output_")).count();
    assert_eq!(outputs.len(), expected, "{model}: outputs of the session, and files in {}", folder.display());
    Case { name, inputs, outputs, first_ms: 0.0, steady_ms: 0.0, dispatches: 0, worst_error: 0.0 }
}

/// Run one case once: its time, and the largest error over its outputs.
fn run(session: &Session, case: &Case) -> Result<(f64, f64), String> {
    let inputs: Vec<(&str, &Tensor)> =
        case.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let start = Instant::now();
    let outputs = session.run(&inputs).map_err(|e| e.to_string())?;
    let elapsed_ms = start.elapsed().as_secs_f64() * 1e3;
    let mut worst = 0.0f64; // no error is NaN: relative_error wants finite outputs
    for (name, want) in &case.outputs {
        let got = outputs.get(name).ok_or_else(|| format!("output {name}: missing"))?;
        let error = compare::relative_error(got, want).map_err(|e| format!("output {name}: {e}"))?;
        worst = worst.max(error);
    }
    Ok((elapsed_ms, worst))
}

fn check(model: &str) {
    if support::skip_gpu(model) {
        return;
    }
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let listing = listing(model);
    let tolerance = listing["tolerance"].as_f64().expect("a tolerance");
    let path = support::test_data(&format!("models/{model}.onnx"));
    let start = Instant::now();
    let session = support::load(&path).unwrap_or_else(|e| panic!("{model}: {e}"));
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let names = case_names(model, &listing);
    let mut cases: Vec<Case> = names.into_iter().map(|name| read_case(model, name, &session)).collect();

    let mut failures = Vec::new();
    let there_and_back = (0..cases.len()).chain((0..cases.len()).rev());
    for (run_index, case_index) in there_and_back.enumerate() {
        let is_first = run_index < cases.len();
        let case = &mut cases[case_index];
        let pass = if is_first { "in order" } else { "in reverse" };
        match run(&session, case) {
            Err(message) => {
                failures.push(format!("{} ({pass}): {message}", case.name));
                case.worst_error = f64::INFINITY;
            }
            Ok((elapsed_ms, error)) => {
                if is_first {
                    case.first_ms = elapsed_ms;
                } else {
                    case.steady_ms = elapsed_ms;
                }
                case.dispatches = session.dispatches();
                case.worst_error = case.worst_error.max(error);
                if error > tolerance {
                    failures.push(format!(
                        "{} ({pass}): error {error:.1e}, want at most {tolerance:.0e}",
                        case.name
                    ));
                }
            }
        }
    }
    print_table(model, &session, load_ms, &cases);
    assert!(failures.is_empty(), "{model} differs from ONNX Runtime\n  {}", failures.join("\n  "));
}

fn print_table(model: &str, session: &Session, load_ms: f64, cases: &[Case]) {
    let adapter = session.adapter();
    let mut table = format!("\n{model}: loaded in {load_ms:.0} ms on {}\n", adapter.name);
    table += "  case                   error  dispatches   first ms  steady ms";
    for case in cases {
        table += &format!(
            "\n  {:<20} {:>7.1e} {:>11} {:>10.1} {:>10.1}",
            case.name, case.worst_error, case.dispatches, case.first_ms, case.steady_ms
        );
    }
    say!("{table}");
}

#[test]
fn every_model_has_a_test() {
    let folder: &Path = &support::root().join("tests/models");
    let files = std::fs::read_dir(folder).expect("the folder of models").flatten();
    let names = files.filter_map(|file| {
        let name = file.file_name().into_string().expect("UTF-8");
        name.strip_suffix(".topology.onnx").map(str::to_owned)
    });
    let mut names: Vec<String> = names.collect();
    let mut tested = MODELS.to_vec();
    names.sort();
    tested.sort();
    assert_eq!(names, tested);
}
