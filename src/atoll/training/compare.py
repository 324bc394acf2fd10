"""Whether a recomputed state agrees with the committed one: relative L2 distance, decided in exact integers.

Honest machines do not agree to the bit (facts: 3e-6 to 3e-5 apart), so states are compared, not hashes. Both sides of
    ||a - b||^2 * denominator^2 <= numerator^2 * ||b - start||^2
are integers, so every judge of the same three states reaches the same verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from atoll.errors import Refused
from atoll.training.fixed import model_of, sum_of_squares, vector_of
from atoll.wire.reasons import Reason

GRAIN = 1
"""Neighbouring grid points count as equal: two honest values can lie on either side of where rounding turns, and near
convergence that alone would outgrow the tolerance of a segment."""

_RESET_BITS = 30  # the common grid of the reset tensors: the largest magnitude of both states is below 2^30 steps


@dataclass(frozen=True)
class Comparison:
    """The verdict on two states, with the numbers behind it.

    `distance_squared` and `reference_squared` are in squared grid steps of the vector, the two `reset` sums in squared
    steps of a grid of their own. `finite` is False when a reset tensor holds a value that is not a number.
    """

    distance_squared: int
    reference_squared: int
    reset_distance_squared: int
    reset_reference_squared: int
    finite: bool
    within: bool

    @property
    def ratio(self) -> float:
        """The vectors' relative distance, for people; infinite when the reference did not move and the other did."""
        if not self.distance_squared:
            return 0.0
        if not self.reference_squared:
            return math.inf
        return math.sqrt(Fraction(self.distance_squared, self.reference_squared))


def within(state: bytes, reference: bytes, model: bytes, length: int, numerator: int, denominator: int) -> Comparison:
    """Compare a unit's last STATE BYTES with a recomputation from the same MODEL BYTES (`length` = P).

    The vectors' distance (differences of one grid step count as none) may be numerator / denominator of how far the
    reference moved from the model. The reset tensors end with the unit and enter no update: they only have to be
    finite. Raises Refused(MALFORMED) when lengths do not fit.
    """
    found = _compared(state, reference, model, length, (numerator, denominator))
    return replace(found, within=found.finite and found.within)


def compare_segment(
    committed: bytes, recomputed: bytes, start: bytes, length: int, numerator: int, denominator: int
) -> Comparison:
    """Compare one segment's committed end with its recomputation from the worker's own committed start (STATE BYTES).

    As `within`, relative to how far the segment moved; and the reset tensors, from which the next segment goes on, may
    be that fraction of the recomputation's own norm away. Each sum runs over all tensors of its kind: a bias whose
    gradient is nothing but rounding must not convict anyone. Raises Refused(MALFORMED) when lengths do not fit.
    """
    if len(start) != len(committed):
        raise Refused(Reason.MALFORMED, f"state of {len(start)} bytes, expected {len(committed)}")
    found = _compared(committed, recomputed, model_of(start, length), length, (numerator, denominator))
    reset_close = found.reset_distance_squared * denominator**2 <= found.reset_reference_squared * numerator**2
    return replace(found, within=found.finite and found.within and reset_close)


def _compared(state: bytes, reference: bytes, model: bytes, length: int, ratio: tuple[int, int]) -> Comparison:
    """All sums; `within` is about the vectors alone."""
    if len(state) != len(reference):
        raise Refused(Reason.MALFORMED, f"state of {len(state)} bytes, expected {len(reference)}")
    a = vector_of(model_of(state, length), length).astype(np.int64)
    b = vector_of(model_of(reference, length), length).astype(np.int64)
    distance = sum_of_squares(np.maximum(np.abs(a - b) - GRAIN, 0))
    moved = sum_of_squares(b - vector_of(model, length))
    resets = _reset_sums(state, reference, 4 * length)
    reset_distance, reset_reference = resets or (0, 0)
    close = distance * ratio[1] ** 2 <= moved * ratio[0] ** 2
    return Comparison(distance, moved, reset_distance, reset_reference, resets is not None, close)


def _reset_sums(state: bytes, reference: bytes, offset: int) -> tuple[int, int] | None:
    """Squared distance and squared reference norm of the reset tensors, or None if a value is not finite.

    Both are rounded to one grid of 2^(exponent - 30) steps, where `exponent` is that of the largest magnitude: float64
    holds the scaled values exactly, so the integers, and the verdict, are the same everywhere.
    """
    both = [np.frombuffer(data, "<f4", offset=offset) for data in (state, reference)]
    if not all(np.isfinite(values).all() for values in both):
        return None
    largest = max(float(np.abs(values).max(initial=0)) for values in both)
    shift = _RESET_BITS - int(np.frexp(largest)[1])
    first, second = (_on_grid(values.astype(np.float64), shift) for values in both)
    return sum_of_squares(first - second), sum_of_squares(second)


def _on_grid(values: NDArray[np.float64], shift: int) -> NDArray[np.int64]:
    return np.rint(np.ldexp(values, shift)).astype(np.int64)
