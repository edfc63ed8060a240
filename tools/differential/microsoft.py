"""The operators of com.microsoft."""

import math

import numpy as np

from draw import F32, I8, I32, I64, U8, op, window


@op("com.microsoft.FusedConv")
def _(d):
    kernel, size, attributes = window(d, 2)
    inner, outer = d.int(1, 3), d.int(1, 3)
    inputs = [d.tensor([d.int(1, 2), inner, *size]), d.tensor([outer, inner, *kernel]), d.tensor([outer])]
    activation = d.of([("Relu", []), ("Tanh", []), ("Sigmoid", []), ("LeakyRelu", [0.25]), ("Clip", [-1.0, 2.0])])
    if activation[1]:
        attributes["activation_params"] = activation[1]
    return inputs, {"activation": activation[0], **attributes}


@op("com.microsoft.Attention")
def _(d):
    batch, length, heads, size, width = d.int(1, 2), d.int(1, 5), d.int(1, 3), d.int(1, 4), d.int(1, 6)
    hidden = heads * size
    x, w = d.tensor([batch, length, width], low=-1, high=1), d.tensor([width, 3 * hidden], low=-1, high=1)
    keys = d.rng.integers(0, 2, [batch, length]).astype(I32)
    keys[:, 0] = 1
    ends = d.rng.integers(1, length + 1, [batch]).astype(I32)
    begins = (d.rng.random(batch) * ends).astype(I32)
    masks = [ends, np.concatenate([ends, begins]), keys]
    mask = [d.of(masks)] if d.bool() else []
    return [x, w, d.tensor([3 * hidden]), *mask], {"num_heads": heads, "unidirectional": 0 if mask else d.int(0, 1)}


@op("com.microsoft.MultiHeadAttention")
def _(d):
    batch, heads, size = d.int(1, 2), d.int(1, 3), d.int(1, 4)
    queries, keys = d.int(1, 5), d.int(1, 5)
    shapes = [[batch, n, heads * size] for n in (queries, keys, keys)]
    return [d.tensor(s, low=-1, high=1) for s in shapes], {"num_heads": heads}


@op("com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization")
def _(d):
    shape = d.full(3, 3)
    vectors = [d.tensor(shape[-1:]) for _ in range(2 if "Simplified" not in d.name else 1)]
    return [d.tensor(shape), d.tensor(shape), *vectors], {"epsilon": 1e-2}


@op("com.microsoft.BiasGelu", "com.microsoft.FastGelu")
def _(d):
    shape = d.full(1, 3)
    return [d.tensor(shape), d.tensor(shape[-1:])], {}


@op("com.microsoft.QuickGelu")
def _(d):
    return [d.tensor(d.shape())], {"alpha": 1.5}


@op("com.microsoft.FusedMatMul")
def _(d):
    m, k, n = d.int(1, d.limit), d.int(1, d.limit), d.int(1, d.limit)
    ta, tb, batch = d.int(0, 1), d.int(0, 1), d.full(1, 2) if d.bool() else []
    a, b = [k, m] if ta else [m, k], [n, k] if tb else [k, n]
    attributes = {"transA": ta, "transB": tb, "alpha": 0.5}

    def batched(shape, name):
        """The batch before the matrix, or between its axes."""
        attributes[name] = int(bool(batch) and d.bool())
        return [shape[0], *batch, shape[1]] if attributes[name] else [*batch, *shape]

    return [d.tensor(batched(a, "transBatchA")), d.tensor(batched(b, "transBatchB"))], attributes


@op("com.microsoft.MatMulNBits")
def _(d):
    n, k, block = d.int(1, 2 * d.limit), 32 * d.int(1, 3), d.of([16, 32])
    blocks = -(-k // block)
    x, b = d.tensor([d.int(1, 4), k]), d.rng.integers(0, 256, [n, blocks, block // 2]).astype(U8)
    zeros = [d.rng.integers(0, 256, [n * -(-blocks // 2)]).astype(U8)] if d.bool() else []
    scales = d.tensor([n * blocks], low=0.1, high=1)
    return [x, b, scales, *zeros], {"K": k, "N": n, "bits": 4, "block_size": block}


@op("com.microsoft.Gelu")
def _(d):
    return [d.tensor(d.shape())], {}


@op("com.microsoft.RotaryEmbedding")
def _(d):
    batch, heads, length, half = d.int(1, 2), d.int(1, 3), d.int(1, 4), d.int(1, 3)
    caches = [d.tensor([8, half], low=-1, high=1) for _ in range(2)]
    positions = d.rng.integers(0, 8, [batch, length]).astype(I64)
    return [d.tensor([batch, heads, length, 2 * half]), positions, *caches], {"interleaved": d.int(0, 1)}


@op("com.microsoft.EmbedLayerNormalization")
def _(d):
    batch, length, size = d.int(1, 2), d.int(1, 4), d.int(1, 2 * d.limit)
    ids, segments = (d.rng.integers(0, n, [batch, length]).astype(I32) for n in (6, 2))
    tables = [d.tensor([n, size]) for n in (6, 4, 2)]
    mask = [np.sort(d.rng.integers(0, 2, [batch, length]).astype(I32))[:, ::-1].copy()] if d.bool() else []
    return [ids, segments, *tables, d.tensor([size]), d.tensor([size]), *mask], {"epsilon": 1e-2}, 2


@op("com.microsoft.GroupQueryAttention")
def _(d):
    # ONNX Runtime wants head sizes that are multiples of 8, and of 16 with rotary embeddings.
    batch, kv, group, size = d.int(1, 2), d.int(1, 2), d.int(1, 2), 16
    past = d.int(0, 4)
    new = 1 if past else d.int(1, 4)
    lengths = d.rng.integers(0, past + 1, [batch]) if past else np.full(batch, new - 1)
    lengths[0] = past + new - 1
    shapes = [[batch, new, h * size] for h in (kv * group, kv, kv)]
    q, k, v = (d.tensor(shape, low=-1, high=1) for shape in shapes)
    # Sometimes the caches have room for what is to come.
    room = past + new + d.int(0, 2) if d.bool() else past
    caches = [d.tensor([batch, kv, room, size], low=-1, high=1) for _ in range(2)]
    rotary = d.int(0, 1)
    tables = [d.tensor([8, size // 2], low=-1, high=1) for _ in range(2)] if rotary else []
    attributes = {"num_heads": kv * group, "kv_num_heads": kv, "do_rotary": rotary}
    if rotary:
        attributes["rotary_interleaved"] = d.int(0, 1)
    if d.bool():
        attributes["local_window_size"] = d.int(1, 4)
    if d.bool():
        attributes["softcap"] = 2.0
    total = np.array(past + new, I32)
    sinks = d.int(0, 3)
    if sinks == 1:
        attributes["smooth_softmax"] = 1
    if sinks == 2:
        tables += [None] * (4 - len(tables)) + [d.tensor([kv * group])]
    # What lies behind a row's own keys in the new caches is left open.
    d.compared = 3 if batch == 1 and room == past else 1
    return [q, k, v, *caches, lengths.astype(I32), total, *tables], attributes, 3


@op("com.microsoft.GatherBlockQuantized")
def _(d):
    rows, blocks, bits = d.int(1, 2 * d.limit), d.int(1, 3), d.of([2, 4, 8])
    data = d.codes([rows, blocks * 16 * bits // 8], U8)
    zeros = d.codes([rows, -(-blocks * bits // 8)], U8) if d.bool() else None
    indices = d.rng.integers(-rows, rows, d.full(1, 2)).astype(d.of([I32, I64]))
    attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": 16, "bits": bits}
    return [data, indices, d.tensor([rows, blocks], low=0.1, high=1), zeros], attributes


def router(d, tokens, experts):
    """No two numbers of a token are equal."""
    return np.stack([d.rng.permutation(experts) for _ in range(tokens)]).astype(F32) * F32(0.75)


@op("com.microsoft.MoE")
def _(d):
    tokens, experts, hidden, inner = d.int(1, 12), d.int(1, 4), d.int(1, 2 * d.limit), d.int(1, 2 * d.limit)
    name = d.of(["relu", "gelu", "silu", "identity", "swiglu"])
    fused = 2 if name == "swiglu" else 1
    first = [d.tensor([experts, fused * inner, hidden], low=-1, high=1), d.tensor([experts, fused * inner])]
    second = [d.tensor([experts, hidden, inner], low=-1, high=1), d.tensor([experts, hidden])]
    attributes = {"activation_type": name, "k": d.int(1, experts), "normalize_routing_weights": d.int(0, 1)}
    if fused == 2:
        attributes.update(swiglu_fusion=1, activation_alpha=1.5, activation_beta=1.0, swiglu_limit=2.0)
    return [d.tensor([tokens, hidden], low=-1, high=1), router(d, tokens, experts), *first, *second], attributes


@op("com.microsoft.QMoE")
def _(d):
    tokens, experts, hidden, inner = d.int(1, 5), d.int(1, 4), 16 * d.int(1, 2), 16 * d.int(1, 2)
    name, bits, block = d.of(["relu", "silu", "swiglu"]), d.of([2, 4]), d.of([0, 16])
    fused = 2 if name == "swiglu" else 1

    def layer(rows, columns):
        blocks = [columns // block] if block else []
        scales = d.tensor([experts, rows, *blocks], low=0.02, high=0.1)
        return [d.codes([experts, rows, columns * bits // 8], U8), scales, d.tensor([experts, rows])]

    # ONNX Runtime normalizes on the CPU whatever the attribute says.
    attributes = {"activation_type": name, "k": d.int(1, experts), "normalize_routing_weights": 1}
    attributes.update({"block_size": block} if block else {}, expert_weight_bits=bits)
    if fused == 2:
        attributes["swiglu_fusion"] = 1
    x = d.tensor([tokens, hidden], low=-1, high=1)
    return [x, router(d, tokens, experts), *layer(fused * inner, hidden), *layer(hidden, inner)], attributes


@op("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul")
def _(d):
    a, b = d.pair(U8)
    return [a, F32(0.125), U8(30), b, F32(0.25), U8(3), F32(0.4375), U8(99)], {}


@op("com.microsoft.QLinearSigmoid", "com.microsoft.QLinearLeakyRelu")
def _(d):
    attributes = {"alpha": 0.25} if d.name.endswith("Relu") else {}
    return [d.codes(d.shape(), U8), F32(0.0625), U8(128), F32(0.03125), U8(3)], attributes


@op("com.microsoft.QLinearGlobalAveragePool")
def _(d):
    return [d.codes(d.full(3, 4), U8), F32(0.125), U8(30), F32(0.21875), U8(99)], {"channels_last": d.int(0, 1)}


@op("com.microsoft.QLinearConcat")
def _(d):
    shape = d.full(1, 3)
    axis, parts = d.int(0, len(shape) - 1), []
    for i in range(d.int(1, 3)):
        shape[axis] = d.int(1, d.limit)
        parts += [d.codes(shape, U8), F32(0.125 * (i + 1)), U8(30 * i)]
    return [F32(0.3125), U8(9), *parts], {"axis": axis}


@op("com.microsoft.QGemm")
def _(d):
    m, k, n = d.int(1, d.limit), d.int(1, 2 * d.limit), d.int(1, d.limit)
    ta, tb = d.int(0, 1), d.int(0, 1)
    a, b = [k, m] if ta else [m, k], [n, k] if tb else [k, n]
    c = d.rng.integers(-99, 100, [n]).astype(I32) if d.bool() else None
    y = [F32(2.5), U8(99)] if d.bool() else []
    inputs = [d.codes(a, U8), F32(0.125), U8(3), d.codes(b, I8), d.tensor([n], low=0.1, high=0.5), np.zeros(n, I8)]
    return [*inputs, c, *y], {"transA": ta, "transB": tb}


def gelu(x):
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@op("com.microsoft.BiasAdd", formula=lambda x, _: [x[0] + x[1] + x[2]])
def _(d):
    shape = d.full(3, 3)
    return [d.tensor(shape), d.tensor(shape[-1:]), d.tensor(shape)], {}


@op("com.microsoft.BiasSplitGelu", formula=lambda x, _: [np.multiply(*(f(h) for f, h in zip((np.array, gelu), np.split(x[0] + x[1], 2, -1))))])
def _(d):
    shape = d.full(3, 3)
    shape[-1] *= 2
    return [d.tensor(shape), d.tensor(shape[-1:])], {}


def group_norm(x, attributes):
    """`[batch, height, width, channels]`, normalised over the positions and channels of each group."""
    added = x[0] + sum((a if a.ndim == 4 else a.reshape(-1, 1, 1, a.shape[-1]) for a in x[3:]), 0.0)
    grouped = added.reshape(*added.shape[:3], attributes["groups"], -1)
    mean, deviation = (f(grouped, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    y = ((grouped - mean) / np.sqrt(deviation + attributes["epsilon"])).reshape(added.shape) * x[1] + x[2]
    return [y / (1 + np.exp(-y)) if attributes["activation"] else y, added]


@op("com.microsoft.GroupNorm", "com.microsoft.SkipGroupNorm", formula=group_norm)
def _(d):
    groups = d.int(1, 3)
    channels = groups * d.int(1, 3)
    shape = [d.int(1, 2), d.int(1, d.limit), d.int(1, d.limit), channels]
    inputs = [d.tensor(shape), d.tensor([channels]), d.tensor([channels])]
    attributes = {"groups": groups, "epsilon": 1e-2, "activation": d.int(0, 1)}
    if d.name.endswith("SkipGroupNorm"):
        return [*inputs, d.tensor(shape), d.tensor([channels])], attributes, 2
    return inputs, attributes


@op("com.microsoft.SimplifiedLayerNormalization", formula=lambda x, a: [x[0] / np.sqrt((x[0] ** 2).mean(-1, keepdims=True) + a["epsilon"]) * x[1]])
def _(d):
    shape = d.full(2, 4)
    return [d.tensor(shape), d.tensor(shape[-1:])], {"axis": -1, "epsilon": 1e-2}
