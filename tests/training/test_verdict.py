"""Verdicts, one by one, as the protocol's table gives them."""

from __future__ import annotations

import pytest

from atoll.training.committee import AUDIT, DISPUTED, REPLICA, UNIT, VALIDATION, Row
from atoll.training.verdict import GUILTY, Case, groups, rows, settle
from atoll.wire.hashing import ZERO_HASH
from atoll.wire.reasons import Reason

UNIT_ID, WORKER, AUDITOR = b"u" * 32, b"w" * 20, b"a" * 20
R1, R2, R3 = b"1" * 20, b"2" * 20, b"3" * 20
STATE = b"s" * 32


def case(finding: int, *said: int, convicted: set[int] | None = None, **changes: object) -> Case:
    replays = {replica: (segment, STATE) for replica, segment in zip((R1, R2, R3), said, strict=False)}
    fields: dict[str, object] = {"auditor": AUDITOR, "audited": True, "segments": 4, **changes}
    return Case(UNIT_ID, WORKER, finding, replays=replays, convicted=frozenset(convicted or ()), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", [Reason.OK, Reason.NOT_REVEALED, Reason.COMMIT_MISMATCH, Reason.UPDATE_MISMATCH])
def test_what_was_found_stands(reason: Reason) -> None:
    assert settle(case(reason)) is reason
    assert settle(case(reason, 0, 0, 0)) is reason


@pytest.mark.parametrize(
    ("said", "convicted", "verdict"),
    [
        ((0, 0, 0), set(), Reason.OK),
        ((0, 0), set(), Reason.OK),
        ((0, 0, 2), set(), Reason.OK),
        ((0, 255, 0), set(), Reason.OK),
        ((2, 2, 2), {2}, Reason.SEGMENT_MISMATCH),
        ((2, 2, 0), {2}, Reason.SEGMENT_MISMATCH),
        ((2, 2, 2), set(), Reason.UNSETTLED),  # the judges saw no difference
        ((1, 2, 2), {2}, Reason.SEGMENT_MISMATCH),
        ((1, 2, 3), {2}, Reason.UNSETTLED),  # never a conviction on one comparison
        ((255, 255, 0), set(), Reason.STATE_WITHHELD),
        ((255, 0, 2), set(), Reason.UNSETTLED),
        ((0,), set(), Reason.UNSETTLED),
        ((), set(), Reason.UNSETTLED),
        ((5, 0, 0), {5}, Reason.UPDATE_MISMATCH),  # exact: one who looked is enough
        ((5, 0, 0), set(), Reason.OK),  # and one who lies is not
        ((5,), {5}, Reason.UPDATE_MISMATCH),
    ],
)
def test_disputes(said: tuple[int, ...], convicted: set[int], verdict: Reason) -> None:
    assert settle(case(DISPUTED, *said, convicted=convicted)) is verdict


def found(one: Case, kind: int) -> list[tuple[bytes, Reason]]:
    return [(row.account, Reason(row.reason)) for row in rows([one], []) if row.kind == kind]


def test_who_is_paid_when_the_audit_agrees() -> None:
    one = case(Reason.OK)
    assert found(one, UNIT) == [(WORKER, Reason.OK)]
    assert found(one, AUDIT) == [(AUDITOR, Reason.OK)]
    assert found(one, REPLICA) == []


def test_who_is_paid_after_a_dispute() -> None:
    cleared = case(DISPUTED, 0, 0, 2)
    assert found(cleared, AUDIT) == [(AUDITOR, Reason.AUDIT_MISMATCH)]
    assert found(cleared, REPLICA) == [(R1, Reason.OK), (R2, Reason.OK), (R3, Reason.AUDIT_MISMATCH)]
    convicted = case(DISPUTED, 2, 2, 0, convicted={2})
    assert found(convicted, AUDIT) == [(AUDITOR, Reason.OK)]
    assert found(convicted, REPLICA) == [(R1, Reason.OK), (R2, Reason.OK), (R3, Reason.AUDIT_MISMATCH)]
    hidden = case(DISPUTED, 255, 0, 255)
    assert found(hidden, AUDIT) == [(AUDITOR, Reason.OK)]
    assert found(hidden, REPLICA) == [(R1, Reason.OK), (R2, Reason.AUDIT_MISMATCH), (R3, Reason.OK)]
    open_ = case(DISPUTED, 0, 1, 2)
    assert {reason for _, reason in found(open_, AUDIT) + found(open_, REPLICA)} == {Reason.UNSETTLED}


def test_audits_that_were_not_opened_are_not_paid() -> None:
    for reason in (Reason.NOT_REVEALED, Reason.COMMIT_MISMATCH):
        assert found(case(DISPUTED, 0, 0, 0, audit_opened=reason), AUDIT) == [(AUDITOR, reason)]
    assert found(case(Reason.NOT_REVEALED), AUDIT) == [(AUDITOR, Reason.OK)]  # the worker is to blame
    assert found(case(DISPUTED, 0, 0, 0, audited=False), AUDIT) == []  # never committed


def test_rows_are_in_order() -> None:
    other = Case(b"t" * 32, R1, Reason.OK)
    listed = rows([case(Reason.OK), other], [R2, WORKER])
    assert listed == (
        Row(UNIT, b"t" * 32, R1, 0),
        Row(UNIT, UNIT_ID, WORKER, 0),
        Row(AUDIT, UNIT_ID, AUDITOR, 0),
        Row(VALIDATION, ZERO_HASH, R2, 0),
        Row(VALIDATION, ZERO_HASH, WORKER, 0),
    )
    assert listed == rows([other, case(Reason.OK)], [WORKER, R2])


def test_groups() -> None:
    assert groups({R3: (2, STATE), R1: (2, STATE), R2: (0, STATE)}) == {2: [R1, R3], 0: [R2]}


def test_who_is_guilty() -> None:
    innocent = {Reason.OK, Reason.NOT_REVEALED, Reason.UNSETTLED, Reason.AUDIT_MISMATCH}
    assert not GUILTY & innocent
    assert {Reason.SEGMENT_MISMATCH, Reason.STATE_WITHHELD, Reason.UPDATE_MISMATCH, Reason.COMMIT_MISMATCH} <= GUILTY
