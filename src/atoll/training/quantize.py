"""Updates: the change of the vector as int8 values in blocks that share a power-of-two scale; integers only.

UPDATE BYTES = one int8 exponent a block (ceil(P / block) bytes), then one int8 value an element (P bytes). The block's
exponent is the smallest e >= 0 for which every |round-half-even(d / 2^e)| <= 127, that is 2 * max|d| < 255 * 2^e. A
difference of two int32 needs at most e = 26. Each update has one encoding only: -128 never occurs, and a block with
e > 0 holds a value of magnitude 64 or more, so `quantise(dequantise(update)) == update`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atoll.errors import Refused
from atoll.graph.spec import Update
from atoll.training.fixed import model_of, shift_half_even, vector_of
from atoll.wire.reasons import Reason

LARGEST = 127
HIGHEST_EXPONENT = 26
LARGEST_CHANGE = (1 << 32) - 1  # between two int32
FORM = Update()

# _LIMITS[e]: twice the largest magnitude has to stay below this for exponent e
_LIMITS = np.array([255 << e for e in range(HIGHEST_EXPONENT + 1)], dtype=np.int64)

Change = NDArray[np.int64]


def update_length(length: int, form: Update = FORM) -> int:
    """Length of UPDATE BYTES for a vector of `length` elements."""
    return -(-length // _block(form)) + length


def quantise(change: NDArray[np.int32] | Change, form: Update = FORM) -> bytes:
    """UPDATE BYTES of a change of the vector, int [P]; raises ValueError for a magnitude above 2^32 - 1."""
    exact = change.astype(np.int64)
    if len(exact) and not -LARGEST_CHANGE <= int(exact.min()) <= int(exact.max()) <= LARGEST_CHANGE:
        raise ValueError("a change lies outside the differences of two int32")
    starts = np.arange(0, len(exact), _block(form))
    largest = np.maximum.reduceat(np.abs(exact), starts) if len(exact) else exact
    exponents = np.searchsorted(_LIMITS, 2 * largest, side="right").astype(np.int64)
    values = shift_half_even(exact, np.repeat(exponents, form.block)[: len(exact)])
    return exponents.astype(np.int8).tobytes() + values.astype(np.int8).tobytes()


def parts(update: bytes, length: int, form: Update = FORM) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Exponents int8 [ceil(length / block)] and values int8 [length] of UPDATE BYTES: read-only views.

    Raises Refused(MALFORMED) for a wrong length and for anything that `quantise` would not have written.
    """
    if len(update) != update_length(length, form):
        raise Refused(Reason.MALFORMED, f"update of {len(update)} bytes, expected {update_length(length, form)}")
    exponents = np.frombuffer(update, np.int8, count=len(update) - length)
    values = np.frombuffer(update, np.int8, offset=len(exponents))
    if not len(values):
        return exponents, values
    if exponents.min() < 0 or exponents.max() > HIGHEST_EXPONENT:
        raise Refused(Reason.MALFORMED, f"update with an exponent outside 0 to {HIGHEST_EXPONENT}")
    low, high = _extremes(values, form.block)
    if low.min() < -LARGEST:
        raise Refused(Reason.MALFORMED, "update with the value -128")
    if np.any((exponents > 0) & (np.maximum(high, -low) <= LARGEST // 2)):
        raise Refused(Reason.MALFORMED, "update with a larger exponent than its block needs")
    return exponents, values


def dequantise(update: bytes, length: int, form: Update = FORM) -> Change:
    """The change that UPDATE BYTES stand for: int64 [length], magnitudes below 2^33. Raises as `parts` does."""
    exponents, values = parts(update, length, form)
    return values.astype(np.int64) << np.repeat(exponents.astype(np.int64), form.block)[:length]


def update_of(state: bytes, model: bytes, length: int, form: Update = FORM) -> bytes:
    """UPDATE BYTES of a unit: quantise(state - model), from its last STATE BYTES and the MODEL BYTES it started from.

    Raises Refused(MALFORMED) for wrong lengths.
    """
    end = vector_of(model_of(state, length), length).astype(np.int64)
    return quantise(end - vector_of(model, length), form)


def _extremes(values: NDArray[np.int8], block: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Lowest and highest value of each block, as int16 (so that -(-128) exists)."""
    whole = len(values) // block * block
    rows = values[:whole].reshape(-1, block)
    low, high = rows.min(axis=1), rows.max(axis=1)
    if whole < len(values):
        tail = values[whole:]
        low, high = np.append(low, tail.min()), np.append(high, tail.max())
    return low.astype(np.int16), high.astype(np.int16)


def _block(form: Update) -> int:
    if form.bits != 8 or not 1 <= form.block <= 4096:
        raise ValueError(f"{form.bits} bits in blocks of {form.block}: this version has 8 bits, blocks of 1 to 4096")
    return form.block
