"""Agreement: no two payloads of a phase ever pass, whatever fewer than a third do; and there is always a way on."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import combinations

import pytest

from atoll.training.ballot import Ballot
from atoll.training.committee import LockPayload, encode, quorum, statement_digest
from atoll.wire.messages import Body, Handover, Phase, Prepare, Proposal, Quorum, Signed, Vote, unseal

from .lab import ACCOUNTS, DOMAIN, JOB, KEYS, context, sealed

A, B, C = (encode(LockPayload((name,))) for name in (b"a", b"b", b"c"))


def open_(raw: bytes) -> Signed:
    return unseal(DOMAIN, raw)


class Members:
    """A committee that decides one phase; `heard` delivers to those that it names."""

    def __init__(self, count: int) -> None:
        self.place = context(count, count).place
        self.count, self.needed = count, quorum(count)
        self.ballots = [Ballot(self.place, ACCOUNTS[i], open_) for i in range(count)]

    def digest(self, payload: bytes, view: int = 0, phase: Phase = Phase.LOCK) -> bytes:
        return statement_digest(self.place, phase, view, payload)

    def heard(self, sender: int, body: Body, by: object = None) -> Signed:
        signed = sealed(sender, body)
        for index in range(self.count) if by is None else by:  # type: ignore[attr-defined]
            self.ballots[index].receive(signed)
        return signed

    def propose(self, payload: bytes, view: int = 0, handovers: tuple[bytes, ...] = (), by: object = None) -> None:
        self.heard(view % self.count, Proposal(JOB, 1, view, Phase.LOCK, payload, handovers), by)

    def prepare(self, index: int, payload: bytes, view: int = 0, by: object = None) -> Signed:
        return self.heard(index, Prepare(JOB, 1, view, Phase.LOCK, self.digest(payload, view)), by)

    def vote(self, index: int, payload: bytes, view: int = 0, by: object = None) -> None:
        digest = self.digest(payload, view)
        self.heard(index, Vote(JOB, 1, view, Phase.LOCK, digest, KEYS[index].sign_digest(digest)), by)

    def hand_over(self, index: int, view: int, by: object = None) -> bytes:
        """A member gives up, with what it knows to be prepared."""
        known = self.ballots[index].prepared
        shown = (known.payload, known.prepares) if known else (b"", ())
        return self.heard(index, Handover(JOB, 1, view, Phase.LOCK, *shown), by).raw


def test_two_steps() -> None:
    six = Members(6)
    watcher = six.ballots[3]
    assert six.ballots[0].may_propose()
    assert not watcher.may_propose()
    six.propose(A)
    assert not six.ballots[0].may_propose()
    proposal, digest, obliged = watcher.pending() or pytest.fail("nothing to prepare")
    assert (proposal.payload, digest, obliged) == (A, six.digest(A), False)
    for index in range(4):
        six.prepare(index, A)
    assert watcher.prepared is None
    assert watcher.to_vote() is None
    assert watcher.pending() is None  # prepared once
    six.prepare(4, A)
    assert watcher.prepared is not None
    assert watcher.prepared.payload == A
    assert watcher.to_vote() == watcher.prepared
    for index in range(4):
        six.vote(index, A)
    assert watcher.to_vote() is None  # voted once
    assert watcher.tally() is None
    six.vote(5, A)
    message = watcher.tally()
    assert message is not None
    assert (message.payload, message.view, len(message.signatures)) == (A, 0, 5)
    watcher.accept(message)
    assert watcher.phase is Phase.BEACON
    assert watcher.prepared is None
    assert watcher.quorums == {Phase.LOCK: message}


def test_a_member_does_not_vote_for_what_it_did_not_prepare() -> None:
    six = Members(6)
    six.propose(A)
    for index in range(5):
        six.prepare(index, A)
    assert six.ballots[0].to_vote() is not None
    assert six.ballots[5].to_vote() is None  # a quorum prepared it, but this member found something wrong with it


def test_only_the_leader_of_the_view_is_heard() -> None:
    six = Members(6)
    for index in range(1, 6):
        six.heard(index, Proposal(JOB, 1, 0, Phase.LOCK, B, ()))
    assert six.ballots[3].pending() is None
    six.heard(2, Proposal(JOB, 1, 2, Phase.LOCK, B, ()))  # the leader of view 2, without anybody's handover
    assert six.ballots[3].pending() is None
    six.heard(9, Proposal(JOB, 1, 0, Phase.LOCK, B, ()))  # a stranger
    assert six.ballots[3].pending() is None


def test_a_leader_has_one_proposal_a_view() -> None:
    six = Members(6)
    six.propose(A)
    six.propose(B)
    assert [ballot.pending()[0].payload for ballot in six.ballots] == [A] * 6  # type: ignore[index]


def test_what_is_refused_is_not_looked_at_again() -> None:
    six = Members(6)
    six.propose(A)
    ballot = six.ballots[2]
    ballot.refuse(six.digest(A))
    assert ballot.pending() is None
    six.propose(A)
    assert ballot.pending() is None


def test_a_member_prepares_one_payload_a_view() -> None:
    six = Members(6)
    six.propose(A, by=[2])
    six.prepare(2, A)
    fresh = Ballot(six.place, ACCOUNTS[2], open_)  # after a restart that lost the proposal
    fresh.receive(sealed(2, Prepare(JOB, 1, 0, Phase.LOCK, six.digest(A))))
    fresh.receive(sealed(0, Proposal(JOB, 1, 0, Phase.LOCK, B, ())))
    assert fresh.pending() is None


def test_the_next_leader_begins_anew_when_nothing_was_prepared() -> None:
    six = Members(6)
    six.propose(A, by=[1, 2])
    leader = six.ballots[1]
    for index in range(1, 5):
        six.ballots[index].enter_view(1)
        six.hand_over(index, 1)
    assert leader.to_carry() is None  # four of five
    six.ballots[5].enter_view(1)
    six.hand_over(5, 1)
    handovers, payload = leader.to_carry() or pytest.fail("a quorum handed over")
    assert (len(handovers), payload) == (5, b"")
    six.propose(B, 1, handovers)
    assert six.ballots[0].view == 0
    assert six.ballots[0].pending()[0].payload == B  # type: ignore[index]  # convinced by the handovers
    six.prepare(0, B, 1)
    assert six.ballots[0].view == 1


def test_the_next_leader_carries_on_what_was_prepared() -> None:
    six = Members(6)
    six.propose(A)
    for index in range(5):
        six.prepare(index, A, by=[2])  # only member 2 learns that it is prepared
    assert six.ballots[2].prepared is not None
    for index in range(1, 6):
        six.ballots[index].enter_view(1)
        six.hand_over(index, 1)
    handovers, payload = six.ballots[1].to_carry() or pytest.fail("a quorum handed over")
    assert payload == A
    six.propose(B, 1, handovers)  # it does not
    assert all(ballot.pending() is None for ballot in six.ballots[2:])
    honest = Members(6)
    honest.ballots = six.ballots
    six.ballots[3]._said.pop((Proposal, Phase.LOCK, ACCOUNTS[1]), None)
    honest.propose(A, 1, handovers)
    assert honest.ballots[3].pending() == (Proposal(JOB, 1, 1, Phase.LOCK, A, handovers), six.digest(A, 1), True)


def test_a_bound_member_needs_handovers_for_anything_else() -> None:
    six = Members(6)
    six.propose(A)
    for index in range(5):
        six.prepare(index, A)
    bound = six.ballots[2]
    bound.enter_view(1)
    six.heard(1, Proposal(JOB, 1, 1, Phase.LOCK, B, ()), by=[2])
    assert bound.pending() is None
    six.heard(1, Proposal(JOB, 1, 7, Phase.LOCK, A, ()), by=[2])
    assert bound.pending() is None  # not of this view


def test_signatures_of_two_views_are_no_quorum() -> None:
    six = Members(6)
    six.propose(A)
    six.heard(1, Proposal(JOB, 1, 1, Phase.LOCK, A, ()))
    for index in range(3):
        six.vote(index, A, 0)
    for index in range(3, 6):
        six.vote(index, A, 1)
    assert six.ballots[0].tally() is None


def test_a_phase_begins_in_the_view_that_closed_the_last() -> None:
    six = Members(6)
    ballot = six.ballots[3]
    digest = six.digest(A, 2)
    signatures = tuple(KEYS[i].sign_digest(digest) for i in range(5))
    ballot.accept(Quorum(JOB, 1, 2, Phase.LOCK, A, signatures))
    assert (ballot.phase, ballot.view, ballot.leader) == (Phase.BEACON, 2, ACCOUNTS[2])
    assert six.ballots[2].phase is Phase.LOCK
    six.ballots[2].accept(Quorum(JOB, 1, 2, Phase.LOCK, A, signatures))
    assert six.ballots[2].may_propose()
    assert six.ballots[2].to_carry() == ((), b"")  # nobody has to hand over first


def test_members_follow_more_than_a_third() -> None:
    seven = Members(7)
    ballot = seven.ballots[0]
    seven.hand_over(1, 5)
    seven.hand_over(2, 3)
    assert ballot.joined_view() == 0  # two may both be lying
    seven.hand_over(3, 4)
    assert ballot.joined_view() == 3
    seven.prepare(4, A, 4)
    assert ballot.joined_view() == 4


def test_views_that_are_far_ahead_are_ignored() -> None:
    four = Members(4)
    for index in (1, 2, 3):
        four.hand_over(index, 1 << 20)
    assert four.ballots[0].joined_view() == 0
    for index in (1, 2, 3):
        four.hand_over(index, 500)  # after hours without a quorum
    assert four.ballots[0].joined_view() == 500


def test_memory_is_bounded() -> None:
    four = Members(4)
    ballot = four.ballots[0]
    for view in range(300):
        four.hand_over(1, view, by=[0])
        four.prepare(1, A, view, by=[0])
        four.vote(1, A, view, by=[0])
        if view % 4 == 1:
            four.propose(B, view, by=[0])
    assert len(ballot._said) <= 4
    assert len(ballot._heard) <= 1


def test_broken_messages_are_ignored() -> None:
    four = Members(4)
    ballot = four.ballots[0]
    four.heard(1, Vote(JOB, 1, 0, Phase.LOCK, four.digest(A), bytes(65)))
    four.heard(1, Vote(JOB, 1, 0, Phase.LOCK, four.digest(A), KEYS[2].sign_digest(four.digest(A))))
    four.heard(1, Handover(JOB, 1, 3, Phase.LOCK, A, ()))
    four.heard(1, Handover(JOB, 1, 3, Phase.LOCK, A, (b"\xc1",)))
    four.heard(1, Proposal(JOB, 1, 1, Phase.CERTIFY, b"\xc1", ()))
    four.heard(1, Proposal(JOB, 1, 1, Phase.LOCK, A, (b"\xc1",)))
    assert ballot._said == {}
    assert ballot.is_news(sealed(1, Vote(JOB, 1, 0, Phase.LOCK, four.digest(A), bytes(65))))


# -- the one promise ---------------------------------------------------------------------------------------------
class Game:
    """Honest members and liars, messages in any order or lost, time-outs at any moment.

    Liars sign everything for everybody. `passed` are all payloads for which a quorum of signatures of one view exists
    anywhere, if every liar adds its own.
    """

    def __init__(self, count: int, liars: int, seed: int) -> None:
        self.members, self.dice = Members(count), random.Random(seed)
        self.liars = set(self.dice.sample(range(count), liars))
        self.honest = [i for i in range(count) if i not in self.liars]
        self.votes: dict[tuple[bytes, int], set[int]] = defaultdict(set)
        self.seen: list[bytes] = []  # handovers
        self.wire: list[tuple[int, Signed]] = []

    def say(self, sender: int, body: Body) -> None:
        signed = sealed(sender, body)
        if isinstance(body, Handover):
            self.seen.append(signed.raw)
        if isinstance(body, Vote) and sender in self.honest:
            payload = next(p for p in (A, B, C) if self.members.digest(p, body.view) == body.digest)
            self.votes[payload, body.view].add(sender)
        if sender in self.honest:
            self.members.ballots[sender].receive(signed)
        self.wire += [(index, signed) for index in self.honest if index != sender]

    def act(self, index: int) -> None:
        ballot, members = self.members.ballots[index], self.members
        if ballot.may_propose():
            carry = ballot.to_carry()
            if carry is not None:
                handovers, payload = carry
                payload = payload or self.dice.choice((A, B, C))
                self.say(index, Proposal(JOB, 1, ballot.view, Phase.LOCK, payload, handovers))
        pending = ballot.pending()
        if pending is not None:
            proposal, digest, _ = pending
            self.say(index, Prepare(JOB, 1, proposal.view, Phase.LOCK, digest))
        agreed = ballot.to_vote()
        if agreed is not None:
            signature = KEYS[index].sign_digest(agreed.digest)
            self.say(index, Vote(JOB, 1, ballot.view, Phase.LOCK, agreed.digest, signature))
        if self.dice.random() < 0.03 or ballot.joined_view() > ballot.view:
            view = max(ballot.joined_view(), ballot.view + 1)
            ballot.enter_view(view)
            known = ballot.prepared
            shown = (known.payload, known.prepares) if known else (b"", ())
            self.say(index, Handover(JOB, 1, view, Phase.LOCK, *shown))
        assert members.count

    def lie(self) -> None:
        """A liar says something to one honest member that it does not say to the others."""
        members, dice = self.members, self.dice
        liar, target = dice.choice(sorted(self.liars)), dice.choice(self.honest)
        view = members.ballots[target].view + dice.choice((0, 0, 0, 1))
        payload = (A, B)[self.honest.index(target) % 2] if dice.random() < 0.8 else dice.choice((A, B))
        digest = members.digest(payload, view)
        of_view = [raw for raw in self.seen if open_(raw).body.view == view]  # type: ignore[union-attr]
        own = [sealed(i, Handover(JOB, 1, view, Phase.LOCK, b"", ())).raw for i in self.liars]
        chosen = dice.sample(of_view, min(len(of_view), members.needed))
        handovers = tuple(dict.fromkeys((*own, *chosen)))[: members.needed + 1]
        bodies: list[Body] = [
            Prepare(JOB, 1, view, Phase.LOCK, digest),
            Vote(JOB, 1, view, Phase.LOCK, digest, KEYS[liar].sign_digest(digest)),
            Handover(JOB, 1, view, Phase.LOCK, b"", ()),
            Proposal(JOB, 1, view, Phase.LOCK, payload, ()),
            Proposal(JOB, 1, view, Phase.LOCK, payload, handovers),
        ]
        self.wire.append((target, sealed(liar, dice.choice(bodies))))

    def step(self) -> None:
        for _ in range(self.dice.randrange(1 + len(self.liars))):
            self.lie()
        self.act(self.dice.choice(self.honest))
        for _ in range(min(len(self.wire), 6)):
            target, signed = self.wire.pop(self.dice.randrange(len(self.wire)))
            if self.dice.random() > 0.05:
                self.members.ballots[target].receive(signed)

    @property
    def passed(self) -> set[bytes]:
        enough = self.members.needed - len(self.liars)
        return {payload for (payload, _), voters in self.votes.items() if len(voters) >= enough}


@pytest.mark.parametrize(("count", "liars", "games"), [(4, 1, 10), (6, 1, 8), (7, 2, 8), (10, 3, 3)])
def test_two_payloads_never_pass(count: int, liars: int, games: int) -> None:
    passed = [_played(count, liars, seed) for seed in range(games)]
    assert max(passed) == 1  # and the game does get somewhere


def test_the_game_finds_what_it_looks_for() -> None:
    """With a third or more lying two payloads do pass: the game is no paper tiger."""
    assert any(_played(4, 2, seed) > 1 for seed in range(12))


def _played(count: int, liars: int, seed: int) -> int:
    game = Game(count, liars, seed)
    for _ in range(200):
        game.step()
    return len(game.passed)


def test_why_one_step_would_not_do() -> None:
    """Seven members, quorum five: a lying leader splits them 4 to 2. What the handovers of five show is not enough to
    know what passed, so a rule that follows the majority of handovers could undo it: some five show 3 to 2 for B."""
    shown = ["A"] * 4 + ["B"] * 2 + ["B"]  # the liar says B
    majorities = {max(set(five), key=five.count) for five in combinations(shown, 5)}
    assert majorities == {"A", "B"}
