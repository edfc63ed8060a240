//! The command line as other programs see it: arguments, exit status, standard output and error, files.
//!
//! Tests that run a model fail where there is no adapter, unless `TILEWRIGHT_SKIP_GPU=1` passes over them.
#![cfg(feature = "cli")]

#[path = "cli/models.rs"]
mod models;
#[path = "cli/program.rs"]
mod program;
#[path = "cli/records.rs"]
mod records;
#[path = "cli/tuning.rs"]
mod tuning;

use std::process::Stdio;

use models::{Folder, read_npy, text};
#[cfg(target_os = "linux")]
use program::call_without_adapter;
use program::{Call, call, command, run, skip_gpu};
use serde_json::Value as Json;

fn bytes<const N: usize>(values: &[impl Copy + Into<f64>], write: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| write(value.into())).collect()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    bytes(values, |v| (v as f32).to_le_bytes())
}

fn i64s(values: &[i32]) -> Vec<u8> {
    bytes(values, |v| (v as i64).to_le_bytes())
}

#[test]
fn help_and_version() {
    let version = call(&["--version"]);
    assert_eq!(version.stdout, concat!("tilewright ", env!("CARGO_PKG_VERSION"), "\n"));
    for (arguments, texts) in [
        (
            vec!["--help"],
            vec!["devices", "run", "inspect", "tune", "explain", "store", "emit", "bench", "Examples:"],
        ),
        (vec!["devices", "--help"], vec!["--json"]),
        (
            vec!["run", "--help"],
            vec![
                "--input <NAME=FILE.npy>",
                "--dim <NAME=N>",
                "--output-dir <DIR>",
                "--repeat <N>",
                "--adapter <NAME|INDEX>",
                "--json",
                "--allow-f64-as-f32",
                "--f16-sums",
                "--seed <N>",
                "--profile",
                "Examples:",
            ],
        ),
        (
            vec!["tune", "--help"],
            vec![
                "--budget <SECONDS>",
                "--exhaustive",
                "--op <OP>",
                "ROWS=,COLS=",
                "--report",
                "--no-records",
            ],
        ),
        (vec!["explain", "--help"], vec!["--kernel <LABEL>", "--records <FILE>"]),
        (vec!["store", "--help"], vec!["path", "list", "show", "merge", "export", "import", "clear"]),
        (vec!["emit", "--help"], vec!["--schedule", "--target", "naga", "browser", "Examples:"]),
        (vec!["bench", "--help"], vec!["--compare <OLD.json> <NEW.json>", "--op"]),
        (vec!["inspect", "--help"], vec!["--plan", "--wgsl [<KERNEL>]", "--dim", "--json", "Examples:"]),
    ] {
        let help = call(&arguments);
        assert_eq!(help.status, 0, "{help:?}");
        for text in texts {
            assert!(help.stdout.contains(text), "{arguments:?}: want {text:?} in {}", help.stdout);
        }
    }
}

#[test]
fn wrong_usage_is_2() {
    let folder = Folder::new();
    let small = &folder.file("small.onnx", models::small());
    let no_shape = &folder.file("no_shape.onnx", models::without_shape());
    for (arguments, texts) in [
        (vec![], vec!["Usage: tilewright"]),
        (vec!["walk"], vec!["walk"]),
        (vec!["run"], vec!["<MODEL>"]),
        (vec!["run", small, "--speed"], vec!["--speed"]),
        (vec!["run", small, "--repeat", "few"], vec!["--repeat", "few"]),
        (vec!["run", small, "--input", "x"], vec!["NAME=FILE.npy"]),
        (vec!["run", small, "--dim", "batch"], vec!["NAME=N"]),
        (vec!["run", small, "--dim", "batch=many"], vec!["\"many\""]),
        (
            vec!["run", small, "--input", "z=z.npy"],
            vec!["\"z\"", "\"x\" float32 [batch, 2]", "\"ids\" int64"],
        ),
        (vec!["run", small, "--input", "x=a.npy", "--input", "x=b.npy"], vec!["\"x\" is given twice"]),
        (vec!["run", small, "--dim", "height=3"], vec!["\"height\"", "there are: \"batch\""]),
        (vec!["run", small, "--dim", "batch=3", "--dim", "batch=3"], vec!["\"batch\" is given twice"]),
        (vec!["run", no_shape], vec!["--input x=FILE.npy"]),
        (vec!["inspect", small, "--dim", "height=3"], vec!["\"height\"", "there are: \"batch\""]),
        (vec!["inspect", small, "--wgsl", "gemm_99"], vec!["\"gemm_99\"", "there are: map_0"]),
        (vec!["tune"], vec!["<MODEL>"]),
        (vec!["tune", small, "--op", "map", "--shape", "N=1"], vec!["cannot be used with"]),
        (vec!["tune", "--op", "map"], vec!["--shape"]),
        (
            vec!["tune", "--op", "sort", "--shape", "N=1"],
            vec!["sort", "gemm, conv, attention, softmax, layernorm, map"],
        ),
        (vec!["tune", "--op", "gemm", "--shape", "M=2"], vec!["N is missing", "gemm wants M=,N=,K=,[B=1]"]),
        (vec!["tune", small, "--budget", "long"], vec!["number of seconds"]),
        (vec!["tune", small, "--budget", "1", "--exhaustive"], vec!["cannot be used with"]),
        (vec!["tune", small, "--records", "r", "--no-records"], vec!["cannot be used with"]),
        (vec!["tune", small, "--dim", "height=3"], vec!["\"height\"", "there are: \"batch\""]),
        (vec!["store"], vec!["Usage: tilewright store"]),
        (vec!["bench", "--compare", "old.json"], vec!["--compare"]),
    ] {
        let call = call(&arguments).fails(2, &texts);
        assert_eq!(call.stdout, "", "{arguments:?}");
    }
}

#[test]
fn failures_are_1_and_name_the_file() {
    let folder = Folder::new();
    let small = &folder.file("small.onnx", models::small());
    let prose = &folder.file("prose.onnx", "This is no model.");
    let missing = &text(&folder.path("missing"));
    let cut_off = &folder.npy("cut_off.npy", "<f4", &[1, 2], &[0; 5]);
    let complex = &folder.npy("complex.npy", "<c8", &[1, 2], &[0; 16]);
    let batch_of_3 = &folder.npy("3.npy", "<f4", &[3, 2], &[0; 24]);
    let x = |path: &str| format!("x={path}");
    for (arguments, texts) in [
        (vec!["run", missing], vec![missing.as_str()]),
        (vec!["inspect", missing], vec![missing]),
        (vec!["run", prose], vec![prose, "not an ONNX model: this looks like text", "hint:"]),
        (vec!["inspect", prose], vec![prose, "not an ONNX model"]),
        (vec!["run", small, "--input", &x(missing)], vec![missing]),
        (vec!["run", small, "--input", &x(prose)], vec![prose, "not a .npy file"]),
        (vec!["run", small, "--input", &x(cut_off)], vec![cut_off, "wants 8 bytes, got 5"]),
        (vec!["run", small, "--input", &x(complex)], vec![complex, "<c8"]),
        (
            vec!["run", small, "--dim", "batch=2", "--input", &x(batch_of_3)],
            vec!["\"batch\" is 3 in", "and 2 by --dim"],
        ),
    ] {
        let call = call(&arguments).fails(1, &texts);
        assert_eq!(call.stdout, "", "{arguments:?}");
        assert!(call.stderr.contains("tilewright: "), "{}", call.stderr);
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let folder = Folder::new();
    let small = folder.file("small.onnx", models::small());
    for arguments in
        [vec!["--help"], vec!["devices"], vec!["devices", "--json"], vec!["inspect", &small, "--wgsl"]]
    {
        let mut child =
            command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
        drop(child.stdout.take());
        let call = Call::from(child.wait_with_output().expect("the program"));
        assert_eq!(call.status, 0, "{arguments:?}: {call:?}");
    }
}

#[test]
fn inspect_describes_a_model() {
    let folder = Folder::new();
    let path = folder.file("small.onnx", models::small());
    let json = call(&["inspect", &path, "--json", "--plan", "--wgsl", "--dim", "batch=8"]).json();
    assert_eq!(
        json["inputs"][0],
        serde_json::json!({ "name": "x", "dtype": "float32", "shape": ["batch", 2] })
    );
    assert_eq!(json["opsets"]["ai.onnx"], 20);
    assert_eq!(json["operators"], serde_json::json!({ "Add": 2, "Cast": 2, "Greater": 1 }));
    assert_eq!(json["unsupported"], serde_json::json!([]));
    assert_eq!(json["needs_inputs"], serde_json::json!([]));
    assert_eq!(json["initializers"], serde_json::json!({ "count": 1, "size_bytes": 8 }));
    let steps = json["plan"]["steps"].as_array().expect("steps");
    assert_eq!(json["dispatches"], steps.len());
    let memory = &json["memory"];
    let parts =
        ["weights_bytes", "once_bytes", "inputs_bytes", "arena_bytes"].map(|p| memory[p].as_u64().unwrap());
    assert_eq!(memory["peak_bytes"], parts.iter().sum::<u64>());
    let arenas = json["plan"]["arenas"].as_array().expect("arenas");
    assert_eq!(parts[3], arenas.iter().map(|arena| arena["size_bytes"].as_u64().unwrap()).sum::<u64>());
    let kernels = json["kernels"].as_array().expect("kernels");
    assert_eq!(kernels.len(), json["kernel_count"]);
    let text = call(&["inspect", &path, "--plan", "--wgsl"]);
    for part in ["opset", "[batch, 2]", "unsupported   none", "arena 0", "@compute", "batch = 1"] {
        assert!(text.stdout.contains(part), "want {part:?} in {}", text.stdout);
    }
    let one = call(&["inspect", &path, "--wgsl", "map_0"]);
    assert!(one.stdout.starts_with("// map_0: workgroup="), "{}", one.stdout);
    naga::front::wgsl::parse_str(&one.stdout).expect("WGSL");
}

#[test]
fn inspect_lists_everything_unsupported() {
    let folder = Folder::new();
    let path = folder.file("unsupported.onnx", models::unsupported());
    let names = ["Frobnicate", "\"first\"", "\"second\"", "Transmogrify", "\"third\""];
    let report = call(&["inspect", &path]);
    assert_eq!(report.status, 0);
    assert!(names.iter().all(|name| report.stdout.contains(name)), "{}", report.stdout);
    let json = call(&["inspect", &path, "--json"]).json();
    assert_eq!(json["unsupported"].as_array().map(Vec::len), Some(2), "{json}");
    for asked in ["--plan", "--wgsl"] {
        let report = call(&["inspect", &path, asked]).fails(1, &names);
        assert!(names.iter().all(|name| report.stdout.contains(name)), "{}", report.stdout);
    }
    call(&["run", &path]).fails(1, &names);
}

#[test]
fn inspect_names_inputs_that_a_plan_needs() {
    let folder = Folder::new();
    let path = folder.file("reshape.onnx", models::reshape());
    let report = call(&["inspect", &path]);
    assert_eq!(report.status, 0);
    assert!(report.stdout.contains("none: it depends on what a run gives as \"shape\""), "{}", report.stdout);
    assert_eq!(call(&["inspect", &path, "--json"]).json()["needs_inputs"], serde_json::json!(["shape"]));
    let planned = call(&["inspect", &path, "--json", "--plan"]).fails(1, &["no plan", "\"shape\""]);
    assert_eq!(planned.parsed()["plan"], Json::Null);
}

#[test]
#[cfg(target_os = "linux")]
fn without_an_adapter() {
    let folder = Folder::new();
    let path = folder.file("small.onnx", models::small());
    let devices = call_without_adapter(&["devices", "--json"]);
    assert_eq!(devices.json(), serde_json::json!({ "adapters": [] }));
    assert!(devices.stderr.contains("install a Vulkan driver"), "{}", devices.stderr);
    call_without_adapter(&["run", &path]).fails(1, &["no GPU adapter found", "install a Vulkan driver"]);
    let inspected = call_without_adapter(&["inspect", &path, "--json", "--plan", "--wgsl"]).json();
    assert_eq!(inspected["adapter"], Json::Null);
    assert!(inspected["kernels"][0]["wgsl"].as_str().is_some_and(|wgsl| wgsl.contains("@compute")));
    let text = call_without_adapter(&["inspect", &path]);
    assert!(text.stdout.contains("any WebGPU device, as this machine has no adapter"), "{}", text.stdout);
}

#[test]
fn devices_are_listed() {
    if skip_gpu() {
        return;
    }
    let json = call(&["devices", "--json"]).json();
    let adapters = json["adapters"].as_array().expect("a list");
    assert!(!adapters.is_empty(), "this test needs an adapter, or TILEWRIGHT_SKIP_GPU=1");
    for (index, adapter) in adapters.iter().enumerate() {
        assert_eq!(adapter["index"], index);
        assert!(
            ["name", "backend", "driver", "kind"].iter().all(|key| adapter[key].is_string()),
            "{adapter}"
        );
        let features = &adapter["features"];
        assert!(["f16", "subgroups", "timestamps"].iter().all(|key| features[key].is_boolean()), "{adapter}");
        assert!(features["cooperative"].is_array(), "{adapter}");
        assert!(adapter["limits"]["max_buffer_bytes"].as_u64() >= Some(256 << 20), "{adapter}");
    }
    let name = adapters[0]["name"].as_str().expect("a name");
    assert!(call(&["devices"]).stdout.starts_with(&format!("0: {name}")));
    let folder = Folder::new();
    let path = folder.file("small.onnx", models::small());
    for unknown in ["no such card", "99"] {
        call(&["run", &path, "--adapter", unknown]).fails(1, &[unknown, "there are: ", name]);
    }
}

#[test]
fn a_run_computes_saves_and_reports() {
    if skip_gpu() {
        return;
    }
    let folder = Folder::new();
    let path = folder.file("small.onnx", models::small());
    let x = format!("x={}", folder.npy("x.npy", "<f4", &[2, 2], &f32s(&[1.0, 2.0, 3.0, -4.0])));
    let ids = format!("ids={}", folder.npy("ids.npy", "<i8", &[2], &i64s(&[5, -6])));
    let out = folder.path("new/out");
    let arguments = [&path, "--input", &x, "--input", &ids, "--output-dir", &text(&out), "--repeat", "3"];
    let ran = run(&[&arguments[..], &["--json", "--profile"]].concat());
    let json = ran.json();
    assert!(!ran.stderr.contains("not given") && !ran.stderr.contains('\r'), "{}", ran.stderr);
    assert!(ran.stderr.contains("no bfloat16, saved as float32"), "{}", ran.stderr);
    assert_eq!(json["runs_ms"].as_array().map(Vec::len), Some(3), "{json}");
    for key in ["load_ms", "first_ms", "min_ms", "median_ms"] {
        assert!(json[key].as_f64().is_some_and(|ms| ms > 0.0), "{key} in {json}");
    }
    assert!(["name", "backend", "driver"].iter().all(|key| json["adapter"][key].is_string()), "{json}");
    assert!(json["dispatches"].as_u64() > Some(0), "{json}");
    assert!(json["profile"].is_array() || ran.stderr.contains("no timestamps"), "{json}");
    let y = serde_json::json!({
        "name": "y", "dtype": "float32", "shape": [2, 2], "min": -5.0, "max": 4.0, "mean": 0.5,
    });
    assert_eq!(json["outputs"][0], y);
    let twice = serde_json::json!({
        "name": "out/twice", "dtype": "int64", "shape": [2], "min": -12, "max": 10, "mean": -1.0,
    });
    assert_eq!(json["outputs"][1], twice);

    let y = f32s(&[2.0, 1.0, 4.0, -5.0]);
    let half = bytes(&[2.0f32, 1.0, 4.0, -5.0], |v| half::f16::from_f64(v).to_le_bytes());
    for (file, descr, shape, elements) in [
        ("y", "<f4", vec![2, 2], y.clone()),
        ("out_twice", "<i8", vec![2], i64s(&[10, -12])),
        ("above", "|b1", vec![2, 2], vec![0, 1, 1, 0]),
        ("half", "<f2", vec![2, 2], half),
        ("brain", "<f4", vec![2, 2], y),
    ] {
        let read = read_npy(&out.join(format!("{file}.npy")));
        assert_eq!(read, (descr.to_owned(), shape, elements), "{file}");
    }

    let table = run(&arguments);
    assert_eq!(table.status, 0, "{table:?}");
    for part in ["load", "first run", "median", "of 3", "out/twice", "[2, 2]", "-5.00000"] {
        assert!(table.stdout.contains(part), "want {part:?} in {}", table.stdout);
    }
}

#[test]
fn missing_inputs_are_random_and_reproducible() {
    if skip_gpu() {
        return;
    }
    let folder = Folder::new();
    let path = folder.file("small.onnx", models::small());
    let out = folder.path("out");
    let y = |arguments: &[&str]| {
        let ran = run(&[&[path.as_str(), "--output-dir", &text(&out), "--repeat", "0"], arguments].concat());
        assert_eq!(ran.status, 0, "{ran:?}");
        (read_npy(&out.join("y.npy")), read_npy(&out.join("out_twice.npy")), ran.stderr)
    };
    let (first, twice, stderr) = y(&["--seed", "7", "--dim", "batch=64"]);
    assert_eq!(first.1, [64, 2]);
    assert!(stderr.contains("input \"x\" is not given: random float32 [64, 2], seed 7"), "{stderr}");
    assert!(!stderr.contains("dimension"), "{stderr}");
    assert!(twice.2.chunks(8).all(|id| [0, 2].contains(&id[0])), "{twice:?}");
    assert_eq!(y(&["--seed", "7", "--dim", "batch=64"]).0, first);
    assert_ne!(y(&["--seed", "8", "--dim", "batch=64"]).0, first);
    // A size comes from --dim, from another input's file, or is 1.
    let ids = format!("ids={}", folder.npy("ids.npy", "<i8", &[3], &i64s(&[1, 2, 3])));
    let (filled, _, stderr) = y(&["--input", &ids]);
    assert_eq!(filled.1, [3, 2]);
    assert!(!stderr.contains("dimension") && !stderr.contains("\"ids\""), "{stderr}");
    let (alone, _, stderr) = y(&[]);
    assert_eq!(alone.1, [1, 2]);
    assert!(stderr.contains("dimension \"batch\" is not given: 1"), "{stderr}");
    let json = run(&[&path, "--json", "--repeat", "0"]).json();
    assert_eq!(json["runs_ms"], serde_json::json!([]));
    assert_eq!(json["inputs"][0]["random"], true);
    // The device takes no other dtype than the model's.
    let doubles = format!("x={}", folder.npy("d.npy", "<f8", &[1, 2], &[0; 16]));
    run(&[&path, "--input", &doubles]).fails(1, &["\"x\"", "wants float32, got float64"]);
}
