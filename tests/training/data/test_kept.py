"""Data sets on disk: whole or not at all, and never another than the card says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from atoll.errors import BadInput, Corrupt, MachineError
from atoll.training.data.card import Source, make_source
from atoll.training.data.kept import SAMPLES, check_name, keep, names_in, place_of, read_card, read_kept
from atoll.training.data.samples import DataSet
from tests.training.data.sets import small

KINDS = {
    "pictures": small(4),
    "tables": DataSet(np.array([[0.5, -1], [2, 3]], np.float32), np.array([[1.5], [2.5]], np.float32)),
    "texts": DataSet(np.array([[1, -2], [3, 2**31 - 1]]), np.array([[5, 6], [7, -100]])),
}


def source(name: str = "pictures") -> Source:
    return make_source(name, KINDS[name], KINDS[name].take([1]))


@pytest.mark.parametrize("name", KINDS)
def test_what_is_kept_comes_back(tmp_path: Path, name: str) -> None:
    place = keep(tmp_path, source(name))
    assert place == place_of(tmp_path, name) == tmp_path / "data" / name
    back = read_kept(place)
    assert back.card == read_card(place) == source(name).card
    for kept, given in ((back.train, source(name).train), (back.held_out, source(name).held_out)):
        assert (kept.x.dtype, kept.y.dtype) == (given.x.dtype, given.y.dtype)
        assert np.array_equal(kept.x, given.x)
        assert np.array_equal(kept.y, given.y)
    stored = safetensors.numpy.load_file(place / SAMPLES)
    assert sorted(stored) == ["held_x", "held_y", "train_x", "train_y"]
    assert names_in(tmp_path) == [name]


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    keep(tmp_path, source())
    other = make_source("pictures", small(6, seed=2), small(2))
    with pytest.raises(BadInput, match="exists already: choose another name, or say --replace"):
        keep(tmp_path, other)
    assert read_kept(place_of(tmp_path, "pictures")).card == source().card
    keep(tmp_path, other, replace=True)
    assert read_kept(place_of(tmp_path, "pictures")).card == other.card
    assert os.listdir(tmp_path / "data") == ["pictures"]  # nothing is left aside


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "A", "x" * 65, "a\n", "mnist", "-x"])
def test_names_that_no_data_set_can_have(name: str) -> None:
    with pytest.raises(BadInput):
        check_name(name)


def test_a_disk_that_fails(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(MachineError, match="cannot be written"):
        keep(tmp_path, source())
    assert names_in(tmp_path) == []


def _spoil(place: Path, **changes: np.ndarray | None) -> None:
    arrays = {**safetensors.numpy.load_file(place / SAMPLES), **changes}
    kept = {name: values for name, values in arrays.items() if values is not None}
    safetensors.numpy.save_file(kept, place / SAMPLES)


def test_damage_is_found_and_told(tmp_path: Path) -> None:
    place = keep(tmp_path, source())
    other = KINDS["pictures"].x.copy()
    other[2, 1, 1] ^= 1
    for changes in (
        {"train_x": other},
        {"train_x": other[:3]},
        {"train_y": np.zeros(4, np.int32)},
        {"held_x": None},
        {"extra": other},
        {"train_x": KINDS["pictures"].x.astype(np.float32)},
        {"train_x": KINDS["pictures"].x.reshape(4, 12)},
    ):
        keep(tmp_path, source(), replace=True)
        _spoil(place, **changes)  # type: ignore[arg-type]
        with pytest.raises(Corrupt, match="Add it again with `atoll data add --replace`"):
            read_kept(place)


def test_files_that_are_none(tmp_path: Path) -> None:
    place = keep(tmp_path, source())
    raw = (place / SAMPLES).read_bytes()
    for damaged in (b"", b"\xff" * 100, raw[:-1], raw[:20]):
        (place / SAMPLES).write_bytes(damaged)
        with pytest.raises(Corrupt):
            read_kept(place)
    (place / SAMPLES).unlink()
    with pytest.raises(Corrupt):
        read_kept(place)
    plain = json.loads((place / "card.json").read_bytes())
    (place / "card.json").write_text(json.dumps(plain))  # with spaces: not what was written
    with pytest.raises(Corrupt, match="canonical form"):
        read_card(place)
    with pytest.raises(BadInput, match="cannot be read"):
        read_card(tmp_path)
