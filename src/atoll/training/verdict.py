"""From what was committed, revealed, audited and replayed to one verdict for each piece of work. Pure.

Every member of the committee computes the same rows from the same evidence and signs only what it computed itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.training.committee import AUDIT, DISPUTED, REPLICA, UNIT, VALIDATION, Row
from atoll.wire.hashing import ZERO_HASH
from atoll.wire.reasons import Reason

GUILTY = frozenset(
    {
        Reason.COMMIT_MISMATCH,
        Reason.STATE_ORIGIN,
        Reason.UPDATE_MISMATCH,
        Reason.SEGMENT_MISMATCH,
        Reason.STATE_WITHHELD,
        Reason.DIVERGED,
    }
)
"""Reasons that say that the worker itself did something wrong: they reset its record."""

ALL_AGREE = 0
NOT_OPENED = 255


@dataclass(frozen=True)
class Case:
    """One unit at the end of a round.

    `finding` is OK, a reason code or DISPUTED; `auditor` who was drawn, if anybody; `audited` whether its audit commit
    was locked; `audit_opened` whether that audit was properly revealed. `replays` maps replica -> (first differing
    segment, its own state), `convicted` are the segments for which the judges found the replicas right; the one after
    the last of `segments` stands for the update.
    """

    unit: bytes
    worker: bytes
    finding: int
    auditor: bytes | None = None
    audited: bool = False
    audit_opened: Reason = Reason.OK
    replays: Mapping[bytes, tuple[int, bytes]] = field(default_factory=dict)
    convicted: frozenset[int] = frozenset()
    segments: int = NOT_OPENED - 2


def groups(replays: Mapping[bytes, tuple[int, bytes]]) -> dict[int, list[bytes]]:
    """Replicas by the segment that they name, in a fixed order."""
    named: dict[int, list[bytes]] = {}
    for account in sorted(replays):
        named.setdefault(replays[account][0], []).append(account)
    return named


def settle(case: Case) -> Reason:
    """The verdict on the worker's unit: OK, a reason, or UNSETTLED. Two replicas that agree settle a dispute.

    That an update is not that of the last state needs no second opinion: the judges work it out in exact integers.
    """
    if case.finding != DISPUTED:
        return Reason(case.finding)
    named = groups(case.replays)
    if case.segments + 1 in case.convicted:
        return Reason.UPDATE_MISMATCH
    if len(named.get(ALL_AGREE, [])) >= 2:
        return Reason.OK
    if len(named.get(NOT_OPENED, [])) >= 2:
        return Reason.STATE_WITHHELD
    if any(segment in case.convicted and len(accounts) >= 2 for segment, accounts in named.items()):
        return Reason.SEGMENT_MISMATCH
    return Reason.UNSETTLED


def _audit_reason(case: Case, verdict: Reason) -> Reason:
    if case.audit_opened is not Reason.OK:
        return case.audit_opened
    if case.finding == DISPUTED and verdict is Reason.UNSETTLED:
        return Reason.UNSETTLED
    if case.finding == DISPUTED and verdict is Reason.OK:
        return Reason.AUDIT_MISMATCH
    return Reason.OK


def _replica_reason(case: Case, verdict: Reason, segment: int) -> Reason:
    if verdict is Reason.UNSETTLED:
        return Reason.UNSETTLED
    said = {Reason.OK: segment == ALL_AGREE, Reason.STATE_WITHHELD: segment == NOT_OPENED}
    agrees = said.get(verdict, segment in case.convicted)
    return Reason.OK if agrees else Reason.AUDIT_MISMATCH


def rows(cases: list[Case], validators: list[bytes]) -> tuple[Row, ...]:
    """All verdicts of a round in canonical order: (kind, unit, account)."""
    found = [Row(VALIDATION, ZERO_HASH, account, Reason.OK) for account in validators]
    for case in cases:
        verdict = settle(case)
        found.append(Row(UNIT, case.unit, case.worker, verdict))
        if case.auditor is not None and case.audited:
            found.append(Row(AUDIT, case.unit, case.auditor, _audit_reason(case, verdict)))
        for account, (segment, _) in case.replays.items():
            found.append(Row(REPLICA, case.unit, account, _replica_reason(case, verdict, segment)))
    return tuple(sorted(found, key=lambda row: (row.kind, row.unit, row.account)))
