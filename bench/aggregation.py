"""Our aggregation rules against Flower's on the same arrays, both from received bytes to the aggregate.

    OMP_NUM_THREADS=1 python bench/aggregation.py --flower-venv DIR [--json FILE]

Flower 1.41.0 runs in an environment of its own: DIR, made if it is not there (or `--flower-python` of an existing one).
Flower's process and ours take turns, one repetition each; a ratio is ours / Flower's of the same turn, reported as the
median with the lowest and highest turn. Flower adds float32; we add integers that come out the same on any machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atoll.training.aggregate import aggregate, rule_for
from atoll.training.aggregate.mean import mean
from atoll.training.aggregate.trimmed_mean import trimmed_mean
from atoll.training.aggregate.updates import Rows, Updates
from atoll.training.quantize import dequantise, quantise

FLOWER = "flwr==1.41.0"
SIZES = ((6, 20_000), (6, 100_000), (25, 100_000), (50, 1_000_000))
BITS = 24  # fractional bits of the grid on which the integers are

# What Flower's FedAvg, Krum and FedTrimmedAvg run on the replies that they have received and checked.
WORKER = """
import json, sys, time
import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

def record(row):
    return RecordDict({"arrays": ArrayRecord({"vector": Array(row)}), "metrics": MetricRecord({"num-examples": 1.0})})

def run(name, records, faulty):
    if name == "FedAvg":
        return aggregate_arrayrecords(records, "num-examples")
    if name == "Krum":
        return aggregate_arrayrecords(select_multikrum(records, faulty, 1), "num-examples")
    layers = [item["arrays"]["vector"].numpy() for item in records]
    return ArrayRecord({"vector": Array(np.asarray(trim_mean(np.stack(layers), (faulty + 0.001) / len(records))))})

records = []
for line in sys.stdin:
    command = json.loads(line)
    if "load" in command:
        records = [record(row) for row in np.load(command["load"])]
        answer = {}
    else:
        start = time.perf_counter()
        result = run(command["name"], records, command["faulty"])
        answer = {"seconds": time.perf_counter() - start, "head": result["vector"].numpy()[:1000].tolist()}
    print(json.dumps(answer), flush=True)
"""


class Flower:
    """A process of Flower's Python that times one aggregation at a time."""

    def __init__(self, python: Path) -> None:
        environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0"}
        environment.pop("PYTHONPATH", None)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-c", WORKER], stdin=pipe, stdout=pipe, text=True, env=environment
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        """One command, one answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def flower_python(arguments: argparse.Namespace) -> Path:
    """The Python that has Flower; its environment is made on the first run."""
    if arguments.flower_python:
        return Path(arguments.flower_python)
    folder = Path(arguments.flower_venv)
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder} with {FLOWER} (a minute or two) ...")
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", FLOWER], check=True)
    return python


def by_columns(updates: Sequence[bytes], length: int, rule: Callable[[Rows], np.ndarray]) -> np.ndarray:
    """A rule that looks at one column at a time, over all columns."""
    return np.concatenate([rule(columns) for _, columns in Updates(updates, length).chunks()])


def make_updates(count: int, length: int) -> list[bytes]:
    """Updates as a round has them: a common direction and noise of the same size."""
    generator = np.random.default_rng(count)
    direction = generator.normal(0, 1e5, length)
    return [quantise(np.rint(direction + generator.normal(0, 1e5, length)).astype(np.int64)) for _ in range(count)]


def measure(flower: Flower | None, folder: Path, count: int, length: int, turns: int) -> dict[str, Any]:
    """Seconds and ratios for one number of updates and one length; without Flower only our seconds."""
    updates, faulty = make_updates(count, length), rule_for(count).faulty
    rows = np.array([dequantise(update, length) for update in updates])
    if flower:
        np.save(folder / "rows.npy", (rows / 2.0**BITS).astype(np.float32))
        flower.ask(load=str(folder / "rows.npy"))
    ours: dict[str, Callable[[], np.ndarray]] = {
        "mean": lambda: by_columns(updates, length, mean),
        "trimmed mean": lambda: by_columns(updates, length, lambda columns: trimmed_mean(columns, faulty)),
        "rule": lambda: aggregate(updates, length),
    }
    theirs = ("FedAvg", "Krum", "FedTrimmedAvg") if flower else ()
    seconds: dict[str, list[float]] = {name: [] for name in (*ours, *theirs)}
    for turn in range(turns + 1):  # the first turn warms both up
        for name, run in ours.items():
            start = time.perf_counter()
            result = run()
            seconds[name].append(time.perf_counter() - start)
            if name == "mean" and turn == 0 and flower:
                head = np.array(flower.ask(name="FedAvg", faulty=faulty)["head"])
                assert np.abs(head - result[:1000] / 2.0**BITS).max() < 1e-6, "both must have the same arrays"
        for name in theirs:
            seconds[name].append(flower.ask(name=name, faulty=faulty)["seconds"] if flower else 0.0)
    seconds = {name: values[1:] for name, values in seconds.items()}
    pairs = [("mean", "FedAvg"), ("trimmed mean", "FedTrimmedAvg"), ("rule", "FedAvg"), ("rule", "Krum")]
    pairs = [pair for pair in pairs if pair[1] in seconds]
    return {
        "updates": count,
        "length": length,
        "rule": rule_for(count).name,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratios": {
            f"{a} / {b}": spread([x / y for x, y in zip(seconds[a], seconds[b], strict=True)]) for a, b in pairs
        },
    }


def _size(text: str) -> tuple[int, int]:
    count, _, length = text.partition(",")
    return int(count), int(length)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def show(result: dict[str, Any]) -> None:
    """One table for one size."""
    print(f"\n{result['updates']} updates of {result['length']:,} values; rule: {result['rule']}")
    for name, value in result["seconds"].items():
        print(
            f"  {name:30}{1e3 * value['median']:10.2f} ms  {1e3 * value['lowest']:.2f} to {1e3 * value['highest']:.2f}"
        )
    for name, value in result["ratios"].items():
        print(f"  {name:30}{value['median']:10.2f} x   {value['lowest']:.2f} to {value['highest']:.2f}")


def main() -> None:
    """Measure all sizes and print, or also write, the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flower-venv", default=".venv-flower", help="environment for Flower; made if it is not there")
    parser.add_argument("--flower-python", help="a Python that already has Flower")
    parser.add_argument("--no-flower", action="store_true", help="measure our rules alone")
    parser.add_argument("--sizes", nargs="+", type=_size, default=SIZES, help="updates,values pairs such as 6,100000")
    parser.add_argument("--turns", type=int, default=7, help="repetitions of each (default 7)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    flower = None if arguments.no_flower else Flower(flower_python(arguments))
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = []
            for count, length in arguments.sizes:
                results.append(measure(flower, Path(folder), count, length, arguments.turns))
                show(results[-1])
    finally:
        if flower:
            flower.close()
    if arguments.json:
        machine = {"python": platform.python_version(), "numpy": np.__version__, "flower": FLOWER}
        machine |= {"threads": os.environ.get("OMP_NUM_THREADS", "default"), "processor": platform.machine()}
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
