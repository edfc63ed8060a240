//! `store`: needs no adapter.

use std::path::Path;

use serde_json::json;

use crate::models::{Folder, text};
use crate::program::{Call, call, command};

/// A line of the store.
fn line(kernel: &str, label: &str, default_ns: u64, other_ns: u64) -> String {
    let trial = |workgroup: u32, ns: u64| {
        json!({
            "schedule": { "Map": { "workgroup": workgroup, "per_invocation": 1 } },
            "status": "Measured",
            "samples_ns": [ns],
        })
    };
    let key = json!({
        "kernel": kernel, "bucket": [64], "adapter": "card", "backend": "vulkan", "driver": "d 1",
        "compiler": "naga 30", "generator": 1,
    });
    let trials = [trial(64, default_ns), trial(32, other_ns)];
    let record = json!({ "format": 1, "key": key, "label": label, "trials": trials, "unix_seconds": 86400 });
    format!("{record}\n")
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).expect("a store").lines().map(str::to_owned).collect()
}

#[test]
fn records_are_listed_shown_merged_moved_and_cleared() {
    let folder = Folder::new();
    let path = folder.path("deep/records.jsonl");
    let store = |arguments: &[&str]| -> Call {
        let records = text(&path);
        call(&[&["store", "--records", &records], arguments].concat())
    };
    assert_eq!(store(&["path"]).stdout, format!("{}\n", path.display()));
    assert!(store(&["list"]).stdout.starts_with("no records in "));
    store(&["export", &text(&folder.path("out"))]).fails(1, &["records.jsonl"]);

    let old = line("aaaa11", "map_0 y float32 [64]", 400, 100);
    let new = line("aaaa11", "map_0 y float32 [64]", 300, 200);
    let other = line("bbbb22", "map_1 z float32 [64]", 500, 600);
    let first = folder.file("first", format!("{old}half a line"));
    let second = folder.file("second", format!("{new}\n{other}"));
    let prose = folder.file("prose", "This is no record.\n");
    let merged = store(&["merge", &first, &second]);
    assert!(merged.stdout.ends_with(": 2 records\n"), "{merged:?}");
    for part in
        ["first: line 2 is no record, and kept", "first: 1 records, 2 new lines", "second: 2 records, 2 new"]
    {
        assert!(merged.stderr.contains(part), "want {part:?} in {}", merged.stderr);
    }
    let whole = lines(&path);
    assert_eq!(whole, [old.trim_end(), "half a line", new.trim_end(), other.trim_end()]);
    // Again changes nothing; a file without a record, or one that is missing, adds nothing.
    assert_eq!(store(&["merge", &second, &first]).status, 0);
    store(&["import", &prose]).fails(1, &["prose", "not one line is a record"]);
    store(&["merge", &first, &text(&folder.path("missing"))]).fails(1, &["missing"]);
    assert_eq!(lines(&path), whole);

    let listed = store(&["list"]);
    assert!(listed.stderr.contains("line 2 is passed over"), "{}", listed.stderr);
    for part in ["aaaa11", "map_1 z float32 [64]", "1.50x", "1.00x", "card", "1970-01-02"] {
        assert!(listed.stdout.contains(part), "want {part:?} in {}", listed.stdout);
    }
    let json = store(&["list", "--json"]).json();
    assert_eq!(json["records"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["damaged"][0]["line"], 2);
    assert_eq!(json["records"][0]["schedule"], "workgroup=32 per_invocation=1 vector=1");
    let shown = store(&["show", "AAAA"]);
    for part in ["aaaa11", "card (vulkan, d 1)", "winner", "1.50x the winner's time", "the default"] {
        assert!(shown.stdout.contains(part), "want {part:?} in {}", shown.stdout);
    }
    assert!(!shown.stdout.contains("bbbb22"));
    store(&["show", "cc"]).fails(1, &["no kernel's hash begins with \"cc\""]);

    let out = folder.path("out.jsonl");
    assert!(store(&["export", &text(&out)]).stdout.ends_with(": 2 records\n"));
    assert_eq!(lines(&out), whole);
    assert_eq!(store(&["export", "-"]).stdout, std::fs::read_to_string(&path).expect("text"));
    store(&["export", &text(&path)]).fails(2, &["the store itself"]);
    let beside: Vec<_> = std::fs::read_dir(folder.path("")).expect("a folder").collect();
    assert!(beside.iter().all(|e| !format!("{e:?}").contains(".part")), "{beside:?}");

    store(&["clear"]).fails(2, &["--yes"]);
    assert_eq!(lines(&path), whole);
    assert!(store(&["clear", "--yes"]).stdout.ends_with(": 2 records deleted\n"));
    assert!(lines(&path).is_empty());
    assert!(store(&["import", &text(&out)]).stdout.ends_with(": 2 records\n"));
    assert_eq!(lines(&path), whole);
}

#[test]
fn the_environment_names_the_default_store() {
    let folder = Folder::new();
    let path = folder.file("mine.jsonl", line("cccc33", "map_0", 2, 1));
    let mut listed = command(&["store", "list"]);
    let listed = Call::from(listed.env("TILEWRIGHT_RECORDS", &path).output().expect("the program"));
    assert!(listed.stdout.contains("cccc33"), "{listed:?}");
    let mut unset = command(&["store", "path"]);
    let unset = unset.env_remove("TILEWRIGHT_RECORDS").output().expect("the program");
    assert!(Call::from(unset).stdout.ends_with("records.jsonl\n"));
}
