"""IDX, the format of MNIST and its kin: http://yann.lecun.com/exdb/mnist/"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from atoll.errors import BadInput
from atoll.training.data.samples import Bytes, DataSet

MAX_IDX_BYTES = 1 << 30  # of one file, unpacked

_PARTS = (("train-images", 3), ("train-labels", 1), ("t10k-images", 3), ("t10k-labels", 1))


def read_idx(folder: Path) -> tuple[DataSet, DataSet]:
    """(train, held out) from a directory of MNIST's or Fashion-MNIST's four IDX files, plain or gzipped.

    Raises BadInput, with what was expected, when a file is missing or is not what its name says.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a directory; expected one with MNIST's or Fashion-MNIST's four IDX files")
    images, labels, test_images, test_labels = (_find(folder, name, rank) for name, rank in _PARTS)
    return _paired(images, labels), _paired(test_images, test_labels)


def has_idx(folder: Path) -> bool:
    """Whether a directory holds IDX files by their names."""
    return any(_place(folder, name, rank) is not None for name, rank in _PARTS)


def load_idx(path: Path, rank: int) -> Bytes:
    """One IDX file of unsigned bytes with `rank` dimensions: uint8 [...]; `.gz` is unpacked.

    Raises BadInput when it cannot be read, is larger than 1 GiB, or is not exactly such a file.
    """
    raw = _unpacked(path)
    expected = bytes([0, 0, 8, rank])
    if raw[:4] != expected:
        found = raw[:4].hex() or "nothing"
        raise BadInput(
            f"{path} begins with {found}, expected {expected.hex()} (IDX, unsigned bytes, {rank} dimensions)"
        )
    header = 4 + 4 * rank
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, header, 4))
    if len(raw) != header + math.prod(shape) or 0 in shape:
        raise BadInput(f"{path} holds {len(raw)} bytes, but its header announces {header} + {list(shape)}; get it anew")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read(MAX_IDX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read ({error}); expected an IDX file, plain or gzipped") from error
    if len(raw) > MAX_IDX_BYTES:
        raise BadInput(f"{path} holds more than {MAX_IDX_BYTES} bytes, which is the most that is read from one file")
    return raw


def _names(name: str, rank: int) -> list[str]:
    return [f"{name}{mark}idx{rank}-ubyte{end}" for mark in "-." for end in (".gz", "")]


def _place(folder: Path, name: str, rank: int) -> Path | None:
    return next((folder / one for one in _names(name, rank) if (folder / one).is_file()), None)


def _find(folder: Path, name: str, rank: int) -> Bytes:
    place = _place(folder, name, rank)
    if place is not None:
        return load_idx(place, rank)
    names = _names(name, rank)
    raise BadInput(f"{folder} has no {names[1]} (or {names[0]}); expected MNIST's or Fashion-MNIST's four IDX files")


def _paired(images: Bytes, labels: Bytes) -> DataSet:
    if len(images) != len(labels):
        raise BadInput(f"{len(images)} images but {len(labels)} labels; expected the files of one data set")
    return DataSet(images, labels.astype(np.int64))
