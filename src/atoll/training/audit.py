"""Who checks whom: drawn from the audit beacon, after the commit list is locked and before anything is revealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from atoll.wire.generator import Generator

REPLICAS = 3
"""Fresh nodes that re-run a disputed unit; two that agree settle it."""


def draw_audits(
    beacon: bytes, units: Mapping[bytes, bytes], rates: Mapping[bytes, int], auditors: Sequence[bytes]
) -> dict[bytes, bytes]:
    """Which units are audited and by whom: unit id -> auditor.

    `units` maps unit id -> the account that did it, `rates` account -> parts per 10,000. Auditors are taken in turn
    from a shuffled list, so that the work is spread evenly; nobody audits itself. With a single node nothing can be
    audited.
    """
    chosen = [unit for unit in sorted(units) if Generator(beacon, b"audit" + unit).uniform(10_000) < rates[units[unit]]]
    order = list(sorted(auditors))
    Generator(beacon, b"auditors").shuffle(order)
    drawn: dict[bytes, bytes] = {}
    for unit in chosen:
        for position, auditor in enumerate(order):
            if auditor != units[unit]:
                drawn[unit] = auditor
                order.append(order.pop(position))
                break
    return drawn


def draw_replicas(beacon: bytes, unit: bytes, candidates: Sequence[bytes]) -> tuple[bytes, ...]:
    """Up to three fresh nodes for a disputed unit; the caller leaves out the worker and the auditor."""
    order = sorted(candidates)
    Generator(beacon, b"replicas" + unit).shuffle(order)
    return tuple(order[:REPLICAS])


def draw_committee(beacon: bytes, validators: Sequence[bytes], size: int) -> tuple[bytes, ...]:
    """The next round's committee in leader order."""
    order = sorted(validators)
    Generator(beacon, b"committee").shuffle(order)
    return tuple(order[:size])
