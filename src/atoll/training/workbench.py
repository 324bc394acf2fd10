"""Carries out what a round asks for: training, checking, replaying, judging, aggregating. Bytes in, events out.

Everything that it needs from outside is handed in: the engine, the blob store, and how to fetch what is missing; so
the same code runs in a node (awaiting a child process and the network) and in the simulator (where nothing waits).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atoll.errors import AtollError, EngineFailed, Refused
from atoll.graph.fixed import decode_state, encode_state, first_state
from atoll.graph.manifest import Manifest
from atoll.graph.session import Frozen, Pace
from atoll.training.aggregate.rule import aggregate, apply
from atoll.training.committee import DISPUTED
from atoll.training.compare import compare_segment, within
from atoll.training.events import (
    Aggregate,
    Aggregated,
    Effect,
    Event,
    Examine,
    Examined,
    Judge,
    Judged,
    Replayed,
    Rerun,
    Train,
    Trained,
)
from atoll.training.quantize import dequantise, update_of
from atoll.training.unit import UnitSpec, batches, shards_of
from atoll.training.verdict import ALL_AGREE, NOT_OPENED
from atoll.wire.hashing import ZERO_HASH
from atoll.wire.messages import Reveal
from atoll.wire.reasons import Reason

Floats = NDArray[np.float32]


class TrainResult(Protocol):
    """What an engine returns from training."""

    @property
    def tensors(self) -> Mapping[str, Floats]:
        """The tensors after the last step, by manifest name."""


class Engine(Protocol):
    """Runs step graphs (atoll.graph.engine in a node, atoll.graph.session in the simulator)."""

    async def train(
        self, graph: bytes, tensors: Mapping[str, Floats], x: Any, y: Any, pace: Pace, frozen: Frozen | None
    ) -> TrainResult:
        """Run one step for each row of `x` [steps, batch, ...] and `y` [steps, batch]."""


Fetch = Callable[[bytes, Sequence[bytes]], Awaitable[bytes]]
"""(blob id, accounts that should have it) -> bytes, from here if possible; raises an AtollError."""
Keep = Callable[[bytes], bytes]
"""Store bytes and return their blob id."""
Gather = Callable[[NDArray[np.int64]], Awaitable[tuple[Any, Any]]]
"""Sample indices [steps, batch] -> x [steps, batch, ...], y [steps, batch]."""


@dataclass(frozen=True)
class Bench:
    """What the work of one job needs. `shards` is into how many parts the data is cut; `frozen` never changes."""

    manifest: Manifest
    step_graph: bytes
    engine: Engine
    fetch: Fetch
    keep: Keep
    gather: Gather
    shards: int
    frozen: Frozen | None = None


class Workbench:
    """The work of one job at one node. `helpers` are asked for bytes when their owner does not answer."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        manifest = bench.manifest
        self._length = manifest.vector_length
        root = bytes.fromhex(manifest.data.root[2:])
        self._shards = shards_of(root, manifest.data.count, bench.shards, manifest.data.partition)

    async def carry_out(self, effect: Effect, model: bytes, others: Sequence[bytes]) -> Event | None:
        """Do the work of an effect and return the event that it comes back as; None if it is not work.

        `model` is the id of the round's model, `others` the accounts to ask for bytes.
        """
        match effect:
            case Train(unit=unit):
                return await self.train(unit, model, others)
            case Examine():
                return Examined(effect.key, await self._or_none(self._examine(effect, model, others)))
            case Rerun():
                return await self._rerun(effect, model, others)
            case Judge():
                return Judged(effect.key, await self._or_none(self._judge(effect, model, others)))
            case Aggregate():
                return Aggregated(effect.key, await self._or_none(self._aggregate(effect, model, others)))
        return None

    async def train(self, unit: UnitSpec, model: bytes, others: Sequence[bytes]) -> Trained:
        """Do a unit honestly, segment by segment; every state is kept until the round is over."""
        manifest = self.bench.manifest
        start = await self.bench.fetch(model, others)
        state, states = first_state(manifest, start), [model]
        for segment in range(unit.segments):
            state = await self.run_segment(unit, segment, state)
            states.append(self.bench.keep(state))
        update = update_of(state, start, self._length, manifest.update)
        return Trained(unit.id, tuple(states), self.bench.keep(update))

    async def run_segment(self, unit: UnitSpec, segment: int, state: bytes) -> bytes:
        """From one committed state to the next: the floats always start from the fixed-point state."""
        manifest = self.bench.manifest
        rows = self._batches(unit)[segment * manifest.segment : (segment + 1) * manifest.segment]
        x, y = await self.bench.gather(rows)
        tensors = decode_state(manifest, state)
        first = unit.round * manifest.steps + segment * manifest.segment
        pace = Pace(first, unit.seed, manifest.hyper.learning_rate)
        result = await self.bench.engine.train(self.bench.step_graph, tensors, x, y, pace, self.bench.frozen)
        return encode_state(manifest, result.tensors)

    def _batches(self, unit: UnitSpec) -> NDArray[np.int64]:
        manifest = self.bench.manifest
        return batches(unit, self._shards[unit.shard], unit.segments * manifest.segment, manifest.batch)

    async def _state(self, name: bytes, model: bytes, sources: Sequence[bytes]) -> bytes:
        """A state by its id; the model's id names state 0."""
        data = await self.bench.fetch(name, sources)
        return first_state(self.bench.manifest, data) if name == model else data

    async def _examine(self, effect: Examine, model: bytes, others: Sequence[bytes]) -> int:
        sources = (effect.unit.account, *others)
        update = await self.bench.fetch(effect.reveal.update, sources)
        try:
            dequantise(update, self._length, self.bench.manifest.update)
        except Refused:
            return Reason.UPDATE_MISMATCH
        if not effect.audit_states:
            return Reason.OK
        start = await self.bench.fetch(model, others)
        end = await self.bench.fetch(effect.reveal.states[-1], sources)
        audited = await self.bench.fetch(effect.audit_states[-1], sources)
        try:
            if update_of(end, start, self._length, self.bench.manifest.update) != update:
                return Reason.UPDATE_MISMATCH
            ratio = self.bench.manifest.policy.unit_tolerance
            close = within(end, audited, start, self._length, ratio.part, ratio.whole).within
        except Refused:  # one of the two is no state at all: replicas find out whose
            return DISPUTED
        return Reason.OK if close else DISPUTED

    async def _rerun(self, effect: Rerun, model: bytes, others: Sequence[bytes]) -> Replayed:
        """Each segment from the worker's own committed state, so that honest drift does not add up; then the update."""
        unit, reveal = effect.unit, effect.reveal
        sources = (unit.account, *others)
        ratio = self.bench.manifest.policy.segment_tolerance
        start = await self._state(model, model, others)
        for segment in range(unit.segments):
            try:
                claimed = await self.bench.fetch(reveal.states[segment + 1], sources)
                decode_state(self.bench.manifest, claimed)
            except (AtollError, IndexError):  # not there, or no state at all
                return Replayed(unit.id, NOT_OPENED, ZERO_HASH)
            try:
                own = await self.run_segment(unit, segment, start)
            except Refused:  # nothing finite comes out of the state that the worker committed to
                return Replayed(unit.id, NOT_OPENED, ZERO_HASH)
            if not compare_segment(claimed, own, start, self._length, ratio.part, ratio.whole).within:
                return Replayed(unit.id, segment + 1, self.bench.keep(own))
            start = claimed
        try:
            other_update = await self._differs(reveal, start, model, sources)
        except AtollError:
            return Replayed(unit.id, NOT_OPENED, ZERO_HASH)
        return Replayed(unit.id, unit.segments + 1 if other_update else ALL_AGREE, ZERO_HASH)

    async def _differs(self, reveal: Reveal, end: bytes, model: bytes, sources: Sequence[bytes]) -> bool:
        """Whether the revealed update is not that of the last state: decided in exact integers."""
        start = await self.bench.fetch(model, sources)
        update = await self.bench.fetch(reveal.update, sources)
        return update_of(end, start, self._length, self.bench.manifest.update) != update

    async def _judge(self, effect: Judge, model: bytes, others: Sequence[bytes]) -> bool:
        """The replicas are right when two of them agree with one another and the worker with neither."""
        sources, states = (effect.unit.account, *others), effect.reveal.states
        if effect.segment == effect.unit.segments + 1:
            return await self._differs(effect.reveal, await self.bench.fetch(states[-1], sources), model, sources)
        start = await self._state(states[effect.segment - 1], model, sources)
        end = await self.bench.fetch(states[effect.segment], sources)
        ratio = self.bench.manifest.policy.segment_tolerance
        limits = (self._length, ratio.part, ratio.whole)
        different = []
        for account, name in effect.replicas:
            state = await self.bench.fetch(name, (account, *sources))
            if len(state) == len(start) and not compare_segment(end, state, start, *limits).within:
                different.append(state)
        return any(
            compare_segment(first, second, start, *limits).within
            for index, first in enumerate(different)
            for second in different[index + 1 :]
        )

    async def _aggregate(self, effect: Aggregate, model: bytes, others: Sequence[bytes]) -> bytes:
        updates = [await self.bench.fetch(name, (account, *others)) for account, name in effect.updates]
        start = await self.bench.fetch(model, others)
        manifest = self.bench.manifest
        change = aggregate(updates, self._length, manifest.update, manifest.policy.aggregation)
        return self.bench.keep(apply(start, change))

    async def _or_none(self, work: Awaitable[Any]) -> Any:
        """None when bytes could not be had: the round asks again later."""
        try:
            return await work
        except EngineFailed:
            raise
        except AtollError:
            return None
