"""`atoll job`: what it tells of a job file, and how it refuses what is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import atoll.graph.zoo
from atoll.cli.train import Target
from atoll.errors import BadInput
from atoll.graph.zoo import load_zoo

Atoll = Callable[..., Any]
SOFTMAX = str(resources.files(atoll.graph.zoo) / "softmax.atoll")


def test_show_tells_sizes_and_prices(atoll: Atoll, tmp_path: Path) -> None:
    ran = atoll("job", "show", SOFTMAX, "--nodes", "8", "--rounds", "10", "--home", str(tmp_path), "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    # By hand: 784 * 10 weights and 10 biases are 7850 values in 31 blocks of 256.
    assert found["parameters"] == {"trained": 7850, "statistics": 0, "frozen": 0}
    assert found["update_bytes"] == {"float32": 31400, "float16": 15700, "int8": 7881, "int4": 3956}
    # By hand, a round of 8 nodes: 8 units at 1, half of them audited at 0.5, 7 validators at 0.01 ATL: 10.07 ATL.
    assert found["estimate"]["price"] == str(10 * 10_070_000_000_000_000_000)
    # At most: each unit audited at 0.5 and disputed before three replicas at 0.5 each: 8 + 4 + 12 + 0.07 ATL.
    assert found["estimate"]["price_at_most"] == str(10 * 24_070_000_000_000_000_000)
    assert found["step_seconds"] > 0
    assert found["id"] == load_zoo("softmax").id.hex()


def test_show_is_readable(atoll: Atoll, tmp_path: Path) -> None:
    ran = atoll("job", "show", SOFTMAX, "--home", str(tmp_path))
    assert ran.code == 0, ran.err
    for told in ("7,850", "10x784", "int8 is what travels", "6 nodes, assumed", "step", "predict"):
        assert told in " ".join(ran.out.split())


def test_check_tells_what_the_gate_found(atoll: Atoll) -> None:
    ran = atoll("job", "check", SOFTMAX, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["accepted"] is True
    assert found["graphs"]["step"]["bytes"] == len(load_zoo("softmax").step)
    assert found["graphs"]["predict"]["ops"]["Softmax"] == 1


def test_check_refuses_with_a_reason(atoll: Atoll, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.atoll"
    content = bytearray(Path(SOFTMAX).read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(bytes(content))
    ran = atoll("job", "check", str(damaged))
    assert ran.code != 0
    assert ran.err.startswith("atoll: BAD_ARCHIVE: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("source", ["model.py", "model.py:", "gone.py:job", "model.txt:job", "model.py:not a name"])
def test_make_says_what_it_expects(atoll: Atoll, tmp_path: Path, source: str) -> None:
    (tmp_path / "model.py").write_text("job = 1\n")
    (tmp_path / "model.txt").write_text("job = 1\n")
    ran = atoll("job", "make", str(tmp_path / source))
    assert ran.code == 2
    assert "expected a Python file that exists and the name of a job in it" in ran.err


def test_make_tells_the_line_of_a_mistake(atoll: Atoll, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import math\n\njob = math.sqrt(-1)\n")
    ran = atoll("job", "make", f"{tmp_path / 'model.py'}:job")
    assert ran.code == 2
    assert "line 3: ValueError" in ran.err
    assert "Traceback" not in ran.err
    (tmp_path / "other.py").write_text("job = 5\n")
    assert "has no job called job" in atoll("job", "make", f"{tmp_path / 'other.py'}:job").err


def test_targets() -> None:
    assert Target("accuracy", 0.9, at_most=False).reached({"accuracy": 0.9})
    assert not Target("accuracy", 0.9, at_most=False).reached({"accuracy": 0.899})
    assert Target("loss", 0.3, at_most=True).reached({"loss": 0.2})
    assert not Target("loss", 0.3, at_most=True).reached({"accuracy": 0.2})


@pytest.mark.parametrize("text", ["accuracy", "accuracy=", "accuracy=high", "speed=3", "=3", "accuracy=1=2"])
def test_a_wrong_target_names_the_metrics(atoll: Atoll, tmp_path: Path, text: str) -> None:
    ran = atoll("train", SOFTMAX, "--target", text, "--home", str(tmp_path))
    assert ran.code == 2
    assert "loss, accuracy" in ran.err


def test_training_needs_a_network(atoll: Atoll, tmp_path: Path) -> None:
    ran = atoll("train", SOFTMAX, "--home", str(tmp_path))
    assert ran.code != 0
    assert "start one with `atoll node`" in ran.err


def test_a_data_set_that_is_not_there(tmp_path: Path) -> None:
    from atoll.cli.train import resolve

    assert resolve("mnist", tmp_path) == "mnist"
    with pytest.raises(BadInput, match="expected one of mnist"):
        resolve("nowhere", tmp_path)
