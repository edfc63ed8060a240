//! Bars on the standard error for work that takes more than a second, where that is a terminal.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use tilewright::{Progress, Stage};

/// What [`tilewright::SessionOptions::progress`] wants.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// Work that is over sooner gets no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// The work going on, and its bar once there is one.
struct Work {
    stage: Stage,
    total: u64,
    start: Instant,
    bar: Option<ProgressBar>,
}

/// A function that shows progress; `None` where nobody would see it.
pub fn on_progress() -> Option<OnProgress> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let work: Mutex<Option<Work>> = Mutex::new(None);
    Some(Arc::new(move |progress| {
        let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
        show(&mut work, progress);
    }))
}

fn show(work: &mut Option<Work>, progress: Progress) {
    let Progress { stage, done, total } = progress;
    let goes_on = work.as_ref().is_some_and(|work| work.stage == stage && work.total == total);
    if !goes_on {
        // A bar that is dropped clears itself.
        *work = Some(Work { stage, total, start: Instant::now(), bar: None });
    }
    let Some(current) = work else { return };
    if current.bar.is_none() && current.start.elapsed() > PATIENCE && done < total {
        current.bar = Some(bar(stage, total));
    }
    if let Some(bar) = &current.bar {
        bar.set_position(done);
    }
    if done >= total {
        *work = None;
    }
}

fn bar(stage: Stage, total: u64) -> ProgressBar {
    let template = match stage {
        Stage::Upload => "uploading weights  {bar:30} {binary_bytes} / {binary_total_bytes}",
        Stage::Tune => "tuning kernels     {bar:30} {pos} / {len}",
        Stage::Compile => "compiling kernels  {bar:30} {pos} / {len}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_finish(ProgressFinish::AndClear)
}

/// A bar that counts, with a message; hidden where nobody would see it.
pub fn counted(what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix}  {bar:20} {pos} / {len}  {wide_msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_prefix(what.to_owned())
}
