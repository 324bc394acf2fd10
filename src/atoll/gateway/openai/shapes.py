"""The bodies of answers, field by field as OpenAI's clients expect them, and one field more: `atoll`.

They hold who answered, what it cost and whether it was checked. The OpenAPI description is made from these classes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from atoll.inference.answers import Candidate, Embedded, ModelInfo, Piece, Served, TokenLogprob

Finish = Literal["stop", "length"]


class Atoll(msgspec.Struct, frozen=True):
    """Who answered ("this device" or an account), its price in base units, and whether it was checked."""

    node: str
    cost: str
    checked: Literal["local", "yes", "no"]


def atoll(served: Served) -> Atoll:
    """The field `atoll` of an answer."""
    return Atoll(served.node, str(served.cost), served.checked)


# Models
class Model(msgspec.Struct, frozen=True):
    """A model that can be asked. `kind`, `blob` (BLAKE3 of its file), `bytes`, `licence`, `context`: Atoll's own."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: Literal["classifier", "embedding", "language"]
    blob: str
    bytes: int
    licence: str
    context: int


class Models(msgspec.Struct, frozen=True):
    """All models, best known first."""

    object: Literal["list"]
    data: list[Model]


def model(info: ModelInfo, created: int) -> Model:
    """A model as the list shows it."""
    return Model(info.id, "model", created, "atoll", info.kind, info.blob, info.bytes, info.licence, info.context)


# Chat and completions
class Usage(msgspec.Struct, frozen=True):
    """How many tokens were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


def usage(prompt: int, answer: int) -> Usage:
    """Usage with its sum."""
    return Usage(prompt, answer, prompt + answer)


class Likely(msgspec.Struct, frozen=True):
    """A token and the logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int]


class Taken(Likely, frozen=True):
    """The token that was taken, and the likeliest in its place."""

    top_logprobs: list[Likely]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """One entry a token."""

    content: list[Taken]
    refusal: None = None


class Said(msgspec.Struct, frozen=True):
    """The message of an answer."""

    role: Literal["assistant"]
    content: str
    refusal: None = None


class ChatChoice(msgspec.Struct, frozen=True):
    """The one answer."""

    index: int
    message: Said
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatAnswer(msgspec.Struct, frozen=True):
    """Answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    atoll: Atoll


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class DeltaChoice(msgspec.Struct, frozen=True):
    """The one answer, as it grows."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish | None = None


class ChatChunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A chunk of a streamed answer; `atoll` in the last ones only."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[DeltaChoice]
    usage: Usage | None = None
    atoll: Atoll | None = None


class TextLogprobs(msgspec.Struct, frozen=True):
    """Log-probabilities as /v1/completions tells them; offsets in characters of the answer."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(msgspec.Struct, frozen=True):
    """What comes after one prompt."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Finish | None = None


class TextAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of /v1/completions, or a chunk of it; `atoll` in the last ones only."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None
    atoll: Atoll | None = None


def _likely(one: Candidate) -> Likely:
    return Likely(one.text, one.logprob, list(one.text.encode("utf-8", "replace")))


def finish_of(last: Piece | None) -> Finish:
    """Why an answer ended, by its last piece."""
    return "length" if last is not None and last.finish == "length" else "stop"


def chat_logprobs(entries: Sequence[TokenLogprob], top: int) -> ChatLogprobs:
    """Log-probabilities of an answer, with the `top` likeliest of each place."""
    content = []
    for entry in entries:
        taken = _likely(entry.taken)
        content.append(Taken(taken.token, taken.logprob, taken.bytes, [_likely(one) for one in entry.top[:top]]))
    return ChatLogprobs(content)


def text_logprobs(entries: Sequence[TokenLogprob], top: int, offset: int) -> TextLogprobs:
    """The same for /v1/completions; `offset` is where the first token begins."""
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry.taken.text)
    return TextLogprobs(
        [entry.taken.text for entry in entries],
        [entry.taken.logprob for entry in entries],
        [{one.text: one.logprob for one in entry.top[:top]} for entry in entries],
        offsets,
    )


# Embeddings
class ReadTokens(msgspec.Struct, frozen=True):
    """How many tokens were read."""

    prompt_tokens: int
    total_tokens: int


class Vector(msgspec.Struct, frozen=True):
    """One vector: numbers, or base64 of float32, little-endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Vectors(msgspec.Struct, frozen=True):
    """Answer of /v1/embeddings."""

    object: Literal["list"]
    data: list[Vector]
    model: str
    usage: ReadTokens
    atoll: Atoll


def vectors(found: Embedded, model_id: str, in_base64: bool) -> Vectors:
    """The answer with float32 vectors [n, d]."""
    rows: list[Any] = []
    for row in np.ascontiguousarray(found.vectors, "<f4"):
        rows.append(base64.b64encode(row.tobytes()).decode("ascii") if in_base64 else row.tolist())
    data = [Vector("embedding", index, row) for index, row in enumerate(rows)]
    return Vectors("list", data, model_id, ReadTokens(found.tokens, found.tokens), atoll(found.served))


# Classes
class Class(msgspec.Struct, frozen=True):
    """A class: its number, its name (the number, if the model's card tells none), its score as the model gives it."""

    index: int
    label: str
    score: float


class Classified(msgspec.Struct, frozen=True):
    """The classes of one picture, likeliest first."""

    index: int
    label: str
    classes: list[Class]


class Classes(msgspec.Struct, frozen=True):
    """Answer of /v1/classify."""

    object: Literal["list"]
    data: list[Classified]
    model: str
    atoll: Atoll
