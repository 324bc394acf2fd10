"""The extracts of real data that come with the examples: whole, licensed, and readable by `atoll data add`."""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from atoll.training.data.add import read_source
from atoll.training.data.card import About
from atoll.training.data.formats.found import Options

ROOT = Path(__file__).parents[2]
EXTRACTS = ROOT / "examples" / "data" / "extracts"


def test_the_licences_name_the_hash_of_every_file() -> None:
    text = (EXTRACTS / "LICENSES.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `([\w./-]+)` \|.*\| `([0-9a-f]{64})` \|$", text, re.MULTILINE))
    files = [path for path in EXTRACTS.rglob("*") if path.is_file() and path.suffix != ".md"]
    assert listed == {
        path.relative_to(EXTRACTS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    assert sum(path.stat().st_size for path in files) < 1_500_000


def test_clothes() -> None:
    source = read_source("clothes", EXTRACTS / "clothes.npz", Options(), About())
    assert (source.train.x.shape, source.held_out.x.shape) == ((1_000, 1, 28, 28), (200, 1, 28, 28))
    assert np.bincount(source.train.y).tolist() == [100] * 10
    assert source.train.y[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]  # Fashion-MNIST's first train labels


def test_movements_by_person() -> None:
    source = read_source("wrist", EXTRACTS / "movements.npz", Options(group="subject"), About(), 0.2)
    assert source.card.form.x_shape == (6, 100)
    assert (len(source.train), len(source.held_out)) == (8 * 56, 2 * 56)  # eight people to train on, two held out
    groups = source.card.groups
    assert groups is not None
    assert [group.count for group in groups.train] == [56] * 8
    assert np.bincount(source.train.y).tolist() == [64] * 7


def test_tumours() -> None:
    path = EXTRACTS / "tumours.csv"
    source = read_source("tumours", path, Options(target="diagnosis"), About(), 0.2)
    assert (len(source.train), len(source.held_out), source.card.form.x_shape) == (455, 114, (30,))
    assert source.card.schema.y.names == ("benign", "malignant")
    labels = np.concatenate([source.train.y, source.held_out.y])
    assert np.bincount(labels).tolist() == [357, 212]  # as the repository says
    with path.open(encoding="utf-8") as file:
        areas = {np.float32(row["mean_area"]) for row in csv.DictReader(file)}
    column = [column.name for column in source.card.schema.x.columns].index("mean_area")
    assert {*source.train.x[:, column], *source.held_out.x[:, column]} == areas


def test_speakers() -> None:
    options = Options(window=64, tokens="characters", group="file")
    source = read_source("plays", EXTRACTS / "speakers", options, About(), 0.2)
    groups, names = source.card.groups, source.card.schema.y.names
    assert groups is not None
    assert groups.count == 8
    assert len(source.train) + len(source.held_out) == 8 * ((20_000 - 1) // 64)
    first = groups.train[0].name
    text = (EXTRACTS / "speakers" / f"{first}.txt").read_text("utf-8")
    assert "".join(names[code] for code in source.train.x[0]) == text[:64]
    assert "".join(names[code] for code in source.train.y[0]) == text[1:65]


@pytest.mark.parametrize("name", ["breast_cancer", "extracts", "fashion_mnist", "shakespeare", "wrist"])
def test_a_script_says_what_it_reads_and_under_which_licence(name: str) -> None:
    text = (ROOT / "examples" / "data" / f"{name}.py").read_text("utf-8")
    assert re.search("licen[cs]e|public domain", text, re.IGNORECASE)
    compile(text, name, "exec")
