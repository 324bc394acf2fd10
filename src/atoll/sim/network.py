"""A whole network in one process and in simulated time: the very core of the nodes, with faults drawn from a seed.

Messages cross as the bytes that the real network carries; work is done by ONNX Runtime on a real graph and real data.
Only time, the network and crashes are simulated.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.errors import AtollError, InternalError, Refused, Unreachable
from atoll.graph.manifest import Manifest
from atoll.graph.session import LocalEngine, TrainResult
from atoll.node.job import Job, Terms
from atoll.sim.clock import Clock
from atoll.sim.faults import Crash, Dice, Faults
from atoll.training.beacon import tip
from atoll.training.context import HOLDER, SERVER, VALIDATOR, WORKER, Enlistment, Member, Timing
from atoll.training.events import Effect, Event, Finished, Note, Received, Send, Tick, Train
from atoll.training.opponents import attack
from atoll.training.workbench import Bench, Workbench
from atoll.wire.hashing import Domain, blob_id, keccak
from atoll.wire.identity import AccountKey
from atoll.wire.messages import unseal

DOMAIN = Domain(31337, b"\x11" * 20)
JOBS_CONTRACT = b"\x22" * 20
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

    async def train(self, graph: bytes, tensors: Any, x: Any, y: Any, first_step: int, learning_rate: float) -> TrainResult:
        result = self._local.train(graph, tensors, x, y, first_step, learning_rate)
        if not self._drift:
            return result
        noisy = {}
        for name, value in result.tensors.items():
            moved = value - tensors[name]
            noise = self._random.standard_normal(value.shape) * self._drift * np.abs(moved).mean()
            noisy[name] = (value + noise).astype(np.float32)
        return TrainResult(noisy, result.losses)


class SimNode:
    """A node of the simulated network: its core, its journal, its blobs. `crash` and `restart` lose all but the last two."""

    def __init__(self, network: Network, index: int, key: AccountKey) -> None:
        self.network, self.index, self.key = network, index, key
        self.blobs: dict[bytes, bytes] = {}
        self.journal: list[tuple[Event, float]] = []
        self.alive = False
        self.life = 0
        self.job: Job | None = None
        self.notes: list[str] = []

    @property
    def account(self) -> bytes:
        """The node's account."""
        return self.key.address

    def start(self) -> None:
        """Come alive: a fresh core, the journal folded in, unfinished work taken up again."""
        network = self.network
        self.alive, self.life = True, self.life + 1
        seed = keccak(b"seed" + self.account)
        member = Member(self.account, self.key.sign_digest, seed, keccak(b"secret" + seed), network.terms.rounds)
        self.job = Job(network.terms, network.enlisted, member, self.journal[0][1] if self.journal else network.clock.now)
        for event, time in self.journal:
            self.job.handle(event, time)
        self._carry_out(self.job.resume(network.clock.now))
        self._tick(self.life)

    def crash(self) -> None:
        """kill -9."""
        self.alive, self.job = False, None

    def handle(self, event: Event) -> None:
        """One event, at the simulated now; journalled before its effects leave."""
        if not self.alive or self.job is None:
            return
        if not isinstance(event, Tick):
            self.journal.append((event, self.network.clock.now))
        self._carry_out(self.job.handle(event, self.network.clock.now))

    def receive(self, raw: bytes) -> None:
        """Bytes from the network."""
        try:
            self.handle(Received(unseal(DOMAIN, raw)))
        except Refused as refusal:
            self.notes.append(str(refusal))

    def _tick(self, life: int) -> None:
        if self.alive and self.life == life:
            self.handle(Tick())
            self.network.clock.after(TICK_SECONDS, lambda: self._tick(life))

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    for account in to:
                        self.network.deliver(self, account, message.raw)
                case Note(text=text):
                    self.notes.append(text)
                case Finished():
                    self.network.certified(self, effect)
                case _:
                    self._work(effect)

    def _work(self, effect: Effect) -> None:
        if self.job is None or self.job.round is None:
            return
        current, context = self.job.round, self.job.round.context
        steps = self.network.material.manifest.steps if isinstance(effect, Train) else 1
        others = tuple(account for account in context.everybody if account != self.account)
        life = self.life

        def done() -> None:
            if not self.alive or self.life != life or self.job is None:
                return
            try:
                event = _now(self._event(effect, context.model, others))
            except AtollError as error:  # a peer may be back in a moment
                self.notes.append(str(error))
                if self.job.round is current:
                    self.network.clock.after(RETRY_SECONDS, done)
                return
            if event is not None:
                self.handle(event)

        self.network.clock.after(steps * SECONDS_PER_STEP * self.network.slowness[self.index], done)

    async def _event(self, effect: Effect, model: bytes, others: Sequence[bytes]) -> Event | None:
        faults = self.network.dice.faults
        bench = self.network.bench(self)
        name = faults.liars.get(str(self.index))
        if isinstance(effect, Train):
            if name is not None and not effect.audit:
                return await attack(name, bench, effect.unit, model, others)
            if effect.audit and self.index in faults.lying_auditors:
                return await attack("random", bench, effect.unit, model, others)
        return await bench.carry_out(effect, model, others)

    def keep(self, data: bytes) -> bytes:
        """Store a blob."""
        name = blob_id(data)
        self.blobs[name] = data
        return name

    async def fetch(self, name: bytes, sources: Sequence[bytes]) -> bytes:
        """A blob from here or from a live peer."""
        if name not in self.blobs:
            for account in sources:
                peer = self.network.nodes[account]
                if peer.alive and name in peer.blobs:
                    self.keep(peer.blobs[name])
                    break
            else:
                raise Unreachable(f"Nobody alive has {name.hex()[:8]}; ask again when its holder is back.")
        return self.blobs[name]


class Network:
    """So many nodes on one job; `run` plays the job and returns the certificates in order."""

    def __init__(
        self, material: Material, nodes: int, faults: Faults, seed: int, timing: Timing | None = None, stake_units: int = 0
    ) -> None:
        self.material, self.clock, self.dice = material, Clock(), Dice(faults, seed)
        self.slowness = [1.0] * nodes
        keys = [AccountKey(keccak(b"key" + seed.to_bytes(8, "big") + bytes([index]))) for index in range(nodes)]
        self.nodes = {key.address: SimNode(self, index, key) for index, key in enumerate(keys)}
        manifest = material.manifest
        everyone = tuple(sorted(self.nodes))
        roles = WORKER | VALIDATOR | HOLDER | SERVER
        stake = stake_units * manifest.policy.unit_price
        self.enlisted = {
            account: Enlistment(tip(keccak(b"seed" + account), manifest.rounds), roles, stake) for account in everyone
        }
        self.terms = Terms(
            domain=DOMAIN,
            jobs_contract=JOBS_CONTRACT,
            job=keccak(b"job" + seed.to_bytes(8, "big")),
            committee=everyone[:7],
            roster=everyone,
            model=blob_id(material.initial),
            rounds=manifest.rounds,
            segments=manifest.segments,
            unit_price=manifest.policy.unit_price,
            audit_floor=manifest.policy.audit_rate_floor,
            timing=timing or Timing(),
        )
        self.history: dict[int, Finished] = {}
        self.messages = self.bytes = 0
        self._engines = {
            account: _Engine(LocalEngine(), faults.drift, index) for index, account in enumerate(everyone)
        }
        self._benches = {account: self._make_bench(node) for account, node in self.nodes.items()}

    def _make_bench(self, node: SimNode) -> Workbench:
        material = self.material

        async def gather(rows: NDArray[np.int64]) -> tuple[Any, Any]:
            return material.x[rows], material.y[rows]

        engine = self._engines[node.account]
        bench = Bench(material.manifest, material.step_graph, engine, node.fetch, node.keep, gather, len(self.nodes))
        return Workbench(bench)

    def bench(self, node: SimNode) -> Workbench:
        """The workbench of a node."""
        return self._benches[node.account]

    def deliver(self, sender: SimNode, account: bytes, raw: bytes) -> None:
        """Carry bytes to a node, late or never."""
        target = self.nodes[account]
        self.messages, self.bytes = self.messages + 1, self.bytes + len(raw)
        if target is sender:
            self.clock.after(0, lambda: target.receive(raw))
        elif not self.dice.lost():
            self.clock.after(self.dice.latency(), lambda: target.receive(raw))

    def certified(self, node: SimNode, finished: Finished) -> None:
        """A node reached the end of a round: everybody must reach the same one."""
        known = self.history.setdefault(finished.round, finished)
        if known.payload != finished.payload:
            raise InternalError(f"round {finished.round} has two certificates; seed and scenario replay this")

    def run(self, until: float = 3600.0) -> list[Finished]:
        """Play the job to its end or to `until` simulated seconds; raises InternalError if it did not finish."""
        for node in self.nodes.values():
            node.keep(self.material.initial)
            node.start()
        for crash in self.dice.faults.crashes:
            self.clock.after(crash.at, lambda crash=crash: self._crash(crash))  # type: ignore[misc]
        rounds = self.terms.rounds
        self.clock.run(until, lambda: self._all_done() and len(self.history) == rounds)
        if len(self.history) != rounds:
            raise InternalError(f"{len(self.history)} of {rounds} rounds after {self.clock.now:.0f} simulated seconds")
        return [self.history[number] for number in range(rounds)]

    def _all_done(self) -> bool:
        return all(node.job is not None and node.job.standing.done for node in self.nodes.values() if node.alive)

    def _crash(self, crash: Crash) -> None:
        ordered = list(self.nodes.values())
        node = ordered[crash.node]
        if crash.leader:
            running = next(n for n in ordered if n.alive and n.job is not None and n.job.round is not None)
            assert running.job is not None and running.job.round is not None  # noqa: S101 - chosen so
            node = self.nodes[running.job.round.ballot.leader]
        node.crash()
        if crash.down:
            self.clock.after(crash.down, node.start)


def _now(work: Coroutine[Any, Any, Event | None]) -> Event | None:
    """Run a coroutine that never waits for anything."""
    try:
        work.send(None)
    except StopIteration as stop:
        value: Event | None = stop.value
        return value
    raise InternalError("simulated work waited for something")
