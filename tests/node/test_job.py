"""A job as a fold over certificates: standing, records, catching up, and what is kept of rounds to come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec
import pytest

from atoll.errors import Refused
from atoll.node.job import (
    AHEAD,
    CANDIDATES,
    HISTORY_BATCH,
    KEPT_BYTES,
    KEPT_MESSAGES,
    Job,
    Terms,
    advance,
    begin,
)
from atoll.training.beacon import first_beacon
from atoll.training.committee import AUDIT, REPLICA, UNIT, VALIDATION, CertifyPayload, Row, next_beacon
from atoll.training.context import Enlistment
from atoll.training.events import Effect, Event, Finished, Received, Send, Tick, Trained
from atoll.wire.hashing import keccak
from atoll.wire.messages import Body, Commit, HistoryAsk, Phase, Present, Quorum, Signed, Vote
from atoll.wire.reasons import Reason
from tests.training.lab import (
    ACCOUNTS,
    CONTRACT,
    DOMAIN,
    JOB,
    MODEL,
    ROUNDS,
    SEGMENTS,
    enlistment,
    honest,
    member,
    sealed,
)

TOKEN = 10**18


def terms(nodes: int = 4, **changes: object) -> Terms:
    base = Terms(
        domain=DOMAIN,
        jobs_contract=CONTRACT,
        job=JOB,
        committee=tuple(ACCOUNTS[:nodes]),
        roster=tuple(ACCOUNTS[:nodes]),
        model=MODEL,
        rounds=ROUNDS,
        segments=SEGMENTS,
        unit_price=TOKEN,
        audit_floor=1_000,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def enlisted(nodes: int = 4) -> dict[bytes, Enlistment]:
    return {account: enlistment(account) for account in ACCOUNTS[:nodes]}


class Town:
    """Jobs that talk to one another; honest work is done at once. `cut` are nodes that hear nothing."""

    def __init__(self, nodes: int = 4) -> None:
        self.now = 0.0
        self.jobs = {index: Job(terms(nodes), enlisted(nodes), member(index), 0.0) for index in range(nodes)}
        self.journals: dict[int, list[Event]] = {index: [] for index in range(nodes)}
        self.cut: set[int] = set()
        self.stop: Callable[[], bool] = lambda: False
        self.wire: list[tuple[int, int, Signed]] = []

    def feed(self, index: int, event: Event) -> None:
        if self.jobs[index].is_news(event):
            self.journals[index].append(event)
        self.carry_out(index, self.jobs[index].handle(event, self.now))

    def carry_out(self, index: int, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                if effect.promise:
                    self.journals[index].append(Received(effect.message))
                self.wire += [(index, ACCOUNTS.index(account), effect.message) for account in effect.to]
            else:
                event, current = honest(ACCOUNTS[index], effect), self.jobs[index].round
                if isinstance(event, Trained) and current is not None:
                    event = replace(event, states=(current.context.model, *event.states[1:]))
                if event is not None:
                    self.feed(index, event)

    def settle(self) -> None:
        while self.wire and not self.stop():
            sender, receiver, signed = self.wire.pop(0)
            if receiver in self.jobs and not {sender, receiver} & self.cut:
                self.feed(receiver, Received(signed))

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.25
            for index in self.jobs:
                if index not in self.cut:
                    self.feed(index, Tick())
            self.settle()

    @property
    def rounds(self) -> list[int]:
        return [job.standing.round for job in self.jobs.values()]


def sent(effects: list[Effect]) -> list[Body]:
    return [effect.message.body for effect in effects if isinstance(effect, Send)]


def certificate(*rows: Row, **changes: object) -> CertifyPayload:
    base = CertifyPayload(
        replays=(),
        present=(),
        links=((ACCOUNTS[0], keccak(b"0")), (ACCOUNTS[1], keccak(b"1")), (ACCOUNTS[2], keccak(b"2"))),
        verdicts=rows,
        model=keccak(b"next"),
        roster=tuple(ACCOUNTS[:3]),
        committee=(ACCOUNTS[2], ACCOUNTS[0], ACCOUNTS[1]),
        lock_root=bytes(32),
        last=False,
    )
    return msgspec.structs.replace(base, **changes)


# -- the fold ----------------------------------------------------------------------------------------------------
def test_before_the_first_round() -> None:
    standing = begin(terms(), enlisted())
    assert (standing.round, standing.model, standing.done) == (0, MODEL, False)
    assert standing.roster == tuple(ACCOUNTS[:4])
    assert standing.beacon == first_beacon(DOMAIN, JOB, {a: enlistment(a).tip for a in ACCOUNTS[:4]})


def test_a_budget_that_does_not_pay_for_all() -> None:
    """The committee takes part in any case, then the lowest accounts."""
    committee = (ACCOUNTS[5], ACCOUNTS[3])
    standing = begin(terms(8, committee=committee, room=4), enlisted(8))
    assert standing.roster == tuple(sorted((*committee, ACCOUNTS[0], ACCOUNTS[1])))
    assert standing.committee == committee


def test_one_certificate_further() -> None:
    start = begin(terms(), enlisted())
    payload = certificate(Row(UNIT, bytes(32), ACCOUNTS[0], 0))
    place = Job(terms(), enlisted(), member(0), 0.0).round
    assert place is not None
    after = advance(terms(), start, payload)
    assert (after.round, after.model, after.done) == (1, payload.model, False)
    assert (after.roster, after.committee) == (payload.roster, payload.committee)
    assert after.beacon == next_beacon(place.context.place, payload)
    assert after.records == {ACCOUNTS[0]: 1}
    assert start.records == {}
    assert advance(terms(), after, certificate(last=True)).done


def test_records() -> None:
    standing = begin(terms(), enlisted())

    def after(*rows: tuple[int, int, int]) -> dict[int, int]:
        nonlocal standing
        standing = advance(terms(), standing, certificate(*(Row(k, bytes(32), ACCOUNTS[i], r) for k, i, r in rows)))
        return {ACCOUNTS.index(account): count for account, count in standing.records.items()}

    assert after((UNIT, 0, 0), (UNIT, 1, 0), (UNIT, 2, 0)) == {0: 1, 1: 1, 2: 1}
    assert after((UNIT, 0, 0), (UNIT, 1, Reason.UNSETTLED), (UNIT, 2, Reason.NOT_REVEALED)) == {0: 2, 1: 1, 2: 1}
    assert after((UNIT, 0, Reason.SEGMENT_MISMATCH), (AUDIT, 1, 0), (VALIDATION, 2, 0)) == {0: 0, 1: 1, 2: 1}
    assert after((AUDIT, 1, Reason.AUDIT_MISMATCH), (REPLICA, 2, Reason.AUDIT_MISMATCH)) == {0: 0, 1: 0, 2: 0}


def test_rates_follow_records_and_stakes() -> None:
    """Decision D6 by hand: 1 / 4 by record, 1.5 / (0.95 * (1 + 20)) = 7.52 % by a stake of 20 units; floor 10 %."""
    known = enlisted()
    known[ACCOUNTS[1]] = replace(known[ACCOUNTS[1]], stake=20 * TOKEN)
    job = Job(terms(), known, member(0), 0.0)
    records = {ACCOUNTS[0]: 4, ACCOUNTS[1]: 4, ACCOUNTS[2]: 100}
    job.standing = replace(job.standing, records=records)
    known[ACCOUNTS[2]] = replace(known[ACCOUNTS[2]], stake=20 * TOKEN)
    rates = job._open_round(0.0).context.rates
    assert rates == {ACCOUNTS[0]: 10_000, ACCOUNTS[1]: 2_500, ACCOUNTS[2]: 1_000, ACCOUNTS[3]: 10_000}


def test_a_whole_job() -> None:
    town = Town()
    town.wait(0.25)
    assert town.rounds == [ROUNDS] * 4
    assert all(job.standing.done and job.round is None for job in town.jobs.values())
    payloads = [[one.payload for one in job.certificates] for job in town.jobs.values()]
    assert all(found == payloads[0] for found in payloads)
    assert len(town.jobs[0].committees) == ROUNDS + 1
    assert town.jobs[0].standing.records == dict.fromkeys(ACCOUNTS[:4], ROUNDS)
    assert town.jobs[0].handle(Tick(), 99.0) == []
    assert town.jobs[0].handle(Trained(bytes(32), (), bytes(32)), 99.0) == []


def test_a_job_that_is_ended_early_stops_there() -> None:
    town = Town()
    for job in town.jobs.values():
        assert not job.shorten(ROUNDS - 1)
    town.wait(0.25)
    assert town.rounds == [ROUNDS - 1] * 4
    assert all(job.standing.done and job.round is None for job in town.jobs.values())
    assert not any(job.shorten(ROUNDS) and job.standing.round == ROUNDS for job in town.jobs.values())  # never longer


def test_rounds_beyond_an_early_end_are_forgotten() -> None:
    town, usual = Town(), Town()
    for other in usual.jobs.values():
        other.shorten(1)
    usual.wait(0.25)
    town.wait(0.25)
    job = town.jobs[0]
    assert job.standing.round == ROUNDS
    assert job.shorten(1)
    assert (job.standing.round, job.standing.done, job.round) == (1, True, None)
    assert len(job.certificates) == 1
    assert len(job.committees) == 2
    assert job.standing.model == usual.jobs[0].standing.model  # what round 0 certified
    assert job.handle(Tick(), 99.0) == []


# -- what is not for this job ------------------------------------------------------------------------------------
def test_who_is_not_admitted() -> None:
    job = Job(terms(), enlisted(), member(0), 0.0)

    def why(index: int, body: Body) -> Reason:
        with pytest.raises(Refused) as caught:
            job.admit(sealed(index, body))
        return caught.value.reason

    job.admit(sealed(1, Present(JOB, 0)))
    assert why(1, Present(bytes(32), 0)) is Reason.NOT_FOUND
    assert why(7, Present(JOB, 0)) is Reason.UNKNOWN_ACCOUNT


def test_the_past_is_over() -> None:
    town = Town()
    town.wait(0.25)
    job = town.jobs[0]
    old = Received(sealed(1, Commit(JOB, 0, bytes(32), bytes(32))))
    assert not job.is_news(old)
    assert job.handle(old, 1.0) == []


# -- the future --------------------------------------------------------------------------------------------------
def far(number: int, index: int = 1, salt: int = 0) -> Received:
    return Received(sealed(index, Commit(JOB, number, bytes(32), keccak(salt.to_bytes(4, "big")))))


def test_messages_of_the_next_rounds_are_kept() -> None:
    job = Job(terms(), enlisted(), member(0), 0.0)
    for number in range(1, AHEAD + 1):
        assert job.is_news(far(number))
        job.handle(far(number), 0.0)
        assert not job.is_news(far(number))  # once
    assert not job.is_news(far(AHEAD + 1))
    assert not job.is_news(far(1, index=9))  # a stranger


def test_what_is_kept_of_one_account_is_bounded() -> None:
    job = Job(terms(), enlisted(), member(0), 0.0)
    for salt in range(3 * KEPT_MESSAGES):
        job.handle(far(1, salt=salt), 0.0)
    assert len(job._later[1][ACCOUNTS[1]]) == KEPT_MESSAGES
    large = bytes(KEPT_BYTES // 2)
    for number in range(4):
        job.handle(Received(sealed(2, Quorum(JOB, 1, number, Phase.LOCK, large, ()))), 0.0)
    assert len(job._later[1][ACCOUNTS[2]]) == 1
    assert job.is_news(far(1, index=3))  # others are not crowded out


def test_certificates_of_later_rounds_are_kept_from_several_peers() -> None:
    job = Job(terms(), enlisted(), member(0), 0.0)

    def later(number: int, index: int) -> Received:
        return Received(sealed(index, Quorum(JOB, number, 0, Phase.CERTIFY, b"\xc1", ())))

    for index in (1, 2, 3):
        for _ in range(2):
            job.handle(later(HISTORY_BATCH, index), 0.0)
    assert len(job._history[HISTORY_BATCH]) == CANDIDATES
    assert not job.is_news(later(HISTORY_BATCH + 1, 1))


def test_whoever_is_behind_asks_now_and_then() -> None:
    job = Job(terms(), enlisted(), member(0), 0.0)
    assert sent(job.handle(far(1), 0.1)) == []  # it may be about to get there itself
    assert sent(job.handle(far(1), 1.0)) == [HistoryAsk(JOB, 0, Phase.LOCK)]
    assert sent(job.handle(far(1), 1.1)) == []
    assert sent(job.handle(far(1, index=9), 5.0)) == []  # nobody asks a stranger
    assert sent(job.handle(far(7), 5.0)) == [HistoryAsk(JOB, 0, Phase.LOCK)]


# -- history -----------------------------------------------------------------------------------------------------
def test_answers_to_those_who_are_behind() -> None:
    town = Town()
    town.wait(0.25)
    job = town.jobs[0]

    def ask(number: int, phase: Phase, now: float, index: int = 1) -> list[Body]:
        return sent(job.handle(Received(sealed(index, HistoryAsk(JOB, number, phase))), now))

    assert ask(1, Phase.OPEN, 1.0) == job.certificates[1:]
    assert ask(1, Phase.LOCK, 1.1) == []  # not so often
    assert ask(1, Phase.LOCK, 1.1, index=2) == job.certificates[1:]  # but to others
    assert ask(ROUNDS, Phase.LOCK, 2.0) == []
    assert ask(1 << 31, Phase.LOCK, 3.0) == []
    assert ask(0, Phase.LOCK, 4.0, index=0) == []  # not to itself


def test_answers_hold_the_open_phases() -> None:
    town = Town()
    job = town.jobs[0]
    town.cut = {1}
    town.stop = lambda: job.round is None or job.round.ballot.phase >= Phase.AUDIT
    while not town.stop():
        town.wait(0.25)
    assert job.round is not None
    quorums = job.round.ballot.quorums

    def ask(phase: Phase, now: float) -> list[Body]:
        return sent(job.handle(Received(sealed(1, HistoryAsk(JOB, 0, phase))), now))

    assert list(quorums) == [Phase.LOCK, Phase.BEACON]
    assert ask(Phase.LOCK, 101.0) == [quorums[Phase.LOCK], quorums[Phase.BEACON]]
    assert ask(Phase.BEACON, 102.0) == [quorums[Phase.BEACON]]
    assert ask(Phase.AUDIT, 103.0) == []


def test_a_batch_of_history_is_bounded() -> None:
    job = Job(terms(rounds=100), enlisted(), member(0), 0.0)
    job.certificates = [Quorum(JOB, number, 0, Phase.CERTIFY, b"", ()) for number in range(40)]
    job.standing = replace(job.standing, round=40)
    found = sent(job.handle(Received(sealed(1, HistoryAsk(JOB, 3, Phase.LOCK))), 1.0))
    assert found == job.certificates[3 : 3 + HISTORY_BATCH]


def test_a_node_that_was_away_takes_the_certificates() -> None:
    town = Town()
    town.cut = {2}
    town.wait(30)
    assert town.rounds == [ROUNDS, ROUNDS, 0, ROUNDS]
    town.cut = set()
    town.wait(5)
    assert town.rounds == [ROUNDS] * 4
    assert town.jobs[2].standing.model == town.jobs[0].standing.model


def test_history_in_any_order() -> None:
    town = Town()
    town.wait(0.25)
    fresh = Job(terms(), enlisted(), member(3), 0.0)
    order = [2, 1, 3, 0]
    ended = []
    for number in order:
        effects = fresh.handle(Received(sealed(1, town.jobs[1].certificates[number])), 0.0)
        ended += [effect.round for effect in effects if isinstance(effect, Finished)]
    assert ended == [0, 1, 2, 3]
    assert fresh.standing == town.jobs[0].standing


def test_false_history_does_not_hide_the_true_one() -> None:
    town = Town()
    town.wait(0.25)
    true = town.jobs[1].certificates
    fresh = Job(terms(), enlisted(), member(3), 0.0)
    false = msgspec.structs.replace(true[1], payload=true[2].payload)
    fresh.handle(Received(sealed(2, false)), 0.0)
    fresh.handle(Received(sealed(2, msgspec.structs.replace(true[0], view=9))), 0.0)
    fresh.handle(Received(sealed(1, true[1])), 0.0)
    assert fresh.standing.round == 0
    fresh.handle(Received(sealed(1, true[0])), 0.0)
    assert fresh.standing.round == 2


def test_no_work_is_begun_for_rounds_that_are_over() -> None:
    town = Town()
    town.wait(0.25)
    fresh = Job(terms(), enlisted(), member(3), 0.0)
    effects: list[Effect] = []
    for number in (3, 2, 1, 0):
        effects += fresh.handle(Received(sealed(1, town.jobs[1].certificates[number])), 0.0)
    assert [type(effect).__name__ for effect in effects if not isinstance(effect, Send)] == ["Finished"] * 4


# -- restarts ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", [1, 7, 20, 40, 70, 110, 160])
def test_a_restart_between_any_two_messages(steps: int) -> None:
    """The job folded from its journal stands where it stood, and goes on to the same end."""
    town = Town()
    for index in town.jobs:
        town.feed(index, Tick())
    for _ in range(steps):
        _, receiver, signed = town.wire.pop(0)
        town.feed(receiver, Received(signed))
    before = town.jobs[0]
    again = Job(terms(), enlisted(), member(0), town.now)
    for event in town.journals[0]:
        for effect in again.handle(event, town.now, act=False):
            assert isinstance(effect, Finished)  # nothing is begun while the journal is read
    assert again.standing == before.standing
    if before.round is not None and again.round is not None:
        assert again.round.ballot.phase is before.round.ballot.phase
        assert again.round.ballot.view == before.round.ballot.view
        assert again.round.ballot.prepared == before.round.ballot.prepared
    town.jobs[0] = again
    town.wire = [(sender, receiver, signed) for sender, receiver, signed in town.wire if receiver != 0]
    town.carry_out(0, again.resume(town.now))
    town.settle()
    town.wait(30)
    assert town.rounds == [ROUNDS] * 4
    assert all(row.reason == 0 for job in town.jobs.values() for row in _verdicts(job))


def _verdicts(job: Job) -> list[Row]:
    rows: list[Row] = []
    for quorum in job.certificates:
        rows += msgspec.msgpack.decode(quorum.payload, type=CertifyPayload).verdicts
    return rows


def test_what_is_written_down() -> None:
    job = Job(terms(), enlisted(), member(0), 0.0)
    assert not job.is_news(Tick())
    assert job.is_news(Trained(bytes(32), (), bytes(32)))
    assert not job.is_news(Received(sealed(1, HistoryAsk(JOB, 0, Phase.LOCK))))
    assert not job.is_news(Received(sealed(1, HistoryAsk(JOB, 1, Phase.LOCK))))
    vote = Received(sealed(1, Vote(JOB, 0, 0, Phase.LOCK, bytes(32), bytes(65))))
    assert job.is_news(vote)
