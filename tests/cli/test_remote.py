"""`atoll run --remote`: what is sent to the node, and what is told of who answered."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atoll.cli.remote import free_memory, too_small
from atoll.errors import Refused, UnknownModel
from atoll.wire.reasons import Reason

Atoll = Callable[..., Any]
SERVER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
SERVED = {"answered_by": SERVER, "cost": "250000000000000000", "checked": "yes"}
CARD = {"input": {"shape": [1, 2, 3], "dtype": "uint8"}, "output": {"meaning": "probabilities"}}


def offered(kind: str, name: str, **card: Any) -> dict[str, Any]:
    return {"id": name, "kind": kind, "blob": "", "context": 0, "card": card, "servers": 2}


def test_a_picture_is_sent_as_the_model_takes_it(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    blob, pixels = "ab" * 32, np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    scores = {"scores": [[0.1, 0.7, 0.2]], **SERVED}
    node = serve(tmp_path, {"offered": offered("classifier", blob, **CARD), "classify": scores})
    ran = atoll("run", "0x" + blob.upper(), tmp_path / "p.png", "--remote", "--home", tmp_path, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["class"] == 1 and found["top"][0] == {"class": 1, "score": 0.7}
    assert {name: found[name] for name in SERVED} == SERVED
    (_, asked), (method, params) = node.asked
    assert asked == {"model": blob} and method == "classify"
    assert base64.b64decode(params.pop("inputs")) == pixels.tobytes()
    assert params == {"model": blob, "dtype": "uint8", "shape": [1, 1, 2, 3]}
    person = atoll("run", blob, tmp_path / "p.png", "--remote", "--home", tmp_path)
    assert f"1, says {SERVER}" in person.out
    assert f"answered by {SERVER} for 0.25 ATL, checked: it was run again and agreed" in person.err
    none = atoll("run", blob, "--remote", "--home", tmp_path)
    assert none.code == 2 and "[1, 2, 3]" in none.err


def test_servers_that_do_not_say_what_a_model_takes(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    serve(tmp_path, {"offered": offered("classifier", "ab" * 32)})
    ran = atoll("run", "ab" * 32, "1,2", "--remote", "--home", tmp_path)
    assert ran.code == 2 and "without --remote" in ran.err


def test_texts_are_compared_elsewhere(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    vectors = {"vectors": [[1.0, 0.0], [0.6, 0.8]], "tokens": 5, **SERVED, "cost": "0", "checked": "no"}
    node = serve(tmp_path, {"offered": offered("embedding", "minilm-l6"), "embed": vectors})
    ran = atoll("run", "minilm-l6", "one", "two", "--remote", "--home", tmp_path)
    assert "0.60" in ran.out and "free of charge, not checked: it was not drawn" in ran.err
    assert node.asked[-1] == ("embed", {"model": "minilm-l6", "texts": ["one", "two"]})
    found = json.loads(atoll("run", "minilm-l6", "one", "two", "--remote", "--home", tmp_path, "--json").out)
    assert found["tokens"] == 5 and found["answered_by"] == SERVER and found["checked"] == "no"


def test_a_text_comes_in_parts(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    end = {"finish": "stop", "prompt_tokens": 9, "completion_tokens": 4, **SERVED}
    parts = {0: ("", None), 1: ("Paris", None), 2: (" it is\x1b[2J.", end)}
    calls = iter(parts.values())

    def more(_: dict[str, Any]) -> dict[str, Any]:
        text, last = next(calls)
        return {"text": text, "end": last}

    answers = {"offered": offered("language", "smollm2-135m"), "chat": {"talk": "7f"}, "leave": {}, "more": more}
    node = serve(tmp_path, answers)
    ran = atoll("run", "smollm2-135m", "Which", "city?", "--system", "Be brief.", "--seed", "3", "--max-tokens", "50",
                "--remote", "--home", tmp_path)  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.out == "Paris it is[2J.\n" and "4 tokens in" in ran.err and "0.25 ATL" in ran.err
    assert node.asked[1:] == [
        ("chat", {"model": "smollm2-135m", "turns": [["system", "Be brief."], ["user", "Which city?"]],
                  "max_tokens": 50, "temperature": 0.8, "seed": 3}),
        ("more", {"talk": "7f", "seen": 0}),
        ("more", {"talk": "7f", "seen": 0}),
        ("more", {"talk": "7f", "seen": 5}),
        ("leave", {"talk": "7f"}),
    ]  # fmt: skip
    calls = iter([("Rome", end)])
    found = json.loads(atoll("run", "smollm2-135m", "City?", "--remote", "--home", tmp_path, "--json").out)
    assert (found["text"], found["cost"], found["prompt_tokens"]) == ("Rome", SERVED["cost"], 9)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UnknownModel("No server of this network offers x now: offered are y."), "offered are y"),
        (Refused(Reason.OVER_BUDGET, "0 free: `atoll deposit AMOUNT` puts more in"), "atoll deposit"),
    ],
)
def test_what_goes_wrong_is_told(atoll: Atoll, serve: Atoll, tmp_path: Path, error: Exception, told: str) -> None:
    serve(tmp_path, {"offered": error})
    ran = atoll("run", "x", "hi", "--remote", "--home", tmp_path)
    assert ran.code == error.exit_code and told in ran.err  # type: ignore[attr-defined]


def test_without_a_node_nobody_can_be_asked(atoll: Atoll, tmp_path: Path) -> None:
    ran = atoll("run", "smollm2-135m", "hi", "--remote", "--home", tmp_path)
    assert ran.code == 12 and "atoll node" in ran.err and "--home" in ran.err


def test_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  8000 kB\nMemAvailable:    3000 kB\nSwapFree: 9 kB\n")
    assert free_memory(tmp_path / "meminfo") == 3_072_000
    assert free_memory(tmp_path / "none") is None
    (tmp_path / "odd").write_text("MemAvailable:\n")
    assert free_memory(tmp_path / "odd") is None
    assert too_small(2_048_001, 3_072_000) and not too_small(2_048_000, 3_072_000)
    assert not too_small(1 << 50, None)


def test_a_model_that_does_not_fit_here_can_be_asked_elsewhere(atoll: Atoll, serve: Atoll, tmp_path: Path) -> None:
    home, blob = tmp_path / "home", "ab" * 32
    (home / "models").mkdir(parents=True)
    with (home / "models" / f"{blob}.gguf").open("wb") as file:
        file.truncate(1 << 42)  # 4 TB, all of it holes
    alone = atoll("run", blob, "hi", "--home", home)
    assert alone.code != 0 and "free memory" in alone.err and "--remote" not in alone.err
    node = serve(home / "node", {"status": {}})
    ran = atoll("run", blob, "hi", "--home", home)
    assert ran.code == alone.code and "another node answer" in ran.err and "--remote" in ran.err
    assert [method for method, _ in node.asked] == ["status"]  # nothing is spent unasked
