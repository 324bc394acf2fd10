"""Data sets by name: the bundled one, those kept in a home, and folders."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from atoll.errors import BadInput
from atoll.training.data.card import About, Source, make_source
from atoll.training.data.formats.idx import has_idx, read_idx
from atoll.training.data.kept import CARD, names_in, place_of, read_kept
from atoll.training.data.samples import DataSet

BUNDLED = Path(__file__).parents[1] / "mnist"
MNIST = "mnist"

load_directory = read_idx


def load(name: str, home: Path) -> Source:
    """The data set that a person means by a name.

    "mnist" is the bundled one; then come the data sets kept in `home`, then folders: one that is such a kept data set,
    or one with MNIST's or Fashion-MNIST's four IDX files. Raises BadInput with what there is, Corrupt if it is damaged.
    """
    if name == MNIST:
        return bundled_source()
    if name in names_in(home):
        place = place_of(home, name).absolute()
        return replace(read_kept(place), where=str(place))
    folder = Path(name).expanduser().absolute()
    if (folder / CARD).is_file():
        return replace(read_kept(folder), where=str(folder))
    if folder.is_dir() and has_idx(folder):
        about = About(licence="as stated by its owner", origin="a directory of this device")
        return replace(make_source(_name_of(folder), *read_idx(folder), about), where=str(folder))
    known = ", ".join([MNIST, *names_in(home)])
    if folder.exists():
        raise BadInput(f"{name} is no data set yet: add it with `atoll data add NAME {name}`. There are: {known}.")
    raise BadInput(f"There is no data set {name!r} in {home}: add one with `atoll data add`. There are: {known}.")


@cache
def bundled_mnist() -> tuple[DataSet, DataSet]:
    """(train, held out): the 10,000 + 2,000 images of MNIST that come with Atoll (`mnist/LICENSE.md`)."""
    return read_idx(BUNDLED)


@cache
def bundled_source() -> Source:
    """`bundled_mnist` with its card."""
    origin = "MNIST by Yann LeCun, Corinna Cortes and Christopher J.C. Burges; stratified subset"
    about = About(licence="CC-BY-SA-3.0", origin=origin, names=tuple(map(str, range(10))))
    return replace(make_source("mnist-12k", *bundled_mnist(), about), where=MNIST)


def _name_of(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("._-")
    return name[:64] or "data"
