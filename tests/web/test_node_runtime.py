"""The zoo in the browser's runtime: ONNX Runtime Web gives what the node's engine gives, in Node and in Chromium."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from atoll.graph.archive import JobFile, pack
from atoll.graph.params import frozen_of
from atoll.graph.session import LocalEngine, Pace
from atoll.graph.zoo import NAMES, load_zoo
from tests.graph.batches import Array, batches, first_tensors

HERE = Path(__file__).parent
STEPS = 20
BOUND = 1e-3  # relative L2 of everything that changed, after so many steps


def native(zoo: JobFile, x: Array, y: Array) -> tuple[dict[str, Array], Array]:
    pace = Pace(learning_rate=zoo.spec.hyper.learning_rate)
    first = first_tensors(zoo.spec, dict(zoo.values))
    result = LocalEngine().train(zoo.step, first, x, y, pace, frozen_of(zoo.params, zoo.spec.tensors))
    return result.tensors, result.losses


def compare(zoo: JobFile, folder: Path, script: str, *more: str) -> None:
    """Train natively and by `script`; the changes of all tensors together must agree."""
    x, y = batches(zoo.spec, STEPS)
    (folder / "job.atoll").write_bytes(pack(zoo))
    (folder / "batches").write_bytes(x.tobytes() + y.tobytes())
    command = ["node", str(HERE / script), "job.atoll", "batches", str(STEPS), "result", *more]
    environment = {key: value for key, value in os.environ.items() if key != "NODE_OPTIONS"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=240, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    found = np.frombuffer((folder / "result").read_bytes(), "<f4")
    tensors, losses = native(zoo, x, y)
    names = [tensor.name for tensor in zoo.spec.tensors if tensor.role != "frozen"]
    expected = np.concatenate([tensors[name].reshape(-1) for name in names]).astype(np.float64)
    assert len(found) == STEPS + len(expected)
    distance = np.linalg.norm(found[STEPS:] - expected) / np.linalg.norm(expected)
    assert distance <= BOUND
    assert np.linalg.norm(found[:STEPS] - losses) <= BOUND * np.linalg.norm(losses)
    start = first_tensors(zoo.spec, dict(zoo.values))
    assert not np.array_equal(expected, np.concatenate([start[name].reshape(-1) for name in names]))


@pytest.mark.parametrize("name", NAMES)
def test_in_node(name: str, runtime: Path, tmp_path: Path) -> None:
    compare(load_zoo(name), tmp_path, "node.mjs")


@pytest.mark.processes
def test_in_headless_chromium(runtime: Path, chromium: str, tmp_path: Path) -> None:
    compare(load_zoo("cnn"), tmp_path, "browser.mjs", chromium)
