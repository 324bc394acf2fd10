"""One job as one node lives it: round after round, with the record of every worker. Pure.

Certificates are the only thing that moves a job forward; the state is a fold over them. Messages of rounds to come are
kept (a few), messages of past rounds are answered with the certificate that ended them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from atoll.training.beacon import first_beacon
from atoll.training.committee import UNIT, CertifyPayload, Place, next_beacon
from atoll.training.context import Enlistment, Member, RoundContext, Timing
from atoll.training.deterrence import audit_rate
from atoll.training.events import Effect, Event, Finished, Received, Send, Tick
from atoll.training.round import Round
from atoll.training.verdict import GUILTY
from atoll.wire.hashing import Domain
from atoll.wire.messages import HistoryAsk, Phase, Quorum, Signed, seal

KEPT_MESSAGES = 1024
"""Messages of later rounds that a node keeps until it gets there."""
HISTORY_BATCH = 16
"""Certificates sent in answer to one question."""


@dataclass(frozen=True)
class Terms:
    """What does not change during a job: names, first committee, and what the manifest says about rounds and audits."""

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
    """A job before its first round."""
    tips = {account: enlisted[account].tip for account in terms.roster}
    beacon = first_beacon(terms.domain, terms.job, tips)
    return Standing(0, terms.model, beacon, terms.roster, terms.committee, {})


def advance(terms: Terms, standing: Standing, certificate: CertifyPayload) -> Standing:
    """The job after one more certificate (already checked)."""
    place = Place(terms.domain, terms.jobs_contract, terms.job, standing.round, standing.committee)
    records = dict(standing.records)
    for row in certificate.verdicts:
        if row.kind == UNIT and row.reason == 0:
            records[row.account] = records.get(row.account, 0) + 1
        elif row.kind == UNIT and row.reason in GUILTY:
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
        self._later: dict[int, list[Signed]] = {}
        self._asked = now
        self.round: Round | None = self._open_round(now)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Fold an event and return what is to be done; also takes messages of other rounds."""
        if isinstance(event, Received):
            body = event.signed.body
            if isinstance(body, HistoryAsk) or body.round < self.standing.round:
                return self._answer(event.signed)
            if body.round > self.standing.round:
                return self._keep(event.signed, now)
        if self.round is None:
            return []
        effects = self.round.handle(event, now)
        return effects + self._follow(effects, now)

    def resume(self, now: float) -> list[Effect]:
        """After a restart, once the journal has been replayed."""
        return self.round.resume(now) if self.round else []

    def _follow(self, effects: list[Effect], now: float) -> list[Effect]:
        """Open the next round when this one is certified, and feed it what was kept for it."""
        finished = next((effect for effect in effects if isinstance(effect, Finished)), None)
        if finished is None or self.round is None:
            return []
        self.certificates.append(self.round.ballot.quorums[Phase.CERTIFY])
        self.standing = advance(self.terms, self.standing, finished.certificate)
        self.committees.append(self.standing.committee)
        self.round = None if self.standing.done else self._open_round(now)
        kept = self._later.pop(self.standing.round, [])
        kept.sort(key=lambda signed: not isinstance(signed.body, Quorum))  # a certificate first: no work for the past
        out: list[Effect] = []
        if self.round is not None and not kept:
            out += self.handle(Tick(), now)
        for signed in kept:
            out += self.handle(Received(signed), now)
        return out

    def _open_round(self, now: float) -> Round:
        terms, standing = self.terms, self.standing
        context = RoundContext(
            place=Place(terms.domain, terms.jobs_contract, terms.job, standing.round, standing.committee),
            model=standing.model,
            beacon=standing.beacon,
            roster=standing.roster,
            enlisted=self.enlisted,
            rates={account: self._rate(account) for account in standing.roster},
            shards=max(1, len(terms.roster)),
            segments=terms.segments,
            committee_size=terms.committee_size,
            last=standing.round + 1 == terms.rounds,
            timing=terms.timing,
        )
        return Round(context, self.member, now)

    def _rate(self, account: bytes) -> int:
        return audit_rate(
            consecutive_valid=self.standing.records.get(account, 0),
            stake=self.enlisted[account].stake,
            held_back=0,
            unit_price=self.terms.unit_price,
            floor_per_10k=self.terms.audit_floor,
            detection_per_10k=self.terms.detection,
        )

    def _answer(self, signed: Signed) -> list[Effect]:
        first = signed.body.round
        last = first + HISTORY_BATCH if isinstance(signed.body, HistoryAsk) else first + 1
        if signed.account == self.member.account or isinstance(signed.body, Quorum):
            return []
        return [Send((signed.account,), self.sign(known)) for known in self.certificates[first:last]]

    def _keep(self, signed: Signed, now: float) -> list[Effect]:
        """Keep a message of a later round; if this node has been behind for a while, ask for what it missed."""
        if signed.account not in self.enlisted:
            return []
        if sum(len(kept) for kept in self._later.values()) < KEPT_MESSAGES:
            self._later.setdefault(signed.body.round, []).append(signed)
        if now < self._asked + self.terms.timing.nudge or self.round is None:
            return []
        self._asked = now
        ask = HistoryAsk(self.terms.job, self.standing.round)
        return [Send((signed.account,), self.sign(ask))]

    def sign(self, body: Quorum | HistoryAsk) -> Signed:
        """An envelope of this node."""
        return seal(self.terms.domain, body, self.member.account, self.member.sign)
