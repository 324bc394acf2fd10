"""One job as one node lives it: round after round, with the record of every worker. Pure.

Certificates are the only thing that moves a job forward; the state is a fold over them. Messages of rounds to come are
kept (a few), messages of past rounds are answered with the certificate that ended them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from atoll.errors import Refused
from atoll.training.beacon import first_beacon
from atoll.training.committee import UNIT, CertifyPayload, Place, next_beacon
from atoll.training.context import MAX_ROSTER, Enlistment, Member, RoundContext, Timing
from atoll.training.deterrence import audit_rate
from atoll.training.events import Effect, Event, Finished, Received, Send, Tick
from atoll.training.round import Round
from atoll.training.verdict import GUILTY
from atoll.wire.hashing import Domain
from atoll.wire.messages import HistoryAsk, Phase, Quorum, Signed, seal
from atoll.wire.reasons import Reason

AHEAD = 2
"""Messages of so many rounds ahead are kept until this node gets there."""
KEPT_MESSAGES = 64
KEPT_BYTES = 1 << 20
"""What is kept of one account that is ahead: its work and votes; a certificate counts apart."""
CANDIDATES = 3
"""Certificates that are kept of one later round, from different senders: their committee is not yet known."""
HISTORY_BATCH = 16
"""Certificates sent in answer to one question."""


@dataclass(frozen=True)
class Terms:
    """What does not change during a job: names, first committee, and what the manifest says about rounds and audits.

    `room` is the largest roster that the budget can pay.
    """

    domain: Domain
    jobs_contract: bytes
    job: bytes
    committee: tuple[bytes, ...]
    roster: tuple[bytes, ...]
    model: bytes
    rounds: int
    segments: int
    unit_price: int
    audit_floor: int
    detection: int = 9_500
    committee_size: int = 7
    room: int = MAX_ROSTER
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True)
class Standing:
    """Where a job stands after its certificates so far: a pure fold."""

    round: int
    model: bytes
    beacon: bytes
    roster: tuple[bytes, ...]
    committee: tuple[bytes, ...]
    records: Mapping[bytes, int]  # account -> consecutive valid units
    done: bool = False


def begin(terms: Terms, enlisted: Mapping[bytes, Enlistment]) -> Standing:
    """A job before its first round. When there is no room for all that enlisted, the committee goes first."""
    room = min(terms.room, MAX_ROSTER)
    first = sorted(set(terms.roster), key=lambda account: (account not in terms.committee, account))
    roster = tuple(sorted(first[:room]))
    tips = {account: enlisted[account].tip for account in roster}
    beacon = first_beacon(terms.domain, terms.job, tips)
    return Standing(0, terms.model, beacon, roster, terms.committee, {})


def context_of(
    terms: Terms, standing: Standing, enlisted: Mapping[bytes, Enlistment], rates: Mapping[bytes, int]
) -> RoundContext:
    """The public start of the round at which a job stands; `rates` as in RoundContext."""
    return RoundContext(
        place=Place(terms.domain, terms.jobs_contract, terms.job, standing.round, standing.committee),
        model=standing.model,
        beacon=standing.beacon,
        roster=standing.roster,
        enlisted=enlisted,
        rates=rates,
        shards=max(1, len(terms.roster)),
        segments=terms.segments,
        committee_size=terms.committee_size,
        last=standing.round + 1 == terms.rounds,
        room=min(terms.room, MAX_ROSTER),
        timing=terms.timing,
    )


def advance(terms: Terms, standing: Standing, certificate: CertifyPayload) -> Standing:
    """The job after one more certificate (already checked)."""
    place = Place(terms.domain, terms.jobs_contract, terms.job, standing.round, standing.committee)
    records = dict(standing.records)
    for row in certificate.verdicts:
        if row.kind == UNIT and row.reason == 0:
            records[row.account] = records.get(row.account, 0) + 1
        elif row.reason in GUILTY or row.reason == Reason.AUDIT_MISMATCH:  # whoever audits falsely is audited again
            records[row.account] = 0
    return replace(
        standing,
        round=standing.round + 1,
        model=certificate.model,
        beacon=next_beacon(place, certificate),
        roster=certificate.roster,
        committee=certificate.committee,
        records=records,
        done=certificate.last,
    )


class Job:
    """The rounds of one job at one node. `enlisted` grows as the chain reports newcomers."""

    def __init__(self, terms: Terms, enlisted: dict[bytes, Enlistment], member: Member, now: float) -> None:
        self.terms, self.member = terms, member
        self.enlisted = enlisted
        self.standing = begin(terms, enlisted)
        self.certificates: list[Quorum] = []
        self.committees: list[tuple[bytes, ...]] = [self.standing.committee]
        self._later: dict[int, dict[bytes, list[Signed]]] = {}  # round -> sender -> messages
        self._history: dict[int, list[Signed]] = {}  # certificates of later rounds
        self._models: list[bytes] = []  # certified ones, by round
        self.end = terms.rounds
        self._asked = now
        self._answered: dict[bytes, float] = {}
        self.round: Round | None = self._open_round(now)

    def admit(self, signed: Signed) -> None:
        """Refuse a message that this job has no use for, whatever it says."""
        if signed.body.job != self.terms.job:
            raise Refused(Reason.NOT_FOUND, "this node takes no part in that job")
        if signed.account not in self.enlisted and not isinstance(signed.body, HistoryAsk):
            raise Refused(Reason.UNKNOWN_ACCOUNT, "the sender is not enlisted in this job")

    def is_news(self, event: Event) -> bool:
        """Whether an event may change this job's state, so that it has to be written down."""
        if not isinstance(event, Received):
            return not isinstance(event, Tick)
        number = event.signed.body.round
        if number > self.standing.round:
            return self._shelf(event.signed) is not None
        return self.round is not None and number == self.standing.round and self.round.is_news(event.signed)

    def handle(self, event: Event, now: float, act: bool = True) -> list[Effect]:
        """Fold an event and return what is to be done; also takes messages of other rounds.

        With `act` off (the journal after a restart) nothing is begun; call `resume` afterwards.
        """
        if isinstance(event, Received):
            body = event.signed.body
            if isinstance(body, HistoryAsk):
                return self._answer(event.signed.account, body, now)
            if body.round > self.standing.round:
                return self._keep(event.signed, now)
            if body.round < self.standing.round:
                return []
        out: list[Effect] = []
        waiting: list[Event] = [event]
        while waiting and self.round is not None:
            effects = self.round.handle(waiting.pop(0), now, act and not waiting)
            out += effects
            finished = next((effect for effect in effects if isinstance(effect, Finished)), None)
            if finished is not None:
                waiting = self._next_round(finished, now)
        return out

    def shorten(self, rounds: int) -> bool:
        """The job ends after `rounds` rounds: what this node knows of later ones does not count. Whether it is over."""
        self.end = min(self.end, rounds)
        if self.standing.round < self.end:
            return False
        self.round = None
        del self.certificates[self.end :], self.committees[self.end + 1 :], self._models[self.end :]
        self.standing = replace(self.standing, round=self.end, model=self._models[-1], done=True)
        return True

    def resume(self, now: float) -> list[Effect]:
        """After a restart, once the journal has been folded in."""
        return self.round.resume(now) + self.handle(Tick(), now) if self.round else []

    def _next_round(self, finished: Finished, now: float) -> list[Event]:
        """Open the next round; returns what was kept for it, and a tick to begin with."""
        if self.round is not None:
            self.certificates.append(self.round.ballot.quorums[Phase.CERTIFY])
        self.standing = advance(self.terms, self.standing, finished.certificate)
        self.committees.append(self.standing.committee)
        self._models.append(self.standing.model)
        if self.standing.round >= self.end:
            self.standing = replace(self.standing, done=True)
        self.round = None if self.standing.done else self._open_round(now)
        kept = self._history.pop(self.standing.round, [])  # a certificate first: no work for the past
        for signeds in self._later.pop(self.standing.round, {}).values():
            kept = kept + signeds
        return [*(Received(signed) for signed in kept), Tick()]

    def _open_round(self, now: float) -> Round:
        rates = {account: self._rate(account) for account in self.standing.roster}
        return Round(context_of(self.terms, self.standing, self.enlisted, rates), self.member, now)

    def _rate(self, account: bytes) -> int:
        return audit_rate(
            consecutive_valid=self.standing.records.get(account, 0),
            stake=self.enlisted[account].stake,
            held_back=0,
            unit_price=self.terms.unit_price,
            floor_per_10k=self.terms.audit_floor,
            detection_per_10k=self.terms.detection,
        )

    def _answer(self, account: bytes, ask: HistoryAsk, now: float) -> list[Effect]:
        """What somebody who is behind has missed: certificates, then the closed phases of the present round."""
        pause = self.terms.timing.nudge / 2  # answers are large and questions are small
        if account == self.member.account or now < self._answered.get(account, -pause) + pause:
            return []
        found = self.certificates[ask.round : ask.round + HISTORY_BATCH]
        if self.round is not None and ask.round + len(found) == self.standing.round:
            found = found + self.round.quorums_from(ask.phase if not found else Phase.LOCK)
        if found:
            self._answered[account] = now
        return [Send((account,), self.sign(known)) for known in found]

    def _shelf(self, signed: Signed) -> list[Signed] | None:
        """Where to keep a message of a later round; None when it is not to be kept."""
        body, ahead = signed.body, signed.body.round - self.standing.round
        if signed.account not in self.enlisted or isinstance(body, HistoryAsk):
            return None
        if isinstance(body, Quorum) and body.phase is Phase.CERTIFY:
            shelf = self._history.setdefault(body.round, [])
            free = ahead <= HISTORY_BATCH and len(shelf) < CANDIDATES
            return shelf if free and all(known.account != signed.account for known in shelf) else None
        if ahead > AHEAD:
            return None
        shelf = self._later.setdefault(body.round, {}).setdefault(signed.account, [])
        full = len(shelf) >= KEPT_MESSAGES or sum(len(known.raw) for known in shelf) + len(signed.raw) > KEPT_BYTES
        return None if full or any(known.raw == signed.raw for known in shelf) else shelf

    def _keep(self, signed: Signed, now: float) -> list[Effect]:
        """Keep a message of a later round; if this node has been behind for a while, ask for what it missed."""
        shelf = self._shelf(signed)
        if shelf is not None:
            shelf.append(signed)
        if now < self._asked + self.terms.timing.nudge or self.round is None or signed.account not in self.enlisted:
            return []
        self._asked = now
        ask = HistoryAsk(self.terms.job, self.standing.round, self.round.ballot.phase)
        return [Send((signed.account,), self.sign(ask))]

    def sign(self, body: Quorum | HistoryAsk) -> Signed:
        """An envelope of this node."""
        return seal(self.terms.domain, body, self.member.account, self.member.sign)
