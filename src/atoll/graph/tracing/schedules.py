"""Learning-rate schedules: functions of the job's global step that give the factor of the base rate. Needs torch.

They are traced into the step graph, so the factor follows from the step alone. Any function of a scalar int64 tensor
that gives a scalar will do in their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from atoll.errors import BadInput

Schedule = Callable[[Tensor], Tensor]


def cosine(steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Up in a line over `warmup` steps, then down along a cosine to `floor` at step `steps`, and `floor` from then on.

    The descent is that of https://arxiv.org/abs/1608.03983 without restarts.
    """
    _check(steps, warmup, floor)

    def factor(step: Tensor) -> Tensor:
        falling = floor + (1 - floor) * 0.5 * (1 + torch.cos(math.pi * _progress(step, steps, warmup)))
        return falling * _rising(step, warmup)

    return factor


def linear(steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Up in a line over `warmup` steps, then down in a line to `floor` at step `steps`, and `floor` from then on."""
    _check(steps, warmup, floor)

    def factor(step: Tensor) -> Tensor:
        return (1 - (1 - floor) * _progress(step, steps, warmup)) * _rising(step, warmup)

    return factor


def step_decay(every: int, factor: float = 0.1) -> Schedule:
    """The rate is multiplied by `factor` after each `every` steps (`torch.optim.lr_scheduler.StepLR`)."""
    if every < 1 or not 0 < factor <= 1:
        raise BadInput("step_decay needs every >= 1 and 0 < factor <= 1")

    def current(step: Tensor) -> Tensor:
        return torch.exp(math.log(factor) * torch.floor((step.to(torch.float32) + 0.5) / every))

    return current


def _check(steps: int, warmup: int, floor: float) -> None:
    if not 0 <= warmup < steps or not 0 <= floor <= 1:
        raise BadInput("a schedule needs 0 <= warmup < steps and 0 <= floor <= 1")


def _progress(step: Tensor, steps: int, warmup: int) -> Tensor:
    return ((step.to(torch.float32) - warmup) / (steps - warmup)).clamp(0.0, 1.0)


def _rising(step: Tensor, warmup: int) -> Tensor:
    return ((step.to(torch.float32) + 1) / max(1, warmup)).clamp(max=1.0)
