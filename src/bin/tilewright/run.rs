//! `tilewright run`: run a model, time it, save what it computes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value as Json, json};
use tilewright::graph::ValueInfo;
use tilewright::{Error, Outputs, Session, SessionOptions, StepTime, Tensor, TuneMode, TuneOptions, onnx};

use crate::args::{RunArgs, Tune};
use crate::failure::{Failure, Result, print, print_json, say};
use crate::fill::{self, Input};
use crate::stats::Stats;
use crate::table::{Align, number, shape, table};
use crate::{devices, npy, progress};

/// What was measured.
struct Measured {
    load_ms: f64,
    first_ms: f64,
    /// Compiling the stored winners that the first run did without.
    winners_ms: f64,
    runs_ms: Vec<f64>,
    /// Of the last run.
    outputs: Outputs,
    /// Time by kernel, the longest first; `None` where it was not asked for or the device has no timestamps.
    profile: Option<Vec<KernelTime>>,
}

/// What one kernel took in a run.
struct KernelTime {
    kernel: String,
    dispatches: usize,
    elapsed_ns: u64,
}

/// Run the model. What the command line names is looked up before any device is asked.
pub fn run(args: &RunArgs) -> Result<()> {
    let (inputs, outputs) = {
        let graph = onnx::open(&args.model)?;
        (graph.inputs, graph.outputs)
    };
    let dims = fill::sizes(&inputs, &args.dims)?;
    let files = fill::files(&inputs, &args.inputs)?;
    let filled = fill::fill(&inputs, &files, &dims, args.seed, &mut say)?;
    let paths = args.output_dir.as_deref().map(|folder| output_paths(folder, &outputs)).transpose()?;

    let mode = args.tune;
    let options = SessionOptions {
        adapter: args.adapter.clone().unwrap_or_default(),
        dims,
        allow_f64_as_f32: args.precision.allow_f64_as_f32,
        f16_sums: args.precision.f16_sums,
        records: if mode == Tune::Off { args.records.to_read() } else { args.records.to_write()? },
        tune: match mode {
            Tune::Off => TuneMode::Off,
            Tune::Background => TuneMode::Background(TuneOptions::default()),
            Tune::Full => TuneMode::Full(TuneOptions::default()),
        },
        checks: args.checks.into(),
        progress: progress::on_progress(),
    };
    let start = Instant::now();
    let session = Session::load(&args.model, &options)?;
    let load_ms = elapsed_ms(start);
    let measured = measure(&session, &filled, args, load_ms)?;
    if args.profile && measured.profile.is_none() {
        say(&format!("no profile: {} has no timestamps", session.adapter().name));
    }
    if let Some(paths) = &paths {
        save(&measured.outputs, paths)?;
    }
    if args.json {
        return print_json(&to_json(&session, &measured, &filled, args));
    }
    print(&to_text(&session, &measured))
}

fn elapsed_ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn measure(session: &Session, filled: &[Input], args: &RunArgs, load_ms: f64) -> Result<Measured> {
    let feeds: Vec<(&str, &Tensor)> = filled.iter().map(|i| (i.name.as_str(), &i.tensor)).collect();
    let start = Instant::now();
    let mut outputs = session.run(&feeds)?;
    let first_ms = elapsed_ms(start);
    let start = Instant::now();
    if args.repeat > 0 {
        session.wait_for_winners();
    }
    let winners_ms = elapsed_ms(start);
    let mut runs_ms = Vec::new();
    for _ in 0..args.repeat {
        let start = Instant::now();
        outputs = session.run(&feeds)?;
        runs_ms.push(elapsed_ms(start));
    }
    let profile = if args.profile { session.profile(&feeds)?.map(by_kernel) } else { None };
    Ok(Measured { load_ms, first_ms, winners_ms, runs_ms, outputs, profile })
}

fn by_kernel(steps: Vec<StepTime>) -> Vec<KernelTime> {
    let mut kernels: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for step in steps {
        let (dispatches, elapsed_ns) = kernels.entry(step.kernel).or_default();
        *dispatches += 1;
        *elapsed_ns += step.elapsed_ns;
    }
    let time = |(kernel, (dispatches, elapsed_ns))| KernelTime { kernel, dispatches, elapsed_ns };
    let mut times: Vec<KernelTime> = kernels.into_iter().map(time).collect();
    times.sort_by_key(|time| std::cmp::Reverse(time.elapsed_ns));
    times
}

/// The outputs' files, by name; the folder is made.
fn output_paths(folder: &Path, outputs: &[ValueInfo]) -> Result<BTreeMap<String, PathBuf>> {
    let mut paths = BTreeMap::<String, PathBuf>::new();
    for output in outputs {
        let file = output.name.replace(std::path::is_separator, "_");
        let path = folder.join(format!("{file}.npy"));
        if let Some((other, _)) = paths.iter().find(|(_, other)| **other == path) {
            let message = format!("outputs {other:?} and {:?} would both be {}", output.name, path.display());
            return Err(Failure::Failed(message));
        }
        paths.insert(output.name.clone(), path);
    }
    std::fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.into(), source })?;
    Ok(paths)
}

fn save(outputs: &Outputs, paths: &BTreeMap<String, PathBuf>) -> Result<()> {
    for (name, tensor) in outputs.iter() {
        if let Some(path) = paths.get(name)
            && let Some(note) = npy::write(path, tensor)?
        {
            say(&note);
        }
    }
    Ok(())
}

/// The middle of a list, or the mean of the two in the middle; `None` where it is empty.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[sorted.len() / 2 - 1] + upper) / 2.0 })
}

fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

fn to_json(session: &Session, measured: &Measured, filled: &[Input], args: &RunArgs) -> Json {
    let output = |(name, tensor): (&str, &Tensor)| {
        let [min, max, mean] = Stats::json(Stats::of(tensor));
        json!({
            "name": name,
            "dtype": tensor.dtype().name(),
            "shape": tensor.shape(),
            "min": min,
            "max": max,
            "mean": mean,
        })
    };
    let input = |input: &Input| {
        json!({
            "name": input.name,
            "dtype": input.tensor.dtype().name(),
            "shape": input.tensor.shape(),
            "random": input.random,
        })
    };
    let kernel = |time: &KernelTime| json!({ "kernel": time.kernel, "dispatches": time.dispatches, "elapsed_ns": time.elapsed_ns });
    let mut value = json!({
        "model": args.model.display().to_string(),
        "adapter": devices::short_json(session.adapter()),
        "unchecked": session.adapter().checks.are_off(),
        "seed": args.seed,
        "inputs": filled.iter().map(input).collect::<Vec<_>>(),
        "outputs": measured.outputs.iter().map(output).collect::<Vec<_>>(),
        "load_ms": measured.load_ms,
        "first_ms": measured.first_ms,
        "winners_ms": measured.winners_ms,
        "runs_ms": measured.runs_ms,
        "min_ms": least(&measured.runs_ms),
        "median_ms": median(&measured.runs_ms),
        "dispatches": session.dispatches(),
    });
    if args.profile {
        value["profile"] = measured.profile.as_ref().map(|p| p.iter().map(kernel).collect::<Vec<_>>()).into();
    }
    value
}

fn to_text(session: &Session, measured: &Measured) -> String {
    use Align::{Left, Right};
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("adapter", session.adapter().to_string()),
        row("load", format!("{:.2} ms", measured.load_ms)),
        row("first run", format!("{:.2} ms", measured.first_ms)),
    ];
    if measured.winners_ms >= 1.0 {
        rows.push(row("winners", format!("compiled in {:.2} ms", measured.winners_ms)));
    }
    if let (Some(min), Some(median)) = (least(&measured.runs_ms), median(&measured.runs_ms)) {
        let count = measured.runs_ms.len();
        rows.push(row("next runs", format!("min {min:.2} ms, median {median:.2} ms of {count}")));
    }
    rows.push(row("dispatches", session.dispatches().to_string()));
    let mut text = table(&[Left, Left], &rows);

    let head = ["output", "dtype", "shape", "min", "max", "mean"].map(String::from).to_vec();
    let mut rows = vec![head];
    for (name, tensor) in measured.outputs.iter() {
        let [min, max, mean] = Stats::cells(Stats::of(tensor));
        rows.push(vec![name.into(), tensor.dtype().to_string(), shape(tensor.shape()), min, max, mean]);
    }
    text += &format!("\n{}", table(&[Left, Left, Left, Right, Right, Right], &rows));

    if let Some(times) = &measured.profile {
        let total_ns: u64 = times.iter().map(|time| time.elapsed_ns).sum();
        let mut rows = vec![["kernel", "dispatches", "ms", "%"].map(String::from).to_vec()];
        let line = |name: &str, dispatches: usize, elapsed_ns: u64| {
            let percent = 100.0 * elapsed_ns as f64 / total_ns.max(1) as f64;
            let ms = number(elapsed_ns as f64 / 1e6);
            vec![name.to_owned(), dispatches.to_string(), ms, format!("{percent:.1}")]
        };
        rows.extend(times.iter().map(|time| line(&time.kernel, time.dispatches, time.elapsed_ns)));
        rows.push(line("all", times.iter().map(|time| time.dispatches).sum(), total_ns));
        text += &format!("\n{}", table(&[Left, Right, Right, Right], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, want) in [
            (vec![], None),
            (vec![2.0], Some(2.0)),
            (vec![3.0, 1.0, 2.0], Some(2.0)),
            (vec![4.0, 1.0], Some(2.5)),
        ] {
            assert_eq!(median(&values), want);
        }
    }
}
