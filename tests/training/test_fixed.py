"""Exact arithmetic against Python's integers and fractions."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import Refused
from atoll.training.fixed import (
    divide_half_even,
    model_of,
    saturate,
    shift_half_even,
    starts_from,
    sum_of_squares,
    vector_of,
)
from atoll.wire.reasons import Reason


@given(st.lists(st.integers(-(2**52) + 1, 2**52 - 1), min_size=1), st.integers(1, 10**6))
def test_division_is_that_of_fractions(sums: list[int], divisor: int) -> None:
    quotients = divide_half_even(np.array(sums, dtype=np.float64), divisor)
    assert quotients.tolist() == [round(Fraction(value, divisor)) for value in sums]


@given(st.integers(-(2**40), 2**40), st.integers(1, 1000))
def test_division_just_beside_a_tie(quotient: int, half: int) -> None:
    """(quotient + 1/2) * (2 * half) is a tie; one more or less is not."""
    tie = (2 * quotient + 1) * half
    sums = np.array([tie - 1, tie, tie + 1], dtype=np.float64)
    even = quotient if quotient % 2 == 0 else quotient + 1
    expected = [round(Fraction(tie - 1, 2 * half)), even, round(Fraction(tie + 1, 2 * half))]
    assert divide_half_even(sums, 2 * half).tolist() == expected


@given(st.lists(st.tuples(st.integers(-(2**62), 2**62 - 1), st.integers(0, 62)), min_size=1))
def test_shift_is_division_by_a_power_of_two(pairs: list[tuple[int, int]]) -> None:
    values, shifts = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    assert shift_half_even(values, shifts).tolist() == [round(Fraction(v, 2**s)) for v, s in pairs]


def test_shift_ties_by_hand() -> None:
    values = np.array([-6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6], dtype=np.int64)
    assert shift_half_even(values, 2).tolist() == [-2, -1, -1, 0, 0, 0, 0, 0, 1, 1, 2]


@given(st.lists(st.integers(-(2**33), 2**33)))
def test_squares_are_exact(values: list[int]) -> None:
    assert sum_of_squares(np.array(values, dtype=np.int64)) == sum(value * value for value in values)


def test_squares_of_the_extremes_do_not_overflow() -> None:
    count = 200_001  # several chunks
    assert sum_of_squares(np.full(count, -(2**33), dtype=np.int64)) == count * 2**66
    assert sum_of_squares(np.full(count, 2**33 - 1, dtype=np.int64)) == count * (2**33 - 1) ** 2


def test_saturation_at_both_ends() -> None:
    values = np.array([2**31 - 1, 2**31, 2**40, -(2**31), -(2**31) - 1, -5], dtype=np.int64)
    assert struct.unpack("<6i", saturate(values)) == (2**31 - 1, 2**31 - 1, 2**31 - 1, -(2**31), -(2**31), -5)


def test_views_of_model_and_state() -> None:
    state = struct.pack("<2i1f", 5, -7, 0.5)
    assert vector_of(model_of(state, 2), 2).tolist() == [5, -7]


@pytest.mark.parametrize("length", [0, 7, 9, 12])
def test_a_model_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(Refused) as refusal:
        vector_of(bytes(length), 2)
    assert refusal.value.reason == Reason.MALFORMED


@pytest.mark.parametrize("length", [0, 4, 9])
def test_a_state_without_a_whole_model_is_refused(length: int) -> None:
    with pytest.raises(Refused) as refusal:
        model_of(bytes(length), 2)
    assert refusal.value.reason == Reason.MALFORMED


def test_state_0_is_the_model_and_zero_bytes() -> None:
    model = struct.pack("<2i", 1, 2)
    assert starts_from(model + bytes(8), model)
    assert not starts_from(model + struct.pack("<2f", 0.0, -0.0), model)
    assert not starts_from(struct.pack("<2i", 1, 3) + bytes(8), model)
    assert not starts_from(model[:4], model)
