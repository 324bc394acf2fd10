"""What asks a model and what a model answers: the types that the runtimes here, the router and the API share.

Three kinds of model: a classifier turns inputs into scores, an embedding model texts into vectors, a language model
a conversation or a text into more text, a piece at a time. `Answers` is the one interface to all of them: it may run
them on this device (`atoll.inference.local`) or ask others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Json = Any
Floats = NDArray[np.float32]
Kind = Literal["classifier", "embedding", "language"]
Finish = Literal["", "stop", "length"]
Checked = Literal["local", "yes", "no"]

MAX_TOP_LOGPROBS = 20
THIS_DEVICE = "this device"
MEMORY_OF_FILE = 1.5
"""Memory that a model takes, in sizes of its file."""


@dataclass(frozen=True)
class Served:
    """Who answered, what it cost in base units of the token, and whether the answer was checked.

    `node` is the account (0x…) that answered, or "this device". `checked`: "local" when it ran here, "yes" when it was
    run again and agreed, "no" when it was not drawn for a check.
    """

    node: str
    cost: int
    checked: Checked


LOCAL = Served(THIS_DEVICE, 0, "local")


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be asked.

    `id` is what people type: a name of the catalogue, or a blob id in hex. `blob` is the BLAKE3 of the model's file in
    hex ("" if there is none), `bytes` its size, `licence` an SPDX expression ("" if unknown), `card` what is told of
    it, `context` how many tokens it reads at most (0 for a classifier).
    """

    id: str
    kind: Kind
    blob: str
    bytes: int
    licence: str
    card: Mapping[str, Json] = field(default_factory=dict)
    context: int = 0


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How a language model picks its tokens.

    At most `max_tokens` of them; `temperature` 0 takes the likeliest each time (`top_p` and `seed` then say nothing);
    `top_p` in (0, 1] keeps the likeliest tokens that reach this probability together; the same `seed` gives the same
    text on the same device, None draws one. The text ends before any of `stop`. `top_logprobs` > 0 (at most 20) asks
    for the log-probability of each token and of so many of the likeliest.
    """

    max_tokens: int = 256
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0


class Candidate(NamedTuple):
    """A token that could stand here: its number, its text, the natural logarithm of its probability (before sampling
    settings: at temperature 1, over the whole vocabulary)."""

    token: int
    text: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """The token that was taken, and the likeliest ones in its place, likeliest first."""

    taken: Candidate
    top: tuple[Candidate, ...]


@dataclass(frozen=True)
class Piece:
    """A part of an answer as it is made.

    `text` is whole characters and may be empty. `tokens` and `logprobs` are told where `top_logprobs` asks for them,
    one entry for each token that ends a character (a character of several tokens comes with its last one, and a text
    held back because a stop string may begin there comes with the token after it). Only the last piece has a
    `finish`: "stop" when the model ended its answer or a stop string came, "length" when `max_tokens` or the context
    is used up.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish: Finish = ""


class Embedded(NamedTuple):
    """Vectors float32 [n, d], each of length 1; how many tokens were read; who made them."""

    vectors: Floats
    tokens: int
    served: Served


class Stream(Protocol):
    """An answer in pieces: `async for piece in stream`. End it with `await stream.aclose()`, which stops the model."""

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompt has; 0 before the first piece."""

    @property
    def completion_tokens(self) -> int:
        """How many tokens the answer has; 0 before the last piece."""

    @property
    def served(self) -> Served:
        """Who answered, what it cost; final after the last piece."""

    def __aiter__(self) -> AsyncIterator[Piece]:
        """The pieces in order, once."""

    async def aclose(self) -> None:
        """Stop the model if it is still at work. Safe to call twice, and after the end."""


class Answers(Protocol):
    """Models that can be asked. All methods raise UnknownModel for a model that is not known (or that is of another
    kind: BadInput), BadInput for inputs that do not fit it, Refused(OVER_BUDGET) where nobody answers for the money,
    EngineFailed when a model's process fails, MissingExtra when a runtime is not installed."""

    def models(self) -> Sequence[ModelInfo]:
        """The models that can be asked, best known first."""

    async def classify(self, model: str, x: NDArray[Any]) -> tuple[Floats, Served]:
        """Scores float32 [n, classes] of inputs x [n, ...], in the dtype that the model takes (`card["input"]`)."""

    async def embed(self, model: str, texts: Sequence[str]) -> Embedded:
        """Vectors of texts; a text longer than the model's context is cut at its end."""

    def chat(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Stream:
        """The next turn of a conversation. What is wrong with the request is raised at the first piece."""

    def complete(self, model: str, prompt: str, sampling: Sampling) -> Stream:
        """What comes after a text. What is wrong with the request is raised at the first piece."""
