"""The operators of com.microsoft."""

import math

import ml_dtypes
import numpy as np

from draw import F32, F64, I8, I32, I64, U8, op, window


@op("com.microsoft.FusedConv")
def _(d):
    kernel, size, attributes = window(d, 2)
    inner, outer = d.int(1, 3), d.int(1, 3)
    inputs = [d.tensor([d.int(1, 2), inner, *size]), d.tensor([outer, inner, *kernel]), d.tensor([outer])]
    activation = d.of([("Relu", []), ("Tanh", []), ("Sigmoid", []), ("LeakyRelu", [0.25]), ("Clip", [-1.0, 2.0])])
    if activation[1]:
        attributes["activation_params"] = activation[1]
    return inputs, {"activation": activation[0], **attributes}


def softmaxed(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def heads(x, count):
    """`[batch, length, heads * size]` as `[batch, heads, length, size]`."""
    return x.reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)


def halves_turned(x, first, width):
    """The first `width` elements of a head turned in halves, by angles of base 10000."""
    half = width // 2
    angle = (first + np.arange(x.shape[-2]))[:, None] / 10000.0 ** (np.arange(half) / half)
    a, b = x[..., :half], x[..., half:width]
    turned = [a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)]
    return np.concatenate([*turned, x[..., width:]], -1)


def projected(inputs, attributes):
    """com.microsoft.Attention with a mask per pair of positions, a shared buffer and rotary embeddings."""
    x, w, bias, mask, past, _, held = (*inputs, *[None] * 7)[:7]
    q, k, v = (heads(part, attributes["num_heads"]) for part in np.split(x @ w + bias, 3, -1))
    new, before = x.shape[1], int(held.item()) if held is not None else 0
    if attributes.get("do_rotary"):
        width = attributes.get("rotary_embedding_dim", q.shape[-1])
        q, k = halves_turned(q, before, width), halves_turned(k, before, width)
    present = np.stack([k, v]) if past is None else past.copy()
    present[:, :, :, before : before + new] = np.stack([k, v])
    k, v = present[:, :, :, : before + new]
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores + np.where(mask[:, :, before : before + new, : before + new] > 0, 0, -10000.0)
    if attributes["unidirectional"]:
        scores = np.where(np.arange(before + new) <= before + np.arange(new)[:, None], scores, -np.inf)
    return [(softmaxed(scores) @ v).swapaxes(1, 2).reshape(*x.shape[:2], -1), present]


@op("com.microsoft.Attention")
def _(d):
    batch, length, count, size, width = d.int(1, 2), d.int(1, 5), d.int(1, 3), 2 * d.int(1, 3), d.int(1, 6)
    hidden = count * size
    x, w = d.tensor([batch, length, width], low=-1, high=1), d.tensor([width, 3 * hidden], low=-1, high=1)
    attributes = {"num_heads": count, "unidirectional": d.int(0, 1)}
    inputs = [x, w, d.tensor([3 * hidden])]
    if d.bool():
        # ONNX Runtime has these on no CPU.
        d.formula, attributes["do_rotary"] = projected, d.int(0, 1)
        if d.bool():
            attributes["rotary_embedding_dim"] = 2 * d.int(1, size // 2)
        before, room = d.int(0, 3), d.int(0, 2)
        total = before + length + room
        mask = d.rng.integers(0, 2, [batch, 1, total + 1, total + 1]).astype(I32) if d.bool() else None
        if mask is not None:
            mask[..., 0] = 1
        attributes["past_present_share_buffer"] = 1
        past = d.tensor([2, batch, count, total, size], low=-1, high=1)
        return [*inputs, mask, past, None, np.array([before], I32)], attributes, 2
    keys = d.rng.integers(0, 2, [batch, length]).astype(I32)
    keys[:, 0] = 1
    ends = d.rng.integers(1, length + 1, [batch]).astype(I32)
    begins = (d.rng.random(batch) * ends).astype(I32)
    masks = [ends, np.concatenate([ends, begins]), keys, np.zeros([batch, 1], I32)]
    mask = [d.of(masks)] if d.bool() else []
    attributes["unidirectional"] *= not mask
    return [*inputs, *mask], attributes


@op("com.microsoft.MultiHeadAttention")
def _(d):
    width, count, size = d.int(1, 2), d.int(1, 3), d.int(1, 4)
    batch, queries, past = width * d.int(1, 2), d.int(1, 5), d.int(0, 3)
    cached = d.int(0, 2)
    if cached == 2:
        queries = 1
    keys = queries if cached else d.int(1, 5)
    shapes = [[batch, n, count * size] for n in (queries, keys, keys)]
    total = keys + (past if cached else 0)
    # Of beams, ONNX Runtime takes the bias of another batch than the schema says.
    biases = 1 if cached == 2 else d.of([1, batch])
    bias = d.tensor([biases, d.of([1, count]), queries, total], low=-1, high=1) if d.bool() else None
    mask = d.rng.integers(0, 2, [batch, total]).astype(I32) if cached < 2 and d.bool() else None
    inputs = [*(d.tensor(s, low=-1, high=1) for s in shapes), d.tensor([3 * count * size]), mask, bias]
    attributes = {"num_heads": count, "unidirectional": d.int(0, 1) if cached else 0}
    if cached:
        room = total + d.int(0, 2)
        inputs += [d.tensor([batch, count, room, size], low=-1, high=1) for _ in range(2)]
        inputs.append(np.array([past], I32))
    if cached == 2:
        inputs.append(d.rng.integers(0, width, [batch // width, width, room]).astype(I32))
    return inputs, attributes, 3 if cached else 1


@op("com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization")
def _(d):
    shape = d.full(3, 3)
    vectors = [d.tensor(shape[-1:]) for _ in range(2 if "Simplified" not in d.name else 1)]
    skip = d.of([shape, shape[1:], [1, *shape[1:]]]) if "Simplified" not in d.name else shape
    bias = [d.tensor(shape[-1:])] if d.bool() else []
    if d.bool() and shape[-1] > 2:
        # Small enough to show the default epsilon.
        inputs = [d.tensor(shape, low=1, high=2) / F32(1024), d.tensor(skip, low=1, high=2) / F32(1024)]
        return [*inputs, *vectors], {}
    inputs = [d.tensor(shape), d.tensor(skip), *vectors, *bias]
    if d.bool():
        return inputs, {"epsilon": 1e-2}
    d.compared = [0, 3]
    return inputs, {"epsilon": 1e-2}, 4


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
    if d.int(0, 7) == 0:
        # A projection that is left out.
        empty = [b[:0], d.tensor([0, blocks]), None, None, d.tensor([n])]
        return [x, *empty], {"K": k, "N": n, "bits": 4, "block_size": block}
    scales = d.tensor([n * blocks], low=0.1, high=1)
    return [x, b, scales, *zeros], {"K": k, "N": n, "bits": 4, "block_size": block}


@op("com.microsoft.Gelu")
def _(d):
    return [d.tensor(d.shape())], {}


@op("com.microsoft.RotaryEmbedding")
def _(d):
    batch, heads, length, half = d.int(1, 2), d.int(1, 3), d.int(1, 4), d.int(1, 3)
    caches = [d.tensor([8, half], low=-1, high=1) for _ in range(2)]
    positions = d.rng.integers(0, 8, [batch, length]).astype(I64) if d.bool() else np.array([d.int(0, 4)], I64)
    attributes = {"interleaved": d.int(0, 1), "scale": 2.0}
    if d.bool():
        # A part of each head, which lie side by side.
        attributes.update(num_heads=heads, rotary_embedding_dim=2 * half)
        return [d.tensor([batch, length, heads * (2 * half + d.int(1, 3))]), positions, *caches], attributes
    return [d.tensor([batch, heads, length, 2 * half]), positions, *caches], attributes


@op("com.microsoft.EmbedLayerNormalization")
def _(d):
    batch, length, size = d.int(1, 2), d.int(1, 4), d.int(1, 2 * d.limit)
    ids, segments = (d.rng.integers(0, n, [batch, length]).astype(I32) for n in (6, 2))
    tables = [d.tensor([n, size]) for n in (6, 4, 2)]
    mask = [np.sort(d.rng.integers(0, 2, [batch, length]).astype(I32))[:, ::-1].copy()] if d.bool() else []
    return [ids, segments, *tables, d.tensor([size]), d.tensor([size]), *mask], {"epsilon": 1e-2}, 2


def grouped(inputs, attributes):
    """com.microsoft.GroupQueryAttention, causal, of one batch or a prompt, with norms of heads or a cache of float8."""
    count, groups = attributes["kv_num_heads"], attributes["num_heads"] // attributes["kv_num_heads"]
    q, k, v = (heads(x, n) for x, n in zip(inputs, [groups * count, count, count]))
    options = [*inputs, *[None] * 10]

    def norm(x, weight, epsilon):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weight

    if options[14] is not None:
        shared = attributes["qk_norm_epsilon"]
        q = norm(q, options[14], attributes.get("q_norm_epsilon", shared))
        k = norm(k, options[15], shared)

    def cached(past, new, scale):
        if past is None:
            return new
        rounded = (new / scale).astype(F32).astype(ml_dtypes.float8_e4m3fn).astype(F64)
        before = int(inputs[6]) - new.shape[2]
        return np.concatenate([past[:, :, :before], rounded], 2) * scale

    k, v = cached(options[3], k, options[12]), cached(options[4], v, options[13])
    each = q @ np.repeat(k, groups, 1).swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    own = k.shape[2] - q.shape[2] + np.arange(q.shape[2])
    y = softmaxed(np.where(np.arange(k.shape[2]) <= own[:, None], each, -np.inf)) @ np.repeat(v, groups, 1)
    return [y.swapaxes(1, 2).reshape(inputs[0].shape), k, v]


@op("com.microsoft.GroupQueryAttention")
def _(d):
    # ONNX Runtime wants head sizes that are multiples of 8, and of 16 with rotary embeddings.
    batch, kv, group, size = d.int(1, 2), d.int(1, 2), d.int(1, 2), 16
    past, new = d.int(0, 6), d.int(1, 4)
    kind = d.of(["plain", "plain", "codes", "window", "chunks", "norms", "float8"])
    if kind == "norms":
        past = 0
    if kind == "float8":
        batch = 1
    if past and kind != "chunks" and new > 1:
        batch = 1
    lengths = d.rng.integers(0, past + 1, [batch]) if past and kind != "chunks" else np.full(batch, 0)
    lengths += new - 1
    lengths[0] = past + new - 1
    if past == 0:
        lengths[:] = new - 1
    total = past + new
    shapes = [[batch, new, h * size] for h in (kv * group, kv, kv)]
    inputs = [d.tensor(shape, low=-1, high=1) for shape in shapes]
    if d.int(0, 3) == 0 and kind not in ["norms", "float8"]:
        inputs = [np.concatenate(inputs, -1), None, None]
    # Sometimes the caches have room for what is to come.
    room = total + d.int(0, 2) if d.bool() or kind == "chunks" else past
    attributes = {"num_heads": kv * group, "kv_num_heads": kv, "do_rotary": d.int(0, 1)}
    options = [None] * 10
    if kind == "window":
        attributes.update(sliding_window_cache=1, local_window_size=d.int(1, 4))
        room = attributes["local_window_size"] + d.int(0, 2)
    elif d.bool():
        attributes["local_window_size"] = d.int(1, 4)
    elif d.int(0, 3) == 0 and kind != "chunks":
        attributes["causal"] = 0
    if kind == "codes":
        few, each = d.int(0, 1), d.int(0, 1)
        shape = [batch, kv, room, size // 2 if few else size]
        caches = [d.codes(shape, U8 if few else I8) for _ in range(2)]
        for i in (5, 6):
            options[i] = d.tensor([1, kv, 1, size] if each else [1], low=0.1, high=0.2) / F32(1 if few else 8)
        name = "PER_CHANNEL" if each else "PER_TENSOR"
        attributes.update(k_quant_type=name, v_quant_type=name, kv_cache_bit_width=4 if few else 8)
    else:
        caches = [d.tensor([batch, kv, room, size], low=-1, high=1) for _ in range(2)]
    if attributes["do_rotary"]:
        options[0:2] = [d.tensor([16, size // 2], low=-1, high=1) for _ in range(2)]
        attributes["rotary_interleaved"] = d.int(0, 1)
        if d.bool():
            options[2] = d.rng.integers(0, 12, [batch, new]).astype(I64)
    if d.int(0, 2) == 0:
        options[3] = d.tensor([d.of([1, batch]), d.of([1, kv * group]), new, total], low=-1, high=1)
    if d.bool():
        attributes["softcap"] = 2.0
    sinks = d.int(0, 3)
    if sinks == 1:
        attributes["smooth_softmax"] = 1
    if sinks == 2:
        options[4] = d.tensor([kv * group])
    if kind == "chunks":
        # Without padding: what comes out for it is left open.
        options[9] = np.full(batch, new, I32)
        lengths = d.rng.integers(0, past + 1, [batch]) + new - 1
    if kind == "norms":
        attributes = {"num_heads": kv * group, "kv_num_heads": kv, "qk_norm_epsilon": 1e-2}
        attributes.update({"q_norm_epsilon": 0.25} if d.bool() else {})
        options = [None] * 7 + [d.tensor([size]) for _ in range(2)]
        caches, d.formula = [None, None], grouped
    if kind == "float8":
        attributes = {"num_heads": kv * group, "kv_num_heads": kv}
        attributes.update(k_quant_type="PER_TENSOR", v_quant_type="PER_CHANNEL")
        options = [None] * 5 + [d.tensor([1], low=0.1, high=0.2), d.tensor([1, kv, 1, size], low=0.1, high=0.2)]
        caches, d.formula = [(x * 8).astype(ml_dtypes.float8_e4m3fn) for x in caches], grouped
    # What lies behind a row's own keys in the new caches is left open.
    whole = batch == 1 and (room == past or kind == "norms") and not (kind == "codes" and attributes["do_rotary"])
    d.compared = 3 if whole and kind not in ["window", "float8"] else 1
    outputs = 3
    if d.compared == 3 and kind != "norms" and d.bool():
        attributes["qk_output"], outputs, d.compared = d.int(1, 2), 4, 4
    while options and options[-1] is None:
        options.pop()
    return [*inputs, *caches, lengths.astype(I32), np.array(total, I32), *options], attributes, outputs


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
    """`[batch, height, width, channels]`, or channels second, normalised over the positions and channels of each group."""
    last = attributes["channels_last"]
    x = [np.moveaxis(a, 1, -1) if a.ndim == 4 and not last else a for a in x]
    added = x[0] + sum((a if a.ndim == 4 else a.reshape(-1, 1, 1, a.shape[-1]) for a in x[3:]), 0.0)
    grouped = added.reshape(*added.shape[:3], attributes["groups"], -1)
    mean, deviation = (f(grouped, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    y = ((grouped - mean) / np.sqrt(deviation + attributes["epsilon"])).reshape(added.shape) * x[1] + x[2]
    y = y / (1 + np.exp(-y)) if attributes["activation"] else y
    return [a if last else np.moveaxis(a, -1, 1) for a in (y, added)]


@op("com.microsoft.GroupNorm", "com.microsoft.SkipGroupNorm", formula=group_norm)
def _(d):
    groups, batch = d.int(1, 3), d.int(1, 2)
    channels, last = groups * d.int(1, 3), d.int(0, 1)
    area = [d.int(1, d.limit), d.int(1, d.limit)]
    shape = [batch, *area, channels] if last else [batch, channels, *area]
    inputs = [d.tensor(shape), d.tensor([channels]), d.tensor([channels])]
    attributes = {"groups": groups, "epsilon": 1e-2, "activation": d.int(0, 1), "channels_last": last}
    if d.name.endswith("SkipGroupNorm"):
        return [*inputs, d.tensor(d.of([shape, [batch, channels]])), d.tensor([channels])], attributes, 2
    return inputs, attributes


@op("com.microsoft.SimplifiedLayerNormalization", formula=lambda x, a: [x[0] / np.sqrt((x[0] ** 2).mean(-1, keepdims=True) + a["epsilon"]) * x[1]])
def _(d):
    shape = d.full(2, 4)
    return [d.tensor(shape), d.tensor(shape[-1:])], {"axis": -1, "epsilon": 1e-2}
