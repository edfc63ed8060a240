"""Make quantized and float16 variants of the models under target/test-data/models, with ONNX Runtime's own tools.

    quantize_models.py           what tests/models/quantized.txt marks as quick
    quantize_models.py --all     every row of it

A row is `MODEL VARIANT quick|slow TOLERANCE CASE...`. Variants:

    dynamic    int8 weights; activations are quantized by their range: DynamicQuantizeLinear, MatMulInteger, ConvInteger
    qdq        int8 weights per channel, uint8 activations of a calibrated range: QuantizeLinear, DequantizeLinear
    qoperator  the same numbers as QLinearConv, QLinearMatMul and the like
    q2, q4, q8 weights of 2, 4 or 8 bits in blocks of 32, with zero points: com.microsoft MatMulNBits
    float16    weights and activations; inputs and outputs stay float32

Writes MODEL-VARIANT.onnx and MODEL-VARIANT.cases beside the models, laid out as by fill_model.py, which makes what
this reads. Expected outputs are ONNX Runtime's on the CPU, of the variant, with its optimisations off.
"""

import argparse
import json
import logging
import shutil
import sys
import time
from pathlib import Path

import fill_model
import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16

OUT = fill_model.OUT
TABLE = fill_model.SOURCES / "quantized.txt"


class Batches(quantization.CalibrationDataReader):
    """The inputs of a model's cases, drawn anew."""

    def __init__(self, cases, count=2):
        batches = [(case, number) for case in cases for number in range(count)]
        self.left = iter([
            {spec["name"]: fill_model.make_input(spec, f"calibration {number} {case['name']}") for spec in case["inputs"]}
            for case, number in batches
        ])

    def get_next(self):
        return next(self.left, None)


def dynamic(source, to, _):
    quantization.quantize_dynamic(source, to, weight_type=quantization.QuantType.QInt8)


def static(form):
    def make(source, to, cases):
        quantization.quantize_static(source, to, Batches(cases), quant_format=form, per_channel=True)

    return make


def blocks(bits):
    def make(source, to, _):
        config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=False, bits=bits)
        quantizer = MatMulNBitsQuantizer(onnx.load(source), algo_config=config)
        quantizer.process()
        quantizer.model.save_model_to_file(str(to))

    return make


def float16(source, to, _):
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), to)


VARIANTS = {
    "dynamic": dynamic,
    "qdq": static(quantization.QuantFormat.QDQ),
    "qoperator": static(quantization.QuantFormat.QOperator),
    "q2": blocks(2),
    "q4": blocks(4),
    "q8": blocks(8),
    "float16": float16,
}


def make(name, variant, wanted):
    listing = json.loads((fill_model.SOURCES / f"{name}.cases.json").read_text())
    cases = {case["name"]: case for case in listing["cases"]}
    if unknown := set(wanted) - set(cases):
        sys.exit(f"{TABLE}: {name} has no case {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    source, target = OUT / f"{name}.onnx", OUT / f"{name}-{variant}.onnx"
    if not source.exists():
        sys.exit(f"{source} is missing: tools/fill_model.py makes it")
    base = fill_model.stamp_of(
        Path(__file__).read_bytes(), (OUT / f"{name}.stamp").read_text(), onnxruntime.__version__, variant, list(wanted)
    )
    stamp = OUT / f"{name}-{variant}.stamp"
    if fill_model.is_current(stamp, base, target):
        return
    begin = time.perf_counter()
    stamp.unlink(missing_ok=True)
    VARIANTS[variant](source, target, [cases[case] for case in wanted])
    reference = fill_model.open_reference(target)
    folders = OUT / f"{name}-{variant}.cases"
    shutil.rmtree(folders, ignore_errors=True)
    for case_name in wanted:
        inputs = {spec["name"]: fill_model.make_input(spec, case_name) for spec in cases[case_name]["inputs"]}
        names = [output.name for output in reference.get_outputs()]
        outputs = dict(zip(names, reference.run(None, inputs)))
        for value_name, array in outputs.items():
            if problem := fill_model.wrong_with(value_name, array, listing.get("may_be_constant", [])):
                sys.exit(f"{name} {variant}, {case_name}: {problem}")
        folder = folders / case_name
        folder.mkdir(parents=True)
        for role, arrays in ("input", inputs), ("output", outputs):
            for value_name, array in arrays.items():
                np.save(folder / f"{role}_{value_name.replace('/', '_')}.npy", array)
    stamp.write_text(base)
    size, seconds = target.stat().st_size / 1e6, time.perf_counter() - begin
    print(f"{target.name}: {size:.1f} MB, {len(wanted)} cases, {seconds:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the slow ones, too")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # the quantizers name every node that they leave as it is
    lines = TABLE.read_text().splitlines()
    for line in lines:
        if line.strip() and not line.startswith("#"):
            name, variant, pace, _, *cases = line.split()
            if args.all or pace == "quick":
                make(name, variant, cases)


if __name__ == "__main__":
    main()
