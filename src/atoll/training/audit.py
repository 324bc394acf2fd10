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

    `units` maps unit id -> the account that did it (one of `auditors`), `rates` account -> parts per 10,000. The
    accounts are shuffled into a circle, and each unit goes to the one that follows its worker: everybody else is as
    likely, nobody audits twice or itself, and from three on no two audit each other. A single node cannot be audited.
    """
    circle = sorted(auditors)
    Generator(beacon, b"auditors").shuffle(circle)
    place = {account: position for position, account in enumerate(circle)}
    drawn: dict[bytes, bytes] = {}
    for unit, worker in sorted(units.items()):
        chosen = Generator(beacon, b"audit" + unit).uniform(10_000) < rates[worker]
        if chosen and len(circle) > 1:
            drawn[unit] = circle[(place[worker] + 1) % len(circle)]
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
