"""A whole unit of work in headless Chromium and natively: how far apart the results are, and how the times compare.

python bench/browser.py [--json FILE] [--models a,b] [--turns 7]     (needs Node, Chromium, and npm ci in tests/web)

For each model of the zoo, one unit (all segments: every state, the update and their hashes) is done natively, by
`atoll.training.workbench` with the engine's child process as a node does it, and in a browser tab's worker
(`gateway/static/atoll/worker.js`, on a page that is no secure context), from the same MODEL BYTES and the same samples,
whose Merkle proofs the worker checks before. The distance is that of `atoll.training.compare`: of the unit's last
states, relative to how far the native one moved from the model, over the vector, in exact integers, with one grid step
free; beside it the same without that step. Each turn is another unit (its beacon gives the order of the samples); the
largest distance of all is told. Wall-clock time, one thread each, in turns; a ratio is taken turn by turn. The first
unit after opening a job is told apart: the browser compiles WebAssembly then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from batches import batches
from rich.console import Console
from rich.table import Table

from atoll.graph.archive import JobFile
from atoll.graph.engine import Engine
from atoll.graph.params import frozen_of
from atoll.graph.zoo import NAMES, load_zoo
from atoll.training.compare import within
from atoll.training.data.samples import DataSet
from atoll.training.unit import UnitSpec
from atoll.training.workbench import Bench, Workbench
from atoll.wire.hashing import Domain, blob_id, keccak
from tests.web.page import Page, give_samples, posted, unit_fields

DOMAIN = Domain(31337, b"\x11" * 20)
BOUND = 1e-3
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def samples_of(job: JobFile) -> DataSet:
    """As many samples as a unit has places."""
    x, y = batches(job.spec, job.spec.steps)
    return DataSet(x.reshape(-1, *x.shape[2:]), y.reshape(-1, *y.shape[2:]))


class Native:
    """The unit as a node does it; what it keeps lies in a dictionary."""

    def __init__(self, job: JobFile, data: DataSet, engine: Engine) -> None:
        self.blobs = {blob_id(job.model): job.model}
        self.model, self.data, self.manifest = blob_id(job.model), data, posted(job, data)
        frozen = frozen_of(job.params, job.spec.tensors)
        self.bench = Workbench(
            Bench(self.manifest, job.step, engine, self.fetch, self.keep, self.gather, shards=1, frozen=frozen)
        )

    async def fetch(self, name: bytes, sources: Sequence[bytes]) -> bytes:
        del sources
        return self.blobs[name]

    def keep(self, data: bytes) -> bytes:
        self.blobs[blob_id(data)] = data
        return blob_id(data)

    async def gather(self, rows: Any) -> tuple[Any, Any]:
        return self.data.x[rows], self.data.y[rows]

    async def unit(self, unit: UnitSpec) -> tuple[float, list[bytes]]:
        """Milliseconds, and the states after each segment."""
        started = time.perf_counter()
        done = await self.bench.train(unit, self.model, [])
        milliseconds = 1_000 * (time.perf_counter() - started)
        return milliseconds, [self.blobs[name] for name in done.states[1:]]


def moved_apart(found: bytes, expected: bytes, model: bytes) -> tuple[float, float]:
    """Relative L2 distance of two last states, as `compare` measures it, and without its free grid step."""
    length = len(model) // 4
    verdict = within(found, expected, model, length, 1, 1_000)
    a, b, start = (np.frombuffer(data, "<i4", count=length).astype(np.float64) for data in (found, expected, model))
    return verdict.ratio, float(np.linalg.norm(a - b) / np.linalg.norm(b - start))


def unit_of(job: JobFile, turn: int) -> UnitSpec:
    """The unit of a turn: the same samples in an order of its own."""
    beacon = keccak(b"beacon %d" % turn)
    return UnitSpec(DOMAIN, keccak(b"job"), 0, 0, keccak(b"worker")[:20], 0, beacon, job.spec.segments)


async def measure(name: str, page: Page, turns: int) -> dict[str, Any]:
    """All numbers of one model."""
    job = load_zoo(name)
    data = samples_of(job)
    units = [unit_of(job, turn) for turn in range(turns + 1)]
    async with Engine() as engine:
        native = Native(job, data, engine)
        opened = page.ask(op="open", manifest=native.manifest.to_bytes(), step=job.step, params=job.params)
        give_samples(page, opened["job"], data, unit_fields(units[0], 1))  # all units take the same, in another order
        times: dict[str, list[float]] = {"native": [], "browser": []}
        found = []
        for unit in units:
            milliseconds, states = await native.unit(unit)
            times["native"].append(milliseconds)
            answer = page.ask(op="unit", job=opened["job"], unit=unit_fields(unit, 1), model=job.model)
            times["browser"].append(answer["milliseconds"])
            found.append(moved_apart(answer["states"][-1], states[-1], job.model))
        page.ask(op="close", job=opened["job"])
    judged, plain = zip(*found, strict=True)
    return {"name": name, "parameters": job.spec.vector_length, "turns": turns, **summary(times),
            "distance": max(judged), "median_distance": float(np.median(judged)),
            "distance_without_free_step": max(plain), "distances": judged, "times": times}  # fmt: skip


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and spread, without the first unit."""
    native, browser = (np.array(times[key][1:]) for key in ("native", "browser"))
    low, middle, high = np.percentile(browser / native, [10, 50, 90])
    return {
        "native_ms": round(float(np.median(native)), 2),
        "browser_ms": round(float(np.median(browser)), 2),
        "first_ms": round(times["browser"][0], 2),
        "ratio": round(float(middle), 3),
        "ratio_spread": [round(float(low), 3), round(float(high), 3)],
    }


HEADS = (
    "model",
    "parameters",
    "native, ms",
    "Chromium, ms",
    "Chromium / native",
    "first unit, ms",
    "median distance",
    "largest",
    "largest, no free step",
)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    low, high = row["ratio_spread"]
    times = (f"{row['native_ms']:.1f}", f"{row['browser_ms']:.1f}", f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})")
    distances = [f"{row[key]:.1e}" for key in ("median_distance", "distance", "distance_without_free_step")]
    return row["name"], f"{row['parameters']:,}", *times, f"{row['first_ms']:.0f}", *distances


def show(rows: list[dict[str, Any]]) -> None:
    """The table for people, and the same as Markdown."""
    table = Table(title="one unit of work: medians (ratios: 10th to 90th percentile)")
    for head in HEADS:
        table.add_column(head, justify="left" if head == "model" else "right")
    for row in rows:
        table.add_row(*cells(row))
    console = Console(width=None if Console().is_terminal else 150)
    console.print(table)
    mean = math.exp(sum(math.log(row["ratio"]) for row in rows) / len(rows))
    far = [row["name"] for row in rows if row["distance"] > BOUND]
    console.print(
        f"geometric mean of Chromium / native: {mean:.2f}; further apart than {BOUND}: {', '.join(far) or 'none'}"
    )


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table as it stands in browser.md."""
    lines = [HEADS, ("---",) * len(HEADS), *map(cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--models", default=",".join(NAMES), help="names of zoo models, with commas")
    parser.add_argument("--turns", type=int, default=7, help="units of each kind, after the first")
    options = parser.parse_args()
    chromium = next((path for path in map(shutil.which, CHROMIUM) if path), None)
    if chromium is None or shutil.which("node") is None:
        sys.exit("Chromium or Node is not on the PATH: install both, then npm ci --ignore-scripts in tests/web.")
    with Page(chromium) as page:
        rows = [asyncio.run(measure(name, page, options.turns)) for name in options.models.split(",")]
    show(rows)
    if options.json:
        options.json.write_text(json.dumps({"models": rows}, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(rows))


if __name__ == "__main__":
    main()
