"""What a reader is asked for, and what it finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadInput
from atoll.training.data.card import MAX_NAME, MAX_NAMED, Column
from atoll.training.data.samples import DataSet


@dataclass(frozen=True)
class Options:
    """What a person says about the files besides where they are.

    `target`, `group`, `drop` and `category` name columns (arrays, in .npz); `values` says that the target is a quantity
    and not a class. `size` is height and width of pictures, `grey` makes them grey. `window` is the length of sequences
    of text, `tokens` is "bytes", "characters" or the path of a file of tokens.
    """

    target: str = ""
    group: str = ""
    drop: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    values: bool = False
    size: tuple[int, int] | None = None
    grey: bool = False
    window: int = 64
    tokens: str = "bytes"


@dataclass(frozen=True, eq=False)
class Found:
    """Samples in the order of the files.

    `held_out` are those that the files themselves keep apart. `by` is what `groups`, one name a sample, are: a column,
    or "file".
    """

    data: DataSet
    held_out: DataSet | None = None
    columns: tuple[Column, ...] = ()
    classes: int = 0
    names: tuple[str, ...] = ()
    by: str = ""
    groups: tuple[str, ...] = ()


def coded(texts: Iterable[str], where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Each text's place among the different ones, which are sorted: int64 [n], and the different ones.

    Raises BadInput when there are more than a card can name, or when one is too long.
    """
    listed = list(texts)
    different = sorted(set(listed))
    check_names(different, where)
    places = {text: place for place, text in enumerate(different)}
    return np.array([places[text] for text in listed], np.int64), tuple(different)


def check_names(names: Iterable[str], where: str) -> None:
    """Raise BadInput unless a card can hold all these names of classes, categories or groups."""
    listed = list(names)
    if len(listed) > MAX_NAMED:
        raise BadInput(
            f"{where} holds {len(listed)} different texts: expected categories, at most {MAX_NAMED} of them."
        )
    for name in listed:
        if not 1 <= len(name) <= MAX_NAME:
            raise BadInput(f"{where} holds {name[:40]!r} of {len(name)} characters: expected 1 to {MAX_NAME}.")
