from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from atoll.training.aggregate.arc import threshold
from atoll.training.aggregate.updates import Updates
from atoll.training.quantize import dequantise, quantise


@pytest.mark.parametrize(
    ("norms", "faulty", "expected"),
    [
        ([5, 1, 4, 2, 3], 0, 5),  # nothing is clipped
        ([5, 1, 4, 2, 3], 1, 4),  # floor(2 * 1 * 4 / 5) = 1 is
        ([5, 1, 4, 2, 3], 2, 3),  # floor(2 * 2 * 3 / 5) = 2 are
        (list(range(10)), 2, 6),  # floor(2 * 2 * 8 / 10) = 3
        ([7, 7, 7], 1, 7),
    ],
)
def test_by_hand(norms: list[int], faulty: int, expected: int) -> None:
    assert threshold(norms, faulty) == expected


@pytest.mark.parametrize("faulty", [-1, 3])
def test_too_many_faulty(faulty: int) -> None:
    with pytest.raises(ValueError, match="faulty of 5"):
        threshold([1] * 5, faulty)


@pytest.mark.parametrize(("count", "faulty"), [(10, 2), (25, 5), (31, 7)])
def test_clipping_against_byzfl(byzfl: ModuleType, count: int, faulty: int) -> None:
    generator = np.random.default_rng(count)
    scales = np.exp(generator.normal(0, 1, count))[:, None] * 1e6
    updates = [quantise(np.rint(row).astype(np.int64)) for row in generator.normal(0, 1, (count, 500)) * scales]
    rows = Updates(updates, 500)
    norms = rows.norms()
    limit = threshold(norms, faulty)
    rows.clip(norms, [min(norm, limit) for norm in norms])
    ours = np.concatenate([columns.copy() for _, columns in rows.chunks()], axis=1)
    expected = byzfl.ARC(faulty)([dequantise(update, 500).astype(np.float64) for update in updates])
    # half a step from rounding, and less than that from the floors of the two norms
    assert np.abs(ours - np.array(expected)).max() < 1
