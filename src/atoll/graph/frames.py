"""Frames between the engine and its child process: a msgpack header and raw arrays, no pickle.

A frame is the header's length (u32), the body's length (u64), both big-endian, the header, the body. The header
holds plain values and, under `arrays`, name, dtype and shape of each array whose bytes follow in the body, in order.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from atoll.errors import EngineFailed

Array = npt.NDArray[Any]

PREFIX = struct.Struct(">IQ")
MAX_HEADER = 1 << 24
MAX_BODY = 1 << 34
DTYPES = frozenset({"uint8", "float32", "int64"})


class ArrayHead(msgspec.Struct, frozen=True, array_like=True):
    """Name, dtype and shape of an array in a frame."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a frame says besides its arrays: a request's method or an answer, and its numbers.

    `graph` is the graph's bytes, `frozen` the id of frozen tensors; `error` is a sentence when a request failed.
    """

    method: str = ""
    graph: bytes = b""
    frozen: bytes = b""
    first_step: int = 0
    seed: int = 0
    learning_rate: float = 0.0
    batch: int = 0
    loss_sum: float = 0.0
    count: int = 0
    sums: dict[str, float] = {}
    error: str = ""
    arrays: tuple[ArrayHead, ...] = ()


def encode(header: Header, arrays: Mapping[str, Array]) -> list[bytes | memoryview]:
    """The parts of a frame, to be written one after another; arrays of the allowed dtypes only."""
    bodies = []
    heads = []
    for name, value in arrays.items():
        if value.dtype.name not in DTYPES:
            raise EngineFailed(f"array {name} has dtype {value.dtype}; graphs take {', '.join(sorted(DTYPES))}")
        solid = np.ascontiguousarray(value)
        heads.append(ArrayHead(name, value.dtype.name, value.shape))
        bodies.append(solid.reshape(-1).view(np.uint8).data)
    packed = msgspec.msgpack.encode(msgspec.structs.replace(header, arrays=tuple(heads)))
    length = sum(len(body) for body in bodies)
    return [PREFIX.pack(len(packed), length) + packed, *bodies]


def lengths(prefix: bytes) -> tuple[int, int]:
    """Lengths of header and body; raises EngineFailed beyond the limits (the peer is not our child, or is broken)."""
    header, body = PREFIX.unpack(prefix)
    if header > MAX_HEADER or body > MAX_BODY:
        raise EngineFailed(f"a frame of {header} + {body} bytes came through the engine's pipe")
    return header, body


def decode(packed: bytes, body: bytes | bytearray) -> tuple[Header, dict[str, Array]]:
    """Header and arrays of a frame; the arrays share memory with `body`. Raises EngineFailed on nonsense."""
    try:
        header = msgspec.msgpack.decode(packed, type=Header)
    except msgspec.MsgspecError as error:
        raise EngineFailed(f"the engine's pipe carried something that is not a frame: {error}") from error
    return header, _arrays(header.arrays, body)


def _arrays(heads: Sequence[ArrayHead], body: bytes | bytearray) -> dict[str, Array]:
    found: dict[str, Array] = {}
    start = 0
    for head in heads:
        if head.dtype not in DTYPES or any(length < 0 for length in head.shape):
            raise EngineFailed(f"a frame carried an array of dtype {head.dtype} and shape {head.shape}")
        dtype = np.dtype(head.dtype)
        count = math.prod(head.shape)
        if start + count * dtype.itemsize > len(body):
            raise EngineFailed("a frame's arrays are longer than its body")
        found[head.name] = np.frombuffer(body, dtype, count, start).reshape(head.shape)
        start += count * dtype.itemsize
    return found
