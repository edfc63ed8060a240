"""Write ONNX's backend tests to target/test-data/onnx-backend, where tests/onnx_backend.rs finds them.

Each case is a folder CASE or KIND/CASE:

    model.onnx
    input_I.pb, output_I.pb    a TensorProto for the graph's I-th input or output, under that input's or output's name
    case.json                  category (of tests/onnx_backend/categories.json), rtol, atol, and not_tensors: the inputs
                               and outputs that are sequences, optionals or maps and so have no file

The onnx package builds the node cases in memory and brings the others along as files. Everything is rewritten when
this script, the categories or a package's version changed, and left alone otherwise.
"""

import hashlib
import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

ROOT = Path(__file__).resolve().parent.parent
CATEGORIES = ROOT / "tests" / "onnx_backend" / "categories.json"
OUT = ROOT / "target" / "test-data" / "onnx-backend"
KINDS = ["node", "simple", "pytorch-operator", "pytorch-converted"]


def tensor_proto(value, name):
    """`value`, an array or already a TensorProto, under the name `name`."""
    proto = TensorProto()
    proto.CopyFrom(value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value)))
    proto.name = name
    return proto


def values_of(case, model):
    """(role, index, graph value, data or None where that is no tensor) of a case's first data set."""
    graph_values = {"input": model.graph.input, "output": model.graph.output}
    if case.data_sets:
        for (role, infos), values in zip(graph_values.items(), case.data_sets[0]):
            for index, (info, value) in enumerate(zip(infos, values)):
                is_tensor = info.type.WhichOneof("value") == "tensor_type"
                yield role, index, info, value if is_tensor else None
        return
    folder = Path(case.model_dir) / "test_data_set_0"
    for role, infos in graph_values.items():
        for index in range(len(list(folder.glob(f"{role}_*.pb")))):
            info = infos[index]
            if info.type.WhichOneof("value") == "tensor_type":
                yield role, index, info, TensorProto.FromString((folder / f"{role}_{index}.pb").read_bytes())
            else:
                yield role, index, info, None


def write_case(kind, case, category):
    name = case.name if kind == "node" else f"{kind}/{case.name}"
    if name not in category:
        sys.exit(f"{name}: no category in {CATEGORIES.relative_to(ROOT)}")
    model = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
    folder = OUT / name
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    outputs = 0
    not_tensors = []
    for role, index, info, value in values_of(case, model):
        outputs += role == "output"
        if value is None:
            not_tensors.append(info.name)
        else:
            (folder / f"{role}_{index}.pb").write_bytes(tensor_proto(value, info.name).SerializeToString())
    if outputs == 0:
        sys.exit(f"{name}: a case without expected outputs tests nothing")
    facts = {"category": category[name], "rtol": case.rtol, "atol": case.atol, "not_tensors": not_tensors}
    (folder / "case.json").write_text(json.dumps(facts))


def main():
    warnings.filterwarnings("ignore")
    digest = hashlib.sha256(Path(__file__).read_bytes() + CATEGORIES.read_bytes())
    digest.update(f"{onnx.__version__} {np.__version__}".encode())
    stamp = OUT / "stamp"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    shutil.rmtree(OUT, ignore_errors=True)
    category = {name: group for group, names in json.loads(CATEGORIES.read_text()).items() for name in names}
    count = 0
    for kind in KINDS:
        for case in load_model_tests(kind=kind):
            write_case(kind, case, category)
            count += 1
    if count != len(category):
        sys.exit(f"{count} cases, but {len(category)} have a category")
    stamp.write_text(digest.hexdigest())
    size = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    print(f"{OUT.relative_to(ROOT)}: {count} cases, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
