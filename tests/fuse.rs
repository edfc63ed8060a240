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
        Body::Map { .. } | Body::Contract(_) | Body::Conv(_) => 0,
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
    // Q, K and V; scores; softmax; mixing; the output with its residual.
    assert_eq!(families(&plan), ["gemm", "gemm", "gemm", "gemm", "reduce", "gemm", "gemm"], "\n{plan}");
    // Sizes as an output are known on the host.
    let net =
        Net::new().input("x", DType::F32, "batch 3 seq").node("Shape", "x", "y", &[]).output("y", DType::I64);
    let plan = net.plan(&Caps::default());
    assert!(plan.steps.is_empty(), "\n{plan}");
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
