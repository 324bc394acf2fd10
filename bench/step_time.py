"""Time of one training step: our graphs on ONNX Runtime against torch eager, for every model of the zoo.

python bench/step_time.py [--repeats N] [--json FILE]     (needs the extra `torch`)

Both run on one thread on the same batches, in CPU time, which a busy machine disturbs less than wall time; blocks of
20 steps take turns. The ratio is taken block by block; the table gives its median and the 10th and 90th percentile.
`engine` is the wall time of the same block through the child process, with all copies in and out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from atoll.graph.engine import Engine
from atoll.graph.session import LocalEngine
from atoll.graph.zoo import NAMES, load_zoo
from atoll.graph.zoo.make import RECIPES, build

STEPS = 20
BATCH = 32


def torch_block(name: str, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    """A block of steps in torch's usual loop."""
    recipe, model = RECIPES[name], build(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    batches = [(torch.tensor(a), torch.tensor(b)) for a, b in zip(x, y, strict=True)]

    def run() -> None:
        for pixels, labels in batches:
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(model(pixels), labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return run


def seconds(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Seconds of one call by the given clock."""
    start = clock()
    run()
    return clock() - start


def measure(name: str, repeats: int, runner: asyncio.Runner, engine: Engine) -> dict[str, Any]:
    """Milliseconds a step and the ratio, for one model."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (STEPS, BATCH, 1, 28, 28), dtype=np.uint8)
    y = rng.integers(0, 10, (STEPS, BATCH))
    zoo, local = load_zoo(name), LocalEngine()
    arguments = (zoo.step, zoo.first_tensors(), x, y, 0, zoo.card.learning_rate)
    blocks = {
        "torch": torch_block(name, x, y),
        "onnxruntime": lambda: local.train(*arguments),
        "engine": lambda: runner.run(engine.train(*arguments)),
    }
    times: dict[str, list[float]] = {key: [] for key in blocks}
    for repeat in range(repeats + 2):
        for key, run in blocks.items():
            took = seconds(run, time.perf_counter if key == "engine" else time.process_time)
            if repeat >= 2:  # two rounds to warm up
                times[key].append(took / STEPS * 1e3)
    ratios = np.array(times["onnxruntime"]) / np.array(times["torch"])
    low, middle, high = np.percentile(ratios, [10, 50, 90])
    return {
        "name": name,
        "parameters": sum(value.size for value in zoo.initial.values()),
        "step_bytes": len(zoo.step),
        **{f"{key}_ms": round(float(np.median(value)), 4) for key, value in times.items()},
        "atoll_over_torch": round(float(middle), 3),
        "spread": [round(float(low), 3), round(float(high), 3)],
        "repeats": repeats,
    }


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with asyncio.Runner() as runner:
        engine = Engine()
        runner.run(engine.start())
        models = [measure(name, options.repeats, runner, engine) for name in NAMES]
        runner.run(engine.close())
    heads = f"{'torch ms':>9} {'ORT ms':>8} {'engine ms':>9}   ratio (p10-p90)"
    print(f"{'model':8} {'parameters':>10} {'step.onnx':>9} {heads}")
    for row in models:
        print(
            f"{row['name']:8} {row['parameters']:>10,} {row['step_bytes']:>9,} {row['torch_ms']:>9.3f}"
            f" {row['onnxruntime_ms']:>8.3f} {row['engine_ms']:>9.3f}"
            f"   {row['atoll_over_torch']:.2f} ({row['spread'][0]:.2f}-{row['spread'][1]:.2f})"
        )
    if options.json:
        options.json.write_text(json.dumps({"batch": BATCH, "threads": 1, "models": models}, indent=1) + "\n")


if __name__ == "__main__":
    main()
