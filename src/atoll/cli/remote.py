"""Models of other nodes as the commands ask them: through the running node of this device, for money (`Answers`)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.cli import homes
from atoll.errors import AtollError, NotRunning, UnknownModel
from atoll.inference.answers import MEMORY_OF_FILE, Embedded, Message, ModelInfo, Piece, Sampling, Served, Stream
from atoll.node.control import ControlClient

Json = Any
ANSWER_SECONDS = 900.0
MORE_SECONDS = 60.0
MEMORY_FILE = Path("/proc/meminfo")


class NodeAnswers:
    """What a node of this device gets answered by others."""

    def __init__(self, home: Path) -> None:
        self._client = ControlClient(home)

    @classmethod
    def find(cls, home: Path, model: str) -> tuple[NodeAnswers, ModelInfo]:
        """The first running node of a home, and the model as servers offer it; NotRunning, UnknownModel."""
        try:
            at, found = homes.ask_from(home, "offered", {"model": named(model)}, MORE_SECONDS)
        except NotRunning as error:
            raise NotRunning(
                f"--remote asks through a running node, and none runs in {home}: start one with `atoll node` or "
                "`atoll up`, or name its folder with --home."
            ) from error
        return cls(at), _info(found)

    async def offered(self, model: str, seconds: float = 0.0) -> ModelInfo:
        """The model as servers offer it; UnknownModel if none does so within this time."""
        end = time.monotonic() + seconds
        while True:
            try:
                return _info(await self._client.call("offered", timeout=MORE_SECONDS, model=named(model)))
            except UnknownModel:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(0.5)

    async def classify(self, model: str, x: NDArray[Any]) -> tuple[NDArray[np.float32], Served]:
        """Scores float32 [n, ...] of inputs x [n, ...]."""
        data = np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()
        params = {"inputs": base64.b64encode(data).decode(), "dtype": str(x.dtype), "shape": list(x.shape)}
        found = await self._client.call("classify", timeout=ANSWER_SECONDS, model=model, **params)
        return np.array(found["scores"], np.float32), served_of(found)

    async def embed(self, model: str, texts: Sequence[str]) -> Embedded:
        """Vectors of texts."""
        found = await self._client.call("embed", timeout=ANSWER_SECONDS, model=model, texts=list(texts))
        return Embedded(np.array(found["vectors"], np.float32), found["tokens"], served_of(found))

    def chat(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Stream:
        """The next turn of a conversation."""
        return _Talk(self._client, model, messages, sampling)


class _Talk:
    """A text that is collected in parts (`answers.Stream`)."""

    def __init__(self, client: ControlClient, model: str, messages: Sequence[Message], sampling: Sampling) -> None:
        self.prompt_tokens = self.completion_tokens = 0
        self.served = Served("", 0, "no")
        self._client, self._name = client, ""
        self._asked: dict[str, Any] = {
            "model": model,
            "turns": [[one.role, one.content] for one in messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        }
        self._pieces = self._run()

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self._pieces

    async def _run(self) -> AsyncGenerator[Piece, None]:
        self._name = (await self._client.call("chat", **self._asked))["talk"]
        seen = 0
        while True:
            found = await self._client.call("more", timeout=MORE_SECONDS, talk=self._name, seen=seen)
            seen += len(found["text"])
            end = found["end"]
            if end is not None:
                self.prompt_tokens, self.completion_tokens = end["prompt_tokens"], end["completion_tokens"]
                self.served = served_of(end)
                yield Piece(found["text"], finish=end["finish"])
                return
            if found["text"]:
                yield Piece(found["text"])

    async def aclose(self) -> None:
        """Let the server stop; what it made is paid."""
        await self._pieces.aclose()
        if self._name:
            name, self._name = self._name, ""
            with contextlib.suppress(AtollError):  # the node ends it by itself when nobody collects
                await self._client.call("leave", timeout=MORE_SECONDS, talk=name)


def _info(found: Json) -> ModelInfo:
    return ModelInfo(found["id"], found["kind"], found["blob"], 0, "", found["card"], found["context"])


def served_of(found: Json) -> Served:
    """Who answered, what it cost, whether it was checked."""
    return Served(found["answered_by"], int(found["cost"]), found["checked"])


def named(model: str) -> str:
    """A model's name as servers know it: ids without 0x, in small letters."""
    bare = model.strip().lower().removeprefix("0x")
    return bare if len(bare) == 64 else model.strip()


# -- whether to ask others ---------------------------------------------------------------------------------------------
def too_small(size: int, free: int | None) -> bool:
    """Whether a model file of `size` bytes needs more memory than is free (None: not known here)."""
    return free is not None and size * MEMORY_OF_FILE > free


def free_memory(file: Path = MEMORY_FILE) -> int | None:
    """Bytes of memory that programs can still take; None where this system does not say so."""
    try:
        for line in file.read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def runs(home: Path) -> bool:
    """Whether a node runs in this home that could ask others."""
    try:
        homes.ask(home, "status", None, 5.0)
    except AtollError:
        return False
    return True
