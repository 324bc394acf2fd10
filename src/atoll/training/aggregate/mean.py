"""The plain mean (FedAvg, equal weights): https://arxiv.org/abs/1602.05629. Not robust: for jobs that ask for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atoll.training.aggregate.updates import Rows
from atoll.training.fixed import divide_half_even


def mean(rows: Rows) -> NDArray[np.int64]:
    """Mean of each column, half to even: integers in float64 [n, c] -> int64 [c]."""
    return divide_half_even(rows.sum(axis=0), len(rows)).astype(np.int64)
