"""Quantised updates against vectors, fractions and values worked out by hand."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import Refused
from atoll.graph.spec import Update
from atoll.training.quantize import dequantise, parts, quantise, update_length, update_of
from atoll.wire.reasons import Reason

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "training.json").read_text())["quantise"]

# Some blocks of one magnitude each, so that every exponent occurs
CHANGES = st.integers(0, 32).flatmap(
    lambda size: st.lists(st.integers(-(2**size) + 1, 2**size - 1), min_size=1, max_size=9)
)


def _array(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors(vector: dict) -> None:
    assert quantise(_array(vector["change"])).hex() == vector["update"]


@pytest.mark.parametrize(
    ("value", "exponent", "quantised"),
    [(127, 0, 127), (128, 1, 64), (254, 1, 127), (255, 2, 64), (-255, 2, -64), (509, 2, 127), (510, 3, 64)],
)
def test_the_exponent_steps_up_where_rounding_would_give_128(value: int, exponent: int, quantised: int) -> None:
    """255 / 2 = 127.5 rounds to 128, which is one too many; 509 / 4 = 127.25 does not."""
    assert quantise(_array([value])) == struct.pack("bb", exponent, quantised)


def test_the_largest_difference_of_two_int32() -> None:
    update = quantise(_array([2**32 - 1, -(2**32 - 1)]))
    assert update == struct.pack("bbb", 26, 64, -64)
    assert dequantise(update, 2).tolist() == [2**32, -(2**32)]


@pytest.mark.parametrize("value", [2**32, -(2**32), -(2**63)])
def test_a_larger_change_is_an_error(value: int) -> None:
    with pytest.raises(ValueError, match="two int32"):
        quantise(_array([0, value]))


@given(CHANGES)
def test_each_value_is_off_by_half_a_step_at_most(change: list[int]) -> None:
    update = quantise(_array(change))
    step = 2 ** update[0]
    for value, back in zip(change, dequantise(update, len(change)).tolist(), strict=True):
        assert abs(Fraction(value - back)) <= Fraction(step, 2)


@given(CHANGES)
def test_the_exponent_is_the_smallest_that_fits(change: list[int]) -> None:
    exponent = quantise(_array(change))[0]
    fits = [all(abs(round(Fraction(v, 2**e))) <= 127 for v in change) for e in range(27)]
    assert exponent == fits.index(True)


@settings(max_examples=50)
@given(st.lists(CHANGES, min_size=1, max_size=4))
def test_an_update_has_one_encoding(blocks: list[list[int]]) -> None:
    change = [value for block in blocks for value in (block * 256)[:256]]
    change += blocks[0]
    update = quantise(_array(change))
    back = np.clip(dequantise(update, len(change)), 1 - 2**32, 2**32 - 1)  # the largest one rounds to one step more
    assert quantise(back) == update


def test_lengths() -> None:
    assert [update_length(n) for n in (0, 1, 256, 257)] == [0, 2, 257, 259]
    assert quantise(_array([])) == b""
    assert dequantise(b"", 0).tolist() == []


@pytest.mark.parametrize(
    ("update", "why"),
    [
        (b"", "of 0 bytes"),
        (bytes(4), "of 4 bytes"),
        (struct.pack("3b", -1, 1, 1), "exponent outside"),
        (struct.pack("3b", 27, 100, 1), "exponent outside"),
        (struct.pack("3b", 0, -128, 1), "-128"),
        (struct.pack("3b", 1, 63, -63), "larger exponent"),
    ],
)
def test_what_quantise_would_not_write_is_refused(update: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why) as refusal:
        dequantise(update, 2)
    assert refusal.value.reason == Reason.MALFORMED


def test_the_last_short_block_is_checked_too() -> None:
    good = quantise(_array([1] * 256 + [1000]))
    parts(good, 257)
    with pytest.raises(Refused, match="larger exponent"):
        parts(good[:-1] + b"\x01", 257)


def test_the_update_of_a_unit_ignores_reset_tensors() -> None:
    model = struct.pack("<3i", 10, -(2**31), 2**31 - 1)
    state = struct.pack("<3i2f", 13, -(2**31) + 5, 2**31 - 1, 1.5, -2.5)
    assert update_of(state, model, 3) == struct.pack("4b", 0, 3, 5, 0)
    with pytest.raises(Refused):
        update_of(state, model + b"\0", 3)
    with pytest.raises(Refused):
        update_of(state[:8], model, 3)


def test_only_the_form_of_this_version_is_written() -> None:
    with pytest.raises(ValueError, match="4 bits"):
        quantise(_array([1]), Update(bits=4))
    assert quantise(_array([1, 300]), Update(block=1)) == struct.pack("4b", 0, 2, 1, 75)
