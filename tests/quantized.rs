//! Quantized constants stay at their size in device memory and are dequantized where they are read.

mod support;

use support::compare;
use support::net::{Net, int, made_up, text};
use tilewright::graph::Graph;
use tilewright::kernel::{Body, Caps};
use tilewright::ops::Known;
use tilewright::plan::{Origin, Plan, SymbolValues, plan};
use tilewright::{DType, Tensor};

/// Bytes of constants, whether uploaded or computed when a session starts.
fn constant_bytes(plan: &Plan) -> u64 {
    let layout = plan.layout(&SymbolValues::new(), &Caps::default(), &Default::default()).unwrap();
    let is_constant = |t: &usize| matches!(plan.tensors[*t].origin, Origin::Weight(_) | Origin::Once);
    (0..plan.tensors.len()).filter(is_constant).map(|t| layout.size_bytes[t]).sum()
}

/// A tensor of made-up elements.
fn codes(dtype: DType, shape: &[usize], seed: u32) -> Tensor {
    let bytes = dtype.size_bytes(shape.iter().product());
    let floats = made_up(&[bytes], seed).to_vec::<f32>().unwrap();
    let bytes: Vec<u8> = floats.iter().map(|x| ((x + 1.0) * 128.0) as u8).collect();
    Tensor::new(dtype, shape, bytes).unwrap()
}

/// `y = x * dequantized w`, a scale and a zero point per column.
fn product(dtype: DType, [m, k, n]: [usize; 3]) -> Net {
    Net::new()
        .input("x", DType::F32, &format!("{m} {k}"))
        .weight("w", &codes(dtype, &[k, n], 3))
        .floats("scale", &[n])
        .weight("zero", &codes(dtype, &[n], 4))
        .node("DequantizeLinear", "w scale zero", "real", &[int("axis", 1)])
        .node("MatMul", "x real", "y", &[])
        .output("y", DType::F32)
}

#[test]
fn a_dequantized_weight_takes_its_own_size() {
    for (dtype, size) in [(DType::I8, [4, 256, 512]), (DType::U8, [4, 64, 64]), (DType::I4, [40, 256, 512])] {
        let plan = product(dtype, size).plan(&Caps::default());
        let [_, k, n] = size;
        let (got, packed) = (constant_bytes(&plan), dtype.size_bytes(k * n));
        // The scales and zero points come on top.
        assert!(got <= (packed + 8 * n) as u64, "{dtype} {size:?}: {got} bytes\n{plan}");
        assert_eq!(plan.steps.len(), 1, "{plan}");
    }
}

/// Compare the device with the CPU's element by element evaluation of the same model.
fn check(net: &Net, input: Tensor, what: &str) {
    let want = net.evaluate(std::slice::from_ref(&input)).unwrap().remove(0);
    let got = net.session().unwrap().run(&[("x", &input)]).unwrap();
    let error = compare::relative_error(&got["y"], &want).unwrap();
    assert!(error < 1e-5, "{what}: {error:.1e}");
}

#[test]
fn packed_weights_give_what_unpacked_ones_give() {
    if support::skip_gpu("packed weights") {
        return;
    }
    use DType::*;
    for dtype in [I8, U8, I16, U16, I4, U4, I2, U2] {
        // Rows of whole words and others, one row and many.
        for size in [[3, 32, 48], [1, 64, 16], [5, 16, 18], [20, 48, 7]] {
            check(&product(dtype, size), made_up(&[size[0], size[1]], 9), &format!("{dtype} {size:?}"));
        }
    }
}

#[test]
fn a_table_read_in_two_ways_stays_packed() {
    let net = Net::new()
        .input("x", DType::I64, "5")
        .weight("w", &codes(DType::I8, &[64, 32], 5))
        .weight("scale", &Tensor::from_slice(&[], &[0.1f32]).unwrap())
        .node("DequantizeLinear", "w scale", "real", &[])
        .node("Gather", "real x", "rows", &[])
        .node("Transpose", "real", "turned", &[])
        .node("MatMul", "rows turned", "y", &[])
        .output("y", DType::F32);
    let plan = net.plan(&Caps::default());
    assert!(constant_bytes(&plan) <= 64 * 32 + 16, "{plan}");
    if !support::skip_gpu("a packed table") {
        check(&net, Tensor::from_slice(&[5], &[0i64, 63, 7, 8, 30]).unwrap(), "table");
    }
}

#[test]
fn a_packed_convolution_gives_what_an_unpacked_one_gives() {
    let net = Net::new()
        .input("x", DType::F32, "1 4 9 9")
        .weight("w", &codes(DType::I8, &[8, 4, 3, 3], 6))
        .floats("scale", &[8])
        .node("DequantizeLinear", "w scale", "real", &[int("axis", 0)])
        .node("Conv", "x real", "y", &[])
        .output("y", DType::F32);
    let plan = net.plan(&Caps::default());
    assert!(constant_bytes(&plan) <= 8 * 4 * 9 + 32, "{plan}");
    if !support::skip_gpu("a packed convolution") {
        check(&net, made_up(&[1, 4, 9, 9], 1), "convolution");
    }
}

/// Weights of `bits` bits in blocks of 16: all constants, as exporters have them.
#[test]
fn products_of_blocks_read_packed_constants() {
    for bits in [2usize, 3, 4, 5, 8] {
        let (n, blocks) = (24, 4);
        let attributes = [
            int("K", 16 * blocks as i64),
            int("N", n as i64),
            int("bits", bits as i64),
            int("block_size", 16),
        ];
        let net = Net::new()
            .input("x", DType::F32, &format!("3 {}", 16 * blocks))
            .weight("w", &codes(DType::U8, &[n, blocks, 2 * bits], 3))
            .floats("scale", &[n, blocks])
            .weight("zero", &codes(DType::U8, &[n, (blocks * bits).div_ceil(8)], 4))
            .node("com.microsoft.MatMulNBits", "x w scale zero", "y", &attributes)
            .output("y", DType::F32);
        let plan = net.plan(&Caps::default());
        let (got, packed) = (constant_bytes(&plan), n * blocks * (2 * bits + 4 + 1));
        assert!(got <= packed as u64, "{bits} bits: {got} bytes, want {packed}\n{plan}");
        if !support::skip_gpu("products of blocks") {
            check(&net, made_up(&[3, 16 * blocks], 9), &format!("{bits} bits"));
        }
    }
}

/// The chosen experts' weights are read from among all, packed.
#[test]
fn experts_read_packed_constants() {
    let [tokens, experts, hidden, inner] = [5usize, 4, 32, 48];
    for bits in [2usize, 4, 8] {
        let attributes = [
            int("k", 2),
            int("expert_weight_bits", bits as i64),
            int("block_size", 16),
            int("normalize_routing_weights", 1),
            text("activation_type", "silu"),
        ];
        let weights = |columns: usize| columns * bits / 8;
        let net = Net::new()
            .input("x", DType::F32, &format!("{tokens} {hidden}"))
            .floats("router", &[hidden, experts])
            .weight("w1", &codes(DType::U8, &[experts, inner, weights(hidden)], 3))
            .floats("scale1", &[experts, inner, hidden / 16])
            .weight("w2", &codes(DType::U8, &[experts, hidden, weights(inner)], 4))
            .floats("scale2", &[experts, hidden, inner / 16])
            .node("MatMul", "x router", "probs", &[])
            .node("com.microsoft.QMoE", "x probs w1 scale1 - w2 scale2", "y", &attributes)
            .output("y", DType::F32);
        let plan = net.plan(&Caps::default());
        let scales = 4 * 2 * experts * inner * hidden / 16 + 4 * hidden * experts;
        let packed = 2 * experts * inner * hidden * bits / 8 + scales;
        let got = constant_bytes(&plan);
        assert!(got <= packed as u64, "{bits} bits: {got} bytes, want {packed}\n{plan}");
        if !support::skip_gpu("experts") {
            check(&net, made_up(&[tokens, hidden], 9), &format!("{bits} bits"));
        }
    }
}

#[test]
fn a_packed_constant_may_be_an_output() {
    if support::skip_gpu("a packed output") {
        return;
    }
    let w = codes(DType::I8, &[8, 16], 3);
    let net = Net::new().input("x", DType::I8, "8 16").weight("w", &w).node("Add", "x w", "y", &[]);
    let net = net.output("y", DType::I8).output("w", DType::I8);
    let zeros = Tensor::from_slice(&[8, 16], &[0i8; 128]).unwrap();
    let got = net.session().unwrap().run(&[("x", &zeros)]).unwrap();
    assert_eq!((&got["y"], &got["w"]), (&w, &w));
}

/// A network's plan at these input shapes, and the bytes that a run of it holds: constants, inputs and arenas.
fn network(graph: &Graph, shapes: &[Vec<usize>]) -> (Plan, u64) {
    let plan = plan(graph, &Known::default(), &Caps::default()).expect("a plan");
    let layout =
        plan.layout(&plan.symbol_values(shapes), &Caps::default(), &Default::default()).expect("a layout");
    let is_held = |t: &usize| !matches!(plan.tensors[*t].origin, Origin::Run);
    let held: u64 = (0..plan.tensors.len()).filter(is_held).map(|t| layout.size_bytes[t]).sum();
    let peak = held + layout.arena_bytes.iter().sum::<u64>();
    (plan, peak)
}

fn open(name: &str) -> Graph {
    tilewright::onnx::open(&support::test_data(&format!("models/{name}.onnx"))).expect("a model")
}

#[test]
fn weights_of_dequantized_networks_take_their_own_size() {
    let all = std::env::var("TILEWRIGHT_MODELS").is_ok_and(|which| which == "all");
    let networks = [("mobilenetv2", vec![vec![1, 3, 224, 224]], true), ("minilm", vec![vec![1, 16]; 3], all)];
    for (name, shapes, _) in networks.into_iter().filter(|(_, _, is_run)| *is_run) {
        let graph = open(&format!("{name}-qdq"));
        let (plan, peak) = network(&graph, &shapes);
        // What counts: the large ones, which the quantized model holds in 8 bits.
        let large: Vec<_> = graph.initializers.values().filter(|w| w.len() >= 1 << 12).collect();
        let codes: usize = large.iter().filter(|w| w.dtype().bits() == 8).map(|w| w.len()).sum();
        assert!(codes > 1 << 20, "{name}: {codes} weights in 8 bits");

        // None is written out as floats when the session starts, and none is uploaded as such.
        let layout = plan
            .layout(&plan.symbol_values(&shapes), &Caps::default(), &Default::default())
            .expect("a layout");
        let mut held = 0;
        for (i, tensor) in plan.tensors.iter().enumerate() {
            match &tensor.origin {
                Origin::Weight(_) => held += layout.size_bytes[i],
                Origin::Once => {
                    assert!(layout.size_bytes[i] < 1 << 12, "{name}: {} is computed", tensor.name)
                }
                Origin::Input(_) | Origin::Run => {}
            }
        }
        let stored: usize = graph.initializers.values().map(|w| w.bytes().len()).sum();
        assert!(held as usize <= stored + 16 * plan.tensors.len(), "{name}: {held} bytes of {stored}");

        // Products and convolutions read the packed words themselves.
        let packed = |t: &usize| {
            matches!(plan.tensors[*t].origin, Origin::Weight(_)) && plan.tensors[*t].dtype == DType::U32
        };
        let is_product = |body: &Body| match body {
            Body::Contract(_) | Body::Conv(_) => true,
            Body::Map { .. }
            | Body::Update { .. }
            | Body::Reduce { .. }
            | Body::Attention(_)
            | Body::TopK(_) => false,
        };
        let steps = plan.steps.iter().filter(|step| is_product(&plan.kernels[step.kernel].spec.body));
        let read: u64 =
            steps.flat_map(|s| s.inputs.iter().filter(|t| packed(t))).map(|t| layout.size_bytes[*t]).sum();
        let tables: usize = match name {
            // Its table of embeddings is read by a map.
            "minilm" => 30522 * 384,
            _ => 0,
        };
        assert!(read as usize + tables >= codes * 99 / 100, "{name}: products read {read} of {codes} bytes");

        let (_, full) = network(&open(name), &shapes);
        let saved = full as i64 - peak as i64;
        assert!(saved >= 2 * codes as i64, "{name}: {peak} bytes at peak, {full} in float32");
        support::say!("{name}: {peak} bytes at peak, {full} in float32");
    }
}
