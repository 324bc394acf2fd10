"""A whole network in one process and in simulated time: the very core of the nodes, with faults drawn from a seed.

Messages cross as the bytes that the real network carries; work is done by ONNX Runtime on a real graph and real data.
Only time, the network and crashes are simulated. Whoever tests a misbehaviour that is not in `Faults` hands in a node
class of its own (`Options.kinds`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.errors import AtollError, InternalError, Refused, Unreachable
from atoll.graph.manifest import Manifest
from atoll.graph.session import Frozen, LocalEngine, Pace, TrainResult
from atoll.node.job import Job, Terms
from atoll.sim.clock import Clock, at_once
from atoll.sim.faults import Crash, Dice, Faults
from atoll.training.beacon import tip
from atoll.training.context import HOLDER, LIGHT, MAX_ROSTER, SERVER, VALIDATOR, WORKER, Enlistment, Member, Timing
from atoll.training.events import Effect, Event, Finished, Note, Received, Send, Tick, Train
from atoll.training.opponents import attack
from atoll.training.round import Round
from atoll.training.workbench import Bench, Workbench
from atoll.wire.hashing import Domain, blob_id, keccak
from atoll.wire.identity import AccountKey
from atoll.wire.messages import HistoryAsk, Signed, unseal

DOMAIN = Domain(31337, b"\x11" * 20)
JOBS_CONTRACT = b"\x22" * 20
ROLES = WORKER | VALIDATOR | HOLDER | SERVER
TICK_SECONDS = 0.2
SECONDS_PER_STEP = 0.01
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Material:
    """What a simulated job trains on: manifest, step graph, initial model bytes, and the samples."""

    manifest: Manifest
    step_graph: bytes
    initial: bytes
    x: NDArray[Any]
    y: NDArray[np.int64]


class _Engine:
    """ONNX Runtime in this process; `drift` stands for the rounding of another CPU."""

    def __init__(self, local: LocalEngine, drift: float, seed: int) -> None:
        self._local, self._drift = local, drift
        self._random = np.random.default_rng(seed)

    async def train(self, graph: bytes, tensors: Any, x: Any, y: Any, pace: Pace, frozen: Frozen | None) -> TrainResult:
        result = self._local.train(graph, tensors, x, y, pace, frozen)
        if not self._drift:
            return result
        noisy = {}
        for name, value in result.tensors.items():
            moved = value - tensors[name]
            noise = self._random.standard_normal(value.shape) * self._drift * np.abs(moved).mean()
            noisy[name] = (value + noise).astype(np.float32)
        return TrainResult(noisy, result.losses)


class SimNode:
    """A node of the simulated network. A crash loses everything but its disk: journal, certificates and blobs."""

    def __init__(self, network: Network, index: int, key: AccountKey) -> None:
        self.network, self.index, self.key = network, index, key
        self.account = key.address
        self.blobs: dict[bytes, bytes] = {}
        self.journal: list[tuple[int, Event]] = []
        self.certificates: list[Signed] = []
        self.alive = False
        self.life = 0
        self.job: Job | None = None
        self.notes: list[str] = []

    @property
    def round(self) -> Round | None:
        """The round that this node is in; None while it is down and when the job is done."""
        return self.job.round if self.job is not None else None

    # -- life --------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Come alive: a fresh core, the journal folded in, unfinished work taken up again."""
        network, now = self.network, self.network.clock.now
        self.alive, self.life = True, self.life + 1
        seed = keccak(b"seed" + self.account)
        member = Member(self.account, self.key.sign_digest, seed, keccak(b"secret" + seed), network.terms.rounds)
        self.job = Job(network.terms, network.enlisted, member, now)
        for signed in self.certificates:
            self.job.handle(Received(signed), now, act=False)
        for _, event in list(self.journal):
            for effect in self.job.handle(event, now, act=False):
                if isinstance(effect, Finished):
                    self._finish(effect)
        self._carry_out(self.job.resume(now))
        self._tick(self.life)

    def crash(self) -> None:
        """kill -9."""
        self.alive, self.job = False, None

    def _tick(self, life: int) -> None:
        if self.alive and self.life == life:
            self.handle(Tick())
            self.network.clock.after(TICK_SECONDS, partial(self._tick, life))

    # -- events and effects --------------------------------------------------------------------------------------------
    def receive(self, raw: bytes) -> None:
        """Bytes from the network."""
        if self.job is None:
            return
        try:
            signed = unseal(DOMAIN, raw)
            self.job.admit(signed)
        except Refused as refusal:
            self.notes.append(str(refusal))
            self.network.refused += 1
            return
        self.handle(Received(signed))

    def handle(self, event: Event) -> None:
        """One event, at the simulated now; written down before its effects leave."""
        if self.job is None:
            return
        if self.job.is_news(event):
            number = event.signed.body.round if isinstance(event, Received) else self.job.standing.round
            self.journal.append((number, event))
        elif isinstance(event, Received) and not isinstance(event.signed.body, HistoryAsk):
            return
        self._carry_out(self.job.handle(event, self.network.clock.now))

    def say(self, send: Send) -> None:
        """Let a message leave."""
        for account in send.to:
            self.network.deliver(self, account, send.message.raw)

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(message=message, promise=promise):
                    if promise:
                        self.journal.append((message.body.round, Received(message)))
                    self.say(effect)
                case Note(text=text):
                    self.notes.append(text)
                case Finished():
                    self._finish(effect)
                case _:
                    self._work(effect)

    def _finish(self, finished: Finished) -> None:
        if self.job is None:
            return
        self.certificates.append(self.job.sign(self.job.certificates[finished.round]))
        self.journal = [(number, event) for number, event in self.journal if number > finished.round]
        self.network.certified(finished)

    # -- work ----------------------------------------------------------------------------------------------------------
    def _work(self, effect: Effect) -> None:
        if self.round is None:
            return
        segment = self.network.material.manifest.segment
        steps = effect.unit.segments * segment if isinstance(effect, Train) else 1
        slowness = self.network.dice.faults.slow.get(str(self.index), 1.0)
        done = partial(self._done, effect, self.round, self.life)
        self.network.clock.after(steps * SECONDS_PER_STEP * slowness, done)

    def _done(self, effect: Effect, current: Round, life: int) -> None:
        if self.life != life or self.round is not current:
            return
        others = tuple(account for account in current.context.everybody if account != self.account)
        try:
            event = at_once(self.result(effect, current.context.model, others))
        except AtollError as error:  # a peer may be back in a moment
            self.notes.append(str(error))
            self.network.clock.after(RETRY_SECONDS, partial(self._done, effect, current, life))
            return
        if event is not None:
            self.handle(event)

    async def result(self, effect: Effect, model: bytes, others: Sequence[bytes]) -> Event | None:
        """What comes of a piece of work at this node."""
        faults, bench = self.network.dice.faults, self.network.bench(self)
        if isinstance(effect, Train):
            lie = "random" if effect.audit and self.index in faults.lying_auditors else ""
            lie = lie or (faults.liars.get(str(self.index), "") if not effect.audit else "")
            if lie:
                return await attack(lie, bench, effect.unit, model, others)
        return await bench.carry_out(effect, model, others)

    # -- blobs ---------------------------------------------------------------------------------------------------------
    def keep(self, data: bytes) -> bytes:
        """Store a blob."""
        name = blob_id(data)
        self.blobs[name] = data
        return name

    def serves(self, name: bytes) -> bool:
        """Whether this node hands out a blob that it is asked for."""
        state = len(self.blobs.get(name, b"")) == self.network.material.manifest.state_bytes
        return self.alive and name in self.blobs and not (state and self.index in self.network.dice.faults.withholders)

    async def fetch(self, name: bytes, sources: Sequence[bytes]) -> bytes:
        """A blob from here or from a live peer."""
        if name not in self.blobs:
            peers = (self.network.nodes[account] for account in sources)
            holder = next((peer for peer in peers if peer.serves(name) and self.network.reaches(self, peer)), None)
            if holder is None:
                raise Unreachable(f"Nobody alive has {name.hex()[:8]}; ask again when its holder is back.")
            self.keep(holder.blobs[name])
        return self.blobs[name]


@dataclass(frozen=True)
class Options:
    """How a network is made; `kinds` maps a node's number to the class that it is of, `watch` sees all that is said.

    `light` are the numbers of the light workers: they hold no other role.
    """

    timing: Timing = field(default_factory=Timing)
    stake_units: int = 0
    committee_size: int = 7
    room: int = MAX_ROSTER
    light: tuple[int, ...] = ()
    kinds: Mapping[int, type[SimNode]] = field(default_factory=dict)
    watch: Callable[[SimNode, bytes], None] | None = None


class Network:
    """So many nodes on one job; `run` plays the job and returns the certificates in order."""

    def __init__(
        self, material: Material, nodes: int, faults: Faults, seed: int, options: Options | None = None
    ) -> None:
        self.options = options or Options()
        self.material, self.clock, self.dice = material, Clock(), Dice(faults, seed)
        keys = [AccountKey(keccak(b"key" + seed.to_bytes(8, "big") + bytes([index]))) for index in range(nodes)]
        kinds = self.options.kinds
        self.nodes = {key.address: kinds.get(index, SimNode)(self, index, key) for index, key in enumerate(keys)}
        self.by_index = list(self.nodes.values())
        self.enlisted: dict[bytes, Enlistment] = {}
        there = [node for node in self.by_index if str(node.index) not in faults.newcomers]
        founders = tuple(sorted(node.account for node in there))
        for account in founders:
            self._enlist(self.nodes[account])
        validators = tuple(account for account in founders if self.enlisted[account].roles & VALIDATOR)
        self.terms = self._terms(founders, validators, seed)
        self.history: dict[int, Finished] = {}
        self.messages = self.bytes = self.refused = 0
        self._benches = {account: self._make_bench(node, len(founders)) for account, node in self.nodes.items()}
        self._begun = False

    def _terms(self, founders: tuple[bytes, ...], validators: tuple[bytes, ...], seed: int) -> Terms:
        manifest, options = self.material.manifest, self.options
        return Terms(
            domain=DOMAIN,
            jobs_contract=JOBS_CONTRACT,
            job=keccak(b"job" + seed.to_bytes(8, "big")),
            committee=validators[: options.committee_size],
            roster=founders,
            model=blob_id(self.material.initial),
            rounds=manifest.rounds,
            segments=manifest.segments,
            unit_price=manifest.policy.unit_price,
            audit_floor=manifest.policy.audit_rate_floor,
            committee_size=options.committee_size,
            room=options.room,
            timing=options.timing,
        )

    def _enlist(self, node: SimNode) -> None:
        manifest = self.material.manifest
        stake = self.options.stake_units * manifest.policy.unit_price
        link = tip(keccak(b"seed" + node.account), manifest.rounds)
        roles = WORKER | LIGHT if node.index in self.options.light else ROLES
        self.enlisted[node.account] = Enlistment(link, roles, stake)

    def _make_bench(self, node: SimNode, shards: int) -> Workbench:
        material = self.material

        async def gather(rows: NDArray[np.int64]) -> tuple[Any, Any]:
            return material.x[rows], material.y[rows]

        engine = _Engine(LocalEngine(), self.dice.faults.drift, node.index)
        return Workbench(Bench(material.manifest, material.step_graph, engine, node.fetch, node.keep, gather, shards))

    def bench(self, node: SimNode) -> Workbench:
        """The workbench of a node."""
        return self._benches[node.account]

    # -- the wire ------------------------------------------------------------------------------------------
    def reaches(self, sender: SimNode, receiver: SimNode) -> bool:
        """Whether no partition lies between two nodes."""
        return not self.dice.cut(sender.index, receiver.index, self.clock.now)

    def deliver(self, sender: SimNode, account: bytes, raw: bytes) -> None:
        """Carry bytes to a node: late, twice, or never."""
        self.messages, self.bytes = self.messages + 1, self.bytes + len(raw)
        if self.options.watch is not None:
            self.options.watch(sender, raw)
        target = self.nodes[account]
        for latency in self.dice.deliveries():
            if self.reaches(sender, target):
                self.clock.after(latency, partial(target.receive, raw))

    def certified(self, finished: Finished) -> None:
        """A node reached the end of a round: everybody must reach the same one."""
        known = self.history.setdefault(finished.round, finished)
        if known.payload != finished.payload:
            raise InternalError(f"round {finished.round} has two certificates; seed and scenario replay this")

    # -- the play ------------------------------------------------------------------------------------------
    def run(self, until: float = 3600.0) -> list[Finished]:
        """Play the job to its end or to `until` simulated seconds; raises InternalError if it did not finish."""
        rounds = self.terms.rounds
        self.play(until)
        if len(self.history) != rounds:
            raise InternalError(f"{len(self.history)} of {rounds} rounds after {self.clock.now:.0f} simulated seconds")
        return [self.history[number] for number in range(rounds)]

    def play(self, until: float) -> None:
        """Go on until the time `until`, or until all live nodes have done the job."""
        if not self._begun:
            self._begin()
        self.clock.run(until, self._all_done)

    def _begin(self) -> None:
        self._begun = True
        faults = self.dice.faults
        for node in self.by_index:
            node.keep(self.material.initial)
            if str(node.index) in faults.newcomers:
                self.clock.after(faults.newcomers[str(node.index)], partial(self._join, node))
            else:
                node.start()
        for crash in faults.crashes:
            self.clock.after(crash.at, partial(self._crash, crash))

    def _join(self, node: SimNode) -> None:
        self._enlist(node)
        node.start()

    def _all_done(self) -> bool:
        alive = [node.job for node in self.by_index if node.job is not None]
        return bool(alive) and all(job.standing.done for job in alive)

    def _crash(self, crash: Crash) -> None:
        node = self.by_index[crash.node]
        if crash.leader:
            rounds = [other.round for other in self.by_index if other.round is not None]
            if not rounds:
                return  # the job is over
            node = self.nodes[rounds[0].ballot.leader]
        node.crash()
        if crash.down:
            self.clock.after(crash.down, node.start)
