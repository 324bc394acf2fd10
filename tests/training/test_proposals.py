"""What a lying leader can put on the table, and that no honest member prepares it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from atoll.training.audit import draw_committee
from atoll.training.beacon import Draw
from atoll.training.committee import (
    AuditPayload,
    BeaconPayload,
    CertifyPayload,
    LockPayload,
    OpenPayload,
    Payload,
    decode,
    encode,
    statement_digest,
)
from atoll.training.events import Effect, Event, Examine, Examined, Received
from atoll.wire.hashing import keccak
from atoll.wire.messages import (
    AuditCommit,
    AuditReveal,
    Commit,
    Phase,
    Prepare,
    Present,
    Proposal,
    Quorum,
    Replay,
    Reveal,
    Signed,
)
from atoll.wire.reasons import Reason

from .lab import ACCOUNTS, JOB, KEYS, Lab, context, honest, member, sealed, states_of, unit_of


def stopped(phase: Phase, **changes: object) -> tuple[Lab, Payload]:
    """A round in which the leader's proposal for a phase reached nobody, and that proposal."""
    lab = Lab(context(**changes), 6)  # type: ignore[arg-type]
    honest_payload: list[Payload] = []

    def passes(sender: int, receiver: int, signed: Signed) -> bool:
        body = signed.body
        if isinstance(body, Proposal) and body.phase is phase:
            honest_payload.append(decode(phase, body.payload))
            return False
        return True

    lab.passes = passes
    lab.begin()
    assert {round_.ballot.phase for round_ in lab.rounds.values()} == {phase}
    lab.passes = lambda _s, _r, _signed: False
    return lab, honest_payload[0]


def judge(lab: Lab, phase: Phase, payload: Payload | bytes, index: int = 3) -> str:
    """What a member does with a payload that the leader proposes: "prepares", "waits" or the reason of its refusal."""
    raw = payload if isinstance(payload, bytes) else encode(payload)
    said, notes = len(lab.said), len(lab.notes[index])
    # the leader of another view, so that this member has heard nothing from it
    lab.rounds[index].ballot.enter_view(lab.rounds[index].ballot.view + 1)
    view = lab.rounds[index].ballot.view
    lab.rounds[index].view_entered = lab.now
    lab.rounds[index].ballot.moved_in = None
    lab.feed(index, Received(sealed(view % 6, Proposal(JOB, 1, view, phase, raw, ()))))
    if any(isinstance(signed.body, Prepare) for sender, signed in lab.said[said:] if sender == index):
        return "prepares"
    fresh = lab.notes[index][notes:]
    return fresh[0].split("was refused: ")[1].split(":")[0] if fresh else "waits"


def changed(payload: Payload, **fields: object) -> Payload:
    return msgspec.structs.replace(payload, **fields)


def lock(lab: Lab, *signed: Signed) -> LockPayload:
    return LockPayload(tuple(one.raw for one in signed))


# -- LOCK --------------------------------------------------------------------------------------------------------
def test_an_honest_lock() -> None:
    lab, payload = stopped(Phase.LOCK)
    assert isinstance(payload, LockPayload)
    assert len(payload.commits) == 6
    assert judge(lab, Phase.LOCK, payload) == "prepares"


def test_locks_that_are_wrong() -> None:
    lab, payload = stopped(Phase.LOCK)
    assert isinstance(payload, LockPayload)
    commits = payload.commits
    unit = unit_of(lab, 2)
    assert judge(lab, Phase.LOCK, LockPayload((*commits[1:], commits[0]))) == "MALFORMED"  # out of order
    assert judge(lab, Phase.LOCK, LockPayload((commits[0], *commits))) == "DUPLICATE"
    stolen = sealed(5, Commit(JOB, 1, unit, bytes(32))).raw
    assert judge(lab, Phase.LOCK, LockPayload((stolen,))) == "UNKNOWN_ACCOUNT"
    invented = sealed(5, Commit(JOB, 1, bytes(32), bytes(32))).raw
    assert judge(lab, Phase.LOCK, LockPayload((invented,))) == "UNKNOWN_ACCOUNT"
    for other in (Commit(bytes(32), 1, unit, bytes(32)), Commit(JOB, 2, unit, bytes(32)), Present(JOB, 1)):
        assert judge(lab, Phase.LOCK, LockPayload((sealed(2, other).raw,))) == "MALFORMED"  # another job, round, kind
    assert judge(lab, Phase.LOCK, LockPayload((b"\xc1",))) == "MALFORMED"
    assert judge(lab, Phase.LOCK, b"\xc1") == "MALFORMED"
    assert judge(lab, Phase.LOCK, payload) == "prepares"  # it is not tired of good ones


def test_a_leader_cannot_hurry() -> None:
    """Locking only the commits of its friends before others have had time would decide the model."""
    lab, payload = stopped(Phase.LOCK)
    assert isinstance(payload, LockPayload)
    few = LockPayload(payload.commits[:1])
    assert judge(lab, Phase.LOCK, few) == "waits"
    lab.now += 2.5  # all six have been here for longer than the grace
    assert judge(lab, Phase.LOCK, few) == "waits"
    lab.now += 100.0
    assert judge(lab, Phase.LOCK, few) == "waits"
    assert judge(lab, Phase.LOCK, LockPayload(())) == "waits"


def test_whoever_is_late_is_left_out_after_the_grace() -> None:
    silent = {4, 5}
    lab = Lab(context(), 6, answer=lambda account, effect: None if _is(account, silent) else honest(account, effect))
    lab.passes = lambda _s, _r, signed: not isinstance(signed.body, Proposal)
    lab.begin()
    lab.passes = lambda _s, _r, _signed: False
    here = lab.rounds[3].inbox.commits
    payload = LockPayload(tuple(here[unit].raw for unit in sorted(here)))
    assert len(here) == 4
    lab.now = 3.9
    assert judge(lab, Phase.LOCK, payload) == "waits"
    lab.now = 4.1
    assert judge(lab, Phase.LOCK, payload) == "prepares"


def _is(account: bytes, indices: set[int]) -> bool:
    return ACCOUNTS.index(account) in indices


def test_a_member_learns_from_a_proposal() -> None:
    """What reached the leader and not this member still counts."""
    lab, payload = stopped(Phase.LOCK)
    assert isinstance(payload, LockPayload)
    state = lab.rounds[3]
    lost = list(state.inbox.commits)[:5]
    for unit in lost:
        del state.inbox.commits[unit], state.inbox.arrived[Phase.LOCK, unit]
    assert judge(lab, Phase.LOCK, payload) == "prepares"
    assert len(state.inbox.commits) == 6


# -- BEACON ------------------------------------------------------------------------------------------------------
def test_beacons() -> None:
    lab, payload = stopped(Phase.BEACON)
    assert isinstance(payload, BeaconPayload)
    links = payload.links
    assert judge(lab, Phase.BEACON, payload) == "prepares"
    assert judge(lab, Phase.BEACON, BeaconPayload(links[::-1])) == "UNKNOWN_ACCOUNT"
    assert judge(lab, Phase.BEACON, BeaconPayload((*links, links[-1]))) == "UNKNOWN_ACCOUNT"
    assert judge(lab, Phase.BEACON, BeaconPayload(links[:4])) == "MALFORMED"  # fewer than a quorum
    forged = ((links[0][0], keccak(b"chosen")), *links[1:])
    assert judge(lab, Phase.BEACON, BeaconPayload(forged)) == "BAD_PROOF"
    swapped = ((links[0][0], links[1][1]), (links[1][0], links[0][1]), *links[2:])
    assert judge(lab, Phase.BEACON, BeaconPayload(swapped)) == "BAD_PROOF"
    stranger = tuple(sorted(((ACCOUNTS[9], keccak(b"link")), *links)))
    assert judge(lab, Phase.BEACON, BeaconPayload(stranger)) == "UNKNOWN_ACCOUNT"
    assert judge(lab, Phase.BEACON, BeaconPayload(links[:5])) == "waits"  # it left out what everybody has


def test_the_next_rounds_links_are_no_audit_links() -> None:
    lab, payload = stopped(Phase.BEACON)
    assert isinstance(payload, BeaconPayload)
    other = tuple((ACCOUNTS[i], member(i).link(1, Draw.ASSIGN)) for i in range(6))
    assert judge(lab, Phase.BEACON, BeaconPayload(other)) == "BAD_PROOF"


# -- AUDIT -------------------------------------------------------------------------------------------------------
def test_audits() -> None:
    lab, payload = stopped(Phase.AUDIT)
    assert isinstance(payload, AuditPayload)
    state = lab.rounds[3]
    assert judge(lab, Phase.AUDIT, AuditPayload(())) == "waits"  # all audits are here: their authors are to be paid
    assert judge(lab, Phase.AUDIT, AuditPayload(payload.commits[1:])) == "waits"
    lab.now += 100
    assert judge(lab, Phase.AUDIT, AuditPayload(payload.commits[1:])) == "waits"
    unit, auditor = next(iter(state.audits.items()))
    outsider = next(i for i in range(6) if ACCOUNTS[i] not in (auditor, state.units[unit].account))
    fake = sealed(outsider, AuditCommit(JOB, 1, unit, bytes(32))).raw
    assert judge(lab, Phase.AUDIT, AuditPayload((fake,))) == "UNKNOWN_ACCOUNT"
    assert judge(lab, Phase.AUDIT, AuditPayload((*payload.commits, payload.commits[-1]))) == "DUPLICATE"
    assert judge(lab, Phase.AUDIT, AuditPayload(payload.commits[::-1])) == "MALFORMED"
    assert judge(lab, Phase.AUDIT, payload) == "prepares"


# -- OPEN --------------------------------------------------------------------------------------------------------
def test_an_honest_opening() -> None:
    lab, payload = stopped(Phase.OPEN)
    assert isinstance(payload, OpenPayload)
    assert [finding for _, finding in payload.findings] == [0] * 6
    assert judge(lab, Phase.OPEN, payload) == "prepares"


def test_a_leader_cannot_frame_a_worker() -> None:
    """An opening that the worker did not sign, or no opening though it is here, convicts nobody."""
    lab, payload = stopped(Phase.OPEN)
    assert isinstance(payload, OpenPayload)
    unit = unit_of(lab, 2)
    place = sorted(lab.rounds[3].locked).index(unit)
    forged = sealed(0, Reveal(JOB, 1, unit, states_of(b"other"), bytes(32), bytes(32))).raw
    reveals = (*payload.reveals[:place], forged, *payload.reveals[place + 1 :])
    findings = (*payload.findings[:place], (unit, int(Reason.COMMIT_MISMATCH)), *payload.findings[place + 1 :])
    assert judge(lab, Phase.OPEN, changed(payload, reveals=reveals, findings=findings)) == "UNKNOWN_ACCOUNT"
    without = payload.reveals[:place] + payload.reveals[place + 1 :]
    missing = (*payload.findings[:place], (unit, int(Reason.NOT_REVEALED)), *payload.findings[place + 1 :])
    hurried = changed(payload, reveals=without, findings=missing)
    assert judge(lab, Phase.OPEN, hurried) == "waits"
    lab.now += 100
    assert judge(lab, Phase.OPEN, hurried) == "waits"
    for reason in (Reason.SEGMENT_MISMATCH, Reason.NOT_REVEALED, Reason.STATE_WITHHELD):
        lied = (*payload.findings[:place], (unit, int(reason)), *payload.findings[place + 1 :])
        assert judge(lab, Phase.OPEN, changed(payload, findings=lied)) == "MALFORMED"


def test_a_leader_cannot_frame_an_auditor() -> None:
    lab, payload = stopped(Phase.OPEN)
    assert isinstance(payload, OpenPayload)
    unit = sorted(lab.rounds[3].audited)[0]
    forged = sealed(0, AuditReveal(JOB, 1, unit, states_of(b"other"), bytes(32), bytes(32))).raw
    if lab.rounds[3].audits[unit] != ACCOUNTS[0]:
        framed = changed(payload, audit_reveals=(forged, *payload.audit_reveals[1:]))
        assert judge(lab, Phase.OPEN, framed) == "UNKNOWN_ACCOUNT"
    disputed = ((unit, 255), *payload.findings[1:])
    hurried = changed(payload, audit_reveals=payload.audit_reveals[1:], findings=disputed)
    assert judge(lab, Phase.OPEN, hurried) == "waits"


def test_a_leader_cannot_save_a_liar() -> None:
    def answer(account: bytes, effect: Effect) -> Event | None:
        if isinstance(effect, Examine) and effect.unit.account == ACCOUNTS[2]:
            return Examined(effect.key, 255)
        return honest(account, effect)

    lab = Lab(context(), 6, answer=answer)
    shown: list[OpenPayload] = []

    def passes(sender: int, receiver: int, signed: Signed) -> bool:
        body = signed.body
        if isinstance(body, Proposal) and body.phase is Phase.OPEN:
            payload = decode(Phase.OPEN, body.payload)
            assert isinstance(payload, OpenPayload)
            shown.append(payload)
            return False
        return True

    lab.passes = passes
    lab.begin()
    payload = shown[0]
    assert dict(payload.findings)[unit_of(lab, 2)] == 255
    saved = changed(payload, findings=tuple((unit, 0) for unit, _ in payload.findings))
    assert judge(lab, Phase.OPEN, saved) != "prepares"
    assert judge(lab, Phase.OPEN, payload) == "prepares"


def test_openings_that_are_wrong() -> None:
    lab, payload = stopped(Phase.OPEN)
    assert isinstance(payload, OpenPayload)
    assert judge(lab, Phase.OPEN, changed(payload, findings=payload.findings[1:])) == "MALFORMED"
    assert judge(lab, Phase.OPEN, changed(payload, findings=payload.findings[::-1])) == "MALFORMED"
    unknown = ((payload.findings[0][0], 29), *payload.findings[1:])
    assert judge(lab, Phase.OPEN, changed(payload, findings=unknown)) == "MALFORMED"
    assert judge(lab, Phase.OPEN, changed(payload, reveals=payload.reveals[::-1])) == "MALFORMED"
    assert judge(lab, Phase.OPEN, changed(payload, reveals=())) == "MALFORMED"  # accepted without being revealed
    stranger = sealed(9, Reveal(JOB, 1, bytes(32), states_of(b"x"), bytes(32), bytes(32))).raw
    assert judge(lab, Phase.OPEN, changed(payload, reveals=(stranger, *payload.reveals))) == "UNKNOWN_ACCOUNT"


# -- CERTIFY -----------------------------------------------------------------------------------------------------
def test_an_honest_certificate() -> None:
    lab, payload = stopped(Phase.CERTIFY)
    assert judge(lab, Phase.CERTIFY, payload) == "prepares"


CHANGES: dict[str, Callable[[CertifyPayload], CertifyPayload]] = {
    "another model": lambda c: msgspec.structs.replace(c, model=keccak(b"mine")),
    "a verdict less": lambda c: msgspec.structs.replace(c, verdicts=c.verdicts[1:]),
    "a verdict more": lambda c: msgspec.structs.replace(c, verdicts=(*c.verdicts, c.verdicts[0])),
    "a verdict bent": lambda c: msgspec.structs.replace(
        c, verdicts=(msgspec.structs.replace(c.verdicts[0], reason=33), *c.verdicts[1:])
    ),
    "somebody thrown out": lambda c: msgspec.structs.replace(c, roster=c.roster[1:], committee=c.committee[:0]),
    "a friend on the roster": lambda c: msgspec.structs.replace(c, roster=tuple(sorted((*c.roster, ACCOUNTS[9])))),
    "a committee of its own": lambda c: msgspec.structs.replace(c, committee=c.committee[::-1]),
    "a smaller committee": lambda c: msgspec.structs.replace(c, committee=c.committee[:1]),
    "no committee": lambda c: msgspec.structs.replace(c, committee=()),
    "another lock": lambda c: msgspec.structs.replace(c, lock_root=bytes(32)),
    "the last round": lambda c: msgspec.structs.replace(c, last=True),
    "too few links": lambda c: msgspec.structs.replace(c, links=c.links[:4]),
    "a forged link": lambda c: msgspec.structs.replace(c, links=((c.links[0][0], bytes(32)), *c.links[1:])),
    "links out of order": lambda c: msgspec.structs.replace(c, links=c.links[::-1]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_certificates_that_are_wrong(name: str) -> None:
    lab, payload = stopped(Phase.CERTIFY)
    assert isinstance(payload, CertifyPayload)
    assert judge(lab, Phase.CERTIFY, CHANGES[name](payload)) in ("MALFORMED", "UNKNOWN_ACCOUNT", "BAD_PROOF")


def test_replays_that_nobody_asked_for() -> None:
    lab, payload = stopped(Phase.CERTIFY)
    assert isinstance(payload, CertifyPayload)
    fake = sealed(4, Replay(JOB, 1, unit_of(lab, 2), 1, bytes(32))).raw
    assert judge(lab, Phase.CERTIFY, changed(payload, replays=(fake,))) == "UNKNOWN_ACCOUNT"


def test_present_are_only_those_who_are_admitted() -> None:
    lab, payload = stopped(Phase.CERTIFY, newcomers=2, room=7)
    assert isinstance(payload, CertifyPayload)
    greetings = {ACCOUNTS[i]: sealed(i, Present(JOB, 1)).raw for i in (6, 7)}
    roster = tuple(sorted((*payload.roster, ACCOUNTS[6])))

    def certificate(present: tuple[bytes, ...], roster: tuple[bytes, ...]) -> Payload:
        committee = draw_committee(lab.rounds[3].audit_beacon, roster, 7)
        return changed(payload, present=present, roster=roster, committee=committee)

    assert judge(lab, Phase.CERTIFY, certificate((greetings[ACCOUNTS[6]],), roster)) == "prepares"
    both = (greetings[ACCOUNTS[6]], greetings[ACCOUNTS[7]])
    assert judge(lab, Phase.CERTIFY, certificate(both, roster)) == "MALFORMED"
    assert judge(lab, Phase.CERTIFY, certificate((), roster)) == "MALFORMED"  # nobody is admitted without asking
    unknown = sealed(9, Present(JOB, 1)).raw
    assert judge(lab, Phase.CERTIFY, certificate((unknown,), roster)) == "waits"  # perhaps the chain is behind


def test_a_leader_cannot_leave_out_replays() -> None:
    """A friend whose unit is disputed would get away as unsettled."""

    def answer(account: bytes, effect: Effect) -> Event | None:
        if isinstance(effect, Examine) and effect.unit.account == ACCOUNTS[2]:
            return Examined(effect.key, 255)
        return honest(account, effect)

    lab = Lab(context(), 6, answer=answer)
    shown: list[Payload] = []

    def passes(sender: int, receiver: int, signed: Signed) -> bool:
        if isinstance(signed.body, Proposal) and signed.body.phase is Phase.CERTIFY:
            shown.append(decode(Phase.CERTIFY, signed.body.payload))
            return False
        return True

    lab.passes = passes
    lab.begin()
    payload = shown[0]
    assert isinstance(payload, CertifyPayload)
    assert len(payload.replays) == 3
    state = lab.rounds[3]
    state._proposals._certificate({}, payload.links, {}, lab.now)
    lab.carry_out(3, state._out[-1:])  # the model without that unit
    verdicts = state._proposals._certificate({}, payload.links, {}, lab.now)
    assert verdicts is not None
    assert {row.reason for row in verdicts.verdicts if row.unit == unit_of(lab, 2)} == {Reason.UNSETTLED}
    assert judge(lab, Phase.CERTIFY, verdicts) == "waits"
    lab.now += 100
    assert judge(lab, Phase.CERTIFY, verdicts) == "waits"


# -- quorums of liars ----------------------------------------------------------------------------------------------
def test_a_quorum_does_not_make_nonsense_true() -> None:
    """Even five of six cannot bring a node into a state that it cannot work with: it waits for the certificate."""
    cases: list[tuple[Phase, Payload]] = [
        (Phase.LOCK, LockPayload((sealed(5, Commit(JOB, 1, bytes(32), bytes(32))).raw,))),
        (Phase.BEACON, BeaconPayload(())),
        (Phase.AUDIT, AuditPayload((sealed(5, AuditCommit(JOB, 1, bytes(32), bytes(32))).raw,))),
        (Phase.OPEN, OpenPayload((), (), ((bytes(32), 255),))),
    ]
    for phase, payload in cases:
        lab, good = stopped(phase)
        for chosen, result in ((payload, phase), (good, Phase(phase + 1))):
            raw = encode(chosen)
            digest = statement_digest(context().place, phase, 0, raw)
            signatures = tuple(KEYS[i].sign_digest(digest) for i in range(5))
            lab.feed(3, Received(sealed(1, Quorum(JOB, 1, 0, phase, raw, signatures))))
            assert lab.rounds[3].ballot.phase is result
        assert any("a quorum for" in note for note in lab.notes[3])
