"""Nearest-neighbour mixing (NNM): https://arxiv.org/abs/2302.01772 (Allouah et al., 2023).

Each update is replaced by the mean of the n - f updates nearest to it, itself included: honest updates of unlike data
come close to one another before the rule that follows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atoll.training.aggregate.updates import Rows
from atoll.training.fixed import divide_half_even


def neighbours(gram: Sequence[Sequence[int]], ids: Sequence[bytes], faulty: int) -> NDArray[np.float64]:
    """Which updates each is mixed from: 0/1 in float64 [n, n], n - faulty ones in a row.

    `gram` holds exact inner products, so distances are exact; equal ones are ordered by update id. Updates with the
    same id are the same bytes, so which of them is taken does not matter and the order of the updates never does.
    """
    count = len(ids)
    chosen = np.zeros((count, count))
    for i in range(count):
        order = sorted(range(count), key=lambda j: (gram[i][i] + gram[j][j] - 2 * gram[i][j], ids[j]))
        chosen[i, order[: count - faulty]] = 1
    return chosen


def mix(rows: Rows, chosen: NDArray[np.float64]) -> Rows:
    """Each row replaced by the mean of its neighbours, half to even: integers in float64 [n, c]."""
    return divide_half_even(chosen @ rows, int(chosen[0].sum()))
