"""`atoll train` against a running network: it ends early, goes on after an interruption, and writes what it made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy

import atoll.graph.zoo
from atoll.graph.archive import unpack_model
from atoll.training.data import bundled_mnist
from tests.end_to_end.conftest import Network

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
OWN = Path(__file__).parent / "own"
SPEAKERS = Path(__file__).resolve().parents[2] / "examples" / "data" / "extracts" / "speakers"
JOB = str(resources.files(atoll.graph.zoo) / "softmax.atoll")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    running = Network(tmp_path_factory.mktemp("train") / "home", "--nodes", "5", "--rounds", "1", "--model", "softmax")
    try:
        running.wait_for(lambda: running.summary_file.exists() and "keeps running" in running.output())
        yield running
    finally:
        running.close()


def start(network: Network, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "atoll", "train", JOB, "--home", str(network.home), "--json", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def train(network: Network, *arguments: str) -> dict[str, Any]:
    out, err = start(network, *arguments).communicate(timeout=200)
    assert "Traceback" not in err
    return dict(json.loads(out))


def test_it_stops_at_the_target_and_the_model_is_what_the_card_says(network: Network, tmp_path: Path) -> None:
    found = train(network, "--rounds", "60", "--target", "accuracy=0.8", "--out", str(tmp_path / "made"))
    rounds = found["rounds"]
    first = next(int(number) for number, scores in found["by_round"].items() if scores["accuracy"] >= 0.8)
    assert first < rounds < 60
    assert list(found["by_round"]) == [str(number) for number in range(rounds)]
    assert found["verdicts"]["accepted"] == 5 * rounds
    # Units and the committee are always paid, audits as they were drawn: prices are 1, 0.01 and 0.5 ATL.
    audits = int(found["cost"]) - rounds * (5 * 10**18 + 5 * 10**16)
    assert audits >= 0
    assert audits % (5 * 10**17) == 0
    # The ONNX file, with nothing of ours around it, is as good as the card says.
    _, held_out = bundled_mnist()
    session = onnxruntime.InferenceSession(tmp_path / "made" / "model.onnx")
    x = held_out.x.reshape(-1, 1, 28, 28)
    guesses = session.run(["scores"], {"x": x})[0].argmax(1)
    assert (guesses == held_out.y).mean() == pytest.approx(found["scores"]["accuracy"], abs=1e-3)
    weights = safetensors.numpy.load_file(tmp_path / "made" / "model.safetensors")
    model = unpack_model((tmp_path / "made" / "model.atoll").read_bytes())
    assert all(np.array_equal(weights[name], value) for name, value in model.tensors.items())
    card = (tmp_path / "made" / "README.md").read_text()
    for told in ("5 workers", f"{rounds} rounds", "CC-BY-SA-3.0", "Public lane", found["job"], found["model"]):
        assert told in card
    assert network.node("node-1", "explain")["explain"] == "match"


def test_it_goes_on_after_an_interruption(network: Network, tmp_path: Path) -> None:
    process = start(network, "--rounds", "8", "--out", str(tmp_path / "made"))
    assert process.stderr is not None
    for line in process.stderr:  # as soon as the job is on the chain
        if "enlisted" in line:
            break
    process.kill()
    process.communicate()
    again = start(network, "--rounds", "8", "--out", str(tmp_path / "made"))
    _, err = again.communicate(timeout=60)
    assert again.returncode == 2
    assert "add --resume" in err
    found = train(network, "--resume", "--out", str(tmp_path / "made"))
    assert found["rounds"] == 8
    assert (tmp_path / "made" / "model.onnx").is_file()
    nothing = start(network, "--resume")
    _, err = nothing.communicate(timeout=60)
    assert "no job to go on with" in err


def test_a_model_of_ones_own(network: Network, tmp_path: Path) -> None:
    """A transformer of 1.4 million parameters with dropout, from a user's own file, on text sorted by speaker."""
    pytest.importorskip("torch", reason="making a job needs PyTorch: make test installs it")
    job, home = str(tmp_path / "story.atoll"), str(network.home)
    atoll("job", "make", f"{OWN / 'story.py'}:job", "--out", job)
    atoll("data", "add", "plays", str(SPEAKERS), "--group", "file", "--window", "32", "--home", home)
    atoll("data", "check", "plays", job, "--home", home)
    found = json.loads(
        atoll("train", job, "--data", "plays", "--rounds", "2", "--home", home, "--out", str(tmp_path), "--json")
    )
    assert found["verdicts"] | {"meaning": {}} == {"accepted": 10, "refused": {}, "meaning": {}}
    losses = [scores["loss"] for scores in found["by_round"].values()]
    assert losses[0] < 5.6  # a uniform guess among 256 bytes costs log(256) = 5.545
    assert losses[1] < losses[0]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    scores = session.run(["scores"], {"x": np.zeros((2, 32), np.int64)})[0]
    assert scores.shape == (2, 32, 256)
    assert scores.sum(2) == pytest.approx(np.ones((2, 32)), abs=1e-4)


def atoll(*arguments: str) -> str:
    command = [sys.executable, "-m", "atoll", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
