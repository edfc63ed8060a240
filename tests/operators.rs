//! `docs/operators.md`: every operator, made from the rows of `src/ops` and from the tests that cover them.
//! `TILEWRIGHT_BLESS=1` rewrites it.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use tilewright::DType;
use tilewright::graph::{Attribute, Graph};
use tilewright::ops::FAMILIES;

/// What the tests say of an operator, by domain and name.
#[derive(Default)]
struct Covered {
    /// ONNX's cases that pass and hold the operator.
    cases: usize,
    /// Dtypes of its inputs and outputs in these, where the graph declares them.
    dtypes: BTreeSet<DType>,
}

type Coverage = BTreeMap<(String, String), Covered>;

/// Add a graph's nodes; `found` are the operators of the case so far.
fn add(graph: &Graph, coverage: &mut Coverage, found: &mut BTreeSet<(String, String)>) {
    let mut dtypes: BTreeMap<&str, DType> =
        graph.inputs.iter().chain(&graph.outputs).map(|info| (info.name.as_str(), info.dtype)).collect();
    dtypes.extend(graph.initializers.iter().map(|(name, tensor)| (name.as_str(), tensor.dtype())));
    for node in &graph.nodes {
        let key = (node.domain.clone(), node.op.clone());
        let covered = coverage.entry(key.clone()).or_default();
        let names = node.inputs.iter().chain(&node.outputs);
        covered.dtypes.extend(names.filter_map(|name| dtypes.get(name.as_str())));
        found.insert(key);
        for attribute in node.attributes.values() {
            if let Attribute::Graph(inner) = attribute {
                add(inner, coverage, found);
            }
        }
    }
}

fn onnx_cases() -> Coverage {
    let data = support::test_data("onnx-backend");
    let mut coverage = Coverage::new();
    for row in support::rows(&support::root().join("tests/onnx_backend/passing.txt")) {
        let graph = tilewright::onnx::open(&data.join(&row[0]).join("model.onnx")).expect("a model");
        let mut found = BTreeSet::new();
        add(&graph, &mut coverage, &mut found);
        for key in found {
            coverage.entry(key).or_default().cases += 1;
        }
    }
    coverage
}

/// The test code beside the operators.
fn unit_tests() -> String {
    let folder = support::root().join("src/ops");
    let files = std::fs::read_dir(folder).expect("src/ops").flatten();
    let tests = files.filter_map(|file| {
        let text = support::read_text(&file.path());
        if file.file_name() == "contrib_tests.rs" {
            return Some(text);
        }
        text.split_once("#[cfg(test)]\nmod tests").map(|(_, tests)| tests.to_owned())
    });
    tests.collect()
}

/// What makes random nodes.
fn random_nodes() -> String {
    let folder = support::root().join("tools/differential");
    let files = std::fs::read_dir(folder).expect("tools/differential").flatten();
    let is_python = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "py");
    files.map(|file| file.path()).filter(is_python).map(|path| support::read_text(&path)).collect()
}

fn full_name(domain: &str, name: &str) -> String {
    if domain.is_empty() { name.to_owned() } else { format!("{domain}.{name}") }
}

fn table() -> String {
    let (coverage, units) = (onnx_cases(), unit_tests());
    let random = random_nodes();
    let generator = support::read_text(&support::root().join("tests/random.rs"));
    let mut text = String::from(
        "# Operators\n\n\
         Made by `TILEWRIGHT_BLESS=1 cargo test --features cli --test operators` from the rows of `src/ops` and from\n\
         what tests them. *Dtypes* are those of its inputs and outputs in ONNX's cases that pass. *Tests*: the number of\n\
         these cases; `random` where random nodes are compared with ONNX Runtime (`tools/differential`); `unit` where\n\
         tests beside the code name it, on the CPU; `generator` where `tests/random.rs` does, on the\n\
         device. An operator serves every opset from *since* on.\n",
    );
    for (family, operators) in FAMILIES {
        text += &format!(
            "\n## {family}\n\n| operator | since | what, and limits | dtypes | tests |\n|---|---|---|---|---|\n"
        );
        for op in *operators {
            let key = (op.domain.to_owned(), op.name.to_owned());
            let (cases, dtypes) = match coverage.get(&key) {
                Some(covered) => {
                    (covered.cases, covered.dtypes.iter().map(|d| d.name()).collect::<Vec<_>>().join(" "))
                }
                None => (0, String::new()),
            };
            let mut tests = Vec::new();
            if cases > 0 {
                tests.push(cases.to_string());
            }
            let name = full_name(op.domain, op.name);
            let quoted = format!("\"{name}\"");
            if random.contains(&quoted) {
                tests.push("random".into());
            }
            if units.contains(&quoted)
                || (!op.domain.is_empty() && units.contains(&format!("\"{}\"", op.name)))
            {
                tests.push("unit".into());
            }
            if generator.contains(&quoted) {
                tests.push("generator".into());
            }
            let doc = op.doc.replace('|', "\\|");
            text += &format!("| {name} | {} | {doc} | {dtypes} | {} |\n", op.since, tests.join(", "));
        }
    }
    text
}

#[test]
fn the_table_of_operators_is_true() {
    let path = support::root().join("docs/operators.md");
    let text = table();
    if std::env::var("TILEWRIGHT_BLESS").is_ok_and(|v| v == "1") {
        std::fs::write(&path, text).expect("docs/operators.md can be written");
        return;
    }
    assert_eq!(
        support::read_text(&path),
        text,
        "docs/operators.md says something else: TILEWRIGHT_BLESS=1 cargo test --features cli --test operators"
    );
}

#[test]
fn every_operator_is_made_at_random_or_listed_with_the_reason() {
    let random = random_nodes();
    let all = FAMILIES.iter().flat_map(|(_, operators)| *operators);
    let names = all.map(|op| full_name(op.domain, op.name));
    let missing: BTreeSet<String> = names.filter(|name| !random.contains(&format!("\"{name}\""))).collect();
    let rows = support::rows(&support::root().join("tests/differential/unreached.txt"));
    assert!(rows.iter().all(|row| row.len() > 1), "unreached.txt: want an operator and the reason");
    let listed: BTreeSet<String> = rows.into_iter().map(|mut row| row.swap_remove(0)).collect();
    assert_eq!(
        missing, listed,
        "left: not in tools/differential; right: in tests/differential/unreached.txt"
    );
}
