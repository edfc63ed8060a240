//! Tuning: what may win, what is kept, and that results stay the same.

mod support;

use std::time::Duration;

use support::net::Net;
use tilewright::gpu::Device;
use tilewright::kernel::{ContractSchedule, KernelSpec, MapSchedule, ReduceSchedule, Schedule, candidates};
use tilewright::tune::{
    Bench, FORMAT, Key, Line, Record, SearchOptions, Status, Store, Trial, search, winner,
};
use tilewright::{DType, Session, SessionOptions, Tensor, TuneOptions};

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
    let layout = plan.layout(&Default::default(), device.caps()).unwrap();
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
    let schedule = |lanes| Schedule::Reduce(ReduceSchedule { lanes, rows: 1 });
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

/// The schedules that a session compiled, by kernel.
fn schedules(session: &Session) -> Vec<(String, Schedule)> {
    session.kernels().into_iter().map(|text| (text.label, text.schedule)).collect()
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
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 4);
    let next = session(Some(&path));
    let tuned = next.run(&[("x", &x)]).unwrap();
    let used = schedules(&next);
    assert_eq!(used.len(), 2);
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
