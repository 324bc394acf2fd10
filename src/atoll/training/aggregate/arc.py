"""Adaptive robust clipping (ARC): https://arxiv.org/abs/2405.14432 (Allouah et al., 2024).

The k longest of n updates are shortened to the length of the longest other, k = floor(2 f (n - f) / n): no constant to
tune, and an attacker gains nothing by length.
"""

from __future__ import annotations

from collections.abc import Sequence


def threshold(norms: Sequence[int], faulty: int) -> int:
    """The norm to which longer updates are clipped. Raises ValueError unless 0 <= 2 * faulty < n."""
    count = len(norms)
    if not 0 <= 2 * faulty < count:
        raise ValueError(f"{faulty} faulty of {count}")
    clipped = 2 * faulty * (count - faulty) // count
    return sorted(norms)[count - clipped - 1]
