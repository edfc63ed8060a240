//! Runs in stages: shapes, conditions and trip counts that the run itself computes. Expected values are worked out
//! here.

mod support;

use support::net::{Attribute, Net, graph, int, made_up};
use tilewright::ir::Given;
use tilewright::kernel::Caps;
use tilewright::ops::{self, Known};
use tilewright::{DType, Session, Tensor};

fn skip() -> bool {
    support::skip_gpu("stages")
}

fn run(session: &Session, inputs: &[(&str, &Tensor)], output: &str) -> Tensor {
    session.run(inputs).unwrap()[output].clone()
}

/// `exp` of the positive elements of `2 x`: the part before the count is computed once, and what it gives stays on
/// the device.
fn positive() -> Net {
    Net::new()
        .input("x", DType::F32, "n")
        .scalar("two", 2.0)
        .scalar("zero", 0.0)
        .node("Mul", "x two", "double", &[])
        .node("Greater", "double zero", "wanted", &[])
        .node("Compress", "double wanted", "some", &[int("axis", 0)])
        .node("Exp", "some", "y", &[])
        .output("y", DType::F32)
}

#[test]
fn another_count_compiles_nothing() {
    if skip() {
        return;
    }
    let session = positive().session().unwrap();
    let mut kernels = Vec::new();
    for seed in 1..4 {
        let x = made_up(&[70_000], seed);
        let y = run(&session, &[("x", &x)], "y").to_vec::<f32>().unwrap();
        let want: Vec<f32> =
            x.to_vec::<f32>().unwrap().iter().map(|v| v * 2.0).filter(|&v| v > 0.0).map(f32::exp).collect();
        assert_eq!(y.len(), want.len(), "seed {seed}");
        for (i, (y, want)) in y.iter().zip(&want).enumerate() {
            assert!((y - want).abs() <= 1e-5 * want, "seed {seed}, element {i}: got {y}, want {want}");
        }
        kernels.push(session.kernels().len());
    }
    assert_eq!(kernels[0], kernels[2], "kernels after each run: {kernels:?}");
    let none = run(&session, &[("x", &made_up(&[0], 1))], "y");
    assert_eq!(none.shape(), [0]);
}

#[test]
fn a_run_without_blocking_goes_through_the_same_stages() {
    if skip() {
        return;
    }
    let session = positive().session().unwrap();
    let x = Tensor::from_slice(&[4], &[0.0f32, 0.5, -1.0, 1.0]).unwrap();
    let outputs = pollster::block_on(session.run_async(&[("x", &x)])).unwrap();
    assert_eq!(outputs["y"].shape(), [2]);
}

/// Selections of selections, five side by side: a stage computes all five counts, and there are as many stages as
/// selections stand behind one another.
#[test]
fn what_does_not_depend_on_one_another_is_counted_together() {
    let lines = [(0.0f32, 0.5f32), (-0.5, 0.0), (0.5, 0.25), (2.0, 0.0), (-2.0, -2.0)];
    let mut net = Net::new().input("x", DType::F32, "n");
    for (i, (first, second)) in lines.iter().enumerate() {
        let name = |name: &str| format!("{name}{i}");
        let [some, fewer] = ["some", "y"].map(name);
        net = net.scalar(&name("first"), *first).scalar(&name("second"), *second);
        for (from, line, mask, to) in [("x", "first", "a", &some), (&some, "second", "b", &fewer)] {
            net = net.node("Greater", &format!("{from} {line}{i}"), &name(mask), &[]).node(
                "Compress",
                &format!("{from} {mask}{i}"),
                to,
                &[int("axis", 0)],
            );
        }
        net = net.output(&fewer, DType::F32);
    }
    let x = made_up(&[50], 1);
    let mut known = Known::default();
    let mut asked = Vec::new();
    let graph = net.graph();
    while let Some(next) = ops::lower(&graph, &known).unwrap().next {
        let program = ops::lower(&graph, &known).unwrap().program;
        let ids: Vec<_> = next.asked.iter().map(|&(id, _)| id).collect();
        let counts = program.evaluate(std::slice::from_ref(&x), &ids).unwrap();
        known.given.extend(ids.into_iter().zip(counts.into_iter().map(Given::Elements)));
        asked.push(next.asked.len());
    }
    assert_eq!(asked, [lines.len(), lines.len()]);
    if skip() {
        return;
    }
    let session = net.session().unwrap();
    for seed in 1..3 {
        let x = made_up(&[50], seed);
        let outputs = session.run(&[("x", &x)]).unwrap();
        for (i, (first, second)) in lines.iter().enumerate() {
            let above = |v: &f32| v > first && v > second;
            let want: Vec<f32> = x.to_vec::<f32>().unwrap().into_iter().filter(above).collect();
            assert_eq!(outputs[format!("y{i}").as_str()].to_vec::<f32>().unwrap(), want, "y{i}, seed {seed}");
        }
    }
}

/// `k` is the number of elements above 0, and the shape of the result.
#[test]
fn numbers_that_are_computed_are_sizes() {
    if skip() {
        return;
    }
    let net = Net::new()
        .input("x", DType::F32, "100")
        .scalar("zero", 0.0)
        .list("one", &[1])
        .node("Greater", "x zero", "above", &[])
        .node("Cast", "above", "ones", &[int("to", DType::I64.to_onnx() as i64)])
        .node("ReduceSum", "ones", "k", &[int("keepdims", 1)])
        .node("TopK", "x k", "top at", &[])
        .node("ConstantOfShape", "k", "zeros", &[])
        .node("Add", "top zeros", "y", &[])
        .output("y", DType::F32);
    let next = ops::lower(&net.graph(), &Known::default()).unwrap().next.unwrap();
    assert_eq!(next.asked.len(), 1, "both nodes ask for one value");
    let session = net.session().unwrap();
    for seed in [3, 4] {
        let x = made_up(&[100], seed);
        let mut want: Vec<f32> = x.to_vec::<f32>().unwrap().into_iter().filter(|&v| v > 0.0).collect();
        want.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(run(&session, &[("x", &x)], "y").to_vec::<f32>().unwrap(), want, "seed {seed}");
    }
}

/// `k` is the size of another input, or how many of its elements are not 0.
#[test]
fn a_k_beyond_its_axis_is_refused() {
    if skip() {
        return;
    }
    let net = |count: &str| {
        let net = Net::new().input("x", DType::F32, "n").input("like", DType::F32, "m");
        let net = match count {
            "Shape" => net.node("Shape", "like", "k", &[]),
            _ => net.node("NonZero", "like", "found", &[]).node("Shape", "found", "k", &[int("start", 1)]),
        };
        net.node("TopK", "x k", "top at", &[]).output("top", DType::F32)
    };
    let x = Tensor::from_slice(&[3], &[1.0f32, 3.0, 2.0]).unwrap();
    let ones = |len: usize| Tensor::from_slice(&[len], &vec![1.0f32; len]).unwrap();
    for count in ["Shape", "NonZero"] {
        let session = net(count).session().unwrap();
        for (k, want) in [(2, vec![3.0f32, 2.0]), (3, vec![3.0, 2.0, 1.0])] {
            let top = run(&session, &[("x", &x), ("like", &ones(k))], "top");
            assert_eq!(top.to_vec::<f32>().unwrap(), want, "{count}");
        }
        let error = session.run(&[("x", &x), ("like", &ones(5))]).unwrap_err().to_string();
        assert_eq!(error, "TopK \"top\": k against the length of its axis: 5 must be at most 3", "{count}");
        let top = run(&session, &[("x", &x), ("like", &ones(1))], "top");
        assert_eq!(top.to_vec::<f32>().unwrap(), [3.0], "{count}");
    }
}

/// A number is doubled while the sum of the vector is below 100.
#[test]
fn a_loop_ends_where_its_condition_is_computed() {
    if skip() {
        return;
    }
    let body = Net::new()
        .input("i", DType::I64, "")
        .input("on", DType::Bool, "")
        .input("v", DType::F32, "n")
        .scalar("limit", 100.0)
        .node("Add", "v v", "w", &[])
        .node("ReduceSum", "w", "sum", &[int("keepdims", 0)])
        .node("Less", "sum limit", "going", &[])
        .node("Identity", "sum", "seen", &[])
        .output("going", DType::Bool)
        .output("w", DType::F32)
        .output("seen", DType::F32);
    let net = Net::new()
        .input("x", DType::F32, "n")
        .node("Loop", "- - x", "y sums", &[graph("body", &body)])
        .output("y", DType::F32)
        .output("sums", DType::F32);
    let session = net.session().unwrap();
    for (x, factor, sums) in
        [(vec![1.0f32; 100], 2.0, vec![200.0]), (vec![0.25; 100], 4.0, vec![50.0, 100.0])]
    {
        let outputs = session.run(&[("x", &Tensor::from_slice(&[100], &x).unwrap())]).unwrap();
        assert_eq!(outputs["y"].to_vec::<f32>().unwrap(), vec![x[0] * factor; 100]);
        assert_eq!(outputs["sums"].to_vec::<f32>().unwrap(), sums);
    }
}

/// The branches give different shapes, so only one can be computed.
#[test]
fn a_branch_is_chosen_by_what_is_computed() {
    if skip() {
        return;
    }
    let branch = |op: &str| Net::new().node(op, "x", "b", &[]).output("b", DType::F32);
    let branches: [Attribute; 2] =
        [graph("then_branch", &branch("Neg")), graph("else_branch", &branch("ReduceSum"))];
    let net = Net::new()
        .input("x", DType::F32, "100")
        .scalar("zero", 0.0)
        .node("ReduceSum", "x", "sum", &[int("keepdims", 0)])
        .node("Less", "sum zero", "negative", &[])
        .node("If", "negative", "y", &branches)
        .output("y", DType::F32);
    let session = net.session().unwrap();
    for (value, shape, first) in [(-0.5f32, 100, 0.5f32), (0.5, 1, 50.0)] {
        let x = Tensor::from_slice(&[100], &[value; 100]).unwrap();
        let y = run(&session, &[("x", &x)], "y");
        assert_eq!((y.shape(), y.to_vec::<f32>().unwrap()[0]), ([shape].as_slice(), first));
    }
}

/// Contents that come from small inputs are known before the run, and from large ones are computed.
#[test]
fn ranges_end_where_a_sum_says() {
    if skip() {
        return;
    }
    let net = Net::new()
        .input("x", DType::F32, "n")
        .scalar("start", 1.0)
        .scalar("step", 1.5)
        .node("ReduceSum", "x", "end", &[int("keepdims", 0)])
        .node("Range", "start end step", "y", &[])
        .output("y", DType::F32);
    let session = net.session().unwrap();
    let y = run(&session, &[("x", &Tensor::from_slice(&[200], &[0.03125f32; 200]).unwrap())], "y");
    assert_eq!(y.to_vec::<f32>().unwrap(), [1.0, 2.5, 4.0, 5.5]);
    let few = Tensor::from_slice(&[1], &[3.0f32]).unwrap();
    assert_eq!(run(&session, &[("x", &few)], "y").to_vec::<f32>().unwrap(), [1.0, 2.5]);
}

/// As many points as the largest region is long: counted when the plan is made where the regions are constants.
#[test]
fn only_computed_regions_need_a_stage() {
    let rois: Vec<f32> = (0..100).flat_map(|i| [0.0, 0.0, 2.0, 1.0 + i as f32 / 20.0]).collect();
    let rois = Tensor::from_slice(&[100, 4], &rois).unwrap();
    let net = || Net::new().input("x", DType::F32, "1 1 8 8").list("batch", &[0; 100]);
    let pooled = |net: Net| {
        let net = net.node("RoiAlign", "x rois batch", "y", &[]).output("y", DType::F32);
        net.plan(&Caps::default()).next.is_some()
    };
    assert!(!pooled(net().weight("rois", &rois)));
    assert!(pooled(net().input("rois", DType::F32, "100 4")));
}
