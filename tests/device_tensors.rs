//! Tensors that stay on the device between runs: the same results as through the host.

mod support;

use std::time::{Duration, Instant};

use half::f16;
use support::net::{Net, int, ints, made_up, text};
use tilewright::{
    DType, DeviceTensor, Error, Session, SessionOptions, Tensor, TuneMode, TuneOptions, TuneStatus,
};

/// Whether tests on a device are to be passed over.
fn skip() -> bool {
    support::skip_gpu("device_tensors")
}

/// `y = x ++ x` along the first axis.
fn doubled(dtype: DType) -> Session {
    let net = Net::new().input("x", dtype, "n").node("Concat", "x x", "y", &[int("axis", 0)]);
    net.output("y", dtype).session().unwrap()
}

/// The one output of a run with one input, kept.
fn keep<'a>(session: &'a Session, x: impl Into<tilewright::Input<'a>>) -> DeviceTensor {
    let (input, output) = (session.inputs()[0].name.as_str(), session.outputs()[0].name.as_str());
    session.request().input(input, x).keep(output).run().unwrap().take_kept(output).unwrap()
}

#[test]
fn every_dtype_goes_round() {
    if skip() {
        return;
    }
    let tensors = [
        Tensor::from_slice(&[3], &[1.5f32, -2.0, f32::MAX]),
        Tensor::from_slice(&[3], &[f16::from_f32(1.5), f16::from_f32(-2.0), f16::INFINITY]),
        Tensor::from_slice(&[3], &[1.5f64, -2.0, 4.25]),
        Tensor::from_slice(&[3], &[i64::MAX, -1, 1 << 40]),
        Tensor::from_slice(&[3], &[u64::MAX, 1, 1 << 40]),
        Tensor::from_slice(&[3], &[i32::MIN, -1, 7]),
        Tensor::from_slice(&[3], &[u8::MAX, 0, 7]),
        Tensor::from_slice(&[3], &[i8::MIN, -1, 7]),
        Tensor::from_slice(&[3], &[true, false, true]),
        Tensor::from_slice(&[0], &[0f32; 0]),
    ];
    for x in tensors.map(Result::unwrap) {
        let session = doubled(x.dtype());
        let twice = keep(&session, &x);
        assert_eq!((twice.dtype(), twice.shape()), (x.dtype(), [2 * x.len()].as_slice()));
        let four = keep(&session, &twice).to_host().unwrap();
        assert_eq!(four.shape(), [4 * x.len()]);
        assert_eq!(**four.bytes(), x.bytes().repeat(4));
        // The input is as it was, and an upload is as good.
        assert_eq!(**pollster::block_on(twice.to_host_async()).unwrap().bytes(), x.bytes().repeat(2));
        let uploaded = session.upload(&x).unwrap();
        assert_eq!(uploaded.to_host().unwrap(), x);
        let outputs = pollster::block_on(session.request().input("x", &uploaded).run_async()).unwrap();
        assert_eq!(**outputs["y"].bytes(), x.bytes().repeat(2));
    }
}

/// Small integers are held in 32 bits within a plan, and are the model's dtype outside of it.
#[test]
fn a_session_takes_what_another_one_left() {
    if skip() {
        return;
    }
    let best = Net::new().input("x", DType::F32, "rows 4");
    let best = best.node("ArgMax", "x", "best", &[int("axis", 1), int("keepdims", 0)]);
    let best = best.output("best", DType::I64).session().unwrap();
    let pick = Net::new().floats("table", &[4, 3]).input("ids", DType::I64, "n");
    let pick = pick.node("Gather", "table ids", "y", &[]).output("y", DType::F32).session().unwrap();
    let x = made_up(&[5, 4], 3);
    let ids = keep(&best, &x);
    assert_eq!(ids.dtype(), DType::I64);
    assert_eq!(ids.to_host().unwrap(), best.run(&[("x", &x)]).unwrap()["best"]);
    let got = pick.request().input("ids", &ids).run().unwrap();
    assert_eq!(got["y"], pick.run(&[("ids", &ids.to_host().unwrap())]).unwrap()["y"]);
}

/// Outputs that no kernel writes: inputs, constants, sizes, and a value under two names.
#[test]
fn any_output_can_stay() {
    if skip() {
        return;
    }
    let net = Net::new()
        .input("x", DType::F32, "n")
        .floats("c", &[300])
        .node("Neg", "x", "b", &[])
        .node("Identity", "b", "a", &[])
        .node("Shape", "x", "s", &[])
        .output("s", DType::I64)
        .output("b", DType::F32)
        .output("c", DType::F32)
        .output("x", DType::F32)
        .output("a", DType::F32);
    let session = net.session().unwrap();
    let x = session.upload(&made_up(&[3], 5)).unwrap();
    let want = session.run(&[("x", &x.to_host().unwrap())]).unwrap();
    let names = ["s", "b", "c", "x", "a"];
    let all = names.into_iter().fold(session.request().input("x", &x), |request, name| request.keep(name));
    let mut all = all.run().unwrap();
    assert_eq!(all.iter().count(), 0);
    let kept = names.map(|name| all.take_kept(name).unwrap());
    assert!(all.take_kept("b").is_none());
    // A later run does not write there.
    session.run(&[("x", &made_up(&[3], 6))]).unwrap();
    for (name, tensor) in names.into_iter().zip(&kept) {
        assert_eq!(tensor.to_host().unwrap(), want[name], "{name}");
        // The others come to the host as ever.
        let mut some = session.request().input("x", &x).keep(name).run().unwrap();
        for other in names.into_iter().filter(|&other| other != name) {
            assert_eq!(some[other], want[other], "{other} beside {name}");
        }
        assert_eq!(some.take_kept(name).unwrap().to_host().unwrap(), want[name], "{name}");
    }
}

#[test]
fn contents_are_read_back_where_shapes_depend_on_them() {
    if skip() {
        return;
    }
    let net = Net::new()
        .input("x", DType::F32, "n")
        .input("shape", DType::I64, "2")
        .node("Reshape", "x shape", "r", &[])
        .node("Transpose", "r", "y", &[ints("perm", &[1, 0])])
        .output("y", DType::F32);
    let session = net.session().unwrap();
    let x = session.upload(&made_up(&[6], 1)).unwrap();
    for shape in [[2i64, 3], [3, 2]] {
        let shape = Tensor::from_slice(&[2], &shape).unwrap();
        let there = session.upload(&shape).unwrap();
        let got = session.request().input("x", &x).input("shape", &there).run().unwrap();
        assert_eq!(got["y"], session.run(&[("x", &x.to_host().unwrap()), ("shape", &shape)]).unwrap()["y"]);
    }
}

#[test]
fn stages_read_and_leave_tensors_on_the_device() {
    if skip() {
        return;
    }
    let net = Net::new()
        .input("x", DType::F32, "n")
        .node("NonZero", "x", "where", &[])
        .node("Neg", "x", "y", &[])
        .output("where", DType::I64)
        .output("y", DType::F32);
    let session = net.session().unwrap();
    for values in [vec![0.0f32, 1.0, 0.0, 2.0], vec![0.0; 3], vec![1.0; 7]] {
        let x = Tensor::from_slice(&[values.len()], &values).unwrap();
        let there = session.upload(&x).unwrap();
        let want = session.run(&[("x", &x)]).unwrap();
        let mut got = session.request().input("x", &there).keep("where").keep("y").run().unwrap();
        for name in ["where", "y"] {
            assert_eq!(got.take_kept(name).unwrap().to_host().unwrap(), want[name], "{name}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    if skip() {
        return;
    }
    let session = doubled(DType::F32);
    let whole = session.upload(&Tensor::from_slice(&[2], &[1i64, 2]).unwrap()).unwrap();
    let flat = session.upload(&made_up(&[2, 2], 1)).unwrap();
    for (input, want) in [
        (&whole, r#"input "x": wants float32, got int64"#),
        (&flat, r#"input "x": wants shape [n], got [2, 2]"#),
    ] {
        let error = session.request().input("x", input).run().unwrap_err();
        assert!(matches!(error, Error::Input { .. }), "{error:?}");
        assert_eq!(error.to_string(), want);
    }
    let x = made_up(&[2], 1);
    let error = session.request().input("x", &x).keep("z").run().unwrap_err();
    assert_eq!(error.to_string(), r#"output "z": the model has no such output; it has "y""#);
}

/// The tuner runs the model too, in memory of its own.
#[test]
fn tuning_in_the_background_leaves_tensors_alone() {
    if skip() {
        return;
    }
    let options = TuneOptions { budget: Duration::from_millis(300), most_candidates: 3 };
    let options = SessionOptions { tune: TuneMode::Background(options), ..support::options() };
    let net = Net::new().input("x", DType::F32, "n 64").floats("w", &[64, 64]);
    let net = net.node("MatMul", "x w", "h", &[]).node("Add", "h x", "y", &[]).output("y", DType::F32);
    let session = Session::load(net.bytes(), &options).unwrap();
    let x = made_up(&[32, 64], 1);
    let want = session.run(&[("x", &x)]).unwrap();
    let there = session.upload(&x).unwrap();
    let kept = keep(&session, &there);
    let start = Instant::now();
    while session.tune_status() != TuneStatus::Idle && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(session.tune_status(), TuneStatus::Idle);
    assert_eq!(kept.to_host().unwrap(), want["y"]);
    assert_eq!(there.to_host().unwrap(), x);
    let again = keep(&session, &there).to_host().unwrap();
    assert!(support::compare::relative_error(&again, &want["y"]).unwrap() < 1e-5);
}

/// A decoder's cache never leaves the device, and what comes to the host is the same, token by token.
#[test]
fn a_decoder_keeps_its_cache_on_the_device() {
    if skip() {
        return;
    }
    let session = support::load(&support::test_data("models/llama_4l.onnx")).unwrap();
    let caches: Vec<String> = session.inputs().iter().map(|info| info.name.clone()).collect();
    let caches: Vec<&str> = caches.iter().filter_map(|name| name.strip_prefix("past_")).collect();
    assert_eq!(caches.len(), 8);
    let empty = Tensor::from_slice(&[1, 2, 0, 64], &[0f32; 0]).unwrap();
    let mut there: Vec<DeviceTensor> = caches.iter().map(|_| session.upload(&empty).unwrap()).collect();
    let mut here = vec![empty; caches.len()];
    let (mut tokens, mut past) = ((0..16).map(|i| 37 * i + 5).collect::<Vec<i64>>(), 0);
    for step in 0..24 {
        let len = past + tokens.len();
        let given = [
            ("input_ids", Tensor::from_slice(&[1, tokens.len()], &tokens).unwrap()),
            ("attention_mask", Tensor::from_slice(&[1, len], &vec![1i64; len]).unwrap()),
            (
                "position_ids",
                Tensor::from_slice(&[1, tokens.len()], &(past as i64..len as i64).collect::<Vec<_>>())
                    .unwrap(),
            ),
        ];
        let request = || given.iter().fold(session.request(), |all, (name, tensor)| all.input(*name, tensor));
        let mut on_device = request();
        for (name, tensor) in caches.iter().zip(&there) {
            on_device = on_device.input(format!("past_{name}"), tensor).keep(format!("present_{name}"));
        }
        let mut kept = on_device.run().unwrap();
        let mut on_host = request();
        for (name, tensor) in caches.iter().zip(&here) {
            on_host = on_host.input(format!("past_{name}"), tensor);
        }
        let want = on_host.run().unwrap();
        assert_eq!(kept["logits"], want["logits"], "step {step}");
        let logits = want["logits"].to_vec::<f32>().unwrap();
        let last = &logits[logits.len() - 8192..];
        let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
        (tokens, past) = (vec![best as i64], len);
        there = caches.iter().map(|name| kept.take_kept(&format!("present_{name}")).unwrap()).collect();
        here = caches.iter().map(|name| want[format!("present_{name}").as_str()].clone()).collect();
    }
    for ((name, there), here) in caches.iter().zip(&there).zip(&here) {
        assert_eq!(there.shape(), [1, 2, 16 + 23, 64]);
        assert_eq!(there.to_host().unwrap(), *here, "{name}");
    }
}

/// ONNX Runtime's decoder with one buffer for past and present: the same outputs, the same cache, and what no step writes
/// stays, so that it is known that nothing else is written.
#[test]
fn a_cache_is_updated_in_place() {
    if skip() {
        return;
    }
    // Of a prompt's outputs, those behind a sequence's own length mean nothing.
    let lengths = |last: &Tensor| last.to_vec::<i32>().unwrap().into_iter().map(|last| last as usize + 1);
    let read = |name: &str| support::read_npy(&support::test_data(&format!("decode_cache/{name}.npy")));
    let session = support::load(&support::test_data("decode_cache/model.onnx")).unwrap();
    let mut caches = ["key", "value"].map(|name| session.upload(&read(&format!("first_{name}"))).unwrap());
    for step in 0..25 {
        let given =
            ["query", "key", "value", "mask", "lengths"].map(|name| (name, read(&format!("{step}_{name}"))));
        let mut request = session.request();
        for (name, tensor) in &given {
            request = request.input(*name, tensor);
        }
        for (name, cache) in ["key", "value"].into_iter().zip(caches) {
            request = request.input(format!("past_{name}"), cache).keep(format!("present_{name}"));
        }
        let mut outputs = request.run().unwrap();
        let want = read(&format!("{step}_y"));
        for (row, length) in lengths(&given[4].1).enumerate() {
            let own = |y: &Tensor| {
                let y = y.to_vec::<f32>().unwrap();
                let (row_len, own_len) = (y.len() / 2, length.min(y.len() / 2 / 64) * 64);
                Tensor::from_slice(&[own_len], &y[row * row_len..][..own_len]).unwrap()
            };
            support::compare::all_close(&own(&outputs["y"]), &own(&want), 1e-5, 1e-5).unwrap();
        }
        caches = ["present_key", "present_value"].map(|name| outputs.take_kept(name).unwrap());
    }
    for (name, cache) in ["key", "value"].into_iter().zip(&caches) {
        let want = read(&format!("cache_{name}"));
        support::compare::all_close(&cache.to_host().unwrap(), &want, 1e-5, 1e-5).unwrap();
    }
}

/// `present` is `past` with `new` written at `at`, by `op`, which may name a reduction; `also` reads `past`, too.
fn scattered(op: &str, [past, new, at]: [&str; 3], also: bool) -> Net {
    let (op, reduction) = op.split_once(' ').unwrap_or((op, ""));
    let mut axis = if op == "ScatterND" { vec![] } else { vec![int("axis", 1)] };
    axis.extend((!reduction.is_empty()).then(|| text("reduction", reduction)));
    let net = Net::new()
        .input("past", DType::F32, past)
        .input("new", DType::F32, new)
        .input("at", DType::I64, at)
        .node(op, if op == "TensorScatter" { "past new at" } else { "past at new" }, "present", &axis)
        .output("present", DType::F32);
    if also { net.node("Neg", "past", "also", &[]).output("also", DType::F32) } else { net }
}

#[test]
fn an_input_is_updated_in_place_only_where_nobody_else_has_it() {
    if skip() {
        return;
    }
    let past = made_up(&[2, 9, 2], 1);
    // Operator; shapes of past, new and at; sizes of new and at; at.
    type Row<'a> = (&'a str, [&'a str; 3], [&'a [usize]; 2], &'a [i64]);
    let ops: [Row; 5] = [
        ("TensorScatter", ["batch room 2", "batch n 2", "batch"], [&[2, 3, 2], &[2]], &[1, 6]),
        ("ScatterND", ["batch room 2", "n 2", "n 2"], [&[3, 2], &[3, 2]], &[0, 8, -1, 3, 0, -8]),
        ("ScatterElements", ["batch room 2", "few n 2", "few n 2"], [&[1, 2, 2]; 2], &[8, -9, -3, 2]),
        // Some have one place, and some none.
        ("ScatterND add", ["2 9 2", "4 2", "4 2"], [&[4, 2], &[4, 2]], &[0, 8, -1, 3, 0, -1, 2, 0]),
        ("ScatterElements mul", ["2 9 2", "1 4 2", "1 4 2"], [&[1, 4, 2]; 2], &[8, -9, -1, 2, 3, 9, 8, 2]),
    ];
    for ((op, shapes, [new, at], places), also) in ops.into_iter().flat_map(|op| [(op, false), (op, true)]) {
        let (new, at) = (made_up(new, 2), Tensor::from_slice(at, places).unwrap());
        let session =
            Session::load(scattered(op, shapes, also).bytes_of_opset(24), &support::options()).unwrap();
        assert_eq!(session.plan().unwrap().updates.len(), usize::from(!also), "{op}");
        let want = session.run(&[("past", &past), ("new", &new), ("at", &at)]).unwrap();
        let whole = session.dispatches();
        let request = || session.request().input("new", &new).input("at", &at);
        // Given up; kept by the caller; given up for an output that comes to the host.
        let given_up = session.upload(&past).unwrap();
        let mut outputs = request().input("past", given_up).keep("present").run().unwrap();
        assert_eq!(outputs.take_kept("present").unwrap().to_host().unwrap(), want["present"], "{op}");
        let in_place = if op.contains(' ') { 2 } else { 1 };
        assert_eq!(session.dispatches(), if also { whole } else { in_place }, "{op}");
        if also {
            assert_eq!(outputs["also"], want["also"], "{op}");
        }
        let kept = session.upload(&past).unwrap();
        let mut outputs = request().input("past", &kept).keep("present").run().unwrap();
        assert_eq!(outputs.take_kept("present").unwrap().to_host().unwrap(), want["present"], "{op}");
        assert_eq!(kept.to_host().unwrap(), past, "{op}");
        assert_eq!(request().input("past", kept).run().unwrap()["present"], want["present"], "{op}");
    }
}

/// An index beyond the axis reaches nothing, in place as elsewhere.
#[test]
fn nothing_is_written_outside_of_a_tensor() {
    if skip() {
        return;
    }
    let (past, new) = (made_up(&[1, 4, 2], 1), made_up(&[2, 2], 2));
    let shapes = ["batch room 2", "n 2", "n 2"];
    let session =
        Session::load(scattered("ScatterND", shapes, false).bytes_of_opset(24), &support::options()).unwrap();
    for places in [[0i64, 4, 0, 1], [0, -5, 0, 1], [1, 0, 0, 1]] {
        let at = Tensor::from_slice(&[2, 2], &places).unwrap();
        let request = session.request().input("new", &new).input("at", &at);
        let mut outputs =
            request.input("past", session.upload(&past).unwrap()).keep("present").run().unwrap();
        let mut want = past.to_vec::<f32>().unwrap();
        want[2..4].copy_from_slice(&new.to_vec::<f32>().unwrap()[2..]);
        let got = outputs.take_kept("present").unwrap().to_host().unwrap();
        assert_eq!(got.to_vec::<f32>().unwrap(), want, "{places:?}");
    }
}
