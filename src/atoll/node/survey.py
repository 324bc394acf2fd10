"""What nodes tell about themselves to whoever asks: resources, versions, and how good a job's models are.

Nothing of it is signed into a certificate or paid for: it is shown, never trusted.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Annotated

import msgspec

from atoll import __version__
from atoll.errors import AtollError, Refused
from atoll.node.settler import PEER_ALPN
from atoll.wire import rpc
from atoll.wire.reasons import Reason
from atoll.wire.rpc import Hash, Request

if TYPE_CHECKING:
    from atoll.node.daemon import Node

ASKED_AT_ONCE = 16
EVERY_SECONDS = 2.0
LOOK_SECONDS = 60.0
MAX_JOBS = 64
MAX_ROUNDS = 1024

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Text = Annotated[str, msgspec.Meta(max_length=64)]
Scores = Annotated[dict[Text, float], msgspec.Meta(max_length=16)]


class About(msgspec.Struct, frozen=True, array_like=True):
    """One node in its own words. Sizes in bytes unless the name says MB (2^20); `uptime` in seconds.

    `graded` tells for which jobs it knows scores: job -> highest round; `models` where it says that the model of a job
    is stored: job -> blob id.
    """

    name: Annotated[str, msgspec.Meta(max_length=40)]
    version: Annotated[str, msgspec.Meta(max_length=32)]
    roles: Annotated[int, msgspec.Meta(ge=0, lt=256)]
    cpu_threads: Count
    memory_mb: Count
    disk_mb: Count
    stored_blobs: Count
    stored_pieces: Count
    samples: Count
    up: Count
    down: Count
    uptime: Count
    paused: bool
    graded: Annotated[dict[Hash, Count], msgspec.Meta(max_length=MAX_JOBS)]
    models: Annotated[dict[Hash, Hash], msgspec.Meta(max_length=MAX_JOBS)]


class Describe(Request, frozen=True, tag=4):
    """Asks for the receiver's `About`."""


class Graded(Request, frozen=True, tag=5):
    """Asks for the scores of a job's rounds from `first` on: {round: {"loss": …, metric: …}}, at most 1,024 rounds."""

    job: Hash
    first: Count


def about(node: Node) -> About:
    """What this node says of itself."""
    settings, traffic = node.settings, node.network.meter.total()
    scores = [(job, max(known)) for job, known in node.jobs.scores.items() if known]
    return About(
        name=settings.name,
        version=__version__,
        roles=node.roles,
        cpu_threads=settings.cpu_threads,
        memory_mb=settings.memory_mb,
        disk_mb=settings.disk_mb,
        stored_blobs=node.blobs.total_bytes,
        stored_pieces=node.pieces.total_bytes,
        samples=sum(len(data) for data in node.library.shared),
        up=traffic.up,
        down=traffic.down,
        uptime=int(time.time() - node.started),
        paused=node.paused,
        graded=dict(scores[-MAX_JOBS:]),
        models=dict(list(node.jobs.models.items())[-MAX_JOBS:]),
    )


def scores_from(node: Node, request: Graded) -> bytes:
    """The response to `Graded`."""
    known = sorted(node.jobs.scores.get(request.job, {}).items())
    wanted = [(number, found) for number, found in known if number >= request.first]
    return rpc.encode_body(dict(wanted[:MAX_ROUNDS]))


class Survey:
    """A gateway's picture of the others: `about` by account, refreshed every few seconds."""

    def __init__(self, node: Node, every_seconds: float = EVERY_SECONDS) -> None:
        self._node, self._every = node, every_seconds
        self.about: dict[bytes, About] = {}
        self.heard: dict[bytes, float] = {}  # when an account answered last, in seconds since 1970
        self._answering: set[bytes] = set()
        self._looked: dict[tuple[bytes, bytes], float] = {}  # (account, job) -> when its word about a model was checked

    async def run(self) -> None:
        """Until cancelled: ask everybody, over and over.

        Who answered last time is asked apart from the rest: nodes that are gone take long to be given up, and many of
        them must not keep this one from hearing of the others.
        """
        await asyncio.gather(self._ask_over_and_over(answering=True), self._ask_over_and_over(answering=False))

    async def _ask_over_and_over(self, answering: bool) -> None:
        slots = asyncio.Semaphore(ASKED_AT_ONCE)

        async def one(account: bytes) -> None:
            async with slots:
                try:
                    await self._ask(account)
                    self._answering.add(account)
                except AtollError:
                    self._answering.discard(account)

        while True:
            reached = self._node.directory.reached()
            await asyncio.gather(*(one(account) for account in reached if (account in self._answering) == answering))
            await asyncio.sleep(self._every)

    async def _ask(self, account: bytes) -> None:
        found = rpc.decode_body(About, await self._request(account, Describe()))
        self.about[account], self.heard[account] = found, time.time()
        for job, latest in found.graded.items():
            scores, over = self._node.jobs.scores.get(job), len(self._node.jobs.finished.get(job, ()))
            if scores is not None and latest not in scores and latest < over:  # of rounds that are over, and no others
                first = max(scores, default=-1) + 1
                answer = await self._request(account, Graded(job, min(first, latest)))
                kind = Annotated[dict[Count, Scores], msgspec.Meta(max_length=MAX_ROUNDS)]
                for number, told in rpc.decode_body(kind, answer).items():
                    if not all(map(math.isfinite, told.values())):
                        raise Refused(Reason.MALFORMED, "a score is no finite number")
                    if number < over:
                        scores.setdefault(number, told)

        for job, blob in found.models.items():
            self._look(account, job, blob)

    def _look(self, account: bytes, job: bytes, blob: bytes) -> None:
        """Check where the model of a finished job is said to be; whoever is wrong is believed again after a while."""
        jobs, now = self._node.jobs, time.time()
        if job in jobs.models or job not in jobs.finished or now < self._looked.get((account, job), 0) + LOOK_SECONDS:
            return
        self._looked[account, job] = now
        self._node.spawn(jobs.check_stored(job, blob))

    async def _request(self, account: bytes, request: Request) -> bytes:
        return rpc.decode_response(await self._node.network.ask(account, PEER_ALPN, rpc.encode_body(request)))
