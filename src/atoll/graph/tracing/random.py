"""Random numbers inside a graph: the counter-based generator Philox2x32-7 in 64-bit integer arithmetic.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A mask depends on three numbers
alone, so it has the same bits on every runtime: the key is the unit's seed; the second word of the counter is the
step and the number of the call within the step; the first word counts along the mask. Each block of 64 bits decides
four elements by 16 bits each, so a probability is rounded to a multiple of 1/65536.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from atoll.errors import BadInput

ROUNDS = 7  # the paper's fewest that passed every test of BigCrush
MULTIPLIER = 0xD256D193
WEYL = 0x9E3779B9
WORD = 1 << 32
LANES = 4
LANE = 1 << 16
STREAMS = 256  # random calls within one step, at most; steps are told apart up to 2^24
_LOW = WORD - 1


@dataclass
class Stream:
    """Where the random numbers of one step come from: `seed` and `step` int64 scalars; `calls` made so far."""

    seed: Tensor
    step: Tensor
    calls: int = 0

    def next_word(self) -> Tensor:
        """The second word of the counter for the next call. Raises BadInput beyond 256 calls."""
        if self.calls >= STREAMS:
            raise BadInput(f"the model draws random numbers {self.calls + 1} times a step, at most {STREAMS}")
        word = torch.bitwise_and(self.step * STREAMS + self.calls, _LOW)
        self.calls += 1
        return word


_current: ContextVar[Stream | None] = ContextVar("stream", default=None)


@contextmanager
def stream(seed: Tensor, step: Tensor) -> Iterator[Stream]:
    """Within this context dropout and its like draw from the generator with this seed and step (int64 scalars)."""
    opened = Stream(seed, step)
    token = _current.set(opened)
    try:
        yield opened
    finally:
        _current.reset(token)


def keep(shape: tuple[int, ...], probability: float) -> Tensor:
    """A mask of `shape`, bool: each element is True with `probability`. Raises BadInput outside of `stream`."""
    source = _current.get()
    if source is None:
        raise BadInput("random numbers are drawn outside of a training step; call them only where module.training")
    dim = _lane_dim(shape)
    if dim is None:
        return _lanes(_counters((*shape, 1)), source, probability)[0].reshape(shape)
    length = shape[dim]
    counters = _counters((*shape[:dim], -(-length // LANES), *shape[dim + 1 :]))
    return torch.cat(_lanes(counters, source, probability), dim).narrow(dim, 0, length)


def philox(low: Tensor, high: Tensor, key: Tensor, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Philox2x32: two words of random bits for each counter; all words are int64 in 0..2^32-1, shapes broadcast.

    Multiplying by MULTIPLIER - 2^32 in place of MULTIPLIER keeps every product within 63 bits: its low 32 bits are
    the same, and its high ones lack just the word itself. The division is exact, so its rounding does not matter.
    """
    for index in range(rounds):
        product = low * (MULTIPLIER - WORD)
        rest = torch.bitwise_and(product, _LOW)
        carry = low + torch.div(product - rest, WORD, rounding_mode="trunc")
        turned = torch.bitwise_and(key + index * WEYL, _LOW)
        low, high = torch.bitwise_xor(carry, torch.bitwise_xor(high, turned)), rest
    return low, high


def _lane_dim(shape: tuple[int, ...]) -> int | None:
    """The longest dimension whose length is known, along which the four lanes of a block lie; None if there is none."""
    known = [dim for dim, length in enumerate(shape) if isinstance(length, int)]
    return max(known, key=lambda dim: shape[dim], default=None)


def _counters(shape: tuple[int, ...]) -> Tensor:
    """0, 1, 2, ... in `shape`, without a table."""
    return (torch.ones(shape, dtype=torch.int64).reshape(-1).cumsum(0) - 1).reshape(shape)


def _lanes(counters: Tensor, source: Stream, probability: float) -> list[Tensor]:
    """Four masks of the shape of `counters`: low half and high half of the first word, then of the second."""
    border = round(probability * LANE)
    masks = []
    for word in philox(counters, source.next_word(), torch.bitwise_and(source.seed, _LOW)):
        masks += [torch.bitwise_and(word, LANE - 1) < border, word < border * LANE]
    return masks
