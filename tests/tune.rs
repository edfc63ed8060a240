//! Tuning: what may win, what is kept, and that results stay the same.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::net::Net;
use tilewright::gpu::{AdapterKind, Device};
use tilewright::kernel::{ContractSchedule, KernelSpec, MapSchedule, ReduceSchedule, Schedule, candidates};
use tilewright::tune::{
    Bench, FORMAT, Key, Line, Record, SearchOptions, Status, Store, Trial, finalists, search, winner,
};
use tilewright::{
    DType, Progress, Session, SessionOptions, Stage, Tensor, TuneMode, TuneOptions, TuneStatus,
};

fn everything() -> SearchOptions {
    SearchOptions { most_candidates: usize::MAX, ..SearchOptions::default() }
}

/// A product and a softmax over it.
fn net() -> Net {
    Net::new()
        .input("x", DType::F32, "rows 48")
        .floats("w", &[48, 64])
        .node("MatMul", "x w", "product", &[])
        .node("Softmax", "product", "y", &[])
        .output("y", DType::F32)
}

fn x() -> Tensor {
    support::net::made_up(&[40, 48], 7)
}

fn device() -> Device {
    Device::open(&support::options().adapter).expect("an adapter, or TILEWRIGHT_SKIP_GPU=1")
}

/// The first kernel of a family in a network without symbols, with the lengths of its inputs and output.
fn kernel(net: &Net, family: &str, device: &Device) -> (KernelSpec, Vec<usize>, usize) {
    let plan = net.plan(device.caps());
    let layout = plan.layout(&Default::default(), device.caps(), &Default::default()).unwrap();
    let len = |t: &usize| layout.shapes[*t].iter().product();
    let step = plan.steps.iter().find(|s| plan.kernels[s.kernel].spec.family() == family).unwrap();
    let spec = plan.kernels[step.kernel].spec.clone();
    (spec, step.inputs.iter().map(len).collect(), len(&step.output))
}

fn product() -> Net {
    Net::new()
        .input("a", DType::F32, "64 48")
        .input("b", DType::F32, "48 64")
        .node("MatMul", "a b", "y", &[])
        .output("y", DType::F32)
}

#[test]
fn bad_candidates_are_recorded_and_the_device_survives() {
    if support::skip_gpu("bad_candidates_are_recorded_and_the_device_survives") {
        return;
    }
    let device = device();
    let (spec, inputs, output) = kernel(&product(), "gemm", &device);
    let legal = candidates(&spec, &[], device.caps());
    let side = device.caps().max_workgroup_invocations;
    let too_large = Schedule::Contract(ContractSchedule {
        group_m: side,
        group_n: side,
        micro_m: 1,
        micro_n4: 1,
        split_k: 1,
    });
    let other_family = Schedule::Map(MapSchedule { workgroup: 64, per_invocation: 1, vector: 1 });
    let list =
        [vec![legal[0].clone(), too_large.clone(), other_family.clone()], legal[1..3].to_vec()].concat();
    let mut bench = Bench::new(&device, "gemm", &spec, &[], &inputs, output).unwrap();
    let mut told = 0;
    let trials = search(&mut bench, &list, &everything(), &mut |_| told += 1).unwrap();
    assert!(told > list.len());
    for (trial, schedule) in trials.iter().zip(&list) {
        assert_eq!(&trial.schedule, schedule);
        let bad = [&too_large, &other_family].contains(&schedule);
        assert_eq!(matches!(&trial.status, Status::Failed(why) if !why.is_empty()), bad, "{trial:?}");
        assert_eq!(trial.best_ns().is_none(), bad, "{trial:?}");
    }
    let best = winner(&trials).unwrap();
    assert!(legal.contains(&best.schedule));
    // The device goes on, and the winner computes what the default does.
    let default = bench.output(&legal[0]).unwrap();
    let won = bench.output(&best.schedule).unwrap();
    assert_eq!(default.len(), 64 * 64);
    assert!(default.iter().zip(&won).all(|(d, w)| (d - w).abs() <= 1e-3), "{best:?}");
    // A default that cannot run is an error, not a record.
    assert!(search(&mut bench, &[too_large], &everything(), &mut |_| {}).is_err());
}

/// Lanes are added up in halves, so a number of lanes that is no power of two loses some of them.
#[test]
fn a_wrong_candidate_cannot_win() {
    if support::skip_gpu("a_wrong_candidate_cannot_win") {
        return;
    }
    let device = device();
    let net =
        Net::new().input("x", DType::F32, "4 300").node("ReduceSum", "x", "y", &[]).output("y", DType::F32);
    let (spec, inputs, output) = kernel(&net, "reduce", &device);
    let schedule = |lanes| Schedule::Reduce(ReduceSchedule::plain(lanes, 1));
    let list = [schedule(64), schedule(7), schedule(32)];
    let mut bench = Bench::new(&device, "reduce", &spec, &[], &inputs, output).unwrap();
    let trials = search(&mut bench, &list, &everything(), &mut |_| {}).unwrap();
    assert!(matches!(&trials[1].status, Status::Wrong(why) if why.contains("element")), "{:?}", trials[1]);
    assert!(trials[1].samples_ns.is_empty() && trials[1].best_ns().is_none());
    assert_ne!(winner(&trials).unwrap().schedule, schedule(7));
}

/// A sum in parts takes two passes; its epilogue must see the whole sum, and the right operands.
#[test]
fn a_split_sum_gives_what_the_whole_one_does() {
    if support::skip_gpu("a_split_sum_gives_what_the_whole_one_does") {
        return;
    }
    let device = device();
    let net = Net::new()
        .input("a", DType::F32, "3 5 512")
        .input("b", DType::F32, "512 6")
        .input("r", DType::F32, "3 5 6")
        .node("MatMul", "a b", "p", &[])
        .node("Relu", "p", "q", &[])
        .node("Add", "r q", "y", &[])
        .output("y", DType::F32);
    let (spec, inputs, output) = kernel(&net, "gemm", &device);
    let mut bench = Bench::new(&device, "gemm", &spec, &[], &inputs, output).unwrap();
    let schedule = |split_k| {
        Schedule::Contract(ContractSchedule { group_m: 4, group_n: 8, micro_m: 2, micro_n4: 1, split_k })
    };
    let whole = bench.output(&schedule(1)).unwrap();
    assert!(whole.iter().filter(|v| **v > 0.0).count() > 45, "{whole:?}");
    for split_k in [2, 4, 8] {
        let split = bench.output(&schedule(split_k)).unwrap();
        let close = whole.iter().zip(&split).take(3 * 5 * 6).all(|(w, s)| (w - s).abs() <= 1e-4);
        assert!(close, "split_k={split_k}: {split:?}, not {whole:?}");
    }
    let split = |s: &Schedule| matches!(s, Schedule::Contract(c) if c.split_k > 1);
    assert!(candidates(&spec, &[], device.caps()).iter().any(split), "no candidate splits the sum");
}

#[test]
fn without_a_budget_the_default_is_measured_alone() {
    if support::skip_gpu("without_a_budget_the_default_is_measured_alone") {
        return;
    }
    let device = device();
    let (spec, inputs, output) = kernel(&product(), "gemm", &device);
    let legal = candidates(&spec, &[], device.caps());
    let mut bench = Bench::new(&device, "gemm", &spec, &[], &inputs, output).unwrap();
    let options = SearchOptions { budget: Duration::ZERO, most_candidates: 5, ..SearchOptions::default() };
    let trials = search(&mut bench, &legal, &options, &mut |_| {}).unwrap();
    assert_eq!(trials.len(), legal.len().min(5));
    assert_eq!(trials[0].status, Status::Measured);
    assert!(trials[1..].iter().all(|trial| trial.status == Status::Unmeasured));
    assert_eq!(winner(&trials).map(|trial| &trial.schedule), Some(&legal[0]));
}

fn session(records: Option<&std::path::Path>) -> Session {
    let options = SessionOptions { records: records.map(Into::into), ..support::options() };
    Session::load(net().bytes(), &options).unwrap()
}

fn options() -> TuneOptions {
    TuneOptions { budget: Duration::from_secs(10), ..TuneOptions::default() }
}

/// The schedules that a session compiled, by kernel: each once, however many passes it takes.
fn schedules(session: &Session) -> Vec<(String, Schedule)> {
    let mut all: Vec<_> = session.kernels().into_iter().map(|text| (text.label, text.schedule)).collect();
    all.dedup();
    all
}

#[test]
fn winners_are_stored_used_by_the_next_session_and_change_no_result() {
    if support::skip_gpu("winners_are_stored_used_by_the_next_session_and_change_no_result") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    let x = x();
    let untuned = session(None).run(&[("x", &x)]).unwrap();
    let first = session(Some(&path));
    for _ in 0..2 {
        let report = first.tune(&[("x", &x)], &options(), &mut |_| {}).unwrap();
        assert_eq!(report.kernels.len(), 2);
        assert!(report.before_ns > 0 && report.after_ns > 0);
    }
    let store = Store::open(&path).unwrap();
    assert_eq!((store.records().count(), store.damaged().len()), (2, 0));
    assert_eq!(std::fs::read_to_string(&path).unwrap().matches("\"trials\"").count(), 4);
    let next = session(Some(&path));
    next.run(&[("x", &x)]).unwrap();
    next.wait_for_winners();
    let tuned = next.run(&[("x", &x)]).unwrap();
    let used = schedules(&next);
    for record in store.records() {
        let won = &winner(&record.trials).unwrap().schedule;
        let (label, _) = record.label.split_once(' ').unwrap();
        assert!(used.contains(&(label.to_owned(), won.clone())), "{label}: {won} is not among {used:?}");
    }
    for outputs in [&tuned, &first.run(&[("x", &x)]).unwrap()] {
        close(&untuned["y"], &outputs["y"]);
    }
}

fn close(want: &Tensor, got: &Tensor) {
    let (want, got) = (want.to_vec::<f32>().unwrap(), got.to_vec::<f32>().unwrap());
    assert_eq!(want.len(), got.len());
    for (i, (w, g)) in want.iter().zip(&got).enumerate() {
        assert!((w - g).abs() <= 1e-5 * w.abs(), "element {i} is {g}, untuned {w}");
    }
}

/// Every legal schedule of the product in turn, planted as a winner: each is used, and none changes the result.
#[test]
fn a_planted_winner_is_used_and_one_that_is_not_legal_is_not() {
    if support::skip_gpu("a_planted_winner_is_used_and_one_that_is_not_legal_is_not") {
        return;
    }
    let x = x();
    let plain = session(None);
    let want = plain.run(&[("x", &x)]).unwrap();
    let plan = plain.plan().unwrap();
    let kernel = plan.kernels.iter().find(|k| k.spec.family() == "gemm").unwrap();
    let caps = &plain.adapter().caps;
    let legal = candidates(&kernel.spec, &[40], caps);
    let illegal =
        Schedule::Contract(ContractSchedule { group_m: 3, group_n: 5, micro_m: 1, micro_n4: 1, split_k: 1 });
    let folder = tempfile::tempdir().unwrap();
    for (number, planted) in legal[1..].iter().take(6).chain([&illegal]).enumerate() {
        let path = folder.path().join(number.to_string());
        let trial = |schedule: &Schedule, ns| Trial {
            status: Status::Measured,
            samples_ns: vec![ns],
            ..Trial::new(schedule.clone())
        };
        let record = Record {
            format: FORMAT,
            key: Key::new(&kernel.spec, &[40], &plain.adapter().into()),
            kind: plain.adapter().kind,
            label: kernel.label.clone(),
            trials: vec![trial(&legal[0], 200), trial(planted, 100)],
            in_model_ns: None,
            unix_seconds: 0,
        };
        Store::open(&path).unwrap().add(Line::Kernel(record)).unwrap();
        let session = session(Some(&path));
        close(&want["y"], &session.run(&[("x", &x)]).unwrap()["y"]);
        let used = schedules(&session);
        let (_, schedule) = used.iter().find(|(label, _)| *label == kernel.label).unwrap();
        assert_eq!(schedule, if *planted == illegal { &legal[0] } else { planted });
        // Sizes of one bucket share a record.
        session.run(&[("x", &support::net::made_up(&[64, 48], 7))]).unwrap();
        assert_eq!(schedules(&session), used);
    }
}

/// A file in which `winner` won the product of [`net`] in half the default's 200 ns, and took `compile_ns` to compile.
fn planted(path: &std::path::Path, winner: &Schedule, compile_ns: u64) -> String {
    let plain = session(None);
    plain.run(&[("x", &x())]).unwrap();
    let plan = plain.plan().unwrap();
    let kernel = plan.kernels.iter().find(|k| k.spec.family() == "gemm").unwrap();
    let default = candidates(&kernel.spec, &[40], &plain.adapter().caps).swap_remove(0);
    let trial = |schedule: &Schedule, ns| Trial {
        status: Status::Measured,
        samples_ns: vec![ns],
        compile_ns,
        ..Trial::new(schedule.clone())
    };
    let record = Record {
        format: FORMAT,
        key: Key::new(&kernel.spec, &[40], &plain.adapter().into()),
        kind: plain.adapter().kind,
        label: kernel.label.clone(),
        trials: vec![trial(&default, 200), trial(winner, 100)],
        in_model_ns: None,
        unix_seconds: 0,
    };
    Store::open(path).unwrap().add(Line::Kernel(record)).unwrap();
    kernel.label.clone()
}

/// The legal schedules of the product of [`net`].
fn products() -> Vec<Schedule> {
    let plain = session(None);
    let plan = plain.plan().unwrap();
    let kernel = plan.kernels.iter().find(|k| k.spec.family() == "gemm").unwrap();
    candidates(&kernel.spec, &[40], &plain.adapter().caps)
}

/// In no mode but `full` does a first answer wait for a winner that saves 100 ns and takes a second to compile.
#[test]
fn winners_that_compile_slowly_are_used_after_the_first_answer() {
    if support::skip_gpu("winners_that_compile_slowly_are_used_after_the_first_answer") {
        return;
    }
    let x = x();
    let want = session(None).run(&[("x", &x)]).unwrap();
    let legal = products();
    let folder = tempfile::tempdir().unwrap();
    for (mode, compile_ns, is_late) in [
        (TuneMode::Off, 1_000_000_000, true),
        (TuneMode::Off, 100, false),
        (TuneMode::Background(quick()), 1_000_000_000, true),
        (TuneMode::Full(quick()), 1_000_000_000, false),
    ] {
        let path = folder.path().join(format!("{mode:?} {compile_ns}"));
        let label = planted(&path, &legal[1], compile_ns);
        let session = tuning(mode, Some(&path));
        close(&want["y"], &session.run(&[("x", &x)]).unwrap()["y"]);
        let first = if is_late { &legal[0] } else { &legal[1] };
        let used = |schedule: &Schedule| schedules(&session).contains(&(label.clone(), schedule.clone()));
        assert!(used(first), "{:?}", schedules(&session));
        session.wait_for_winners();
        // Another size of the bucket, and a run that does not block, have it too.
        for rows in [40, 64] {
            let x = support::net::made_up(&[rows, 48], 7);
            let outputs = pollster::block_on(session.run_async(&[("x", &x)])).unwrap();
            assert_eq!(outputs["y"].shape(), [rows, 64]);
        }
        close(&want["y"], &session.run(&[("x", &x)]).unwrap()["y"]);
        assert!(used(&legal[1]), "{:?}", schedules(&session));
    }
}

/// Runs that follow each other without a pause come to the winners, and cancelling tuning does not keep them from it.
#[test]
fn winners_come_without_pauses() {
    if support::skip_gpu("winners_come_without_pauses") {
        return;
    }
    let (x, legal) = (x(), products());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    let label = planted(&path, &legal[1], 1_000_000_000);
    let session = tuning(TuneMode::Background(quick()), Some(&path));
    session.cancel_tuning();
    let start = Instant::now();
    while !schedules(&session).contains(&(label.clone(), legal[1].clone())) {
        session.run(&[("x", &x)]).unwrap();
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}

/// A reduction of one long row, of another length in every process: the driver has no compiled text of it in its cache.
/// (Mesa's waits can be cut short while it compiles, not while it computes.)
fn long_row() -> Net {
    let shape = format!("1 {}", 10_000_000 + std::process::id());
    Net::new().input("x", DType::F32, &shape).node("ReduceSum", "x", "y", &[]).output("y", DType::F32)
}

#[test]
fn a_candidate_that_takes_too_long_is_recorded_and_the_race_goes_on() {
    if support::skip_gpu("a_candidate_that_takes_too_long_is_recorded_and_the_race_goes_on") {
        return;
    }
    let device = device().apart().unwrap();
    let (spec, inputs, output) = kernel(&long_row(), "reduce", &device);
    let schedule = |lanes, rows| Schedule::Reduce(ReduceSchedule::plain(lanes, rows));
    let mut bench = Bench::new(&device, "reduce", &spec, &[], &inputs, output).unwrap();
    bench.output(&schedule(64, 1)).unwrap();
    bench.set_limit(Duration::from_millis(1));
    let error = bench.output(&schedule(1, 64)).unwrap_err().to_string();
    assert!(error.contains("not finished after"), "{error}");
    // The driver finishes what it began, and goes on.
    bench.set_limit(Duration::from_secs(60));
    assert!(bench.is_usable());
    assert!(bench.output(&schedule(64, 1)).is_ok());
    assert!(bench.sample(&schedule(64, 1), None).unwrap() > 0);
}

/// Two schedules that differ in a knob and not in what the device is given.
#[test]
fn equal_texts_are_measured_once() {
    if support::skip_gpu("equal_texts_are_measured_once") {
        return;
    }
    let device = device();
    let (spec, inputs, output) = kernel(&product(), "gemm", &device);
    let legal = candidates(&spec, &[], device.caps());
    let list = vec![legal[0].clone(), legal[1].clone(), legal[1].clone(), legal[0].clone()];
    let mut bench = Bench::new(&device, "gemm", &spec, &[], &inputs, output).unwrap();
    let trials = search(&mut bench, &list, &everything(), &mut |_| {}).unwrap();
    assert_eq!(trials.iter().map(|t| &t.schedule).collect::<Vec<_>>(), [&legal[0], &legal[1]]);
    assert!(trials.iter().all(|trial| trial.compile_ns > 0));
}

#[test]
fn peaks_are_measured_once_and_stored() {
    if support::skip_gpu("peaks_are_measured_once_and_stored") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    let first = session(Some(&path));
    let platform = first.adapter().into();
    let report = first.tune(&[("x", &x())], &quick(), &mut |_| {}).unwrap();
    let peaks = Store::open(&path).unwrap().peaks(&platform).cloned().unwrap();
    assert_eq!(report.peaks, peaks);
    assert!(
        peaks.copy_bytes_per_ns > 0.1 && peaks.f32_flops_per_ns > 0.1 && peaks.launch_ns > 0.0,
        "{peaks:?}"
    );
    assert_eq!(peaks.f16_flops_per_ns.is_some(), first.adapter().caps.f16);
    for kernel in &report.kernels {
        assert!(kernel.work.flops > 0.0 && kernel.work.bytes > 0.0, "{kernel:?}");
        // With a finalist beside the default there were finals, unless the device has no clock for them.
        let finals = first.adapter().caps.timestamps && finalists(&kernel.trials, 2).len() > 1;
        assert!(kernel.in_model_ns.is_some() || !finals, "{kernel:?}");
    }
    assert!(report.after_ns as f64 <= report.before_ns as f64 * 1.02, "{report:?}");
    let peaks_lines = |path| std::fs::read_to_string(path).unwrap().matches("\"peaks\"").count();
    let before = peaks_lines(&path);
    session(Some(&path)).tune(&[("x", &x())], &quick(), &mut |_| {}).unwrap();
    assert!(
        peaks_lines(&path) <= before + 1,
        "a second measurement at the most, where a kernel beat the first"
    );
}

fn quick() -> TuneOptions {
    TuneOptions { budget: Duration::from_secs(2), most_candidates: 4 }
}

fn tuning(tune: TuneMode, records: Option<&std::path::Path>) -> Session {
    let options = SessionOptions { tune, records: records.map(Into::into), ..support::options() };
    Session::load(net().bytes(), &options).unwrap()
}

#[test]
fn off_measures_nothing() {
    if support::skip_gpu("off_measures_nothing") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    let session = tuning(TuneMode::Off, Some(&path));
    session.run(&[("x", &x())]).unwrap();
    assert_eq!((session.tune_status(), path.exists()), (TuneStatus::Idle, false));
}

#[test]
fn full_tunes_before_the_first_run_of_each_size_and_tells() {
    if support::skip_gpu("full_tunes_before_the_first_run_of_each_size_and_tells") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    let want = session(None).run(&[("x", &x())]).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = told.clone();
    let options = SessionOptions {
        tune: TuneMode::Full(quick()),
        records: Some(path.clone()),
        progress: Some(Arc::new(move |p: Progress| {
            if p.stage == Stage::Tune {
                hears.lock().unwrap().push((p.done, p.total));
            }
        })),
        ..support::options()
    };
    let tuned = Session::load(net().bytes(), &options).unwrap();
    assert!(!path.exists(), "loading tunes nothing");
    close(&want["y"], &tuned.run(&[("x", &x())]).unwrap()["y"]);
    let first = told.lock().unwrap().clone();
    assert_eq!((first.first(), first.last()), (Some(&(0, 2)), Some(&(2, 2))));
    let store = Store::open(&path).unwrap();
    assert_eq!(store.records().count(), 2);
    // The same sizes again, and another size of the same bucket: nothing is left to do.
    tuned.run(&[("x", &x())]).unwrap();
    tuned.run(&[("x", &support::net::made_up(&[41, 48], 7))]).unwrap();
    assert_eq!(told.lock().unwrap().len(), first.len());
    // Another bucket has kernels of its own.
    tuned.run(&[("x", &support::net::made_up(&[3, 48], 7))]).unwrap();
    assert!(told.lock().unwrap().len() > first.len());
    // A session with these records uses what won.
    let next = session(Some(&path));
    close(&want["y"], &next.run(&[("x", &x())]).unwrap()["y"]);
    next.wait_for_winners();
    close(&want["y"], &next.run(&[("x", &x())]).unwrap()["y"]);
    for record in store.records() {
        let won = &winner(&record.trials).unwrap().schedule;
        let label = record.label.split_once(' ').unwrap().0.to_owned();
        assert!(schedules(&next).contains(&(label, won.clone())));
    }
}

/// Wait until the session's tuner has nothing to do.
fn idle(session: &Session) {
    let start = Instant::now();
    while session.tune_status() != TuneStatus::Idle {
        assert!(!matches!(session.tune_status(), TuneStatus::Failed(_)), "{:?}", session.tune_status());
        assert!(start.elapsed() < Duration::from_secs(120), "{:?}", session.tune_status());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn background_answers_at_once_tunes_between_runs_and_swaps() {
    if support::skip_gpu("background_answers_at_once_tunes_between_runs_and_swaps") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    let want = session(None).run(&[("x", &x())]).unwrap();
    let tuned = tuning(TuneMode::Background(quick()), Some(&path));
    assert_eq!(tuned.tune_status(), TuneStatus::Idle);
    close(&want["y"], &tuned.run(&[("x", &x())]).unwrap()["y"]);
    assert!(
        matches!(tuned.tune_status(), TuneStatus::Tuning { kernels: 2, .. }),
        "{:?}",
        tuned.tune_status()
    );
    let default = schedules(&tuned);
    // Runs go on meanwhile, with right results, from other threads too.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..10 {
                    close(&want["y"], &tuned.run(&[("x", &x())]).unwrap()["y"]);
                    let asynchronous = pollster::block_on(tuned.run_async(&[("x", &x())]));
                    close(&want["y"], &asynchronous.unwrap()["y"]);
                    std::thread::sleep(Duration::from_millis(40));
                }
            });
        }
    });
    idle(&tuned);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.records().count(), 2);
    close(&want["y"], &tuned.run(&[("x", &x())]).unwrap()["y"]);
    for record in store.records() {
        assert!(
            record
                .trials
                .iter()
                .all(|trial| trial.status != Status::Unmeasured || trial.samples_ns.is_empty())
        );
        let won = &winner(&record.trials).unwrap().schedule;
        let label = record.label.split_once(' ').unwrap().0.to_owned();
        assert!(schedules(&tuned).contains(&(label, won.clone())), "{default:?}");
    }
    // What is known is not measured again.
    let next = tuning(TuneMode::Background(quick()), Some(&path));
    let lines = std::fs::read_to_string(&path).unwrap();
    next.run(&[("x", &x())]).unwrap();
    idle(&next);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), lines);
}

#[test]
fn background_tuning_can_be_cancelled_and_stops_with_its_session() {
    if support::skip_gpu("background_tuning_can_be_cancelled_and_stops_with_its_session") {
        return;
    }
    let long = TuneOptions { budget: Duration::from_secs(3600), most_candidates: usize::MAX };
    let want = session(None).run(&[("x", &x())]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for drops in [false, true] {
        let path = folder.path().join(drops.to_string());
        let tuned = tuning(TuneMode::Background(long.clone()), Some(&path));
        tuned.run(&[("x", &x())]).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(matches!(tuned.tune_status(), TuneStatus::Tuning { .. }), "{:?}", tuned.tune_status());
        if !drops {
            tuned.cancel_tuning();
            assert_eq!(tuned.tune_status(), TuneStatus::Cancelled);
            close(&want["y"], &tuned.run(&[("x", &x())]).unwrap()["y"]);
            assert_eq!(tuned.tune_status(), TuneStatus::Cancelled);
        }
        // Waits for the step at hand, and not for an hour.
        let start = Instant::now();
        drop(tuned);
        assert!(start.elapsed() < Duration::from_secs(30));
        assert_eq!(Store::open(&path).unwrap().records().count(), 0, "what is not finished is not kept");
    }
}

/// Plant records of other adapters: they order the trials and never win unmeasured.
#[test]
fn other_adapters_order_the_trials_and_win_nothing() {
    if support::skip_gpu("other_adapters_order_the_trials_and_win_nothing") {
        return;
    }
    let plain = session(None);
    plain.run(&[("x", &x())]).unwrap();
    let plan = plain.plan().unwrap();
    let kernel = plan.kernels.iter().find(|k| k.spec.family() == "gemm").unwrap();
    let legal = candidates(&kernel.spec, &[40], &plain.adapter().caps);
    let (near, far) = (&legal[legal.len() - 1], &legal[legal.len() - 2]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    let here: tilewright::tune::Platform = plain.adapter().into();
    let mut store = Store::open(&path).unwrap();
    let other_kind = match here.kind {
        AdapterKind::Cpu => AdapterKind::Discrete,
        _ => AdapterKind::Cpu,
    };
    for (driver, adapter, kind, won) in [
        ("of last year", here.adapter.as_str(), here.kind, near),
        ("of another", "of the other kind", other_kind, far),
    ] {
        let platform = tilewright::tune::Platform {
            adapter: adapter.into(),
            driver: driver.into(),
            kind,
            ..here.clone()
        };
        let trial = |schedule: &Schedule, ns| Trial {
            status: Status::Measured,
            samples_ns: vec![ns],
            ..Trial::new(schedule.clone())
        };
        let record = Record {
            format: FORMAT,
            key: Key::new(&kernel.spec, &[40], &platform),
            kind,
            label: kernel.label.clone(),
            trials: vec![trial(&legal[0], 200), trial(won, 1)],
            in_model_ns: None,
            unix_seconds: 0,
        };
        store.add(Line::Kernel(record)).unwrap();
    }
    let session = session(Some(&path));
    session.run(&[("x", &x())]).unwrap();
    let used = schedules(&session);
    let (_, schedule) = used.iter().find(|(label, _)| *label == kernel.label).unwrap();
    assert_eq!(schedule, &legal[0], "unmeasured here");
    let report = session.tune(&[("x", &x())], &quick(), &mut |_| {}).unwrap();
    let tuned = report.kernels.iter().find(|k| k.label == kernel.label).unwrap();
    let order: Vec<&Schedule> = tuned.trials.iter().map(|trial| &trial.schedule).collect();
    assert_eq!(order[..2], [&legal[0], near]);
    assert_ne!(order[2], far);
}

/// A stored winner that this driver refuses: the next best takes its place, and the store learns of it.
#[test]
fn a_stored_winner_that_fails_gives_way_to_the_next() {
    if support::skip_gpu("a_stored_winner_that_fails_gives_way_to_the_next") {
        return;
    }
    let plain = session(None);
    let want = plain.run(&[("x", &x())]).unwrap();
    let plan = plain.plan().unwrap();
    let kernel = plan.kernels.iter().find(|k| k.spec.family() == "gemm").unwrap();
    let legal = candidates(&kernel.spec, &[40], &plain.adapter().caps);
    let key = Key::new(&kernel.spec, &[40], &plain.adapter().into());
    let trial = |schedule: &Schedule, ns| Trial {
        status: Status::Measured,
        samples_ns: vec![ns],
        ..Trial::new(schedule.clone())
    };
    let record = Record {
        format: FORMAT,
        key: key.clone(),
        kind: plain.adapter().kind,
        label: kernel.label.clone(),
        trials: vec![trial(&legal[0], 200), trial(&legal[1], 50), trial(&legal[2], 100)],
        in_model_ns: None,
        unix_seconds: 0,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    Store::open(&path).unwrap().add(Line::Kernel(record)).unwrap();
    // Refused once by the store that a session shares with others.
    Store::open(&path).unwrap().fail(&key, &legal[1], "lost").unwrap();
    let next = session(Some(&path));
    close(&want["y"], &next.run(&[("x", &x())]).unwrap()["y"]);
    assert!(schedules(&next).contains(&(kernel.label.clone(), legal[2].clone())));
}
