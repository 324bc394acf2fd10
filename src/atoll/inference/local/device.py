"""`LocalAnswers`: models that run on this device, whoever asks.

Classifiers (model files of Atoll) run in the child process of the graph engine, each embedding or language model in a
process of its own. A process starts on first use and ends when it has been idle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadInput, Refused
from atoll.graph.archive import ModelFile
from atoll.graph.engine import Engine, EngineLimits
from atoll.graph.session import Frozen
from atoll.graph.signatures import ports_of
from atoll.inference import answer, catalog
from atoll.inference.answers import LOCAL, Embedded, Floats, Kind, Message, ModelInfo, Sampling, Served
from atoll.inference.local import pipe
from atoll.inference.local.child import Child, ChildLimits
from atoll.inference.local.shelf import Shelf, absent, has_runtime, need_runtime
from atoll.inference.local.speech import Said, Speech, checked, generation
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason

Fetch = Callable[[bytes], Awaitable[bytes]]
"""The bytes of a blob by its id (32 bytes), from the network; raises Refused or Unreachable."""

GGUF = b"GGUF"
GGUF_CONTEXT = 4096  # tokens that a language model by blob id reads at most; each costs memory
MAX_TEXTS = 2048
MAX_TEXT_BYTES = 16 << 20  # of all texts of a request
CLASSIFIERS = 16  # model files that are kept open
_MODULES = {"language": "atoll.inference.local.llama", "embedding": "atoll.inference.local.encoder"}


@dataclass(frozen=True)
class DeviceLimits:
    """Processes of embedding and language models that may live at a time, and what each process may use."""

    children: int = 3
    child: ChildLimits = field(default_factory=ChildLimits)
    engine: EngineLimits = field(default_factory=partial(EngineLimits, cpu_seconds=30, wall_seconds=30.0))


@dataclass(frozen=True)
class _Classifier:
    info: ModelInfo
    model: ModelFile
    tensors: Frozen  # all tensors, kept by the engine between requests


class LocalAnswers:
    """The models of this device; implements `answers.Answers`. `fetch` brings blobs of the network, if there is one;
    `listed` tells which of its models are worth listing. End it with `await close()`."""

    def __init__(
        self,
        shelf: Shelf,
        fetch: Fetch | None = None,
        listed: Callable[[], Sequence[ModelInfo]] = tuple,
        limits: DeviceLimits | None = None,
    ) -> None:
        self.shelf = shelf
        self._fetch = fetch
        self._listed = listed
        self._limits = limits or DeviceLimits()
        self._engine = Engine(self._limits.engine)
        self._engine_idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._classifiers: dict[str, _Classifier] = {}
        self._languages: dict[str, ModelInfo] = {}  # by blob id: those of the network that are here
        self._children: dict[str, Child] = {}
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """End all processes."""
        if self._engine_idle:
            self._engine_idle.cancel()
        await asyncio.gather(self._engine.close(), *(child.close() for child in self._children.values()))
        await asyncio.gather(*self._ending, return_exceptions=True)

    @property
    def pids(self) -> list[int]:
        """Process ids of what runs now."""
        return [*self._engine.pids, *(child.pid for child in self._children.values() if child.pid)]

    def models(self) -> Sequence[ModelInfo]:
        """The catalogue's models whose file and runtime are here, those opened, those that the network lists."""
        found = {
            entry.info.blob: entry.info
            for entry in catalog.CATALOGUE
            if has_runtime(entry.info.kind) and self.shelf.find(entry) is not None
        }
        opened = (*(one.info for one in self._classifiers.values()), *self._languages.values(), *self._listed())
        return list({info.blob: info for info in (*reversed(opened), *found.values())}.values())[::-1]

    # -- classifiers ----------------------------------------------------------------------------------------------
    async def classify(self, model: str, x: NDArray[Any]) -> tuple[Floats, Served]:
        """See `Answers.classify`."""
        found = await self._classifier(model)
        form = found.model.manifest.input
        if x.shape[1:] != form.shape or x.dtype != form.dtype or not len(x):
            raise BadInput(
                f"The input has shape {list(x.shape)} and type {x.dtype}: {model} takes [n, "
                f"{', '.join(map(str, form.shape))}] of {form.dtype}."
            )
        batch = ports_of(found.model.manifest).evaluate_batch
        try:
            scores = await self._engine.predict(found.model.predict, {}, x, batch, found.tensors)
        finally:
            self._rest_later()
        return scores, LOCAL

    async def model_file(self, model: str) -> ModelFile:
        """The opened model file of a classifier: its manifest says what it takes and gives."""
        return (await self._classifier(model)).model

    async def add(self, data: bytes) -> ModelInfo:
        """Open a model file that the user names, so that it can be asked under its blob id; raises Refused."""
        opened = await asyncio.to_thread(_opened, data)
        self._classifiers[opened.info.id] = opened
        while len(self._classifiers) > CLASSIFIERS:
            self._classifiers.pop(next(iter(self._classifiers)))
        return opened.info

    async def _classifier(self, model: str) -> _Classifier:
        blob = _blob(model)
        found = self._classifiers.get(blob)
        if found is None:
            info = await self.find(model)
            if info.kind != "classifier":
                raise _wrong_kind(info, "classifier")
            found = self._classifiers[info.id]
        return found

    def _rest_later(self) -> None:
        if self._engine_idle:
            self._engine_idle.cancel()
        loop = asyncio.get_running_loop()
        self._engine_idle = loop.call_later(self._limits.child.idle_seconds, self._rest)

    def _rest(self) -> None:
        task = asyncio.create_task(self._engine.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    # -- embeddings and language -----------------------------------------------------------------------------------
    async def embed(self, model: str, texts: Sequence[str]) -> Embedded:
        """See `Answers.embed`."""
        if not 0 < len(texts) <= MAX_TEXTS or sum(map(len, texts)) > MAX_TEXT_BYTES:
            raise BadInput(
                f"{len(texts)} texts: expected 1 to {MAX_TEXTS}, of at most {MAX_TEXT_BYTES} letters in all."
            )
        child = await self._child(model, "embedding")
        found = await child.ask(pipe.Embed(tuple(map(readable, texts))))
        vectors = np.frombuffer(found.values, "<f4").reshape(found.count, found.width)
        return Embedded(vectors.astype(np.float32), found.tokens, LOCAL)

    def chat(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Speech:
        """See `Answers.chat`."""
        return Speech(lambda: self._speaker(model, "", _turns(model, messages), sampling))

    def complete(self, model: str, prompt: str, sampling: Sampling) -> Speech:
        """See `Answers.complete`."""
        return Speech(lambda: self._speaker(model, readable(prompt), (), sampling))

    async def _speaker(self, model: str, prompt: str, turns: tuple[pipe.Turn, ...], sampling: Sampling) -> Said:
        checked(prompt, turns, sampling)
        child = await self._child(model, "language")
        return child.stream(lambda number: generation(number, prompt, turns, sampling))

    async def _child(self, model: str, kind: Kind) -> Child:
        """The process for a model, which may have to be found and verified first."""
        info = await self.find(model)
        if info.kind != kind:
            raise _wrong_kind(info, kind)
        if info.blob in self._children:
            return self._children[info.blob]
        need_runtime(info.kind)
        path = await asyncio.to_thread(self._file, info)
        async with self._opening:
            if info.blob not in self._children:
                await self._make_room()
                load = pipe.Load(str(path), info.context)
                self._children[info.blob] = Child(_MODULES[kind], load, info.id, self._limits.child)
            return self._children[info.blob]

    async def _make_room(self) -> None:
        """End the process that has been idle longest where there are too many; raises Refused(BUSY)."""
        while len(self._children) >= self._limits.children:
            idle = [(child.used, blob) for blob, child in self._children.items() if not child.busy]
            if not idle:
                raise Refused(Reason.BUSY, f"{len(self._children)} models are at work on this device")
            await self._children.pop(min(idle)[1]).close()

    def _file(self, info: ModelInfo) -> Path:
        entry = catalog.known(info.blob)
        path = self.shelf.find(entry) if entry else self.shelf.path(info.blob, ".gguf")
        if path is None and entry is not None:
            raise absent(entry)
        return self.shelf.verified(path or Path(), info.blob)

    async def find(self, model: str) -> ModelInfo:
        """What a name of the catalogue or a blob id stands for; brings a blob here if it has to.

        Raises UnknownModel, Refused or Unreachable.
        """
        entry = catalog.known(model)
        if entry is not None:
            return entry.info
        blob = _blob(model)
        if blob in self._classifiers:
            return self._classifiers[blob].info
        if blob in self._languages:
            return self._languages[blob]
        if not catalog.is_blob_id(model):
            raise catalog.unknown(model, [info.id for info in self._listed()])
        if self.shelf.path(blob, ".gguf").is_file():
            return self._language(blob)
        if self._fetch is None:
            raise catalog.unknown(model)
        return await self.open_blob(blob, await self._fetch(bytes.fromhex(blob)))

    async def open_blob(self, blob: str, data: bytes) -> ModelInfo:
        """Open bytes that were fetched under this id: a model file or a GGUF; raises Refused or BadInput."""
        if data[: len(GGUF)] != GGUF:
            info = await self.add(data)
            if info.blob != blob:
                raise Refused(Reason.WRONG_HASH, f"{len(data)} bytes came for {blob}, and their hash is another")
            return info
        await asyncio.to_thread(self.shelf.keep, blob, ".gguf", data)
        return self._language(blob)

    def _language(self, blob: str) -> ModelInfo:
        size = self.shelf.path(blob, ".gguf").stat().st_size
        self._languages[blob] = ModelInfo(blob, "language", blob, size, "", {"format": "GGUF"}, GGUF_CONTEXT)
        return self._languages[blob]


def _opened(data: bytes) -> _Classifier:
    model, blob = answer.open_model(data), blob_id(data)
    manifest = model.manifest
    card = {
        **model.card,
        "input": {"shape": list(manifest.input.shape), "dtype": manifest.input.dtype},
        "output": {"shape": list(manifest.output.shape), "meaning": manifest.output.meaning},
    }
    info = ModelInfo(blob.hex(), "classifier", blob.hex(), len(data), str(model.card.get("licence", "")), card)
    frozen = model.frozen.tensors if model.frozen else {}
    return _Classifier(info, model, Frozen(blob, {**model.tensors, **frozen}))


def _blob(model: str) -> str:
    return model.strip().lower().removeprefix("0x")


def _turns(model: str, messages: Sequence[Message]) -> tuple[pipe.Turn, ...]:
    """The conversation, with the model's own system message where it has none. Raises BadInput."""
    turns = tuple(pipe.Turn(message.role, readable(message.content)) for message in messages)
    entry = catalog.known(model)
    if entry and turns and "system" in entry.info.card and turns[0].role != "system":
        return (pipe.Turn("system", entry.info.card["system"]), *turns)
    return turns


def _wrong_kind(info: ModelInfo, wanted: Kind) -> BadInput:
    takes = {
        "classifier": "inputs to classify",
        "embedding": "texts to embed",
        "language": "a prompt or a conversation",
    }
    return BadInput(f"{info.id} is no {wanted} model: it takes {takes[info.kind]}.")


def readable(text: str) -> str:
    """The text, if it can be written as UTF-8; raises BadInput for lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput("The text holds characters that are none (lone surrogates): expected Unicode text.") from error
    return text
