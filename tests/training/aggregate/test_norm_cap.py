from __future__ import annotations

import pytest

from atoll.training.aggregate.norm_cap import cap


@pytest.mark.parametrize(
    ("norms", "expected"), [([7], 14), ([5, 1, 3], 6), ([1, 2, 3, 4], 4), ([0, 0, 0, 10**30], 0), ([9, 10**30], 18)]
)
def test_twice_the_lower_median(norms: list[int], expected: int) -> None:
    assert cap(norms) == expected
