"""Between float32 tensors and the fixed-point bytes that are certified (MODEL BYTES and STATE BYTES).

A certified tensor is int32 on a grid of 2^-bits. Going from fixed point to float32 is the one cast that all nodes
do in the same way; `int32 * 2^-bits` is exact up to 24 significant bits and rounded half-even by IEEE 754 beyond.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from atoll.errors import Refused
from atoll.graph.spec import JobSpec, Tensor
from atoll.wire.reasons import Reason

Floats = npt.NDArray[np.float32]


def encode_vector(tensors: tuple[Tensor, ...], values: Mapping[str, Floats]) -> bytes:
    """The vector as int32 little-endian: round(value * 2^bits), half to even, saturating at the ends of int32.

    Raises Refused(DIVERGED) when a value is not a finite number.
    """
    parts = []
    for tensor in tensors:
        scaled = np.asarray(values[tensor.name], np.float64).reshape(-1) * 2.0**tensor.bits
        if not np.isfinite(scaled).all():
            raise Refused(Reason.DIVERGED, f"tensor {tensor.name} holds values that are not finite")
        parts.append(np.clip(np.rint(scaled), -(2**31), 2**31 - 1).astype("<i4").tobytes())
    return b"".join(parts)


def decode_vector(tensors: tuple[Tensor, ...], data: bytes) -> dict[str, Floats]:
    """float32 tensors from the int32 bytes of the vector; raises Refused(MALFORMED) on a wrong length."""
    _need_length(data, 4 * sum(tensor.size for tensor in tensors))
    fixed = np.frombuffer(data, "<i4")
    values = {}
    start = 0
    for tensor in tensors:
        part = fixed[start : start + tensor.size].astype(np.float64) * 2.0**-tensor.bits
        values[tensor.name] = part.astype(np.float32).reshape(tensor.shape)
        start += tensor.size
    return values


def encode_model(manifest: JobSpec, values: Mapping[str, Floats]) -> bytes:
    """MODEL BYTES: the certified tensors of `values` on their grids."""
    return encode_vector(manifest.vector_tensors, values)


def decode_model(manifest: JobSpec, data: bytes) -> dict[str, Floats]:
    """The certified tensors as float32, from MODEL BYTES."""
    return decode_vector(manifest.vector_tensors, data)


def encode_state(manifest: JobSpec, values: Mapping[str, Floats]) -> bytes:
    """STATE BYTES: MODEL BYTES of `values`, then its reset tensors as float32 little-endian.

    Raises Refused(DIVERGED) when a value is not a finite number.
    """
    resets = [np.ascontiguousarray(values[tensor.name], "<f4") for tensor in manifest.reset_tensors]
    if not all(np.isfinite(value).all() for value in resets):
        raise Refused(Reason.DIVERGED, "a reset tensor holds values that are not finite")
    return encode_model(manifest, values) + b"".join(value.tobytes() for value in resets)


def decode_state(manifest: JobSpec, data: bytes) -> dict[str, Floats]:
    """All tensors as float32, from STATE BYTES; raises Refused(MALFORMED) on a wrong length."""
    _need_length(data, manifest.state_bytes)
    values = decode_model(manifest, data[: manifest.model_bytes])
    rest = np.frombuffer(data, "<f4", offset=manifest.model_bytes)
    start = 0
    for tensor in manifest.reset_tensors:
        values[tensor.name] = rest[start : start + tensor.size].astype(np.float32).reshape(tensor.shape)
        start += tensor.size
    return values


def first_state(manifest: JobSpec, model: bytes) -> bytes:
    """State 0 of a unit: the certified model, then zeros."""
    _need_length(model, manifest.model_bytes)
    return model + bytes(4 * manifest.reset_length)


def _need_length(data: bytes, expected: int) -> None:
    if len(data) != expected:
        raise Refused(Reason.MALFORMED, f"{len(data)} bytes where {expected} were expected")
