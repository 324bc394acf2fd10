"""What evaluation sums up besides the loss; a metric's value is its sum over the count of targets. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atoll.errors import BadInput
from atoll.graph.spec import METRIC_NAME
from atoll.graph.tracing.losses import Objective


@dataclass(frozen=True)
class Metric:
    """A named sum over the counted targets: `total(scores, y, objective)` gives a float scalar.

    `source` is the user's function, if it is hers.
    """

    name: str
    total: Callable[[Tensor, Tensor, Objective], Tensor]
    source: Any = None

    def __post_init__(self) -> None:
        if not METRIC_NAME.fullmatch(self.name):
            raise BadInput(f"a metric cannot be called {self.name!r}: use 1-32 of a-z 0-9 _, a letter first")


def metric(total: Callable[[Tensor, Tensor], Tensor], name: str | None = None) -> Metric:
    """A metric of your own: `total(scores, y)` sums over the targets and gives a scalar; `name` is the function's."""
    known = getattr(total, "__name__", "") if name is None else name
    return Metric(known, lambda scores, y, objective: total(scores, y), total)


def read(metrics: Sequence[Any]) -> tuple[Metric, ...]:
    """Metrics as given to `atoll.job`: ours, or plain functions, which are called by their names."""
    found = tuple(one if isinstance(one, Metric) else metric(one) for one in metrics if _callable(one))
    names = [one.name for one in found]
    if len(set(names)) != len(names):
        raise BadInput(f"metrics need different names, these are {', '.join(names)}")
    return found


def _callable(one: Any) -> bool:
    if not isinstance(one, Metric) and not callable(one):
        raise BadInput(f"a metric is a {type(one).__name__}: use atoll.accuracy or a function (scores, y) -> sum")
    return True


def _accuracy(scores: Tensor, y: Tensor, objective: Objective) -> Tensor:
    if objective.kind == "classes":
        if y.dtype != torch.int64:
            dimension = 1 if objective.dimension is None else objective.dimension
            return _by_sample((scores.argmax(dimension) == y.argmax(dimension)).float())
        flat = objective.classes(scores, y)
        return ((flat.scores.argmax(1) == flat.labels) & flat.counted).float().sum()
    if objective.kind in ("logits", "chances"):
        middle = 0.0 if objective.kind == "logits" else 0.5
        return _by_sample(((scores > middle) == (y > 0.5)).float())
    raise BadInput("accuracy needs classes: int64 labels and scores [batch, classes], or a binary cross-entropy")


def _top5(scores: Tensor, y: Tensor, objective: Objective) -> Tensor:
    if objective.kind != "classes" or y.dtype != torch.int64:
        raise BadInput("top5 needs classes: int64 labels and scores [batch, classes]")
    flat = objective.classes(scores, y)
    own = flat.scores.gather(1, torch.where(flat.counted, flat.labels, 0)[:, None])
    better = (~(flat.scores <= own)).to(torch.int64).sum(1)  # written so that NaN counts as better
    return ((better < 5) & flat.counted).float().sum()


def _mean_absolute_error(scores: Tensor, y: Tensor, objective: Objective) -> Tensor:
    if objective.kind == "classes" or y.dtype != torch.float32:
        raise BadInput("mean_absolute_error needs float32 targets of the scores' shape")
    values = scores.sigmoid() if objective.kind == "logits" else scores
    return _by_sample((values - y).abs())


def _by_sample(values: Tensor) -> Tensor:
    """Mean over each sample's targets, summed over the samples."""
    return values.reshape(values.shape[0], -1).mean(1).sum()


accuracy = Metric("accuracy", _accuracy)
"""Share of the counted targets whose best class is right; with a binary cross-entropy, of the answers yes or no."""

top5 = Metric("top5", _top5)
"""Share of the counted targets whose class is among the five best."""

mean_absolute_error = Metric("mean_absolute_error", _mean_absolute_error)
"""Mean distance between scores and targets."""
