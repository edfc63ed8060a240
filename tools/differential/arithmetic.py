"""Arithmetic, comparisons, reductions, products and conversions."""

import numpy as np
from onnx import helper

from draw import BOOL, F32, F64, I8, I16, I32, I64, NUMBERS, U8, U16, U32, U64, op, vector


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


@op("Cast")
def _(d):
    x = d.tensor(d.shape(), d.of([F32, F64, I32, I64, U8, I8, BOOL]))
    to = d.of([F32, F64, I32, I64, BOOL])
    return [x], {"to": helper.np_dtype_to_tensor_dtype(np.dtype(to))}


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


@op("Sum", "Mean")
def _(d):
    return d.pair(F32) + [d.tensor([1])] * d.int(0, 1), {}


@op("BitwiseNot")
def _(d):
    return [d.tensor(d.shape(), d.of([I8, U8, I32, I64]))], {}


@op("BitShift")
def _(d):
    a, b = d.pair(d.of([U8, U32, U64]))
    return [a, b % 8], {"direction": d.of(["LEFT", "RIGHT"])}


@op("Identity")
def _(d):
    return [d.tensor(d.shape(), d.of([F32, F64, I8, U8, I32, I64, BOOL]))], {}


@op("CastLike")
def _(d):
    x = d.tensor(d.shape(), d.of([F32, F64, I32, I64, U8, I8, BOOL]))
    return [x, d.tensor([1], d.of([F32, F64, I32, I64, BOOL]))], {}


@op("BitCast", opset=26)
def _(d):
    dtype, to = d.of([(F32, I32), (I32, U32), (F32, U32), (I64, U64), (I16, U16), (U8, I8)])
    return [d.tensor(d.shape(), dtype)], {"to": helper.np_dtype_to_tensor_dtype(np.dtype(to))}


@op("ReduceLogSum")
def _(d):
    shape = d.full(1, 4)
    return [d.tensor(shape, low=0.1, high=4), vector(*d.axes(len(shape)))], {"keepdims": d.int(0, 1)}


@op("CumProd", opset=26)
def _(d):
    shape = d.full(1, 3)
    x = d.tensor(shape, low=0.5, high=1.5)
    return [x, np.array(d.axis(len(shape)), I64)], {"exclusive": d.int(0, 1), "reverse": d.int(0, 1)}


@op("QLinearMatMul")
def _(d):
    m, k, n = d.int(1, d.limit), d.int(1, 2 * d.limit), d.int(1, d.limit)
    a, b = d.of([(U8, U8), (U8, I8), (I8, I8)])
    inputs = [d.codes([m, k], a), F32(0.125), a(3), d.codes([k, n], b), F32(0.25), b(2), F32(2.5), a(7)]
    return [np.array(x) for x in inputs], {}


@op("Shrink")
def _(d):
    return [d.tensor(d.shape())], {"bias": d.int(0, 4) / 4, "lambd": d.int(0, 4) / 4}


@op("Swish", opset=24)
def _(d):
    return [d.tensor(d.shape())], {"alpha": d.int(1, 8) / 4}


@op("Dropout")
def _(d):
    # Nothing is dropped without training mode; ONNX leaves open what else is.
    return [d.tensor(d.shape()), np.array(0.5, F32)], {}, 2


@op("Det")
def _(d):
    n = d.int(1, 9)
    x = d.tensor([*d.full(0, 2), n, n])
    if n > 4:
        # Far from singular, and the largest elements not in their places yet.
        x[..., np.arange(n), d.rng.permutation(n)] += 3 * n
    if n > 1 and d.int(0, 4) == 0:
        x[..., 0, :] = 0
    return [x], {}
