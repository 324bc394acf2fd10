"""Norm cap: https://arxiv.org/abs/1911.07963 (Sun, Kairouz, Suresh, McMahan, 2019), with a cap taken from the updates.

No update may be longer than twice the median one. ARC after it bounds the longest updates more tightly as long as there
are no more liars than it was told; the cap still holds when there are, up to half.
"""

from __future__ import annotations

from collections.abc import Sequence

TIMES = 2


def cap(norms: Sequence[int]) -> int:
    """The longest norm allowed: twice the lower median of the norms (floors, as integers)."""
    return TIMES * sorted(norms)[(len(norms) - 1) // 2]
