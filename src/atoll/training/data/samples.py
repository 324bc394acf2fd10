"""Samples: arrays x and y in a fixed order, the bytes of one sample, and the Merkle tree over all of them.

One sample's bytes are its x, then its y, in C order: uint8 as it is, float32 little-endian, int64 as little-endian
int32 (larger numbers are refused). They are the leaf data of the data set's Merkle tree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadInput, Refused
from atoll.graph.spec import STORED_BYTES, JobSpec
from atoll.wire.merkle import MerkleTree, verify
from atoll.wire.reasons import Reason

Array = NDArray[Any]
Bytes = NDArray[np.uint8]

X_TYPES = ("uint8", "float32", "int64")
Y_TYPES = ("int64", "float32")
_STORED = {"uint8": "u1", "float32": "<f4", "int64": "<i4"}
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Form:
    """What one sample looks like: types (`uint8`, `float32` or `int64`; y is never uint8) and shapes of x and y."""

    x_dtype: str
    x_shape: tuple[int, ...]
    y_dtype: str = "int64"
    y_shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, spec: JobSpec) -> Form:
        """The samples that a job takes."""
        return cls(spec.input.dtype, spec.input.shape, spec.target.dtype, spec.target.shape)

    @property
    def x_bytes(self) -> int:
        """Bytes of one x as it is kept."""
        return math.prod(self.x_shape) * STORED_BYTES[self.x_dtype]

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample as it is kept."""
        return self.x_bytes + math.prod(self.y_shape) * STORED_BYTES[self.y_dtype]

    @property
    def layout(self) -> str:
        """Types and numbers of values, without shapes: samples of equal layout can be reshaped into one another."""
        return f"{self.x_dtype}-{math.prod(self.x_shape)}-{self.y_dtype}-{math.prod(self.y_shape)}"


@dataclass(frozen=True, eq=False)
class DataSet:
    """Samples in a fixed order: `x` uint8, float32 or int64 [N, ...], `y` int64 or float32 [N, ...].

    Raises BadInput for other types, for different lengths, for integers beyond 32 bits and for floats that are not
    finite.
    """

    x: Array
    y: Array

    def __post_init__(self) -> None:
        for name, values, types in (("x", self.x, X_TYPES), ("y", self.y, Y_TYPES)):
            if not values.ndim or values.dtype.name not in types:
                raise BadInput(f"{name} has type {values.dtype} and shape {values.shape}: expected one of {types}")
            check_values(name, values)
        if len(self.x) != len(self.y):
            raise BadInput(f"{len(self.x)} samples but {len(self.y)} targets: expected one target for each sample")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def form(self) -> Form:
        """What one sample looks like."""
        return Form(self.x.dtype.name, self.x.shape[1:], self.y.dtype.name, self.y.shape[1:])

    @property
    def classes(self) -> int:
        """Number of classes: the highest label plus one, 0 where y is float32."""
        return max(0, int(self.y.max(initial=-1)) + 1) if self.y.dtype == np.int64 else 0

    @cached_property
    def tree(self) -> MerkleTree:
        """The Merkle tree over all samples (about 15 microseconds a sample, once)."""
        return MerkleTree([self.sample(index) for index in range(len(self))])

    @property
    def root(self) -> bytes:
        """Merkle root over all samples, 32 bytes."""
        return self.tree.root

    def sample(self, index: int) -> bytes:
        """Sample bytes of one sample."""
        return _stored(self.x[index]) + _stored(self.y[index])

    def prove(self, index: int) -> list[bytes]:
        """Merkle proof of one sample: sibling hashes, lowest first."""
        return self.tree.prove(index)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> DataSet:
        """The samples at these places, in that order."""
        places = np.asarray(indices, dtype=np.int64)
        return DataSet(self.x[places], self.y[places])


def check_values(name: str, values: Array) -> None:
    """Raise BadInput, with the first place, for an integer beyond 32 bits or a float that is not finite."""
    if values.dtype.kind == "f":
        wrong, expected = ~np.isfinite(values), "expected finite numbers"
    elif values.dtype.itemsize > 1:
        wrong, expected = (values < _INT32.min) | (values > _INT32.max), "expected integers of at most 32 bits"
    else:
        return
    if wrong.any():
        place = np.argwhere(wrong)[0]
        found = values[tuple(place)]
        where = f"row {place[0] + 1}" + (f", place {place[1:].tolist()}" if len(place) > 1 else "")
        raise BadInput(f"{name} holds {found} in {where}: {expected}; leave that row out or put a number there")


def read_sample(data: bytes, form: Form) -> tuple[Array, Array]:
    """x and y of sample bytes, in the types and shapes of `form`.

    Raises Refused(MALFORMED) for a wrong length and for floats that are not finite.
    """
    if len(data) != form.sample_bytes:
        raise Refused(Reason.MALFORMED, f"sample of {len(data)} bytes, expected {form.sample_bytes}")
    x, y = read_records(np.frombuffer(data, np.uint8)[None], form)
    for values in (x, y):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise Refused(Reason.MALFORMED, "a sample with numbers that are not finite")
    return x[0], y[0]


def read_records(records: Bytes, form: Form) -> tuple[Array, Array]:
    """x and y of sample bytes uint8 [n, sample_bytes], in the types and shapes of `form`."""
    x = _read(records[:, : form.x_bytes], form.x_dtype, form.x_shape)
    return x, _read(records[:, form.x_bytes :], form.y_dtype, form.y_shape)


def verify_sample(root: bytes, count: int, index: int, data: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `data` is sample `index` of the data set of `count` samples with this root."""
    return verify(root, count, index, data, proof)


def _stored(values: Array) -> bytes:
    raw: bytes = np.asarray(values).astype(_STORED[values.dtype.name], copy=False).tobytes()
    return raw


def _read(records: Bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    stored = np.ascontiguousarray(records).view(_STORED[dtype])
    return stored.astype(dtype, copy=False).reshape(len(records), *shape)
