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


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`drop` is the chance that a message is lost; `delay` the mean one-way latency in seconds (exponential).

    `drift` is the relative noise that each device adds to what it computes (CPUs differ); `liars` maps node -> attack;
    `lying_auditors` are honest workers that report noise when they audit.
    """

    drop: float = 0.0
    delay: float = 0.02
    drift: float = 0.0
    crashes: tuple[Crash, ...] = ()
    liars: dict[str, Literal["random", "lazy"]] = {}
    lying_auditors: tuple[int, ...] = ()


class Dice:
    """Draws faults; the same seed draws the same faults."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self.faults = faults
        self._random = random.Random(seed)  # noqa: S311 - simulated faults need repeatability, not secrecy

    def lost(self) -> bool:
        """Whether the next message is lost."""
        return self._random.random() < self.faults.drop

    def latency(self) -> float:
        """One-way latency of the next message in seconds."""
        return self._random.expovariate(1 / self.faults.delay) if self.faults.delay else 0.0
