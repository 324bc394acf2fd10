from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atoll.training.aggregate.mean import mean


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.tuples(*[st.integers(-(2**33), 2**33)] * n), min_size=1)))
def test_the_mean_is_exact(columns: list[tuple[int, ...]]) -> None:
    rows = np.array(columns, dtype=np.float64).T
    assert mean(rows).tolist() == [round(Fraction(sum(column), len(column))) for column in columns]
