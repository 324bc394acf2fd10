"""Bytes sent and received, by peer and by room: what the dashboard shows, and what receipts will be checked against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Traffic:
    """Bytes sent (`up`) and received (`down`)."""

    up: int = 0
    down: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.up + other.up, self.down + other.down)


@dataclass(frozen=True)
class Meter:
    """A running count; `add` returns the next one. Keys are (peer's account or endpoint id, room)."""

    counts: Mapping[tuple[bytes, str], Traffic] = field(default_factory=dict)

    def add(self, peer: bytes, room: str, up: int = 0, down: int = 0) -> Meter:
        """The meter after `up` more bytes sent to, and `down` more received from, a peer for a room's protocol."""
        if up < 0 or down < 0:
            raise ValueError("bytes are counted upwards only")
        key = peer, room
        return Meter({**self.counts, key: self.counts.get(key, Traffic()) + Traffic(up, down)})

    def merge(self, other: Meter) -> Meter:
        """Both meters' counts together."""
        merged = dict(self.counts)
        for key, traffic in other.counts.items():
            merged[key] = merged.get(key, Traffic()) + traffic
        return Meter(merged)

    def total(self) -> Traffic:
        """All bytes."""
        return sum(self.counts.values(), Traffic())

    def by_peer(self) -> dict[bytes, Traffic]:
        """Bytes by peer, over all rooms."""
        return self._grouped(lambda key: key[0])

    def by_room(self) -> dict[str, Traffic]:
        """Bytes by room, over all peers."""
        return self._grouped(lambda key: key[1])

    def _grouped(self, name: Callable[[tuple[bytes, str]], _Key]) -> dict[_Key, Traffic]:
        sums: dict[_Key, Traffic] = {}
        for key, traffic in self.counts.items():
            sums[name(key)] = sums.get(name(key), Traffic()) + traffic
        return sums
