"""The fold over the contracts' events, one kind at a time."""

from __future__ import annotations

import pytest

from atoll.ledger import events
from atoll.ledger.epoch import JobTotal
from atoll.ledger.statement import ChainEpoch
from atoll.node.view import JobView, PostedEpoch, View
from atoll.training.context import Enlistment
from atoll.wire.eip712 import Verifier

JOB, OTHER = b"\x0a" * 32, b"\x0b" * 32
A, B, DEVELOPER, C = (bytes([number]) * 20 for number in (1, 2, 3, 4))
MANIFEST, SEED, MODEL, ROOT, RECEIPTS = (bytes([number]) * 32 for number in (0x61, 0x62, 0x63, 0x64, 0x65))
TIP_A, TIP_B = b"\x71" * 32, b"\x72" * 32

OPENED = events.Opened(JOB, DEVELOPER, MANIFEST, 1000, 4, 99, SEED)
POSTED = events.Posted(0, A, ROOT, RECEIPTS, 2, 5, 70, "ab" * 32)


def registered(account: bytes, hints: str = "") -> events.Registered:
    return events.Registered(account, account[:1] * 32, 3, hints, bytes(64))


def certified(number: int, model: bytes) -> events.Certified:
    return events.Certified(JOB, number, 0, ROOT, ROOT, model, (A,), B)


def folded(*found: events.Event) -> View:
    view = View()
    view.fold(found)
    return view


def test_transfers_move_balances() -> None:
    mint = bytes(20)
    view = folded(events.Transfer(mint, A, 100), events.Transfer(A, B, 30), events.Transfer(A, A, 5))
    assert view.balances == {mint: -100, A: 70, B: 30}


def test_registrations_and_their_changes() -> None:
    view = folded(registered(A), registered(B), registered(A, "10.0.0.1:1"))
    assert view.nodes == {A: registered(A, "10.0.0.1:1"), B: registered(B)}


def test_nodes_leave_and_come_back() -> None:
    gone = (events.ActiveSet(A, False), events.ActiveSet(B, False))
    assert folded(*gone).inactive == {A, B}
    assert folded(*gone, events.ActiveSet(A, True)).inactive == {B}
    assert folded(events.ActiveSet(A, True)).inactive == set()


def test_stakes_are_the_newest_sums() -> None:
    view = folded(
        events.Staked(A, 5, 5), events.Staked(A, 7, 12), events.Staked(B, 1, 1), events.UnstakeRequested(A, 4, 8, 99)
    )
    assert view.stakes == {A: 8, B: 1}


def test_validators_come_and_go() -> None:
    came = (events.ValidatorSet(A, True, 1), events.ValidatorSet(B, True, 2))
    assert folded(*came).validators == {A, B}
    assert folded(*came, events.ValidatorSet(A, False, 1)).validators == {B}
    assert folded(events.ValidatorSet(B, False, 0)).validators == set()


def test_a_job_from_its_opening_to_its_end() -> None:
    view = folded(OPENED)
    assert view.jobs == {JOB: JobView(JOB, DEVELOPER, MANIFEST, 1000, 4, SEED)}
    view.fold(
        [
            events.Staked(A, 50, 50),
            events.Enlisted(JOB, B, TIP_B, 1),
            events.Enlisted(JOB, A, TIP_A, 3),
            events.ToppedUp(JOB, DEVELOPER, 500, 1500),
            events.Started(JOB, (B, A), 77),
            events.ToppedUp(JOB, DEVELOPER, 1, 1501),
            certified(0, ROOT),
            certified(1, MODEL),
            events.Drawn(JOB, 40, 40),
            events.Drawn(JOB, 30, 70),
            events.Refunded(JOB, DEVELOPER, 1400),
            events.Refunded(JOB, DEVELOPER, 31),
        ]
    )
    job = view.jobs[JOB]
    assert job.enlisted == {A: Enlistment(TIP_A, 3, 50), B: Enlistment(TIP_B, 1, 0)}
    assert (job.committee, job.roster) == ((B, A), (A, B))
    assert (job.budget, job.funded) == (1501, 1500)
    assert (job.certified, job.model) == (2, MODEL)
    assert (job.drawn, job.refunded) == (70, 1431)
    assert view.certified() == {JOB: 2}


def test_the_stake_of_an_enlistment_is_that_of_its_moment() -> None:
    view = folded(
        OPENED,
        events.Staked(A, 10, 10),
        events.Enlisted(JOB, A, TIP_A, 1),
        events.Staked(A, 90, 100),
        events.Enlisted(JOB, B, TIP_B, 1),
        events.Staked(B, 7, 7),
    )
    assert {account: entry.stake for account, entry in view.jobs[JOB].enlisted.items()} == {A: 10, B: 0}
    assert view.stakes == {A: 100, B: 7}


def test_who_enlists_later_is_not_on_the_first_roster() -> None:
    view = folded(
        OPENED, events.Enlisted(JOB, A, TIP_A, 1), events.Started(JOB, (A,), 77), events.Enlisted(JOB, B, TIP_B, 1)
    )
    assert view.jobs[JOB].roster == (A,)
    assert set(view.jobs[JOB].enlisted) == {A, B}


def test_jobs_do_not_touch_one_another() -> None:
    other = events.Opened(OTHER, B, ROOT, 5, 1, 9, SEED)
    view = folded(OPENED, other, certified(0, MODEL), events.Drawn(OTHER, 2, 2))
    assert view.certified() == {JOB: 1, OTHER: 0}
    assert (view.jobs[JOB].drawn, view.jobs[OTHER].drawn) == (0, 2)
    assert view.jobs[OTHER].model == b""


def test_totals_belong_to_the_post_that_follows_them() -> None:
    second = events.Posted(1, B, RECEIPTS, ROOT, 3, 6, 10, "cd" * 32)
    view = folded(
        events.TotalPosted(0, JOB, 60, False),
        events.TotalPosted(0, OTHER, 10, True),
        POSTED,
        events.TotalPosted(1, JOB, 70, True),
        second,
    )
    assert view.epochs == [
        PostedEpoch(POSTED, (JobTotal(JOB, 60, False), JobTotal(OTHER, 10, True))),
        PostedEpoch(second, (JobTotal(JOB, 70, True),)),
    ]


def test_claims_are_cumulative() -> None:
    view = folded(events.Claimed(0, A, 5, 5), events.Claimed(1, A, 3, 8), events.Claimed(1, B, 2, 2))
    assert view.claimed == {A: 8, B: 2}


def test_deposits_and_what_was_redeemed_of_them() -> None:
    view = folded(
        events.Deposited(A, 50, 50),
        events.Deposited(A, 20, 70),
        events.Deposited(B, 5, 5),
        events.WithdrawalRequested(A, 30, 40, 99),
        events.Redeemed(A, C, 35, 35, 35),
        events.Redeemed(A, B, 1, 1, 34),
        events.Redeemed(A, C, 4, 39, 30),
        events.DepositWithdrawn(A, 0),
        events.WithdrawalRequested(B, 1, 4, 99),
    )
    assert view.deposits == {A: 30, B: 4}
    assert view.leaving == {B}
    assert view.redeemed == {(A, C): 39, (A, B): 1}


@pytest.mark.parametrize(
    "event",
    [
        events.Withdrawn(A, 1),
        events.Wired(A, B, C),
        events.BondDeposited(A, 1, 1),
        events.BondWithdrawn(A, 1, 0),
        events.BondReleased(0, A, 1),
    ],
    ids=lambda event: type(event).__name__,
)
def test_events_that_nobody_reads_change_nothing(event: events.Event) -> None:
    assert vars(folded(OPENED, event)) == vars(folded(OPENED))


def test_every_event_of_the_contracts_can_be_folded() -> None:
    read = {"Transfer", "Registered", "ActiveSet", "Staked", "UnstakeRequested", "ValidatorSet", "Claimed", "Posted"}
    read |= {"TotalPosted", "Opened", "ToppedUp", "Enlisted", "Started", "Certified", "Drawn", "Refunded", "Shortened"}
    read |= {"Deposited", "WithdrawalRequested", "DepositWithdrawn", "Redeemed"}
    unread = {"Withdrawn", "Wired", "BondDeposited", "BondWithdrawn", "BondReleased"}
    assert set(events.KINDS) == read | unread  # a new event needs a decision, and a test


def test_a_rollback_is_a_fold_of_what_is_left() -> None:
    common = [OPENED, events.Staked(A, 5, 5), events.Enlisted(JOB, A, TIP_A, 1), events.Started(JOB, (A,), 7)]
    orphaned = [certified(0, ROOT), events.TotalPosted(0, JOB, 9, False), POSTED, events.ValidatorSet(B, True, 1)]
    view = folded(*common)
    before = vars(folded(*common))
    longer = folded(*common, *orphaned)
    assert vars(view) == before  # nothing is shared between views
    assert vars(longer) != before
    branch = [certified(0, MODEL), events.Claimed(0, A, 1, 1)]
    view.fold(branch[:1])
    view.fold(branch[1:])  # in two parts or in one
    assert vars(view) == vars(folded(*common, *branch))
    assert (view.jobs[JOB].model, view.epochs, view.validators) == (MODEL, [], set())


def test_what_the_statement_compares_with() -> None:
    verifier = Verifier(7, b"\x09" * 20)
    view = folded(OPENED, events.TotalPosted(0, JOB, 70, True), POSTED, events.Claimed(0, A, 5, 5))
    found = view.chain_view(verifier)
    assert found.verifier == verifier
    assert found.epochs == (ChainEpoch(0, ROOT, RECEIPTS, 2, 5, (JobTotal(JOB, 70, True),)),)
    assert found.claimed == {A: 5}
    assert found.budgets == {JOB: 1000}
    assert found.light == {JOB: frozenset()}
    view.fold([events.Enlisted(JOB, A, TIP_A, 33), events.Enlisted(JOB, B, TIP_B, 3)])
    assert view.chain_view(verifier).light == {JOB: {A}}
