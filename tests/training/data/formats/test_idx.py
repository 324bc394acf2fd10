"""IDX files, good and bad."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from atoll.errors import BadInput
from atoll.training.data.formats.idx import has_idx, load_idx, read_idx
from atoll.training.mnist.make import idx
from tests.training.data.sets import small, write_idx


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_both_spellings_plain_and_gzipped(tmp_path: Path, mark: str, end: str) -> None:
    write_idx(tmp_path, small(7), small(3, seed=1), mark, end)
    train, test = read_idx(tmp_path)
    assert np.array_equal(train.x, small(7).x)
    assert np.array_equal(test.y, small(3, seed=1).y)
    assert train.root == small(7).root
    assert train.form.x_shape == (3, 4)
    assert has_idx(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path, small(), small())
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(BadInput, match="no t10k-labels-idx1-ubyte"):
        read_idx(tmp_path)
    with pytest.raises(BadInput, match="not a directory"):
        read_idx(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "begins with nothing"),
        (b"PK\3\4....", "begins with 504b0304"),
        (bytes([0, 0, 13, 1]) + struct.pack(">I", 1) + b"\0\0\0\0", "begins with 00000d01"),  # floats
        (bytes([0, 0, 8, 3]) + struct.pack(">III", 1, 1, 1) + b"\0", "begins with 00000803"),  # images, not labels
        (bytes([0, 0, 8, 1]) + b"\0\0", "its header announces"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + b"\0\0\0", "its header announces"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + b"\0\0\0\0\0", "its header announces"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 2**32 - 1) + b"\0", "its header announces"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 0), "its header announces"),
    ],
)
def test_what_is_not_an_idx_file_of_labels(tmp_path: Path, raw: bytes, why: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(raw)
    with pytest.raises(BadInput, match=why):
        load_idx(path, 1)


def test_a_broken_gzip_file(tmp_path: Path) -> None:
    good = gzip.compress(idx(np.arange(100)))
    for number, raw in enumerate((b"not gzip at all", good[:-10], good[:20] + b"\xff\xff\xff" + good[23:])):
        path = tmp_path / f"{number}.gz"
        path.write_bytes(raw)
        with pytest.raises(BadInput, match="cannot be read"):
            load_idx(path, 1)


def test_images_and_labels_of_different_counts(tmp_path: Path) -> None:
    write_idx(tmp_path, small(5), small(5))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(4)))
    with pytest.raises(BadInput, match="5 images but 4 labels"):
        read_idx(tmp_path)
