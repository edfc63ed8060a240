//! The library from outside: what it says of input that does not fit, and what it gives at the edges of what does.

mod support;

use std::sync::Arc;

use support::corpus;
use support::net::{Net, int, ints, made_up};
use tilewright::gpu::Checks;
use tilewright::{AdapterChoice, DType, Error, Session, SessionOptions, Tensor};

/// Whether tests on a device are to be passed over.
fn skip() -> bool {
    support::skip_gpu("session")
}

/// `y = x * w + b` with `x [batch, 3]` and `b [batch, 3]`.
fn affine() -> Net {
    Net::new()
        .input("x", DType::F32, "batch 3")
        .input("b", DType::F32, "batch 3")
        .weight("w", &f32s(&[3], &[1.0, 2.0, 3.0]))
        .node("Mul", "x w", "scaled", &[])
        .node("Add", "scaled b", "y", &[])
        .output("y", DType::F32)
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape, values).unwrap()
}

fn i64s(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_slice(shape, values).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec().unwrap()
}

/// The one output of a run.
fn only(session: &Session, inputs: &[(&str, &Tensor)]) -> tilewright::Result<Tensor> {
    let outputs = session.run(inputs)?;
    let mut all = outputs.iter();
    let (_, tensor) = all.next().unwrap();
    assert!(all.next().is_none(), "more than one output");
    Ok(tensor.clone())
}

/// Without checks a whole model computes the same, and positions that are read from data stay in their axis.
#[test]
fn kernels_without_checks_compute_the_same() {
    if skip() {
        return;
    }
    // SAFETY: the models keep within their tensors, and no axis is empty.
    let options = SessionOptions { checks: unsafe { Checks::off() }, ..support::options() };
    let path = support::test_data("models/minilm.onnx");
    let (checked, free) = (support::load(&path).unwrap(), Session::load(&path, &options).unwrap());
    let compiler = |session: &Session| tilewright::tune::Platform::from(session.adapter()).compiler;
    assert_ne!(compiler(&checked), compiler(&free), "records of one are none of the other");
    let ids: Vec<i64> = (0..16).map(|i| 37 * i + 101).collect();
    let shape = |values: &[i64]| i64s(&[1, 16], values);
    let (ids, mask, types) = (shape(&ids), shape(&[1; 16]), shape(&[0; 16]));
    let all = [("input_ids", &ids), ("attention_mask", &mask), ("token_type_ids", &types)];
    let has = |name: &str| checked.inputs().iter().any(|input| input.name == name);
    let given: Vec<(&str, &Tensor)> = all.into_iter().filter(|(name, _)| has(name)).collect();
    assert_eq!(given.len(), checked.inputs().len());
    let (want, got) = (only(&checked, &given).unwrap(), only(&free, &given).unwrap());
    assert!(support::compare::relative_error(&got, &want).unwrap() < 1e-6);

    let net = Net::new()
        .input("x", DType::F32, "rows 2")
        .input("i", DType::I64, "n")
        .node("Gather", "x i", "y", &[])
        .output("y", DType::F32);
    let (x, i) = (f32s(&[3, 2], &[0., 1., 2., 3., 4., 5.]), i64s(&[4], &[-100, 3, 1, 1_000_000]));
    let free = Session::load(net.bytes(), &options).unwrap();
    let got = only(&free, &[("x", &x), ("i", &i)]).unwrap();
    assert_eq!(floats(&got), [0., 1., 4., 5., 2., 3., 4., 5.]);
}

#[test]
fn inputs_that_do_not_fit_are_refused_with_what_was_wanted() {
    if skip() {
        return;
    }
    let session = affine().session().unwrap();
    let (x, b) = (f32s(&[2, 3], &[1.0; 6]), f32s(&[2, 3], &[0.5; 6]));
    let wide = f32s(&[2, 4], &[0.0; 8]);
    let flat = f32s(&[6], &[0.0; 6]);
    let long = f32s(&[4, 3], &[0.0; 12]);
    let whole = i64s(&[2, 3], &[1; 6]);
    let cases: &[(&[(&str, &Tensor)], &str)] = &[
        (&[("X", &x), ("b", &b)], r#"input "X": the model has no such input; it has "x", "b""#),
        (&[("x", &x)], r#"input "b": missing; the model wants "x", "b""#),
        (&[], r#"input "x": missing; the model wants "x", "b""#),
        (&[("x", &x), ("b", &b), ("x", &x)], r#"input "x": given twice"#),
        (&[("x", &whole), ("b", &b)], r#"input "x": wants float32, got int64"#),
        (&[("x", &flat), ("b", &b)], r#"input "x": wants shape [batch, 3], got [6]"#),
        (&[("x", &x), ("b", &wide)], r#"input "b": wants shape [batch, 3], got [2, 4]"#),
        (&[("x", &x), ("b", &long)], r#"input "b": dimension "batch" is 4 here and 2 in input "x""#),
    ];
    for (inputs, wanted) in cases {
        let error = session.run(inputs).unwrap_err();
        assert!(matches!(error, Error::Input { .. }), "{error:?}");
        assert_eq!(&error.to_string(), wanted);
        assert_eq!(&pollster::block_on(session.run_async(inputs)).unwrap_err().to_string(), wanted);
    }
    // And the session is none the worse for it.
    let y = only(&session, &[("b", &b), ("x", &x)]).unwrap();
    assert_eq!(floats(&y), [1.5, 2.5, 3.5, 1.5, 2.5, 3.5]);
}

#[test]
fn a_fixed_dimension_is_checked_and_gives_constants() {
    if skip() {
        return;
    }
    let mut options = support::options();
    options.dims.insert("batch".into(), 2);
    let session = Session::load(affine().bytes(), &options).unwrap();
    let plan = session.plan().unwrap();
    assert!(plan.kernels.iter().all(|kernel| kernel.spec.params == 0), "{plan}");
    let (x, b) = (f32s(&[2, 3], &[1.0; 6]), f32s(&[2, 3], &[0.5; 6]));
    assert_eq!(floats(&only(&session, &[("x", &x), ("b", &b)]).unwrap())[..3], [1.5, 2.5, 3.5]);
    let long = f32s(&[4, 3], &[0.0; 12]);
    let error = session.run(&[("x", &long), ("b", &long)]).unwrap_err().to_string();
    assert_eq!(error, r#"input "x": wants shape [batch = 2, 3], got [4, 3]"#);
}

#[test]
fn dimensions_of_zero_give_empty_outputs_and_identities() {
    if skip() {
        return;
    }
    let session = affine().session().unwrap();
    let empty = f32s(&[0, 3], &[]);
    assert_eq!(only(&session, &[("x", &empty), ("b", &empty)]).unwrap(), empty);
    // Sums of nothing, and products over an empty inner axis.
    let net = Net::new()
        .input("x", DType::F32, "n m")
        .list("axis", &[0])
        .node("ReduceSum", "x axis", "sum", &[int("keepdims", 0)])
        .node("ReduceProd", "x axis", "product", &[int("keepdims", 0)])
        .node("ReduceMax", "x axis", "max", &[int("keepdims", 0)])
        .node("Transpose", "x", "t", &[ints("perm", &[1, 0])])
        .node("MatMul", "t x", "square", &[])
        .node("Softmax", "x", "softmax", &[])
        .output("sum", DType::F32)
        .output("product", DType::F32)
        .output("max", DType::F32)
        .output("square", DType::F32)
        .output("softmax", DType::F32);
    let session = net.session().unwrap();
    let out = session.run(&[("x", &f32s(&[0, 2], &[]))]).unwrap();
    assert_eq!(out["sum"], f32s(&[2], &[0.0, 0.0]));
    assert_eq!(out["product"], f32s(&[2], &[1.0, 1.0]));
    assert_eq!(out["max"], f32s(&[2], &[f32::NEG_INFINITY; 2]));
    assert_eq!(out["square"], f32s(&[2, 2], &[0.0; 4]));
    assert_eq!(out["softmax"], f32s(&[0, 2], &[]));
    // The same session with something in it.
    let out = session.run(&[("x", &f32s(&[1, 2], &[3.0, -1.0]))]).unwrap();
    assert_eq!(floats(&out["square"]), [9.0, -3.0, -3.0, 1.0]);
}

/// Each operator on 64-bit integers at the edges of words, against Rust's own.
#[test]
fn int64_is_exact() {
    if skip() {
        return;
    }
    let edges =
        [0, 1, -1, 3, -7, i32::MAX as i64, i32::MIN as i64, 1 << 32, -(1 << 40) + 5, i64::MAX, i64::MIN];
    let a: Vec<i64> = edges.iter().flat_map(|&a| edges.map(|_| a)).collect();
    let b: Vec<i64> = edges.iter().flat_map(|_| edges).collect();
    let pairs = || a.iter().copied().zip(b.iter().copied());
    let inputs = [("a", &i64s(&[a.len()], &a)), ("b", &i64s(&[b.len()], &b))];
    type Exact = fn(i64, i64) -> i64;
    let ops: [(&str, Exact); 8] = [
        ("Add", i64::wrapping_add),
        ("Sub", i64::wrapping_sub),
        ("Mul", i64::wrapping_mul),
        ("Div", |a, b| if b == 0 { a } else { a.wrapping_div(b) }),
        ("Max", i64::max),
        ("Min", i64::min),
        ("BitwiseAnd", |a, b| a & b),
        ("BitwiseXor", |a, b| a ^ b),
    ];
    for (op, f) in ops {
        let net = Net::new().input("a", DType::I64, "n").input("b", DType::I64, "n");
        let session = net.node(op, "a b", "y", &[]).output("y", DType::I64).session().unwrap();
        let y = only(&session, &inputs).unwrap().to_vec::<i64>().unwrap();
        for ((a, b), y) in pairs().zip(y) {
            assert_eq!(y, f(a, b), "{op}({a}, {b})");
        }
    }
    let net = Net::new().input("a", DType::I64, "n").input("b", DType::I64, "n");
    let session = net.node("Less", "a b", "y", &[]).output("y", DType::Bool).session().unwrap();
    let y = only(&session, &inputs).unwrap().to_vec::<bool>().unwrap();
    pairs().zip(y).for_each(|((a, b), y)| assert_eq!(y, a < b, "{a} < {b}"));
}

/// 64-bit integers and floats round once, and truncate as Rust's casts do.
#[test]
fn int64_conversions_round_once() {
    if skip() {
        return;
    }
    let to = |dtype: DType| [int("to", dtype.to_onnx() as i64)];
    let convert = |from: DType, dtype: DType, x: &Tensor| {
        let net = Net::new().input("x", from, "n").node("Cast", "x", "y", &to(dtype)).output("y", dtype);
        only(&net.session().unwrap(), &[("x", x)]).unwrap()
    };
    let ints = [0, -1, 16_777_217, (1 << 40) + 1, (1 << 53) + 1, 0x7fff_ff80_0000_0001, i64::MAX, i64::MIN];
    let y = convert(DType::I64, DType::F32, &i64s(&[ints.len()], &ints));
    assert_eq!(floats(&y), ints.map(|v| v as f32));
    let numbers = [0.0, -0.9, 1e3, -8e9, 1.5e15, 9.3e18, -1e30, f32::NAN];
    let y = convert(DType::F32, DType::I64, &f32s(&[numbers.len()], &numbers));
    assert_eq!(y.to_vec::<i64>().unwrap(), numbers.map(|v| v as i64));
}

#[test]
fn everything_unsupported_is_listed_at_once() {
    let net = Net::new()
        .input("x", DType::F32, "n")
        .node("Frobnicate", "x", "a", &[])
        .node("Relu", "a", "b", &[])
        .node("Quux", "b", "c", &[])
        .node("Frobnicate", "c", "d", &[])
        .output("d", DType::F32);
    let error = net.session().unwrap_err();
    let Error::Unsupported { items } = &error else { panic!("{error:?}") };
    assert_eq!(items.len(), 2, "{items:?}");
    let text = error.to_string();
    for part in ["unsupported: ", "Frobnicate", "\"a\", \"d\"", "Quux", "\"c\"", "opset 20"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn constant_indices_outside_of_their_axis_are_refused() {
    if skip() {
        return;
    }
    let whole = |shape: &[usize], v: &[i64]| Tensor::from_slice(shape, v).unwrap();
    let rows = [
        (
            "Gather",
            whole(&[2], &[0, 2]),
            "indices from 0 to 2 and the length of their axis: 3 must be at most 2",
        ),
        (
            "Gather",
            whole(&[], &[-3]),
            "indices from -3 to -3 and the length of their axis: 3 must be at most 2",
        ),
        (
            "GatherElements",
            whole(&[1, 3], &[0, 1, 5]),
            "indices from 0 to 5 and the length of their axis: 6 must be at most 2",
        ),
        (
            "GatherND",
            whole(&[1, 2], &[1, 3]),
            "indices from 3 to 3 and the length of their axis: 4 must be at most 3",
        ),
    ];
    for (op, indices, want) in rows {
        let net = |dims: &str| {
            let net = Net::new().input("x", DType::F32, dims).weight("i", &indices);
            net.node(op, "x i", "y", &[]).output("y", DType::F32)
        };
        let want = format!("{op} \"y\": {want}");
        assert_eq!(net("2 3").session().unwrap_err().to_string(), want);
        // Sizes that only a run can tell.
        let x = Tensor::from_slice(&[2, 3], &[0f32; 6]).unwrap();
        assert_eq!(net("n m").session().unwrap().run(&[("x", &x)]).unwrap_err().to_string(), want);
    }
}

#[test]
fn shapes_that_do_not_fit_name_the_node_and_both_sizes() {
    if skip() {
        return;
    }
    let net = Net::new()
        .input("x", DType::F32, "n 4")
        .floats("w", &[5, 6])
        .node("MatMul", "x w", "y", &[])
        .output("y", DType::F32);
    let error = net.session().unwrap_err();
    assert!(matches!(error, Error::Model { .. }), "{error:?}");
    assert_eq!(error.to_string(), "MatMul \"y\": inner axes of a matrix product: 4 and 5 must be equal");
    // Sizes that only a run can tell.
    let net = Net::new()
        .input("x", DType::F32, "n k")
        .input("w", DType::F32, "l m")
        .node("MatMul", "x w", "y", &[])
        .output("y", DType::F32);
    let session = net.session().unwrap();
    let (x, w) = (made_up(&[2, 4], 1), made_up(&[5, 3], 2));
    let error = session.run(&[("x", &x), ("w", &w)]).unwrap_err().to_string();
    for part in ["MatMul \"y\"", "4", "5"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(only(&session, &[("x", &x), ("w", &made_up(&[4, 3], 2))]).unwrap().shape(), [2, 3]);
}

#[test]
fn an_unknown_adapter_is_named_with_those_there_are() {
    let options =
        SessionOptions { adapter: AdapterChoice::Name("no such card".into()), ..Default::default() };
    let error = Session::load(affine().bytes(), &options).unwrap_err();
    assert!(matches!(error, Error::Adapter(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("no such card"), "{text}");
    for adapter in tilewright::adapters().unwrap() {
        assert!(text.contains(&adapter.name), "{} in {text}", adapter.name);
    }
}

#[test]
fn a_tensor_larger_than_a_binding_works_or_says_both_sizes() {
    if skip() {
        return;
    }
    // Made on the device from one number, so that the host needs no memory for it.
    let net = Net::new()
        .input("x", DType::F32, "1")
        .input("shape", DType::I64, "2")
        .list("axes", &[0, 1])
        .node("Expand", "x shape", "big", &[])
        .node("Sin", "big", "sines", &[])
        .node("ReduceMax", "sines axes", "y", &[int("keepdims", 0)])
        .output("y", DType::F32)
        .output("sines", DType::F32);
    let session = net.session().unwrap();
    let limit = session.adapter().caps.max_storage_binding_bytes;
    if limit > 1 << 30 {
        support::say!("a binding may have {limit} bytes here: not tried");
        return;
    }
    let columns = 1 << 16;
    let rows = limit as i64 / 4 / columns + 1;
    match session.run(&[("x", &f32s(&[1], &[0.5])), ("shape", &i64s(&[2], &[rows, columns]))]) {
        Ok(outputs) => {
            assert!((floats(&outputs["y"])[0] - 0.5f32.sin()).abs() < 2f32.powi(-11));
            assert_eq!(outputs["sines"].shape(), [rows as usize, columns as usize]);
        }
        Err(error) => {
            let text = error.to_string();
            assert!(matches!(error, Error::Limit { .. }), "{text}");
            let bytes = (rows * columns * 4).to_string();
            assert!(text.contains(&bytes) && text.contains(&limit.to_string()), "{bytes}, {limit}: {text}");
        }
    }
}

#[test]
fn sizes_beyond_memory_are_errors() {
    if skip() {
        return;
    }
    let net = Net::new()
        .input("x", DType::F32, "n 1")
        .input("y", DType::F32, "1 m")
        .node("Mul", "x y", "outer", &[])
        .node("Sin", "outer", "z", &[])
        .output("z", DType::F32);
    let session = net.session().unwrap();
    for (n, m) in [(1 << 16, 1 << 16), (1 << 17, 1 << 14), (1 << 15, 1 << 15)] {
        let (x, y) = (made_up(&[n, 1], 1), made_up(&[1, m], 2));
        let error = session.run(&[("x", &x), ("y", &y)]);
        if (n * m) as u64 * 4 > i32::MAX as u64 {
            let error = error.unwrap_err();
            assert!(matches!(error, Error::Limit { .. } | Error::OutOfMemory(_)), "{n} x {m}: {error:?}");
        }
    }
    let (x, y) = (f32s(&[2, 1], &[1.0, 2.0]), f32s(&[1, 2], &[0.0, 0.5]));
    let z = floats(&only(&session, &[("x", &x), ("y", &y)]).unwrap())[3];
    // WGSL asks no more of sin than this.
    assert!((z - 1f32.sin()).abs() < 2f32.powi(-11), "sin(1) = {z}");
}

#[test]
fn two_sessions_run_side_by_side() {
    if skip() {
        return;
    }
    let nets = [corpus::feed_forward(), corpus::attention()];
    std::thread::scope(|scope| {
        for net in &nets {
            scope.spawn(move || {
                let session = net.session().unwrap();
                for turn in 0..10 {
                    let x = made_up(&[1 + turn % 2, 5, 64], turn as u32);
                    let wanted = net.evaluate(std::slice::from_ref(&x)).unwrap();
                    let got = only(&session, &[("x", &x)]).unwrap();
                    assert!(support::compare::relative_error(&got, &wanted[0]).unwrap() < 1e-5);
                }
            });
        }
    });
}

#[test]
fn one_session_serves_several_threads() {
    if skip() {
        return;
    }
    let session = Arc::new(affine().session().unwrap());
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let session = session.clone();
            scope.spawn(move || {
                for turn in 0..10usize {
                    let n = 1 + (turn + thread) % 3;
                    let x = f32s(&[n, 3], &vec![thread as f32; n * 3]);
                    let b = f32s(&[n, 3], &vec![turn as f32; n * 3]);
                    let y = if turn % 2 == 0 {
                        session.run(&[("x", &x), ("b", &b)]).unwrap()
                    } else {
                        pollster::block_on(session.run_async(&[("x", &x), ("b", &b)])).unwrap()
                    };
                    let (t, u) = (thread as f32, turn as f32);
                    assert_eq!(floats(&y["y"])[..3], [t + u, 2.0 * t + u, 3.0 * t + u]);
                }
            });
        }
    });
}

#[test]
fn sessions_move_between_threads() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<Session>();
    is_sync::<Session>();
    is_send::<tilewright::Outputs>();
    is_send::<Error>();
    fn future_is_send<F: Future + Send>(_: F) {}
    // A server's tasks hold these.
    if !skip() {
        let session = affine().session().unwrap();
        future_is_send(session.run_async(&[]));
    }
}

#[test]
fn outputs_come_in_the_models_order() {
    if skip() {
        return;
    }
    let net = Net::new()
        .input("x", DType::F32, "n")
        .weight("c", &f32s(&[2], &[7.0, 8.0]))
        .node("Neg", "x", "b", &[])
        .node("Abs", "b", "a", &[])
        .node("Shape", "x", "s", &[])
        .output("s", DType::I64)
        .output("b", DType::F32)
        .output("c", DType::F32)
        .output("x", DType::F32)
        .output("a", DType::F32)
        .output("b", DType::F32);
    // The same value twice is refused by no rule of the format.
    let session = net.session().unwrap();
    let x = f32s(&[3], &[1.0, -2.0, 3.0]);
    let outputs = session.run(&[("x", &x)]).unwrap();
    let names: Vec<&str> = outputs.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["s", "b", "c", "x", "a", "b"]);
    assert_eq!(outputs["s"], i64s(&[1], &[3]));
    assert_eq!(floats(&outputs["b"]), [-1.0, 2.0, -3.0]);
    assert_eq!(floats(&outputs["c"]), [7.0, 8.0]);
    assert_eq!(outputs["x"], x);
    assert_eq!(floats(&outputs["a"]), [1.0, 2.0, 3.0]);
    assert!(outputs.get("nothing").is_none());
}

#[test]
fn a_broadcast_of_a_symbol_that_turns_out_to_be_one_is_right() {
    if skip() {
        return;
    }
    // Planned as equal sizes.
    let net = Net::new()
        .input("x", DType::F32, "n 2")
        .input("y", DType::F32, "m 2")
        .node("Add", "x y", "z", &[])
        .output("z", DType::F32);
    let session = net.session().unwrap();
    let (one, three) = (f32s(&[1, 2], &[10.0, 20.0]), f32s(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let sum = [11.0, 22.0, 13.0, 24.0, 15.0, 26.0];
    for _ in 0..2 {
        assert_eq!(floats(&only(&session, &[("x", &three), ("y", &three)]).unwrap())[5], 12.0);
        assert_eq!(floats(&only(&session, &[("x", &one), ("y", &three)]).unwrap()), sum);
        assert_eq!(floats(&only(&session, &[("x", &three), ("y", &one)]).unwrap()), sum);
        let two = f32s(&[2, 2], &[0.0; 4]);
        let error = session.run(&[("x", &two), ("y", &three)]).unwrap_err().to_string();
        assert!(error.contains("Add \"z\"") && error.contains('2') && error.contains('3'), "{error}");
    }
}

#[test]
fn shapes_alternate_through_one_session() {
    if skip() {
        return;
    }
    let net = corpus::attention();
    let session = net.session().unwrap();
    let shapes = [(1, 7), (2, 33), (1, 1), (3, 4), (2, 33), (1, 7)];
    for (turn, (batch, seq)) in shapes.into_iter().cycle().take(12).enumerate() {
        let x = made_up(&[batch, seq, 64], turn as u32 % 4);
        let got = only(&session, &[("x", &x)]).unwrap();
        if turn < 6 {
            let wanted = net.evaluate(std::slice::from_ref(&x)).unwrap();
            assert!(support::compare::relative_error(&got, &wanted[0]).unwrap() < 1e-5);
        } else {
            assert_eq!(got.shape(), [batch, seq, 64]);
        }
    }
}

#[test]
fn a_shape_may_be_an_input() {
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
    let x = f32s(&[6], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    for (shape, wanted) in [
        ([2, 3], [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
        ([3, -1], [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]),
        ([2, 3], [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
    ] {
        let y = only(&session, &[("x", &x), ("shape", &i64s(&[2], &shape))]).unwrap();
        assert_eq!(floats(&y), wanted, "{shape:?}");
    }
    let error = session.run(&[("x", &x), ("shape", &i64s(&[2], &[4, 2]))]).unwrap_err().to_string();
    assert!(error.contains("Reshape") && error.contains('6') && error.contains('8'), "{error}");
}

#[test]
fn an_input_of_any_rank_is_planned_when_it_comes() {
    if skip() {
        return;
    }
    let net =
        Net::new().input_of_any_rank("x", DType::F32).node("Neg", "x", "y", &[]).output("y", DType::F32);
    let session = net.session().unwrap();
    for shape in [&[][..], &[3], &[1, 2]] {
        let x = made_up(shape, 3);
        let y = only(&session, &[("x", &x)]).unwrap();
        assert_eq!(y.shape(), shape);
        assert_eq!(floats(&y), floats(&x).iter().map(|v| -v).collect::<Vec<_>>());
    }
}
