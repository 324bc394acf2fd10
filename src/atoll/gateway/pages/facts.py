"""What the dashboard is made from: the node's own pure values at one moment, gathered by `reading`, shown by the pages.

Accounts have 20 bytes, ids 32, amounts are base units, times are seconds since 1970.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from atoll.graph.manifest import Manifest
from atoll.inference.messages import Offering
from atoll.node.book import Book
from atoll.node.job import Standing, Terms
from atoll.node.peers import Peer
from atoll.node.survey import About
from atoll.node.view import JobView, View
from atoll.storage.layout import Layout
from atoll.training.context import Enlistment
from atoll.training.data.card import Card
from atoll.training.events import Finished
from atoll.training.unit import UnitSpec

Json = Any


class Missing(LookupError):
    """A page was asked for something that this gateway does not know; the text says so to a person."""


@dataclass(frozen=True)
class RoundNow:
    """The round that is under way: its units, how far it is, who audits whom."""

    number: int
    phase: str
    leader: bytes
    committee: tuple[bytes, ...]
    beacon: bytes
    model: bytes
    units: tuple[UnitSpec, ...]
    committed: frozenset[bytes] = frozenset()
    revealed: frozenset[bytes] = frozenset()
    audits: Mapping[bytes, bytes] = field(default_factory=dict)
    disputes: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Followed:
    """A job that this gateway follows: what it knows beside what the chain says."""

    terms: Terms
    standing: Standing
    enlisted: Mapping[bytes, Enlistment]
    finished: Sequence[Finished]
    scores: Mapping[int, Mapping[str, float]]
    phase: str
    end: int
    started: float
    now: RoundNow | None = None
    model: bytes = b""


@dataclass(frozen=True)
class JobFacts:
    """A job: what the chain says, and as far as they are here its manifest, its data's card and its rounds."""

    on_chain: JobView
    manifest: Manifest | None = None
    card: Card | None = None
    followed: Followed | None = None

    @property
    def id(self) -> bytes:
        """The job's id."""
        return self.on_chain.job

    @property
    def name(self) -> str:
        """What its manifest calls it, empty while that is not here."""
        return self.manifest.name if self.manifest else ""

    @property
    def finished(self) -> Sequence[Finished]:
        """The certified rounds that are known here, in order."""
        return self.followed.finished if self.followed else ()

    @property
    def behind(self) -> bool:
        """Whether the chain has certified rounds that are not known here yet."""
        return self.followed is not None and len(self.followed.finished) < self.on_chain.certified

    @property
    def scores(self) -> Mapping[int, Mapping[str, float]]:
        """Loss and metrics by round."""
        return self.followed.scores if self.followed else {}


@dataclass(frozen=True)
class Place:
    """Which network this is, and where this gateway answers. `url` is its address; `lan` says whether others reach it.

    `addresses` are this device's own, as peers reach it ("ip:port").
    """

    account: bytes
    name: str
    version: str
    rpc: str
    registry: bytes
    chain_id: int
    first_block: int
    jobs: bytes
    settlement: bytes
    token: bytes
    addresses: tuple[str, ...] = ()
    url: str = ""
    lan: bool = False


@dataclass(frozen=True)
class Held:
    """A blob on this gateway's disk."""

    id: bytes
    size: int
    pinned: bool


@dataclass(frozen=True)
class Answered:
    """Questions that this gateway asked, and answered: `record` is what `Serving.record` tells, `offers` what each
    server offered when it was last asked."""

    record: Mapping[str, Json] = field(default_factory=dict)
    offers: Mapping[bytes, Offering] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """Everything at one moment; `held` and `layouts` are read from the stores when a page asks for them."""

    now: float
    place: Place
    view: View
    book: Book
    jobs: Mapping[bytes, JobFacts] = field(default_factory=dict)
    about: Mapping[bytes, About] = field(default_factory=dict)
    heard: Mapping[bytes, float] = field(default_factory=dict)
    peers: Mapping[bytes, Peer] = field(default_factory=dict)
    posted_at: Mapping[int, float] = field(default_factory=dict)
    held: Callable[[], Sequence[Held]] = tuple
    layouts: Callable[[], Sequence[Layout]] = tuple
    answered: Callable[[], Answered] = Answered
    disk_limit: int = 0

    def name(self, account: bytes) -> str:
        """What a node calls itself, empty if it has not said."""
        about = self.about.get(account)
        if account == self.place.account and self.place.name:
            return self.place.name
        return about.name if about else ""

    @cached_property
    def _job_names(self) -> Counter[str]:
        return Counter(job.name for job in self.jobs.values())

    def label(self, job: bytes) -> str:
        """What a job is called where several are listed: with its short id if another has its name; maybe empty."""
        name = self.jobs[job].name if job in self.jobs else ""
        return f"{name} ({hexed(job)[:8]}…)" if name and self._job_names[name] > 1 else name

    @cached_property
    def tabs(self) -> frozenset[bytes]:
        """Accounts of browser tabs: those that share the endpoint key of a node, which had it first."""
        owners: dict[bytes, bytes] = {}
        if self.place.account in self.view.nodes:
            owners[self.view.nodes[self.place.account].endpoint_id] = self.place.account
        nodes = self.view.nodes.items()
        return frozenset(a for a, entry in nodes if owners.setdefault(entry.endpoint_id, a) != a)

    def named(self, account: bytes) -> dict[str, Json]:
        """An account as the twins write it."""
        return {"account": hexed(account), "name": self.name(account)}


@dataclass(frozen=True)
class ModelFacts:
    """An opened model file: what it says about itself, and its size in bytes."""

    blob: bytes
    size: int
    card: Mapping[str, Json]
    manifest: Manifest


def hexed(value: bytes) -> str:
    """Bytes as the pages and their twins write them: 0x and lower-case digits."""
    return "0x" + value.hex()


def unhexed(text: str, size: int, what: str) -> bytes:
    """The bytes that an address of a page names, with or without 0x; raises Missing."""
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != size:
        raise Missing(f"{text[:80]!r} is no {what}: expected 0x and {2 * size} hexadecimal digits.")
    return value


def counted(text: str, what: str) -> int:
    """The number that an address of a page names; raises Missing."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise Missing(f"{text[:80]!r} is no {what}: expected a number from 0 on.")
    return int(text)
