"""Small data sets for tests, and MNIST's files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from atoll.training.data import DataSet
from atoll.training.mnist.make import idx


def small(count: int = 5, seed: int = 0) -> DataSet:
    """Pictures of 3 x 4 pixels in up to ten classes."""
    generator = np.random.default_rng(seed)
    return DataSet(generator.integers(0, 256, (count, 3, 4), dtype=np.uint8), generator.integers(0, 10, count))


def write_idx(folder: Path, train: DataSet, test: DataSet, mark: str = "-", end: str = "") -> None:
    """The four IDX files of MNIST."""
    for name, part in (("train", train), ("t10k", test)):
        for kind, values in (("images-idx3", part.x), ("labels-idx1", part.y)):
            raw = idx(values)
            path = folder / f"{name}-{kind}-ubyte{end}".replace("-idx", f"{mark}idx")
            path.write_bytes(gzip.compress(raw) if end else raw)
