//! The page that `tilewright tune --report` writes: one file, nothing fetched from elsewhere.

use std::fmt::Write as _;

use tilewright::tune::Trial;
use tilewright::{TuneReport, TunedKernel};

use crate::roofline::{Point, limit_name, percent, plot};
use crate::store::date;
use crate::trials::{self, Samples, ms, ms_text, ratio_text};
use crate::tune::{Tuned, peaks_text, rates, share, slower};

const STYLE: &str = include_str!("report.css");

/// The whole page.
pub fn page(tuned: &Tuned) -> String {
    let report = tuned.report;
    let mut page = String::new();
    let subject = escaped(&tuned.subject);
    let name = tuned.subject.rsplit(std::path::is_separator).next().map(escaped).unwrap_or_default();
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{name}, tuned</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{name}, tuned</h1>\n"
    );
    facts(&mut page, tuned, &subject);
    let ratio = report.before_ns as f64 / report.after_ns.max(1) as f64;
    let _ = writeln!(page, "<h2>Whole run</h2>\n<div class=\"whole\">");
    let class = match ratio {
        _ if slower(report) => "big slower",
        _ if ratio > 1.0 => "big faster",
        _ => "big",
    };
    let _ = writeln!(page, "<p class=\"{class}\">{}</p>", ratio_text(ratio));
    let most = report.before_ns.max(report.after_ns);
    bars(&mut page, ["default", "tuned"], [Some(report.before_ns), Some(report.after_ns)], most);
    let _ = writeln!(page, "</div>");
    if let Some([default, best]) = rates(tuned) {
        let _ = writeln!(page, "<p class=\"note\">{} by default, {} tuned.</p>", default.text(), best.text());
    }
    roofline(&mut page, report);
    let _ = writeln!(
        page,
        "<h2>Kernels</h2>\n<p class=\"note\">Time in one run, the slowest first: all dispatches of a kernel \
         together, <span class=\"key default\"></span>default and <span class=\"key best\"></span>tuned.</p>"
    );
    let total = |kernel: &TunedKernel, ns: Option<u64>| ns.map(|ns| ns * kernel.uses as u64);
    let most = report.kernels.iter().filter_map(|k| total(k, k.default_ns().max(k.best_ns()))).max();
    for (number, kernel) in report.kernels.iter().enumerate() {
        let times = [total(kernel, kernel.default_ns()), total(kernel, kernel.best_ns())];
        let ratio = trials::speed_up(&kernel.trials).map_or("-".into(), ratio_text);
        let _ = writeln!(
            page,
            "<section class=\"kernel\"><p class=\"head\"><a href=\"#k{number}\">{}. {}</a> \
             <span class=\"what\">{}</span> <b>{ratio}</b></p>",
            number + 1,
            escaped(&kernel.label),
            escaped(&kernel.output),
        );
        let mut facts = format!("bound by {}", limit_name(report.peaks.limit(&kernel.work)));
        if let Some(share) = share(kernel, &report.peaks) {
            facts += &format!(", tuned at {} of the roofline", percent(share));
        }
        if let Some([default, best]) = kernel.in_model_ns {
            facts += &format!(
                "; in whole runs {} ms by default, {} ms tuned",
                ms_text(ms(default)),
                ms_text(ms(best))
            );
        }
        let _ = writeln!(page, "<p class=\"note\">{facts}</p>");
        bars(&mut page, ["default", "tuned"], times, most.unwrap_or(1));
        let _ = writeln!(page, "</section>");
    }
    let _ = writeln!(
        page,
        "<h2>Trials</h2>\n<p class=\"note\">Milliseconds of one dispatch, the kernel alone. The spread is from the \
         best sample to the worst, relative to the median. Dropped ones were clearly slower, and not sampled again.</p>"
    );
    for (number, kernel) in report.kernels.iter().enumerate() {
        kernel_trials(&mut page, number, kernel);
    }
    page + "</main>\n</body>\n</html>\n"
}

/// The kernels under the roof of what the device can do.
fn roofline(page: &mut String, report: &TuneReport) {
    let points: Vec<Point> = report
        .kernels
        .iter()
        .enumerate()
        .filter_map(|(i, kernel)| {
            let times_ns = [kernel.default_ns()?, kernel.best_ns()?];
            Some(Point { number: i + 1, label: kernel.label.clone(), work: kernel.work, times_ns })
        })
        .collect();
    let _ = writeln!(
        page,
        "<h2>Roofline</h2>\n<p class=\"note\">What the device can do, and how near each kernel comes: the numbers are \
         the kernels below, a dot where each was by default. Left of the bend bytes are the limit, right of it \
         arithmetic. Measured: {}.</p>\n{}",
        escaped(&peaks_text(&report.peaks)),
        plot(&report.peaks, &points)
    );
}

fn facts(page: &mut String, tuned: &Tuned, subject: &str) {
    let adapter = tuned.session.adapter();
    let tried: usize = tuned.report.kernels.iter().map(|k| trials::tried(&k.trials)).sum();
    let all: usize = tuned.report.kernels.iter().map(|k| k.trials.len()).sum();
    let facts = [
        ("what", subject.to_owned()),
        ("inputs", escaped(&tuned.inputs.join("; "))),
        (
            "adapter",
            escaped(&format!("{} ({}, {}, {})", adapter.name, adapter.kind, adapter.backend, adapter.driver)),
        ),
        ("kernels", format!("{}, {tried} of {all} candidates tried", tuned.report.kernels.len())),
        ("date", date(tuned.unix_seconds)),
        ("by", concat!("tilewright ", env!("CARGO_PKG_VERSION")).to_owned()),
    ];
    let _ = writeln!(page, "<dl>");
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{value}</dd>");
    }
    let _ = writeln!(page, "</dl>");
}

/// Two bars with their times; `most` is as long as the page is wide.
fn bars(page: &mut String, names: [&str; 2], times_ns: [Option<u64>; 2], most: u64) {
    for ((name, ns), class) in names.into_iter().zip(times_ns).zip(["default", "best"]) {
        let width = ns.map_or(0.0, |ns| 100.0 * ns as f64 / most.max(1) as f64).max(0.3);
        let time = ns.map_or("-".into(), |ns| format!("{} ms", ms_text(ms(ns))));
        let _ = writeln!(
            page,
            "<div class=\"bar\"><span>{name}</span><svg role=\"img\" aria-label=\"{name} {time}\" \
             viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\"><rect class=\"{class}\" width=\"{width:.2}\" \
             height=\"10\"/></svg><span class=\"time\">{time}</span></div>"
        );
    }
}

fn kernel_trials(page: &mut String, number: usize, kernel: &TunedKernel) {
    let trials = &kernel.trials;
    let uses = if kernel.uses == 1 { "once a run".into() } else { format!("{} times a run", kernel.uses) };
    let _ = writeln!(
        page,
        "<details open id=\"k{number}\"><summary>{} <span class=\"what\">{}, {uses}</span></summary>\n\
         <table><thead><tr><th>schedule</th><th class=\"n\">best</th><th class=\"n\">median</th>\
         <th class=\"n\">spread</th><th>status</th></tr></thead><tbody>",
        escaped(&kernel.label),
        escaped(&kernel.output),
    );
    for trial in trials::sorted(trials) {
        row(page, trial, trials);
    }
    let _ = writeln!(page, "</tbody></table></details>");
}

fn row(page: &mut String, trial: &Trial, trials: &[Trial]) {
    let status = trials::status(trial, trials);
    let class = status.replace(' ', "-");
    let reason = escaped(&trials::reason(trial, trials));
    let separator = if reason.is_empty() { "" } else { ": " };
    let [best, median, spread] = match Samples::of(trial) {
        Some(s) => [ms_text(s.min_ms), ms_text(s.median_ms), s.spread_text()],
        None => ["-", "-", "-"].map(String::from),
    };
    let _ = writeln!(
        page,
        "<tr class=\"{class}\"><td class=\"schedule\"><code>{}</code></td>\
         <td class=\"n\" data-name=\"best\">{best}</td><td class=\"n\" data-name=\"median\">{median}</td>\
         <td class=\"n\" data-name=\"spread\">{spread}</td>\
         <td class=\"status\"><b>{status}</b>{separator}{reason}</td></tr>",
        escaped(&trial.schedule.to_string()),
    );
}

pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
