"""Verdicts on states, with distances worked out by hand and by fractions."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import Refused
from atoll.training.compare import compare_segment, within
from atoll.wire.reasons import Reason


def _state(vector: list[int], resets: list[float] = []) -> bytes:  # noqa: B006
    return struct.pack(f"<{len(vector)}i{len(resets)}f", *vector, *resets)


def test_exactly_at_the_tolerance_is_within_and_one_step_more_is_not() -> None:
    """The reference moved 1000; a hundredth is 10, and one grid step is free: 11 passes, 12 does not."""
    model, reference = _state([0, 0]), _state([600, 800])
    at, over = (within(_state([600 + off, 800]), reference, model, 2, 1, 100) for off in (11, 12))
    assert (at.distance_squared, at.reference_squared, at.within) == (100, 1_000_000, True)
    assert (over.distance_squared, over.within) == (121, False)
    assert at.ratio == pytest.approx(0.01)


def test_neighbours_on_the_grid_agree_even_if_nothing_moved() -> None:
    model = _state([5, 5, 5])
    assert within(_state([6, 4, 5]), model, model, 3, 1, 100).within
    assert not within(_state([7, 5, 5]), model, model, 3, 1, 100).within


def test_the_measure_is_how_far_the_reference_moved_not_the_claim() -> None:
    """A claim a thousand times too long is not measured by its own length."""
    model, reference, claim = _state([0]), _state([1000]), _state([1_000_000])
    assert not within(claim, reference, model, 1, 1, 100).within


@given(st.lists(st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 3), min_size=1), st.integers(0, 50))
def test_sums_are_exact_for_any_int32(rows: list[tuple[int, int, int]], numerator: int) -> None:
    a, b, m = ([row[i] for row in rows] for i in range(3))
    result = within(_state(a), _state(b), _state(m), len(rows), numerator, 49)
    distance = sum(max(abs(x - y) - 1, 0) ** 2 for x, y in zip(a, b, strict=True))
    reference = sum((y - z) ** 2 for y, z in zip(b, m, strict=True))
    assert (result.distance_squared, result.reference_squared) == (distance, reference)
    assert result.within == (distance * 49**2 <= reference * numerator**2)


START = [0.0, 0.0]


def _segment_agrees(claimed: list[float], reference: list[float]) -> bool:
    """A segment whose vectors agree, by its reset tensors at one part in a hundred."""
    return compare_segment(_state([9], claimed), _state([9], reference), _state([0], START), 1, 1, 100).within


def test_reset_tensors_of_a_segment_are_compared_by_the_same_tolerance() -> None:
    assert _segment_agrees([3.0, 4.049], [3.0, 4.0])
    assert not _segment_agrees([3.0, 4.051], [3.0, 4.0])


def test_reset_tensors_at_the_end_of_a_unit_are_of_no_account() -> None:
    """They enter no update and end with the unit."""
    assert within(_state([9], [30.0, -4.0]), _state([9], [3.0, 4.0]), _state([0]), 1, 1, 100).within
    assert not within(_state([12], [3.0, 4.0]), _state([9], [3.0, 4.0]), _state([0]), 1, 1, 100).within


@pytest.mark.parametrize("scale", [2.0**-140, 1e-30, 1.0, 1e30, 2.0**120])
def test_reset_tensors_of_any_magnitude(scale: float) -> None:
    assert _segment_agrees([3 * scale, 4.04 * scale], [3 * scale, 4 * scale])
    assert not _segment_agrees([3 * scale, 4.06 * scale], [3 * scale, 4 * scale])


def test_zero_reset_tensors_equal_only_zero() -> None:
    assert _segment_agrees([-0.0, 0.0], [0.0, 0.0])
    assert not _segment_agrees([1e-40, 0.0], [0.0, 0.0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_a_finite_number_is_never_within(value: float, side: int) -> None:
    states = [_state([9], [1.0, 2.0]), _state([9], [1.0, 2.0])]
    states[side] = _state([9], [1.0, value])
    result = within(*states, _state([0]), 1, 1, 1)
    assert not result.within
    assert not result.finite


def test_a_signalling_nan_is_no_exception() -> None:
    state = _state([9]) + bytes.fromhex("0100a07f")
    assert not within(state, _state([9], [1.0]), _state([0]), 1, 1, 1).within


def test_a_segment_is_measured_from_the_committed_start() -> None:
    start, recomputed = _state([1000, 0], [1.0]), _state([1300, 400], [1.0])
    committed = _state([1302, 400], [1.0])
    assert not compare_segment(committed, recomputed, start, 2, 1, 1000).within  # 1 of 500 is too far
    result = compare_segment(committed, recomputed, start, 2, 2, 1000)
    assert result.within
    assert result.reference_squared == 250_000


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_states_of_other_lengths_are_refused(wrong: int) -> None:
    states = [_state([1, 2], [1.0])] * 3
    states[wrong] = states[wrong][:-4]
    with pytest.raises(Refused) as refusal:
        compare_segment(*states, 2, 1, 100)
    assert refusal.value.reason == Reason.MALFORMED


def test_honest_float_noise_passes_and_a_flipped_label_does_not() -> None:
    """The figures measured between honest machines (3e-5) and for the weakest cheat (2.1e-2), on a long vector."""
    rng = np.random.default_rng(1)
    model = rng.integers(-(2**24), 2**24, 20_000)
    move = rng.normal(0, 50_000, 20_000)
    reference = model + np.rint(move).astype(np.int64)
    noise = rng.normal(0, 50_000, 20_000)

    def state(off: float) -> bytes:
        return (reference + np.rint(off * noise).astype(np.int64)).astype("<i4").tobytes()

    start = model.astype("<i4").tobytes()
    assert compare_segment(state(3e-5), state(0), start, 20_000, 1, 1000).within
    assert not within(state(2.1e-2), state(0), start, 20_000, 1, 100).within
