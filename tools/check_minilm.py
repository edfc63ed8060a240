"""Check target/demo/minilm.onnx, and write what tests/minilm.rs compares with to target/test-data/minilm.

The graph that tools/minilm.py writes is ours, so three things that are not ours judge it, on the sentences below:

    exporter    ONNX Runtime on the exporter's own graph of this network (tests/models/minilm.topology.onnx) with the
                package's weights put into it
    float64     the network's definition as straight numpy, in float64
    meaning     the embeddings themselves: of each pair of sentences that mean the same, either finds the other

Written: sentences.txt; input_ids.npy and attention_mask.npy, int64 [12, sequence], padded with zeros; and ONNX Runtime's
embeddings.npy, float32 [12, 384].
"""

import hashlib
import math
import sys
import unicodedata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load

import minilm

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "target" / "test-data" / "minilm"
TOPOLOGY = ROOT / "tests" / "models" / "minilm.topology.onnx"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"

# Pairs of one meaning, of different lengths, with capitals, accents, digits, punctuation and rare words.
SENTENCES = [
    "The cat is sleeping on the sofa.",
    "A kitten naps on the couch",
    "How do I reset my password?",
    "I forgot my login credentials, what can I do to get back into my account?",
    "Stock markets fell sharply on Monday after the central bank raised interest rates by 0.75%.",
    "Shares dropped as borrowing became dearer.",
    "Photosynthesis turns sunlight, water and carbon dioxide into sugar and oxygen.",
    "Plants make their food from light.",
    "The naïve café owner hired a sous-chef from Zürich.",
    "A restaurateur recruited a Swiss cook",
    "The orchestra tuned its instruments before the première of the symphony, and the audience fell silent.",
    "Musicians got ready for the concert",
]
MOST_TOKENS = 256


# WordPiece, as BERT's uncased models define it.


def is_punctuation(c):
    ascii_symbol = c.isascii() and c.isprintable() and not c.isalnum() and not c.isspace()
    return ascii_symbol or unicodedata.category(c).startswith("P")


def words_of(sentence):
    decomposed = unicodedata.normalize("NFD", sentence.lower())
    plain = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
    spaced = "".join(f" {c} " if is_punctuation(c) else c for c in plain)
    return spaced.split()


def pieces_of(word, vocabulary):
    """The longest known piece first, then of the rest; a word with an unknown rest is [UNK] as a whole."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                pieces.append(vocabulary[piece])
                start = end
                break
        else:
            return [vocabulary["[UNK]"]]
    return pieces


def tokenize(sentences, vocabulary):
    rows = []
    for sentence in sentences:
        pieces = [piece for word in words_of(sentence) for piece in pieces_of(word, vocabulary)]
        rows.append([vocabulary["[CLS]"], *pieces[: MOST_TOKENS - 2], vocabulary["[SEP]"]])
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


# The network in float64.


def norm(x, scale, shift):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * scale + shift


ERF = np.vectorize(math.erf)


def forward64(weights, ids, mask):
    """(last hidden state, sentence embedding), one sentence at a time and without its padding."""
    w = {name: array.astype(np.float64) for name, array in weights.items() if array.dtype.kind == "f"}
    hidden = np.zeros((*ids.shape, 384))
    embedding = np.zeros((len(ids), 384))
    for row in range(len(ids)):
        n = int(mask[row].sum())
        x = w["embeddings.word_embeddings.weight"][ids[row, :n]]
        x = x + w["embeddings.position_embeddings.weight"][:n] + w["embeddings.token_type_embeddings.weight"][0]
        x = norm(x, w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"])
        for layer in range(6):

            def dense(x, name):
                name = f"encoder.layer.{layer}.{name}"
                return np.einsum("si,oi->so", x, w[name + ".weight"]) + w[name + ".bias"]

            def dense_add_norm(x, residual, name):
                prefix = f"encoder.layer.{layer}.{name}.LayerNorm"
                return norm(dense(x, name + ".dense") + residual, w[prefix + ".weight"], w[prefix + ".bias"])

            q, k, v = (dense(x, f"attention.self.{part}").reshape(n, 12, 32) for part in ("query", "key", "value"))
            score = np.exp(np.einsum("ihd,jhd->hij", q, k) / math.sqrt(32))
            share = score / score.sum(-1, keepdims=True)
            context = np.einsum("hij,jhd->ihd", share, v).reshape(n, 384)
            x = dense_add_norm(context, x, "attention.output")
            inner = dense(x, "intermediate.dense")
            x = dense_add_norm(inner * 0.5 * (1 + ERF(inner / math.sqrt(2))), x, "output")
        hidden[row, :n] = x
        mean = x.mean(0)
        embedding[row] = mean / np.linalg.norm(mean)
    return hidden, embedding


# The exporter's graph with the real weights.


def exported(weights):
    """Put `weights` where the topology's data was removed. A matrix carries no telling name there, so it is known by
    the bias that is added to its product."""
    model = onnx.load(TOPOLOGY)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = {name: node for node in model.graph.node for name in node.input}
    filled = 0

    def put(tensor, array):
        nonlocal filled
        if tuple(tensor.dims) != array.shape:
            sys.exit(f"{tensor.name}: the topology has shape {list(tensor.dims)}, the weights {list(array.shape)}")
        tensor.raw_data = np.ascontiguousarray(array, np.float32).tobytes()
        del tensor.metadata_props[:]
        filled += 1

    for name, array in weights.items():
        if array.dtype.kind == "f" and f"m.{name}" in tensors:
            put(tensors[f"m.{name}"], array)
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            add = readers[node.output[0]]
            bias = next(name for name in add.input if name.endswith(".bias"))
            weight = bias.removeprefix("m.").removesuffix("bias") + "weight"
            put(tensors[node.input[1]], weights[weight].T)
    floats = sum(1 for array in weights.values() if array.dtype.kind == "f")
    left = [tensor.name for tensor in model.graph.initializer if tensor.metadata_props]
    # The pooler of the original network is not part of the graph: two tensors.
    if left or filled != floats - 2:
        sys.exit(f"{TOPOLOGY.name}: {filled} of {floats - 2} weights placed; still empty: {left}")
    return model.SerializeToString()


def run(model, ids, mask):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return session.run(None, feeds)


def relative(got, want):
    return float(np.abs(got - want).max() / np.abs(want).max())


def require(what, value, limit):
    print(f"minilm: {what}: {value:.1e} (at most {limit:.0e})")
    if not value <= limit:
        sys.exit(f"minilm: {what} is off by {value:.3e}, more than {limit:.0e}")


def main():
    stamp = OUT / "stamp"
    digest = hashlib.sha256(Path(__file__).read_bytes() + Path(minilm.__file__).read_bytes() + TOPOLOGY.read_bytes())
    digest.update(f"{onnxruntime.__version__} {np.__version__}".encode())
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    model_path = minilm.OUT / "minilm.onnx"
    if not model_path.exists():
        sys.exit(f"{model_path.relative_to(ROOT)} is missing: run tools/minilm.py")
    weights = load(minilm.package_file("model.safetensors", minilm.WEIGHTS_SHA256).read_bytes())
    vocabulary_lines = minilm.package_file("vocab.txt", VOCABULARY_SHA256).read_text(encoding="utf-8").split("\n")
    vocabulary = {piece: i for i, piece in enumerate(vocabulary_lines)}
    ids, mask = tokenize(SENTENCES, vocabulary)
    real = mask.astype(bool)

    hidden, embedding = run(str(model_path), ids, mask)
    (exporter,) = run(exported(weights), ids, mask)
    hidden64, embedding64 = forward64(weights, ids, mask)
    require("last_hidden_state against the exporter's graph", relative(hidden[real], exporter[real]), 1e-5)
    require("last_hidden_state against float64", relative(hidden[real], hidden64[real]), 1e-5)
    require("sentence_embedding against float64", relative(embedding, embedding64), 1e-5)

    alike = embedding @ embedding.T
    np.fill_diagonal(alike, -1)
    for i, j in enumerate(alike.argmax(1)):
        if j != i ^ 1:
            sys.exit(f"minilm: {SENTENCES[i]!r} is closest to {SENTENCES[j]!r}")

    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "sentences.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    for name, array in ("input_ids", ids), ("attention_mask", mask), ("embeddings", embedding):
        np.save(OUT / f"{name}.npy", array)
    stamp.write_text(digest.hexdigest())


if __name__ == "__main__":
    main()
