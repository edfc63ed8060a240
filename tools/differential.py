"""Make random models of one node and say what ONNX Runtime gives for them: the other half of tests/differential.rs.

Reads lines `OPERATOR SEED LIMIT` and answers each with the folder of the case, or with `skip REASON` where ONNX Runtime
refuses the model. Attributes, dtypes and shapes follow from the line alone; sizes are LIMIT at the most, and 0 now and
then. `list` answers with all operators. A folder is laid out as those of tools/onnx_backend.py.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

OUT = Path(__file__).resolve().parent.parent / "target" / "test-data" / "differential"
F32, F64, I32, I64, U8, I8, BOOL = np.float32, np.float64, np.int32, np.int64, np.uint8, np.int8, np.bool_
NUMBERS = [F32, F32, I32, I64]
MAKERS = {}


def op(*names):
    """Register a maker for operators: it gives (inputs, attributes) or (inputs, attributes, outputs)."""

    def register(make):
        for name in names:
            MAKERS[name] = make
        return make

    return register


class Draw:
    """Random choices of one case."""

    def __init__(self, name, seed, limit):
        self.name, self.limit = name, limit
        self.rng = np.random.default_rng([sum(name.encode()) * 7919 + len(name), seed])

    def int(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def of(self, values):
        return values[self.int(0, len(values) - 1)]

    def bool(self):
        return bool(self.int(0, 1))

    def size(self):
        return 0 if self.int(0, 24) == 0 else self.int(1, self.limit)

    def shape(self, low=0, high=4):
        return [self.size() for _ in range(self.int(low, high))]

    def full(self, low=1, high=4):
        """A shape without zeros."""
        return [self.int(1, self.limit) for _ in range(self.int(low, high))]

    def tensor(self, shape, dtype=F32, low=-3.0, high=3.0):
        if dtype == BOOL:
            return self.rng.integers(0, 2, shape).astype(BOOL)
        if np.issubdtype(dtype, np.integer):
            info = np.iinfo(dtype)
            near = self.rng.integers(max(-8, info.min), 9, shape)
            far = self.rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
            return np.where(self.rng.integers(0, 8, shape) == 0, far, near.astype(dtype)).astype(dtype)
        # Multiples of 1/64: ties happen, and sums of a few are exact.
        return (np.round(self.rng.uniform(low, high, shape) * 64) / 64).astype(dtype)

    def pair(self, dtype):
        """Two tensors that broadcast together."""
        shape = self.shape(0, 4)
        other = shape[self.int(0, len(shape)) :]
        a = [1 if self.int(0, 4) == 0 else d for d in shape]
        b = [1 if self.int(0, 4) == 0 else d for d in other]
        return [self.tensor(a, dtype), self.tensor(b, dtype)][:: 1 if self.bool() else -1]

    def axis(self, rank):
        return self.int(-rank, rank - 1)

    def axes(self, rank):
        chosen = [a for a in range(rank) if self.bool()] or [0]
        return [a - rank if self.bool() else a for a in chosen]


def vector(*values):
    return np.array(values, dtype=I64)


@op("Neg", "Abs", "Sign")
def _(d):
    return [d.tensor(d.shape(), d.of(NUMBERS))], {}


@op("Floor", "Ceil", "Round", "Exp", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Tanh", "Asinh", "Erf", "IsNaN", "Sigmoid")
@op("Relu", "Softplus", "Softsign", "HardSwish", "Mish", "Tan", "IsInf")
def _(d):
    return [d.tensor(d.shape(), low=-1.4 if d.name == "Tan" else -6, high=1.4 if d.name == "Tan" else 6)], {}


@op("Sqrt", "Log", "Reciprocal")
def _(d):
    return [d.tensor(d.shape(), low=0.1, high=9)], {}


@op("Asin", "Acos", "Atanh")
def _(d):
    return [d.tensor(d.shape(), low=-0.9, high=0.9)], {}


@op("Acosh")
def _(d):
    return [d.tensor(d.shape(), low=1.0, high=9)], {}


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


@op("Add", "Sub", "Mul")
def _(d):
    return d.pair(d.of(NUMBERS + [F64])), {}


@op("Max", "Min")
def _(d):
    return d.pair(d.of(NUMBERS)), {}


@op("Div")
def _(d):
    a, b = d.pair(d.of(NUMBERS))
    return [a, np.where(b == 0, 1, b).astype(b.dtype)], {}


@op("Mod")
def _(d):
    dtype = d.of(NUMBERS)
    a, b = d.pair(dtype)
    return [a, np.where(b == 0, 2, b).astype(b.dtype)], {"fmod": 1 if dtype == F32 else d.int(0, 1)}


@op("Pow")
def _(d):
    a, b = d.pair(F32)
    return [np.abs(a) + F32(0.25), b], {}


@op("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")
def _(d):
    return d.pair(d.of(NUMBERS)), {}


@op("And", "Or", "Xor")
def _(d):
    return d.pair(BOOL), {}


@op("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def _(d):
    return d.pair(d.of([I32, I64, U8])), {}


@op("Not")
def _(d):
    return [d.tensor(d.shape(), BOOL)], {}


@op("Where")
def _(d):
    a, b = d.pair(d.of(NUMBERS))
    shape = np.broadcast_shapes(a.shape, b.shape)
    return [d.tensor(list(shape), BOOL), a, b], {}


@op("Clip")
def _(d):
    dtype = d.of(NUMBERS)
    return [d.tensor(d.shape(), dtype), np.array(-2, dtype), np.array(3, dtype)], {}


@op("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare")
@op("ReduceLogSumExp")
def _(d):
    shape = d.full(1, 4)
    dtype = d.of(NUMBERS if d.name in ("ReduceSum", "ReduceMax", "ReduceMin") else [F32])
    axes = [] if d.int(0, 4) == 0 else [vector(*d.axes(len(shape)))]
    x = d.tensor(shape, dtype)
    # ONNX leaves open what a sum beyond int32 gives: ONNX Runtime saturates, this project wraps.
    return [x if dtype == F32 or d.name != "ReduceSum" else x % 1000, *axes], {"keepdims": d.int(0, 1)}


@op("ArgMax", "ArgMin")
def _(d):
    shape = d.full(1, 4)
    attributes = {"axis": d.axis(len(shape)), "keepdims": d.int(0, 1), "select_last_index": d.int(0, 1)}
    return [d.tensor(shape, d.of([F32, I32]))], attributes


@op("Softmax", "LogSoftmax", "Hardmax")
def _(d):
    shape = d.full(1, 4)
    return [d.tensor(shape)], {"axis": d.axis(len(shape))}


@op("CumSum")
def _(d):
    shape = d.full(1, 3)
    if d.bool():
        shape[0] = d.int(1, 700)
    x = d.tensor(shape, d.of(NUMBERS))
    return [x, np.array(d.axis(len(shape)), I64)], {"exclusive": d.int(0, 1), "reverse": d.int(0, 1)}


@op("TopK")
def _(d):
    shape = d.full(1, 3)
    axis = d.axis(len(shape))
    k = d.int(0, shape[axis])
    return [d.tensor(shape, d.of([F32, I32, I64])), vector(k)], {"axis": axis, "largest": d.int(0, 1)}, 2


@op("MatMul")
def _(d):
    m, k, n = d.size(), d.int(1, 3 * d.limit), d.size()
    batch = d.shape(0, 2)
    a = [*[1 if d.int(0, 3) == 0 else b for b in batch], m, k]
    b = [*batch[d.int(0, len(batch)) :], k, n]
    dtype = d.of([F32, F32, F64, I32, I64])
    return [d.tensor(a, dtype), d.tensor(b, dtype)], {}


@op("Gemm")
def _(d):
    m, k, n = d.int(1, d.limit), d.int(1, 3 * d.limit), d.int(1, d.limit)
    ta, tb = d.int(0, 1), d.int(0, 1)
    a, b = [k, m] if ta else [m, k], [n, k] if tb else [k, n]
    c = [d.tensor(d.of([[], [n], [m, 1], [1, n], [m, n]]))] if d.bool() else []
    return [d.tensor(a), d.tensor(b), *c], {"transA": ta, "transB": tb, "alpha": 0.5, "beta": d.int(0, 4) / 2}


def window(d, rank):
    kernel = [d.int(1, 3) for _ in range(rank)]
    strides, dilations = [d.int(1, 3) for _ in range(rank)], [d.int(1, 2) for _ in range(rank)]
    reach = [(k - 1) * dil + 1 for k, dil in zip(kernel, dilations)]
    pads = [d.int(0, k - 1) for k in kernel + kernel]
    size = [max(1, r) + d.int(0, d.limit) for r in reach]
    return kernel, size, {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}


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


@op("Concat")
def _(d):
    shape = d.shape(1, 4)
    axis = d.axis(len(shape))
    dtype = d.of(NUMBERS)
    parts = []
    for _ in range(d.int(1, 4)):
        part = list(shape)
        part[axis] = d.size()
        parts.append(d.tensor(part, dtype))
    return parts, {"axis": axis}


@op("Split")
def _(d):
    shape = d.full(1, 4)
    axis = d.axis(len(shape))
    parts = [d.int(0, d.limit) for _ in range(d.int(1, 3))]
    shape[axis] = sum(parts)
    return [d.tensor(shape, d.of(NUMBERS)), vector(*parts)], {"axis": axis}, len(parts)


@op("Slice")
def _(d):
    shape = d.full(1, 4)
    axes = sorted({d.int(0, len(shape) - 1) for _ in range(2)})
    starts = [d.int(-shape[a] - 1, shape[a] + 1) for a in axes]
    ends = [d.int(-shape[a] - 1, shape[a] + 1) for a in axes]
    steps = [d.of([1, 1, 2, -1, -2]) for _ in axes]
    return [d.tensor(shape, d.of(NUMBERS)), vector(*starts), vector(*ends), vector(*axes), vector(*steps)], {}


@op("Transpose")
def _(d):
    shape = d.shape(1, 4)
    return [d.tensor(shape, d.of(NUMBERS))], {"perm": [int(a) for a in d.rng.permutation(len(shape))]}


@op("Expand")
def _(d):
    a, b = d.pair(F32)
    return [a, np.array(b.shape, dtype=I64)], {}


@op("Tile")
def _(d):
    shape = d.shape(1, 3)
    return [d.tensor(shape, d.of(NUMBERS)), vector(*[d.int(0, 3) for _ in shape])], {}


@op("Pad")
def _(d):
    shape = [d.int(3, 3 + d.limit) for _ in range(d.int(1, 3))]
    mode = d.of(["constant", "edge", "reflect", "wrap"])
    low = 0 if mode == "wrap" else -1
    pads = [d.int(low, 2) for _ in range(2 * len(shape))]
    return [d.tensor(shape, F32), vector(*pads), np.array(1.5, F32)], {"mode": mode}


@op("Gather")
def _(d):
    shape = d.full(1, 4)
    axis = d.axis(len(shape))
    indices = d.rng.integers(-shape[axis], shape[axis], d.shape(0, 2)).astype(d.of([I32, I64]))
    return [d.tensor(shape, d.of(NUMBERS)), indices], {"axis": axis}


@op("GatherElements")
def _(d):
    shape = d.full(1, 3)
    axis = d.axis(len(shape))
    indices = d.rng.integers(-shape[axis], shape[axis], shape).astype(I64)
    return [d.tensor(shape, d.of(NUMBERS)), indices], {"axis": axis}


@op("GatherND")
def _(d):
    shape = d.full(2, 4)
    depth = d.int(1, len(shape))
    columns = [d.rng.integers(-n, n, [d.int(1, 4)]) if i == 0 else None for i, n in enumerate(shape[:depth])]
    rows = len(columns[0])
    indices = np.stack([d.rng.integers(-n, n, [rows]) for n in shape[:depth]], axis=1).astype(I64)
    return [d.tensor(shape, d.of(NUMBERS)), indices], {}


@op("ScatterElements")
def _(d):
    shape = d.full(1, 3)
    axis = d.axis(len(shape))
    reduction = d.of(["none", "add", "mul", "max", "min"])
    size = list(shape)
    size[axis] = d.int(1, shape[axis])
    order = np.argsort(d.rng.random(shape), axis=axis)
    indices = np.take(order, np.arange(size[axis]), axis=axis).astype(I64)
    return [d.tensor(shape), indices, d.tensor(size)], {"axis": axis, "reduction": reduction}


@op("ScatterND")
def _(d):
    shape = d.full(1, 3)
    rows = d.rng.permutation(shape[0])[: d.int(1, shape[0])].reshape(-1, 1).astype(I64)
    return [d.tensor(shape), rows, d.tensor([len(rows), *shape[1:]])], {"reduction": d.of(["none", "add", "mul"])}


@op("OneHot")
def _(d):
    shape = d.shape(0, 2)
    depth = d.int(1, 6)
    indices = d.rng.integers(-depth, depth, shape).astype(I64)
    return [indices, vector(depth), d.tensor([2])], {"axis": d.int(-len(shape) - 1, len(shape))}


@op("Trilu")
def _(d):
    x = d.tensor(d.full(2, 4), d.of([F32, I64]))
    return [x, np.array(d.int(-3, 3), I64)], {"upper": d.int(0, 1)}


@op("NonZero")
def _(d):
    shape = d.shape(1, 3)
    if d.int(0, 3) == 0:
        shape = [d.int(1, 3000)]
    return [(d.tensor(shape) * (d.rng.integers(0, 3, shape) == 0)).astype(d.of([F32, I32, I64]))], {}


@op("Compress")
def _(d):
    shape = d.full(1, 3)
    axis = d.axis(len(shape))
    return [d.tensor(shape), d.tensor([shape[axis]], BOOL)], {"axis": axis}


@op("Unique")
def _(d):
    shape = d.full(1, 2)
    attributes = {"axis": d.axis(len(shape))} if d.bool() else {}
    x = d.rng.integers(-2, 3, shape).astype(d.of([F32, I64]))
    return [x], {"sorted": d.int(0, 1), **attributes}, 4


@op("Cast")
def _(d):
    x = d.tensor(d.shape(), d.of([F32, F64, I32, I64, U8, I8, BOOL]))
    to = d.of([F32, F64, I32, I64, BOOL])
    return [x], {"to": helper.np_dtype_to_tensor_dtype(np.dtype(to))}


@op("LayerNormalization")
def _(d):
    shape = d.full(1, 4)
    axis = d.int(0, len(shape) - 1)
    return [d.tensor(shape), d.tensor(shape[axis:]), d.tensor(shape[axis:])], {"axis": axis, "epsilon": 1e-2}


@op("InstanceNormalization")
def _(d):
    shape = d.full(3, 4)
    return [d.tensor(shape), d.tensor([shape[1]]), d.tensor([shape[1]])], {"epsilon": 1e-2}


@op("BatchNormalization")
def _(d):
    shape = d.full(2, 4)
    scale = [d.tensor([shape[1]]) for _ in range(3)]
    return [d.tensor(shape), *scale, d.tensor([shape[1]], low=0.5)], {"epsilon": 1e-2}


@op("LRN")
def _(d):
    return [d.tensor(d.full(4, 4))], {"size": d.of([1, 3, 5]), "alpha": 0.5, "beta": 0.75, "bias": 1.5}


@op("DepthToSpace")
def _(d):
    b = d.int(1, 3)
    shape = [d.int(1, 2), d.int(1, 2) * b * b, d.int(1, d.limit), d.int(1, d.limit)]
    return [d.tensor(shape)], {"blocksize": b, "mode": d.of(["DCR", "CRD"])}


@op("SpaceToDepth")
def _(d):
    b = d.int(1, 3)
    return [d.tensor([d.int(1, 2), d.int(1, 3), b * d.int(1, 3), b * d.int(1, 3)])], {"blocksize": b}


@op("Einsum")
def _(d):
    equation, axes = d.of(
        [("ij,jk->ik", ["ij", "jk"]), ("bij,bkj->bik", ["bij", "bkj"]), ("ii->i", ["ii"]), ("ij->", ["ij"]), ("ij,kj->ki", ["ij", "kj"])]
    )
    sizes = {c: d.int(1, d.limit) for c in "bijk"}
    return [d.tensor([sizes[c] for c in part]) for part in axes], {"equation": equation}


@op("QuantizeLinear")
def _(d):
    dtype = d.of([U8, I8])
    return [d.tensor(d.shape(), low=-20, high=20), np.array(0.25, F32), np.array(3, dtype)], {}


@op("DequantizeLinear")
def _(d):
    dtype = d.of([U8, I8, I32])
    zero = np.array(0 if dtype == I32 else 3, dtype)
    return [d.tensor(d.shape(), dtype), np.array(0.25, F32), zero], {}


@op("DynamicQuantizeLinear")
def _(d):
    return [d.tensor(d.full(1, 3))], {}, 3


@op("MatMulInteger")
def _(d):
    m, k, n = d.int(1, d.limit), d.int(1, d.limit), d.int(1, d.limit)
    a, b = d.of([(U8, U8), (U8, I8)])
    return [d.tensor([m, k], a), d.tensor([k, n], b), np.array(3, a), np.array(2, b)], {}


@op("Range")
def _(d):
    dtype = d.of([F32, I32, I64])
    start, delta = d.int(-5, 5), d.of([-2, -1, 1, 2])
    return [np.array(v, dtype) for v in (start, start + delta * d.int(0, d.limit), delta)], {}


@op("ReverseSequence")
def _(d):
    shape = d.full(2, 3)
    lengths = d.rng.integers(1, shape[0] + 1, [shape[1]]).astype(I64)
    return [d.tensor(shape), lengths], {"batch_axis": 1, "time_axis": 0}


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
    steps, batch, size, hidden = d.int(1, 4), d.int(1, 3), d.int(1, 4), d.int(1, 4)
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
    masks = [d.rng.integers(1, length + 1, [batch]).astype(I32), keys]
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
    ta, tb = d.int(0, 1), d.int(0, 1)
    a, b = [k, m] if ta else [m, k], [n, k] if tb else [k, n]
    return [d.tensor(a), d.tensor(b)], {"transA": ta, "transB": tb, "alpha": 0.5}


@op("com.microsoft.MatMulNBits")
def _(d):
    n, k, block = d.int(1, 2 * d.limit), 32 * d.int(1, 3), d.of([16, 32])
    blocks = -(-k // block)
    x, b = d.tensor([d.int(1, 4), k]), d.rng.integers(0, 256, [n, blocks, block // 2]).astype(U8)
    zeros = [d.rng.integers(0, 256, [n * -(-blocks // 2)]).astype(U8)] if d.bool() else []
    scales = d.tensor([n * blocks], low=0.1, high=1)
    return [x, b, scales, *zeros], {"K": k, "N": n, "bits": 4, "block_size": block}


def make(name, seed, limit):
    draw = Draw(name, seed, limit)
    inputs, attributes, *count = MAKERS[name](draw)
    outputs = [f"y{i}" for i in range(count[0] if count else 1)]
    domain, _, op_type = name.rpartition(".")
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(op_type, names, outputs, "node", domain=domain, **attributes)
    infos = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for i, x in enumerate(inputs)
    ]
    # ONNX Runtime works out the outputs' dtypes itself, and says what they are.
    graph = helper.make_graph([node], "case", infos, [onnx.ValueInfoProto(name=y) for y in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)], ir_version=9)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    feeds = {f"x{i}": x for i, x in enumerate(inputs)}
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(None, feeds)
    except Exception as error:  # whatever it is, ONNX Runtime has no answer
        return "skip " + str(error).replace("\n", " ")[:200]
    del model.graph.output[:]
    for y, result in zip(outputs, results):
        dtype = helper.np_dtype_to_tensor_dtype(result.dtype)
        model.graph.output.append(helper.make_tensor_value_info(y, dtype, None))
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    onnx.save(model, OUT / "model.onnx")
    for role, values in (("input", inputs), ("output", results)):
        for i, value in enumerate(values):
            proto = numpy_helper.from_array(np.asarray(value), f"{'x' if role == 'input' else 'y'}{i}")
            (OUT / f"{role}_{i}.pb").write_bytes(proto.SerializeToString())
    text = helper.printable_node(node)
    shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in inputs)
    (OUT / "case.json").write_text(json.dumps({"text": f"{text} of {shapes}"}))
    return str(OUT)


def main():
    ort.set_default_logger_severity(4)
    for line in sys.stdin:
        words = line.split()
        if words == ["list"]:
            print(" ".join(sorted(MAKERS)), flush=True)
        else:
            print(make(words[0], int(words[1]), int(words[2])), flush=True)


if __name__ == "__main__":
    main()
