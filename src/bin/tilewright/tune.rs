//! `tilewright tune`: measure the candidates of every kernel, keep and show what was found.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use serde_json::{Value as Json, json};
use tilewright::kernel::Peaks;
use tilewright::tune::{Trial, winner};
use tilewright::{
    Error, Session, SessionOptions, Tensor, TuneMode, TuneOptions, TuneProgress, TuneReport, TunedKernel,
};

use crate::bench::NOISE;
use crate::failure::{Result, print, print_json, say};
use crate::one_op::OneOp;
use crate::planned::Machine;
use crate::rate::Rate;
use crate::roofline::{limit_name, percent};
use crate::subject::Subject;
use crate::table::{Align, table};
use crate::trials::{self, ms, ms_text, ratio_text};
use crate::tuning_args::TuneArgs;
use crate::{devices, fill, html, progress, space};

/// Stands for no limit: the library multiplies budgets, and this is far from where that overflows.
const WITHOUT_END: Duration = Duration::from_secs(365 * 24 * 3600);

/// What was tuned, and what came of it.
pub struct Tuned<'a> {
    /// The model's path, or the operation in words.
    pub subject: String,
    /// The operation, where it was one.
    pub op: Option<&'a OneOp>,
    /// The session it was done in.
    pub session: &'a Session,
    /// What was found.
    pub report: &'a TuneReport,
    /// Where it is kept.
    pub records: Option<PathBuf>,
    /// Shapes of the inputs, as `x float32 [1, 3]`.
    pub inputs: Vec<String>,
    /// When.
    pub unix_seconds: u64,
}

/// Tune a model or an operation.
pub fn tune(args: &TuneArgs) -> Result<()> {
    let subject = Subject::open(&args.subject)?;
    if args.space {
        let machine = Machine::of(args.adapter.as_ref())?;
        let planned = subject.plan(args.precision, &machine)?;
        return space::list(&subject.name, &planned, &machine, args.json);
    }
    // What an operation computes on is of no interest.
    let mut note = |text: &str| {
        if subject.op.is_none() {
            say(text)
        }
    };
    let filled = subject.fill(args.seed, &mut note)?;
    if let Some(path) = &args.report {
        html_writable(path)?;
    }
    let options = SessionOptions {
        adapter: args.adapter.clone().unwrap_or_default(),
        dims: subject.dims,
        allow_f64_as_f32: args.precision.allow_f64_as_f32,
        f16_sums: args.precision.f16_sums,
        records: args.records.to_write()?,
        tune: TuneMode::Off,
        progress: progress::on_progress(),
    };
    let session = Session::load(subject.source, &options)?;
    let feeds: Vec<(&str, &Tensor)> = filled.iter().map(|i| (i.name.as_str(), &i.tensor)).collect();
    let mut tune_options = TuneOptions::default();
    if args.exhaustive {
        tune_options.budget = WITHOUT_END;
        tune_options.most_candidates = usize::MAX;
    } else {
        tune_options.budget = Duration::from_secs_f64(args.budget);
    }
    let bar = progress::counted("tuning");
    let mut report = session.tune(&feeds, &tune_options, &mut |p| show(&bar, &p))?;
    let share = |kernel: &TunedKernel| kernel.default_ns().unwrap_or(0) * kernel.uses as u64;
    report.kernels.sort_by_key(|kernel| std::cmp::Reverse(share(kernel)));
    bar.finish_and_clear();

    let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let input = |i: &fill::Input| {
        format!("{} {} {}", i.name, i.tensor.dtype(), crate::table::shape(i.tensor.shape()))
    };
    let tuned = Tuned {
        subject: subject.name,
        op: subject.op.as_ref(),
        session: &session,
        report: &report,
        records: options.records.clone(),
        inputs: filled.iter().map(input).collect(),
        unix_seconds,
    };
    if let Some(path) = &args.report {
        std::fs::write(path, html::page(&tuned))
            .map_err(|source| Error::Io { path: path.clone(), source })?;
    }
    if args.json { print_json(&to_json(&tuned)) } else { print(&to_text(&tuned)) }
}

fn html_writable(path: &PathBuf) -> Result<()> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    Ok(file.map(|_| ()).map_err(|source| Error::Io { path: path.clone(), source })?)
}

fn show(bar: &ProgressBar, progress: &TuneProgress) {
    bar.set_length(progress.kernels as u64);
    bar.set_position(progress.kernel as u64);
    let trials = progress.trials;
    let mut message = format!("{}  {} of {} tried", progress.label, trials::tried(trials), trials.len());
    if let (Some(best), Some(ratio)) = (winner(trials).and_then(Trial::best_ns), trials::speed_up(trials)) {
        message += &format!(", best {} ms, {}", ms_text(ms(best)), ratio_text(ratio));
    }
    bar.set_message(message);
}

/// Time of the default and of the best schedules of all kernels together, in nanoseconds.
pub fn totals_ns(report: &TuneReport) -> Option<[u64; 2]> {
    let total = |one: fn(&TunedKernel) -> Option<u64>| {
        report.kernels.iter().map(|kernel| Some(one(kernel)? * kernel.uses as u64)).sum::<Option<u64>>()
    };
    Some([total(TunedKernel::default_ns)?, total(TunedKernel::best_ns)?])
}

/// The part of the roofline that a kernel reached.
pub fn share(kernel: &TunedKernel, peaks: &Peaks) -> Option<f64> {
    Some(peaks.share(&kernel.work, kernel.best_ns()?))
}

/// How much faster a kernel became in runs of the whole model.
fn in_model(kernel: &TunedKernel) -> Option<f64> {
    kernel.in_model_ns.map(|[default, best]| default as f64 / best.max(1) as f64)
}

/// What the device can do at best, for people.
pub fn peaks_text(peaks: &Peaks) -> String {
    let f16 = peaks.f16_flops_per_ns.map_or(String::new(), |f16| format!(", {f16:.1} in f16"));
    format!(
        "{:.1} GB/s copied, {:.1} GFLOP/s{f16}, a dispatch {:.1} us",
        peaks.copy_bytes_per_ns,
        peaks.f32_flops_per_ns,
        peaks.launch_ns / 1e3
    )
}

/// Whether a whole run became slower, by more than measurements differ.
pub fn slower(report: &TuneReport) -> bool {
    report.after_ns as f64 > report.before_ns as f64 * (1.0 + NOISE)
}

/// Rates of an operation by default and tuned.
pub fn rates(tuned: &Tuned) -> Option<[Rate; 2]> {
    let op = tuned.op?;
    let caps = &tuned.session.adapter().caps;
    let peaks = Some(&tuned.report.peaks);
    Some(totals_ns(tuned.report)?.map(|ns| Rate::of(op, caps, peaks, ns)))
}

fn to_text(tuned: &Tuned) -> String {
    use Align::{Left, Right};
    let report = tuned.report;
    let head = [
        "kernel",
        "output",
        "uses",
        "tried",
        "default ms",
        "best ms",
        "speed-up",
        "of peak",
        "in model",
        "schedule",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    for kernel in &report.kernels {
        let time = |ns: Option<u64>| ns.map_or("-".into(), |ns| ms_text(ms(ns)));
        rows.push(vec![
            kernel.label.clone(),
            kernel.output.clone(),
            kernel.uses.to_string(),
            format!("{}/{}", trials::tried(&kernel.trials), kernel.trials.len()),
            time(kernel.default_ns()),
            time(kernel.best_ns()),
            trials::speed_up(&kernel.trials).map_or("-".into(), ratio_text),
            share(kernel, &report.peaks).map_or("-".into(), percent),
            in_model(kernel).map_or("-".into(), ratio_text),
            winner(&kernel.trials).map_or("-".into(), |trial| trial.schedule.to_string()),
        ]);
    }
    let mut text = format!("{}\n\n", tuned.session.adapter());
    text += &table(&[Left, Left, Right, Right, Right, Right, Right, Right, Right, Left], &rows);
    let ratio = report.before_ns as f64 / report.after_ns.max(1) as f64;
    let [before, after] = [report.before_ns, report.after_ns].map(|ns| ms_text(ms(ns)));
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("whole run", format!("{before} ms by default, {after} ms tuned: {}", ratio_text(ratio))),
        row("peak", peaks_text(&report.peaks)),
    ];
    if let Some([default, best]) = rates(tuned) {
        rows.push(row("default", default.text()));
        rows.push(row("tuned", best.text()));
    }
    if slower(report) {
        rows.push(row(
            "",
            "slower than before: was the machine busy? `tilewright store` shows the records".into(),
        ));
    }
    let skipped: usize = report.kernels.iter().map(|k| k.trials.len() - trials::tried(&k.trials)).sum();
    if skipped > 0 {
        rows.push(row(
            "not tried",
            format!("{skipped} candidates: --budget or --exhaustive gives them time"),
        ));
    }
    let kept = tuned.records.as_ref().map_or("not kept".into(), |path| path.display().to_string());
    rows.push(row("records", kept));
    text + "\n" + &table(&[Left, Left], &rows)
}

fn to_json(tuned: &Tuned) -> Json {
    let kernel = |kernel: &TunedKernel| {
        json!({
            "kernel": kernel.label,
            "output": kernel.output,
            "uses": kernel.uses,
            "key": kernel.key,
            "tried": trials::tried(&kernel.trials),
            "default_ns": kernel.default_ns(),
            "best_ns": kernel.best_ns(),
            "speed_up": trials::speed_up(&kernel.trials),
            "flops": kernel.work.flops,
            "bytes": kernel.work.bytes,
            "bound_by": limit_name(tuned.report.peaks.limit(&kernel.work)),
            "share_of_peak": share(kernel, &tuned.report.peaks),
            "in_model_ns": kernel.in_model_ns,
            "schedule": winner(&kernel.trials).map(|trial| trial.schedule.to_string()),
            "trials": trials::json(&kernel.trials),
        })
    };
    let rate = |rate: Rate| json!({ "gflops": rate.gflops, "gbytes_per_s": rate.gbytes, "share_of_peak": rate.share });
    let mut value = json!({
        "subject": tuned.subject,
        "adapter": devices::short_json(tuned.session.adapter()),
        "inputs": tuned.inputs,
        "peaks": tuned.report.peaks,
        "before_ns": tuned.report.before_ns,
        "after_ns": tuned.report.after_ns,
        "records": tuned.records.as_ref().map(|path| path.display().to_string()),
        "kernels": tuned.report.kernels.iter().map(kernel).collect::<Vec<_>>(),
    });
    if let Some([default, best]) = rates(tuned) {
        value["default"] = rate(default);
        value["best"] = rate(best);
    }
    value
}
