//! `tilewright inspect`: a model's inputs, operators, plan and kernels.

use serde_json::{Value as Json, json};
use tilewright::{Error, onnx, ops};

use crate::args::InspectArgs;
use crate::failure::{Failure, Result, print, print_json};
use crate::planned::{self, KernelSource, Machine, Outcome, Planned};
use crate::report::{self, Summary};
use crate::table::quoted;
use crate::{devices, fill};

/// Describe the model. Where its plan is asked for and there is none, that is a failure, told after the report.
pub fn inspect(args: &InspectArgs) -> Result<()> {
    let graph = onnx::open(&args.model)?;
    let dims = fill::sizes(&graph.inputs, &args.dims)?;
    let unsupported = ops::unsupported(&graph);
    let summary = Summary::of(&graph);
    let machine = Machine::here()?;
    let outcome = if unsupported.is_empty() {
        planned::make(&graph, &dims, args.precision.into(), &machine.caps)
    } else {
        Outcome::Failed(Error::Unsupported { items: unsupported.clone() })
    };
    let planned = match &outcome {
        Outcome::Planned(planned) => Some(planned.as_ref()),
        Outcome::NeedsInputs(_) | Outcome::Failed(_) => None,
    };
    let kernels = match (&args.wgsl, planned) {
        (Some(wanted), Some(planned)) => kernels(planned, wanted.as_deref(), &machine)?,
        _ => Vec::new(),
    };

    if args.json {
        let mut value = summary.json(&graph);
        value["model"] = args.model.display().to_string().into();
        value["unsupported"] = json!(unsupported);
        value["adapter"] = machine.adapter.as_ref().map(devices::short_json).into();
        value["needs_inputs"] = match &outcome {
            Outcome::NeedsInputs(names) => json!(names),
            Outcome::Planned(_) | Outcome::Failed(_) => json!([]),
        };
        value["plan_error"] = reason(&outcome).into();
        if let Some(planned) = planned {
            report::add_costs(&mut value, planned);
        }
        if args.plan {
            value["plan"] = planned.map(report::plan_json).into();
        }
        if args.wgsl.is_some() {
            value["kernels"] = kernels.iter().map(kernel_json).collect();
        }
        print_json(&value)?;
    } else {
        let mut parts = Vec::new();
        // One kernel's text alone can be given to another program.
        if !matches!(args.wgsl, Some(Some(_))) || args.plan || planned.is_none() {
            let mut text = format!("model         {}\n", args.model.display());
            text += &summary.text(&graph, &unsupported);
            match (planned, reason(&outcome)) {
                (Some(planned), _) => text += &report::costs_text(planned, &machine),
                (None, Some(_)) if !unsupported.is_empty() => {}
                (None, reason) => text += &format!("plan          none: {}\n", reason.unwrap_or_default()),
            }
            parts.push(text);
        }
        if args.plan {
            parts.extend(planned.map(report::plan_text));
        }
        parts.extend(kernels.iter().map(|kernel| kernel_text(kernel, &machine)));
        print(&parts.join("\n"))?;
    }
    match outcome {
        Outcome::Failed(error) if args.plan || args.wgsl.is_some() => Err(error.into()),
        Outcome::NeedsInputs(_) if args.plan || args.wgsl.is_some() => {
            Err(Failure::Failed(format!("no plan: {}", reason(&outcome).unwrap_or_default())))
        }
        Outcome::Planned(_) | Outcome::NeedsInputs(_) | Outcome::Failed(_) => Ok(()),
    }
}

/// Why there is no plan.
fn reason(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Planned(_) => None,
        Outcome::NeedsInputs(names) => Some(format!(
            "it depends on what a run gives as {}; `tilewright run` plans with that",
            quoted(names)
        )),
        Outcome::Failed(error) => Some(error.to_string()),
    }
}

fn kernels(planned: &Planned, wanted: Option<&str>, machine: &Machine) -> Result<Vec<KernelSource>> {
    let mut kernels = planned.kernels(&machine.caps)?;
    let Some(wanted) = wanted else { return Ok(kernels) };
    if !kernels.iter().any(|kernel| kernel.label == wanted) {
        let mut labels: Vec<&str> = kernels.iter().map(|kernel| kernel.label.as_str()).collect();
        labels.dedup();
        let there = if labels.is_empty() { "none".into() } else { labels.join(", ") };
        return Err(Failure::Usage(format!("--wgsl: the plan has no kernel {wanted:?}; there are: {there}")));
    }
    kernels.retain(|kernel| kernel.label == wanted);
    Ok(kernels)
}

fn kernel_text(kernel: &KernelSource, machine: &Machine) -> String {
    let KernelSource { label, schedule, steps, wgsl } = kernel;
    let steps = if *steps == 1 { "1 step".into() } else { format!("{steps} steps") };
    format!("// {label}: {schedule}; {steps}; for {}\n{}\n", machine.describe(), wgsl.trim_end())
}

fn kernel_json(kernel: &KernelSource) -> Json {
    json!({
        "kernel": kernel.label,
        "schedule": kernel.schedule.to_string(),
        "steps": kernel.steps,
        "wgsl": kernel.wgsl,
    })
}
