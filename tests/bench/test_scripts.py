"""Each script of `bench/` runs, with settings that measure next to nothing, and writes its JSON; without Flower."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def results(script: str, out: Path, *arguments: str) -> Any:
    """What a script writes."""
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *arguments, "--json", str(out)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout, "a person wants to see the results"
    return json.loads(out.read_text())


def test_graphs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    quick = ("--models", "softmax", "--steps", "20", "--passes", "1", "--only", "torch,atoll,engine")
    found = results("graphs.py", tmp_path / "out.json", *quick)
    (model,) = found["models"]
    low, high = model["atoll_over_torch_spread"]
    assert 0 <= low <= model["atoll_over_torch"] <= high  # a block can be shorter than the clock's grain
    assert high > 0
    assert model["relative_l2"] <= 1e-5
    assert found["geometric_mean"] == pytest.approx(model["atoll_over_torch"], abs=1e-3)


def test_aggregation(tmp_path: Path) -> None:
    found = results(
        "aggregation.py", tmp_path / "out.json", "--no-flower", "--turns", "2", "--sizes", "6,500", "12,500"
    )
    assert [(one["updates"], one["length"]) for one in found["results"]] == [(6, 500), (12, 500)]
    for one in found["results"]:
        assert set(one["seconds"]) == {"mean", "trimmed mean", "rule"}
        assert all(0 < times["lowest"] <= times["median"] <= times["highest"] for times in one["seconds"].values())


@pytest.mark.processes
def test_round(tmp_path: Path) -> None:
    small = ("--no-flower", "--nodes", "2", "--parameters", "300", "--rounds", "2")
    found = results("round.py", tmp_path / "out.json", *small)["atoll"]
    assert found["audited"]["audits"] == [2, 2, 2], "both units of each round, the first included"
    for part in ("audited", "usual"):
        assert len(found[part]["seconds"]) == 2
        assert all(seconds > 0 for seconds in found[part]["seconds"])
    assert found["memory_mb"] > 0


@pytest.mark.processes
def test_footprint(tmp_path: Path) -> None:
    here = ("--python", sys.executable, "--seconds", "1", "--repeats", "0")
    found = results("footprint.py", tmp_path / "out.json", *here)
    assert found["import_seconds"]["atoll.node.daemon"] > 0
    assert found["idle"]["fresh"]["engine"] is None, "a node that never worked has started no engine"
    worked = found["idle"]["after_work"]
    for part in ("node", "engine", "chain"):
        assert 0 < worked[part]["pss"] <= worked[part]["rss"]
