"""A validator's book: which rounds an epoch should take in, and what they add up to. All sums are done by hand."""

from __future__ import annotations

import pytest

from atoll.errors import Refused
from atoll.ledger.epoch import JobTotal, PublishedEpoch
from atoll.ledger.receipts import Receipt
from atoll.ledger.rewards import Prices
from atoll.node.book import Book, JobAccount, outcome_of
from atoll.training.committee import AUDIT, REPLICA, UNIT, VALIDATION, CertifyPayload, Row
from atoll.wire.hashing import ZERO_HASH
from atoll.wire.reasons import Reason

JOB, OTHER = b"\x0a" * 32, b"\x0b" * 32
A, B, C = (bytes([number]) * 20 for number in (1, 2, 3))
U1, U2, U3 = (bytes([number]) * 32 for number in (0x51, 0x52, 0x53))
PRICES = Prices(unit_price=100, audit_price=7, validator_price=3)
WRONG = int(Reason.SEGMENT_MISMATCH)

FIRST = (
    Row(VALIDATION, ZERO_HASH, C, 0),
    Row(UNIT, U1, A, 0),
    Row(UNIT, U2, B, WRONG),
    Row(AUDIT, U1, B, 0),
    Row(REPLICA, U2, C, 0),
    Row(VALIDATION, ZERO_HASH, A, 0),
)
SECOND = (Row(UNIT, U3, B, 0), Row(VALIDATION, ZERO_HASH, A, 0))
# Round 0: A 100 + 3, B 7, C 7 + 3. Round 1: A 3, B 100.
AFTER_FIRST = ((A, 103), (B, 7), (C, 10))
AFTER_BOTH = ((A, 106), (B, 107), (C, 10))


def certificate(*verdicts: Row) -> CertifyPayload:
    return CertifyPayload(
        replays=(),
        present=(),
        links=(),
        verdicts=verdicts,
        model=ZERO_HASH,
        roster=(A, B, C),
        committee=(A,),
        lock_root=ZERO_HASH,
        last=False,
    )


def book(rounds: int = 2, epoch_rounds: int = 2, budget: int = 1000) -> Book:
    """A book with one open job, of which two rounds are certified."""
    one = Book()
    one.open_job(JOB, JobAccount(PRICES, rounds, epoch_rounds, budget))
    one.certified(JOB, 0, certificate(*FIRST))
    one.certified(JOB, 1, certificate(*SECOND))
    return one


def reason_of(one: Book, number: int, *spans: tuple[bytes, int]) -> Reason:
    with pytest.raises(Refused) as caught:
        one.draft(number, spans)
    return Reason(caught.value.reason)


def test_verdicts_are_sorted_by_kind_of_work() -> None:
    outcome = outcome_of(certificate(*FIRST))
    assert outcome.units == [(U1, A, 0), (U2, B, WRONG)]
    assert outcome.audits == [(U1, B, 0)]
    assert outcome.replicas == [(U2, C, 0)]
    assert outcome.validators == [C, A]


def test_an_epoch_of_one_round() -> None:
    epoch = book(rounds=3).draft(0, [(JOB, 1)])
    assert epoch == PublishedEpoch(
        0,
        (
            Receipt(4, JOB, 0, ZERO_HASH, A, 0, 3),
            Receipt(4, JOB, 0, ZERO_HASH, C, 0, 3),
            Receipt(1, JOB, 0, U1, A, 0, 100),
            Receipt(2, JOB, 0, U1, B, 0, 7),
            Receipt(1, JOB, 0, U2, B, WRONG, 0),
            Receipt(3, JOB, 0, U2, C, 0, 7),
        ),
        AFTER_FIRST,
        (JobTotal(JOB, 120, False),),
    )


def test_work_on_units_of_light_workers_is_paid_in_part() -> None:
    one = Book()
    one.open_job(JOB, JobAccount(Prices(100, 7, 3, segments=4), 1, 1, 1000))
    one.certified(JOB, 0, certificate(*FIRST), frozenset({A}))
    epoch = one.draft(0, [(JOB, 1)])
    # A is light: its unit pays 25 and B's audit of it 1; C's replica of B's unit pays in full.
    assert epoch.accounts == ((A, 28), (B, 1), (C, 10))
    assert epoch.jobs == (JobTotal(JOB, 39, True),)


def test_the_last_round_settles_the_job() -> None:
    epoch = book().draft(0, [(JOB, 2)])
    assert epoch.accounts == AFTER_BOTH
    assert epoch.jobs == (JobTotal(JOB, 223, True),)
    assert len(epoch.receipts) == 8
    assert [receipt.round for receipt in epoch.receipts] == [0] * 6 + [1] * 2


def test_the_order_of_verdicts_and_of_news_does_not_matter() -> None:
    other = Book()
    other.open_job(JOB, JobAccount(PRICES, 2, 2, 1000))
    other.certified(JOB, 1, certificate(*SECOND[::-1]))
    other.certified(JOB, 0, certificate(*FIRST[::-1]))
    other.certified(JOB, 0, certificate(*FIRST))  # said twice, counted once
    assert other.draft(0, [(JOB, 2)]) == book().draft(0, [(JOB, 2)])


def test_totals_grow_from_epoch_to_epoch() -> None:
    one = book()
    first = one.draft(0, [(JOB, 1)])
    assert one.draft(0, [(JOB, 1)]) == first  # drafting changes nothing
    one.posted(first)
    assert one.settled_rounds(JOB) == 1
    second = one.draft(1, [(JOB, 2)])
    assert {receipt.round for receipt in second.receipts} == {1}
    assert second.accounts == AFTER_BOTH
    assert second.jobs == (JobTotal(JOB, 223, True),)
    one.posted(second)
    assert one.totals.accounts == dict(AFTER_BOTH)
    assert one.totals.jobs == {JOB: JobTotal(JOB, 223, True)}
    assert one.due({JOB: 2}) == ()


def test_epochs_that_others_posted_count_without_their_certificates() -> None:
    late = Book()
    late.open_job(JOB, JobAccount(PRICES, 2, 2, 1000))
    late.posted(book().draft(0, [(JOB, 1)]))
    assert late.settled_rounds(JOB) == late.certified_rounds(JOB) == 1
    late.certified(JOB, 1, certificate(*SECOND))
    assert late.draft(1, [(JOB, 2)]).accounts == AFTER_BOTH


def test_an_epoch_out_of_turn_is_not_taken_in() -> None:
    one = book()
    first = one.draft(0, [(JOB, 1)])
    one.posted(PublishedEpoch(1, first.receipts, first.accounts, first.jobs))
    assert one.epochs == []
    one.posted(first)
    one.posted(PublishedEpoch(0, (), ((A, 10**6),), ()))
    assert one.epochs == [first]
    assert one.totals.accounts == dict(AFTER_FIRST)


def test_jobs_are_settled_together_in_order() -> None:
    one = book()
    one.open_job(OTHER, JobAccount(Prices(1, 1, 1), 5, 1, 50))
    one.certified(OTHER, 0, certificate(Row(UNIT, U1, C, 0)))
    assert one.due({JOB: 2, OTHER: 1}) == ((JOB, 2), (OTHER, 1))
    forth, back = one.draft(0, [(JOB, 2), (OTHER, 1)]), one.draft(0, [(OTHER, 1), (JOB, 2)])
    assert forth == back
    assert forth.jobs == (JobTotal(JOB, 223, True), JobTotal(OTHER, 1, False))
    assert forth.accounts == ((A, 106), (B, 107), (C, 11))


def test_what_is_due() -> None:
    one = book(rounds=3, epoch_rounds=2)
    assert one.due({}) == ()
    assert one.due({JOB: 1}) == ()  # the chain has one round of the two
    assert one.due({JOB: 2}) == ((JOB, 2),)
    assert one.due({JOB: 9}) == ((JOB, 2),)  # the chain is ahead of this book
    one.posted(one.draft(0, [(JOB, 2)]))
    assert one.due({JOB: 3}) == ()
    one.certified(JOB, 2, certificate(Row(UNIT, U1, A, 0)))
    assert one.due({JOB: 3}) == ((JOB, 3),)  # the last round need not wait for a second one


def test_a_gap_in_the_rounds_stops_the_count() -> None:
    one = book(rounds=9)
    one.certified(JOB, 3, certificate(Row(UNIT, U1, A, 0)))
    assert one.certified_rounds(JOB) == 2
    assert reason_of(one, 0, (JOB, 4)) == Reason.NOT_FOUND


def test_spans_that_are_not_drafted() -> None:
    one = book()
    assert reason_of(one, 1, (JOB, 1)) == Reason.STALE  # epoch 0 is next
    assert reason_of(one, 0, (OTHER, 1)) == Reason.NOT_FOUND
    assert reason_of(one, 0, (JOB, 3)) == Reason.NOT_FOUND
    assert reason_of(one, 0, (JOB, 0)) == Reason.NOT_FOUND  # nothing new
    assert reason_of(one, 0, (JOB, -1)) == Reason.NOT_FOUND
    assert reason_of(one, 0, (JOB, 1), (JOB, 1)) == Reason.DUPLICATE
    assert reason_of(one, 0, (JOB, 1), (JOB, 2)) == Reason.DUPLICATE
    one.posted(one.draft(0, [(JOB, 1)]))
    assert reason_of(one, 0, (JOB, 2)) == Reason.STALE
    assert reason_of(one, 1, (JOB, 1)) == Reason.NOT_FOUND


def test_a_job_never_owes_more_than_its_escrow() -> None:
    assert book(budget=223).draft(0, [(JOB, 2)]).jobs[0].total == 223
    poor = book(budget=222)
    assert reason_of(poor, 0, (JOB, 2)) == Reason.OVER_BUDGET
    poor.posted(poor.draft(0, [(JOB, 1)]))
    assert reason_of(poor, 1, (JOB, 2)) == Reason.OVER_BUDGET  # 120 + 103: earlier epochs count


def test_a_certificate_that_pays_twice_is_refused() -> None:
    one = book()
    with pytest.raises(Refused) as caught:
        one.certified(JOB, 2, certificate(Row(UNIT, U1, A, 0), Row(UNIT, U1, B, 0)))
    assert caught.value.reason == Reason.DUPLICATE
    with pytest.raises(Refused) as caught:
        one.certified(JOB, 2, certificate(Row(UNIT, U1, A, 0), Row(AUDIT, U1, A, 0)))
    assert caught.value.reason == Reason.DUPLICATE
