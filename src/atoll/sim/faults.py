"""What goes wrong in a simulated network, drawn from one seed: loss, delay, crashes, slow devices, liars."""

from __future__ import annotations

import random
from typing import Literal

import msgspec


class Crash(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Node `node` dies at `at` seconds and comes back after `down` seconds (never if 0).

    With `leader` set, it is not `node` but whoever leads at that time that dies.
    """

    at: float
    node: int = 0
    down: float = 0.0
    leader: bool = False


class Partition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From `at` until `until`, the nodes listed hear only one another, and nobody else hears them."""

    at: float
    until: float
    nodes: tuple[int, ...]


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`drop` is the chance that a message is lost, `duplicate` that it arrives twice; `delay` the mean one-way latency
    in seconds (exponential, so that messages overtake one another).

    `drift` is the relative noise that each device adds to what it computes (CPUs differ); `slow` maps node -> how many
    times slower than the others it computes; `liars` maps node -> attack; `lying_auditors` are honest workers that
    report noise when they audit; `withholders` hand out none of their states; `newcomers` maps node -> the second at
    which it enlists (the others are there from the start). Nodes are numbers, as text where TOML wants keys.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.02
    drift: float = 0.0
    crashes: tuple[Crash, ...] = ()
    partitions: tuple[Partition, ...] = ()
    slow: dict[str, float] = {}
    liars: dict[str, Literal["random", "lazy"]] = {}
    lying_auditors: tuple[int, ...] = ()
    withholders: tuple[int, ...] = ()
    newcomers: dict[str, float] = {}


class Dice:
    """Draws faults; the same seed draws the same faults."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self.faults = faults
        self._random = random.Random(seed)  # noqa: S311 - simulated faults need repeatability, not secrecy

    def deliveries(self) -> list[float]:
        """Latencies in seconds after which the next message arrives: none if it is lost, two if it is duplicated."""
        if self._random.random() < self.faults.drop:
            return []
        copies = 2 if self._random.random() < self.faults.duplicate else 1
        return [self._latency() for _ in range(copies)]

    def _latency(self) -> float:
        return self._random.expovariate(1 / self.faults.delay) if self.faults.delay else 0.0

    def cut(self, first: int, second: int, now: float) -> bool:
        """Whether a partition lies between two nodes."""
        between = (p for p in self.faults.partitions if p.at <= now < p.until)
        return any((first in p.nodes) != (second in p.nodes) for p in between)
