"""Make runnable models, inputs and expected outputs from tests/models.

    fill_model.py                    the models and cases that tests/models/quick.txt lists
    fill_model.py --all              every case of every model
    fill_model.py minilm gpt2_6l     these models: every case
    fill_model.py minilm --only b1_s16,b3_s61

Reads NAME.topology.onnx and NAME.cases.json; writes, under target/test-data/models,

    NAME.onnx                                the model, its weights drawn from a seeded generator
    NAME.cases/CASE/input_INPUT.npy          an input (a `/` in a name becomes `_`)
    NAME.cases/CASE/output_OUTPUT.npy        what ONNX Runtime answers on the CPU with its optimisations off

Every tensor has a generator of its own, seeded by a digest of (seed, its name), so no draw depends on another.
What is already there and up to date is left alone: each model and each case has a stamp beside it, a digest of
all that it was made from.

In a topology, a tensor whose data was removed carries a JSON rule in its metadata_props under the key `fill`:

    normal     mean, std     x ~ N(mean, std^2)
    gamma      mean, std     a Gamma distribution of that mean and deviation: variances, scales
    constant   value         one value everywhere
    packed     zlib          the data itself: base64 of zlib
    integers   mean, std     N(mean, std^2), rounded, clipped to the range of the type
    nibbles    mean, std     a byte is two values of N(mean, std^2), rounded, clipped to 0..15, low one first

A rule's `name`, where there is one, replaces the tensor's name as the seed. The rules of NAME.cases.json are the
functions under "Inputs" below.
"""

import argparse
import base64
import hashlib
import json
import shutil
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "tests" / "models"
OUT = ROOT / "target" / "test-data" / "models"
SEED = 0


def generator(*key):
    """The random generator that belongs to `key`."""
    text = "\0".join(str(part) for part in key)
    state = hashlib.sha256(text.encode()).digest()[:16]
    return np.random.Generator(np.random.PCG64(int.from_bytes(state, "little")))


# Weights


def clipped(values, low, high):
    return np.clip(np.rint(values), low, high)


def draw_weight(rule, name, shape, dtype, data_type):
    """The data of a tensor that was removed, as an array of `dtype`."""
    rng = generator(SEED, rule.get("name", name))

    def gaussian(shape):
        return rule["mean"] + rule["std"] * rng.standard_normal(shape)

    match rule["kind"]:
        case "normal":
            values = gaussian(shape)
        case "gamma":
            mean, std = rule["mean"], rule["std"]
            values = rng.standard_gamma((mean / std) ** 2, shape) * (std**2 / mean)
        case "constant":
            values = np.full(shape, rule["value"])
        case "packed":
            raw = zlib.decompress(base64.b64decode(rule["zlib"]))
            return np.frombuffer(raw, dtype).reshape(shape)
        case "integers":
            limits = {
                TensorProto.INT8: (-128, 127),
                TensorProto.UINT8: (0, 255),
                TensorProto.INT4: (-8, 7),
                TensorProto.UINT4: (0, 15),
            }
            values = clipped(gaussian(shape), *limits[data_type])
        case "nibbles":
            low, high = clipped(gaussian((2, *shape)), 0, 15).astype(np.uint8)
            values = low | high << 4
        case kind:
            raise ValueError(f"tensor {name!r}: fill kind {kind!r} is not known")
    return values.astype(dtype)


def tensors(message):
    """All tensors in a message and in what it contains: initializers, attributes, subgraphs, functions."""
    if isinstance(message, TensorProto):
        yield message
        return
    for field, content in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for part in [content] if hasattr(content, "ListFields") else content:
            yield from tensors(part)


def fill(model):
    """Give every tensor of `model` that has a rule its data."""
    for tensor in tensors(model):
        rule = next((entry.value for entry in tensor.metadata_props if entry.key == "fill"), None)
        if rule is None:
            continue
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        data = draw_weight(json.loads(rule), tensor.name, tuple(tensor.dims), dtype, tensor.data_type)
        tensor.raw_data = onnx.numpy_helper.from_array(data).raw_data
        del tensor.metadata_props[:]


# Inputs: one function a rule, each (rng, spec) -> array, `spec` being the input's entry in NAME.cases.json.


def rule_normal(rng, spec):
    """N(mean, std^2)."""
    return spec["mean"] + spec["std"] * rng.standard_normal(spec["shape"])


def rule_waves(rng, spec):
    """Something like an image (axes = 2) or a sound (axes = 1): per leading index an offset, four plane waves and
    a little noise. White noise would average out in the first layers."""
    shape, axes = tuple(spec["shape"]), spec["axes"]
    first = len(shape) - axes
    per_field = shape[:first] + (1,) * axes
    field = 0.6 * rng.standard_normal(per_field) + 0.2 * rng.standard_normal(shape)
    for _ in range(4):
        phase = rng.uniform(0, 2 * np.pi, per_field)
        for axis in range(first, len(shape)):
            along = [1] * len(shape)
            along[axis] = -1
            position = np.arange(shape[axis]).reshape(along) / shape[axis]
            phase = phase + 2 * np.pi * rng.uniform(-8, 8, per_field) * position
        field = field + 0.55 * np.sin(phase)
    return spec["std"] * field


def rule_uniform(rng, spec):
    """low <= x < high."""
    return rng.uniform(spec["low"], spec["high"], spec["shape"])


def rule_integers(rng, spec):
    """Integers, low <= x < high."""
    return rng.integers(spec["low"], spec["high"], spec["shape"])


def rule_arange(_, spec):
    """start, start + 1, ... along the last axis."""
    shape = spec["shape"]
    return np.broadcast_to(spec["start"] + np.arange(shape[-1]), shape)


def rule_mask(_, spec):
    """Ones; of row i (the list `zeros` repeats) the first or last zeros[i] are zero."""
    mask = np.ones(spec["shape"])
    width = mask.shape[-1]
    for row, block in enumerate(mask):
        count = spec["zeros"][row % len(spec["zeros"])]
        where = slice(0, count) if spec["at"] == "start" else slice(width - count, width)
        block[..., where] = 0
    return mask


def rule_constant(_, spec):
    """One value everywhere."""
    return np.full(spec["shape"], spec["value"])


def rule_values(_, spec):
    """Given in full."""
    return np.array(spec["values"]).reshape(spec["shape"])


def make_input(spec, case):
    rule = globals().get("rule_" + spec["rule"])
    if rule is None:
        raise ValueError(f"case {case!r}, input {spec['name']!r}: rule {spec['rule']!r} is not known")
    array = rule(generator(SEED, case, spec["name"]), spec)
    return np.ascontiguousarray(array.astype(spec["dtype"]))


# Files


def stamp_of(*parts):
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def is_current(stamp_path, stamp, made):
    return made.exists() and stamp_path.exists() and stamp_path.read_text() == stamp


def wrong_with(name, array, may_be_constant):
    """Why an expected output could hide an error, or None."""
    if not np.isfinite(array.astype(np.float64)).all():
        return f"{name} is not finite"
    if name not in may_be_constant and array.size > 1 and (array == array.flat[0]).all():
        return f"{name} is the same value everywhere"
    return None


def open_reference(path):
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def make(name, wanted):
    """Bring model `name` up to date, and its cases in `wanted` (all of them where it is None)."""
    topology = (SOURCES / f"{name}.topology.onnx").read_bytes()
    listing = json.loads((SOURCES / f"{name}.cases.json").read_text())
    cases = {case["name"]: case for case in listing["cases"]}
    if unknown := set(wanted or ()) - set(cases):
        sys.exit(f"{name}: no case {', '.join(sorted(unknown))}; there are {', '.join(cases)}")

    versions = [np.__version__, onnx.__version__, onnxruntime.__version__]
    base = stamp_of(Path(__file__).read_bytes(), topology, versions)
    model_path, model_stamp = OUT / f"{name}.onnx", OUT / f"{name}.stamp"
    if not is_current(model_stamp, base, model_path):
        model = onnx.load_from_string(topology)
        fill(model)
        OUT.mkdir(parents=True, exist_ok=True)
        model_stamp.unlink(missing_ok=True)
        onnx.save(model, model_path)
        model_stamp.write_text(base)
        print(f"{model_path.relative_to(ROOT)}: {model_path.stat().st_size / 1e6:.1f} MB")

    reference = None
    for case_name in wanted or cases:
        folder = OUT / f"{name}.cases" / case_name
        stamp = stamp_of(base.encode(), listing.get("may_be_constant", []), cases[case_name])
        if is_current(folder / "stamp", stamp, folder):
            continue
        begin = time.perf_counter()
        reference = reference or open_reference(model_path)
        output_names = [output.name for output in reference.get_outputs()]
        inputs = {spec["name"]: make_input(spec, case_name) for spec in cases[case_name]["inputs"]}
        outputs = dict(zip(output_names, reference.run(None, inputs)))
        problems = [wrong_with(n, a, listing.get("may_be_constant", [])) for n, a in outputs.items()]
        if problems := [problem for problem in problems if problem]:
            sys.exit(f"{name}, {case_name}: {'; '.join(problems)}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for role, arrays in ("input", inputs), ("output", outputs):
            for value_name, array in arrays.items():
                np.save(folder / f"{role}_{value_name.replace('/', '_')}.npy", array)
        (folder / "stamp").write_text(stamp)
        print(f"{name} {case_name}: {len(outputs)} outputs, {time.perf_counter() - begin:.1f} s")


def quick_cases():
    lines = (SOURCES / "quick.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return {name: cases for name, *cases in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models; without any, what quick.txt lists")
    parser.add_argument("--all", action="store_true", help="every case of every model")
    parser.add_argument("--only", metavar="CASE,...", help="of the named models these cases alone")
    args = parser.parse_args()
    known = sorted(path.name.removesuffix(".topology.onnx") for path in SOURCES.glob("*.topology.onnx"))
    if unknown := set(args.names) - set(known):
        sys.exit(f"no model {', '.join(sorted(unknown))} in tests/models; there are {', '.join(known)}")
    if args.only and not args.names:
        sys.exit("--only wants the name of a model")
    if args.names or args.all:
        only = args.only.split(",") if args.only else None
        jobs = {name: only for name in args.names or known}
    else:
        jobs = quick_cases()
    for name, cases in jobs.items():
        make(name, cases)


if __name__ == "__main__":
    main()
