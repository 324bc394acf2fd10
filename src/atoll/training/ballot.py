"""How a committee agrees on one payload a phase: proposals, votes, handovers to the next leader. Pure.

`view` numbers the leaders: the leader of view v is member v mod m of the committee's order. A member signs one payload
a phase. When a leader stays silent, members hand over to the next view and say what they signed; a quorum of handovers
tells the new leader which payload it must carry on. With at most a fifth of the members lying no two payloads of a
phase can both gather a quorum; with up to a third, a lying leader can split one phase, and the chain, which accepts one
certificate a round, settles it.
"""

from __future__ import annotations

from atoll.training.committee import Place, carried_payload, quorum, statement_digest, verify_quorum
from atoll.wire.identity import recover
from atoll.wire.messages import Handover, Phase, Proposal, Quorum, Signed, Vote

FUTURE_VIEWS = 64
"""Handovers to views further ahead than this are ignored: nobody can fill the memory with them."""


class Ballot:
    """The agreement of one round's committee, phase after phase; `phase` is the one being voted on."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.phase = Phase.LOCK
        self.view = 0
        self.moved_in: Phase | None = None  # the phase in which the present view began, None for view 0
        self.quorums: dict[Phase, Quorum] = {}
        self.links: dict[bytes, bytes] = {}  # account -> the link that its OPEN vote carried
        self._proposals: dict[Phase, tuple[int, Proposal]] = {}
        self._payloads: dict[tuple[Phase, bytes], bytes] = {}  # (phase, digest) -> payload
        self._votes: dict[tuple[Phase, bytes], dict[bytes, bytes]] = {}  # (phase, digest) -> account -> signature
        self._voted: dict[Phase, bytes] = {}  # what this member signed
        self._handovers: dict[tuple[Phase, int], dict[bytes, bytes]] = {}

    @property
    def leader(self) -> bytes:
        """Account of the present leader."""
        return self.place.committee[self.view % len(self.place.committee)]

    @property
    def voted(self) -> bytes:
        """The payload that this member signed in the present phase, b"" if none."""
        return self._voted.get(self.phase, b"")

    def enter_view(self, view: int) -> None:
        """Follow the leader of another view from here on."""
        self.view, self.moved_in = view, self.phase

    def receive(self, signed: Signed) -> None:
        """Take in a vote, proposal or handover from a member; others' are ignored."""
        if signed.account not in self.place.committee:
            return
        body = signed.body
        if isinstance(body, Vote):
            self._receive_vote(signed.account, body)
        elif isinstance(body, Proposal):
            self._receive_proposal(signed.account, body)
        elif isinstance(body, Handover) and body.view < self.view + FUTURE_VIEWS:
            self._handovers.setdefault((body.phase, body.view), {})[signed.account] = signed.raw

    def _receive_vote(self, account: bytes, vote: Vote) -> None:
        if recover(vote.digest, vote.signature) != account:
            return
        if any(account in voters for (phase, _), voters in self._votes.items() if phase is vote.phase):
            previous = [d for (phase, d), voters in self._votes.items() if phase is vote.phase and account in voters]
            for digest in previous:  # a vote that was carried to another payload replaces the old one
                del self._votes[vote.phase, digest][account]
        self._votes.setdefault((vote.phase, vote.digest), {})[account] = vote.signature
        if vote.phase is Phase.OPEN and vote.preimage:
            self.links.setdefault(account, vote.preimage)

    def _receive_proposal(self, account: bytes, proposal: Proposal) -> None:
        members = self.place.committee
        if account != members[proposal.view % len(members)] or proposal.view >= self.view + FUTURE_VIEWS:
            return
        known = self._proposals.get(proposal.phase)
        if known is None or proposal.view > known[0]:
            self._proposals[proposal.phase] = (proposal.view, proposal)

    def remember(self, payload: bytes) -> bytes:
        """Keep a payload of the present phase so that votes for it can be counted; returns its digest."""
        digest = statement_digest(self.place, self.phase, payload)
        self._payloads[self.phase, digest] = payload
        return digest

    def pending(self) -> tuple[bytes, bool] | None:
        """A proposal that this member may sign now: (payload, whether handovers oblige it), or None.

        Raises Refused when the proposal's handovers do not justify it.
        """
        known = self._proposals.get(self.phase)
        if known is None or known[0] < self.view:
            return None
        view, proposal = known
        obliged = False
        if proposal.handovers:
            carried = carried_payload(self.place, self.phase, view, proposal.handovers)
            if carried and carried != proposal.payload:
                self._proposals.pop(self.phase)
                return None
            obliged = bool(carried)
            if view > self.view:
                self.enter_view(view)
        if self.voted and self.voted != proposal.payload and not proposal.handovers:
            return None
        return proposal.payload, obliged

    def drop_proposal(self) -> None:
        """Forget the present proposal: it was not well-formed."""
        self._proposals.pop(self.phase, None)

    def mark_voted(self, payload: bytes) -> None:
        """Remember what this member signs in the present phase."""
        self._voted[self.phase] = payload

    def must_carry(self) -> tuple[tuple[bytes, ...], bytes] | None:
        """For the leader of a later view: (handovers, payload to carry or b""), None until a quorum handed over."""
        handovers = tuple(self._handovers.get((self.phase, self.view), {}).values())
        if len(handovers) < quorum(len(self.place.committee)):
            return None
        return handovers, carried_payload(self.place, self.phase, self.view, handovers)

    def joined_view(self) -> int:
        """The highest view of this phase that more than a third of the members (so one honest one) moved to."""
        enough = len(self.place.committee) - quorum(len(self.place.committee)) + 1
        views = [v for (p, v), who in self._handovers.items() if p is self.phase and len(who) >= enough]
        return max([self.view, *views])

    def tally(self) -> Quorum | None:
        """The quorum of the present phase, once enough members signed a payload that is known here."""
        for (phase, digest), payload in self._payloads.items():
            votes = self._votes.get((phase, digest), {})
            if phase is self.phase and len(votes) >= quorum(len(self.place.committee)):
                ordered = tuple(votes[account] for account in self.place.committee if account in votes)
                return Quorum(self.place.job, self.place.round, phase, payload, ordered)
        return None

    def accept(self, message: Quorum) -> None:
        """Close the present phase with a quorum from outside or from `tally`; raises Refused if it is none."""
        verify_quorum(self.place, message)
        self.quorums[self.phase] = message
        if self.phase is not Phase.CERTIFY:
            self.phase = Phase(self.phase + 1)
