"""The accepted updates of a round as rows of one matrix that is never built: columns are expanded a chunk at a time.

Integers travel in float64, which holds them exactly: magnitudes stay below 2^33 and every sum below 2^52. Products of
matrices are exact for the same reason, so no BLAS kernel, thread count or order of summation can change a bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from atoll.graph.spec import Update
from atoll.training.fixed import shift_half_even
from atoll.training.quantize import FORM, HIGHEST_EXPONENT, parts
from atoll.wire.hashing import blob_id

COLUMNS = 4096  # a chunk: 50 rows of it are 1.6 MB
MOST_ROWS = 1 << 18  # sums of so many values below 2^33 stay below 2^52
_RATIO_BITS = 30
_LIMB_BITS = 20  # products of two limbs over one chunk sum to less than 2^52

Rows = NDArray[np.float64]


class Updates:
    """UPDATE BYTES of n units, each of `length` elements.

    Raises Refused(MALFORMED) for bytes that are not an update, ValueError for more than 2^18 of them.
    """

    def __init__(self, updates: Sequence[bytes], length: int, form: Update = FORM) -> None:
        if len(updates) > MOST_ROWS:
            raise ValueError(f"{len(updates)} updates, at most {MOST_ROWS}")
        self.length = length
        self.ids = [blob_id(update) for update in updates]
        self._block = form.block
        self._parts = [parts(update, length, form) for update in updates]
        self._ratios: list[int | None] = [None] * len(updates)

    def __len__(self) -> int:
        return len(self.ids)

    def chunks(self) -> Iterator[tuple[int, Rows]]:
        """(first column, float64 [n, columns]) over all columns; the next chunk overwrites the array."""
        step = COLUMNS // self._block * self._block
        buffer = np.empty((len(self), min(step, self.length)))
        for start in range(0, self.length, step):
            rows = buffer[:, : self.length - start]
            for row, (exponents, values), ratio in zip(rows, self._parts, self._ratios, strict=True):
                self._expand(row, exponents, values, start)
                if ratio is not None:
                    row[:] = shift_half_even(row.astype(np.int64) * ratio, _RATIO_BITS)
            yield start, rows

    def norms(self) -> list[int]:
        """Floor of each row's L2 norm, before `clip`."""
        return [isqrt(_squares(exponents, values, self._block)) for exponents, values in self._parts]

    def clip(self, norms: Sequence[int], ceilings: Sequence[int]) -> None:
        """Shrink each row whose norm is above its ceiling to (about) that ceiling.

        value * floor(2^30 * ceiling / norm) / 2^30, half to even: the new norm is at most the ceiling plus the
        rounding of the elements.
        """
        for i, (norm, ceiling) in enumerate(zip(norms, ceilings, strict=True)):
            self._ratios[i] = (ceiling << _RATIO_BITS) // norm if norm > ceiling else None

    def gram(self) -> list[list[int]]:
        """Exact inner products of all pairs of rows (after `clip`)."""
        count = len(self)
        total = np.zeros((count, count), dtype=object)
        for _, rows in self.chunks():
            if max(rows.max(), -rows.min()) < 1 << _LIMB_BITS:
                total += _integers(rows @ rows.T)
                continue
            # v = high * 2^20 + low with |low| <= 2^19 and |high| <= 2^13
            high = np.rint(rows * 2.0**-_LIMB_BITS)
            low = rows - high * 2.0**_LIMB_BITS
            total += _integers(low @ low.T)
            cross = _integers(high @ low.T)
            total += (cross + cross.T) << _LIMB_BITS
            total += _integers(high @ high.T) << 2 * _LIMB_BITS
        return [[int(value) for value in row] for row in total]

    def _expand(self, row: Rows, exponents: NDArray[np.int8], values: NDArray[np.int8], start: int) -> None:
        first, whole = start // self._block, len(row) // self._block
        scales = np.ldexp(1.0, exponents[first : first + whole + 1])
        row[:] = values[start : start + len(row)]
        row[: whole * self._block].reshape(whole, self._block)[:] *= scales[:whole, None]
        if whole * self._block < len(row):
            row[whole * self._block :] *= scales[whole]


def _squares(exponents: NDArray[np.int8], values: NDArray[np.int8], block: int) -> int:
    """Exact sum of squares of one update's elements."""
    by_exponent = np.zeros(HIGHEST_EXPONENT + 1, dtype=np.int64)
    step = COLUMNS // block * block
    for start in range(0, len(values), step):
        part = values[start : start + step].astype(np.int32)
        sums = np.add.reduceat(part * part, np.arange(0, len(part), block))
        first = start // block
        np.add.at(by_exponent, exponents[first : first + len(sums)], sums)
    return sum(int(total) << 2 * e for e, total in enumerate(by_exponent))


def _integers(exact: Rows) -> NDArray[np.object_]:
    return exact.astype(np.int64).astype(object)
