"""Views, selections, and tensors that are made."""

import numpy as np
from onnx import helper, numpy_helper

from draw import BOOL, F32, I32, I64, NUMBERS, op, vector


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
    if reduction != "none":
        # Some reach one place.
        size[axis] = d.int(1, 2 * shape[axis])
        indices = d.rng.integers(-shape[axis], shape[axis], size)
    return [d.tensor(shape), indices, d.tensor(size)], {"axis": axis, "reduction": reduction}


@op("ScatterND")
def _(d):
    shape = d.full(1, 3)
    rows = d.rng.permutation(shape[0])[: d.int(1, shape[0])].reshape(-1, 1).astype(I64)
    reduction = d.of(["none", "add", "mul", "max", "min"])
    if reduction != "none":
        rows = d.rng.integers(-shape[0], shape[0], [d.int(1, 2 * shape[0]), 1])
    return [d.tensor(shape), rows, d.tensor([len(rows), *shape[1:]])], {"reduction": reduction}


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


@op("DepthToSpace")
def _(d):
    b = d.int(1, 3)
    shape = [d.int(1, 2), d.int(1, 2) * b * b, d.int(1, d.limit), d.int(1, d.limit)]
    return [d.tensor(shape)], {"blocksize": b, "mode": d.of(["DCR", "CRD"])}


@op("SpaceToDepth")
def _(d):
    b = d.int(1, 3)
    return [d.tensor([d.int(1, 2), d.int(1, 3), b * d.int(1, 3), b * d.int(1, 3)])], {"blocksize": b}


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


@op("Shape")
def _(d):
    shape = d.shape(0, 4)
    ends = {"start": d.int(-4, 4), "end": d.int(-4, 4)} if d.bool() else {}
    return [d.tensor(shape, d.of(NUMBERS))], ends


@op("Size")
def _(d):
    return [d.tensor(d.shape(), d.of(NUMBERS))], {}


@op("Reshape")
def _(d):
    shape = d.full(1, 4)
    wanted = [int(n) for n in d.rng.permutation(shape)]
    if d.bool():
        wanted[d.int(0, len(wanted) - 1)] = -1
    elif wanted[0] == shape[0]:
        wanted[0] = 0
    return [d.tensor(shape, d.of(NUMBERS)), vector(*wanted)], {}


@op("Flatten")
def _(d):
    shape = d.shape(1, 4)
    return [d.tensor(shape, d.of(NUMBERS))], {"axis": d.int(-len(shape), len(shape))}


@op("Squeeze")
def _(d):
    shape = d.full(1, 4)
    axes = sorted({d.int(0, len(shape) - 1) for _ in range(2)})
    for axis in axes:
        shape[axis] = 1
    return [d.tensor(shape, d.of(NUMBERS)), vector(*[a - len(shape) if d.bool() else a for a in axes])], {}


@op("Unsqueeze")
def _(d):
    shape = d.shape(0, 3)
    rank = len(shape) + d.int(1, 2)
    axes = d.rng.permutation(rank)[: rank - len(shape)]
    return [d.tensor(shape, d.of(NUMBERS)), vector(*[a - rank if d.bool() else a for a in axes])], {}


@op("Scatter", opset=10)
def _(d):
    shape = d.full(1, 3)
    axis = d.int(0, len(shape) - 1)
    order = np.argsort(d.rng.random(shape), axis=axis)
    indices = np.take(order, np.arange(d.int(1, shape[axis])), axis=axis).astype(I64)
    return [d.tensor(shape), indices, d.tensor(indices.shape)], {"axis": axis}


@op("TensorScatter", opset=24)
def _(d):
    batch, length, new, size = d.int(1, 3), d.int(2, 2 + d.limit), d.int(1, 2), d.int(1, d.limit)
    at = d.rng.integers(0, length - new + 1, [batch]).astype(I64)
    return [d.tensor([batch, 2, length, size]), d.tensor([batch, 2, new, size]), at], {"mode": "linear"}


@op("Resize")
def _(d):
    shape = [1, d.int(1, 2), d.int(2, 2 + d.limit), d.int(2, 2 + d.limit)]
    mode = d.of(["nearest", "linear", "cubic"])
    modes = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    attributes = {"mode": mode, "coordinate_transformation_mode": d.of(modes)}
    if mode == "nearest":
        # At 1 / 2 exactly, float32 decides: whole factors and other rounding than that leave nothing open.
        attributes["nearest_mode"] = d.of(["floor", "ceil"])
        attributes["coordinate_transformation_mode"] = "asymmetric"
        factors = [1, 1, d.int(1, 3), d.int(1, 3)]
        return [d.tensor(shape), None, np.array(factors, F32)], attributes
    sizes = vector(*shape[:2], d.int(2, 9), d.int(2, 9))
    return [d.tensor(shape), None, None, sizes], attributes


@op("Upsample", opset=9)
def _(d):
    shape = [1, d.int(1, 2), d.int(1, d.limit), d.int(1, d.limit)]
    return [d.tensor(shape), np.array([1, 1, d.int(1, 3), d.int(1, 3)], F32)], {"mode": d.of(["nearest", "linear"])}


@op("CenterCropPad")
def _(d):
    shape = d.full(1, 3)
    axes = sorted({d.int(0, len(shape) - 1) for _ in range(2)})
    return [d.tensor(shape), vector(*[d.int(1, 2 * d.limit) for _ in axes])], {"axes": axes}


@op("ConstantOfShape")
def _(d):
    value = numpy_helper.from_array(np.array([d.int(-3, 3)], d.of(NUMBERS)), "value")
    return [vector(*d.shape(0, 4))], {"value": value}


@op("EyeLike")
def _(d):
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(d.of(NUMBERS)))
    return [d.tensor(d.full(2, 2))], {"k": d.int(-2, 2), "dtype": dtype}


@op("HannWindow", "HammingWindow", "BlackmanWindow")
def _(d):
    return [np.array(d.int(2, 4 * d.limit), I64)], {"periodic": d.int(0, 1)}


@op("Col2Im")
def _(d):
    block, image = [d.int(1, 2), d.int(1, 3)], [d.int(3, 3 + d.limit), d.int(3, 3 + d.limit)]
    strides = [d.int(1, 2), d.int(1, 2)]
    counts = [(n - k) // s + 1 for n, k, s in zip(image, block, strides)]
    x = d.tensor([d.int(1, 2), d.int(1, 2) * block[0] * block[1], counts[0] * counts[1]])
    return [x, vector(*image), vector(*block)], {"strides": strides}
