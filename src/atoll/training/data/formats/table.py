"""Tables: columns of numbers or texts become samples x float32 [N, columns] and a target.

Texts become categories: their place among the different texts of the column, sorted; the card names them. A target of
texts or whole numbers is a class, one of fractions is a quantity.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadInput
from atoll.training.data.card import MAX_COLUMNS, MAX_NAME, MAX_NAMED, Column
from atoll.training.data.formats.found import Found, Options, coded
from atoll.training.data.samples import Array, DataSet

MAX_CELLS = 1 << 28
USUAL_TARGETS = ("target", "label", "class", "y")


@dataclass(frozen=True, eq=False)
class Cells:
    """One column: `numbers` (int64 or float64), or None where it holds texts; `texts` as they stand in the file.

    Where there are numbers, `texts` may be empty, unless the column is one of categories or groups.
    """

    numbers: NDArray[Any] | None
    texts: Sequence[str]


def make_table(columns: Mapping[str, Cells], options: Options, where: str) -> Found:
    """Samples of a table. Raises BadInput with column and row of what cannot be used."""
    target = _target(columns, options, where)
    for name in (*options.category, *([options.group] if options.group else ())):
        _need_column(name, columns, where)
    if options.group == target:
        raise BadInput(f"--group and --target both name the column {target!r}: expected two columns.")
    left = [name for name in columns if name not in (target, options.group)]
    if not left:
        raise BadInput(f"{where} has no column besides the target {target!r}: expected at least one to learn from.")
    made = [_feature(name, columns[name], name in options.category, where) for name in left]
    x = np.stack([values for values, _ in made], axis=1)
    y, names = _labels(target, columns[target], options, where)
    return Found(
        DataSet(x, y),
        columns=tuple(column for _, column in made),
        names=names,
        by=options.group,
        groups=tuple(columns[options.group].texts) if options.group else (),
    )


def check_header(names: Sequence[str], where: str) -> None:
    """Raise BadInput unless these can be the names of columns."""
    if len(names) > MAX_COLUMNS:
        raise BadInput(f"{where} has {len(names)} columns: at most {MAX_COLUMNS} are read.")
    seen: set[str] = set()
    for place, name in enumerate(names):
        if not 1 <= len(name) <= MAX_NAME:
            raise BadInput(
                f"{where}: column {place + 1} is named {name[:40]!r}: expected a header with a name of 1 to {MAX_NAME} "
                "characters for each column."
            )
        if name in seen:
            raise BadInput(f"{where} has two columns named {name!r}: rename one.")
        seen.add(name)


def without_dropped(names: Sequence[str], options: Options, where: str) -> list[str]:
    """The names without those that --drop leaves out; raises BadInput when there is none of that name."""
    for name in options.drop:
        _need_column(name, names, where)
    return [name for name in names if name not in options.drop]


def _target(columns: Mapping[str, Cells], options: Options, where: str) -> str:
    if options.target:
        return _need_column(options.target, columns, where)
    usual = [name for name in columns if name.lower() in USUAL_TARGETS]
    if len(usual) == 1:
        return usual[0]
    raise BadInput(f"{where} does not say which column is to be told: name it with --target. {_listed(columns)}")


def _need_column(name: str, columns: Collection[str], where: str) -> str:
    if name not in columns:
        raise BadInput(f"{where} has no column {name!r}. {_listed(columns)}")
    return name


def _listed(columns: Collection[str]) -> str:
    names = ", ".join(list(columns)[:20])
    return f"The columns are: {names}{', ...' if len(columns) > 20 else ''}."


def _feature(name: str, cells: Cells, category: bool, where: str) -> tuple[NDArray[np.float32], Column]:
    if cells.numbers is not None and not category:
        return _floats(name, cells.numbers, where), Column(name=name)
    codes, names = coded(cells.texts, f"{where}: column {name!r}")
    return codes.astype(np.float32), Column(name=name, categories=names)


def _labels(name: str, cells: Cells, options: Options, where: str) -> tuple[Array, tuple[str, ...]]:
    numbers = cells.numbers
    if options.values or (numbers is not None and numbers.dtype.kind == "f"):
        if numbers is None:
            raise BadInput(f"{where}: the target {name!r} holds texts such as {cells.texts[0]!r}: leave out --values.")
        return _floats(name, numbers, where), ()
    if numbers is None:
        return coded(cells.texts, f"{where}: the target {name!r}")
    different, codes = np.unique(numbers, return_inverse=True)
    if len(different) > MAX_NAMED:
        raise BadInput(
            f"{where}: the target {name!r} has {len(different)} different numbers; if it is a quantity, say --values."
        )
    return codes.astype(np.int64).reshape(-1), tuple(str(number) for number in different.tolist())


def _floats(name: str, numbers: NDArray[Any], where: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        floats: NDArray[np.float32] = numbers.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(floats))
    if len(wrong):
        row = int(wrong[0])
        raise BadInput(
            f"{where}: column {name!r} holds {numbers[row]} in row {row + 1}: expected a number of at most 3.4e38; "
            "correct it or leave that row out."
        )
    return floats
