# ruff: noqa: E402  # whether torch is there decides before the other imports
"""The generator inside the graph: known answers, statistics, and the same bits from ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="tracing needs the extra `torch`")

from torch import Tensor
from torch.nn import functional

from atoll.errors import BadInput
from atoll.graph.check import check_graph
from atoll.graph.session import open_session
from atoll.graph.signatures import FLOAT, INT64, Signature
from atoll.graph.tracing import random
from atoll.graph.tracing.recording import export

from .philox import mask, philox

# From Random123's kat_vectors: rounds, counter, key, answer.
KNOWN = [
    (7, 0x00000000, 0x00000000, 0x00000000, 0x257A3673, 0xCD26BE2A),
    (7, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xAB302C4D, 0x3DC9D239),
    (7, 0x243F6A88, 0x85A308D3, 0x13198A2E, 0xBEDBBE6B, 0xE4C770B3),
    (10, 0x00000000, 0x00000000, 0x00000000, 0xFF1DAE59, 0x6CD10DF2),
    (10, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x2C3F628B, 0xAB4FD7AD),
    (10, 0x243F6A88, 0x85A308D3, 0x13198A2E, 0xDD7CE038, 0xF62A4C12),
]


@pytest.mark.parametrize(("rounds", "low", "high", "key", "first", "second"), KNOWN)
def test_known_answers(rounds: int, low: int, high: int, key: int, first: int, second: int) -> None:
    found = random.philox(torch.tensor(low), torch.tensor(high), torch.tensor(key), rounds)
    assert [int(word) for word in found] == [first, second]
    assert philox(low, high, key, rounds) == (first, second)


def drawn(shape: tuple[int, ...], probability: float, seed: int, step: int, calls: int = 1) -> list[Tensor]:
    with random.stream(torch.tensor(seed), torch.tensor(step)):
        return [random.keep(shape, probability) for _ in range(calls)]


def test_masks_are_those_of_plain_integers() -> None:
    for seed, step in ((0, 0), (5, 7), (2**31 - 1, 2**24 - 1)):
        for call, found in enumerate(drawn((3, 4, 10), 0.9, seed, step, 3)):
            assert np.array_equal(found.numpy(), mask((3, 4, 10), 0.9, seed, step, call))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_statistics(probability: float) -> None:
    one, two = (found.double() for found in drawn((64, 4096), probability, 3, 4, 2))
    deviation = (probability * (1 - probability) / one.numel()) ** 0.5
    assert abs(float(one.mean()) - probability) < 4 * deviation
    lanes = one.reshape(64, 4, 1024).mean((0, 2))
    assert float((lanes - probability).abs().max()) < 8 * deviation
    for other in (two, one.roll(1, 1), one.roll(1024, 1), one.roll(1, 0)):  # the next call, neighbours, lanes, samples
        together = float(((one - probability) * (other - probability)).mean()) / (probability * (1 - probability))
        assert abs(together) < 4 / one.numel() ** 0.5


def test_steps_seeds_and_calls_differ() -> None:
    masks = [drawn((8, 64), 0.5, seed, step, 2) for seed in (1, 2) for step in (0, 1)]
    flat = [bytes(found.numpy().tobytes()) for pair in masks for found in pair]
    assert len(set(flat)) == 8


def test_outside_of_a_step_nothing_is_drawn() -> None:
    with pytest.raises(BadInput, match="outside of a training step"):
        random.keep((2, 3), 0.5)


def test_too_many_calls_are_refused() -> None:
    with pytest.raises(BadInput, match="at most 256"):
        drawn((1, 4), 0.5, 0, 0, 257)


def dropped(x: Tensor, seed: Tensor, step: Tensor) -> tuple[Tensor, ...]:
    with random.stream(seed, step):
        return (
            functional.dropout(x, 0.1),
            functional.dropout2d(x.unsqueeze(-1), 0.3).squeeze(-1),
            torch.bernoulli(x, 0.25),
            functional.dropout(x, 0.5, training=False),
        )


def test_the_graph_draws_the_same_bits_at_any_batch_size() -> None:
    outputs = tuple((f"out{index}", FLOAT, ("batch", 6, 10)) for index in range(4))
    ports = Signature((("x", FLOAT, ("batch", 6, 10)), ("seed", INT64, ()), ("step", INT64, ())), outputs, 33, 1)
    data = export(dropped, [torch.ones(37, 6, 10), torch.tensor(0), torch.tensor(0)], ports, slice(1, None))
    check_graph(data, ports)
    session = open_session(data, 1)
    for batch, seed, step in ((1, 0, 0), (7, 5, 7), (33, 2**31 - 1, 2**24 - 1)):
        x = np.random.default_rng(batch).normal(size=(batch, 6, 10)).astype(np.float32)
        found = session.run(None, {"x": x, "seed": np.array(seed), "step": np.array(step)})
        whole = mask((batch, 6, 10), 0.9, seed, step, 0)
        np.testing.assert_allclose(found[0], np.where(whole, x / np.float32(0.9), 0), rtol=1e-6)
        planes = mask((batch, 6, 1, 1), 0.7, seed, step, 1).reshape(batch, 6, 1)
        np.testing.assert_allclose(found[1], np.where(planes, x / np.float32(0.7), 0), rtol=1e-6)
        assert np.array_equal(found[2], mask((batch, 6, 10), 0.25, seed, step, 2))
        assert np.array_equal(found[3], x)
