"""Reed-Solomon over GF(2^8): k data shards become n shards, and any k of them bring back all the others.

The generator is the systematic Cauchy matrix of ISA-L's `gf_gen_cauchy1_matrix`: the identity above rows
1 / (i xor j) for i = k..n-1 and j = 0..k-1, in the field of polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d). Every square
submatrix of a Cauchy matrix is invertible, hence *any* k shards. (Bloemer et al., "An XOR-Based Erasure-Resilient
Coding Scheme", 1995.) Two engines multiply shards by matrix rows, with identical bytes: ISA-L where the `pyeclib`
wheel or the system brings it, tables on `bytes.translate` and numpy elsewhere.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atoll.errors import Refused
from atoll.wire.reasons import Reason

MAX_SHARDS = 255
_POLYNOMIAL = 0x11D
_BLOCK = 32768  # bytes of each shard that ISA-L takes at once: n such blocks stay in the cache, and calls stay few
_SHORT = 64  # shards below the widest vector take the table engine: ISA-L's scalar tails gain nothing there

Shard = bytes | bytearray | memoryview
Rows = NDArray[np.uint8]


class Engine(Protocol):
    """Multiplies shards by a matrix: output r = sum over j of rows[r, j] * shards[j], bytewise in GF(2^8)."""

    def multiply(self, rows: Rows, shards: Sequence[Shard]) -> list[bytes]:
        """`rows` is uint8 [r, k], `shards` k buffers of one length; r buffers of that length."""
        ...


class ReedSolomon:
    """The code that cuts data into `k` shards and adds `n - k`: 1 <= k <= n <= 255."""

    def __init__(self, k: int, n: int, engine: Engine | None = None) -> None:
        if not 1 <= k <= n <= MAX_SHARDS:
            raise ValueError(f"a code has 1 <= k <= n <= {MAX_SHARDS}, not k={k}, n={n}")
        self.k, self.n = k, n
        self._engine = engine or best_engine()

    def encode(self, data: Sequence[Shard]) -> list[bytes]:
        """The n - k parity shards of k data shards of equal length."""
        if len(data) != self.k:
            raise ValueError(f"expected {self.k} data shards, got {len(data)}")
        _one_length(data)
        if self.k == self.n:
            return []
        return self._engine.multiply(cauchy(self.k, self.n)[self.k :], data)

    def rebuild(self, have: Mapping[int, Shard], want: Sequence[int]) -> dict[int, bytes]:
        """Shards `want` from any k of `have` (index -> shard; 0..k-1 are data, k..n-1 parity).

        Raises Refused(NOT_FOUND) when fewer than k are given. The shards are trusted: check their hashes first.
        """
        if not all(0 <= index < self.n for index in (*have, *want)):
            raise ValueError(f"shards of this code are numbered 0..{self.n - 1}")
        result = {index: bytes(have[index]) for index in want if index in have}
        missing = [index for index in want if index not in have]
        if not missing:
            return result
        if len(have) < self.k:
            raise Refused(Reason.NOT_FOUND, f"{len(have)} of the {self.k} shards that are needed")
        chosen = sorted(have)[: self.k]
        shards = [have[index] for index in chosen]
        _one_length(shards)
        rows = _rebuilding_rows(self.k, self.n, tuple(chosen), tuple(missing))
        return result | dict(zip(missing, self._engine.multiply(rows, shards), strict=True))


def _one_length(shards: Sequence[Shard]) -> None:
    if len({len(shard) for shard in shards}) > 1:
        raise ValueError("shards must have one length")


# The field.
@cache
def products() -> Rows:
    """uint8 [256, 256]: the product of every two elements of GF(2^8)."""
    power, value = [], 1
    for _ in range(255):
        power.append(value)
        value = value << 1 ^ (_POLYNOMIAL if value & 0x80 else 0)
    exponent = np.array(power + power, dtype=np.uint8)
    logarithm = np.zeros(256, dtype=np.int64)
    logarithm[exponent[:255]] = np.arange(255)
    table: Rows = exponent[logarithm[:, None] + logarithm[None, :]]
    table[0, :] = table[:, 0] = 0
    return table


@cache
def _inverses() -> Rows:
    # inverse[a] = the b with a * b = 1; zero has none and is never asked for.
    return np.asarray(np.argmax(products() == 1, axis=1), dtype=np.uint8)


def _matmul(left: Rows, right: Rows) -> Rows:
    terms = products()[left[:, :, None], right[None, :, :]]
    return np.asarray(np.bitwise_xor.reduce(terms, axis=1), dtype=np.uint8)


@lru_cache(maxsize=64)
def cauchy(k: int, n: int) -> Rows:
    """uint8 [n, k]: the generator, identity on top."""
    parity = np.arange(k, n)[:, None] ^ np.arange(k)[None, :]
    return np.concatenate([np.eye(k, dtype=np.uint8), _inverses()[parity]])


def _inverted(matrix: Rows) -> Rows:
    # Gauss-Jordan; a submatrix of `cauchy` always has a pivot.
    size = len(matrix)
    work = np.concatenate([matrix, np.eye(size, dtype=np.uint8)], axis=1)
    for column in range(size):
        pivot = column + int(np.argmax(work[column:, column] != 0))
        work[[column, pivot]] = work[[pivot, column]]
        work[column] = products()[_inverses()[work[column, column]], work[column]]
        factors = work[:, column].copy()
        factors[column] = 0
        work ^= products()[factors[:, None], work[column][None, :]]
    return work[:, size:]


@lru_cache(maxsize=256)
def _rebuilding_rows(k: int, n: int, have: tuple[int, ...], want: tuple[int, ...]) -> Rows:
    # shards[want] = generator[want] * inverse(generator[have]) * shards[have]
    generator = cauchy(k, n)
    return _matmul(generator[list(want)], _inverted(generator[list(have)]))


# The engines.
@cache
def _table_of(factor: int) -> bytes:
    return bytes(products()[factor])


class TableEngine:
    """Tables and xor: runs everywhere."""

    def multiply(self, rows: Rows, shards: Sequence[Shard]) -> list[bytes]:
        """See `Engine`."""
        out = np.zeros((len(rows), len(shards[0])), dtype=np.uint8)
        for j, shard in enumerate(shards):
            data = bytes(shard)
            for r, factor in enumerate(rows[:, j].tolist()):
                if factor:
                    out[r] ^= np.frombuffer(data.translate(_table_of(factor)), dtype=np.uint8)
        return [row.tobytes() for row in out]


class IsalEngine:
    """Intel's ISA-L (BSD-3) through ctypes; it picks the instructions of the CPU and releases the GIL."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._init_tables = library.ec_init_tables
        self._init_tables.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]
        self._init_tables.restype = None
        self._encode = library.ec_encode_data
        self._encode.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int] + [ctypes.c_void_p] * 3
        self._encode.restype = None

    def multiply(self, rows: Rows, shards: Sequence[Shard]) -> list[bytes]:
        """See `Engine`."""
        length, count, k = len(shards[0]), len(rows), len(shards)
        if length < _SHORT:
            return TableEngine().multiply(rows, shards)
        tables = ctypes.create_string_buffer(32 * k * count)
        self._init_tables(k, count, np.ascontiguousarray(rows).tobytes(), tables)
        views = [np.frombuffer(shard, dtype=np.uint8) for shard in shards]
        out = np.empty((count, length), dtype=np.uint8)
        sources = np.array([view.ctypes.data for view in views], dtype=np.uintp)
        targets = np.array([row.ctypes.data for row in out], dtype=np.uintp)
        places = ctypes.addressof(tables), sources.ctypes.data, targets.ctypes.data
        for start in range(0, length, _BLOCK):
            self._encode(min(_BLOCK, length - start), k, count, *places)
            sources += np.uintp(_BLOCK)
            targets += np.uintp(_BLOCK)
        return [row.tobytes() for row in out]


def find_isal() -> IsalEngine | None:
    """ISA-L from the `pyeclib` wheel or from the system; None where neither has it."""
    wheel = importlib.util.find_spec("pyeclib")
    folders = [Path(place).parent / "pyeclib.libs" for place in (wheel and wheel.submodule_search_locations) or []]
    bundled = [str(path) for folder in folders for path in sorted(folder.glob("libisal*.so*"))]
    for name in [*bundled, "libisal.so.2", "libisal.2.dylib"]:
        try:
            return IsalEngine(ctypes.CDLL(name))
        except (OSError, AttributeError):  # not there, or another library by that name: the next one may do
            continue
    return None


@cache
def best_engine() -> Engine:
    """ISA-L if this machine has it, else tables."""
    return find_isal() or TableEngine()
