from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.training.aggregate.trimmed_mean import trimmed_mean

ROWS = st.tuples(st.integers(1, 12), st.integers(1, 8)).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(-(2**33), 2**33), min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0]
    )
)


@given(rows=ROWS, trim=st.integers(0, 5))
def test_against_plain_integers(plain: ModuleType, rows: list[list[int]], trim: int) -> None:
    if 2 * trim >= len(rows):
        with pytest.raises(ValueError, match="cannot trim"):
            trimmed_mean(np.array(rows, dtype=np.float64), trim)
        return
    assert trimmed_mean(np.array(rows, dtype=np.float64), trim).tolist() == plain.trimmed_mean(rows, trim)


def test_by_hand() -> None:
    """1 2 4 100 without its ends is 2 4; -1000 0 0 3 leaves 0 0; 1 2 3 4 leaves 2 3, half-way between: 2 is even."""
    rows = np.array([[1, -1000, 1], [100, 0, 4], [2, 3, 3], [4, 0, 2]], dtype=np.float64)
    assert trimmed_mean(rows, 1).tolist() == [3, 0, 2]


@pytest.mark.parametrize(("count", "trim"), [(5, 1), (9, 2), (25, 5), (50, 10)])
def test_against_byzfl(byzfl: ModuleType, count: int, trim: int) -> None:
    rows = np.rint(np.random.default_rng(count).normal(0, 1e6, (count, 1000)))
    assert np.abs(trimmed_mean(rows, trim) - byzfl.TrMean(trim)(rows)).max() <= 0.5 + 1e-6


@given(st.lists(st.integers(-(2**33), 2**33), min_size=5, max_size=9), st.integers(-(2**33), 2**33))
def test_one_outlier_stays_inside_the_honest_range(honest: list[int], outlier: int) -> None:
    rows = np.array([[value] for value in [*honest, outlier]], dtype=np.float64)
    assert min(honest) <= int(trimmed_mean(rows, 1)[0]) <= max(honest)
