"""Data sets of this device: HOME/data/NAME/ holds `card.json` and `samples.safetensors`.

A data set appears whole or not at all: it is written aside, then renamed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from atoll.errors import BadInput, Corrupt, MachineError, Refused
from atoll.training.data.card import MAX_CARD_BYTES, NAME, Card, Source
from atoll.training.data.samples import Array, DataSet

DATA = "data"
CARD, SAMPLES = "card.json", "samples.safetensors"
RESERVED = frozenset({"mnist"})
_ARRAYS = ("train_x", "train_y", "held_x", "held_y")


def check_name(name: str) -> str:
    """The name, if a data set can have it; raises BadInput."""
    if not NAME.fullmatch(name):
        raise BadInput(f"{name[:80]!r} cannot name a data set: expected 1 to 64 of a-z 0-9 . _ -, with no . _ - first.")
    if name in RESERVED:
        raise BadInput(f"The data set {name!r} comes with Atoll: choose another name.")
    return name


def place_of(home: Path, name: str) -> Path:
    """Where the data set of this name lies, or would lie."""
    return home / DATA / name


def names_in(home: Path) -> list[str]:
    """Names of the data sets that are kept in a home, sorted."""
    folder = home / DATA
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if NAME.fullmatch(path.name) and (path / CARD).is_file())


def keep(home: Path, source: Source, *, replace: bool = False) -> Path:
    """Keep a data set under the name in its card; returns its folder.

    Raises BadInput when there is one of that name and `replace` is not given, MachineError when the disk fails.
    """
    place = place_of(home, check_name(source.card.name))
    if place.exists() and not replace:
        raise BadInput(f"{place} exists already: choose another name, or say --replace.")
    with _explained(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
        try:
            new, before = aside / "new", aside / "before"
            new.mkdir()
            _write(new / SAMPLES, safetensors.numpy.save(_arrays(source)))
            _write(new / CARD, source.card_bytes)
            if place.exists():
                place.rename(before)
            new.rename(place)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return place


def read_card(folder: Path) -> Card:
    """The card of a kept data set. Raises BadInput if there is none, Corrupt if it is none."""
    try:
        with (folder / CARD).open("rb") as file:
            return Card.from_bytes(file.read(MAX_CARD_BYTES + 1))
    except OSError as error:
        raise BadInput(f"{folder} cannot be read ({error.strerror}): expected the folder of a data set.") from error
    except Refused as error:
        raise _damaged(folder, error.detail) from error


def read_kept(folder: Path) -> Source:
    """A kept data set, whose samples have the roots that its card names. Raises as `read_card`."""
    card = read_card(folder)
    try:
        with safetensors.safe_open(folder / SAMPLES, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _damaged(folder, f"{SAMPLES}: {str(error)[:200]}") from error
    if sorted(found) != sorted(_ARRAYS):
        raise _damaged(folder, f"{SAMPLES} holds {sorted(found)[:8]}, expected {sorted(_ARRAYS)}")
    types = (card.form.x_dtype, card.form.y_dtype) * 2
    if [found[name].dtype for name in _ARRAYS] != [_stored(dtype) for dtype in types]:
        raise _damaged(folder, f"{SAMPLES} holds other types than the card names")
    arrays = [found[name].astype(dtype, copy=False) for name, dtype in zip(_ARRAYS, types, strict=True)]
    try:
        source = Source(DataSet(*arrays[:2]), DataSet(*arrays[2:]), card)
    except BadInput as error:
        raise _damaged(folder, str(error)) from error
    told = ((card.count, card.root), (card.held_out_count, card.held_out_root))
    for (count, root), part in zip(told, (source.train, source.held_out), strict=True):
        if (len(part), part.form, "0x" + part.root.hex()) != (count, card.form, root):
            raise _damaged(folder, "the samples are not those that the card names")
    return source


def _arrays(source: Source) -> dict[str, Array]:
    """Integers are kept as int32, which is what the samples' bytes hold."""
    arrays = (source.train.x, source.train.y, source.held_out.x, source.held_out.y)
    return {
        name: np.ascontiguousarray(values, _stored(values.dtype.name))
        for name, values in zip(_ARRAYS, arrays, strict=True)
    }


def _stored(dtype: str) -> np.dtype[Any]:
    return np.dtype("int32" if dtype == "int64" else dtype)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _damaged(folder: Path, detail: str) -> Corrupt:
    return Corrupt(f"The data set in {folder} is damaged: {detail}. Add it again with `atoll data add --replace`.")


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"{place} cannot be written ({error.strerror or error}): expected a folder of yours on a disk with space."
        ) from error
