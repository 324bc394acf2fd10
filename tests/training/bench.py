"""A workbench on a real graph and the bundled images; blobs lie in a dictionary."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from atoll.errors import Unreachable
from atoll.graph.session import LocalEngine, TrainResult
from atoll.sim.network import Material
from atoll.sim.scenario import material
from atoll.training.unit import UnitSpec
from atoll.training.workbench import Bench, Workbench
from atoll.wire.hashing import Domain, blob_id, keccak

Value = TypeVar("Value")

SHARDS = 5
DOMAIN = Domain(31337, b"\x11" * 20)
ACCOUNTS = [keccak(b"worker %d" % index)[:20] for index in range(4)]


@cache
def softmax() -> Material:
    return material("softmax", 2)


class Here:
    """The engine in this process, where a node has it in a child."""

    def __init__(self) -> None:
        self._local = LocalEngine()

    async def train(self, *arguments: Any) -> TrainResult:
        return self._local.train(*arguments)


class Shelf:
    """Blobs; `asked` records who was asked for what was not there."""

    def __init__(self) -> None:
        self.blobs: dict[bytes, bytes] = {}
        self.asked: list[tuple[bytes, tuple[bytes, ...]]] = []
        self.bench = Workbench(
            Bench(softmax().manifest, softmax().step_graph, Here(), self.fetch, self.keep, self.gather, SHARDS)
        )
        self.model = self.keep(softmax().initial)

    def keep(self, data: bytes) -> bytes:
        self.blobs[blob_id(data)] = data
        return blob_id(data)

    async def fetch(self, name: bytes, sources: Sequence[bytes]) -> bytes:
        if name not in self.blobs:
            self.asked.append((name, tuple(sources)))
            raise Unreachable("nobody has it")
        return self.blobs[name]

    async def gather(self, rows: NDArray[np.int64]) -> tuple[Any, Any]:
        return softmax().x[rows], softmax().y[rows]


def unit(index: int = 0, number: int = 0, segments: int = 2) -> UnitSpec:
    return UnitSpec(DOMAIN, keccak(b"job"), number, index, ACCOUNTS[index], index, keccak(b"beacon"), segments)


def vector(state: bytes) -> NDArray[np.int64]:
    """The certified part of a state or model of the softmax model."""
    return np.frombuffer(state, "<i4", count=softmax().manifest.vector_length).astype(np.int64)


def run(work: Coroutine[Any, Any, Value]) -> Value:
    return asyncio.run(work)
