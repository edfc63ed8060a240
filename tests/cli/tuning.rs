//! `tune`, `explain`, `emit` and `bench`.

use serde_json::{Value as Json, json};

use crate::models::{self, Folder, text};
use crate::program::{Call, call, command, on_device, run, skip_gpu};

fn list(value: &Json) -> &[Json] {
    value.as_array().expect("a list")
}

/// The knobs as `--schedule` takes them.
fn knobs(schedule: &Json) -> String {
    schedule.as_str().expect("a schedule").replace(' ', ",")
}

#[test]
fn a_model_is_tuned_explained_and_run_with_what_was_found() {
    if skip_gpu() {
        return;
    }
    let folder = Folder::new();
    let path = folder.file("a<b>&c.onnx", models::small());
    let (records, report) = (text(&folder.path("deep/records.jsonl")), text(&folder.path("report.html")));
    let x = format!("x={}", folder.npy("x.npy", "<f4", &[300, 2], &[0; 2400]));
    let model = [path.as_str(), "--input", &x, "--records", &records];
    let before = on_device("explain", &[&model[..], &["--json"]].concat()).json();
    assert!(list(&before["kernels"]).iter().all(|kernel| kernel["trials"].is_null()), "{before}");

    let tune = [&model[..], &["--exhaustive", "--report", &report, "--json"]].concat();
    let tuned = on_device("tune", &tune);
    assert!(!tuned.stderr.contains('\r'), "no bar without a terminal: {}", tuned.stderr);
    let tuned = tuned.json();
    let kernels = list(&tuned["kernels"]);
    assert!(!kernels.is_empty());
    assert!(tuned["before_ns"].as_u64() > Some(0) && tuned["after_ns"].as_u64() > Some(0), "{tuned}");
    for kernel in kernels {
        let trials = list(&kernel["trials"]);
        assert_eq!(kernel["tried"], trials.len(), "exhaustive: {kernel}");
        assert_eq!(trials[0]["status"], "winner");
        assert_eq!(trials[0]["schedule"], kernel["schedule"]);
        assert_eq!(trials.iter().filter(|trial| trial["default"] == true).count(), 1);
        assert!(kernel["speed_up"].as_f64() >= Some(1.0), "{kernel}");
        assert!(kernel["uses"].as_u64() >= Some(1));
    }
    let page = std::fs::read_to_string(&report).expect("a page");
    for part in [
        "<!doctype html>",
        "<svg",
        "a&lt;b&gt;&amp;c.onnx",
        "prefers-color-scheme: dark",
        "width=device-width",
    ] {
        assert!(page.contains(part), "want {part:?} in {page}");
    }
    for foreign in ["http:", "https:", "<script", "<link", "url(", "@import", "src="] {
        assert!(!page.contains(foreign), "{foreign:?} in the page");
    }

    let explained = on_device("explain", &[&model[..], &["--json"]].concat()).json();
    for kernel in list(&explained["kernels"]) {
        let same = kernels.iter().find(|k| k["key"] == kernel["key"]).expect("a tuned kernel");
        assert_eq!(same["schedule"], kernel["schedule"]);
        assert!(kernel["why"].as_str().is_some_and(|why| why.contains("stored winner")), "{kernel}");
        assert_eq!(kernel["trials"], same["trials"]);
    }
    let label = kernels[0]["kernel"].as_str().expect("a label");
    let one = on_device("explain", &[&model[..], &["--kernel", label]].concat());
    assert!(
        one.stdout.contains("the stored winner of 20") && one.stdout.contains("min ms"),
        "{}",
        one.stdout
    );
    // Records of other sizes are told of and do not apply.
    let other = [&path, "--records", &records, "--kernel", label];
    let other = on_device("explain", &other).stdout;
    assert!(other.contains("the default, as no record applies"), "{other}");
    assert!(other.contains("there is a record for sizes up to [512]"), "{other}");
    on_device("explain", &[&model[..], &["--kernel", "none_0"]].concat())
        .fails(2, &["\"none_0\"", "there are: "]);

    let outputs = |flags: &[&str]| {
        let ran = run(&[&[path.as_str(), "--input", &x, "--json"], flags].concat()).json();
        ran["outputs"].clone()
    };
    assert_eq!(outputs(&["--records", &records]), outputs(&["--no-records"]));
    let table = on_device("tune", &[&model[..], &["--budget", "0"]].concat());
    for part in ["speed-up", "whole run", "not tried", "--exhaustive", "records.jsonl"] {
        assert!(table.stdout.contains(part), "want {part:?} in {table:?}");
    }
}

#[test]
fn one_operation_is_tuned_with_its_rates() {
    if skip_gpu() {
        return;
    }
    for (op, shape, gflops) in [
        ("gemm", "M=24,N=36,K=48", true),
        ("conv", "N=1,C=4,H=9,W=9,O=8,K=3,S=2,P=1,G=2", true),
        ("softmax", "ROWS=16,COLS=40", false),
        ("layernorm", "ROWS=16,COLS=40", false),
        ("map", "N=1000", false),
    ] {
        for dtype in ["f32", "f16"] {
            let arguments =
                ["--op", op, "--shape", shape, "--dtype", dtype, "--budget", "0.2", "--no-records", "--json"];
            let json = on_device("tune", &arguments).json();
            for rates in ["default", "best"] {
                assert_eq!(json[rates]["gflops"].as_f64().is_some_and(|g| g > 0.0), gflops, "{json}");
                assert!(json[rates]["gbytes_per_s"].as_f64() > Some(0.0), "{json}");
            }
            assert_eq!(json["records"], Json::Null);
        }
    }
    let arguments = ["--op", "gemm", "--shape", "M=8,N=8,K=8", "--budget", "0", "--no-records"];
    let table = on_device("tune", &arguments);
    assert!(table.stdout.contains("GFLOP/s") && table.stdout.contains("not kept"), "{table:?}");
}

#[test]
fn one_operation_is_explained() {
    if skip_gpu() {
        return;
    }
    let folder = Folder::new();
    let records = text(&folder.path("records.jsonl"));
    let op = ["--op", "softmax", "--shape", "ROWS=16,COLS=40", "--records", &records];
    let why = |explained: &Json| explained["kernels"][0]["why"].as_str().expect("a reason").to_owned();
    assert!(
        why(&on_device("explain", &[&op[..], &["--json"]].concat()).json()).contains("no record applies")
    );
    let tuned = on_device("tune", &[&op[..], &["--json"]].concat()).json();
    let explained = on_device("explain", &[&op[..], &["--json"]].concat()).json();
    assert_eq!(explained["subject"], tuned["subject"]);
    assert!(why(&explained).contains("the stored winner of 20"), "{explained}");
    assert_eq!(explained["kernels"][0]["trials"], tuned["kernels"][0]["trials"]);
    call(&["explain", "model.onnx", "--op", "softmax", "--shape", "ROWS=1,COLS=1"]).fails(2, &["--op"]);
    call(&["explain"]).fails(2, &["MODEL"]);
}

#[test]
fn every_candidate_of_a_space_has_a_text() {
    for (op, shape) in [("gemm", "M=24,N=36,K=48"), ("softmax", "ROWS=16,COLS=400"), ("map", "N=9")] {
        let space = call(&["tune", "--op", op, "--shape", shape, "--space", "--json"]).json();
        let candidates = list(&space["kernels"][0]["candidates"]);
        let mut texts = Vec::new();
        for candidate in candidates.iter().take(4) {
            let schedule = knobs(candidate);
            let emitted = call(&["emit", "--op", op, "--shape", shape, "--schedule", &schedule]);
            assert_eq!(emitted.status, 0, "{emitted:?}");
            assert!(emitted.stdout.contains(candidate.as_str().expect("text")), "{emitted:?}");
            naga::front::wgsl::parse_str(&emitted.stdout).expect("WGSL");
            texts.push(emitted.stdout);
        }
        let kernel = &space["kernels"][0];
        let removed: u64 =
            list(&kernel["rules"]).iter().map(|rule| rule["removed"].as_u64().expect("a count")).sum();
        assert_eq!(kernel["raw"].as_u64().expect("a count"), removed + candidates.len() as u64, "{kernel}");
        assert!(candidates.len() <= 64 && list(&kernel["rules"]).iter().all(|rule| rule["rule"].is_string()));
        texts.dedup();
        assert!(texts.len() > 1, "{texts:?}");
        let default = call(&["emit", "--op", op, "--shape", shape]);
        assert_eq!(default.stdout, texts[0]);
        let table = call(&["tune", "--op", op, "--shape", shape, "--space"]);
        assert!(table.stdout.contains(&format!("{} legal candidates", candidates.len())), "{table:?}");
        let browser = call(&["emit", "--op", op, "--shape", shape, "--target", "browser"]);
        assert!(browser.status == 0 && browser.stdout.contains("@compute"), "{browser:?}");
    }
}

#[test]
fn schedules_that_are_none_are_refused_with_what_there_is() {
    let emit =
        |schedule: &str| call(&["emit", "--op", "gemm", "--shape", "M=64,N=64,K=64", "--schedule", schedule]);
    emit("warp=4").fails(2, &["unknown knob \"warp\"", "group_m", "micro_n"]);
    emit("group_m=7").fails(2, &["no legal candidate", "\n  group_m="]);
    emit("group_m").fails(2, &["KNOB=N"]);
}

#[test]
fn two_results_are_compared() {
    let folder = Folder::new();
    let entry = |name: &str, default_ns: u64, tuned_ns: Option<u64>| {
        json!({
            "name": name, "kernels": 1, "default_ns": default_ns, "default_gflops": null,
            "default_gbytes_per_s": 1.0, "tuned_ns": tuned_ns, "tuned_gflops": null,
            "tuned_gbytes_per_s": null, "schedules": [],
        })
    };
    let file = |name: &str, entries: &[Json]| folder.file(name, json!({ "entries": entries }).to_string());
    let old =
        file("old.json", &[entry("a", 1000, None), entry("b", 1000, Some(900)), entry("gone", 1, None)]);
    let new =
        file("new.json", &[entry("a", 1100, None), entry("b", 1500, Some(600)), entry("come", 1, None)]);
    let text = call(&["bench", "--compare", &old, &new]);
    assert_eq!(text.status, 0, "{text:?}");
    for part in ["1 slower, 1 faster, of 3 times", "within noise", "SLOWER", "only in", "gone", "come"] {
        assert!(text.stdout.contains(part), "want {part:?} in {text:?}");
    }
    let json = call(&["bench", "--compare", &old, &new, "--json"]).json();
    let changes: Vec<_> = list(&json["entries"])
        .iter()
        .map(|e| [e["default"]["change"].clone(), e["run"]["change"].clone()])
        .collect();
    assert_eq!(changes, [["within noise", "within noise"], ["slower", "faster"]]);
    let prose = folder.file("prose.json", "no result");
    call(&["bench", "--compare", &prose, &new]).fails(1, &["prose.json", "not a result"]);
}

#[test]
fn benchmarks_measure_one_family() {
    if skip_gpu() {
        return;
    }
    let json = on_device("bench", &["--op", "layernorm", "--no-records", "--json"]).json();
    let entries = list(&json["entries"]);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["name"], "layernorm ROWS=128,COLS=768 float32");
    assert!(entries[0]["default_ns"].as_u64() > Some(0) && entries[0]["tuned_ns"].is_null(), "{json}");
}

#[test]
fn processes_share_a_file_of_records() {
    if skip_gpu() {
        return;
    }
    let folder = Folder::new();
    let records = text(&folder.path("records.jsonl"));
    let adapter = std::env::var("TILEWRIGHT_ADAPTER");
    let start = |n: usize| {
        let shape = format!("N={n}");
        let mut arguments =
            vec!["tune", "--op", "map", "--shape", &shape, "--budget", "0.1", "--records", &records];
        arguments.extend(adapter.iter().flat_map(|name| ["--adapter", name]));
        let mut command = command(&arguments);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().expect("the program")
    };
    let children: Vec<_> = (1..=4).map(|n| start(n * 100)).collect();
    for child in children {
        let call = Call::from(child.wait_with_output().expect("the program"));
        assert_eq!(call.status, 0, "{call:?}");
    }
    let listed = call(&["store", "list", "--json", "--records", &records]).json();
    assert_eq!((list(&listed["records"]).len(), list(&listed["damaged"]).len()), (4, 0), "{listed}");
}

#[test]
fn the_spaces_of_a_model_need_no_tuning() {
    let folder = Folder::new();
    let path = folder.file("small.onnx", models::small());
    let space = call(&["tune", &path, "--space"]);
    assert_eq!(space.status, 0, "{space:?}");
    for part in ["points of its knobs", "removed: ", "legal candidates, the default first"] {
        assert!(space.stdout.contains(part), "want {part:?} in {space:?}");
    }
}

#[test]
fn a_run_tunes_before_or_after_its_first_answer() {
    if skip_gpu() {
        return;
    }
    let folder = Folder::new();
    let path = folder.file("small.onnx", models::small());
    let records = |mode: &str| text(&folder.path(&format!("{mode}.jsonl")));
    let outputs: Vec<Json> = ["off", "background", "full"]
        .map(|mode| {
            run(&[&path, "--tune", mode, "--records", &records(mode), "--json"]).json()["outputs"].clone()
        })
        .into();
    assert_eq!(outputs[0], outputs[1]);
    for (before, after) in list(&outputs[0]).iter().zip(list(&outputs[2])) {
        let [before, after] = [before, after].map(|output| output["mean"].as_f64().expect("a mean"));
        assert!((before - after).abs() <= 1e-5 * before.abs().max(1e-3), "{before} {after}");
    }
    let kept = |mode: &str| call(&["store", "list", "--json", "--records", &records(mode)]).json();
    assert_eq!(list(&kept("off")["records"]).len(), 0);
    assert!(!list(&kept("full")["records"]).is_empty());
    run(&[&path, "--tune", "always"]).fails(2, &["off, background, full"]);
}

#[test]
fn traces_are_what_was_asked_for() {
    if skip_gpu() {
        return;
    }
    let folder = Folder::new();
    let path = folder.file("small.onnx", models::small());
    let traced = |words: &str| {
        let adapter = std::env::var("TILEWRIGHT_ADAPTER");
        let mut arguments = vec!["run", path.as_str(), "--no-records"];
        arguments.extend(adapter.iter().flat_map(|name| ["--adapter", name]));
        let mut command = command(&arguments);
        Call::from(command.env("TILEWRIGHT_TRACE", words).output().expect("the program"))
    };
    let [plan, wgsl, time] = ["plan", "wgsl", "time"].map(traced);
    assert!(wgsl.stderr.contains("@compute") && !plan.stderr.contains("@compute"), "{wgsl:?}");
    assert!(time.stderr.contains("GFLOP/s") && !plan.stderr.contains("GFLOP/s"), "{time:?}");
    assert!(plan.status == 0 && plan.stderr.len() > traced("").stderr.len(), "{plan:?}");
    traced("plan,clock").fails(2, &["TILEWRIGHT_TRACE", "\"clock\"", "plan, wgsl, time"]);
}
