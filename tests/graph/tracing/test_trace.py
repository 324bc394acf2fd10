# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Tracing: the graphs do what torch does, step by step, at any batch size."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="tracing needs the extra `torch`")

from torch import nn
from torch.nn import functional

import atoll
from atoll.graph.session import LocalEngine

from .models import MLP, Backbone, Normed, TinyGPT
from .training import STEPS, Recipe, compared, distance, first, frozen, in_torch

BATCHES = (4, 7, 33)
RATE = 3e-3


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=RATE)


def momentum(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)


def language_loss(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(scores.flatten(0, 1), y.flatten(), ignore_index=0)


def backbone() -> nn.Module:
    model = Backbone()
    atoll.freeze(model.body)
    return model


def low_rank() -> nn.Module:
    return atoll.low_rank(MLP(), rank=2)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, Any, Recipe]] = {
    "mlp": (MLP, (4, 5), 7, atoll.AdamW(lr=RATE), Recipe(adamw, functional.cross_entropy)),
    "normed": (Normed, (3, 6, 6), 5, atoll.SGD(0.1, 0.9, nesterov=True), Recipe(momentum, functional.cross_entropy)),
    "backbone": (backbone, (4, 5), 7, atoll.AdamW(lr=RATE), Recipe(adamw, functional.cross_entropy)),
    "low_rank": (low_rank, (4, 5), 7, atoll.AdamW(lr=RATE), Recipe(adamw, functional.cross_entropy)),
    "gpt": (TinyGPT, (8,), 11, atoll.AdamW(lr=RATE), Recipe(adamw, language_loss)),
}


def build(name: str) -> nn.Module:
    torch.manual_seed(5)
    return CASES[name][0]()


def samples(name: str, batch: int, steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    _, shape, classes, _, _ = CASES[name]
    rng = np.random.default_rng(batch)
    if name == "gpt":
        return rng.integers(0, 11, (steps, batch, 8)), rng.integers(0, 11, (steps, batch, 8))
    return rng.normal(size=(steps, batch, *shape)).astype(np.float32), rng.integers(0, classes, (steps, batch))


@cache
def made(name: str) -> atoll.Job:
    x, y = samples(name, 3, 1)
    loss = nn.CrossEntropyLoss(ignore_index=0) if name == "gpt" else nn.CrossEntropyLoss()
    example = (torch.tensor(x[0]), torch.tensor(y[0]))
    return atoll.job(build(name), loss, CASES[name][3], example, [atoll.accuracy, atoll.top5])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_are_torchs(name: str, batch: int) -> None:
    apart, moved = compared(made(name).file, build(name), CASES[name][4], *samples(name, batch))
    assert apart <= 1e-5
    assert moved > 1e-3


@pytest.mark.parametrize("batch", [1, 7, 33])
@pytest.mark.parametrize("name", CASES)
def test_evaluation_and_prediction_are_torchs(name: str, batch: int) -> None:
    file = made(name).file
    x, y = (part[0] for part in samples(name, 37, 1))
    model = build(name).eval()
    values = {tensor.name: file.values[tensor.name] for tensor in file.spec.vector_tensors}
    with torch.no_grad():
        scores = model(torch.tensor(x)).reshape(-1, CASES[name][2])
    labels = torch.tensor(y).flatten()
    counted = labels != 0 if name == "gpt" else labels >= 0
    found = LocalEngine().evaluate(file.evaluate, values, x, y, batch, frozen(file))
    expected = functional.cross_entropy(scores[counted], labels[counted], reduction="sum")
    assert found.count == int(counted.sum())
    assert found.loss_sum == pytest.approx(float(expected), rel=1e-5)
    best = scores.topk(5, 1).indices == labels[:, None]
    assert found.sums == {"accuracy": int(best[counted, 0].sum()), "top5": int(best[counted].sum())}
    predicted = LocalEngine().predict(file.predict, values, x, batch, frozen(file))
    np.testing.assert_allclose(predicted.reshape(scores.shape), scores.softmax(1).numpy(), atol=1e-6)


def test_a_step_of_one_sample_is_torchs() -> None:
    apart, moved = compared(made("mlp").file, build("mlp"), CASES["mlp"][4], *samples("mlp", 1))
    assert apart <= 1e-5 < moved


def test_running_statistics_are_aggregates_and_counters_are_left_out() -> None:
    spec = made("normed").file.spec
    roles = {tensor.name: (tensor.role, tensor.bits) for tensor in spec.vector_tensors}
    statistics = {name: role for name, role in roles.items() if role[0] == "aggregate"}
    names = {f"{layer}.{what}" for layer in ("norm", "norm1") for what in ("running_mean", "running_var")}
    assert statistics == dict.fromkeys(names, ("aggregate", 16))
    assert not any("num_batches" in tensor.name for tensor in spec.tensors)


def test_frozen_parts_are_frozen_and_only_adapters_travel() -> None:
    spec = made("backbone").file.spec
    assert {tensor.name for tensor in spec.vector_tensors} == {"head.weight", "head.bias"}
    assert {tensor.name for tensor in spec.frozen_tensors} == {
        *(f"body.1.{what}" for what in ("weight", "bias")),
        *(f"body.2.{what}" for what in ("weight", "bias", "running_mean", "running_var")),
    }
    adapters = made("low_rank").file.spec
    names = [f"{layer}.{part}" for layer in ("first", "second") for part in ("down", "up")]
    assert [tensor.name for tensor in adapters.vector_tensors] == names


def test_a_tied_weight_is_one_tensor() -> None:
    names = [tensor.name for tensor in made("gpt").file.spec.vector_tensors]
    assert "tokens.weight" in names
    assert "head.weight" not in names
    assert not made("gpt").file.spec.frozen_tensors  # positions are a constant
    assert made("gpt").file.spec.output.shape == (8, 11)


def test_the_users_model_and_dice_are_left_alone() -> None:
    model = build("normed")
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    dice = torch.get_rng_state()
    example = (torch.zeros(4, 3, 6, 6), torch.zeros(4, dtype=torch.int64))
    file = atoll.job(model, nn.CrossEntropyLoss(), CASES["normed"][3], example).file
    assert torch.equal(dice, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())
    x, y = samples("normed", 9)  # the first norm stays in evaluation mode: its statistics are frozen
    apart, _ = compared(file, model, CASES["normed"][4], x, y)
    assert apart <= 1e-5
    assert {tensor.name for tensor in file.spec.frozen_tensors} == {"norm.running_mean", "norm.running_var"}


def test_the_clip_limits_the_gradient_and_none_switches_it_off() -> None:
    x, y = (50 * samples("mlp", 9, 1)[0], samples("mlp", 9, 1)[1])
    example = (torch.tensor(x[0]), torch.tensor(y[0]))
    for clip in (0.5, None):
        file = atoll.job(build("mlp"), nn.CrossEntropyLoss(), atoll.SGD(lr=1.0), example, clip=clip).file
        recipe = Recipe(lambda parameters: torch.optim.SGD(parameters, lr=1.0), functional.cross_entropy, clip)
        assert compared(file, build("mlp"), recipe, x, y)[0] <= 1e-5
        after = in_torch(build("mlp"), recipe, x, y)
        moved = np.sqrt(sum(np.square(after[name] - value).sum() for name, value in first(file).items()))
        assert (moved == pytest.approx(0.5, rel=1e-4)) == (clip == 0.5)


def test_dropout_differs_by_seed_and_is_off_in_evaluation() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 64), nn.Dropout(0.5), nn.Linear(64, 7))
    x, y = samples("mlp", 9, 1)
    example = (torch.tensor(x[0]), torch.tensor(y[0]))
    file = atoll.job(model, nn.CrossEntropyLoss(), atoll.SGD(lr=0.1), example).file
    from .training import by_graph

    one, same, other = (by_graph(file, x, y, seed).tensors for seed in (1, 1, 2))
    assert distance(one, same) == 0
    assert distance(one, other) > 1e-4
    values = {tensor.name: file.values[tensor.name] for tensor in file.spec.vector_tensors}
    predicted = LocalEngine().predict(file.predict, values, x[0], 4)
    np.testing.assert_allclose(predicted, model.eval()(torch.tensor(x[0])).softmax(1).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_graphs_carry_nothing_of_this_machine(name: str) -> None:
    file = made(name).file
    for data in (file.step, file.evaluate, file.predict):
        model = onnx.load_from_string(data)
        assert not model.metadata_props and not any(node.metadata_props or node.doc_string for node in model.graph.node)
        assert b".py" not in data
