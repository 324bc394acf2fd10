"""How a committee agrees on one payload a phase, in two steps (https://pmg.csail.mit.edu/papers/osdi99.pdf). Pure.

`view` numbers the leaders: the leader of view v is member v mod m of the committee's order. Its proposal is *prepared*
when a quorum says so; only then do members *vote*, and a quorum of votes of one view closes the phase. When a leader
stays silent, members hand over to the next view and show what they know to be prepared; a quorum of handovers tells the
new leader which payload it must carry on. A phase begins in the view in which the last one was closed.

Fewer than a third of the members lying, whatever they do, never get two payloads of a phase past a quorum: two quorums
share an honest member, which prepares one payload a view, and which knows a payload as prepared before it votes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from atoll.errors import Refused
from atoll.training.committee import (
    Open,
    Place,
    carried_payload,
    prepared_view,
    quorum,
    statement_digest,
    verify_quorum,
)
from atoll.wire.identity import recover
from atoll.wire.messages import Ballots, Handover, Phase, Prepare, Proposal, Quorum, Signed, Vote

FUTURE_VIEWS = 4096
"""Messages of views further ahead than this are ignored: a day of silent leaders, and nothing that fills a disk."""


@dataclass(frozen=True)
class Prepared:
    """A payload that a quorum prepared in a view, with the envelopes that show it. `digest` is its statement."""

    view: int
    payload: bytes
    digest: bytes
    prepares: tuple[bytes, ...]


@dataclass(frozen=True)
class _Heard:
    """A proposal with the digest of its statement; `carried` when its handovers name its payload."""

    proposal: Proposal
    digest: bytes
    carried: bool


class Ballot:
    """The agreement of one round's committee, phase after phase; `phase` is the one being decided.

    Of each member only the message of the highest view counts, for each kind and phase; so memory is bounded. Messages
    of this node itself (`account`) bind it: after a restart they are folded in again from the journal.
    """

    def __init__(self, place: Place, account: bytes, open_: Open) -> None:
        self.place, self._account, self._open = place, account, open_
        self.phase = Phase.LOCK
        self.view = 0
        self.moved_in: Phase | None = None  # the phase in which the present view began by handovers, if any
        self.prepared: Prepared | None = None
        self.quorums: dict[Phase, Quorum] = {}
        self._said: dict[tuple[type, Phase, bytes], Signed] = {}
        self._heard: dict[tuple[Phase, bytes], _Heard] = {}
        self._refused: set[bytes] = set()

    @property
    def leader(self) -> bytes:
        """Account of the present leader."""
        return self._leader_of(self.view)

    def _leader_of(self, view: int) -> bytes:
        return self.place.committee[view % len(self.place.committee)]

    @property
    def needed(self) -> int:
        """Members that make a quorum."""
        return quorum(len(self.place.committee))

    # -- folding ---------------------------------------------------------------------------------------------------
    def is_news(self, signed: Signed) -> bool:
        """Whether a message from a member may change anything here."""
        body = signed.body
        if not isinstance(body, Ballots) or signed.account not in self.place.committee:
            return False
        if body.phase < self.phase or body.view >= self.view + FUTURE_VIEWS:
            return False
        known = self._said.get((type(body), body.phase, signed.account))
        return known is None or _view(known) < body.view

    def receive(self, signed: Signed) -> None:
        """Take in a proposal, prepare, vote or handover of a member; what is not sound is ignored."""
        body = signed.body
        if not isinstance(body, Ballots) or not self.is_news(signed):
            return
        try:
            if not self._is_sound(signed.account, body):
                return
        except Refused:
            return
        self._said[type(body), body.phase, signed.account] = signed
        if body.phase is self.phase:
            if signed.account == self._account and body.view > self.view:
                self.enter_view(body.view)
            self._look_for_prepared()

    def _is_sound(self, account: bytes, body: Ballots) -> bool:
        match body:
            case Prepare():
                return True
            case Vote():
                return recover(body.digest, body.signature) == account
            case Handover():
                return prepared_view(self.place, body, self._open) < body.view
            case Proposal():
                return self._hear(account, body)

    def _hear(self, account: bytes, proposal: Proposal) -> bool:
        """Whether a proposal comes from the leader of its view and carries on what its handovers say."""
        if account != self._leader_of(proposal.view):
            return False
        carried = b""
        if proposal.handovers:
            carried = carried_payload(self.place, proposal.phase, proposal.view, proposal.handovers, self._open)
            if carried and carried != proposal.payload:
                return False
        elif proposal.view >= self.view + len(self.place.committee):
            return False
        digest = statement_digest(self.place, proposal.phase, proposal.view, proposal.payload)
        self._heard[proposal.phase, account] = _Heard(proposal, digest, bool(carried))
        return True

    def _latest(self, kind: type) -> Iterator[tuple[bytes, Signed]]:
        """The members' messages of one kind in the present phase, in the committee's order."""
        for account in self.place.committee:
            signed = self._said.get((kind, self.phase, account))
            if signed is not None:
                yield account, signed

    def _payload_of(self, digest: bytes) -> bytes | None:
        for (phase, _), heard in self._heard.items():
            if phase is self.phase and heard.digest == digest:
                return heard.proposal.payload
        return None

    def _look_for_prepared(self) -> None:
        said: dict[tuple[int, bytes], list[bytes]] = {}
        for _, signed in self._latest(Prepare):
            if isinstance(signed.body, Prepare):
                said.setdefault((signed.body.view, signed.body.digest), []).append(signed.raw)
        for (view, digest), raws in said.items():
            newer = self.prepared is None or view > self.prepared.view
            payload = self._payload_of(digest) if newer and len(raws) >= self.needed else None
            if payload is not None:
                self.prepared = Prepared(view, payload, digest, tuple(raws))

    # -- what this member may say ------------------------------------------------------------------------------------
    def _mine(self, kind: type) -> int:
        """The view of this member's last message of a kind in this phase, -1 if there is none."""
        signed = self._said.get((kind, self.phase, self._account))
        return -1 if signed is None else _view(signed)

    def pending(self) -> tuple[Proposal, bytes, bool] | None:
        """A proposal that this member may prepare now: (proposal, its digest, whether it must be carried on)."""
        heard = [found for (phase, _), found in self._heard.items() if phase is self.phase]
        for found in sorted(heard, key=lambda one: -one.proposal.view):
            view, payload = found.proposal.view, found.proposal.payload
            if found.digest in self._refused or view < self.view or view <= self._mine(Prepare):
                continue
            bound = self.prepared is not None and self.prepared.payload == payload
            if found.proposal.handovers or (view == self.view and (self.prepared is None or bound)):
                return found.proposal, found.digest, found.carried or bound
        return None

    def refuse(self, digest: bytes) -> None:
        """Never prepare this statement: it is wrong."""
        self._refused.add(digest)

    def to_vote(self) -> Prepared | None:
        """What this member may vote for now: prepared in the present view, also by itself."""
        found = self.prepared
        if found is None or found.view != self.view or self._mine(Vote) >= self.view:
            return None
        own = self._said.get((Prepare, self.phase, self._account))
        agreed = own is not None and isinstance(own.body, Prepare) and own.body.digest == found.digest
        return found if agreed else None

    def may_propose(self) -> bool:
        """Whether this member leads the present view and has not proposed in it."""
        return self.leader == self._account and self._mine(Proposal) < self.view

    def to_carry(self) -> tuple[tuple[bytes, ...], bytes] | None:
        """What a leader must put on the table: (handovers, payload or b""), None until a quorum handed over to it."""
        if self.moved_in is not self.phase:
            return (), self.prepared.payload if self.prepared else b""
        found = []
        for _, signed in self._latest(Handover):
            if isinstance(signed.body, Handover) and signed.body.view == self.view:
                found.append((-prepared_view(self.place, signed.body, self._open), signed.raw))
        if len(found) < self.needed:
            return None
        handovers = tuple(raw for _, raw in sorted(found)[: self.needed])
        return handovers, carried_payload(self.place, self.phase, self.view, handovers, self._open)

    # -- views and phases ----------------------------------------------------------------------------------------------
    def enter_view(self, view: int) -> None:
        """Follow the leader of another view from here on."""
        self.view, self.moved_in = view, self.phase

    def joined_view(self) -> int:
        """The highest view that more than a third of the members (so one honest one) reached in this phase."""
        reached: dict[bytes, int] = {}
        for kind in (Prepare, Vote, Handover):
            for account, signed in self._latest(kind):
                reached[account] = max(reached.get(account, 0), _view(signed))
        views = sorted(reached.values(), reverse=True)
        enough = len(self.place.committee) - self.needed + 1
        return max(self.view, views[enough - 1]) if len(views) >= enough else self.view

    def tally(self) -> Quorum | None:
        """The quorum of the present phase, once enough members signed a payload that is known here."""
        said: dict[tuple[int, bytes], list[bytes]] = {}
        for _, signed in self._latest(Vote):
            if isinstance(signed.body, Vote):
                said.setdefault((signed.body.view, signed.body.digest), []).append(signed.body.signature)
        for (view, digest), signatures in said.items():
            payload = self._payload_of(digest) if len(signatures) >= self.needed else None
            if payload is not None:
                return Quorum(self.place.job, self.place.round, view, self.phase, payload, tuple(signatures))
        return None

    def accept(self, message: Quorum) -> None:
        """Close the present phase with a quorum from outside or from `tally`; raises Refused if it is none."""
        verify_quorum(self.place, message)
        self.quorums[message.phase] = message
        self.phase = Phase(min(message.phase + 1, Phase.CERTIFY))
        self.view = max(self.view, message.view)
        self.prepared = None
        self._look_for_prepared()


def _view(signed: Signed) -> int:
    return signed.body.view if isinstance(signed.body, Ballots) else -1
