"""What the tests of the API ask: small models that need no runtime, and a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette

from atoll.errors import BadInput, EngineFailed, Refused, UnknownModel
from atoll.gateway.openai.api import Limits, make_routes
from atoll.gateway.openai.keys import Keys
from atoll.inference.answers import (
    LOCAL,
    Answers,
    Candidate,
    Embedded,
    Message,
    ModelInfo,
    Piece,
    Sampling,
    Served,
    TokenLogprob,
)
from atoll.inference.local.device import LocalAnswers
from atoll.inference.local.shelf import Shelf
from atoll.wire.reasons import Reason
from tests.inference.local.files import model_bytes

PAID = Served("0x" + "ab" * 20, 3 * 10**18 + 7, "yes")
CONTEXT = 64  # words


@dataclass
class Words:
    """A stream that says the words of a text one after the other. `gate`, if there is one, is awaited before each
    word but the first; `held` tells that the second word waits there."""

    text: Callable[[], Sequence[str]]
    sampling: Sampling
    prompt: int
    served: Served
    gate: asyncio.Semaphore | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    async def __aiter__(self) -> AsyncIterator[Piece]:
        words = list(self.text())[: self.sampling.max_tokens]
        self.prompt_tokens = self.prompt
        for index, word in enumerate(words):
            if index and self.gate is not None:
                self.held.set()
                await self.gate.acquire()
            yield Piece(word, (index,), self._logprobs(word))
        self.completion_tokens = len(words)
        yield Piece("", (), (), "length" if len(words) == self.sampling.max_tokens else "stop")

    def _logprobs(self, word: str) -> tuple[TokenLogprob, ...] | None:
        if not self.sampling.top_logprobs:
            return None
        likely = [Candidate(index, word * (index + 1), -0.5 - index) for index in range(self.sampling.top_logprobs)]
        return (TokenLogprob(likely[0], tuple(likely)),)

    async def aclose(self) -> None:
        self.closed.set()


@dataclass
class Echo:
    """Models that need no runtime: `echo` says the last message word by word, `paid` does so for money, `broken`
    fails after a word, `poor` finds nobody to answer, `counts` makes vectors of counts, `brightness` tells dark
    pictures from bright ones."""

    gate: asyncio.Semaphore | None = None
    streams: asyncio.Queue[Words] = field(default_factory=asyncio.Queue)
    kinds: ClassVar[dict[str, str]] = {
        "echo": "language", "paid": "language", "broken": "language", "poor": "language",
        "counts": "embedding", "brightness": "classifier",
    }  # fmt: skip

    def models(self) -> Sequence[ModelInfo]:
        card = {"input": {"shape": [1, 4, 4], "dtype": "uint8"}, "labels": ["dark", "bright"]}
        return [
            ModelInfo(name, kind, "", 1, "CC0-1.0", card if kind == "classifier" else {}, CONTEXT)  # type: ignore[arg-type]
            for name, kind in self.kinds.items()
        ]

    def _check(self, model: str, kind: str) -> None:
        if model not in self.kinds:
            raise UnknownModel(f"No model is called {model!r}: expected {', '.join(self.kinds)}.")
        if self.kinds[model] != kind:
            raise BadInput(f"The model {model} is of another kind: {self.kinds[model]}.")

    async def classify(self, model: str, x: NDArray[Any]) -> tuple[NDArray[np.float32], Served]:
        self._check(model, "classifier")
        bright = x.reshape(len(x), -1).mean(axis=1) / 255
        return np.stack([1 - bright, bright], axis=1).astype(np.float32), LOCAL

    async def embed(self, model: str, texts: Sequence[str]) -> Embedded:
        self._check(model, "embedding")
        rows = [[len(text), text.count(" "), 0.1] for text in texts]
        return Embedded(np.array(rows, np.float32), sum(len(text.split()) for text in texts), LOCAL)

    def chat(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Words:
        return self._stream(model, messages[-1].content, sum(len(one.content.split()) for one in messages), sampling)

    def complete(self, model: str, prompt: str, sampling: Sampling) -> Words:
        return self._stream(model, prompt, len(prompt.split()), sampling)

    def _stream(self, model: str, text: str, prompt: int, sampling: Sampling) -> Words:
        def words() -> Iterator[str]:
            self._check(model, "language")
            if model == "poor":
                raise Refused(Reason.OVER_BUDGET, "no server answers for 5 base units")
            for index, word in enumerate(text.split()[:CONTEXT]):
                if model == "broken" and index:
                    raise EngineFailed("the process of broken ended")
                yield word if not index else f" {word}"

        said: Callable[[], Sequence[str]] = lambda: list(words())  # noqa: E731
        stream = Words(said, sampling, prompt, PAID if model == "paid" else LOCAL, self.gate)
        if model == "broken":
            stream = Broken(said, sampling, prompt, LOCAL)
        self.streams.put_nowait(stream)
        return stream


@dataclass
class Broken(Words):
    """Says one word and fails."""

    async def __aiter__(self) -> AsyncIterator[Piece]:
        yield Piece("once ")
        raise EngineFailed("the process of broken ended")


def make_app(answers: Answers, home: Path, limits: Limits | None = None) -> Starlette:
    """The API alone."""
    return Starlette(routes=make_routes(answers, Keys(home), limits=limits, gauges={"tabs": lambda: 3}))


class Quiet(uvicorn.Server):
    """A server that leaves the signals to the tests."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listening() -> socket.socket:
    """A socket on loopback. It names its protocol, as asyncio sends small parts at once (TCP_NODELAY) only then."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


@contextlib.contextmanager
def served(make: Callable[[], AbstractAsyncContextManager[Starlette]]) -> Iterator[str]:
    """A real server on loopback, in a thread with its own loop, in which the app is made; its URL."""
    listener = listening()
    begun: Future[Quiet] = Future()

    async def run() -> None:
        async with make() as app:
            config = uvicorn.Config(
                app, log_config=None, log_level="critical", access_log=False, lifespan="off", ws="none",
                timeout_graceful_shutdown=1,
            )  # fmt: skip
            server = Quiet(config)
            begun.set_result(server)
            await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    server = begun.result(60)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@contextlib.asynccontextmanager
async def local_models(home: Path) -> AsyncIterator[Starlette]:
    """The API on the models of this device: the small language model, the sentence encoder, a classifier."""
    device = LocalAnswers(Shelf(home / "models"))
    await device.add(model_bytes("cnn"))
    try:
        yield make_app(device, home)
    finally:
        await device.close()


def as_is(app: Starlette) -> Callable[[], AbstractAsyncContextManager[Starlette]]:
    """For an app that needs nothing to be made or ended."""
    return lambda: contextlib.nullcontext(app)
