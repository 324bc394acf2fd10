from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.training.aggregate.nnm import mix, neighbours

POINTS = st.lists(st.lists(st.integers(-6, 6), min_size=2, max_size=2), min_size=3, max_size=9)


def _mixed(rows: list[list[int]], ids: list[bytes], faulty: int) -> list[list[int]]:
    gram = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]
    return mix(np.array(rows, dtype=np.float64), neighbours(gram, ids, faulty)).astype(int).tolist()


def test_by_hand() -> None:
    """0 and 1 are each other's neighbours; 10 is nearer to 1; the means of pairs are 0.5 -> 0 and 5.5 -> 6."""
    assert _mixed([[0], [1], [10]], [b"a", b"b", b"c"], 1) == [[0], [0], [6]]


def test_equal_distances_go_to_the_lower_id() -> None:
    assert _mixed([[0], [-2], [2]], [b"a", b"b", b"c"], 1)[0] == [-1]
    assert _mixed([[0], [-2], [2]], [b"a", b"c", b"b"], 1)[0] == [1]


@settings(max_examples=60)
@given(rows=POINTS, faulty=st.integers(0, 2))
def test_against_plain_integers_with_many_ties(plain: ModuleType, rows: list[list[int]], faulty: int) -> None:
    ids = [bytes([len(rows) - i]) for i in range(len(rows))]
    assert _mixed(rows, ids, faulty) == plain.mixed(rows, ids, faulty)


@pytest.mark.parametrize(("count", "faulty"), [(10, 2), (25, 5), (50, 10)])
def test_against_byzfl(byzfl: ModuleType, count: int, faulty: int) -> None:
    rows = np.rint(np.random.default_rng(count).normal(0, 1e5, (count, 300)))
    gram = [[int(a @ b) for b in rows.astype(np.int64)] for a in rows.astype(np.int64)]
    ids = [bytes([i]) for i in range(count)]
    assert np.abs(mix(rows, neighbours(gram, ids, faulty)) - byzfl.NNM(faulty)(rows)).max() <= 0.5 + 1e-6
