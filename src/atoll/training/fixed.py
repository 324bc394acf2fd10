"""Exact arithmetic on fixed-point vectors: views of MODEL and STATE BYTES, half-even division, sums without overflow.

MODEL BYTES are the vector of a job as int32 [P], STATE BYTES go on with its reset tensors as float32 [R], both
little-endian; `atoll.graph.fixed` turns float32 tensors into them and back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atoll.errors import Refused
from atoll.wire.reasons import Reason

Vector = NDArray[np.int32]

LOWEST, HIGHEST = -(1 << 31), (1 << 31) - 1


def vector_of(model: bytes, length: int) -> Vector:
    """MODEL BYTES as int32 [length]: a read-only view. Raises Refused(MALFORMED) for a wrong length."""
    if len(model) != 4 * length:
        raise Refused(Reason.MALFORMED, f"model of {len(model)} bytes, expected {4 * length}")
    return np.frombuffer(model, "<i4")


def model_of(state: bytes, length: int) -> bytes:
    """MODEL BYTES inside STATE BYTES. Raises Refused(MALFORMED) when the state is too short or not made of words."""
    if len(state) < 4 * length or len(state) % 4:
        raise Refused(Reason.MALFORMED, f"state of {len(state)} bytes, expected {4 * length} or more, four a value")
    return state[: 4 * length]


def starts_from(state: bytes, model: bytes) -> bool:
    """Whether STATE BYTES are state 0 of a unit that starts from this model: its very bytes, then zero bytes."""
    return state.startswith(model) and not any(memoryview(state)[len(model) :])


def saturate(values: NDArray[np.int64]) -> bytes:
    """Integers as MODEL BYTES; what does not fit int32 becomes its lowest or highest value."""
    return np.clip(values, LOWEST, HIGHEST).astype("<i4").tobytes()


def divide_half_even(sums: NDArray[np.float64], divisor: int) -> NDArray[np.float64]:
    """Integers (carried in float64, magnitudes below 2^52) over a positive integer, ties to even: exact.

    A quotient half-way between two integers is representable, so IEEE division returns it as it is and `rint` takes
    the even neighbour. Any other is at least 1 / (2 * divisor) away from the next half, and the division's error is
    at most |quotient| * 2^-53, which is less: it rounds to the same integer.
    """
    return np.rint(sums / divisor)


def shift_half_even(values: NDArray[np.int64], shift: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """values / 2^shift, ties to even, for magnitudes up to 2^62; `shift` from 0 to 62, one number or one a value."""
    shifts = np.asarray(shift, dtype=np.int64)
    half = np.left_shift(np.int64(1), shifts) >> 1
    odd = (values >> shifts) & (half > 0)  # a tie goes up only from an odd number
    rounded: NDArray[np.int64] = (values + np.maximum(half - 1, 0) + odd) >> shifts
    return rounded


def sum_of_squares(values: NDArray[np.int64]) -> int:
    """The exact sum of squares of integers of magnitude up to 2^33."""
    total = 0
    for start in range(0, len(values), 1 << 16):
        part = np.abs(values[start : start + (1 << 16)])
        high, low = part >> 20, part & 0xFFFFF
        if high.any():  # high <= 2^13 and low < 2^20: no sum of 2^16 products leaves int64
            total += (int(high @ high) << 40) + (int(high @ low) << 21)
        total += int(low @ low)
    return total
