"""The one source of drawn numbers: a ChaCha20 keystream that every node recomputes from a beacon.

Key = tagged(GENERATOR, beacon, context), nonce 0, block counter from 0 (https://www.rfc-editor.org/rfc/rfc8439). Words
are little-endian and are taken from the keystream in order, without gaps. The draws below are normative: another
implementation that follows the docstrings gets the same numbers (`tests/vectors/training.json`).
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from atoll.wire.hashing import Tag, tagged

T = TypeVar("T")

WORD = 1 << 32
LONG = 1 << 64


def _stream(key: bytes, counter: int, nonce: bytes) -> CipherContext:
    return Cipher(ChaCha20(key, counter.to_bytes(4, "little") + nonce), mode=None).encryptor()


def keystream(key: bytes, length: int, counter: int = 0, nonce: bytes = bytes(12)) -> bytes:
    """`length` bytes of RFC 8439's ChaCha20 keystream (32-byte key, 12-byte nonce) from block `counter` on."""
    return _stream(key, counter, nonce).update(bytes(length))


class Generator:
    """Numbers drawn from (beacon, context): the same on every machine, and unrelated for any other pair."""

    def __init__(self, beacon: bytes, context: bytes) -> None:
        self._stream = _stream(tagged(Tag.GENERATOR, beacon, context), 0, bytes(12))

    def take(self, length: int) -> bytes:
        """The next `length` bytes of the keystream."""
        return self._stream.update(bytes(length))

    def next_u32(self) -> int:
        """The next four bytes as a little-endian number."""
        return int.from_bytes(self.take(4), "little")

    def next_u64(self) -> int:
        """The next eight bytes as a little-endian number."""
        return int.from_bytes(self.take(8), "little")

    def uniform(self, bound: int) -> int:
        """A number in 0..bound-1, each equally likely: word mod bound.

        Words are 32 bits for bounds up to 2^32 and 64 bits above (at most 2^64); a word at or above the largest
        multiple of `bound` is rejected and the next one is taken. Raises ValueError for any other bound.
        """
        if not 1 <= bound <= LONG:
            raise ValueError(f"bound {bound}, expected 1 to 2^64")
        size, draw = (WORD, self.next_u32) if bound <= WORD else (LONG, self.next_u64)
        limit = size - size % bound
        while True:
            word = draw()
            if word < limit:
                return word % bound

    def _uniforms(self, bounds: NDArray[np.uint64]) -> list[int]:
        """`[uniform(b) for b in bounds]` in few numpy calls; every bound at most 2^32."""
        limits = WORD - WORD % bounds
        drawn: list[int] = []
        while len(drawn) < len(bounds):
            words = np.frombuffer(self.take(4 * (len(bounds) - len(drawn))), "<u4").astype(np.uint64)
            while len(words):
                start, stop = len(drawn), len(drawn) + len(words)
                rejected = np.flatnonzero(words >= limits[start:stop])
                good = int(rejected[0]) if len(rejected) else len(words)
                drawn += (words[:good] % bounds[start : start + good]).tolist()
                words = words[good + 1 :]
        return drawn

    def shuffle(self, items: MutableSequence[T]) -> None:
        """Shuffle in place (Fisher-Yates): for i from n-1 down to 1, swap items i and uniform(i + 1)."""
        last = len(items) - 1
        drawn = self._uniforms(np.arange(last + 1, 1, -1, dtype=np.uint64))
        for i, j in zip(range(last, 0, -1), drawn, strict=True):
            items[i], items[j] = items[j], items[i]

    def permutation(self, count: int) -> NDArray[np.int64]:
        """The numbers 0..count-1 shuffled: int64 [count]."""
        order = list(range(count))
        self.shuffle(order)
        return np.array(order, dtype=np.int64)

    def draw(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different positions of `items`, in the order drawn.

        For i = 0..count-1: swap items i and i + uniform(n - i) of a copy; the first `count` are drawn. Raises
        ValueError when there are fewer items than that.
        """
        if not 0 <= count <= len(items):
            raise ValueError(f"cannot draw {count} of {len(items)}")
        pool = list(items)
        for i in range(count):
            j = i + self.uniform(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def choice(self, items: Sequence[T]) -> T:
        """One item: items[uniform(n)]. Raises ValueError when there is none."""
        return items[self.uniform(len(items))]
