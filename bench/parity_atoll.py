"""The side of Atoll in bench/parity.py: one run of `atoll up`, looked at from outside while it runs."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import proc

from atoll.node.control import ControlClient

LOOK_SECONDS = 0.5
LATE = 5  # rounds at the end whose traffic is told apart
MARK = "BENCH_PARITY_RUN"


@dataclass
class Seen:
    """When the first of the nodes had each round's certificate, the bytes of all nodes then, and its last words."""

    times: list[float] = field(default_factory=list)
    traffic: list[tuple[int, int]] = field(default_factory=list)
    job: dict[str, Any] = field(default_factory=dict)

    async def look(self, home: Path, nodes: int) -> None:
        """Ask all nodes once; those that do not answer yet, or any more, are left out."""
        asked = (ControlClient(home / f"node-{index}").call("status", timeout=3) for index in range(1, nodes + 1))
        found = [one for one in await asyncio.gather(*asked, return_exceptions=True) if isinstance(one, dict)]
        jobs = [job for status in found for job in status["jobs"]]
        if not jobs:
            return
        self.job = max(jobs, key=lambda job: job["round"])
        new = self.job["round"] - len(self.times)
        if new > 0 and len(found) == nodes:
            total = tuple(sum(status["bytes"][way] for status in found) for way in ("up", "down"))
            self.times += [time.time()] * new
            self.traffic += [(total[0], total[1])] * new


async def _watch(process: subprocess.Popen[bytes], home: Path, nodes: int, limit: float) -> Seen:
    seen, end = Seen(), time.monotonic() + limit
    while process.poll() is None:
        if time.monotonic() > end:
            process.send_signal(signal.SIGINT)
            raise RuntimeError(f"`atoll up` was not over after {limit:g} s; it was at {seen.job}")
        await seen.look(home, nodes)
        await asyncio.sleep(LOOK_SECONDS)
    return seen


def run(home: Path, data: str, nodes: int, rounds: int, rule: str) -> dict[str, Any]:
    """`atoll up` with so many nodes until everything is paid; raises RuntimeError when it fails."""
    summary, mark = home / f"{rule}.json", f"{MARK}={home}-{rule}"
    arguments = ["up", "--nodes", nodes, "--rounds", rounds, "--model", "cnn", "--data", data, "--aggregation", rule]
    arguments += ["--exit", "--plain", "--json", summary, "--home", home, "--port", 0]
    before = time.time()
    with (home / f"{rule}.log").open("wb") as out, proc.Watch(mark) as memory:
        process = subprocess.Popen(
            [sys.executable, "-m", "atoll", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**os.environ, MARK: mark.partition("=")[2], "OMP_NUM_THREADS": "1"},
        )
        seen = asyncio.run(_watch(process, home, nodes, 180 + 60 * rounds))
    if process.returncode or not summary.exists():
        raise RuntimeError(f"`atoll up` ended with {process.returncode}:\n{(home / f'{rule}.log').read_text()[-2000:]}")
    found = json.loads(summary.read_text())
    return {**_result(found, seen, rounds), "wall": time.time() - before, **memory.facts()}


def _result(found: dict[str, Any], seen: Seen, rounds: int) -> dict[str, Any]:
    seconds, later = found["seconds"], max(1, rounds - 1)
    gaps = [end - begin for begin, end in itertools.pairwise(seen.times)]
    early, first, last = seen.traffic[max(0, rounds - 1 - LATE)], seen.traffic[0], seen.traffic[-1]
    late = max(1, min(LATE, later))
    return {
        "accuracy": found["accuracy"],
        "loss": [one and one["loss"] for one in found["scores"]],
        "accepted": seen.job["accepted"],
        "rejected": found["rejected"],
        "explain": found["explain"],
        "start_up": seconds["starting"] + seconds["enlisting"],
        "training": seconds["training"],
        "settling": seconds["settling"],
        "phases": seconds,
        "first_round": seconds["training"] - sum(gaps),
        "round_seconds": statistics.median(gaps) if gaps else seconds["training"],
        "up": found["bytes_up"],
        "down": found["bytes_down"],
        "round_up": round((last[0] - first[0]) / later),
        "round_down": round((last[1] - first[1]) / later),
        "late_up": round((last[0] - early[0]) / late),
        "late_down": round((last[1] - early[1]) / late),
        "traffic": seen.traffic,
    }
