"""Which samples are held out, and in which order the others stand: the same for everybody who has the same files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadInput
from atoll.wire.generator import Generator

CONTEXT = b"held-out"

Places = NDArray[np.int64]


def hold_out(root: bytes, count: int, share: float) -> tuple[Places, Places]:
    """(train, held out): places of samples, int64, ascending.

    round(count * share) samples are held out, at least one, drawn from the Merkle root over all samples in the order
    of the files. Raises BadInput unless both parts get one.
    """
    held = _count(count, share)
    order = Generator(root, CONTEXT).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def hold_out_groups(root: bytes, groups: Sequence[str], share: float) -> tuple[Places, Places]:
    """(train, held out): places of samples, int64, sorted by group; whole groups are held out.

    Groups are put in an order drawn from the Merkle root over all samples; each is held out that still fits into
    round(count * share) samples, or the smallest one if none does. Raises BadInput for fewer than two groups.
    """
    names, codes, counts = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise BadInput(f"All samples are of the group {groups[0]!r}: expected at least two groups, one to hold out.")
    room = _count(len(groups), share)
    held: list[int] = []
    for group in Generator(root, CONTEXT).permutation(len(names)).tolist():
        if counts[group] <= room and len(held) < len(names) - 1:
            held.append(group)
            room -= int(counts[group])
    held = held or [int(np.argmin(counts))]
    order = np.argsort(codes, kind="stable").astype(np.int64)
    out = np.isin(codes[order], held)
    return order[~out], order[out]


def by_group(groups: Sequence[str]) -> Places:
    """Places of samples sorted by group, else in the order that they have: int64."""
    return np.argsort(np.unique(np.array(groups), return_inverse=True)[1], kind="stable").astype(np.int64)


def _count(count: int, share: float) -> int:
    held = max(1, round(count * share)) if 0 < share < 1 else 0
    if not 0 < held < count:
        raise BadInput(
            f"--held-out {share:g} of {count} samples leaves one part empty: expected a share between 0 and 1."
        )
    return held
