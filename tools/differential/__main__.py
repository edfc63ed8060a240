"""Make random models of one node and say what ONNX Runtime gives for them: the other half of tests/differential.rs.

Reads lines `OPERATOR SEED LIMIT` and answers each with the folder of the case, or with `skip REASON` where ONNX Runtime
refuses the model. Attributes, dtypes and shapes follow from the line alone; sizes are LIMIT at the most, and 0 now and
then. `list` answers with all operators. A folder is laid out as those of tools/onnx_backend.py.
"""

import json
import sys
from pathlib import Path

import arithmetic, control, microsoft, networks, shapes  # noqa: F401: their makers register themselves
import numpy as np
import onnx
import onnxruntime as ort
from draw import MAKERS, Draw
from onnx import helper, numpy_helper

OUT = Path(__file__).resolve().parent.parent.parent / "target" / "test-data" / "differential"


def results_of(model, formula, inputs, attributes, feeds):
    """What ONNX Runtime, or the operator's formula in float64, gives."""
    if formula:
        results = formula([x if x is None else x.astype(np.float64) for x in inputs], attributes)
        return [y.astype(np.float32) for y in results]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def make(name, seed, limit):
    draw = Draw(name, seed, limit)
    inputs, attributes, *count = MAKERS[name](draw)
    inputs = [x if x is None else np.asarray(x) for x in inputs]
    outputs = [f"y{i}" for i in range(count[0] if count else 1)]
    domain, _, op_type = name.rpartition(".")
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    node = helper.make_node(op_type, names[: len(names) - draw.captured], outputs, "node", domain=domain, **attributes)
    feeds = {name: x for name, x in zip(names, inputs) if x is not None}
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in feeds.items()]
    # ONNX Runtime works out the outputs' dtypes itself, and says what they are.
    some = draw.compared
    compared = [outputs[i] for i in some] if isinstance(some, list) else outputs[:some]
    graph = helper.make_graph([node], "case", infos, [onnx.ValueInfoProto(name=y) for y in compared])
    domains = {"": draw.opset, **({domain: 1} if domain else {})}
    opsets = [helper.make_opsetid(*item) for item in domains.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    try:
        results = results_of(model, draw.formula, inputs, attributes, feeds)
    except Exception as error:  # whatever it is, ONNX Runtime has no answer
        return "skip " + str(error).replace("\n", " ")[:200]
    del model.graph.output[:]
    for y, result in zip(compared, results):
        dtype = helper.np_dtype_to_tensor_dtype(result.dtype)
        model.graph.output.append(helper.make_tensor_value_info(y, dtype, None))
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    onnx.save(model, OUT / "model.onnx")
    for role, values in (("input", feeds), ("output", dict(zip(compared, results)))):
        for i, (name, value) in enumerate(values.items()):
            proto = numpy_helper.from_array(np.asarray(value), name)
            (OUT / f"{role}_{i}.pb").write_bytes(proto.SerializeToString())
    text = helper.printable_node(node)
    listed = ", ".join(f"{x.dtype}{list(x.shape)}" for x in feeds.values())
    (OUT / "case.json").write_text(json.dumps({"text": f"{text} of {listed}"}))
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
