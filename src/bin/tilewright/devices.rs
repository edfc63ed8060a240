//! `tilewright devices`: the adapters of this machine.

use serde_json::{Value as Json, json};
use tilewright::gpu::Device;
use tilewright::kernel::{Caps, CooperativeSize};
use tilewright::{AdapterChoice, AdapterInfo, adapters};

use crate::args::DevicesArgs;
use crate::failure::{Result, print, print_json, say};
use crate::table::{Align, bytes, shape, table};

/// List the adapters. That there is none is an answer and no failure; the standard error says what to do.
pub fn devices(args: &DevicesArgs) -> Result<()> {
    let adapters = adapters()?;
    if adapters.is_empty()
        && let Err(error) = Device::open(&AdapterChoice::Best)
    {
        say(&error.to_string());
    }
    if args.json {
        let list: Vec<Json> = adapters.iter().map(adapter_json).collect();
        return print_json(&json!({ "adapters": list }));
    }
    let texts: Vec<String> = adapters.iter().map(adapter_text).collect();
    print(&texts.join("\n"))
}

/// An adapter in short, as `run` and `inspect` name it.
pub fn short_json(info: &AdapterInfo) -> Json {
    json!({
        "index": info.index,
        "name": info.name,
        "backend": info.backend,
        "driver": info.driver,
        "kind": info.kind.to_string(),
    })
}

fn adapter_text(info: &AdapterInfo) -> String {
    let caps = &info.caps;
    let row = |name: &str, value: String| vec![format!("   {name}"), value];
    let mut rows = vec![
        row("backend", info.backend.clone()),
        row("driver", if info.driver.is_empty() { "-".into() } else { info.driver.clone() }),
        row("features", features(caps)),
    ];
    if !caps.cooperative.is_empty() {
        let sizes: Vec<String> = caps.cooperative.iter().map(cooperative).collect();
        rows.push(row("cooperative matrices", sizes.join(", ")));
    }
    rows.extend([
        row("largest buffer", bytes(caps.max_buffer_bytes)),
        row("largest binding", bytes(caps.max_storage_binding_bytes)),
        row("bindings per kernel", caps.max_storage_bindings.to_string()),
        row(
            "workgroup",
            format!(
                "at most {} invocations, {}, {} of memory",
                caps.max_workgroup_invocations,
                shape(&caps.max_workgroup_size),
                bytes(caps.max_workgroup_bytes.into())
            ),
        ),
        row("workgroups per axis", caps.max_workgroups.to_string()),
    ]);
    format!("{}: {} ({})\n{}", info.index, info.name, info.kind, table(&[Align::Left, Align::Left], &rows))
}

fn features(caps: &Caps) -> String {
    let [smallest, largest] = caps.subgroup_size;
    let all = [
        (caps.f16, "f16".to_owned()),
        (caps.f64, "f64".to_owned()),
        (caps.i64, "i64".to_owned()),
        (caps.subgroups, format!("subgroups of {smallest} to {largest}")),
        (caps.timestamps, "timestamps".to_owned()),
        (!caps.cooperative.is_empty(), "cooperative matrices".to_owned()),
    ];
    let has: Vec<String> = all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect();
    if has.is_empty() { "none".into() } else { has.join(", ") }
}

fn cooperative(size: &CooperativeSize) -> String {
    let CooperativeSize { m, n, k, ab, c } = size;
    format!("{m}x{n}x{k} {ab} to {c}")
}

fn adapter_json(info: &AdapterInfo) -> Json {
    let caps = &info.caps;
    let size = |s: &CooperativeSize| json!({ "m": s.m, "n": s.n, "k": s.k, "ab": s.ab, "c": s.c });
    let mut value = short_json(info);
    value["limits"] = json!({
        "max_storage_binding_bytes": caps.max_storage_binding_bytes,
        "max_buffer_bytes": caps.max_buffer_bytes,
        "max_storage_bindings": caps.max_storage_bindings,
        "storage_offset_alignment": caps.storage_offset_alignment,
        "uniform_offset_alignment": caps.uniform_offset_alignment,
        "max_workgroup_size": caps.max_workgroup_size,
        "max_workgroup_invocations": caps.max_workgroup_invocations,
        "max_workgroup_bytes": caps.max_workgroup_bytes,
        "max_workgroups": caps.max_workgroups,
    });
    value["features"] = json!({
        "f16": caps.f16,
        "f64": caps.f64,
        "i64": caps.i64,
        "subgroups": caps.subgroups,
        "subgroup_size": caps.subgroup_size,
        "timestamps": caps.timestamps,
        "cooperative": caps.cooperative.iter().map(size).collect::<Vec<_>>(),
        "names": info.feature_names,
    });
    value
}
