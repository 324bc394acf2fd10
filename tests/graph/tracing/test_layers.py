# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Layers of all kinds, traced and trained next to torch: many kinds in each model, at several batch sizes."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="tracing needs the extra `torch`")

from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import atoll
from atoll.graph.session import LocalEngine, Pace

from .layers import Activations, Convolutions, Decoder, ResNet, Sequences
from .philox import mask
from .training import Recipe, compared, distance, first, in_torch

RATE = 0.1
SMALL = {"convolutions": Convolutions, "sequences": Sequences, "activations": Activations}
SHAPES = {"convolutions": (3, 12, 10), "activations": (6, 8), "resnet": (3, 16, 16)}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=RATE)


def samples(name: str, batch: int, steps: int, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs, and labels that depend on them."""
    rng = np.random.default_rng(batch)
    if name == "sequences":
        x = rng.integers(0, 11, (steps, batch, 4))
        return x, x.sum(2) % classes
    x = rng.normal(size=(steps, batch, *SHAPES[name])).astype(np.float32)
    return x, (np.abs(x.reshape(steps, batch, -1)[:, :, :9]).sum(2) * 7).astype(np.int64) % classes


def build(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(7)
    return kind()


@cache
def made(name: str) -> atoll.Job:
    x, y = samples(name, 3, 1)
    example = (torch.tensor(x[0]), torch.tensor(y[0]))
    return atoll.job(build(SMALL[name]), nn.CrossEntropyLoss(), atoll.SGD(RATE), example)


def largest_constant(graph: bytes) -> int:
    model = onnx.load_from_string(graph)
    return max((onnx.numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer), default=0)


@pytest.mark.parametrize("batch", [2, 7, 33])
@pytest.mark.parametrize("name", SMALL)
def test_small_models_train_as_in_torch(name: str, batch: int) -> None:
    recipe = Recipe(sgd, functional.cross_entropy)
    apart, moved = compared(made(name).file, build(SMALL[name]), recipe, *samples(name, batch, 8))
    assert apart <= 1e-5
    assert moved > 1e-3


@pytest.mark.parametrize("name", ["sequences", "activations"])
def test_one_sample_is_a_batch_too(name: str) -> None:
    recipe = Recipe(sgd, functional.cross_entropy)
    apart, _ = compared(made(name).file, build(SMALL[name]), recipe, *samples(name, 1, 8))
    assert apart <= 1e-5


@pytest.mark.parametrize("name", SMALL)
def test_no_tables_are_baked_in(name: str) -> None:
    file = made(name).file
    assert max(largest_constant(graph) for graph in (file.step, file.evaluate, file.predict)) <= 512


def test_a_residual_network_of_the_users_own() -> None:
    model = build(ResNet)
    assert 1_000_000 < sum(value.numel() for value in model.parameters()) < 5_000_000
    x, y = samples("resnet", 8, 10, 10)
    rate = 0.03  # at 0.1 torch itself leaves its own float64 by 2.5e-5, the graph by 1e-7
    job = atoll.job(model, nn.CrossEntropyLoss(), atoll.SGD(rate), (torch.tensor(x[0]), torch.tensor(y[0])))
    recipe = Recipe(lambda parameters: torch.optim.SGD(parameters, lr=rate), functional.cross_entropy)
    apart, moved = compared(job.file, build(ResNet), recipe, x, y)
    assert apart <= 1e-5
    assert moved > 1e-2
    assert largest_constant(job.file.step) <= 512


class SameMasks(TorchFunctionMode):
    """torch's dropout with the masks of the graph, computed apart from it; `calls` of them make a step."""

    def __init__(self, seed: int, calls: int) -> None:
        super().__init__()
        self.seed, self.calls, self.made = seed, calls, 0

    def dropped(self, x: torch.Tensor, rate: float) -> torch.Tensor:
        kept = mask(tuple(x.shape), 1 - rate, self.seed, self.made // self.calls, self.made % self.calls)
        self.made += 1
        return x * torch.tensor(kept) / (1 - rate)

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # torch's
        kwargs = kwargs or {}
        if func is functional.dropout:
            return self.dropped(args[0], kwargs["p"])
        if func is functional.scaled_dot_product_attention:
            query, key, value = args
            scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            return self.dropped(scores.masked_fill(later, float("-inf")).softmax(-1), kwargs["dropout_p"]) @ value
        return func(*args, **kwargs)


def language_loss(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(scores.flatten(0, 1), y.flatten())


def test_a_decoder_of_the_users_own_with_dropout() -> None:
    model = build(Decoder)
    assert 1_000_000 < sum(value.numel() for value in model.parameters()) < 5_000_000
    rng = np.random.default_rng(2)
    text = (rng.zipf(1.3, (10, 4, 25)) % 300).astype(np.int64)  # few frequent words, many rare ones
    x, y = text[:, :, :-1], text[:, :, 1:]
    job = atoll.job(model, nn.CrossEntropyLoss(), atoll.SGD(RATE), (torch.tensor(x[0]), torch.tensor(y[0])))
    file, seed = job.file, 20_251_122
    found = LocalEngine().train(file.step, first(file), x, y, Pace(0, seed, RATE)).tensors
    with SameMasks(seed, 1 + 3 * 2) as masks:
        expected = in_torch(build(Decoder), Recipe(sgd, language_loss), x, y)
    assert masks.made == 10 * 7
    names = {tensor.name for tensor in file.spec.vector_tensors}
    assert distance(found, {name: value for name, value in expected.items() if name in names}) <= 1e-5
    other = LocalEngine().train(file.step, first(file), x[:1], y[:1], Pace(0, seed + 1, RATE)).tensors
    same = LocalEngine().train(file.step, first(file), x[:1], y[:1], Pace(0, seed, RATE)).tensors
    assert distance(other, same) > 1e-5
    assert largest_constant(file.step) <= 512
    scores = [LocalEngine().predict(file.predict, first(file), x[0], 4) for _ in range(2)]
    assert np.array_equal(*scores)  # no dropout there
