"""Write examples/data/mlp.onnx: probabilities = softmax(relu(x W1 + b1) W2 + b2), x: [batch, 4], 3 classes.

usage: python3 tools/mlp.py

The weights are drawn once from a fixed seed. The file is small enough to live in the repository: the README's
example and the documentation's tests run it.
"""
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def main():
    rng = np.random.Generator(np.random.PCG64(1))
    weights = {"W1": (4, 8), "b1": (8,), "W2": (8, 3), "b2": (3,)}
    nodes = [
        helper.make_node("Gemm", ["x", "W1", "b1"], ["hidden"], name="layer1"),
        helper.make_node("Relu", ["hidden"], ["active"], name="relu"),
        helper.make_node("Gemm", ["active", "W2", "b2"], ["logits"], name="layer2"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    out = Path(__file__).parent.parent / "examples/data/mlp.onnx"
    onnx.save(model, out)
    print(f"{out.name}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
