//! Random models of one node, against ONNX Runtime on the CPU, or a formula where it lacks the operator: attributes,
//! dtypes, shapes with zeros and broadcasts.
//!
//! `tools/differential` makes a case from an operator, a seed and the largest size, and says what ONNX Runtime gives.
//! All operators take turns for 20 seconds, always with the same seeds; `TILEWRIGHT_DIFFERENTIAL=SECONDS,SEED` goes on
//! longer and begins elsewhere (`make test-differential`). A case that fails is made again with smaller sizes, and the
//! smallest that fails is added to `tests/differential/saved.txt`, which every run repeats first.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use support::{compare, say};
use tilewright::{Session, Tensor};

/// Agreement wanted: a part of the value, and of the largest value or 1.
const RELATIVE: f64 = 1e-4;
const ABSOLUTE: f64 = 1e-5;

/// A line for the script.
#[derive(Clone, PartialEq)]
struct Case {
    op: String,
    seed: u64,
    limit: u64,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.op, self.seed, self.limit)
    }
}

/// The script, which answers a line with a line.
struct Oracle {
    process: Child,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
}

impl Oracle {
    fn start() -> Oracle {
        let root = support::root();
        let python = root.join("target/venv/bin/python");
        assert!(python.exists(), "{} is missing: run `make setup`", python.display());
        let mut process = Command::new(python)
            .arg(root.join("tools/differential"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let (ask, answer) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        Oracle { process, ask, answer: BufReader::new(answer) }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.ask, "{line}").expect("tools/differential listens");
        let mut answer = String::new();
        self.answer.read_line(&mut answer).expect("tools/differential answers");
        assert!(!answer.is_empty(), "tools/differential ended at {line:?}");
        answer.trim().to_owned()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

enum Outcome {
    Passed,
    /// ONNX Runtime has no answer.
    Skipped,
    /// What the case is, and what is wrong.
    Failed(String),
}

fn tensors(folder: &Path, role: &str) -> Vec<(String, Tensor)> {
    let file = |i: usize| folder.join(format!("{role}_{i}.pb"));
    let exists = |path: &PathBuf| path.exists();
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("a file of the case");
        tilewright::onnx::parse_tensor(bytes.into()).expect("a tensor")
    };
    (0..).map(file).take_while(exists).map(read).collect()
}

fn run(oracle: &mut Oracle, case: &Case) -> Outcome {
    let answer = oracle.ask(&case.to_string());
    if answer.starts_with("skip ") {
        return Outcome::Skipped;
    }
    let folder = Path::new(&answer);
    let facts: BTreeMap<String, String> =
        serde_json::from_str(&support::read_text(&folder.join("case.json"))).expect("facts");
    match check(folder) {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(format!("{case}: {}: {error}", facts["text"])),
    }
}

fn check(folder: &Path) -> Result<(), String> {
    let bytes = std::fs::read(folder.join("model.onnx")).map_err(|e| e.to_string())?;
    let session = Session::load(bytes, &support::options()).map_err(|e| format!("load: {e}"))?;
    let inputs = tensors(folder, "input");
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut outputs = session.run(&inputs).map_err(|e| format!("run: {e}"))?;
    agree(folder, &|name| outputs.get(name).cloned())?;
    // Once more with inputs given up, where outputs may take over their memory.
    if session.plan().is_some_and(|plan| !plan.updates.is_empty()) {
        let names: Vec<String> = session.outputs().iter().map(|info| info.name.clone()).collect();
        let mut request = session.request();
        for (name, tensor) in &inputs {
            request = request.input(*name, session.upload(tensor).map_err(|e| e.to_string())?);
        }
        request = names.iter().fold(request, |request, name| request.keep(name));
        outputs = request.run().map_err(|e| format!("run in place: {e}"))?;
        let read =
            names.iter().map(|name| (name.as_str(), outputs.take_kept(name).and_then(|t| t.to_host().ok())));
        let read: BTreeMap<&str, Option<Tensor>> = read.collect();
        agree(folder, &|name| read.get(name).cloned().flatten()).map_err(|e| format!("in place: {e}"))?;
    }
    Ok(())
}

/// Whether outputs are what the case says.
fn agree(folder: &Path, outputs: &dyn Fn(&str) -> Option<Tensor>) -> Result<(), String> {
    for (name, want) in tensors(folder, "output") {
        let got = outputs(&name).ok_or("an output is missing")?;
        let largest = match compare::values(&want) {
            compare::Values::Floats(v) => {
                v.iter().filter(|v| v.is_finite()).fold(1f64, |m, v| m.max(v.abs()))
            }
            compare::Values::Ints(_) | compare::Values::Complex(_) => 0.0,
        };
        compare::all_close(&got, &want, RELATIVE, ABSOLUTE * largest).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

/// The smallest case of the operator that fails.
fn shrink(oracle: &mut Oracle, case: &Case, message: String) -> (Case, String) {
    for limit in 1..case.limit {
        for seed in [case.seed].into_iter().chain(0..10) {
            let smaller = Case { seed, limit, ..case.clone() };
            if let Outcome::Failed(message) = run(oracle, &smaller) {
                return (smaller, message);
            }
        }
    }
    (case.clone(), message)
}

#[test]
fn random_nodes_agree_with_onnx_runtime() {
    if support::skip_gpu("differential") {
        return;
    }
    let wish = std::env::var("TILEWRIGHT_DIFFERENTIAL").unwrap_or_else(|_| "20,0".into());
    let (seconds, first_seed) = wish.split_once(',').expect("TILEWRIGHT_DIFFERENTIAL is SECONDS,SEED");
    let budget = Duration::from_secs(seconds.parse().expect("seconds"));
    let first_seed: u64 = first_seed.parse().expect("a seed");
    let mut oracle = Oracle::start();
    let operators: Vec<String> = oracle.ask("list").split_whitespace().map(str::to_owned).collect();
    let path = support::root().join("tests/differential/saved.txt");
    let number = |word: &String| word.parse().expect("saved.txt holds numbers");
    let saved: Vec<Case> = support::rows(&path)
        .iter()
        .map(|row| Case { op: row[0].clone(), seed: number(&row[1]), limit: number(&row[2]) })
        .collect();
    let start = Instant::now();
    let rounds = (first_seed..)
        .flat_map(|seed| operators.iter().map(move |op| Case { op: op.clone(), seed, limit: 2 + seed % 5 }));
    let (mut passed, mut skipped, mut failures) = (0, 0, BTreeMap::new());
    let count = saved.len();
    for (position, case) in saved.iter().cloned().chain(rounds).enumerate() {
        // What is saved is repeated whole, whatever the time.
        if position >= count && start.elapsed() > budget {
            break;
        }
        if failures.contains_key(&case.op) {
            continue;
        }
        match run(&mut oracle, &case) {
            Outcome::Passed => passed += 1,
            Outcome::Skipped => skipped += 1,
            Outcome::Failed(message) => {
                let (smallest, message) = shrink(&mut oracle, &case, message);
                if !saved.contains(&smallest) {
                    let mut text = support::read_text(&path);
                    text += &format!("{smallest}\n");
                    std::fs::write(&path, text).expect("saved.txt can be written");
                }
                failures.insert(case.op.clone(), message);
            }
        }
    }
    say!("differential: {} operators, {passed} cases agree, ONNX Runtime refuses {skipped}", operators.len());
    let list: Vec<String> = failures.into_values().map(|m| m.chars().take(400).collect()).collect();
    assert!(list.is_empty(), "{} operators differ:\n{}", list.len(), list.join("\n"));
}
