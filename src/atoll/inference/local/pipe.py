"""What a node and the child process of a model say to one another: small msgpack frames, no pickle.

A frame is its length (u32, big-endian) and one message. The parent's first message is `Load`; the child answers
`Ready` or `Failure`, and then serves one request at a time. A request's number lets `Stop` name what it stops.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from atoll.errors import EngineFailed

PREFIX = struct.Struct(">I")
MAX_FRAME = 64 << 20


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Load(_Message, frozen=True, tag=1):
    """Load the model in this file, to read at most `context` tokens at a time."""

    path: str
    context: int


class Turn(_Message, frozen=True):
    """One turn of a conversation."""

    role: str
    content: str


class Generate(_Message, frozen=True, tag=2):
    """Continue `prompt`, or answer a conversation if there is one; sampling as in `answers.Sampling`.

    `reuse`: what the model has read for the request before may be used again (faster, and not bit for bit the same).
    """

    number: int
    prompt: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: tuple[str, ...]
    top_logprobs: int
    reuse: bool


class Stop(_Message, frozen=True, tag=3):
    """End the request of this number now; its `Done` still comes."""

    number: int


class Embed(_Message, frozen=True, tag=4):
    """Make a vector of each text."""

    texts: tuple[str, ...]


class Ready(_Message, frozen=True, tag=5):
    """The model is loaded; it reads at most `context` tokens at a time."""

    context: int


class Choice(_Message, frozen=True):
    """A token, its text, its log-probability."""

    token: int
    text: str
    logprob: float


class Logprob(_Message, frozen=True):
    """The token that was taken and the likeliest ones."""

    taken: Choice
    top: tuple[Choice, ...]


class Part(_Message, frozen=True, tag=6):
    """More of the answer: whole characters, and log-probabilities of its tokens where they were asked for."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


class Begun(_Message, frozen=True, tag=7):
    """The prompt has so many tokens, all of which are being read."""

    prompt_tokens: int


class Done(_Message, frozen=True, tag=8):
    """The answer is complete, or was stopped (then `finish` is empty)."""

    finish: Literal["", "stop", "length"]
    prompt_tokens: int
    completion_tokens: int


class Vectors(_Message, frozen=True, tag=9):
    """float32 little-endian [count, width], C order, and how many tokens the texts had."""

    count: int
    width: int
    values: bytes
    tokens: int


class Failure(_Message, frozen=True, tag=10):
    """The request cannot be served: the `input` is at fault, or the `model` (or this program)."""

    fault: Literal["input", "model"]
    detail: str


Request = Load | Generate | Stop | Embed
Answer = Ready | Begun | Part | Done | Vectors | Failure

_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """The frame of a message; raises EngineFailed beyond MAX_FRAME."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise EngineFailed(f"a message of {len(body)} bytes: a model's process takes at most {MAX_FRAME}")
    return PREFIX.pack(len(body)) + body


def length(prefix: bytes) -> int:
    """The length of the message that follows; raises EngineFailed beyond MAX_FRAME."""
    (found,) = PREFIX.unpack(prefix)
    if found > MAX_FRAME:
        raise EngineFailed(f"a frame of {found} bytes came through the pipe of a model's process")
    return int(found)


def decode_request(body: bytes) -> Request:
    """A message of the parent; raises EngineFailed on anything else."""
    try:
        found: Request = _requests.decode(body)
    except msgspec.MsgspecError as error:
        raise EngineFailed(f"the pipe of a model's process carried something that is no request: {error}") from error
    return found


def decode_answer(body: bytes) -> Answer:
    """A message of the child; raises EngineFailed on anything else."""
    try:
        found: Answer = _answers.decode(body)
    except msgspec.MsgspecError as error:
        raise EngineFailed(f"the pipe of a model's process carried something that is no answer: {error}") from error
    return found
