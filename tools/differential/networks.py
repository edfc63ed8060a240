"""Layers: activations, convolutions, pools, norms, attention, recurrences, signals, regions."""

import itertools

import numpy as np

from draw import F32, I8, I32, I64, U8, op, vector, window


@op("Elu", "LeakyRelu", "Selu", "Celu", "ThresholdedRelu", "HardSigmoid")
def _(d):
    attributes = {"alpha": d.int(1, 8) / 4}
    if d.name == "Selu":
        attributes["gamma"] = 1.5
    if d.name == "HardSigmoid":
        attributes["beta"] = 0.25
    return [d.tensor(d.shape())], attributes


@op("Gelu")
def _(d):
    return [d.tensor(d.shape())], {"approximate": d.of(["none", "tanh"])}


@op("Conv")
def _(d):
    rank, group = d.int(1, 2), d.int(1, 3)
    kernel, size, attributes = window(d, rank)
    inner, outer = d.int(1, 3), d.int(1, 3)
    x, w = d.tensor([d.int(1, 2), group * inner, *size]), d.tensor([group * outer, inner, *kernel])
    bias = [d.tensor([group * outer])] if d.bool() else []
    return [x, w, *bias], {"group": group, **attributes}


@op("ConvTranspose")
def _(d):
    rank, group = d.int(1, 2), d.int(1, 2)
    kernel, size, attributes = window(d, rank)
    attributes["pads"] = [0] * (2 * rank)
    inner, outer = d.int(1, 2), d.int(1, 2)
    x, w = d.tensor([d.int(1, 2), group * inner, *size]), d.tensor([group * inner, outer, *kernel])
    return [x, w], {"group": group, **attributes}


@op("MaxPool", "AveragePool")
def _(d):
    rank = d.int(1, 2)
    _, size, attributes = window(d, rank)
    if d.name == "AveragePool":
        attributes["count_include_pad"] = d.int(0, 1)
    else:
        attributes["ceil_mode"] = 0
    return [d.tensor([d.int(1, 2), d.int(1, 3), *size])], attributes


@op("GlobalAveragePool", "GlobalMaxPool")
def _(d):
    return [d.tensor(d.full(3, 4))], {}


@op("LayerNormalization")
def _(d):
    shape = d.full(1, 4)
    axis = d.int(0, len(shape) - 1)
    return [d.tensor(shape), d.tensor(shape[axis:]), d.tensor(shape[axis:])], {"axis": axis, "epsilon": 1e-2}


@op("InstanceNormalization")
def _(d):
    shape = d.full(3, 4)
    return [d.tensor(shape), d.tensor([shape[1]]), d.tensor([shape[1]])], {"epsilon": 1e-2}


def batch_normalized(inputs, attributes):
    """The batch's own statistics, and the running ones; before opset 14 the former, too."""
    x, scale, bias, mean, variance = inputs
    axes = tuple(a for a in range(x.ndim) if a != 1)
    own = [x.mean(axis=axes), x.var(axis=axes)]
    scale, bias, centre, spread = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, *own))
    y = (x - centre) / np.sqrt(spread + attributes["epsilon"]) * scale + bias
    kept = attributes["momentum"]
    running = [old * kept + new * (1 - kept) for old, new in zip((mean, variance), own)]
    return [y, *running, *([] if "training_mode" in attributes else own)]


@op("BatchNormalization")
def _(d):
    shape, attributes = d.full(2, 4), {"epsilon": 1e-2}
    kind = d.of(["inference", "by place", "training", "training before opset 14"])
    features = shape[1:] if kind == "by place" else [shape[1]]
    inputs = [d.tensor(shape), *(d.tensor(features) for _ in range(3)), d.tensor(features, low=0.5)]
    if kind == "by place":
        d.opset = 7
        attributes["spatial"] = 0
    if not kind.startswith("training"):
        return inputs, attributes
    # ONNX Runtime trains in builds of its own only.
    d.formula = batch_normalized
    attributes["momentum"] = d.int(0, 4) / 4
    if kind == "training":
        return inputs, {"training_mode": 1, **attributes}, 3
    d.opset = d.of([7, 9])
    return inputs, attributes, 5


@op("LRN")
def _(d):
    return [d.tensor(d.full(4, 4))], {"size": d.of([1, 3, 5]), "alpha": 0.5, "beta": 0.75, "bias": 1.5}


@op("PRelu")
def _(d):
    shape = d.full(1, 4)
    return [d.tensor(shape), d.tensor(shape[d.int(0, len(shape)) :])], {}


@op("GridSample")
def _(d):
    n, c = d.int(1, 2), d.int(1, 2)
    x = d.tensor([n, c, d.int(2, 2 + d.limit), d.int(2, 2 + d.limit)])
    grid = d.tensor([n, d.int(1, d.limit), d.int(1, d.limit), 2], low=-1.2, high=1.2)
    attributes = {"mode": d.of(["linear", "nearest"]), "padding_mode": d.of(["zeros", "border", "reflection"])}
    return [x, grid], {"align_corners": d.int(0, 1), **attributes}


@op("LSTM", "GRU", "RNN")
def _(d):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[d.name]
    direction = d.of(["forward", "reverse", "bidirectional"])
    both = 2 if direction == "bidirectional" else 1
    steps = d.int(1000, 1100) if d.int(0, 15) == 0 else d.int(1, 4)
    batch, size, hidden = d.int(1, 3), d.int(1, 4), d.int(1, 4)
    inputs = [
        d.tensor([steps, batch, size]),
        d.tensor([both, gates * hidden, size], low=-1, high=1),
        d.tensor([both, gates * hidden, hidden], low=-1, high=1),
        d.tensor([both, 2 * gates * hidden], low=-1, high=1),
    ]
    attributes = {"hidden_size": hidden, "direction": direction}
    if d.name == "GRU":
        attributes["linear_before_reset"] = d.int(0, 1)
    return inputs, attributes, 2


@op("SwiGLU", opset=28, formula=lambda x, a: [x[0] / (1 + np.exp(-a["alpha"] * x[0])) * x[1]])
def _(d):
    shape = d.shape()
    return [d.tensor(shape), d.tensor(shape)], {"alpha": d.int(1, 8) / 4}


@op("ConvInteger")
def _(d):
    kernel, size, attributes = window(d, 2)
    x, w = d.codes([1, d.int(1, 3), *size], U8), d.codes([d.int(1, 3), 0, *kernel], U8)
    w = d.codes([w.shape[0], x.shape[1], *kernel], U8)
    return [x, w, np.array(3, U8), np.array(2, U8)], attributes


@op("QLinearConv")
def _(d):
    kernel, size, attributes = window(d, 2)
    inner, outer = d.int(1, 3), d.int(1, 3)
    x, w = d.codes([1, inner, *size], U8), d.codes([outer, inner, *kernel], I8)
    scales = d.tensor([outer], low=0.1, high=0.5)
    bias = [d.rng.integers(-99, 100, [outer]).astype(I32)] if d.bool() else []
    y = [np.array(2.5, F32), np.array(99, U8)]
    return [x, np.array(0.125, F32), np.array(3, U8), w, scales, np.zeros(outer, I8), *y, *bias], attributes


def deformed(inputs, attributes):
    """A sum over taps, interpolated linearly where the offsets say; elements outside are 0."""
    x, w, moves, *rest = inputs
    kernel, out, rank = w.shape[2:], moves.shape[2:], w.ndim - 2
    groups, taps = attributes["offset_group"], int(np.prod(kernel))
    bias, mask = rest if rest else (np.zeros(len(w)), np.ones([1, groups * taps, *out]))
    moves, mask = moves.reshape(groups, taps, rank, *out), mask.reshape(groups, taps, *out)
    y = np.zeros([1, len(w), *out]) + bias.reshape(-1, *[1] * rank)
    channels, inner, outer = x.shape[1], w.shape[1], len(w) // attributes["group"]
    for c, (t, tap), o in itertools.product(range(channels), enumerate(np.ndindex(*kernel)), np.ndindex(*out)):
        g, group = c // (channels // groups), c // inner
        even = np.multiply(o, attributes["strides"]) - attributes["pads"][:rank] + np.multiply(tap, attributes["dilations"])
        at = even + moves[(g, t, slice(None), *o)]
        low, value = np.floor(at).astype(int), 0.0
        for corner in itertools.product((0, 1), repeat=rank):
            place = low + corner
            if np.all(place >= 0) and np.all(place < x.shape[2:]):
                value += np.prod(1 - np.abs(at - place)) * x[(0, c, *place)]
        rows = slice(group * outer, (group + 1) * outer)
        y[(0, rows, *o)] += w[(rows, c % inner, *tap)] * value * mask[(g, t, *o)]
    return [y]


@op("DeformConv")
def _(d):
    rank = d.int(1, 3)
    # ONNX Runtime has two axes only.
    d.formula = None if rank == 2 else deformed
    kernel, size, attributes = window(d, rank)
    group, offsets = d.int(1, 2), d.int(1, 2)
    inner, outer = offsets * d.int(1, 2), d.int(1, 2)
    pads, strides, dilations = attributes["pads"], attributes["strides"], attributes["dilations"]
    out = [
        (size[i] + pads[i] + pads[i + rank] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i in range(rank)
    ]
    taps = offsets * int(np.prod(kernel))
    x, w = d.tensor([1, group * inner, *size]), d.tensor([group * outer, inner, *kernel])
    mask = [d.tensor([group * outer]), d.tensor([1, taps, *out], low=0, high=1)] if d.bool() else []
    moves = d.tensor([1, rank * taps, *out], low=-1.5, high=1.5)
    return [x, w, moves, *mask], {"group": group, "offset_group": offsets, **attributes}


@op("CausalConvWithState", opset=27)
def _(d):
    batch, channels, length, kernel = d.int(1, 2), d.int(1, d.limit), d.int(1, 5), d.int(2, 4)
    x, w, bias = d.tensor([batch, channels, length]), d.tensor([channels, 1, kernel]), d.tensor([channels])
    state = d.tensor([batch, channels, kernel - 1])
    return [x, w, d.of([None, bias]), d.of([None, state])], {"activation": d.of(["none", "silu"])}, 2


@op("LpPool")
def _(d):
    _, size, attributes = window(d, d.int(1, 2))
    return [d.tensor([1, d.int(1, 3), *size])], {"p": d.int(1, 3), **attributes}


@op("GlobalLpPool")
def _(d):
    return [d.tensor(d.full(3, 4))], {"p": d.int(1, 3)}


@op("GroupNormalization", opset=21)
def _(d):
    groups = d.int(1, 3)
    channels = groups * d.int(1, 3)
    shape = [d.int(1, 2), channels, *d.full(1, 2)]
    return [d.tensor(shape), d.tensor([channels]), d.tensor([channels])], {"num_groups": groups, "epsilon": 1e-2}


@op("RMSNormalization", opset=23)
def _(d):
    shape = d.full(1, 4)
    axis = d.int(0, len(shape) - 1)
    return [d.tensor(shape), d.tensor(shape[axis:])], {"axis": axis, "epsilon": 1e-2}


@op("SimplifiedLayerNormalization")
def _(d):
    shape = d.full(2, 4)
    return [d.tensor(shape), d.tensor(shape[-1:])], {"axis": -1, "epsilon": 1e-2}


@op("LpNormalization")
def _(d):
    shape = d.full(1, 4)
    return [d.tensor(shape, low=0.25)], {"axis": d.axis(len(shape)), "p": d.int(1, 2)}


@op("MeanVarianceNormalization")
def _(d):
    return [d.tensor([d.int(2, 4) for _ in range(4)])], {}


@op("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def _(d):
    batch, classes, rest = d.int(1, d.limit), d.int(1, d.limit), d.full(0, 2)
    x = d.tensor([batch, classes, *rest], low=-3, high=-0.1)
    targets = d.rng.integers(0, classes, [batch, *rest]).astype(I64)
    weights = [d.tensor([classes], low=0.25, high=2)] if d.bool() else []
    return [x, targets, *weights], {"reduction": d.of(["none", "sum", "mean"])}


@op("Attention", opset=24)
def _(d):
    batch, heads, size, queries, keys = d.int(1, 2), d.int(1, 2), d.int(1, 4), d.int(1, 5), d.int(1, 5)
    group = d.int(1, 2)
    q = d.tensor([batch, group * heads, queries, size], low=-1, high=1)
    k, v = (d.tensor([batch, heads, keys, size], low=-1, high=1) for _ in range(2))
    mask = d.tensor([queries, keys]) if d.bool() else None
    return [q, k, v, mask], {"is_causal": d.int(0, 1), "softcap": d.of([0.0, 2.0])}


def attention(x, attributes):
    q, (k, v) = x[0], (np.repeat(t, x[0].shape[1] // t.shape[1], axis=1) for t in x[1:])
    scores = np.exp(q @ np.swapaxes(k, 2, 3) * attributes["scale"])
    return [scores / scores.sum(-1, keepdims=True) @ v]


@op("ai.onnx.preview.FlexAttention", opset=26, formula=attention)
def _(d):
    batch, heads, size, group = d.int(1, 2), d.int(1, 2), d.int(1, 4), d.int(1, 2)
    q = d.tensor([batch, group * heads, d.int(1, 5), size], low=-1, high=1)
    keys = d.int(1, 5)
    return [q, *(d.tensor([batch, heads, keys, size], low=-1, high=1) for _ in range(2))], {"scale": d.int(1, 8) / 4}


@op("LinearAttention", opset=27)
def _(d):
    length = d.int(600, 700) if d.int(0, 15) == 0 else d.int(1, 4)
    batch, heads, size = d.int(1, 2), d.int(1, 2), d.int(1, 4)
    rows = [d.tensor([batch, length, heads * size], low=-1, high=1) for _ in range(3)]
    return rows, {"q_num_heads": heads, "kv_num_heads": heads, "update_rule": "linear"}, 2


@op("RotaryEmbedding", opset=23)
def _(d):
    batch, heads, length, half = d.int(1, 2), d.int(1, 3), d.int(1, 4), d.int(1, 3)
    caches = [d.tensor([8, half], low=-1, high=1) for _ in range(2)]
    positions = d.rng.integers(0, 8, [batch, length]).astype(I64)
    return [d.tensor([batch, heads, length, 2 * half]), *caches, positions], {"interleaved": d.int(0, 1)}


@op("AffineGrid")
def _(d):
    n, size = d.int(1, 2), [d.int(2, 2 + d.limit) for _ in range(d.int(2, 3))]
    theta = d.tensor([n, len(size), len(size) + 1], low=-1, high=1)
    return [theta, vector(n, 1, *size)], {"align_corners": d.int(0, 1)}


@op("DFT")
def _(d):
    shape = [d.int(1, 2), d.int(1, 3 * d.limit), d.int(1, 2)]
    inverse = d.int(0, 1) if shape[-1] == 2 else 0
    onesided = 0 if inverse or shape[-1] == 2 else d.int(0, 1)
    return [d.tensor(shape), None, np.array(1, I64)], {"inverse": inverse, "onesided": onesided}


@op("STFT")
def _(d):
    size, step = 2 * d.int(1, 4), d.int(1, 3)
    signal = d.tensor([d.int(1, 2), size + d.int(0, 3 * d.limit), 1])
    return [signal, np.array(step, I64), d.tensor([size]), np.array(size, I64)], {"onesided": d.int(0, 1)}


@op("MelWeightMatrix")
def _(d):
    numbers = [np.array(n, I64) for n in (d.int(2, 8), 8 * d.int(2, 8), 8000)]
    return [*numbers, np.array(d.int(0, 500), F32), np.array(d.int(2000, 4000), F32)], {}


@op("RoiAlign")
def _(d):
    shape, count = [d.int(1, 2), d.int(1, 2), 8, 8], d.int(1, 3)
    corners = d.tensor([count, 2], low=0, high=4)
    boxes = np.concatenate([corners, corners + d.tensor([count, 2], low=0.5, high=4)], axis=1)
    batch = d.rng.integers(0, shape[0], [count]).astype(I64)
    attributes = {"output_height": d.int(1, 3), "output_width": d.int(1, 3), "sampling_ratio": d.int(0, 2)}
    attributes["coordinate_transformation_mode"] = d.of(["half_pixel", "output_half_pixel"])
    return [d.tensor(shape), boxes, batch], {"mode": d.of(["avg", "max"]), "spatial_scale": 0.5, **attributes}


@op("MaxRoiPool")
def _(d):
    shape, count = [d.int(1, 2), d.int(1, 2), 8, 8], d.int(1, 3)
    # Some reach beyond the image.
    corners = d.tensor([count, 2], low=-2, high=12)
    boxes = np.concatenate([corners, corners + d.tensor([count, 2], low=0, high=12)], axis=1)
    batch = d.rng.integers(0, shape[0], [count, 1]).astype(F32)
    attributes = {"pooled_shape": [d.int(1, 3), d.int(1, 3)], "spatial_scale": d.of([0.5, 1.0])}
    return [d.tensor(shape), np.concatenate([batch, boxes], axis=1)], attributes


@op("MaxUnpool")
def _(d):
    count, size = d.int(1, 2), [d.int(1, d.limit), d.int(1, d.limit)]
    x = d.tensor([1, count, *size])
    # As MaxPool reports them: each in a window of its own.
    rows, columns = (2 * np.arange(n) + d.rng.integers(0, 2, n) for n in size)
    flat = rows[:, None] * 2 * size[1] + columns[None, :]
    indices = np.stack([flat + c * 4 * size[0] * size[1] for c in range(count)])[None].astype(I64)
    return [x, indices], {"kernel_shape": [2, 2], "strides": [2, 2]}


@op("NonMaxSuppression")
def _(d):
    batch, boxes, classes = d.int(1, 2), d.int(1, 3 * d.limit), d.int(1, 2)
    if d.int(0, 3) == 0:
        boxes *= 20
    corners = d.tensor([batch, boxes, 2], low=0, high=4)
    corners = np.concatenate([corners, corners + d.tensor([batch, boxes, 2], low=0.5, high=3)], axis=2)
    # Some scores are equal.
    scores = d.rng.integers(0, 2 * boxes, [batch, classes, boxes]).astype(F32) / 64
    most = d.of([d.int(0, 5), boxes, 10**9])
    attributes = {"center_point_box": d.int(0, 1)}
    return [corners, scores, vector(most), np.array([0.375], F32), np.array([0.25], F32)], attributes


@op("TfIdfVectorizer")
def _(d):
    x = d.rng.integers(0, 4, [d.int(1, 3), d.int(2, 3 * d.limit)]).astype(I32)
    attributes = {
        "mode": d.of(["TF", "IDF", "TFIDF"]),
        "min_gram_length": d.int(1, 2),
        "max_gram_length": 2,
        "max_skip_count": d.int(0, 2),
        "pool_int64s": [0, 1, 3, 0, 1, 1, 2, 3, 3],
        "ngram_counts": [0, 3],
        "ngram_indexes": [0, 1, 2, 3, 4, 5],
        "weights": [0.5, 1.0, 2.0, 1.5, 0.25, 1.0],
    }
    return [x], attributes
