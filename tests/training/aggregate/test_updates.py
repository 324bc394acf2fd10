from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import Refused
from atoll.graph.spec import Update
from atoll.training.aggregate.updates import COLUMNS, Updates
from atoll.training.quantize import dequantise, quantise

LARGE = 2**32 - 1


def _random(count: int, length: int, bits: int, seed: int = 0) -> list[bytes]:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(0, bits + 1, (count, -(-length // 256)))
    limits = np.repeat(2**sizes, 256, axis=1)[:, :length]
    return [quantise(generator.integers(-limit, limit, endpoint=True)) for limit in np.minimum(limits, LARGE)]


@pytest.mark.parametrize("length", [1, 255, 256, 257, COLUMNS, COLUMNS + 1, 2 * COLUMNS + 300])
def test_chunks_are_the_dequantised_columns(length: int) -> None:
    updates = _random(3, length, 32)
    chunks = [(start, columns.copy()) for start, columns in Updates(updates, length).chunks()]
    assert [start for start, _ in chunks] == list(range(0, length, COLUMNS))
    joined = np.concatenate([columns for _, columns in chunks], axis=1)
    assert np.array_equal(joined, [dequantise(update, length) for update in updates])


def test_blocks_that_do_not_divide_a_chunk() -> None:
    form = Update(block=300)
    change = np.arange(-5000, 5000, dtype=np.int64) * 1000
    rows = Updates([quantise(change, form)], len(change), form)
    joined = np.concatenate([columns.copy() for _, columns in rows.chunks()], axis=1)
    assert np.array_equal(joined[0], dequantise(quantise(change, form), len(change), form))


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 5), length=st.integers(1, 700), bits=st.integers(0, 32), seed=st.integers(0, 2**32))
def test_norms_and_inner_products_are_exact(count: int, length: int, bits: int, seed: int) -> None:
    updates = _random(count, length, bits, seed)
    exact = [[int(value) for value in dequantise(update, length)] for update in updates]
    gram = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in exact] for x in exact]
    rows = Updates(updates, length)
    assert rows.gram() == gram
    assert rows.norms() == [math.isqrt(gram[i][i]) for i in range(count)]


def test_the_largest_updates_do_not_overflow() -> None:
    length = 3 * COLUMNS + 1
    change = np.full(length, LARGE, dtype=np.int64)
    rows = Updates([quantise(change), quantise(-change)], length)
    square = length * 2**64
    assert rows.gram() == [[square, -square], [-square, square]]
    assert rows.norms() == [math.isqrt(square)] * 2


@pytest.mark.parametrize("bits", [19, 20, 21, 24, 28, 32])
def test_inner_products_of_clipped_rows_are_exact(bits: int) -> None:
    """Unclipped values have seven significant bits; clipped ones have all of theirs, and no float64 sum may round."""
    rows = Updates([quantise(np.full(COLUMNS, 2**bits - 1)), quantise(np.full(COLUMNS, -(2**bits) + 1))], COLUMNS)
    norms = rows.norms()
    rows.clip(norms, [norm * 7 // 9 - i for i, norm in enumerate(norms)])
    first, second = ([int(value) for value in row] for row in next(rows.chunks())[1])
    exact = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in (first, second)] for x in (first, second)]
    assert rows.gram() == exact


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(0, 32), seed=st.integers(0, 2**32), ceiling=st.integers(0, 2**36))
def test_clipped_rows_are_as_long_as_allowed(bits: int, seed: int, ceiling: int) -> None:
    length = 300
    rows = Updates(_random(1, length, bits, seed), length)
    norms = rows.norms()
    rows.clip(norms, [ceiling])
    clipped = math.isqrt(rows.gram()[0][0])
    assert clipped <= min(norms[0], ceiling) + math.sqrt(length) / 2 + 2
    assert clipped >= min(norms[0], ceiling) - math.sqrt(length) / 2 - norms[0] / 2**30 - 2


def test_clipping_against_plain_integers(plain: ModuleType) -> None:
    updates = _random(10, 300, 24, seed=5)
    exact = [plain.dequantise(update, 300) for update in updates]
    rows = Updates(updates, 300)
    norms = rows.norms()
    cap = 2 * sorted(norms)[4]
    limit = sorted(min(norm, cap) for norm in norms)[10 - 3 - 1]
    rows.clip(norms, [min(norm, limit) for norm in norms])
    assert next(rows.chunks())[1].astype(int).tolist() == plain.clipped(exact, 2)


def test_an_update_of_another_length_is_refused() -> None:
    with pytest.raises(Refused):
        Updates([quantise(np.zeros(5, np.int64)), quantise(np.zeros(6, np.int64))], 5)
