"""A unit of work: who trains on which samples in which order; and what a worker or auditor binds itself to.

Everything follows from the round's assignment beacon, so any node can recompute any unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atoll.graph.manifest import Partition
from atoll.wire.generator import Generator
from atoll.wire.hashing import Domain, Tag, tagged, u32
from atoll.wire.merkle import MerkleTree

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class UnitSpec:
    """One worker's share of a round. `index` is its place in the round's list, `shard` its part of the data.

    `segments` is how many segments it is trained: all of the job's, or one for a light worker. It follows from the
    account's roles on the chain, so the id need not bind it.
    `id` = tagged(UNIT, domain, job, u32 round, beacon, u32 index, account, u32 shard): 32 bytes.
    """

    domain: Domain
    job: bytes
    round: int
    index: int
    account: bytes
    shard: int
    beacon: bytes
    segments: int
    id: bytes = field(init=False)

    @property
    def seed(self) -> int:
        """What the step graph's own random numbers (dropout) start from: 31 bits of the unit's id."""
        return int.from_bytes(self.id[:4], "big") >> 1

    def __post_init__(self) -> None:
        place = (self.domain.encode(), self.job, u32(self.round), self.beacon)
        name = tagged(Tag.UNIT, *place, u32(self.index), self.account, u32(self.shard))
        object.__setattr__(self, "id", name)


def assign_units(
    domain: Domain,
    job: bytes,
    round_number: int,
    beacon: bytes,
    workers: Sequence[bytes],
    shards: int,
    segments: Sequence[int],
) -> list[UnitSpec]:
    """One unit for each worker, in the order given, of as many segments; which shard is drawn from the beacon.

    Shards are dealt from one permutation of 0..shards-1 after another, so no shard is dealt twice before every one was
    dealt once. Raises ValueError for no shard, for a worker that is named twice, or for a unit without a
    number of segments.
    """
    if shards < 1:
        raise ValueError("a round needs at least one shard")
    if len(set(workers)) != len(workers):
        raise ValueError("a worker takes one unit a round")
    generator = Generator(beacon, b"shards" + domain.encode() + job + u32(round_number))
    dealt: list[int] = []
    while len(dealt) < len(workers):
        dealt += generator.permutation(shards).tolist()
    return [
        UnitSpec(domain, job, round_number, index, account, shard, beacon, count)
        for index, (account, shard, count) in enumerate(zip(workers, dealt[: len(workers)], segments, strict=True))
    ]


def shards_of(root: bytes, count: int, shards: int, partition: Partition = "shuffled") -> list[Indices]:
    """Sample indices of each shard: int64 arrays whose lengths differ by one at most.

    Samples 0..count-1 are put in an order drawn from the data's Merkle root, fixed for the data set, or keep their own
    if the partition is `ordered`; shard i is the range [i * count // shards, (i + 1) * count // shards) of it. Raises
    ValueError unless 1 <= shards <= count.
    """
    if not 1 <= shards <= count:
        raise ValueError(f"{count} samples cannot make {shards} shards")
    ordered = partition == "ordered"
    order = np.arange(count, dtype=np.int64) if ordered else Generator(root, b"samples").permutation(count)
    return [order[i * count // shards : (i + 1) * count // shards] for i in range(shards)]


def batches(unit: UnitSpec, shard: Indices, steps: int, batch: int) -> Indices:
    """Sample indices of each step: int64 [steps, batch].

    Shuffles of the shard drawn from (beacon, unit id), one after another: each sample is seen once before any is seen
    again. Raises ValueError for an empty shard.
    """
    if not len(shard):
        raise ValueError("a shard without samples")
    generator = Generator(unit.beacon, unit.id)
    epochs = [shard[generator.permutation(len(shard))] for _ in range(-(-steps * batch // len(shard)))]
    order = np.concatenate(epochs) if epochs else shard[:0]
    return order[: steps * batch].reshape(steps, batch).astype(np.int64)


def states_root(states: Sequence[bytes]) -> bytes:
    """Merkle root over the ids of a unit's states, state 0 first."""
    return MerkleTree(states).root


def commit_hash(
    domain: Domain, job: bytes, round_number: int, unit: bytes, account: bytes, root: bytes, update: bytes, salt: bytes
) -> bytes:
    """What is committed to before anything is revealed: tagged(COMMIT, domain, job, u32 round, unit, account, ...).

    `unit` is the unit's id (it binds the beacon), `account` whoever did the work (worker or auditor), `root` the
    `states_root`, `update` the update's id. The attempt is left out on purpose: a new committee takes over the same
    commits, and a worker whose leader fails need not do anything again.
    """
    return tagged(Tag.COMMIT, domain.encode(), job, u32(round_number), unit, account, root, update, salt)
