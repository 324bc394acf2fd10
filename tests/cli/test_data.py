"""`atoll data`: from files to a data set and back to what it says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atoll.training.data import bundled_source, load

Atoll = Any
ZOO = Path(__file__).parents[2] / "src" / "atoll" / "graph" / "zoo"


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    rows = "".join(f"{name},{number},{'yes' if number % 2 else 'no'}\n" for number, name in enumerate("cabacabcab"))
    path.write_text("who,age,told\n" + rows)
    return path


def test_adding_listing_showing_checking(atoll: Atoll, people: Path, tmp_path: Path) -> None:
    ran = atoll("data", "add", "people", people, "--target", "told", "--group", "who", "--licence", "CC0-1.0")
    assert (ran.code, ran.err) == (0, "")
    assert "atoll train JOB.atoll --data people" in ran.out
    listed = atoll("data", "list").out.splitlines()
    assert [line.split()[0] for line in listed] == ["name", "mnist", "people"]
    assert "CC0-1.0" in listed[2]
    shown = atoll("data", "show", "people").out
    for text in ("ordered by who, 3 groups", "2 classes", "no, yes", "age", "CC0-1.0"):
        assert text in shown
    ran = atoll("data", "check", "people")
    assert (ran.code, "samples are those of the card" in ran.out) == (0, True)
    kept = load("people", tmp_path / "base")
    assert len(kept.train) + len(kept.held_out) == 10
    assert kept.where == str(tmp_path / "base" / "data" / "people")


def test_for_programs(atoll: Atoll, people: Path, tmp_path: Path) -> None:
    added = json.loads(atoll("data", "add", "people", people, "--target", "told", "--json").out)
    shown = json.loads(atoll("data", "show", "people", "--json").out)
    assert added == {"folder": str(tmp_path / "base" / "data" / "people"), **shown}
    assert shown["schema"]["y"] == {"dtype": "int64", "shape": [], "classes": 2, "names": ["no", "yes"]}
    listed = json.loads(atoll("data", "list", "--json").out)
    assert [one["name"] for one in listed] == ["mnist", "people"]
    assert listed[0]["root"] == bundled_source().card.root
    checked = json.loads(atoll("data", "check", "people", "--json").out)
    assert checked == {"name": "people", "root": shown["root"], "held_out_root": shown["held_out_root"]}


def test_whether_a_job_fits(atoll: Atoll, people: Path) -> None:
    ran = atoll("data", "check", "mnist", ZOO / "mlp.atoll")
    assert (ran.code, "The job mlp can be trained on it" in ran.out) == (0, True)
    atoll("data", "add", "people", people, "--target", "told")
    ran = atoll("data", "check", "people", ZOO / "mlp.atoll", "--json")
    found = json.loads(ran.out)
    assert (ran.code, found["fits"]) == (1, False)
    assert "are float32; the job 'mlp' takes uint8" in found["detail"]


def test_a_name_is_replaced_only_when_asked(atoll: Atoll, people: Path) -> None:
    assert atoll("data", "add", "people", people, "--target", "told").code == 0
    ran = atoll("data", "add", "people", people, "--target", "age")
    assert (ran.code, "say --replace" in ran.err) == (2, True)
    ran = atoll("data", "add", "people", people, "--target", "age", "--values", "--replace")
    assert ran.code == 0
    assert json.loads(atoll("data", "show", "people", "--json").out)["schema"]["y"]["dtype"] == "float32"


def test_pictures_and_text(atoll: Atoll, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a/1.png", "b/2.png", "b/3.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(path)
    ran = atoll("data", "add", "pictures", tmp_path / "pictures", "--size", "4x6", "--grey", "--json")
    assert json.loads(ran.out)["schema"]["x"]["shape"] == [1, 4, 6]
    (tmp_path / "text.txt").write_text("abc" * 100)
    options = ("--window", "10", "--tokens", "characters", "--held-out", "0.5")
    found = json.loads(atoll("data", "add", "text", tmp_path / "text.txt", *options, "--json").out)
    assert (found["count"], found["held_out_count"]) == (15, 14)
    assert found["schema"]["y"]["names"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("add", "mnist", "people.csv"), "comes with Atoll"),
        (("add", "../up", "people.csv"), "cannot name a data set"),
        (("add", "people", "nowhere.csv"), "cannot be read"),
        (("add", "people", "people.csv"), "name it with --target. The columns are: who, age, told"),
        (("add", "people", "people.csv", "--target", "told", "--held-out", "1.5"), "leaves one part empty"),
        (("add", "people", "people.csv", "--size", "4"), "expected height and width in pixels"),
        (("add", "people", "people.csv", "--format", "parquet", "--target", "told"), "Parquet"),
        (("add", "people", "people.csv", "--target", "told", "--licence", ""), "licence and origin must have"),
        (("show", "nobody"), "atoll data list"),
        (("check", "nobody"), "There are: mnist"),
    ],
)
def test_what_is_refused(
    atoll: Atoll, people: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], why: str
) -> None:
    monkeypatch.chdir(people.parent)
    ran = atoll("data", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err


def test_names_of_strangers_do_not_reach_the_terminal_raw(atoll: Atoll, tmp_path: Path) -> None:
    path = tmp_path / "evil.csv"
    path.write_text("a\x1b[31m,y\n1,\x1b]0;owned\x07\n2,b\n")
    atoll("data", "add", "evil", path, "--target", "y", "--held-out", "0.5")
    shown = atoll("data", "show", "evil").out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b[31m" in shown


def test_damage_is_told(atoll: Atoll, people: Path, tmp_path: Path) -> None:
    atoll("data", "add", "people", people, "--target", "told")
    file = tmp_path / "base" / "data" / "people" / "samples.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    ran = atoll("data", "check", "people")
    assert (ran.code, "Add it again with `atoll data add --replace`" in ran.err) == (40, True)
