"""From files to a data set: their format is recognised, samples are read, some are held out, a card is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from atoll.errors import BadInput
from atoll.training.data.card import MAX_NAMED, About, Source, make_source
from atoll.training.data.formats.csv_file import read_csv
from atoll.training.data.formats.files import entries, open_limited
from atoll.training.data.formats.found import Found, Options, check_names
from atoll.training.data.formats.idx import has_idx, read_idx
from atoll.training.data.formats.images import has_images, read_images
from atoll.training.data.formats.npz import read_npz
from atoll.training.data.formats.parquet import read_parquet
from atoll.training.data.formats.text import read_text
from atoll.training.data.split import by_group, hold_out, hold_out_groups

MAX_FILE_BYTES = 1 << 40  # each reader has a lower limit of its own
HELD_OUT = 0.1  # of the samples, where the files keep none apart


def _read_idx(path: Path, options: Options) -> Found:
    train, held_out = read_idx(path)
    if options.group:
        raise BadInput("IDX files have no column to group samples by: leave out --group.")
    return Found(train, held_out)


READERS: dict[str, Callable[[Path, Options], Found]] = {
    "csv": read_csv,
    "parquet": read_parquet,
    "npz": read_npz,
    "idx": _read_idx,
    "images": read_images,
    "text": read_text,
}


def recognise(path: Path) -> str:
    """The format of a file or a folder, by its content and name. Raises BadInput when it is none that is known."""
    if path.is_dir():
        return _recognise_folder(path)
    with open_limited(path, MAX_FILE_BYTES, "a file or a folder of data").open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK\3\4"):
        return "npz"
    if head.startswith(b"\x93NUMPY"):
        raise BadInput(f"{path} is a single array: put x.npy and y.npy into a folder, or both into one .npz file.")
    by_name = {".csv": "csv", ".tsv": "csv", ".txt": "text", ".md": "text"}.get(path.suffix.lower())
    if by_name is None:
        raise BadInput(f"{path} is of no format that is recognised: name it with --format, {' | '.join(READERS)}.")
    return by_name


def _recognise_folder(folder: Path) -> str:
    if has_idx(folder):
        return "idx"
    endings = {path.suffix.lower() for path in entries(folder) if path.is_file()}
    for ending, name in ((".npy", "npz"), (".txt", "text")):
        if ending in endings:
            return name
    if has_images(folder):
        return "images"
    raise BadInput(
        f"{folder} is of no format that is recognised: expected MNIST's IDX files, x.npy and y.npy, *.txt files, or "
        "one folder of pictures for each class."
    )


def read_source(
    name: str, path: Path, options: Options, about: About, held_out: float | None = None, kind: str = ""
) -> Source:
    """A data set from files; `held_out` is the share to hold out (default: 0.1), `kind` one of READERS or "".

    Raises BadInput with what was found, what was expected and what to do.
    """
    full = path.expanduser().absolute()
    found = READERS[kind or recognise(full)](full, options)
    about = replace(about, columns=found.columns, classes=found.classes, names=found.names)
    if found.held_out is not None:
        if held_out is not None:
            raise BadInput(f"{path} keeps {len(found.held_out)} samples apart already: leave out --held-out.")
        if not found.by:
            return make_source(name, found.data, found.held_out, about)
        order = by_group(found.groups)
        return make_source(name, found.data.take(order), found.held_out, _grouped(about, found, order.tolist()))
    share, count, root = HELD_OUT if held_out is None else held_out, len(found.data), found.data.root
    train, held = hold_out_groups(root, found.groups, share) if found.by else hold_out(root, count, share)
    if found.by:
        about = _grouped(about, found, train.tolist())
    return make_source(name, found.data.take(train), found.data.take(held), about)


def _grouped(about: About, found: Found, order: list[int]) -> About:
    different = set(found.groups)
    if len(different) <= MAX_NAMED:
        check_names(different, f"--group {found.by}")
    return replace(about, by=found.by, groups=[found.groups[place] for place in order], group_count=len(different))
