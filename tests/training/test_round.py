"""A round from the first unit to the certificate, and every way in which it can go wrong between honest nodes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

from atoll.training.committee import AUDIT, REPLICA, UNIT, VALIDATION, CertifyPayload
from atoll.training.context import LIGHT, VALIDATOR, WORKER, RoundContext
from atoll.training.events import (
    Effect,
    Event,
    Examine,
    Examined,
    Judge,
    Judged,
    Received,
    Replayed,
    Rerun,
    Train,
    Trained,
)
from atoll.training.round import Round
from atoll.training.verdict import NOT_OPENED
from atoll.wire.hashing import ZERO_HASH, keccak
from atoll.wire.messages import (
    AuditCommit,
    AuditReveal,
    Ballots,
    Commit,
    Phase,
    Prepare,
    Proposal,
    Quorum,
    Replay,
    Reveal,
    Signed,
    Vote,
)
from atoll.wire.reasons import Reason

from .lab import ACCOUNTS, MODEL, Lab, context, enlistment, honest, member, sealed, states_of, unit_of


def certificate(lab: Lab) -> CertifyPayload:
    """The one certificate that all live nodes ended with."""
    assert len(lab.certificates) == 1
    assert set(lab.finished) >= set(lab.rounds) - lab.down
    return next(iter(lab.finished.values())).certificate


def reasons(lab: Lab, kind: int) -> dict[int, Reason]:
    """Node -> reason, of one kind of work."""
    return {ACCOUNTS.index(row.account): Reason(row.reason) for row in certificate(lab).verdicts if row.kind == kind}


def promises(lab: Lab) -> dict[tuple[object, ...], set[bytes]]:
    """What each node said for each phase and view: more than one thing is equivocation."""
    said: dict[tuple[object, ...], set[bytes]] = defaultdict(set)
    for index, signed in lab.said:
        body = signed.body
        if isinstance(body, Prepare | Vote | Proposal):
            said[index, type(body), body.phase, body.view].add(signed.raw)
    return said


def test_everybody_honest() -> None:
    lab = Lab(context(), 6).begin()
    found = certificate(lab)
    assert lab.now == 0  # nobody waited for anything
    assert reasons(lab, UNIT) == dict.fromkeys(range(6), Reason.OK)
    assert reasons(lab, AUDIT) == dict.fromkeys(range(6), Reason.OK)  # a rate of one: everybody audits one unit
    assert reasons(lab, VALIDATION) == dict.fromkeys(range(6), Reason.OK)
    assert found.roster == tuple(ACCOUNTS[:6])
    assert set(found.committee) == set(ACCOUNTS[:6])
    order = sorted(lab.rounds[0].units)
    owners = {unit.id: unit.account for unit in lab.rounds[0].units.values()}
    assert found.model == keccak(b"".join(owners[unit] + keccak(b"update" + unit) for unit in order))
    audits = {row.unit: row.account for row in found.verdicts if row.kind == AUDIT}
    assert all(owners[unit] != auditor for unit, auditor in audits.items())
    assert [(row.kind, row.unit, row.account) for row in found.verdicts] == sorted(
        (row.kind, row.unit, row.account) for row in found.verdicts
    )


def test_a_single_node_and_small_committees() -> None:
    for nodes in (1, 2, 3, 4):
        lab = Lab(context(nodes, nodes), nodes).begin()
        assert reasons(lab, UNIT) == dict.fromkeys(range(nodes), Reason.OK)
    alone = Lab(context(1, 1), 1).begin()
    assert reasons(alone, AUDIT) == {}  # nobody is there to audit


def test_workers_outside_the_committee() -> None:
    lab = Lab(context(12, 7), 12).begin()
    assert reasons(lab, UNIT) == dict.fromkeys(range(12), Reason.OK)
    assert set(reasons(lab, VALIDATION)) == set(range(7))
    assert len(certificate(lab).committee) == 7


def test_the_order_of_messages_does_not_matter() -> None:
    straight = Lab(context(), 6).begin()
    turned = Lab(context(), 6)
    turned.tick()
    while turned._under_way:
        turned._under_way.append(turned._under_way.pop())
        turned._under_way.insert(0, turned._under_way.pop(len(turned._under_way) // 2))
        _, receiver, signed = turned._under_way.pop(0)
        turned.feed(receiver, Received(signed))
        turned.feed(receiver, Received(signed))  # and everything twice
        if not turned._under_way and len(turned.finished) < 6:
            turned.wait(1)
    assert reasons(turned, UNIT) == reasons(straight, UNIT)
    assert certificate(turned).model == certificate(straight).model


def test_low_rates_audit_few() -> None:
    lab = Lab(context(rates=dict.fromkeys(ACCOUNTS[:6], 0)), 6).begin()
    assert reasons(lab, UNIT) == dict.fromkeys(range(6), Reason.OK)
    assert reasons(lab, AUDIT) == {}


# -- light workers -----------------------------------------------------------------------------------------------
LIGHT_ONES = (3, 5)


def with_light(**changes: object) -> RoundContext:
    """Six nodes, two of them light workers and nothing else; the others are the committee."""
    base = context(committee=3)
    roles = {ACCOUNTS[index]: enlistment(ACCOUNTS[index], WORKER | LIGHT) for index in LIGHT_ONES}
    return replace(base, enlisted={**base.enlisted, **roles}, **changes)  # type: ignore[arg-type]


def test_units_of_light_workers_have_one_segment() -> None:
    shared = with_light()
    units = {unit.account: unit for unit in shared.units}
    assert [units[account].segments for account in ACCOUNTS[:6]] == [2, 2, 2, 1, 2, 1]
    full = {unit.account: unit for unit in context(committee=3).units}
    assert {unit.id for unit in units.values()} == {unit.id for unit in full.values()}  # the id does not bind it
    odd = replace(shared, enlisted={**shared.enlisted, ACCOUNTS[0]: enlistment(ACCOUNTS[0], VALIDATOR | LIGHT)})
    assert ACCOUNTS[0] not in {unit.account for unit in odd.units}  # the flag alone makes nobody a worker
    one = replace(shared, segments=1)
    assert [unit.segments for unit in one.units] == [1] * 6


def test_light_workers_and_others_check_one_another() -> None:
    lab = Lab(with_light(), 6).begin()
    assert reasons(lab, UNIT) == dict.fromkeys(range(6), Reason.OK)
    assert reasons(lab, AUDIT) == dict.fromkeys(range(6), Reason.OK)  # whoever audits follows the unit's segments
    shown = {s.body.unit: s.body.states for _, s in lab.said if isinstance(s.body, Reveal)}
    audits = {s.body.unit: s.body.states for _, s in lab.said if isinstance(s.body, AuditReveal)}
    for unit in lab.rounds[0].units.values():
        expected = 2 if ACCOUNTS.index(unit.account) in LIGHT_ONES else 3
        assert len(shown[unit.id]) == len(audits[unit.id]) == expected


@pytest.mark.parametrize("index", [3, 2])
def test_a_unit_has_exactly_its_own_number_of_states(index: int) -> None:
    """A light worker that opens a full unit's states, and a worker that opens a light one's."""
    count = 3 if index in LIGHT_ONES else 2
    states = (MODEL, *(keccak(b"state %d" % number) for number in range(1, count)))
    lab = Lab(with_light(), 6, answer=_claims(index, states)).begin()  # type: ignore[arg-type]
    assert reasons(lab, UNIT)[index] is Reason.COMMIT_MISMATCH


@pytest.mark.parametrize(
    ("segment", "judged", "worker", "replica"),
    [
        (0, False, Reason.OK, Reason.OK),
        (1, True, Reason.SEGMENT_MISMATCH, Reason.OK),
        (2, True, Reason.UPDATE_MISMATCH, Reason.OK),  # the one after the last stands for the update
        (3, True, Reason.UNSETTLED, Reason.UNSETTLED),  # a light unit has no such segment
    ],
)
def test_disputes_about_light_units(segment: int, judged: bool, worker: Reason, replica: Reason) -> None:
    def answer(account: bytes, effect: Effect) -> Event | None:
        light = getattr(effect, "unit", None) is not None and getattr(effect.unit, "account", b"") == ACCOUNTS[3]  # type: ignore[union-attr]
        if isinstance(effect, Train) and effect.audit and light:
            return Trained(effect.unit.id, states_of(b"other", 1), keccak(b"other"))
        if isinstance(effect, Examine) and light:
            return Examined(effect.key, 255)
        if isinstance(effect, Rerun):
            return Replayed(effect.unit.id, segment, ZERO_HASH)
        if isinstance(effect, Judge):
            return Judged(effect.key, judged)
        return honest(account, effect)

    lab = Lab(with_light(), 6, answer=answer).begin()
    assert reasons(lab, UNIT)[3] is worker
    assert set(reasons(lab, REPLICA).values()) == {replica}


# -- liars -------------------------------------------------------------------------------------------------------
def _claims(liar: int, change: tuple[bytes, ...]) -> object:
    def answer(account: bytes, effect: Effect) -> Event | None:
        if isinstance(effect, Train) and account == ACCOUNTS[liar] and not effect.audit:
            return Trained(effect.unit.id, change, keccak(b"a lie"))
        return honest(account, effect)

    return answer


def test_a_wrong_first_state() -> None:
    lab = Lab(context(), 6, answer=_claims(3, (bytes(32), bytes(32), bytes(32)))).begin()  # type: ignore[arg-type]
    assert reasons(lab, UNIT) == {**dict.fromkeys(range(6), Reason.OK), 3: Reason.STATE_ORIGIN}


def test_too_few_states() -> None:
    lab = Lab(context(), 6, answer=_claims(3, (MODEL, bytes(32)))).begin()  # type: ignore[arg-type]
    assert reasons(lab, UNIT)[3] is Reason.COMMIT_MISMATCH


def test_a_worker_that_opens_something_else() -> None:
    lab = Lab(context(), 6)

    def passes(sender: int, receiver: int, signed: Signed) -> bool:
        if sender != 3 or not isinstance(signed.body, Reveal):
            return True
        body = signed.body
        other = Reveal(body.job, body.round, body.unit, body.states, keccak(b"other"), body.salt)
        lab.feed(receiver, Received(sealed(3, other)))
        return False

    lab.passes = passes
    lab.begin()
    lab.wait(20)
    assert reasons(lab, UNIT) == {**dict.fromkeys(range(6), Reason.OK), 3: Reason.COMMIT_MISMATCH}


def test_a_worker_that_does_not_reveal() -> None:
    lab = Lab(context(), 6, passes=lambda sender, _, signed: not (sender == 3 and isinstance(signed.body, Reveal)))
    lab.begin()
    assert not lab.finished
    lab.wait(9.5)
    assert all(round_.ballot.phase is Phase.OPEN for round_ in lab.rounds.values())  # it has ten seconds
    lab.wait(8)
    assert reasons(lab, UNIT) == {**dict.fromkeys(range(6), Reason.OK), 3: Reason.NOT_REVEALED}
    assert reasons(lab, AUDIT) == dict.fromkeys(range(6), Reason.OK)  # whoever audited it has worked


def _disputed(segment: int, judged: bool) -> object:
    """Unit of node 2: the audit disagrees, all replicas name `segment`, the judges agree with them or not."""

    def answer(account: bytes, effect: Effect) -> Event | None:
        event = honest(account, effect)
        if isinstance(effect, Train) and effect.audit and effect.unit.account == ACCOUNTS[2]:
            return Trained(effect.unit.id, states_of(b"other"), keccak(b"other"))
        if isinstance(effect, Examine) and effect.unit.account == ACCOUNTS[2]:
            return Examined(effect.key, 255)
        if isinstance(effect, Rerun):
            return type(event)(effect.unit.id, segment, ZERO_HASH if segment in (0, 255) else keccak(b"own"))  # type: ignore[misc,call-arg]
        if event is not None and hasattr(event, "guilty"):
            return type(event)(event.key, judged)  # type: ignore[attr-defined]
        return event

    return answer


@pytest.mark.parametrize(
    ("segment", "judged", "worker", "auditor", "replica"),
    [
        (0, False, Reason.OK, Reason.AUDIT_MISMATCH, Reason.OK),
        (1, True, Reason.SEGMENT_MISMATCH, Reason.OK, Reason.OK),
        (2, True, Reason.SEGMENT_MISMATCH, Reason.OK, Reason.OK),
        (3, True, Reason.UPDATE_MISMATCH, Reason.OK, Reason.OK),
        (1, False, Reason.UNSETTLED, Reason.UNSETTLED, Reason.UNSETTLED),
        (255, False, Reason.STATE_WITHHELD, Reason.OK, Reason.OK),
    ],
)
def test_disputes(segment: int, judged: bool, worker: Reason, auditor: Reason, replica: Reason) -> None:
    lab = Lab(context(), 6, answer=_disputed(segment, judged)).begin()  # type: ignore[arg-type]
    lab.wait(15)
    found = certificate(lab)
    unit = unit_of(lab, 2)
    rows = {(row.kind, ACCOUNTS.index(row.account)): Reason(row.reason) for row in found.verdicts if row.unit == unit}
    assert rows.pop((UNIT, 2)) is worker
    assert [reason for (kind, _), reason in rows.items() if kind == AUDIT] == [auditor]
    replicas = [(index, reason) for (kind, index), reason in rows.items() if kind == REPLICA]
    assert [reason for _, reason in replicas] == [replica] * 3
    drawn = next(index for (kind, index) in rows if kind == AUDIT)
    assert not {2, drawn} & {index for index, _ in replicas}
    included = sum(reason is Reason.OK for reason in reasons(lab, UNIT).values())
    assert included == (6 if worker is Reason.OK else 5)


def test_states_that_come_late_are_no_withheld_states() -> None:
    """A replica that cannot get a state tries again for as long as a reveal may take."""
    tries = 0

    def answer(account: bytes, effect: Effect) -> Event | None:
        nonlocal tries
        event = _disputed(0, False)(account, effect)  # type: ignore[operator]
        if isinstance(effect, Rerun):
            tries += 1
            if lab.now < 5:
                return type(event)(effect.unit.id, NOT_OPENED, ZERO_HASH)
        return event  # type: ignore[no-any-return]

    lab = Lab(context(), 6, answer=answer)
    lab.begin()
    assert not lab.finished
    lab.wait(10)
    assert reasons(lab, UNIT)[2] is Reason.OK
    assert tries > 3


def test_an_update_that_nobody_can_fetch() -> None:
    def answer(account: bytes, effect: Effect) -> Event | None:
        if isinstance(effect, Examine) and effect.unit.account == ACCOUNTS[4]:
            return Examined(effect.key, None)
        return honest(account, effect)

    lab = Lab(context(), 6, answer=answer).begin()
    lab.wait(9)
    assert not lab.finished
    lab.wait(10)
    assert reasons(lab, UNIT) == {**dict.fromkeys(range(6), Reason.OK), 4: Reason.NOT_REVEALED}
    asked = [effect for _, effect in lab.work if isinstance(effect, Examine) and effect.unit.account == ACCOUNTS[4]]
    assert 6 < len(asked) < 6 * 40  # tried again, but not in a loop


def test_bytes_that_come_late_are_waited_for() -> None:
    def answer(account: bytes, effect: Effect) -> Event | None:
        if isinstance(effect, Examine) and effect.unit.account == ACCOUNTS[4] and lab.now < 6:
            return Examined(effect.key, None)
        return honest(account, effect)

    lab = Lab(context(), 6, answer=answer)
    lab.begin()
    lab.wait(9)
    assert reasons(lab, UNIT)[4] is Reason.OK


# -- crashes -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("phase", list(Phase))
def test_the_leader_dies_in_each_phase(phase: Phase) -> None:
    """Its proposal reaches nobody, and it is never heard again: the round ends without it."""
    lab = Lab(context(), 6)

    def passes(sender: int, receiver: int, signed: Signed) -> bool:
        if sender == 0 and isinstance(signed.body, Proposal) and signed.body.phase is phase:
            lab.crash(0)
        return sender not in lab.down

    lab.passes = passes
    lab.begin()
    lab.wait(60)
    assert 0 not in lab.finished
    assert set(lab.finished) == {1, 2, 3, 4, 5}
    units = reasons(lab, UNIT)
    assert all(units[index] is Reason.OK for index in range(1, 6))
    assert units.get(0, Reason.OK) in (Reason.OK, Reason.NOT_REVEALED)
    views = {quorum.view for quorum in lab.rounds[1].ballot.quorums.values() if quorum.phase >= phase}
    assert 0 not in views


@pytest.mark.parametrize("phase", list(Phase))
def test_the_leader_dies_after_some_have_prepared(phase: Phase) -> None:
    """Its proposal reaches half of them; the next leader carries on what was prepared, or begins anew."""
    lab = Lab(context(), 6)

    def passes(sender: int, receiver: int, signed: Signed) -> bool:
        if sender == 0 and isinstance(signed.body, Proposal) and signed.body.phase is phase:
            if receiver >= 3:
                lab.crash(0)
            return receiver < 3
        return sender not in lab.down

    lab.passes = passes
    lab.begin()
    lab.wait(60)
    assert set(lab.finished) == {1, 2, 3, 4, 5}
    assert len(lab.certificates) == 1
    assert all(len(raws) == 1 for raws in promises(lab).values())


@pytest.mark.parametrize("index", [0, 3])
@pytest.mark.parametrize("after", range(0, 220, 11))
def test_a_crash_and_a_restart_at_any_message(index: int, after: int) -> None:
    """A node dies after so many messages and comes back three seconds later: it never says two different things."""
    lab = Lab(context(), 6)
    heard = 0

    def passes(sender: int, receiver: int, signed: Signed) -> bool:
        nonlocal heard
        if receiver == index:
            heard += 1
            if heard == after:
                lab.crash(index)
        return receiver not in lab.down

    lab.passes = passes
    lab.begin()
    lab.wait(3)
    if index in lab.down:
        lab.restart(index)
        lab.settle()
    lab.wait(40)
    assert set(lab.finished) == set(range(6))
    assert set(reasons(lab, UNIT).values()) == {Reason.OK}
    assert all(len(raws) == 1 for raws in promises(lab).values())


def test_training_again_after_a_crash_does_not_change_a_commit() -> None:
    """Engines need not be repeatable to the bit: what a node has committed to, it reveals, even if it trains again."""
    trained = 0

    def answer(account: bytes, effect: Effect) -> Event | None:
        nonlocal trained
        if isinstance(effect, Train) and account == ACCOUNTS[2] and not effect.audit:
            trained += 1
            return Trained(effect.unit.id, (MODEL, keccak(bytes([trained])), bytes(32)), keccak(b"update"))
        return honest(account, effect)

    lab = Lab(context(), 6, answer=answer, passes=lambda _s, _r, signed: not isinstance(signed.body, Ballots))
    lab.begin()
    lab.crash(2)
    lab.passes = lambda _s, _r, _signed: True
    lab.restart(2)
    lab.wait(20)
    assert trained == 1
    assert reasons(lab, UNIT)[2] is Reason.OK


def test_all_crash_at_once() -> None:
    lab = Lab(context(), 6, passes=lambda _s, _r, signed: not isinstance(signed.body, Vote))
    lab.begin()
    lab.wait(1)
    lab.passes = lambda _s, _r, _signed: True
    for index in range(6):
        lab.crash(index)
    for index in range(6):
        lab.restart(index)
    lab.wait(30)
    assert set(reasons(lab, UNIT).values()) == {Reason.OK}
    assert all(len(raws) == 1 for raws in promises(lab).values())


def test_fewer_than_a_quorum_wait_until_others_come_back() -> None:
    lab = Lab(context(), 6)
    lab.down |= {4, 5}
    lab.begin()
    lab.wait(120)
    assert not lab.finished
    for index in (4, 5):
        lab.restart(index)
    lab.wait(60)
    assert len(lab.certificates) == 1
    assert set(lab.finished) == set(range(6))


def test_a_worker_that_misses_every_quorum_asks_for_it() -> None:
    """Workers outside the committee have nothing to say in some phases: they must notice by themselves."""
    lab = Lab(context(8, 5), 8)
    lost: set[Phase] = set()

    def passes(sender: int, receiver: int, signed: Signed) -> bool:
        if receiver == 7 and isinstance(signed.body, Quorum) and signed.body.phase not in lost:
            lost.add(signed.body.phase)
            return False
        return True

    lab.passes = passes
    lab.begin()
    assert not lab.finished
    lab.wait(8)
    assert lost == set(Phase)
    assert reasons(lab, UNIT)[7] is Reason.OK


# -- what strangers and fools can do ------------------------------------------------------------------------------
def _silent(lab: Lab, index: int, signed: Signed) -> None:
    """A message that changes nothing and is answered by nothing."""
    state = lab.rounds[index]
    assert not state.is_news(signed)
    before = len(lab.said)
    lab.feed(index, Received(signed))
    assert len(lab.said) == before


def test_messages_that_are_not_up_to_their_sender() -> None:
    lab = Lab(context(7, 5), 6, passes=lambda _s, _r, _signed: False).begin()
    unit = unit_of(lab, 2)
    foreign = (context().place.job, 1)
    _silent(lab, 0, sealed(3, Commit(*foreign, unit, bytes(32))))  # another's unit
    _silent(lab, 0, sealed(2, Commit(*foreign, bytes(32), bytes(32))))  # no unit
    _silent(lab, 0, sealed(9, Commit(*foreign, unit, bytes(32))))  # a stranger
    _silent(lab, 0, sealed(6, Vote(*foreign, 0, Phase.LOCK, bytes(32), bytes(64) + b"\x1b")))  # no member
    _silent(lab, 0, sealed(5, Proposal(*foreign, 0, Phase.LOCK, b"", ())))


def test_a_vote_with_a_broken_signature_does_no_harm() -> None:
    lab = Lab(context(), 6, passes=lambda _s, _r, _signed: False).begin()
    place = context().place
    for bad in (bytes(65), bytes(64) + b"\x1b", b"\xff" * 65):
        lab.feed(0, Received(sealed(1, Vote(place.job, 1, 0, Phase.LOCK, bytes(32), bad))))
    lab.feed(0, Received(sealed(1, Proposal(place.job, 1, 1, Phase.CERTIFY, b"\xc1", ()))))
    assert lab.rounds[0].ballot.phase is Phase.LOCK


def test_only_the_first_message_of_a_kind_counts() -> None:
    lab = Lab(context(), 6, passes=lambda _s, _r, _signed: False).begin()
    unit = unit_of(lab, 2)
    first = sealed(2, Commit(context().place.job, 1, unit, keccak(b"first")))
    lab.feed(0, Received(first))
    for number in range(100):
        _silent(lab, 0, sealed(2, Commit(context().place.job, 1, unit, keccak(bytes([number])))))
    assert lab.rounds[0].inbox.commits[unit] == first


def test_nobody_can_fill_the_memory_with_audits_and_replays() -> None:
    lab = Lab(context(12, 4), 4, passes=lambda _s, _r, _signed: False).begin()
    state = lab.rounds[0]
    for unit in state.units:
        lab.feed(0, Received(sealed(9, AuditCommit(context().place.job, 1, unit, bytes(32)))))
        lab.feed(0, Received(sealed(9, AuditReveal(context().place.job, 1, unit, (bytes(32),), bytes(32), bytes(32)))))
        for _ in range(8):
            lab.feed(0, Received(sealed(9, Replay(context().place.job, 1, unit, 1, bytes(32)))))
    kept = len(state.inbox.audit_commits) + len(state.inbox.audit_reveals) + len(state.inbox.replays)
    assert kept <= 64


def test_a_false_quorum_is_ignored() -> None:
    lab = Lab(context(), 6, passes=lambda _s, _r, _signed: False).begin()
    place = context().place
    for phase in Phase:
        signatures = tuple(bytes(64) + b"\x1b" for _ in range(5))
        _false = sealed(1, Quorum(place.job, 1, 0, phase, b"\x91\x90", signatures))
        lab.feed(0, Received(_false))
    assert lab.rounds[0].ballot.phase is Phase.LOCK
    assert not lab.finished


def test_a_job_whose_model_diverges_ends_in_empty_rounds() -> None:
    def answer(account: bytes, effect: Effect) -> Event | None:
        return None if isinstance(effect, Train) else honest(account, effect)

    lab = Lab(context(), 6, answer=answer).begin()
    lab.wait(295)
    assert not lab.finished
    lab.wait(30)
    found = certificate(lab)
    assert found.model == MODEL
    assert {row.kind for row in found.verdicts} == {VALIDATION}


def test_a_newcomer_is_on_the_next_roster() -> None:
    lab = Lab(context(5, 5, newcomers=2), 7).begin()
    lab.wait(2)
    assert certificate_of(lab).roster == tuple(ACCOUNTS[:7])


def certificate_of(lab: Lab) -> CertifyPayload:
    return lab.finished[0].certificate


def test_newcomers_are_admitted_while_there_is_room() -> None:
    lab = Lab(context(5, 5, newcomers=3, room=6), 8).begin()
    lab.wait(2)
    assert certificate_of(lab).roster == tuple(ACCOUNTS[:6])  # the lowest account of the three
    full = Lab(context(5, 5, newcomers=3, room=4), 8).begin()
    full.wait(2)
    assert certificate_of(full).roster == tuple(ACCOUNTS[:5])  # nobody is sent away


def test_a_certificate_waits_for_the_chain() -> None:
    """A node whose view of the chain lags takes a certificate with a newcomer only once it has seen it enlist."""
    lab = Lab(context(5, 5, newcomers=1), 6)
    known = dict(lab.shared.enlisted)
    behind = context(5, 5)  # node 4 has not seen the newcomer
    lagging = dict(behind.enlisted)
    lab.rounds[4] = Round(context(5, 5, enlisted=lagging), member(4), 0.0)
    lab.begin()
    lab.wait(2)
    assert 4 not in lab.finished
    lagging.update(known)
    lab.wait(2)
    assert lab.finished[4].payload == lab.finished[0].payload
