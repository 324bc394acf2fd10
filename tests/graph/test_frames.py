"""Frames: bytes as specified, and nonsense refused."""

from __future__ import annotations

import struct

import msgspec
import numpy as np
import pytest

from atoll.errors import EngineFailed
from atoll.graph import frames
from atoll.graph.frames import ArrayHead, Header


def test_a_frame_is_two_lengths_a_header_and_raw_arrays() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2]  # not contiguous
    parts = frames.encode(Header(method="train", first_step=7), {"x": x, "none": np.empty((0, 2), np.int64)})
    data = b"".join(parts)
    header_length, body_length = struct.unpack(">IQ", data[:12])
    packed, body = data[12 : 12 + header_length], data[12 + header_length :]
    assert len(body) == body_length == 16
    assert body == struct.pack("<4f", 0, 2, 3, 5)
    header, arrays = frames.decode(packed, body)
    assert (header.method, header.first_step) == ("train", 7)
    assert arrays["x"].tolist() == [[0.0, 2.0], [3.0, 5.0]]
    assert arrays["none"].shape == (0, 2)


def test_other_dtypes_are_not_sent() -> None:
    for value in (np.array(["text"]), np.array([object()]), np.zeros(1, np.float64)):
        with pytest.raises(EngineFailed, match="dtype"):
            frames.encode(Header(), {"x": value})


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xff",
        msgspec.msgpack.encode({"arrays": [["x", "float32", [-1]]]}),
        msgspec.msgpack.encode({"arrays": [["x", "object", [1]]]}),
        msgspec.msgpack.encode({"arrays": [["x", "float32", [1 << 40]]]}),
        msgspec.msgpack.encode({"first_step": "one"}),
    ],
)
def test_nonsense_is_refused(packed: bytes) -> None:
    with pytest.raises(EngineFailed):
        frames.decode(packed, bytes(8))


def test_lengths_beyond_the_limits_are_refused() -> None:
    assert frames.lengths(struct.pack(">IQ", 5, 6)) == (5, 6)
    for prefix in (struct.pack(">IQ", 1 << 31, 0), struct.pack(">IQ", 0, 1 << 60)):
        with pytest.raises(EngineFailed, match="frame"):
            frames.lengths(prefix)


def test_a_head_travels_as_three_values() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(ArrayHead("x", "uint8", (1,)))) == ["x", "uint8", [1]]
