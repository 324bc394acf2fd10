"""Whole networks with liars, losses and crashes: one certificate a round, nobody honest refused, nothing said twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache

import msgspec
import pytest

from atoll.errors import InternalError, Refused
from atoll.sim.faults import Crash, Faults, Partition
from atoll.sim.network import DOMAIN, Material, Network, Options, SimNode
from atoll.sim.scenario import material, settle
from atoll.training.aggregate.rule import rule_for
from atoll.training.committee import AUDIT, UNIT, LockPayload, decode, encode, quorum, statement_digest
from atoll.training.events import Finished, Send
from atoll.wire.hashing import Domain, keccak
from atoll.wire.messages import (
    Body,
    Handover,
    HistoryAsk,
    Phase,
    Preimage,
    Prepare,
    Present,
    Proposal,
    Quorum,
    Vote,
    seal,
    unseal,
)
from atoll.wire.reasons import Reason

ROUNDS = 3
DRIFT = 2e-5


@cache
def softmax(rounds: int = ROUNDS) -> Material:
    return material("softmax", rounds)


class Ears:
    """Hears everything that leaves a node, to catch whoever says two different things."""

    def __init__(self) -> None:
        self.said: dict[tuple[object, ...], set[bytes]] = defaultdict(set)

    def __call__(self, node: SimNode, raw: bytes) -> None:
        try:
            signed = unseal(DOMAIN, raw)
        except Refused:
            return
        body = signed.body
        if isinstance(body, Prepare | Vote | Proposal):
            self.said[node.index, type(body), body.round, body.phase, body.view].add(signed.raw)

    def liars(self) -> set[object]:
        return {place[0] for place, raws in self.said.items() if len(raws) > 1}


def play(nodes: int, faults: Faults, seed: int = 1, **options: object) -> tuple[Network, list[Finished], Ears]:
    ears = Ears()
    network = Network(softmax(), nodes, faults, seed, Options(watch=ears, **options))  # type: ignore[arg-type]
    return network, network.run(), ears


def refused(network: Network, history: Iterable[Finished], kind: int = UNIT) -> dict[int, set[Reason]]:
    """Node -> reasons why work of a kind was not accepted."""
    found: dict[int, set[Reason]] = defaultdict(set)
    for one in history:
        for row in one.certificate.verdicts:
            if row.kind == kind and row.reason:
                found[network.nodes[row.account].index].add(Reason(row.reason))
    return dict(found)


def test_all_validators_reach_the_same_bytes() -> None:
    network, history, ears = play(6, Faults(drift=DRIFT))
    assert refused(network, history) == {}
    assert ears.liars() == set()
    for node in network.by_index:  # each kept its own copy of every certificate
        kept = [signed.body for signed in node.certificates]
        assert [body.payload for body in kept if isinstance(body, Quorum)] == [one.payload for one in history]
    assert len({one.certificate.model for one in history}) == ROUNDS
    assert all(len(one.signatures) >= quorum(6) for one in history)


@pytest.mark.parametrize("seed", range(3))
def test_losses_delays_and_copies_refuse_nobody(seed: int) -> None:
    faults = Faults(drop=0.2, duplicate=0.2, delay=0.1, drift=3e-5)
    network, history, ears = play(6, faults, seed)
    assert refused(network, history) == {}
    assert ears.liars() == set()


@pytest.mark.parametrize(("attack", "seed"), [("random", 3), ("lazy", 4)])
def test_liars_are_caught_in_a_bad_network(attack: str, seed: int) -> None:
    faults = Faults(drop=0.1, delay=0.05, drift=DRIFT, liars={"2": attack})  # type: ignore[dict-item]
    network, history, _ = play(6, faults, seed)
    assert refused(network, history) == {2: {Reason.SEGMENT_MISMATCH}}
    liar = network.by_index[2].account
    paid = [row for one in history for row in one.certificate.verdicts if row.account == liar and row.kind == UNIT]
    assert len(paid) == ROUNDS
    assert all(row.reason for row in paid)
    assert settle(network, history) > 0


def test_a_lying_auditor_is_not_paid_and_convicts_nobody() -> None:
    network, history, _ = play(6, Faults(drift=DRIFT, lying_auditors=(1,)))
    assert refused(network, history) == {}
    assert refused(network, history, AUDIT) == {1: {Reason.AUDIT_MISMATCH}}


def test_hidden_states_are_a_refusal() -> None:
    network, history, _ = play(6, Faults(drift=DRIFT, liars={"4": "random"}, withholders=(4,)))
    assert refused(network, history) == {4: {Reason.STATE_WITHHELD}}


def test_a_larger_roster_than_its_committee_and_the_robust_rule() -> None:
    faults = Faults(drop=0.05, drift=DRIFT, liars={"3": "random"})
    network, history, ears = play(12, faults, 5)
    assert refused(network, history) == {3: {Reason.SEGMENT_MISMATCH}}
    assert ears.liars() == set()
    accepted = sum(row.kind == UNIT and not row.reason for row in history[0].certificate.verdicts)
    assert accepted == 11
    assert rule_for(accepted).mixed
    assert {len(one.certificate.committee) for one in history} == {7}
    assert len({one.certificate.committee for one in history}) == ROUNDS  # drawn anew each round


# -- crashes -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("at", [0.15, 0.35, 0.5, 0.7, 0.95, 1.3])
@pytest.mark.parametrize("node", [0, 3])
def test_a_node_dies_and_comes_back(node: int, at: float) -> None:
    faults = Faults(delay=0.05, drop=0.03, drift=DRIFT, crashes=(Crash(at=at, node=node, down=1.5),))
    network, history, ears = play(6, faults, int(100 * at) + node)
    assert refused(network, history) == {}
    assert ears.liars() == set()
    assert all(node.job is not None and node.job.standing.done for node in network.by_index)


@pytest.mark.parametrize("at", [0.1, 0.3, 0.4, 0.6, 0.8])
def test_the_leader_dies_for_good(at: float) -> None:
    network, history, ears = play(6, Faults(delay=0.05, crashes=(Crash(at=at, leader=True),)), 7)
    dead = [node.index for node in network.by_index if not node.alive]
    assert len(dead) == 1
    assert set(refused(network, history)) <= set(dead)
    assert ears.liars() == set()
    assert len(history[-1].certificate.roster) == 5


def test_a_node_that_was_away_for_rounds_catches_up() -> None:
    network, history, _ = play(6, Faults(crashes=(Crash(at=0.3, node=5, down=40.0),)))
    assert network.clock.now < 40.0
    late = network.by_index[5]
    assert late.job is None  # the others did not wait for it
    network.clock.run(60.0, lambda: late.job is not None and late.job.standing.done)
    assert late.job is not None
    assert network.clock.now < 45.0
    assert late.job.standing.done
    assert [signed.body.payload for signed in late.certificates if isinstance(signed.body, Quorum)] == [
        one.payload for one in history
    ]


def test_newcomers_join_in_the_middle() -> None:
    network, history, _ = play(6, Faults(drift=DRIFT, newcomers={"4": 0.4, "5": 1.4}))
    rosters = [{network.nodes[account].index for account in one.certificate.roster} for one in history]
    assert rosters[-1] == set(range(6))
    assert rosters[0] in (set(range(4)), set(range(5)))
    workers = {network.nodes[row.account].index for row in history[-1].certificate.verdicts if row.kind == UNIT}
    assert {0, 1, 2, 3, 4} <= workers


def test_there_is_no_room_for_everybody() -> None:
    network, history, _ = play(6, Faults(newcomers={"4": 0.1, "5": 0.1}), room=5)
    newcomers = sorted(network.by_index[index].account for index in (4, 5))
    assert len(history[-1].certificate.roster) == 5
    assert newcomers[1] not in history[-1].certificate.roster


def test_too_few_wait_for_the_others() -> None:
    crashes = tuple(Crash(at=0.5, node=index, down=200.0) for index in (3, 4))
    network = Network(softmax(), 6, Faults(crashes=crashes), 2)
    network.play(150.0)
    assert len(network.history) == 0
    assert len(network.run(400.0)) == ROUNDS
    assert network.clock.now < 230.0  # and they lose no time then


def test_a_partition_heals() -> None:
    faults = Faults(partitions=(Partition(at=0.5, until=40.0, nodes=(0, 1, 2)),))
    network, history, ears = play(6, faults)
    assert network.clock.now > 40.0
    assert refused(network, history) == {}
    assert ears.liars() == set()


def test_a_minority_that_is_cut_off_follows_later() -> None:
    faults = Faults(partitions=(Partition(at=0.5, until=25.0, nodes=(2,)),))
    network, history, _ = play(6, faults)
    assert set(refused(network, history)) <= {2}
    assert all(node.job is not None and node.job.standing.done for node in network.by_index)


def test_a_run_that_does_not_end_says_so() -> None:
    network = Network(softmax(), 3, Faults(crashes=(Crash(at=0.1, node=0),)), 1)
    with pytest.raises(InternalError, match="0 of 3 rounds"):
        network.run(20.0)


# -- members of the committee that lie -------------------------------------------------------------------------------
class Equivocator(SimNode):
    """Proposes one lock to some and another to the rest, and prepares and votes for both."""

    def say(self, send: Send) -> None:
        body = send.message.body
        if not isinstance(body, Proposal) or body.phase is not Phase.LOCK or self.round is None:
            super().say(send)
            return
        payload = decode(Phase.LOCK, body.payload)
        assert isinstance(payload, LockPayload)
        other = encode(LockPayload(payload.commits[:-1]))
        place = self.round.context.place
        for position, account in enumerate(send.to):
            chosen = (body.payload, other)[position % 2]
            digest = statement_digest(place, Phase.LOCK, body.view, chosen)
            head = (body.job, body.round, body.view, Phase.LOCK, digest)
            lies: list[Body] = [msgspec.structs.replace(body, payload=chosen), Prepare(*head)]
            lies.append(Vote(*head, self.key.sign_digest(digest)))
            for lie in lies:
                signed = seal(DOMAIN, lie, self.account, self.key.sign_digest)
                self.network.deliver(self, account, signed.raw)


class Mute(SimNode):
    """Works, but neither prepares nor votes nor reveals a link."""

    def say(self, send: Send) -> None:
        if not isinstance(send.message.body, Prepare | Vote | Preimage | Proposal):
            super().say(send)


class Crooked(SimNode):
    """Reveals links that are none."""

    def say(self, send: Send) -> None:
        body = send.message.body
        if isinstance(body, Preimage):
            forged = seal(DOMAIN, msgspec.structs.replace(body, value=bytes(32)), self.account, self.key.sign_digest)
            send = Send(send.to, forged)
        super().say(send)


class Flood(SimNode):
    """Sends nonsense with everything that it says."""

    def say(self, send: Send) -> None:
        super().say(send)
        job, number = send.message.body.job, send.message.body.round
        signatures = (bytes(64) + b"\x1b",) * 5
        nonsense: list[Body] = [
            Handover(job, number, 4_000, Phase.OPEN, b"", ()),
            Handover(job, number, 9, Phase.LOCK, b"payload", ()),
            Quorum(job, number + 1, 0, Phase.CERTIFY, b"\xc1", signatures),
            Quorum(job, number, 0, Phase.BEACON, b"\x91\x90", signatures),
            Proposal(job, number, 5, Phase.CERTIFY, b"\xc1", ()),
            Present(job, number + 2),
            HistoryAsk(job, 0, Phase.LOCK),
            Present(keccak(b"another job"), number),
        ]
        for body in nonsense:
            signed = seal(DOMAIN, body, self.account, self.key.sign_digest)
            for account in send.to[:2]:
                self.network.deliver(self, account, signed.raw)
                self.network.deliver(self, account, signed.raw[:-3])


@pytest.mark.parametrize("kind", [Equivocator, Mute, Crooked])
@pytest.mark.parametrize("seed", range(2))
def test_one_lying_member_stops_nothing(kind: type[SimNode], seed: int) -> None:
    network, history, ears = play(6, Faults(drift=DRIFT, delay=0.05), seed, kinds={seed: kind})
    assert set(refused(network, history)) <= {seed}
    assert ears.liars() <= {seed}


def test_an_equivocating_leader_is_at_work() -> None:
    """The test above would prove nothing if the liar never led."""
    liars = [play(6, Faults(delay=0.05), seed, kinds={0: Equivocator})[2].liars() for seed in range(2)]
    assert {0} in liars


def test_seven_members_bear_two_liars() -> None:
    network, history, ears = play(7, Faults(delay=0.03, drift=DRIFT), 3, kinds={1: Equivocator, 4: Mute})
    assert set(refused(network, history)) <= {1, 4}
    assert ears.liars() <= {1}


def test_messages_of_strangers_and_other_networks_are_refused() -> None:
    network = Network(softmax(), 4, Faults(), 1)
    network.play(0.1)
    node, other = network.by_index[:2]
    before = len(node.journal)
    key = other.key
    foreign = [
        seal(Domain(1, DOMAIN.registry), Present(network.terms.job, 0), key.address, key.sign_digest).raw,
        seal(Domain(31337, bytes(20)), Present(network.terms.job, 0), key.address, key.sign_digest).raw,
        seal(DOMAIN, Present(keccak(b"another job"), 0), key.address, key.sign_digest).raw,
        b"",
        bytes(5 << 20),
    ]
    for raw in foreign:
        node.receive(raw)
    codes = [note.split(":")[0] for note in node.notes[-5:]]
    assert codes == ["UNKNOWN_ACCOUNT", "UNKNOWN_ACCOUNT", "NOT_FOUND", "MALFORMED", "TOO_LARGE"]
    assert network.refused == 5
    assert len(node.journal) == before
    assert len(network.run()) == ROUNDS


def test_a_flood_of_nonsense_stops_nothing() -> None:
    network, history, _ = play(6, Faults(delay=0.03), 2, kinds={5: Flood})
    assert refused(network, history) == {}
    kept = max(len(node.journal) for node in network.by_index)
    assert kept < 400  # nonsense is not written down
