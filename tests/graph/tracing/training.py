"""The same training twice: in torch as usual, and by a job's graph; and how far apart they end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from atoll.graph.archive import JobFile
from atoll.graph.params import frozen_of
from atoll.graph.session import Frozen, LocalEngine, Pace, TrainResult
from atoll.graph.tracing.inventory import graph_name

STEPS = 20
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """How torch trains: the optimizer's maker, the loss, the largest norm of the gradient."""

    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    loss: Callable[..., torch.Tensor]
    clip: float | None = 1.0
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None


def in_torch(model: nn.Module, recipe: Recipe, x: np.ndarray, y: np.ndarray) -> Arrays:
    """The usual loop on a copy of `model`, in the mode that it is in; parameters and float buffers by graph name."""
    model = copy.deepcopy(model)
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = recipe.optimizer(trained)
    schedule = recipe.schedule(optimizer) if recipe.schedule else None
    for batch, labels in zip(x, y, strict=True):
        optimizer.zero_grad()
        recipe.loss(model(torch.tensor(batch)), torch.tensor(labels)).backward()
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(trained, recipe.clip)
        optimizer.step()
        if schedule:
            schedule.step()
    named = [*model.named_parameters(), *model.named_buffers()]
    return {graph_name(name): value.detach().numpy() for name, value in named if value.is_floating_point()}


def frozen(file: JobFile) -> Frozen | None:
    """The tensors of a job that never change."""
    return frozen_of(file.params, file.spec.tensors)


def first(file: JobFile) -> Arrays:
    """The tensors of a job that change, before the first step."""
    values = {tensor.name: file.values[tensor.name] for tensor in file.spec.vector_tensors}
    return values | {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in file.spec.reset_tensors}


def by_graph(file: JobFile, x: np.ndarray, y: np.ndarray, seed: int = 0) -> TrainResult:
    """The steps of a job in this process."""
    pace = Pace(0, seed, file.spec.hyper.learning_rate)
    return LocalEngine().train(file.step, first(file), x, y, pace, frozen(file))


def distance(found: Arrays, expected: Arrays) -> float:
    """Relative L2 distance of all tensors of `expected` as one vector."""
    difference = sum(float(np.square(found[name] - value).sum(dtype=np.float64)) for name, value in expected.items())
    return float(
        np.sqrt(difference / sum(float(np.square(value).sum(dtype=np.float64)) for value in expected.values()))
    )


def compared(file: JobFile, model: nn.Module, recipe: Recipe, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Distance between the graph's result and torch's, and how far torch moved; over what the job trains."""
    after = in_torch(model, recipe, x, y)
    trained = {tensor.name for tensor in file.spec.vector_tensors}
    expected = {name: value for name, value in after.items() if name in trained}
    assert set(expected) == trained
    return distance(by_graph(file, x, y).tensors, expected), distance(first(file), expected)
