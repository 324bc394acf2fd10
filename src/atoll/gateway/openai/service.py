"""What a request is answered with: the models, the keys, the counters; and one answer as it is made and counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import msgspec

from atoll.errors import UnknownModel
from atoll.gateway.openai.faults import ApiError
from atoll.gateway.openai.keys import ApiKey, Keys
from atoll.gateway.openai.metrics import Gauges, Meter
from atoll.gateway.openai.slots import Room, Slots
from atoll.inference.answers import Answers, ModelInfo, Piece, Served, Stream, TokenLogprob

JSON = "application/json"
REMEMBERED = 256  # models

Made = TypeVar("Made")


@dataclass(frozen=True)
class Service:
    """Everything that endpoints share. `now`: seconds since 1970; `clock`: seconds that only grow; `fresh`: chance;
    `started`: when the server began, in seconds since 1970."""

    answers: Answers
    keys: Keys
    meter: Meter
    slots: Slots
    room: Room
    now: Callable[[], float]
    clock: Callable[[], float]
    fresh: Callable[[], str]
    started: int = 0
    gauges: Gauges = field(default_factory=dict)
    seen: dict[str, ModelInfo] = field(default_factory=dict)

    def model(self, name: str) -> ModelInfo:
        """A model of the list by its id or the hash of its file; raises UnknownModel.

        To make the whole list takes its time, and what is found by a hash never changes: that is remembered.
        """
        found = self.seen.get(name)
        if found is None:
            found = self._listed(name)
            if name == found.blob and len(self.seen) < REMEMBERED:
                self.seen[name] = found
        return found

    def _listed(self, name: str) -> ModelInfo:
        known = self.answers.models()
        blob = name.strip().lower().removeprefix("0x")
        found = next((one for one in known if name == one.id or (one.blob and blob == one.blob)), None)
        if found is None:
            shown = ", ".join(one.id for one in known[:8]) or "none"
            raise UnknownModel(f"There is no model {name!r:.80} here; the models are: {shown}.")
        return found


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    body: bytes
    media: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Flow:
    """An answer that is sent as it is made: server-sent events. What is wrong before the first event is raised there;
    `failed` makes the event that tells of an error after it."""

    events: AsyncGenerator[bytes]
    failed: Callable[[ApiError], bytes]


@dataclass(frozen=True)
class Call:
    """One request that was let in: `began` on the service's clock, with the key that pays."""

    service: Service
    endpoint: str
    began: float
    key: ApiKey | None = None

    @property
    def created(self) -> int:
        """Now, in seconds since 1970."""
        return int(self.service.now())

    def fresh(self, prefix: str) -> str:
        """A new id."""
        return f"{prefix}-{self.service.fresh()}"

    def used(self, model: str, prompt: int, answer: int, served: Served) -> None:
        """Count what a model did, and let the key pay."""
        self.service.meter.used(model, prompt, answer, served)
        if self.key is not None:
            self.service.keys.spend(self.key, served.cost)

    async def whole(self, work: Coroutine[Any, Any, Made], count: Callable[[Made], None]) -> Made:
        """What a model makes at once, counted by `count`.

        For a key it is brought to its end when the client has gone: a server is paid for it, and only its end tells
        how much.
        """
        task = asyncio.ensure_future(work)
        try:
            made = await (task if self.key is None else asyncio.shield(task))
        except asyncio.CancelledError:
            count(await task)
            raise
        count(made)
        return made


Answer = Callable[[Call, Any], Awaitable[Reply | Flow]]


def reply(content: msgspec.Struct, served: Served | None = None) -> Reply:
    """A whole answer in JSON; its headers tell who answered, what it cost and whether it was checked."""
    return Reply(msgspec.json.encode(content), JSON, {} if served is None else headers_of(served))


def headers_of(served: Served) -> dict[str, str]:
    """The headers that tell of an answer what its field `atoll` tells."""
    return {"x-atoll-node": served.node, "x-atoll-cost": str(served.cost), "x-atoll-checked": served.checked}


def event(content: msgspec.Struct | Mapping[str, Any], name: str = "") -> bytes:
    """A server-sent event with JSON in it."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(content) + b"\n\n"


def together(parts: Sequence[Served]) -> Served:
    """Several answers as one: the last one's node, the sum of the costs, checked only if all were."""
    order = ("no", "yes", "local")
    checked = min((part.checked for part in parts), key=order.index)
    return Served(parts[-1].node, sum(part.cost for part in parts), checked)


class Whole(NamedTuple):
    """All that a language model said: the text, the last piece (None if there was no piece), all log-probabilities."""

    text: str
    last: Piece | None
    logprobs: list[TokenLogprob]


class Asked:
    """A language model at work: its pieces, counted. As a context manager it stops the model at the end, whatever
    the end is, and lets the key pay for what was done."""

    def __init__(self, call: Call, model: str, stream: Stream) -> None:
        self._call, self._model, self._stream = call, model, stream
        self._counted = 0
        self._begun = False

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the model read."""
        return self._stream.prompt_tokens

    @property
    def tokens(self) -> int:
        """How many tokens the model wrote; of an answer that was stopped, as many as are known of."""
        return self._stream.completion_tokens or self._counted

    @property
    def served(self) -> Served:
        """Who answered; final at the end."""
        return self._stream.served

    async def __aenter__(self) -> Asked:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stream.aclose()
        if self._begun or self.served.cost:  # a server may have made more than has arrived
            self._call.used(self._model, self.prompt_tokens, self.tokens, self.served)

    async def whole(self) -> Whole:
        """The answer at its end; then the model is stopped and paid."""
        text, last, logprobs = [], None, list[TokenLogprob]()
        async with self:
            async for last in self:
                text.append(last.text)
                logprobs += last.logprobs or ()
        return Whole("".join(text), last, logprobs)

    def __aiter__(self) -> Asked:
        """The pieces in order, once."""
        self._pieces = aiter(self._stream)
        return self

    async def __anext__(self) -> Piece:
        piece = await anext(self._pieces)
        if not self._begun:
            call, self._begun = self._call, True
            call.service.meter.began(call.endpoint, call.service.clock() - call.began)
        self._counted += len(piece.tokens) or bool(piece.text)
        return piece
