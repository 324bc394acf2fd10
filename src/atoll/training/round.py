"""One round as one node lives it: events in, effects out. Pure.

`handle(event, now)` folds the event into the state, then `_plan` asks, in the order of the protocol, what can be done
now that has not been done yet. Nothing is done twice: each duty has a key. A restarted node replays its journal and
calls `resume`. The order of the phases and the reasons for it are in docs/protocol/round.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import TypeVar

from atoll.errors import Refused
from atoll.training.audit import draw_audits, draw_replicas
from atoll.training.ballot import Ballot
from atoll.training.beacon import Draw, belongs, combine
from atoll.training.committee import (
    AuditPayload,
    BeaconPayload,
    CertifyPayload,
    LockPayload,
    OpenPayload,
    decode,
    encode,
    read_evidence,
    verify_quorum,
)
from atoll.training.context import Member, RoundContext
from atoll.training.events import (
    Aggregated,
    Effect,
    Event,
    Examined,
    Finished,
    Judged,
    Note,
    Received,
    Replayed,
    Rerun,
    Send,
    Train,
    Trained,
)
from atoll.training.proposals import Proposals
from atoll.training.unit import UnitSpec, assign_units, commit_hash, states_root
from atoll.wire.messages import (
    AuditCommit,
    AuditReveal,
    Body,
    Commit,
    Handover,
    Phase,
    Preimage,
    Present,
    Proposal,
    Quorum,
    Replay,
    Reveal,
    Signed,
    Vote,
    seal,
)

Value = TypeVar("Value")

_PHASE_OF: dict[type, Phase] = {
    Commit: Phase.LOCK,
    Preimage: Phase.BEACON,
    AuditCommit: Phase.AUDIT,
    Reveal: Phase.OPEN,
    AuditReveal: Phase.OPEN,
    Replay: Phase.CERTIFY,
}


class Round:
    """The state of one round at one node. `account` takes part as far as its roles and the roster allow."""

    def __init__(self, context: RoundContext, member: Member, now: float) -> None:
        self.context, self.member = context, member
        place = context.place
        units = assign_units(place.domain, place.job, place.round, context.beacon, context.workers, context.shards)
        self.units: dict[bytes, UnitSpec] = {unit.id: unit for unit in units}
        self.mine = next((unit for unit in units if unit.account == member.account), None)
        self.ballot = Ballot(place)
        self.started = self.entered = self.view_entered = self.progressed = now
        self.finished: Finished | None = None
        # What arrived: key -> message, and when it came
        self.commits: dict[bytes, Signed] = {}
        self.links: dict[bytes, bytes] = {}
        self.audit_commits: dict[bytes, Signed] = {}
        self.reveals: dict[bytes, Signed] = {}
        self.audit_reveals: dict[bytes, Signed] = {}
        self.replays: dict[tuple[bytes, bytes], Signed] = {}
        self.present: dict[bytes, Signed] = {}
        self.arrived: dict[tuple[Phase, bytes], float] = {}
        # What this node worked out
        self.results: dict[bytes, Trained] = {}
        self.reruns: dict[bytes, Replayed] = {}
        self.findings: dict[bytes, int] = {}
        self.judgements: dict[bytes, bool] = {}
        self.models: dict[bytes, bytes] = {}
        # What quorums have settled
        self.lock: LockPayload | None = None
        self.locked: dict[bytes, Commit] = {}
        self.audit_beacon = b""
        self.audits: dict[bytes, bytes] = {}  # unit -> auditor
        self.audited: dict[bytes, AuditCommit] = {}
        self.opened: OpenPayload | None = None
        self._done: set[bytes] = set()
        self._sent: dict[bytes, tuple[Phase, Send]] = {}
        self._early: dict[Phase, Quorum] = {}
        self._out: list[Effect] = []
        self._proposals = Proposals(self)

    # -- the one entry -------------------------------------------------------------------------------------------
    def handle(self, event: Event, now: float) -> list[Effect]:
        """Fold one event at time `now` (seconds, any monotonic origin) and return what is to be done about it."""
        self._out = []
        if self.finished is None or isinstance(event, Received):
            self._apply(event, now)
        if self.finished is None:
            self._plan(now)
        return self._out

    def resume(self, now: float) -> list[Effect]:
        """After a restart: ask again for unfinished work and send again what may not have arrived."""
        self._done = {key for key in self._done if key in self._sent}
        self.entered = self.view_entered = now
        self._out = [send for phase, send in self._sent.values() if phase is self.ballot.phase]
        if self.finished is None:
            self._plan(now)
        return self._out

    # -- folding ---------------------------------------------------------------------------------------------------
    def _apply(self, event: Event, now: float) -> None:
        match event:
            case Received(signed):
                self._receive(signed, now)
            case Trained():
                self.results[event.unit] = event
            case Replayed():
                self.reruns[event.unit] = event
            case Examined(key, finding):
                self._keep(self.findings, key, finding)
            case Judged(key, guilty):
                self._keep(self.judgements, key, guilty)
            case Aggregated(key, model):
                self._keep(self.models, key, model)

    def _keep(self, store: dict[bytes, Value], key: bytes, value: Value | None) -> None:
        """Keep a result; a failed attempt (None) may be asked for again at the next nudge."""
        if value is not None:
            store[key] = value
        else:
            self._done.discard(key)

    def _receive(self, signed: Signed, now: float) -> None:
        body, account = signed.body, signed.account
        phase = _PHASE_OF.get(type(body), getattr(body, "phase", self.ballot.phase))
        if phase < self.ballot.phase or self.finished:
            if not isinstance(body, Quorum):
                self._answer_straggler(account, phase)
            return
        match body:
            case Proposal() | Vote() | Handover():
                self.ballot.receive(signed)
            case Quorum():
                self._early[body.phase] = body
            case Preimage(value=value):
                if account in self.context.place.committee:
                    if belongs(value, self.context.enlisted[account].tip, body.round, Draw.AUDIT):
                        self.links.setdefault(account, value)
                        self.arrived.setdefault((Phase.BEACON, account), now)
            case Present():
                if account in self.context.enlisted and account not in self.context.roster:
                    self.present.setdefault(account, signed)
            case _:
                self._receive_work(signed, now)

    def _receive_work(self, signed: Signed, now: float) -> None:
        body, account = signed.body, signed.account
        unit = self.units.get(getattr(body, "unit", b""))
        if unit is None or account not in self.context.roster:
            return
        match body:
            case Commit() if account == unit.account:
                self.commits.setdefault(unit.id, signed)
                self.arrived.setdefault((Phase.LOCK, unit.id), now)
            case AuditCommit() if self.audits.get(unit.id, account) == account:
                self.audit_commits.setdefault(unit.id + account, signed)
                self.arrived.setdefault((Phase.AUDIT, unit.id + account), now)
            case Reveal() if account == unit.account:
                self.reveals.setdefault(unit.id, signed)
                self.arrived.setdefault((Phase.OPEN, unit.id), now)
            case AuditReveal() if self.audits.get(unit.id, account) == account:
                self.audit_reveals.setdefault(unit.id, signed)
                self.arrived.setdefault((Phase.OPEN, unit.id + account), now)
            case Replay():
                self.replays.setdefault((unit.id, account), signed)
                self.arrived.setdefault((Phase.CERTIFY, unit.id + account), now)

    def _answer_straggler(self, account: bytes, phase: Phase) -> None:
        """Whoever still works on a closed phase gets the quorum that closed it."""
        known = self.ballot.quorums.get(phase)
        if known is not None and account != self.member.account:
            self._out.append(Send((account,), self._sign(known)))

    # -- planning ----------------------------------------------------------------------------------------------------
    def _plan(self, now: float) -> None:
        while self.finished is None:
            self._work()
            if self.member.account in self.context.place.committee:
                self._vote(now)
            if not self._advance(now):
                break
        if self.finished is None:
            self._watch_leader(now)
            self._nudge(now)

    def once(self, key: bytes, effect: Effect) -> None:
        """Ask for something under a key, unless it has been asked for."""
        if key not in self._done:
            self._done.add(key)
            self._out.append(effect)

    def _tell(self, key: bytes, to: Iterable[bytes], body: Body, phase: Phase) -> None:
        """Send a message once now, and again at every nudge while its phase lasts."""
        if key in self._done:
            return
        send = Send(tuple(to), self._sign(body))
        self._sent[key] = (phase, send)
        self.once(key, send)

    def _sign(self, body: Body) -> Signed:
        return seal(self.context.place.domain, body, self.member.account, self.member.sign)

    def _work(self) -> None:
        """Duties of the worker, the auditor, the replica, and of a newcomer."""
        place, committee, phase = self.context.place, self.context.place.committee, self.ballot.phase
        name = (place.job, place.round)
        if self.member.account not in self.context.everybody and self.member.account in self.context.enlisted:
            self._tell(b"present", committee, Present(*name), Phase.CERTIFY)
        if self.mine is not None and phase is Phase.LOCK:
            self._do_unit(self.mine, audit=False)
        for unit_id, auditor in self.audits.items():
            if auditor == self.member.account and phase is Phase.AUDIT:
                self._do_unit(self.units[unit_id], audit=True)
        if phase is Phase.OPEN:
            for unit_id, done in self.results.items():
                opening = (*name, unit_id, done.states, done.update, self.member.salt(unit_id))
                if self.mine is not None and unit_id == self.mine.id and unit_id in self.locked:
                    self._tell(b"reveal" + unit_id, committee, Reveal(*opening), phase)
                if unit_id in self.audited and self.audits[unit_id] == self.member.account:
                    self._tell(b"audit-reveal" + unit_id, committee, AuditReveal(*opening), phase)
        if phase is Phase.CERTIFY:
            self._replay()

    def _do_unit(self, unit: UnitSpec, audit: bool) -> None:
        place = self.context.place
        self.once(b"train" + unit.id, Train(unit, audit))
        done = self.results.get(unit.id)
        if done is None:
            return
        salt = self.member.salt(unit.id)
        digest = commit_hash(
            place.domain, place.job, place.round, unit.id, self.member.account, states_root(done.states), done.update, salt
        )
        kind, phase = (AuditCommit, Phase.AUDIT) if audit else (Commit, Phase.LOCK)
        self._tell(b"commit" + unit.id, place.committee, kind(place.job, place.round, unit.id, digest), phase)

    def _replay(self) -> None:
        place = self.context.place
        for unit_id, replicas in self.disputes().items():
            if self.member.account not in replicas:
                continue
            reveal = self.reveals[unit_id].body
            if isinstance(reveal, Reveal):
                self.once(b"rerun" + unit_id, Rerun(self.units[unit_id], reveal.states))
            done = self.reruns.get(unit_id)
            if done is not None:
                message = Replay(place.job, place.round, unit_id, done.segment, done.state)
                self._tell(b"replay" + unit_id, place.committee, message, Phase.CERTIFY)

    # -- the committee's duties ----------------------------------------------------------------------------------------
    def _vote(self, now: float) -> None:
        place, ballot = self.context.place, self.ballot
        phase = ballot.phase
        if phase is Phase.BEACON:
            value = self.member.link(place.round, Draw.AUDIT)
            self._tell(b"link", place.committee, Preimage(place.job, place.round, value), phase)
        if ballot.leader == self.member.account:
            self._propose(now)
        try:
            pending = ballot.pending()
            if pending is None:
                return
            payload, obliged = pending
            if ballot.voted != payload and not self._proposals.accepts(phase, decode(phase, payload), obliged, now):
                return
        except Refused as error:
            ballot.drop_proposal()
            self._out.append(Note(f"round {place.round}: a proposal for {phase.name} was refused: {error}"))
            return
        digest = ballot.remember(payload)
        ballot.mark_voted(payload)
        carried = self.member.link(place.round, Draw.ASSIGN) if phase is Phase.OPEN else b""
        vote = Vote(place.job, place.round, phase, digest, self.member.sign(digest), carried)
        self._tell(b"vote" + bytes([phase]) + digest, place.committee, vote, phase)

    def _propose(self, now: float) -> None:
        place, ballot = self.context.place, self.ballot
        key = b"propose" + bytes([ballot.phase]) + ballot.view.to_bytes(4, "big")
        if key in self._done:
            return
        handovers: tuple[bytes, ...] = ()
        payload = b""
        if ballot.moved_in is ballot.phase:  # this phase was handed over: a quorum of handovers must say so
            carry = ballot.must_carry()
            if carry is None:
                return
            handovers, payload = carry
        elif ballot.voted:  # already bound in this phase
            return
        if not payload:
            drafted = self._proposals.draft(ballot.phase, now)
            if drafted is None:
                return
            payload = encode(drafted)
        body = Proposal(place.job, place.round, ballot.view, ballot.phase, payload, handovers)
        self._tell(key, place.committee, body, ballot.phase)

    def _advance(self, now: float) -> bool:
        """Close the phase if a quorum for it is there."""
        if Phase.CERTIFY in self._early and self.ballot.phase is not Phase.CERTIFY:
            self._jump(self._early.pop(Phase.CERTIFY))
            return False
        phase, place = self.ballot.phase, self.context.place
        early = self._early.pop(phase, None)
        own = self.ballot.tally()
        for message in (early, own):
            if message is None:
                continue
            try:
                payload = decode(phase, message.payload)
                self.ballot.accept(message)
            except Refused as error:
                self._out.append(Note(f"round {place.round}: a quorum for {phase.name} was refused: {error}"))
                continue
            if self.ballot.leader == self.member.account:
                outside = tuple(a for a in self.context.everybody if a not in place.committee)
                if outside:
                    self._out.append(Send(outside, self._sign(message)))
            self.entered = self.view_entered = self.progressed = now
            self._settle(phase, payload, message)
            return True
        return False

    def _jump(self, message: Quorum) -> None:
        """A certificate ends the round for a node that fell behind, whatever phase it is in."""
        try:
            payload = verify_quorum(self.context.place, message)
        except Refused as error:
            self._out.append(Note(f"round {self.context.place.round}: a certificate was refused: {error}"))
            return
        self.ballot.quorums[Phase.CERTIFY] = message
        self._settle(Phase.CERTIFY, payload, message)

    def _settle(self, phase: Phase, payload: object, message: Quorum) -> None:
        """Take over what a quorum has signed."""
        place = self.context.place
        match payload:
            case LockPayload():
                self.lock = payload
                for signed in read_evidence(place.domain, payload.commits, Commit, place):
                    if isinstance(signed.body, Commit):
                        self.locked[signed.body.unit] = signed.body
            case BeaconPayload(links=links):
                self.audit_beacon = combine(place.domain, place.job, place.round, Draw.AUDIT, dict(links))
                done = {unit: self.units[unit].account for unit in self.locked}
                self.audits = draw_audits(self.audit_beacon, done, self.context.rates, list(done.values()))
                self.linked = tuple(account for account, _ in links)
            case AuditPayload():
                for signed in read_evidence(place.domain, payload.commits, AuditCommit, place):
                    if isinstance(signed.body, AuditCommit):
                        self.audited[signed.body.unit] = signed.body
            case OpenPayload():
                self.opened = payload
                for signed in read_evidence(place.domain, payload.reveals, Reveal, place):
                    if isinstance(signed.body, Reveal):
                        self.reveals[signed.body.unit] = signed
                self.audit_reveals = {}
                for signed in read_evidence(place.domain, payload.audit_reveals, AuditReveal, place):
                    if isinstance(signed.body, AuditReveal):
                        self.audit_reveals[signed.body.unit] = signed
            case CertifyPayload():
                self.finished = Finished(place.round, payload, message.payload, message.signatures)
                self._out.append(self.finished)

    def disputes(self) -> dict[bytes, tuple[bytes, ...]]:
        """Disputed units and the replicas drawn for them: live nodes but the worker and its auditor."""
        if self.opened is None:
            return {}
        live = [self.units[unit].account for unit in self.locked]
        drawn = {}
        for unit, finding in self.opened.findings:
            if finding == 255:
                parties = (self.units[unit].account, self.audits.get(unit))
                drawn[unit] = draw_replicas(self.audit_beacon, unit, [a for a in live if a not in parties])
        return drawn

    def expected(self, phase: Phase) -> set[bytes]:
        """Keys of what a phase waits for, as `arrived` names them."""
        match phase:
            case Phase.LOCK:
                return set(self.units)
            case Phase.BEACON:
                return set(self.context.place.committee)
            case Phase.AUDIT:
                return {unit + auditor for unit, auditor in self.audits.items()}
            case Phase.OPEN:
                return set(self.locked) | {unit + self.audits[unit] for unit in self.audited}
            case Phase.CERTIFY:
                return {unit + account for unit, replicas in self.disputes().items() for account in replicas}

    # -- time --------------------------------------------------------------------------------------------------------
    def due(self, phase: Phase) -> float:
        """When a leader should wait no longer: everybody has answered, or two thirds have and the grace is over."""
        timing, expected = self.context.timing, self.expected(phase)
        times = sorted(time for (of, key), time in self.arrived.items() if of is phase and key in expected)
        if len(times) >= len(expected):
            return max([self.entered, *times])
        limit = timing.reveal if phase in (Phase.BEACON, Phase.OPEN) else timing.train
        enough = ceil(2 * len(expected) / 3)
        if len(times) < enough:
            return self.entered + limit
        third = times[enough - 1]
        return min(self.entered + limit, max(third, self.entered) + max(timing.grace, third - self.entered))

    def _watch_leader(self, now: float) -> None:
        """Hand over to the next leader when the present one could have proposed and did not."""
        place, ballot = self.context.place, self.ballot
        if self.member.account not in place.committee:
            return
        patience = self.context.timing.leader * (1 + min(ballot.view, 4))
        view = ballot.joined_view()
        if now >= max(self.due(ballot.phase), self.view_entered) + patience:
            view = max(view, ballot.view + 1)
        if view > ballot.view:
            ballot.enter_view(view)
            self.view_entered = now
            body = Handover(place.job, place.round, view, ballot.phase, ballot.voted)
            key = b"handover" + bytes([ballot.phase]) + view.to_bytes(4, "big")
            self._tell(key, place.committee, body, ballot.phase)
            self._out.append(Note(f"round {place.round}: {ballot.phase.name} goes to leader {ballot.leader.hex()[:8]}"))

    def _nudge(self, now: float) -> None:
        """Messages can be lost: while a phase lasts, say again what belongs to it."""
        if now < self.progressed + self.context.timing.nudge:
            return
        self.progressed = now
        phase = self.ballot.phase
        self._out.extend(send for of, send in self._sent.values() if of is phase and send not in self._out)
