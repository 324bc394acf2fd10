"""Frames between a node and a model's process."""

from __future__ import annotations

import pytest

from atoll.errors import EngineFailed
from atoll.inference.local import pipe

TOKEN = pipe.Choice(7, " a", -0.5)
REQUESTS = (
    pipe.Load("/a/model", 128),
    pipe.Generate(3, "p", (pipe.Turn("user", "hi"),), 5, 0.5, 0.9, 42, ("\n",), 2, True),
    pipe.Stop(3),
    pipe.Embed(("one", "two")),
)
ANSWERS = (
    pipe.Ready(128),
    pipe.Begun(5),
    pipe.Part("é", (pipe.Logprob(TOKEN, (TOKEN,)),)),
    pipe.Done("stop", 5, 6),
    pipe.Vectors(1, 2, bytes(8), 4),
    pipe.Failure("input", "no"),
)


def body(frame: bytes) -> bytes:
    length = pipe.length(frame[: pipe.PREFIX.size])
    assert length == len(frame) - pipe.PREFIX.size
    return frame[pipe.PREFIX.size :]


def test_every_message_comes_back() -> None:
    for request in REQUESTS:
        assert pipe.decode_request(body(pipe.encode(request))) == request
    for answer in ANSWERS:
        assert pipe.decode_answer(body(pipe.encode(answer))) == answer


def test_what_is_no_message_is_refused() -> None:
    for wrong in (b"", b"\xc1", b"\x91\x63", body(pipe.encode(ANSWERS[0]))):
        with pytest.raises(EngineFailed):
            pipe.decode_request(wrong)
    for wrong in (b"", b"\x92\x06", body(pipe.encode(REQUESTS[0]))):
        with pytest.raises(EngineFailed):
            pipe.decode_answer(wrong)


def test_frames_have_a_limit() -> None:
    with pytest.raises(EngineFailed):
        pipe.length(pipe.PREFIX.pack(pipe.MAX_FRAME + 1))
    with pytest.raises(EngineFailed):
        pipe.encode(pipe.Embed(("x" * (pipe.MAX_FRAME + 1),)))
