//! ONNX's own backend tests: about 2,000 small models with inputs and expected outputs.
//!
//! `tests/onnx_backend/passing.txt` lists the cases that pass, and exactly these must: a case that stops passing
//! fails the test, and so does one that begins to (`make bless-onnx` rewrites the list). An operator that is not
//! supported is counted, and named at the end.
//!
//! `TILEWRIGHT_ONNX_ONLY=TEXT` runs the cases whose name contains TEXT.

mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{compare, say};
use tilewright::{Error, Tensor};

struct Case {
    name: String,
    category: String,
    /// Why it is not run, where skips.txt says so.
    skip: Option<String>,
}

/// A case's case.json.
#[derive(serde::Deserialize)]
struct Facts {
    rtol: f64,
    atol: f64,
    /// Inputs and outputs that are sequences, optionals or maps, and have no file.
    not_tensors: Vec<String>,
}

enum Outcome {
    Passed,
    Failed(String),
    /// What [`Error::Unsupported`] listed.
    Unsupported(Vec<String>),
    Skipped,
}

fn folder() -> PathBuf {
    support::root().join("tests/onnx_backend")
}

/// Every case that categories.json names, by name.
fn all_cases() -> Vec<Case> {
    let categories: BTreeMap<String, Vec<String>> =
        serde_json::from_str(&support::read_text(&folder().join("categories.json"))).expect("lists of names");
    let rows = support::rows(&folder().join("skips.txt"));
    let mut skips: BTreeMap<String, String> =
        rows.into_iter().map(|row| (row[0].clone(), row[1..].join(" "))).collect();
    let mut cases = Vec::new();
    for (category, names) in categories {
        for name in names {
            cases.push(Case { skip: skips.remove(&name), category: category.clone(), name });
        }
    }
    assert!(skips.is_empty(), "skips.txt lists what is no case: {:?}", skips.keys());
    for case in &cases {
        assert_ne!(case.skip.as_deref(), Some(""), "skips.txt gives no reason for {}", case.name);
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// The tensors `ROLE_0.pb`, `ROLE_1.pb`, ... of a case.
fn read_tensors(folder: &Path, role: &str) -> Result<Vec<(String, Tensor)>, String> {
    let is_role = |name: &str| name.starts_with(role) && name.ends_with(".pb");
    let files = std::fs::read_dir(folder).map_err(|e| e.to_string())?.flatten();
    let mut names: Vec<String> = files.filter_map(|f| f.file_name().into_string().ok()).collect();
    names.retain(|name| is_role(name));
    names.sort();
    let read = |name: &String| {
        let bytes = std::fs::read(folder.join(name)).map_err(|e| e.to_string())?;
        tilewright::onnx::parse_tensor(bytes.into()).map_err(|e| format!("{name}: {e}"))
    };
    names.iter().map(read).collect()
}

fn check(case: &Case, folder: &Path) -> Result<Outcome, String> {
    let facts: Facts =
        serde_json::from_str(&support::read_text(&folder.join("case.json"))).map_err(|e| e.to_string())?;
    let session = match support::load(&folder.join("model.onnx")) {
        Ok(session) => session,
        Err(Error::Unsupported { items }) => return Ok(Outcome::Unsupported(items)),
        Err(e) => return Err(format!("load: {e}")),
    };
    if !facts.not_tensors.is_empty() {
        return Err(format!("loads, but these values are no tensors: {}", facts.not_tensors.join(", ")));
    }
    let inputs = read_tensors(folder, "input_")?;
    let expected = read_tensors(folder, "output_")?;
    if expected.is_empty() {
        return Err(format!("{} has no expected output", case.name));
    }
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let outputs = session.run(&inputs).map_err(|e| format!("run: {e}"))?;
    for (name, want) in &expected {
        let got = outputs.get(name).ok_or_else(|| format!("output {name}: missing"))?;
        compare::all_close(got, want, facts.rtol, facts.atol).map_err(|e| format!("output {name}: {e}"))?;
    }
    Ok(Outcome::Passed)
}

thread_local! {
    /// The message of the last panic in a thread that runs cases.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

const CASE_THREAD: &str = "onnx case";

/// Keep the messages of panics in cases for the report; print all others as always.
fn collect_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() == Some(CASE_THREAD) {
            PANIC.set(Some(info.to_string().replace('\n', " ")));
        } else {
            print(info);
        }
    }));
}

fn run_case(case: &Case, data: &Path) -> Outcome {
    if case.skip.is_some() {
        return Outcome::Skipped;
    }
    let folder = data.join(&case.name);
    match catch_unwind(AssertUnwindSafe(|| check(case, &folder))) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(message)) => Outcome::Failed(message),
        Err(_) => Outcome::Failed(PANIC.take().unwrap_or_else(|| "panicked".into())),
    }
}

/// The outcome and the time of each case, in the order of `cases`.
fn run_cases(cases: &[Case], data: &Path) -> Vec<(Outcome, Duration)> {
    collect_panics();
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, (Outcome, Duration)>> = Mutex::default();
    let work = || {
        while let Some((index, case)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, cases.get(i)?)))
        {
            let start = Instant::now();
            let outcome = run_case(case, data);
            done.lock().unwrap().insert(index, (outcome, start.elapsed()));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            std::thread::Builder::new().name(CASE_THREAD.into()).spawn_scoped(scope, work).expect("a thread");
        }
    });
    done.into_inner().unwrap().into_values().collect()
}

/// What an unsupported item is about: `operator Loop of ai.onnx` of `operator Loop of ai.onnx opset 16 in node "a"`;
/// names of values and nodes are dropped.
fn subject(item: &str) -> String {
    let item = item.split(" opset ").next().unwrap_or(item);
    let unquoted: Vec<&str> = item.split('"').step_by(2).map(str::trim).collect();
    unquoted.join(" ").trim_end_matches([':', ' ']).to_owned()
}

/// Print what came out, and give the table of counts as Markdown.
fn report(cases: &[Case], outcomes: &[(Outcome, Duration)], elapsed: Duration) -> String {
    // Per category: passed, failed, unsupported, skipped.
    let mut counts: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    let mut total = [0; 4];
    let mut unsupported: BTreeMap<String, usize> = BTreeMap::new();
    let mut failures = String::new();
    for (case, (outcome, _)) in cases.iter().zip(outcomes) {
        let column = match outcome {
            Outcome::Passed => 0,
            Outcome::Failed(message) => {
                let short: String = message.chars().take(400).collect();
                failures += &format!("\n  {}: {short}", case.name);
                1
            }
            Outcome::Unsupported(items) => {
                for subject in items.iter().map(|item| subject(item)).collect::<BTreeSet<_>>() {
                    *unsupported.entry(subject).or_default() += 1;
                }
                2
            }
            Outcome::Skipped => 3,
        };
        counts.entry(&case.category).or_default()[column] += 1;
        total[column] += 1;
    }
    if !failures.is_empty() {
        say!("\nfailures{failures}");
    }
    let mut unsupported: Vec<_> = unsupported.into_iter().collect();
    unsupported.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    if !unsupported.is_empty() {
        let list: Vec<String> = unsupported.iter().map(|(what, count)| format!("{what} {count}")).collect();
        say!("\nunsupported, with the number of cases: {}", list.join(", "));
    }
    let mut slowest: Vec<_> =
        cases.iter().zip(outcomes).map(|(case, (_, time))| (time, &case.name)).collect();
    slowest.sort_by(|a, b| b.cmp(a));
    let list: Vec<String> =
        slowest.iter().take(5).map(|(t, name)| format!("{name} {} ms", t.as_millis())).collect();
    say!("\nslowest: {}", list.join(", "));
    say!("\n{:<28} passed  failed  unsupported  skipped", "category");
    let mut table =
        "| category | passed | failed | unsupported | skipped |\n|---|---|---|---|---|\n".to_owned();
    for (category, n) in counts.into_iter().chain([("all", total)]) {
        say!("{category:<28} {:>6} {:>7} {:>12} {:>8}", n[0], n[1], n[2], n[3]);
        table += &format!("| {category} | {} | {} | {} | {} |\n", n[0], n[1], n[2], n[3]);
    }
    say!("{} cases in {:.1} s", cases.len(), elapsed.as_secs_f64());
    table
}

/// The README, and the range of it that holds the table of counts.
fn readme() -> (String, std::ops::Range<usize>) {
    let text = support::read_text(&support::root().join("README.md"));
    let (open, close) = ("<!-- onnx-backend -->\n", "<!-- /onnx-backend -->");
    let start = text.find(open).expect("README.md has a place for the table") + open.len();
    let end = text.find(close).expect("README.md says where the table ends");
    (text, start..end)
}

fn bless(passed: &BTreeSet<&str>, table: &str) {
    let (mut text, range) = readme();
    text.replace_range(range, table);
    std::fs::write(support::root().join("README.md"), text).expect("README.md can be written");
    let path = folder().join("passing.txt");
    let old = support::read_text(&path);
    let mut text: String =
        old.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    passed.iter().for_each(|name| text += &format!("{name}\n"));
    std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    say!("{}: {} cases", path.display(), passed.len());
}

#[test]
fn exactly_the_listed_cases_pass() {
    if support::skip_gpu("onnx_backend") {
        return;
    }
    support::test_data("onnx-backend/stamp"); // written last, so the data is complete
    let data = support::test_data("onnx-backend");
    let only = std::env::var("TILEWRIGHT_ONNX_ONLY").unwrap_or_default();
    let blessing = std::env::var("TILEWRIGHT_BLESS").is_ok_and(|v| v == "1");
    assert!(!blessing || only.is_empty(), "TILEWRIGHT_BLESS=1 wants all cases: unset TILEWRIGHT_ONNX_ONLY");

    let mut cases = all_cases();
    cases.retain(|case| case.name.contains(&only));
    assert!(!cases.is_empty(), "no case has {only:?} in its name");
    // Without an adapter, say so once and not two thousand times.
    if let Err(e) = support::load(&data.join("test_add/model.onnx")) {
        say!("test_add does not load: {e}");
    }

    let start = Instant::now();
    let outcomes = run_cases(&cases, &data);
    let table = report(&cases, &outcomes, start.elapsed());

    let passed: BTreeSet<&str> = cases
        .iter()
        .zip(&outcomes)
        .filter(|(_, (outcome, _))| matches!(outcome, Outcome::Passed))
        .map(|(case, _)| case.name.as_str())
        .collect();
    if blessing {
        return bless(&passed, &table);
    }
    let rows = support::rows(&folder().join("passing.txt"));
    let listed: BTreeSet<&str> =
        rows.iter().map(|row| row[0].as_str()).filter(|name| name.contains(&only)).collect();
    let lost: Vec<_> = listed.difference(&passed).collect();
    let gained: Vec<_> = passed.difference(&listed).collect();
    assert!(lost.is_empty(), "{} cases of tests/onnx_backend/passing.txt do not pass: {lost:?}", lost.len());
    assert!(
        gained.is_empty(),
        "{} cases pass that tests/onnx_backend/passing.txt does not list: {gained:?}\n\
         Run `make bless-onnx` and commit the list.",
        gained.len()
    );
    assert!(!passed.is_empty() || !only.is_empty(), "no case passes");
    if only.is_empty() {
        let (text, range) = readme();
        assert_eq!(
            text[range], table,
            "README.md counts something else: run `make bless-onnx` and commit it"
        );
    }
}

/// The comparison itself.
mod comparison {
    use super::*;
    use compare::{Values, all_close, relative_error, values};
    use tilewright::DType;

    fn floats(v: &[f32]) -> Tensor {
        Tensor::from_slice(&[v.len()], v).unwrap()
    }

    #[test]
    fn closeness_is_numpys() {
        let inf = f32::INFINITY;
        for (got, want, close) in [
            (1.0, 1.0, true),
            (1.0005, 1.0, true),
            (1.002, 1.0, false),
            (1e-8, 0.0, true),
            (1e-6, 0.0, false),
            (f32::NAN, f32::NAN, true),
            (f32::NAN, 1.0, false),
            (1.0, f32::NAN, false),
            (inf, inf, true),
            (inf, -inf, false),
            (f32::MAX, inf, false),
            (inf, f32::MAX, false),
            (-0.0, 0.0, true),
        ] {
            let result = all_close(&floats(&[got]), &floats(&[want]), 1e-3, 1e-7);
            assert_eq!(result.is_ok(), close, "got {got}, want {want}: {result:?}");
        }
        let ints = |v: i64| Tensor::from_slice(&[1], &[v]).unwrap();
        assert!(all_close(&ints(1_000_000), &ints(1_000_001), 1e-3, 1e-7).is_err());
        assert!(all_close(&ints(1), &floats(&[1.0]), 1e-3, 1e-7).is_err());
        assert!(all_close(&floats(&[1.0]).reshape(&[1, 1]).unwrap(), &floats(&[1.0]), 1e-3, 1e-7).is_err());
    }

    #[test]
    fn an_error_is_relative_to_the_whole_output() {
        assert_eq!(relative_error(&floats(&[1.0, 3.0]), &floats(&[1.0, 4.0])), Ok(0.25));
        assert_eq!(relative_error(&floats(&[]), &floats(&[])), Ok(0.0));
        assert_eq!(relative_error(&floats(&[1.0]), &floats(&[0.0])), Ok(f64::INFINITY));
        assert!(relative_error(&floats(&[1.0, f32::NAN]), &floats(&[1.0, 4.0])).is_err());
    }

    /// Codes, and the values that ml_dtypes gives them.
    #[test]
    fn small_types_are_decoded() {
        let nan = f64::NAN;
        let cases: &[(DType, &[u8], &[f64])] = &[
            (
                DType::F8E4M3FN,
                &[0x01, 0x08, 0x38, 0x7e, 0x7f, 0xff, 0x80],
                &[2f64.powi(-9), 2f64.powi(-6), 1.0, 448.0, nan, nan, 0.0],
            ),
            (
                DType::F8E4M3FNUZ,
                &[0x01, 0x08, 0x40, 0x7f, 0x80, 0xff],
                &[2f64.powi(-10), 2f64.powi(-7), 1.0, 240.0, nan, -240.0],
            ),
            (
                DType::F8E5M2,
                &[0x01, 0x3c, 0x7b, 0x7c, 0xfc, 0x7f],
                &[2f64.powi(-16), 1.0, 57344.0, f64::INFINITY, -f64::INFINITY, nan],
            ),
            (DType::F8E5M2FNUZ, &[0x01, 0x40, 0x7f, 0x80], &[2f64.powi(-17), 1.0, 57344.0, nan]),
            (DType::F8E8M0, &[0, 127, 128, 255], &[2f64.powi(-127), 1.0, 2.0, nan]),
            (DType::F4E2M1, &[0x21, 0x7a], &[0.5, 1.0, -1.0, 6.0]),
        ];
        for (dtype, codes, want) in cases {
            let tensor = Tensor::new(*dtype, &[want.len()], codes.to_vec()).unwrap();
            let Values::Floats(got) = values(&tensor) else { panic!("{dtype} holds floats") };
            let same = got.iter().zip(*want).all(|(g, w)| g == w || (g.is_nan() && w.is_nan()));
            assert!(same, "{dtype}: got {got:?}, want {want:?}");
        }
        for (dtype, code, want) in [
            (DType::I4, 0x8f, vec![-1, -8]),
            (DType::U4, 0x8f, vec![15, 8]),
            (DType::I2, 0b10_01_11_00, vec![0, -1, 1, -2]),
            (DType::U2, 0b10_01_11_00, vec![0, 3, 1, 2]),
        ] {
            let tensor = Tensor::new(dtype, &[want.len()], vec![code]).unwrap();
            let Values::Ints(got) = values(&tensor) else { panic!("{dtype} holds integers") };
            assert_eq!(got, want, "{dtype}");
        }
    }
}
