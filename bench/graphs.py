"""Time and accuracy of training steps: the zoo's graphs against PyTorch, and in the browser's runtime.

python bench/graphs.py [--json FILE] [--models a,b] [--steps 100]     (needs the extra `torch`)

Each model trains from the same first weights on the same batches, with its stated learning rate and the gradient's
norm clipped at 1, in torch eager, by torch.compile, by our engine, and by ONNX Runtime Web under Node (after `npm ci
--ignore-scripts` in bench/web). All on one thread. Blocks of ten steps take turns, so that what else the machine does
hits all alike; a ratio is taken block by block. CPU time, which a busy machine disturbs less than wall time; for the
engine as a node uses it that of both processes. The distance is that of all parameters as one vector from torch's,
relative L2, after the steps.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import numpy as np
import torch
from batches import batches
from contestants import Contestant, Missing, Native, Piped, Task, Tensors, Torch, Web
from rich.console import Console
from rich.table import Table

from atoll.graph.zoo import NAMES, load_zoo

BLOCK = 10
OURS, EAGER, COMPILED, PIPED, BROWSER = "atoll", "torch", "torch_compile", "engine", "web"
MAKERS = {
    EAGER: Torch,
    OURS: Native,
    PIPED: Piped,
    COMPILED: lambda task: Torch(task, compiled=True),
    BROWSER: Web,
}


def distance(found: Tensors, expected: Tensors) -> float:
    """Relative L2 distance of all parameters as one vector."""
    off = sum(float(np.square(found[name].astype(np.float64) - value).sum()) for name, value in expected.items())
    return math.sqrt(off / sum(float(np.square(value.astype(np.float64)).sum()) for value in expected.values()))


def turns(task: Task, contestants: dict[str, Contestant], passes: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Milliseconds a step of each block, and the distances from torch after the first pass."""
    steps = len(task.x)
    times: dict[str, list[float]] = {key: [] for key in contestants}
    distances: dict[str, Any] = {}
    for turn in range(passes):
        for first in range(0, steps, BLOCK):
            last = min(first + BLOCK, steps)
            for key, contestant in contestants.items():
                times[key].append(contestant.block(first, last, turn * steps + first) / (last - first))
        if turn == 0:
            distances = _distances(contestants)
            contestants = {key: one for key, one in contestants.items() if key != BROWSER}  # it ended with its answer
    return times, distances


def _distances(contestants: dict[str, Contestant]) -> dict[str, float]:
    expected = contestants[EAGER].tensors()
    return {key: distance(one.tensors(), expected) for key, one in contestants.items() if key != EAGER}


def enter(task: Task, wanted: list[str]) -> tuple[dict[str, Contestant], dict[str, str]]:
    """The contestants that can take part, and why the others cannot."""
    found: dict[str, Contestant] = {}
    missing: dict[str, str] = {}
    for key in wanted:
        try:
            found[key] = MAKERS[key](task)
        except Missing as reason:
            missing[key] = str(reason)
    return found, missing


def measure(name: str, steps: int, passes: int, wanted: list[str]) -> dict[str, Any]:
    """All numbers of one model."""
    job = load_zoo(name)
    task = Task(name, job, *batches(job.spec, steps))
    contestants, missing = enter(task, wanted)
    try:
        times, distances = turns(task, contestants, passes)
    finally:
        for one in contestants.values():
            one.close()
    times = {key: values[1:] if len(values) > 1 else values for key, values in times.items()}  # the first warms up
    row: dict[str, Any] = {
        "name": name,
        "parameters": sum(tensor.size for tensor in job.spec.tensors if tensor.role == "parameter"),
        "step_bytes": len(job.step),
        "batch": job.spec.batch,
        "steps": steps,
        "learning_rate": job.spec.hyper.learning_rate,
        "ms": {key: _spread(values) for key, values in times.items()},
        "missing": missing,
        "relative_l2": distances[OURS],
        "relative_l2_all": distances,
    }
    for key, values in times.items():
        if key != EAGER:
            low, middle, high = np.percentile(np.array(values) / np.array(times[EAGER][: len(values)]), [10, 50, 90])
            row[f"{key}_over_torch"] = round(float(middle), 3)
            row[f"{key}_over_torch_spread"] = [round(float(low), 3), round(float(high), 3)]
    return row


def _spread(values: list[float]) -> dict[str, float]:
    low, middle, high = (round(float(one), 4) for one in np.percentile(values, [10, 50, 90]))
    return {"median": middle, "p10": low, "p90": high}


def show(rows: list[dict[str, Any]], mean: float) -> None:
    """The table for people."""
    table = Table(title="milliseconds a step: median (ratio to torch eager, 10th to 90th percentile)")
    heads = ("model", "parameters", "step.onnx", "torch", "atoll", "atoll process", "torch.compile", "web")
    for head in (*heads, "distance", "web's distance"):
        table.add_column(head, justify="left" if head == "model" else "right")
    for row in rows:
        cells = [f"{row['ms'][EAGER]['median']:.2f}", *(_cell(row, key) for key in (OURS, PIPED, COMPILED, BROWSER))]
        far = row["relative_l2_all"].get(BROWSER)
        sizes = (f"{row['parameters']:,}", f"{row['step_bytes']:,}")
        table.add_row(row["name"], *sizes, *cells, f"{row['relative_l2']:.1e}", "-" if far is None else f"{far:.1e}")
    console = Console(width=None if Console().is_terminal else 170)
    console.print(table)
    console.print(f"geometric mean of atoll / torch eager: {mean:.3f}")
    for reason in sorted({f"{row['name']}: {text}" for row in rows for text in row["missing"].values()}):
        console.print(reason)


def _cell(row: dict[str, Any], key: str) -> str:
    if key not in row["ms"]:
        return "-"
    low, high = row[f"{key}_over_torch_spread"]
    return f"{row['ms'][key]['median']:.2f} ({row[f'{key}_over_torch']:.2f}, {low:.2f}-{high:.2f})"


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--models", default=",".join(NAMES), help="names of zoo models, with commas")
    parser.add_argument("--steps", type=int, default=100, help="steps until the parameters are compared")
    parser.add_argument("--passes", type=int, default=3, help="times that the steps are done, for the times alone")
    parser.add_argument("--only", default=",".join(MAKERS), help="contestants, with commas; torch and atoll always run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [key for key in MAKERS if key in (EAGER, OURS) or key in options.only.split(",")]
    rows = [measure(name, options.steps, options.passes, wanted) for name in options.models.split(",")]
    mean = float(np.exp(np.mean([np.log(row["atoll_over_torch"]) for row in rows])))
    show(rows, mean)
    if options.json:
        found = {"threads": 1, "block": BLOCK, "models": rows, "geometric_mean": round(mean, 4)}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
