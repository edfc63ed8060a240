//! What becomes one kernel: counted, so that a fusion that is lost is seen.

mod support;

use support::corpus::{self, gelu, layer_norm, rms_norm, softmax, start};
use support::net::{Net, float, int, ints};
use tilewright::DType;
use tilewright::kernel::{Body, Caps};
use tilewright::plan::Plan;

fn plan(net: Net) -> Plan {
    net.output("y", DType::F32).plan(&Caps::default())
}

/// The families of the kernels of one run, in order.
fn families(plan: &Plan) -> Vec<&'static str> {
    plan.steps
        .iter()
        .filter(|step| matches!(plan.tensors[step.output].origin, tilewright::plan::Origin::Run))
        .map(|step| plan.kernels[step.kernel].spec.family())
        .collect()
}

fn assert_families(net: Net, wanted: &[&str]) {
    let plan = plan(net);
    assert_eq!(families(&plan), wanted, "\n{plan}");
}

fn statistics(plan: &Plan) -> usize {
    match &plan.kernels[0].spec.body {
        Body::Reduce { stages, .. } => stages.len(),
        Body::Map { .. }
        | Body::Update { .. }
        | Body::Contract(_)
        | Body::Conv(_)
        | Body::Attention(_)
        | Body::TopK(_) => 0,
    }
}

fn rows() -> Net {
    start().input("x", DType::F32, "batch seq 64")
}

#[test]
fn softmax_in_primitives_is_one_row_kernel() {
    let plan = plan(softmax(rows(), "x", "y"));
    assert_eq!(families(&plan), ["reduce"], "\n{plan}");
    assert_eq!(statistics(&plan), 2, "maximum and sum");
}

#[test]
fn layer_normalization_in_primitives_is_one_row_kernel() {
    let plan = plan(layer_norm(rows(), "x", "y"));
    assert_eq!(families(&plan), ["reduce"], "\n{plan}");
    assert_eq!(statistics(&plan), 2, "mean and variance");
}

#[test]
fn rms_normalization_in_primitives_is_one_row_kernel() {
    let plan = plan(rms_norm(rows(), "x", "y"));
    assert_eq!(families(&plan), ["reduce"], "\n{plan}");
    assert_eq!(statistics(&plan), 1, "mean square");
}

#[test]
fn single_operators_of_the_same_kind_are_one_row_kernel() {
    assert_families(rows().node("Softmax", "x", "y", &[int("axis", -1)]), &["reduce"]);
    assert_families(rows().node("Softmax", "x", "y", &[int("axis", 1)]), &["reduce"]);
    assert_families(rows().node("LogSoftmax", "x", "y", &[]), &["reduce"]);
    assert_families(
        rows().floats("s", &[64]).floats("b", &[64]).node("LayerNormalization", "x s b", "y", &[]),
        &["reduce"],
    );
}

#[test]
fn a_masked_softmax_is_one_row_kernel() {
    let net = rows().input("mask", DType::F32, "batch 1 64").node("Add", "x mask", "masked", &[]);
    assert_families(softmax(net, "masked", "y"), &["reduce"]);
}

#[test]
fn bias_gelu_and_residual_are_the_epilogue_of_a_product() {
    let net = rows()
        .input("residual", DType::F32, "batch seq 128")
        .floats("w", &[64, 128])
        .floats("b", &[128])
        .node("MatMul", "x w", "product", &[])
        .node("Add", "product b", "biased", &[]);
    let net = gelu(net, "biased", "gelu").node("Add", "gelu residual", "y", &[]);
    assert_families(net, &["gemm"]);
}

#[test]
fn a_gemm_with_alpha_beta_and_relu_is_one_kernel() {
    let net = Net::new()
        .input("x", DType::F32, "n 64")
        .floats("w", &[32, 64])
        .floats("b", &[32])
        .node("Gemm", "x w b", "p", &[int("transB", 1), float("alpha", 0.5), float("beta", 2.0)])
        .node("Relu", "p", "y", &[]);
    assert_families(net, &["gemm"]);
}

#[test]
fn convolution_normalization_and_relu_are_one_kernel() {
    let plan = corpus::conv_bn_relu().plan(&Caps::default());
    assert_eq!(families(&plan), ["conv"], "\n{plan}");
    let plan = corpus::residual_block().plan(&Caps::default());
    assert_eq!(families(&plan), ["conv"], "\n{plan}");
}

#[test]
fn views_add_no_kernel() {
    // Between two kernels, before one and after one.
    let net = rows()
        .floats("w", &[16, 16])
        .list("split", &[0, 0, 4, 16])
        .list("starts", &[1])
        .list("ends", &[3])
        .list("axes", &[2])
        .node("Reshape", "x split", "heads", &[])
        .node("Slice", "heads starts ends axes", "middle", &[])
        .node("Transpose", "middle", "turned", &[ints("perm", &[0, 2, 1, 3])])
        .node("MatMul", "turned w", "y", &[]);
    assert_families(net, &["gemm"]);
    let net = rows()
        .list("axis", &[1])
        .node("Softmax", "x", "s", &[])
        .node("Unsqueeze", "s axis", "u", &[])
        .node("Squeeze", "u axis", "q", &[])
        .node("Transpose", "q", "t", &[ints("perm", &[0, 2, 1])])
        .node("MatMul", "t x", "y", &[]);
    assert_families(net, &["reduce", "gemm"]);
}

#[test]
fn a_reshape_of_an_input_is_no_kernel() {
    let net = rows().list("shape", &[-1, 64]).node("Reshape", "x shape", "y", &[]);
    assert_families(net, &[]);
}

#[test]
fn shape_arithmetic_adds_no_kernel() {
    let plan = corpus::attention().plan(&Caps::default());
    // Q, K and V; attention; the output with its residual.
    assert_eq!(families(&plan), ["gemm", "gemm", "gemm", "attention", "gemm"], "\n{plan}");
    // Sizes as an output are known on the host.
    let net =
        Net::new().input("x", DType::F32, "batch 3 seq").node("Shape", "x", "y", &[]).output("y", DType::I64);
    let plan = net.plan(&Caps::default());
    assert!(plan.steps.is_empty(), "\n{plan}");
}

/// Queries, keys that are turned already, and values, of four heads of 16.
fn heads() -> Net {
    start()
        .input("q", DType::F32, "batch 4 seq 16")
        .input("k", DType::F32, "batch 4 16 past")
        .input("v", DType::F32, "batch 4 past 16")
        .input("mask", DType::F32, "batch 1 seq past")
        .input("seen", DType::Bool, "seq past")
        .scalar("quarter", 0.25)
        .scalar("zero", 0.0)
        .scalar("hidden", f32::NEG_INFINITY)
}

#[test]
fn attention_is_one_kernel_however_it_is_spelled() {
    let last = [int("axis", -1)];
    let scores = || heads().node("MatMul", "q k", "s", &[]);
    let mixed = |net: Net, weights: &str| net.node("MatMul", &format!("{weights} v"), "y", &[]);
    let softmaxed = |net: Net, x: &str| mixed(net.node("Softmax", x, "p", &last), "p");
    let spellings: Vec<(&str, Net)> = vec![
        ("plain", softmaxed(scores(), "s")),
        ("softmax in primitives", mixed(softmax(scores(), "s", "p"), "p")),
        ("scaled and masked", {
            let net = scores().node("Mul", "s quarter", "a", &[]).node("Add", "a mask", "b", &[]);
            softmaxed(net, "b")
        }),
        ("scaled before", {
            let net = heads().node("Mul", "q half", "qs", &[]).node("Mul", "k half", "ks", &[]).node(
                "MatMul",
                "qs ks",
                "s",
                &[],
            );
            softmaxed(net, "s")
        }),
        ("a boolean mask and a soft cap", {
            let net = scores()
                .node("Div", "s two", "a", &[])
                .node("Tanh", "a", "b", &[])
                .node("Mul", "b two", "c", &[])
                .node("Where", "seen c hidden", "d", &[]);
            softmaxed(net, "d")
        }),
        ("rows that see nothing give zero", {
            let net = scores()
                .node("Add", "s mask", "a", &[])
                .node("Softmax", "a", "p", &last)
                .node("IsNaN", "p", "nan", &[])
                .node("Where", "nan zero p", "safe", &[]);
            mixed(net, "safe")
        }),
        ("divided by the reciprocal of the sum", {
            let net = scores()
                .node("ReduceMax", "s last", "max", &[])
                .node("Sub", "s max", "c", &[])
                .node("Exp", "c", "e", &[])
                .node("ReduceSum", "e last", "sum", &[])
                .node("Reciprocal", "sum", "r", &[])
                .node("Mul", "e r", "p", &[]);
            mixed(net, "p")
        }),
        ("heads folded into the batch", {
            let net = heads()
                .list("qf", &[-1, 8, 16])
                .list("kf", &[-1, 16, 8])
                .list("vf", &[-1, 8, 16])
                .list("whole", &[2, 4, 8, 16])
                .node("Reshape", "q qf", "q3", &[])
                .node("Reshape", "k kf", "k3", &[])
                .node("Reshape", "v vf", "v3", &[])
                .node("MatMul", "q3 k3", "s", &[])
                .node("Softmax", "s", "p", &last)
                .node("MatMul", "p v3", "m", &[]);
            net.node("Reshape", "m whole", "y", &[])
        }),
        ("scores of keys and queries", {
            let net = heads()
                .node("Transpose", "q", "qt", &[ints("perm", &[0, 1, 3, 2])])
                .node("Transpose", "k", "kt", &[ints("perm", &[0, 1, 3, 2])])
                .node("MatMul", "kt qt", "st", &[])
                .node("Transpose", "st", "s", &[ints("perm", &[0, 1, 3, 2])]);
            softmaxed(net, "s")
        }),
        ("with an epilogue", {
            let net = scores()
                .node("Softmax", "s", "p", &last)
                .node("MatMul", "p v", "m", &[])
                .node("Transpose", "m", "t", &[ints("perm", &[0, 2, 1, 3])])
                .list("flat", &[0, 0, 64])
                .node("Reshape", "t flat", "r", &[]);
            net.node("Relu", "m", "y", &[])
        }),
    ];
    for (name, net) in spellings {
        let plan = plan(net);
        assert_eq!(families(&plan), ["attention"], "{name}\n{plan}");
    }
}

#[test]
fn what_is_no_attention_or_is_needed_elsewhere_is_left() {
    let last = [int("axis", -1)];
    let softmaxed = || heads().node("MatMul", "q k", "s", &[]).node("Softmax", "s", "p", &last);
    let weights_shown = softmaxed().node("MatMul", "p v", "y", &[]).output("p", DType::F32);
    let scores_shown = softmaxed().node("MatMul", "p v", "y", &[]).output("s", DType::F32);
    let other_axis = heads()
        .node("MatMul", "q k", "s", &[])
        .node("Softmax", "s", "p", &[int("axis", 2)])
        .node("MatMul", "p v", "y", &[]);
    // The sum is of something else than what it divides.
    let no_softmax = heads()
        .node("MatMul", "q k", "s", &[])
        .node("ReduceMax", "s last", "max", &[])
        .node("Sub", "s max", "c", &[])
        .node("Exp", "c", "e", &[])
        .node("Abs", "c", "other", &[])
        .node("ReduceSum", "other last", "sum", &[])
        .node("Div", "e sum", "p", &[])
        .node("MatMul", "p v", "y", &[]);
    let no_scores = heads().node("Softmax", "mask", "p", &last).node("MatMul", "p v", "y", &[]);
    for (name, net) in [
        ("weights shown", weights_shown),
        ("scores shown", scores_shown),
        ("other axis", other_axis),
        ("no softmax", no_softmax),
        ("no scores", no_scores),
    ] {
        let plan = plan(net);
        assert!(!families(&plan).contains(&"attention"), "{name}\n{plan}");
    }
}

#[test]
fn equal_computations_share_one_kernel() {
    // Three products of one shape, as in Q, K and V of every layer.
    let mut net = rows();
    for name in ["a", "b", "c"] {
        net = net.floats(&format!("{name}.w"), &[64, 64]).node("MatMul", &format!("x {name}.w"), name, &[]);
    }
    let net = net.output("a", DType::F32).output("b", DType::F32).output("c", DType::F32);
    let plan = net.plan(&Caps::default());
    assert_eq!((plan.dispatches(), plan.kernels.len()), (3, 1), "\n{plan}");
}

#[test]
fn what_depends_on_constants_alone_runs_once() {
    let net = rows()
        .floats("w", &[64, 64])
        .floats("scale", &[64])
        .node("Exp", "w", "e", &[])
        .node("MatMul", "e w", "ew", &[])
        .node("MatMul", "x ew", "y", &[]);
    let plan = plan(net);
    assert_eq!(plan.dispatches(), 1, "\n{plan}");
}

#[test]
fn another_sequence_length_compiles_nothing() {
    if support::skip_gpu("another_sequence_length_compiles_nothing") {
        return;
    }
    let session = corpus::attention().session().unwrap();
    let texts = |seq: usize| {
        session.run(&[("x", &support::net::made_up(&[1, seq, 64], 1))]).unwrap();
        session.kernels().len()
    };
    let first = texts(24);
    assert!(first > 0);
    for seq in [32, 48, 25, 24] {
        assert_eq!(texts(seq), first, "sequence length {seq}");
    }
}

/// An operand's elements are read again for every tile: what costs little is folded into the product, a chain of maps
/// that each cost little is made once.
#[test]
fn a_long_chain_is_made_once_for_a_product() {
    let net = || {
        start().input("x", DType::F32, "seq 64").input("c", DType::F32, "64").input("w", DType::F32, "64 8")
    };
    let short = net().node("Mul", "x c", "a", &[]).node("MatMul", "a w", "y", &[]).output("y", DType::F32);
    assert_families(short, &["gemm"]);
    let long = net()
        .input("s", DType::F32, "64")
        .node("Mul", "x c", "a", &[])
        .node("Mul", "x s", "b", &[])
        .node("Add", "a b", "r", &[])
        .node("MatMul", "r w", "y", &[])
        .output("y", DType::F32);
    assert_families(long, &["map", "gemm"]);
}
