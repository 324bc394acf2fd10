"""One round as one node lives it: events in, effects out. Pure.

`handle(event, now)` folds the event into the state and then asks, in the order of the protocol, what can be done now
that has not been done yet. Nothing is done twice: each duty has a key. A restarted node folds its journal in without
acting (`act=False`) and then calls `resume`. The order of the phases and the reasons for it are in
docs/protocol/round.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from math import ceil
from typing import TypeVar

from atoll.errors import Refused
from atoll.training.audit import draw_audits, draw_replicas
from atoll.training.ballot import Ballot
from atoll.training.beacon import Draw, belongs, combine
from atoll.training.committee import (
    DISPUTED,
    AuditPayload,
    BeaconPayload,
    CertifyPayload,
    LockPayload,
    OpenPayload,
    Payload,
    decode,
    encode,
    read_evidence,
    verify_quorum,
)
from atoll.training.context import Member, RoundContext
from atoll.training.duties import Duties
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
    Send,
    Trained,
)
from atoll.training.inbox import Inbox
from atoll.training.proposals import Proposals
from atoll.training.unit import UnitSpec
from atoll.training.verdict import NOT_OPENED
from atoll.wire.messages import (
    AuditCommit,
    AuditReveal,
    Ballots,
    Body,
    Commit,
    Handover,
    HistoryAsk,
    Phase,
    Preimage,
    Prepare,
    Present,
    Proposal,
    Quorum,
    Replay,
    Reveal,
    Signed,
    Vote,
    Work,
    seal,
    unseal,
)

Value = TypeVar("Value")

KEPT_OPEN = 4096
"""Envelopes whose signature is not checked a second time."""
ASKED = 2
"""Peers that a node which makes no progress asks at a time."""


class Round:
    """The state of one round at one node, which takes part as far as its roles and the roster allow."""

    def __init__(self, context: RoundContext, member: Member, now: float) -> None:
        self.context, self.member = context, member
        self.units: dict[bytes, UnitSpec] = {unit.id: unit for unit in context.units}
        self.mine = next((unit for unit in self.units.values() if unit.account == member.account), None)
        self.ballot = Ballot(context.place, member.account, self.read)
        self.entered = self.view_entered = self.nudged = now
        self.finished: Finished | None = None
        # What arrived
        self.inbox = Inbox(self)
        self.links: dict[bytes, bytes] = {}
        self.next_links: dict[bytes, bytes] = {}
        self.present: dict[bytes, Signed] = {}
        self._opened: dict[bytes, Signed] = {}
        self._early: dict[Phase, Quorum] = {}
        # What this node worked out; `failed` names what could not be had so far
        self.results: dict[bytes, Trained] = {}
        self.reruns: dict[bytes, Replayed] = {}
        self.findings: dict[bytes, int] = {}
        self.judgements: dict[bytes, bool] = {}
        self.models: dict[bytes, bytes] = {}
        self.failed: set[bytes] = set()
        # What quorums have settled
        self.lock: LockPayload | None = None
        self.locked: dict[bytes, Commit] = {}
        self.linked: tuple[bytes, ...] = ()
        self.audit_beacon = b""
        self.audits: dict[bytes, bytes] = {}  # unit -> auditor
        self.audited: dict[bytes, AuditCommit] = {}
        self.opened: OpenPayload | None = None
        self.reveals: dict[bytes, Signed] = {}
        self.disputes: dict[bytes, tuple[bytes, ...]] = {}  # unit -> replicas
        self.audits_opened: dict[bytes, Signed] = {}
        # What this node has asked for and said
        self._done: set[bytes] = set()
        self._sent: dict[bytes, tuple[Phase, Send]] = {}
        self._asks, self._pause = 0, context.timing.nudge
        self._out: list[Effect] = []
        self._duties, self._proposals = Duties(self), Proposals(self)

    # -- the entries -----------------------------------------------------------------------------------------------
    def handle(self, event: Event, now: float, act: bool = True) -> list[Effect]:
        """Fold one event at time `now` (seconds, any monotonic origin) and return what is to be done about it.

        With `act` off (the journal after a restart) only what the event itself brings about is returned.
        """
        self._out = []
        if self.finished is None:
            self._apply(event, now)
            self._proceed(now, act)
        return self._out

    def resume(self, now: float) -> list[Effect]:
        """After a restart: what may not have arrived. The next tick asks for the work that was not finished."""
        self._begin(now)
        return [send for phase, send in self._sent.values() if phase is self.ballot.phase]

    def is_news(self, signed: Signed) -> bool:
        """Whether a message of this round may change anything here."""
        body, account = signed.body, signed.account
        match body:
            case Quorum():
                return body.phase >= self.ballot.phase and body.phase not in self._early
            case Preimage():
                return account in self.context.place.committee and not (
                    account in self.links and account in self.next_links
                )
            case Present():
                return account in self.context.enlisted and account not in (*self.context.roster, *self.present)
            case HistoryAsk():
                return False
        if isinstance(body, Ballots):
            return self.ballot.is_news(signed)
        return self.inbox.wants(signed)

    def quorums_from(self, phase: Phase) -> list[Quorum]:
        """What closed the phases from `phase` on, as far as they are closed."""
        return [known for of, known in sorted(self.ballot.quorums.items()) if of >= phase]

    def read(self, raw: bytes) -> Signed:
        """Open an envelope that is embedded as evidence; raises Refused."""
        known = self._opened.get(raw)
        if known is None:
            known = unseal(self.context.place.domain, raw)
            if len(self._opened) >= KEPT_OPEN:
                self._opened.clear()
            self._opened[raw] = known
        return known

    # -- folding -----------------------------------------------------------------------------------------------------
    def _apply(self, event: Event, now: float) -> None:
        match event:
            case Received(signed):
                self._receive(signed, now)
            case Trained():
                self.results.setdefault(event.unit, event)  # a commit to the first one may be under way
            case Replayed():
                early = now < self.entered + self.context.timing.reveal
                failed = event.segment == NOT_OPENED and early  # its holder may be back in a moment
                self._keep(self.reruns, b"rerun" + event.unit, None if failed else event, event.unit)
            case Examined(key, finding):
                self._keep(self.findings, key, finding)
            case Judged(key, guilty):
                self._keep(self.judgements, key, guilty)
            case Aggregated(key, model):
                self._keep(self.models, key, model)

    def _keep(self, store: dict[bytes, Value], key: bytes, value: Value | None, name: bytes = b"") -> None:
        """Keep a result under its key (or name); what failed (None) is asked for again at the next nudge."""
        if value is not None:
            store.setdefault(name or key, value)
            self.failed.discard(key)
        else:
            self.failed.add(key)

    def _receive(self, signed: Signed, now: float) -> None:
        if not self.is_news(signed):
            return
        body, account = signed.body, signed.account
        match body:
            case Proposal() | Prepare() | Vote() | Handover():
                self.ballot.receive(signed)
                if account == self.member.account:
                    self._register(signed)
            case Quorum():
                self._receive_quorum(body)
            case Preimage(value=value):
                if account not in self.links and self.is_link(account, value, Draw.AUDIT):
                    self.links[account] = value
                    self.inbox.arrived[Phase.BEACON, account] = now
                elif account not in self.next_links and self.is_link(account, value, Draw.ASSIGN):
                    self.next_links[account] = value
            case Present():
                self.present[account] = signed
            case _:
                self.inbox.take(signed, now)

    def _receive_quorum(self, message: Quorum) -> None:
        if len(message.signatures) <= len(self.context.place.committee):
            with suppress(Refused):
                verify_quorum(self.context.place, message)
                self._early[message.phase] = message

    def is_link(self, account: bytes, value: bytes, draw: Draw) -> bool:
        """Whether `value` is the link of a member for this round."""
        return belongs(value, self.context.enlisted[account].tip, self.context.place.round, draw)

    def links_of(self, draw: Draw) -> dict[bytes, bytes]:
        """The links that members have revealed so far."""
        return self.links if draw is Draw.AUDIT else self.next_links

    # -- acting ------------------------------------------------------------------------------------------------------
    def _proceed(self, now: float, act: bool) -> None:
        while self.finished is None:
            if act:
                self._duties.do(now)
                if self.member.account in self.context.place.committee:
                    self._agree(now)
            if not self._advance(now):
                break
        if self.finished is not None:  # what was to be done for this round need not be done any more
            self._out = [effect for effect in self._out if isinstance(effect, Send | Note | Finished)]
        elif act:
            self._watch_leader(now)
            self._nudge(now)

    def once(self, key: bytes, effect: Effect) -> None:
        """Ask for something under a key, unless it has been asked for."""
        if key not in self._done:
            self._done.add(key)
            self._out.append(effect)

    def _sign(self, body: Body) -> Signed:
        return seal(self.context.place.domain, body, self.member.account, self.member.sign)

    def tell(self, body: Body, now: float) -> None:
        """Say something to the committee, unless it was said: now, and again at every nudge while its phase lasts."""
        if _key(body) in self._done:
            return
        signed = self._sign(body)
        self._out.append(self._register(signed))
        if self.member.account in self.context.place.committee:
            self._receive(signed, now)

    def _register(self, signed: Signed) -> Send:
        """Note that this node has said something."""
        body = signed.body
        others = tuple(account for account in self.context.place.committee if account != self.member.account)
        key = _key(body)
        self._done.add(key)
        self._sent[key] = (_phase_of(body, self.ballot.phase), Send(others, signed))
        return Send(others, signed, promise=isinstance(body, Ballots))

    # -- the committee's duties ----------------------------------------------------------------------------------------
    def _agree(self, now: float) -> None:
        place, ballot = self.context.place, self.ballot
        if ballot.phase is Phase.BEACON:
            self._reveal_link(Draw.AUDIT, now)
        elif ballot.phase is Phase.CERTIFY:
            self._reveal_link(Draw.ASSIGN, now)
        if ballot.may_propose():
            self._propose(now)
        self._prepare(now)
        agreed = ballot.to_vote()
        if agreed is not None:
            signature = self.member.sign(agreed.digest)
            self.tell(Vote(place.job, place.round, ballot.view, ballot.phase, agreed.digest, signature), now)

    def _reveal_link(self, draw: Draw, now: float) -> None:
        place, key = self.context.place, b"link" + bytes([draw])
        if key not in self._done:
            self._done.add(key)
            self.tell(Preimage(place.job, place.round, self.member.link(place.round, draw)), now)

    def _propose(self, now: float) -> None:
        place, ballot = self.context.place, self.ballot
        carry = ballot.to_carry()
        if carry is None:
            return
        handovers, payload = carry
        if not payload:
            drafted = self._proposals.draft(ballot.phase, now)
            if drafted is None:
                return
            payload = encode(drafted)
        self.tell(Proposal(place.job, place.round, ballot.view, ballot.phase, payload, handovers), now)

    def _prepare(self, now: float) -> None:
        place, ballot = self.context.place, self.ballot
        pending = ballot.pending()
        if pending is None:
            return
        proposal, digest, obliged = pending
        try:
            if not self._proposals.accepts(decode(ballot.phase, proposal.payload), obliged, now):
                return
        except Refused as error:
            ballot.refuse(digest)
            self._out.append(Note(f"round {place.round}: a proposal for {ballot.phase.name} was refused: {error}"))
            return
        if proposal.view > ballot.view:
            self.view_entered = now
        self.tell(Prepare(place.job, place.round, proposal.view, ballot.phase, digest), now)

    # -- closing phases --------------------------------------------------------------------------------------------
    def _advance(self, now: float) -> bool:
        """Close the phase, or the whole round, if a quorum for it is there."""
        early = (self._early.get(phase) for phase in (Phase.CERTIFY, self.ballot.phase))
        return any(message is not None and self._close(message, now) for message in (*early, self.ballot.tally()))

    def _close(self, message: Quorum, now: float) -> bool:
        place = self.context.place
        try:
            payload = decode(message.phase, message.payload)
            if isinstance(payload, CertifyPayload) and not set(payload.roster) <= self.context.enlisted.keys():
                return False  # this node's view of the chain lags behind
            self._proposals.check(payload)
            self.ballot.accept(message)
        except Refused as error:
            self._early.pop(message.phase, None)
            key = b"refused" + bytes([message.phase]) + message.view.to_bytes(4, "big")
            self.once(key, Note(f"round {place.round}: a quorum for {message.phase.name} was refused: {error}"))
            return False
        leading = self.ballot.leader == self.member.account
        self._begin(now)
        self.failed.clear()
        self._settle(payload, message)
        if leading:
            newcomers = payload.roster if isinstance(payload, CertifyPayload) else ()
            named = dict.fromkeys((*self.context.everybody, *newcomers))
            outside = tuple(account for account in named if account not in place.committee)
            if outside:
                self._out.append(Send(outside, self._sign(message)))
        return True

    def _begin(self, now: float) -> None:
        """All limits count from here."""
        self.entered = self.view_entered = self.nudged = now
        self._pause = self.context.timing.nudge

    def _settle(self, payload: Payload, message: Quorum) -> None:
        """Take over what a quorum has signed."""
        place = self.context.place
        match payload:
            case LockPayload():
                self.lock = payload
                self.locked = {body.unit: body for body in self._bodies(payload.commits, Commit)}
            case BeaconPayload(links=links):
                self.audit_beacon = combine(place.domain, place.job, place.round, Draw.AUDIT, dict(links))
                done = {unit: self.units[unit].account for unit in self.locked}
                self.audits = draw_audits(self.audit_beacon, done, self.context.rates, list(done.values()))
                self.linked = tuple(account for account, _ in links)
            case AuditPayload():
                self.audited = {body.unit: body for body in self._bodies(payload.commits, AuditCommit)}
            case OpenPayload():
                self.opened, self.disputes = payload, self._draw_replicas(payload.findings)
                shown = [self.read(raw) for raw in (*payload.reveals, *payload.audit_reveals)]
                self.reveals = {s.body.unit: s for s in shown if isinstance(s.body, Reveal)}
                self.audits_opened = {s.body.unit: s for s in shown if isinstance(s.body, AuditReveal)}
            case CertifyPayload():
                self.finished = Finished(place.round, payload, message.payload, message.signatures)
                self._out.append(self.finished)

    def _bodies(self, raws: Sequence[bytes], kind: type[Value]) -> list[Value]:
        return [s.body for s in read_evidence(self.read, raws, kind, self.context.place) if isinstance(s.body, kind)]

    def _draw_replicas(self, findings: Sequence[tuple[bytes, int]]) -> dict[bytes, tuple[bytes, ...]]:
        """Live nodes for each disputed unit, but not the worker and its auditor."""
        live = [self.units[unit].account for unit in self.locked]
        drawn = {}
        for unit, finding in findings:
            if finding == DISPUTED:
                parties = (self.units[unit].account, self.audits.get(unit))
                drawn[unit] = draw_replicas(self.audit_beacon, unit, [a for a in live if a not in parties])
        return drawn

    # -- time --------------------------------------------------------------------------------------------------------
    def groups(self, phase: Phase) -> list[set[bytes]]:
        """What a phase waits for, as keys of `inbox.arrived`: one group, but one for each dispute in CERTIFY."""
        match phase:
            case Phase.LOCK:
                return [set(self.units)]
            case Phase.BEACON:
                return [set(self.context.place.committee)]
            case Phase.AUDIT:
                return [{unit + auditor for unit, auditor in self.audits.items()}]
            case Phase.OPEN:
                return [set(self.locked) | {unit + self.audits[unit] for unit in self.audited}]
            case Phase.CERTIFY:
                return [{unit + account for account in replicas} for unit, replicas in self.disputes.items()]

    def expected(self, phase: Phase) -> set[bytes]:
        """All keys that a phase waits for."""
        return set().union(*self.groups(phase))

    def due(self, phase: Phase, among: Collection[bytes] | None = None) -> float:
        """When a leader should wait no longer: everybody has answered, or two thirds have and the grace is over.

        For reveals there is no such haste: who committed and is not heard in time has worked for nothing. `among`: as
        if nothing but these keys had arrived.
        """
        return max([self.entered, *(self._due_of(phase, group, among) for group in self.groups(phase))])

    def _due_of(self, phase: Phase, expected: set[bytes], among: Collection[bytes] | None) -> float:
        timing = self.context.timing
        arrived = (self.inbox.arrived.get((phase, key)) for key in expected if among is None or key in among)
        times = sorted(time for time in arrived if time is not None)
        if len(times) >= len(expected):
            return max([self.entered, *times])
        limit = timing.reveal if phase in (Phase.BEACON, Phase.OPEN) else timing.train
        enough = ceil(2 * len(expected) / 3)
        if len(times) < enough or phase is Phase.OPEN:
            return self.entered + limit
        third = max(times[enough - 1], self.entered)
        return min(self.entered + limit, third + max(timing.grace, third - self.entered))

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
            known = ballot.prepared
            shown = (known.payload, known.prepares) if known else (b"", ())
            self.tell(Handover(place.job, place.round, view, ballot.phase, *shown), now)
            self._out.append(Note(f"round {place.round}: {ballot.phase.name} goes to leader {ballot.leader.hex()[:8]}"))

    def _nudge(self, now: float) -> None:
        """No progress: say again what belongs to this phase, try again what failed, and ask what was missed."""
        if now < self.nudged + self._pause:
            return
        self.nudged, phase = now, self.ballot.phase
        self._pause = min(1.25 * self._pause, 4 * self.context.timing.nudge)
        self._done -= self.failed
        for of, send in self._sent.values():
            if of is phase or isinstance(send.message.body, Present):
                self._out.append(send)
        others = [account for account in self.context.everybody if account != self.member.account]
        if others:
            asked = tuple(others[(self._asks + i) % len(others)] for i in range(min(ASKED, len(others))))
            self._asks += len(asked)
            ask = HistoryAsk(self.context.place.job, self.context.place.round, phase)
            self._out.append(Send(asked, self._sign(ask)))


def _key(body: Body) -> bytes:
    """One name for each thing that a node says once in a round."""
    if isinstance(body, Ballots):
        return type(body).__name__.encode() + bytes([body.phase]) + body.view.to_bytes(4, "big")
    own = body.unit if isinstance(body, Work) else body.value if isinstance(body, Preimage) else b""
    return type(body).__name__.encode() + own


_PHASES: dict[type, Phase] = {
    Commit: Phase.LOCK,
    AuditCommit: Phase.AUDIT,
    Reveal: Phase.OPEN,
    AuditReveal: Phase.OPEN,
    Replay: Phase.CERTIFY,
}


def _phase_of(body: Body, present: Phase) -> Phase:
    """The phase in which a message is said again."""
    return body.phase if isinstance(body, Ballots) else _PHASES.get(type(body), present)
