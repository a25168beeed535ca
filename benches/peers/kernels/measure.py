"""How long do other libraries take for one row of the benchmark's tree model, on one thread?

    .runtime/peers/kernels/bin/python benches/peers/kernels/measure.py [--output FILE]

Prints JSON: CPU time per row in microseconds, per library and batch, as median, lowest and highest
of the rounds. Rows and model are those of benches/workload/make.py: XGBoost, 200 trees of depth 6,
29 features, and every library scores these very trees:

- XGBoost's own predictor (inplace_predict) and ONNX Runtime interpret them;
- tl2cgen turns them (read by Treelite) into C for gcc -O3 -march=native, as it comes and with
  `quantize`, which compares integers in place of floats;
- LightGBM's own predictor interprets them and lleaves compiles them with LLVM, both from a
  LightGBM file that as_lightgbm.py writes.

Scores are compared with XGBoost's before anything is timed. Libraries take turns within a round, as
machines are not the same from one minute to the next. What they need done once per batch and could
reuse (tl2cgen's matrix) is not counted.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

# Before the libraries come in, some of which ask only then.
os.environ["OMP_NUM_THREADS"] = "1"

import lightgbm
import lleaves
import numpy as np
import numpy.typing as npt
import onnxruntime
import tl2cgen
import treelite
import xgboost
from as_lightgbm import as_lightgbm

REPOSITORY = Path(__file__).resolve().parents[3]
BATCHES = (512, 1024, 4096)
# A multiple of every batch; 7 MB of rows, more than the second cache holds.
ROWS = 65_536
# Thresholds are 32-bit floats everywhere, sums are not.
TOLERANCE = 1e-5

Rows = npt.NDArray[np.float32]


@dataclass
class Library:
    name: str
    packages: list[str]
    # What prepares one batch, uncounted, and what scores it.
    score: Callable[[Any], npt.NDArray[Any]]
    prepare: Callable[[Rows], Any] = field(default=lambda rows: rows)


def read_rows(path: Path, count: int) -> Rows:
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line)["data"][0] for line, _ in zip(file, range(count), strict=False)]
    return np.array(rows, dtype=np.float32)


def with_onnxruntime(model: Path) -> Library:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return Library(
        "ONNX Runtime",
        ["onnxruntime"],
        lambda rows: session.run(["probabilities"], {"input": rows})[0][:, 1],
    )


def compiled(model: Path, folder: Path, name: str, options: dict[str, int]) -> Library:
    library = folder / f"{'-'.join(['trees', *options])}.so"
    tl2cgen.export_lib(
        treelite.frontend.load_xgboost_model(model),
        toolchain="gcc",
        libpath=library,
        params=options | {"parallel_comp": 8},
        options=["-O3", "-march=native"],
        verbose=False,
    )
    predictor = tl2cgen.Predictor(library, nthread=1)
    return Library(
        name,
        ["treelite", "tl2cgen"],
        lambda matrix: predictor.predict(matrix).reshape(-1),
        lambda rows: tl2cgen.DMatrix(rows, dtype="float32"),
    )


def same_scores(library: Library, rows: Rows, reference: npt.NDArray[Any]) -> None:
    difference = np.abs(library.score(library.prepare(rows)) - reference).max()
    if not difference <= TOLERANCE:
        raise SystemExit(f"{library.name} differs from XGBoost by {difference}")


def microseconds_per_row(library: Library, batches: list[Any], seconds: float, size: int) -> float:
    rows = 0
    begin = time.process_time()
    for batch in cycle(batches):
        library.score(batch)
        rows += size
        taken = time.process_time() - begin
        if taken >= seconds:
            return taken / rows * 1e6
    raise AssertionError("cycle has no end")


def libraries(workload: Path, rows: Rows, folder: Path) -> list[Library]:
    """Those to measure, each found right."""
    native = workload / "xgb/native.ubj"
    booster = xgboost.Booster({"nthread": 1}, model_file=native)
    text = folder / "lightgbm.txt"
    text.write_text(as_lightgbm(booster), encoding="utf-8")
    by_lightgbm = lightgbm.Booster(model_file=text)
    by_lleaves = lleaves.Model(model_file=text)
    # As it comes (blocks of 34 trees, large code) it takes 1.4 times as long.
    by_lleaves.compile(fblocksize=10, fcodemodel="small")
    all_of_them = [
        Library("XGBoost", ["xgboost-cpu"], booster.inplace_predict),
        with_onnxruntime(workload / "xgb/model.onnx"),
        compiled(native, folder, "Treelite, tl2cgen", {}),
        compiled(native, folder, "Treelite, tl2cgen, quantize", {"quantize": 1}),
        Library("LightGBM", ["lightgbm"], lambda rows: by_lightgbm.predict(rows, num_threads=1)),
        Library("lleaves", ["lleaves"], lambda rows: by_lleaves.predict(rows, n_jobs=1)),
    ]
    scores = booster.inplace_predict(rows)
    for library in all_of_them:
        same_scores(library, rows, scores)
    return all_of_them


def machine() -> str:
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.split(":", 1)[1].strip() for line in cpu.splitlines() if "model name" in line]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} CPUs"


def measure(workload: Path, rounds: int, seconds: float) -> dict[str, Any]:
    rows = read_rows(workload / "records.jsonl", ROWS)
    with tempfile.TemporaryDirectory() as folder:
        contenders = libraries(workload, rows, Path(folder))
        cells = []
        for size in BATCHES:
            # Of one form for all: rows in memory, one array per batch.
            parts = [np.ascontiguousarray(rows[at : at + size]) for at in range(0, ROWS, size)]
            prepared = [[library.prepare(part) for part in parts] for library in contenders]
            times: list[list[float]] = [[] for _ in contenders]
            for number in range(rounds):
                print(f"batch {size}, round {number + 1} of {rounds}", file=sys.stderr)
                for library, batches, taken in zip(contenders, prepared, times, strict=True):
                    taken.append(microseconds_per_row(library, batches, seconds, size))
            for library, taken in zip(contenders, times, strict=True):
                cells.append(
                    {
                        "library": library.name,
                        "versions": {package: version(package) for package in library.packages},
                        "batch": size,
                        "microseconds_per_row": round(statistics.median(taken), 4),
                        "lowest": round(min(taken), 4),
                        "highest": round(max(taken), 4),
                    }
                )
    return {
        "machine": machine(),
        "python": platform.python_version(),
        "model": "200 trees of depth 6, 29 features",
        "rounds": rounds,
        "results": cells,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--workload", type=Path, default=REPOSITORY / ".runtime/bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="per library, batch and round")
    parser.add_argument("--output", type=Path, help="a file instead of standard output")
    options = parser.parse_args()
    # Standard output is for the report: what the libraries have to say goes to standard error.
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    report = json.dumps(measure(options.workload, options.rounds, options.seconds), indent=2)
    with options.output.open("w") if options.output else os.fdopen(output, "w") as file:
        file.write(report + "\n")


if __name__ == "__main__":
    main()
