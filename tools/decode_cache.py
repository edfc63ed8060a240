"""Write what ONNX Runtime makes of a decoder's cache to target/test-data/decode_cache, for tests/device_tensors.rs.

One GroupQueryAttention with rotary embeddings, two sequences of different lengths and a cache with room for all
positions, in which past and present share one buffer: a prompt, then single tokens. Inputs and outputs of step N are
N_NAME.npy; cache_key.npy and cache_value.npy are the cache after the last step, first_*.npy before the first, when it
holds no zeros: what no step writes is to stay.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

OUT = Path(__file__).resolve().parent.parent / "target" / "test-data" / "decode_cache"
HEADS, KV_HEADS, SIZE, ROOM, PROMPT, STEPS = 4, 2, 16, 64, 5, 24
LENGTHS = [5, 3]  # of the prompts; the second one ends in padding
STAMP = f"{Path(__file__).read_text()}\n{onnxruntime.__version__}"


def model():
    f32, i32, i64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
    value = helper.make_tensor_value_info
    sizes = {"query": HEADS * SIZE, "key": KV_HEADS * SIZE, "value": KV_HEADS * SIZE}
    inputs = [value(name, f32, ["batch", "new", size]) for name, size in sizes.items()]
    caches = [value(f"past_{name}", f32, ["batch", KV_HEADS, "room", SIZE]) for name in ("key", "value")]
    mask = [value("mask", i64, ["batch", "total"]), value("lengths", i32, ["batch"])]
    angles = np.outer(np.arange(ROOM), 10000.0 ** (-np.arange(SIZE // 2) / (SIZE // 2)))
    tables = [helper.make_tensor(n, f32, angles.shape, t(angles).ravel()) for n, t in (("cos", np.cos), ("sin", np.sin))]
    # As exporters do: the total length is a size of the mask.
    nodes = [
        helper.make_node("Shape", ["mask"], ["total64"], start=1, end=2),
        helper.make_node("Squeeze", ["total64"], ["total0"]),
        helper.make_node("Cast", ["total0"], ["total"], to=i32),
        helper.make_node(
            "GroupQueryAttention",
            ["query", "key", "value", "past_key", "past_value", "lengths", "total", "cos", "sin"],
            ["y", "present_key", "present_value"],
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=KV_HEADS,
            do_rotary=1,
        ),
    ]
    outputs = [value("y", f32, None)] + [value(f"present_{name}", f32, None) for name in ("key", "value")]
    graph = helper.make_graph(nodes, "decode_cache", [*inputs, *caches, *mask], outputs, tables)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def main():
    if (OUT / "stamp").exists() and (OUT / "stamp").read_text() == STAMP:
        return
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    data = model().SerializeToString()
    (OUT / "model.onnx").write_bytes(data)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    shape = (len(LENGTHS), KV_HEADS, ROOM, SIZE)
    first = {name: rng.normal(size=shape).astype(np.float32) for name in ("key", "value")}
    caches = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array.copy()) for name, array in first.items()}
    lengths = np.array(LENGTHS, np.int32)
    for step in range(1 + STEPS):
        new = 1 if step else PROMPT
        feeds = {
            name: rng.normal(size=(len(LENGTHS), new, heads * SIZE)).astype(np.float32)
            for name, heads in (("query", HEADS), ("key", KV_HEADS), ("value", KV_HEADS))
        }
        lengths = lengths + 1 if step else lengths
        feeds["lengths"] = lengths - 1
        feeds["mask"] = np.ones((len(LENGTHS), lengths.max()), np.int64)
        binding = session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
            np.save(OUT / f"{step}_{name}.npy", array)
        for name, cache in caches.items():
            binding.bind_ortvalue_input(f"past_{name}", cache)
            binding.bind_ortvalue_output(f"present_{name}", cache)
        binding.bind_output("y")
        session.run_with_iobinding(binding)
        np.save(OUT / f"{step}_y.npy", binding.get_outputs()[-1].numpy())
    for name, cache in caches.items():
        np.save(OUT / f"first_{name}.npy", first[name])
        np.save(OUT / f"cache_{name}.npy", cache.numpy())
    (OUT / "stamp").write_text(STAMP)


if __name__ == "__main__":
    sys.exit(main())
