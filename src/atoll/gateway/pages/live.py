"""What changed, as it happens: `/events` tells open pages by server-sent events which topics to look at again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from atoll.gateway.guard import address_of
from atoll.gateway.pages.facts import JobFacts, Snapshot
from atoll.gateway.pages.network import SILENT_SECONDS

Json = Any
LOOK_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
STEADY_SECONDS = 10
MAX_LISTENERS = 256
MAX_PER_ADDRESS = 12
WAITING_NEWS = 32
"""News that wait for a slow listener; one that lags further is let go, and its browser connects again."""


@dataclass(frozen=True)
class Marks:
    """A state's marks: topic -> a value that differs once the topic has news; and the scores of each job."""

    topics: Mapping[str, object] = field(default_factory=dict)
    scores: Mapping[str, Mapping[int, Mapping[str, float]]] = field(default_factory=dict)


def marks_of(facts: Snapshot) -> Marks:
    """The marks of this moment. What changes all the time (uptime, traffic) is news once in STEADY_SECONDS."""
    ages = {account: facts.now - at < SILENT_SECONDS for account, at in facts.heard.items()}
    told = [(a, about.name, about.paused, ages.get(a)) for a, about in facts.about.items()]
    jobs = {f"job/0x{job.id.hex()}": _job_mark(job) for job in facts.jobs.values()}
    models = tuple(job.followed.model for job in facts.jobs.values() if job.followed)
    settled = (len(facts.view.epochs), len(facts.book.epochs), sum(facts.view.claimed.values()))
    return Marks(
        {
            "network": (
                len(facts.view.nodes),
                tuple(sorted(told)),
                frozenset(facts.view.inactive),
                facts.now // STEADY_SECONDS,
            ),
            "jobs": tuple((name, mark[:4]) for name, mark in jobs.items()),
            "settlement": settled,
            "models": models,
            "blobs": (settled[0], models, tuple(len(job.finished) for job in facts.jobs.values())),
            **jobs,
        },
        {f"0x{job.id.hex()}": dict(job.scores) for job in facts.jobs.values()},
    )


def _job_mark(job: JobFacts) -> tuple[object, ...]:
    on_chain, followed = job.on_chain, job.followed
    seen = (len(on_chain.enlisted), on_chain.certified, on_chain.end, on_chain.drawn, on_chain.budget)
    if followed is None:
        return (*seen[:3], bool(job.manifest), *seen)
    now = followed.now
    progress = (len(now.committed), len(now.revealed), len(now.audits), len(now.disputes)) if now else ()
    head = (followed.standing.round, followed.phase, on_chain.certified, len(followed.scores))
    return (*head, followed.model, progress, *seen)


def news(before: Marks, after: Marks) -> Json | None:
    """What a page is told: the topics that changed, and for each job the points that its chart should add."""
    topics = sorted(
        t for t in before.topics.keys() | after.topics.keys() if before.topics.get(t) != after.topics.get(t)
    )
    points = {
        job: [{"round": number, **found} for number, found in sorted(scores.items()) if number not in old]
        for job, scores in after.scores.items()
        if len(scores) > len(old := before.scores.get(job, {}))
    }
    return {"topics": topics, "points": points} if topics or points else None


class Feed:
    """One look at the node for all listeners, as long as there are any."""

    def __init__(self, read: Callable[[], Snapshot], look_seconds: float = LOOK_SECONDS) -> None:
        self._read, self._look = read, look_seconds
        self._listeners: dict[asyncio.Queue[str | None], str] = {}
        self._looking: asyncio.Task[None] | None = None

    async def answer(self, request: Request) -> Response:
        """`GET /events`."""
        address = address_of(request.client.host if request.client else None)
        counts = Counter(self._listeners.values())
        if len(self._listeners) >= MAX_LISTENERS or counts[address] >= MAX_PER_ADDRESS:
            return PlainTextResponse("Too many pages listen already; this one is refreshed by hand.\n", 503)
        return StreamingResponse(
            self._stream(address), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _stream(self, address: str) -> AsyncIterator[str]:
        queue: asyncio.Queue[str | None] = asyncio.Queue(WAITING_NEWS)
        self._listeners[queue] = address
        if self._looking is None:
            self._looking = asyncio.create_task(self._watch())
        try:
            yield "retry: 2000\nevent: hello\ndata: {}\n\n"
            while True:
                text: str | None = ""
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        text = await queue.get()
                if text is None:
                    return
                yield f"data: {text}\n\n" if text else ": still here\n\n"
        finally:
            self._listeners.pop(queue, None)
            if not self._listeners and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _watch(self) -> None:
        try:
            before = marks_of(self._read())
            while True:
                await asyncio.sleep(self._look)
                after = marks_of(self._read())
                found = news(before, after)
                if found is not None:
                    self._tell(json.dumps(found, separators=(",", ":")))
                before = after
        finally:  # whatever ended it: who still listens is let go, and connects again
            if self._looking is asyncio.current_task():
                self._looking = None
                for queue in list(self._listeners):
                    _let_go(queue)

    def _tell(self, text: str) -> None:
        for queue in list(self._listeners):
            if queue.full():
                _let_go(queue)
            else:
                queue.put_nowait(text)


def _let_go(queue: asyncio.Queue[str | None]) -> None:
    """End a listener's stream, whatever still waits for it."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)
