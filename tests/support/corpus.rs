//! Small models that together use every kernel family, as exporters write them.

use super::net::{Net, float, int, ints, text};
use tilewright::{DType, Tensor};

/// Softmax over the last axis, spelled in primitives: `x` to `name`.
pub fn softmax(net: Net, x: &str, name: &str) -> Net {
    net.node("ReduceMax", &format!("{x} last"), &format!("{name}.max"), &[])
        .node("Sub", &format!("{x} {name}.max"), &format!("{name}.centred"), &[])
        .node("Exp", &format!("{name}.centred"), &format!("{name}.exp"), &[])
        .node("ReduceSum", &format!("{name}.exp last"), &format!("{name}.sum"), &[])
        .node("Div", &format!("{name}.exp {name}.sum"), name, &[])
}

/// LayerNormalization over the last axis of 64, spelled in primitives.
pub fn layer_norm(net: Net, x: &str, name: &str) -> Net {
    net.floats(&format!("{name}.scale"), &[64])
        .floats(&format!("{name}.bias"), &[64])
        .node("ReduceMean", &format!("{x} last"), &format!("{name}.mean"), &[])
        .node("Sub", &format!("{x} {name}.mean"), &format!("{name}.centred"), &[])
        .node("Pow", &format!("{name}.centred two"), &format!("{name}.squares"), &[])
        .node("ReduceMean", &format!("{name}.squares last"), &format!("{name}.variance"), &[])
        .node("Add", &format!("{name}.variance epsilon"), &format!("{name}.padded"), &[])
        .node("Sqrt", &format!("{name}.padded"), &format!("{name}.deviation"), &[])
        .node("Div", &format!("{name}.centred {name}.deviation"), &format!("{name}.normal"), &[])
        .node("Mul", &format!("{name}.normal {name}.scale"), &format!("{name}.scaled"), &[])
        .node("Add", &format!("{name}.scaled {name}.bias"), name, &[])
}

/// Root mean square normalization over the last axis of 64, spelled in primitives.
pub fn rms_norm(net: Net, x: &str, name: &str) -> Net {
    net.floats(&format!("{name}.scale"), &[64])
        .node("Pow", &format!("{x} two"), &format!("{name}.squares"), &[])
        .node("ReduceMean", &format!("{name}.squares last"), &format!("{name}.mean"), &[])
        .node("Add", &format!("{name}.mean epsilon"), &format!("{name}.padded"), &[])
        .node("Sqrt", &format!("{name}.padded"), &format!("{name}.root"), &[])
        .node("Reciprocal", &format!("{name}.root"), &format!("{name}.inverse"), &[])
        .node("Mul", &format!("{x} {name}.inverse"), &format!("{name}.normal"), &[])
        .node("Mul", &format!("{name}.normal {name}.scale"), name, &[])
}

/// GELU by the error function, spelled in primitives.
pub fn gelu(net: Net, x: &str, name: &str) -> Net {
    net.node("Mul", &format!("{x} root_half"), &format!("{name}.small"), &[])
        .node("Erf", &format!("{name}.small"), &format!("{name}.erf"), &[])
        .node("Add", &format!("{name}.erf one"), &format!("{name}.sum"), &[])
        .node("Mul", &format!("{x} {name}.sum"), &format!("{name}.double"), &[])
        .node("Mul", &format!("{name}.double half"), name, &[])
}

/// A model with the constants that these functions use.
pub fn start() -> Net {
    Net::new()
        .list("last", &[-1])
        .scalar("one", 1.0)
        .scalar("two", 2.0)
        .scalar("half", 0.5)
        .scalar("root_half", std::f32::consts::FRAC_1_SQRT_2)
        .scalar("epsilon", 1e-5)
}

/// Self-attention with four heads of 16 over `x [batch, seq, 64]`, shapes computed from the input as exporters do.
pub fn attention() -> Net {
    let mut net = start()
        .input("x", DType::F32, "batch seq 64")
        .weight("at0", &Tensor::from_slice(&[], &[0i64]).unwrap())
        .weight("at1", &Tensor::from_slice(&[], &[1i64]).unwrap())
        .list("axis0", &[0])
        .list("heads", &[4])
        .list("width", &[16])
        .list("whole", &[64])
        .scalar("quarter", 0.25)
        .node("Shape", "x", "shape", &[])
        .node("Gather", "shape at0", "batch", &[int("axis", 0)])
        .node("Gather", "shape at1", "seq", &[int("axis", 0)])
        .node("Unsqueeze", "batch axis0", "batch1", &[])
        .node("Unsqueeze", "seq axis0", "seq1", &[])
        .node("Concat", "batch1 seq1 heads width", "split", &[int("axis", 0)])
        .node("Concat", "batch1 seq1 whole", "joined", &[int("axis", 0)]);
    for (name, order) in [("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])] {
        net = net
            .floats(&format!("{name}.weight"), &[64, 64])
            .floats(&format!("{name}.bias"), &[64])
            .node("MatMul", &format!("x {name}.weight"), &format!("{name}.product"), &[])
            .node("Add", &format!("{name}.bias {name}.product"), &format!("{name}.biased"), &[])
            .node("Reshape", &format!("{name}.biased split"), &format!("{name}.split"), &[])
            .node("Transpose", &format!("{name}.split"), name, &[ints("perm", &order)]);
    }
    net = net.node("MatMul", "q k", "scores", &[]).node("Mul", "scores quarter", "scaled", &[]);
    net = softmax(net, "scaled", "weights");
    net.floats("o.weight", &[64, 64])
        .floats("o.bias", &[64])
        .node("MatMul", "weights v", "mixed", &[])
        .node("Transpose", "mixed", "turned", &[ints("perm", &[0, 2, 1, 3])])
        .node("Reshape", "turned joined", "together", &[])
        .node("MatMul", "together o.weight", "projected", &[])
        .node("Add", "projected o.bias", "biased", &[])
        .node("Add", "biased x", "y", &[])
        .output("y", DType::F32)
}

/// Attention of one key head for all query heads, in halves, with a mask and sizes that divide by nothing.
pub fn masked_attention() -> Net {
    Net::new()
        .input("q", DType::F16, "3 queries 20")
        .input("k", DType::F16, "1 20 keys")
        .input("v", DType::F16, "1 keys 9")
        .input("mask", DType::Bool, "queries keys")
        .weight("hidden", &Tensor::from_slice(&[], &[half::f16::NEG_INFINITY]).unwrap())
        .node("MatMul", "q k", "scores", &[])
        .node("Where", "mask scores hidden", "masked", &[])
        .node("Softmax", "masked", "weights", &[int("axis", -1)])
        .node("MatMul", "weights v", "y", &[])
        .output("y", DType::F16)
}

/// LayerNormalization in primitives, then a dense layer with GELU.
pub fn feed_forward() -> Net {
    let net = layer_norm(start().input("x", DType::F32, "batch seq 64"), "x", "norm")
        .floats("up", &[64, 256])
        .floats("up.bias", &[256])
        .node("MatMul", "norm up", "product", &[])
        .node("Add", "product up.bias", "biased", &[]);
    gelu(net, "biased", "y").output("y", DType::F32)
}

/// Convolution, batch normalization, a residual, ReLU.
pub fn residual_block() -> Net {
    let mut net = Net::new()
        .input("x", DType::F32, "n 8 h w")
        .floats("kernel", &[8, 8, 3, 3])
        .floats("shift", &[8])
        .floats("mean", &[8])
        .weight(
            "variance",
            &Tensor::from_slice(&[8], &[0.5f32, 1.0, 1.5, 2.0, 0.25, 0.75, 1.25, 3.0]).unwrap(),
        );
    net = net.floats("scale", &[8]);
    net.node("Conv", "x kernel", "conv", &[ints("pads", &[1, 1, 1, 1])])
        .node("BatchNormalization", "conv scale shift mean variance", "normal", &[])
        .node("Add", "normal x", "sum", &[])
        .node("Relu", "sum", "y", &[])
        .output("y", DType::F32)
}

/// A product of bytes, quantized as it runs, with weights of as many columns as `n`.
pub fn dynamic_product(n: usize) -> Net {
    Net::new()
        .input("x", DType::F32, "batch 64")
        .weight("w", &Tensor::new(DType::I8, &[64, n], vec![7u8; 64 * n]).unwrap())
        .node("DynamicQuantizeLinear", "x", "codes scale zero", &[])
        .node("MatMulInteger", "codes w zero", "sums", &[])
        .node("Cast", "sums", "whole", &[int("to", 1)])
        .node("Mul", "whole scale", "y", &[])
        .output("y", DType::F32)
}

/// A convolution of 6 channels of bytes between QuantizeLinear and DequantizeLinear, as ONNX Runtime's tools have it.
pub fn quantized_conv() -> Net {
    let byte = |value: u8| Tensor::new(DType::U8, &[], vec![value]).unwrap();
    Net::new()
        .input("x", DType::F32, "n 6 9 9")
        .scalar("scale", 0.02)
        .weight("zero", &byte(120))
        .weight("w", &Tensor::new(DType::I8, &[8, 6, 3, 3], vec![7u8; 432]).unwrap())
        .floats("w_scale", &[8])
        .node("QuantizeLinear", "x scale zero", "codes", &[])
        .node("DequantizeLinear", "codes scale zero", "real", &[])
        .node("DequantizeLinear", "w w_scale", "kernel", &[int("axis", 0)])
        .node("Conv", "real kernel", "conv", &[ints("pads", &[1, 1, 1, 1])])
        .node("QuantizeLinear", "conv scale zero", "y", &[])
        .output("y", DType::U8)
}

/// One convolution, `batch normalization`, ReLU.
pub fn conv_bn_relu() -> Net {
    Net::new()
        .input("x", DType::F32, "n 3 h w")
        .floats("kernel", &[8, 3, 3, 3])
        .floats("scale", &[8])
        .floats("shift", &[8])
        .floats("mean", &[8])
        .weight("variance", &Tensor::from_slice(&[8], &[1.0f32; 8]).unwrap())
        .node("Conv", "x kernel", "conv", &[ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])])
        .node("BatchNormalization", "conv scale shift mean variance", "normal", &[])
        .node("Relu", "normal", "y", &[])
        .output("y", DType::F32)
}

fn one(op: &str, dtype: DType, dims: &[&str], attributes: &[super::net::Attribute]) -> Net {
    let mut net = Net::new();
    let mut inputs = Vec::new();
    for (i, dims) in dims.iter().enumerate() {
        net = net.input(&format!("x{i}"), dtype, dims);
        inputs.push(format!("x{i}"));
    }
    net.node(op, &inputs.join(" "), "y", attributes).output("y", dtype)
}

/// Named models for checks of what is rendered: every family, sizes that are and are not multiples of four, static
/// and symbolic, operands turned and strided, and all dtypes that have a form on the device.
pub fn models() -> Vec<(String, Net)> {
    let mut all: Vec<(String, Net)> = vec![
        ("attention".into(), attention()),
        ("attention with a mask".into(), masked_attention()),
        ("feed forward".into(), feed_forward()),
        ("residual block".into(), residual_block()),
        ("conv bn relu".into(), conv_bn_relu()),
        ("quantized conv".into(), quantized_conv()),
        ("dynamic product".into(), dynamic_product(48)),
        ("dynamic product with a tail".into(), dynamic_product(37)),
        ("rms norm".into(), {
            rms_norm(start().input("x", DType::F32, "batch seq 64"), "x", "y").output("y", DType::F32)
        }),
    ];
    let mut add = |name: String, net: Net| all.push((name, net));
    let floats = [DType::F32, DType::F16, DType::BF16];
    let numbers =
        [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::I64, DType::U8, DType::I8];
    for dtype in numbers {
        for dims in [["7 13"; 2], ["16 8"; 2], ["n 1", "1 m"], ["n 12", "12"]] {
            add(format!("Add {dtype} {dims:?}"), one("Add", dtype, &dims, &[]));
        }
        for (perm, dims) in [([1, 0], "5 n"), ([1, 0], "8 16")] {
            let net = one("Transpose", dtype, &[dims], &[ints("perm", &perm)]);
            add(format!("Transpose {dtype} {dims}"), net);
        }
        for dims in ["5 33", "n 64", "n m"] {
            let net = one("ReduceMax", dtype, &[dims], &[]).list("axes", &[1]);
            let mut net = net;
            net.0.node[0].input.push("axes".into());
            add(format!("ReduceMax {dtype} {dims}"), net);
        }
        for dims in
            [["5 7", "7 9"], ["16 8", "8 12"], ["n 64", "64 32"], ["b n k", "b k m"], ["1 64", "64 128"]]
        {
            add(format!("MatMul {dtype} {dims:?}"), one("MatMul", dtype, &dims, &[]));
        }
    }
    for dtype in floats {
        for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (x, w) = (if a == 1 { "12 n" } else { "n 12" }, if b == 1 { "20 12" } else { "12 20" });
            let attributes = [int("transA", a), int("transB", b), float("alpha", 0.5)];
            add(format!("Gemm {dtype} {a}{b}"), one("Gemm", dtype, &[x, w, "20"], &attributes));
        }
        for dims in ["n 30", "6 n", "2 3 4 1000"] {
            add(format!("Softmax {dtype} {dims}"), one("Softmax", dtype, &[dims], &[int("axis", -1)]));
        }
        add(format!("Softmax middle {dtype}"), one("Softmax", dtype, &["n 8 5"], &[int("axis", 1)]));
        for (group, dims) in [
            (1, ["n 8 9 9", "6 8 3 3", "6"]),
            (8, ["1 8 h w", "8 1 3 3", "8"]),
            (2, ["2 4 5 8", "6 2 1 1", "6"]),
        ] {
            let attributes = [int("group", group), ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 1])];
            add(format!("Conv {dtype} group {group}"), one("Conv", dtype, &dims, &attributes));
        }
        let pool = [ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])];
        add(format!("MaxPool {dtype}"), one("MaxPool", dtype, &["n 4 h w"], &pool));
        add(format!("AveragePool {dtype}"), one("AveragePool", dtype, &["n 4 9 8"], &pool));
        add(
            format!("InstanceNormalization {dtype}"),
            one("InstanceNormalization", dtype, &["n 4 5 6", "4", "4"], &[]),
        );
    }
    for mode in ["constant", "reflect", "edge", "wrap"] {
        let net = one("Pad", DType::F32, &["n 9"], &[text("mode", mode)]).list("pads", &[0, 2, 0, 3]);
        let mut net = net;
        net.0.node[0].input.push("pads".into());
        add(format!("Pad {mode}"), net);
    }
    for (data, indices) in [("30 16", "n m"), ("n 7", "3"), ("5", "n")] {
        let net = Net::new().input("x", DType::F32, data).input("i", DType::I64, indices);
        add(format!("Gather {data}"), net.node("Gather", "x i", "y", &[]).output("y", DType::F32));
    }
    let net =
        Net::new().input("c", DType::Bool, "n 1").input("a", DType::F32, "n 6").input("b", DType::F32, "6");
    add("Where".into(), net.node("Where", "c a b", "y", &[]).output("y", DType::F32));
    let net = Net::new()
        .input("x", DType::F32, "n 10")
        .list("s", &[8])
        .list("e", &[-20])
        .list("a", &[1])
        .list("p", &[-3]);
    add("Slice back".into(), net.node("Slice", "x s e a p", "y", &[]).output("y", DType::F32));
    for to in
        [DType::F8E4M3FN, DType::F8E5M2, DType::F16, DType::I8, DType::U8, DType::I4, DType::Bool, DType::I64]
    {
        let net = Net::new().input("x", DType::F32, "n 5").node(
            "Cast",
            "x",
            "y",
            &[int("to", to.to_onnx() as i64)],
        );
        add(format!("Cast to {to}"), net.output("y", to));
        let net = Net::new().input("x", to, "n 5").node("Cast", "x", "y", &[int("to", 1)]);
        add(format!("Cast from {to}"), net.output("y", DType::F32));
    }
    all
}
