#!/usr/bin/env python3
"""Time networks here and in ONNX Runtime's WebGPU provider, on the same adapter, in turns.

    against_onnxruntime.py --result FILE [CASE...] [--rounds 5] [--seconds 3] [--tune SECONDS]

A case is NAME/CASE, as `tools/fill_model.py --all` writes them to target/test-data/models; without any, all are run. In
every round each engine runs in a fresh process, in turn: it loads the model, answers once, and goes on answering for
`--seconds`, at least once. With `--tune` ours first tunes the case for so long, from an empty store, and reads what it
found; that is not timed. All outputs are compared with ONNX Runtime's on the CPU, and an error of more than 1e-4 of an
output's largest value fails the case.

The result is one JSON file, to which the cases run are added: of each engine the first answer's milliseconds (with the
loading), and of the steady runs the least and the median; `ratio` is theirs by ours, of the least. A summary is printed.

The adapter is what the Vulkan loader offers first; VK_DRIVER_FILES picks another, and ONNX Runtime's library may want
VK_ICD_FILENAMES to say the same. Dawn refuses lavapipe before Mesa 23 unless a Vulkan layer helps. First answers are
cold where the driver's own cache is off (MESA_SHADER_CACHE_DISABLE=true).
"""
import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "target/test-data/models"
PROGRAM = ROOT / "target/release/tilewright"
TOLERANCE = 1e-4


def arrays(case, kind):
    """The arrays of a case's files, by name: `kind` is input or output."""
    return {file.stem.removeprefix(f"{kind}_"): file for file in sorted(case.glob(f"{kind}_*.npy"))}


def error(case, got):
    """The largest error of any output, as a share of its largest value."""
    worst = 0.0
    for name, file in arrays(case, "output").items():
        want = np.load(file).astype(np.float64)
        have = np.asarray(got[name], np.float64)
        if have.shape != want.shape:
            sys.exit(f"{case}: output {name} has shape {have.shape}, wanted {want.shape}")
        if not np.isfinite(have).all():
            return math.inf
        if want.size:
            worst = max(worst, float(np.abs(have - want).max() / max(np.abs(want).max(), 1e-6)))
    return worst


def steady(run, seconds):
    """The times of `run` for so long, at least one; in milliseconds."""
    times, start = [], time.perf_counter()
    while not times or time.perf_counter() - start < seconds:
        times.append(run())
    return times


def theirs(model, case, seconds):
    """One round of ONNX Runtime, in this process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    provider = "WebGpuExecutionProvider"
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(model, options, providers=[provider, "CPUExecutionProvider"])
    if session.get_providers()[0] != provider:
        sys.exit(f"against_onnxruntime.py: {provider} is not active, but {session.get_providers()}")
    wanted = {value.name.replace("/", "_"): value.name for value in session.get_inputs()}
    feeds = {wanted[name]: np.load(file) for name, file in arrays(case, "input").items() if name in wanted}
    outputs = session.run(None, feeds)
    first = (time.perf_counter() - start) * 1e3

    def run():
        start = time.perf_counter()
        session.run(None, feeds)
        return (time.perf_counter() - start) * 1e3

    runs = steady(run, seconds)
    got = dict(zip((value.name.replace("/", "_") for value in session.get_outputs()), outputs))
    return {"version": onnxruntime.__version__, "first_ms": first, "runs_ms": runs, "error": error(case, got)}


def call(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def inputs(case):
    return [word for name, file in arrays(case, "input").items() for word in ("--input", f"{name}={file}")]


def ours(model, case, seconds, records, last):
    """One round of ours, in a process of its own; `last` is the time of a run as known, or None."""
    repeat = max(1, math.ceil(seconds * 1e3 / last)) if last else 1
    with tempfile.TemporaryDirectory() as folder:
        store = ["--records", records] if records else ["--no-records"]
        found = call([PROGRAM, "run", model, *inputs(case), *store, "--repeat", str(repeat), "--output-dir", folder, "--json"])
        got = {name: np.load(file) for name, file in ((f.stem, f) for f in Path(folder).glob("*.npy"))}
    return {
        "version": found["adapter"],
        "first_ms": found["load_ms"] + found["first_ms"],
        "runs_ms": found["runs_ms"],
        "error": error(case, got),
    }


def measure(name, rounds, seconds, tune):
    """One case: what each engine took."""
    model, case = MODELS / f"{name.split('/')[0]}.onnx", MODELS / f"{name.split('/')[0]}.cases" / name.split("/")[1]
    if not case.is_dir():
        sys.exit(f"{name}: there is no {case}. `tools/fill_model.py --all` makes it.")
    with tempfile.TemporaryDirectory() as folder:
        records = None
        if tune:
            records = f"{folder}/records.jsonl"
            shapes = [word for name, file in arrays(case, "input").items() for word in ("--input", f"{name}={file}")]
            subprocess.run([PROGRAM, "tune", model, *shapes, "--records", records, "--budget", str(tune)],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seen = {"tilewright": [], "onnxruntime": []}
        for _ in range(rounds):
            last = min((ms for round in seen["tilewright"] for ms in round["runs_ms"]), default=None)
            seen["tilewright"].append(ours(model, case, seconds, records, last))
            seen["onnxruntime"].append(call([sys.executable, __file__, "--theirs", model, case, str(seconds)]))
    row = {}
    for engine, found in seen.items():
        runs = [ms for round in found for ms in round["runs_ms"]]
        row[engine] = {
            "first_ms": round(min(one["first_ms"] for one in found), 1),
            "min_ms": round(min(runs), 2),
            "median_ms": round(statistics.median(runs), 2),
            "runs": len(runs),
            "error": float(f"{max(one['error'] for one in found):.1e}"),
        }
    row["ratio"] = round(row["onnxruntime"]["min_ms"] / row["tilewright"]["min_ms"], 2)
    row["tuned_s"] = tune
    row["rounds"] = rounds
    return row, {engine: found[0]["version"] for engine, found in seen.items()}


def all_cases():
    names = [f.name.removesuffix(".topology.onnx") for f in (ROOT / "tests/models").glob("*.topology.onnx")]
    return [f"{name}/{case.name}" for name in sorted(names) for case in sorted((MODELS / f"{name}.cases").glob("*"))]


def summary(result):
    print(f"{'case':32} {'ours':>9} {'theirs':>10} {'ratio':>7}  first, ours and theirs")
    for name, row in sorted(result["cases"].items()):
        a, b = row["tilewright"], row["onnxruntime"]
        print(f"{name:32} {a['min_ms']:9.1f} {b['min_ms']:10.1f} {row['ratio']:6.1f}x {a['first_ms']:9.0f} {b['first_ms']:9.0f} ms")
    ratios = [row["ratio"] for row in result["cases"].values()]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"{len(ratios)} cases: geometric mean {mean:.1f}x, least {min(ratios):.1f}x")


def main():
    if sys.argv[1:2] == ["--theirs"]:
        model, case, seconds = sys.argv[2:]
        print(json.dumps(theirs(model, Path(case), float(seconds))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--result", required=True, type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--tune", type=float, default=0.0, metavar="SECONDS")
    args = parser.parse_args()
    result = json.loads(args.result.read_text()) if args.result.exists() else {"cases": {}}
    for name in args.cases or all_cases():
        row, versions = measure(name, args.rounds, args.seconds, args.tune)
        for engine in versions:
            if row[engine]["error"] > TOLERANCE:
                sys.exit(f"{name}: {engine} is off by {row[engine]['error']:.1e} of the largest value")
        result["versions"] = versions
        result["cases"][name] = row
        args.result.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
        print(f"{name}: {row['ratio']}x", flush=True)
    summary(result)


if __name__ == "__main__":
    main()
