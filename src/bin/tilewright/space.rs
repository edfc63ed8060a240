//! `tilewright tune --space`: how many schedules each kernel could have, what removed most of them, and what is left.

use serde_json::{Value as Json, json};
use tilewright::kernel::{Caps, Peaks, Space, space};

use crate::failure::{Result, print, print_json};
use crate::planned::{Machine, Planned};
use crate::{devices, emit, planned};

/// List the spaces of every kernel of a plan.
pub fn list(subject: &str, planned: &Planned, machine: &Machine, as_json: bool) -> Result<()> {
    let caps = &machine.caps;
    let kernels: Vec<(planned::Space, Space)> = planned
        .spaces(caps)
        .into_iter()
        .map(|kernel| {
            let own = of(&kernel, caps);
            (kernel, own)
        })
        .collect();
    if as_json {
        let one = |(kernel, own): &(planned::Space, Space)| {
            let list: Vec<String> = own.kept.iter().map(ToString::to_string).collect();
            let removed: Vec<Json> =
                own.removed.iter().map(|(rule, count)| json!({ "rule": rule, "removed": count })).collect();
            json!({
                "kernel": kernel.label, "output": kernel.output, "raw": own.raw, "rules": removed,
                "kept": own.kept.len(), "candidates": list,
            })
        };
        let adapter: Json = machine.adapter.as_ref().map(devices::short_json).into();
        let list: Vec<Json> = kernels.iter().map(one).collect();
        return print_json(&json!({ "op": subject, "adapter": adapter, "kernels": list }));
    }
    let mut text = format!("{subject} on {}\n", machine.describe());
    for (kernel, own) in &kernels {
        text += &format!("\n{} {}: {} points of its knobs\n", kernel.label, kernel.output, own.raw);
        for (rule, count) in &own.removed {
            text += &format!("  {count:>6} removed: {rule}\n");
        }
        text += &format!("  {:>6} legal candidates, the default first\n", own.kept.len());
        for (number, candidate) in own.kept.iter().enumerate() {
            text += &format!("  {:>6}. {}\n", number + 1, emit::knobs_text(candidate));
        }
    }
    print(&text)
}

fn of(kernel: &planned::Space, caps: &Caps) -> Space {
    space(&kernel.spec, &kernel.sizes, caps, &Peaks::typical(caps))
}
