//! The modules use one another in one direction, one of them alone knows wgpu, and nothing in the library panics.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each module and those it may use, in the order in which data flows. A new module gets a row.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("tensor", &["error"]),
    ("expr", &["tensor"]),
    ("graph", &["tensor"]),
    ("onnx", &["error", "graph", "tensor"]),
    ("ir", &["error", "expr", "tensor"]),
    ("ops", &["error", "expr", "graph", "ir", "tensor"]),
    ("kernel", &["error", "expr", "ir", "tensor"]),
    ("plan", &["error", "expr", "graph", "ir", "kernel", "ops", "tensor"]),
    ("wgsl", &["error", "expr", "kernel", "tensor"]),
    ("commands", &["error", "expr", "kernel", "plan", "tensor", "wgsl"]),
    ("model", &["error", "graph", "ir", "kernel", "ops", "plan", "tensor"]),
    ("gpu", &["error", "kernel", "wgsl"]),
    ("tune", &["error", "expr", "gpu", "kernel", "plan", "tensor", "wgsl"]),
    (
        "session",
        &[
            "commands", "error", "gpu", "graph", "ir", "kernel", "model", "onnx", "plan", "tensor", "tune",
            "wgsl",
        ],
    ),
    (
        "web",
        &[
            "commands", "error", "expr", "graph", "ir", "kernel", "model", "onnx", "plan", "tensor", "tune",
            "wgsl",
        ],
    ),
];

/// Where the library may panic: file, what stands there, why.
const PANICS: &[(&str, &str, &str)] = &[(
    "src/session/request.rs",
    "panic!",
    "`outputs[\"name\"]`, as every Index; its documentation says so and names `get`",
)];

/// What panics, or writes where a library should not.
const BANNED: &[&str] = &[
    ".unwrap()",
    ".expect(",
    "panic!",
    "todo!",
    "unimplemented!",
    "unreachable!",
    "dbg!",
    "println!",
    "eprintln!",
    "process::exit",
];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut folders) = (Vec::<PathBuf>::new(), vec![root.join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    assert!(files.len() > 40, "only {} files found", files.len());
    let test_files: Vec<PathBuf> = files.iter().flat_map(|file| test_modules(file)).collect();
    files.retain(|file| !test_files.contains(file));
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
    let read = |path: PathBuf| (name(&path), code(&std::fs::read_to_string(&path).unwrap()));
    // Programs use the library from outside.
    files.into_iter().map(read).filter(|(file, _)| !file.starts_with("src/bin/")).collect()
}

/// The files of the modules that `file` declares for tests alone.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let source = std::fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = source.lines().collect();
    let declared = |pair: &[&str]| match pair {
        ["#[cfg(test)]", next] => next.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned),
        _ => None,
    };
    lines.windows(2).filter_map(declared).map(|name| file.with_file_name(name + ".rs")).collect()
}

/// The code without comments, texts and test modules, line for line.
fn code(source: &str) -> String {
    let (mut out, mut test_module) = (String::new(), false);
    let mut lines = source.lines().peekable();
    while let Some(line) = lines.next() {
        let next_is_module = lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        test_module |= line == "#[cfg(test)]" && next_is_module;
        if !test_module {
            out.push_str(&without_texts(line));
        }
        test_module &= line != "}";
        out.push('\n');
    }
    out
}

/// A line without its comment and the contents of its string literals.
fn without_texts(line: &str) -> String {
    let (mut out, mut in_text, mut escaped) = (String::new(), false, false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            _ if in_text => {}
            // A character literal may be a quotation mark.
            '\'' if chars.peek() == Some(&'"') => {
                chars.next();
            }
            '/' if chars.peek() == Some(&'/') => break,
            c => out.push(c),
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What follows each `prefix` that stands alone: `X` of `crate::X`, and all of `crate::{X, Y}`.
fn paths_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| is_word(c) || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(rest.chars().take_while(|&c| is_word(c)).collect());
            continue;
        };
        let (mut depth, mut name, mut first) = (0, String::new(), true);
        for c in group.chars() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.insert(std::mem::take(&mut name));
                    first = true;
                }
                c if first && is_word(c) => name.push(c),
                c if c.is_whitespace() => {}
                _ => first = false,
            }
        }
        found.insert(name);
    }
    found.remove("");
    found
}

/// `src/plan/fuse.rs` and `src/plan.rs` belong to `plan`.
fn module(file: &str) -> &str {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/').next().unwrap_or(path)
}

#[test]
fn modules_use_one_another_in_one_direction() {
    let known: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    let mut faults = Vec::new();
    for (file, code) in sources() {
        let module = module(&file);
        if module == "lib" {
            continue;
        }
        let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            faults.push(format!("{file}: module {module} has no row in MAY_USE"));
            continue;
        };
        let is_root = file.ends_with("/mod.rs") || !file.trim_start_matches("src/").contains('/');
        let up = if is_root { "super::" } else { "super::super::" };
        let used = paths_after(&code, "crate::").into_iter().chain(paths_after(&code, up));
        for other in used {
            if other == module || may_use.contains(&other.as_str()) {
                continue;
            }
            if known.contains(other.as_str()) {
                faults.push(format!("{file}: {module} uses {other}"));
            } else {
                faults.push(format!(
                    "{file}: crate::{other} is no module of the table; use the module's own path"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_table_has_no_cycle_and_no_idle_entry() {
    let sources = sources();
    for (position, (name, may_use)) in MAY_USE.iter().enumerate() {
        for other in *may_use {
            let earlier = MAY_USE[..position].iter().any(|(m, _)| m == other);
            assert!(earlier, "{name} may use {other}, which does not stand before it");
            let own = sources.iter().filter(|(file, _)| module(file) == *name);
            let used = own.clone().any(|(_, code)| paths_after(code, "crate::").contains(*other));
            assert!(used, "{name} may use {other} and does not");
        }
    }
}

#[test]
fn wgpu_is_named_in_gpu_alone() {
    let faults: Vec<String> = sources()
        .into_iter()
        .filter(|(file, code)| {
            module(file) != "gpu" && code.split(|c| !is_word(c)).any(|word| word == "wgpu")
        })
        .map(|(file, _)| file)
        .collect();
    assert!(faults.is_empty(), "wgpu is named in {faults:?}");
}

#[test]
fn the_library_does_not_panic() {
    let mut faults = Vec::new();
    let mut met = BTreeSet::new();
    for (file, code) in sources() {
        for (number, line) in code.lines().enumerate() {
            for banned in BANNED.iter().filter(|banned| line.contains(*banned)) {
                match PANICS.iter().position(|(f, what, _)| *f == file && what == banned) {
                    Some(exception) => {
                        assert!(met.insert(exception), "{file}:{}: {banned} once more", number + 1)
                    }
                    None => faults.push(format!("{file}:{}: {banned} in {}", number + 1, line.trim())),
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(met.len(), PANICS.len(), "an exception is no longer needed");
}

#[test]
fn this_reader_of_code_sees_what_it_should() {
    let text = "use crate::{a, b::{c, d}, e};\n// crate::x\nlet s = \"crate::y // z\"; crate::f::g(); // h\n\
                #[cfg(test)]\nmod tests {\n    use crate::t;\n}\ncrate::last();\n";
    let code = code(text);
    let found: Vec<String> = paths_after(&code, "crate::").into_iter().collect();
    assert_eq!(found, ["a", "b", "e", "f", "last"]);
    assert_eq!(code.lines().count(), text.lines().count());
}
