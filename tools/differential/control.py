"""Control flow: nodes with graphs in them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from draw import BOOL, F32, I64, op


def value(name, dtype, shape=None):
    return helper.make_tensor_value_info(name, dtype, shape)


def constant(name, array):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(array), name))


@op("If")
def _(d):
    # The branches read x1 from outside; their shapes agree or not.
    shape = d.full(1, 3)

    def branch(operator, flat):
        nodes = [helper.make_node(operator, ["x1"], ["r"])]
        if flat:
            nodes += [constant("all", np.array([-1])), helper.make_node("Reshape", ["r", "all"], ["out"])]
        else:
            nodes.append(helper.make_node("Identity", ["r"], ["out"]))
        return helper.make_graph(nodes, "branch", [], [value("out", TensorProto.FLOAT)])

    flat = d.bool()
    branches = {"then_branch": branch("Abs", flat), "else_branch": branch("Neg", flat or d.bool())}
    d.captured = 1
    return [np.array(d.bool()), d.tensor(shape)], branches


@op("Loop")
def _(d):
    # y = y * 0.5 + x3, until its first element is above a bound, or so many times; each y is an output, too.
    shape = d.full(1, 2)
    count, bounded = d.int(0, 80) if d.int(0, 9) == 0 else d.int(0, 6), d.bool()
    nodes = [
        constant("half", F32(0.5)),
        helper.make_node("Mul", ["y", "half"], ["less"]),
        helper.make_node("Add", ["less", "x3"], ["next"]),
        helper.make_node("Identity", ["next"], ["each"]),
    ]
    if bounded:
        nodes += [
            helper.make_node("ReduceMax", ["next"], ["top"], keepdims=0),
            constant("bound", F32(2.0)),
            helper.make_node("Less", ["top", "bound"], ["on"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["go"], ["on"]))
    inputs = [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, shape)]
    outputs = [value("on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, shape), value("each", TensorProto.FLOAT, shape)]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    d.captured = 1
    return [np.array(count, I64), np.array(True), d.tensor(shape), d.tensor(shape)], {"body": body}, 2


@op("Scan")
def _(d):
    # A running sum of the slices of x1 along an axis, and their products with it, stacked along another, either backwards.
    length, shape = d.int(1, 80) if d.int(0, 9) == 0 else d.int(1, 6), d.full(0, 2)
    inputs = [value("sum", TensorProto.FLOAT, shape), value("slice", TensorProto.FLOAT, shape)]
    outputs = [value("next", TensorProto.FLOAT, shape), value("each", TensorProto.FLOAT, shape)]
    nodes = [helper.make_node("Add", ["sum", "slice"], ["next"]), helper.make_node("Mul", ["next", "slice"], ["each"])]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    if d.int(0, 2) == 0:
        # Before opset 9: a batch of sequences, of lengths of their own or not.
        d.opset, batch = 8, d.int(1, 3)
        lens = d.rng.integers(1, length + 1, [batch]).astype(I64) if d.bool() else None
        states, slices = d.tensor([batch, *shape]), d.tensor([batch, length, *shape])
        return [lens, states, slices], {"body": body, "num_scan_inputs": 1, "directions": [d.int(0, 1)]}, 2
    axis, out_axis = d.int(0, len(shape)), d.int(0, len(shape))
    attributes = {
        "body": body,
        "num_scan_inputs": 1,
        "scan_input_axes": [axis],
        "scan_input_directions": [d.int(0, 1)],
        "scan_output_axes": [out_axis],
        "scan_output_directions": [d.int(0, 1)],
    }
    return [d.tensor(shape), d.tensor([*shape[:axis], length, *shape[axis:]])], attributes, 2
