"""Optimizers as tensor arithmetic that can be traced into the step graph (needs torch).

An optimizer names its state tensors for each parameter and computes the next parameter and state from the
gradient. All state is `reset`: zero at the start of every unit of work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atoll.errors import BadInput

CLIP_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def clip(gradients: Mapping[str, Tensor], limit: float) -> dict[str, Tensor]:
    """Scale all gradients together so that their common L2 norm is at most `limit`.

    The norm is taken over all of them as one vector; the rule is that of `torch.nn.utils.clip_grad_norm_`.
    """
    squares = torch.stack([gradient.square().sum() for gradient in gradients.values()])
    scale = torch.clamp(limit / (squares.sum().sqrt() + CLIP_EPSILON), max=1.0)
    return {name: gradient * scale for name, gradient in gradients.items()}


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum and weight decay, as `torch.optim.SGD` defines it (no dampening).

    `momentum` and `weight_decay` become constants of the graph; the learning rate is an input of the graph.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise BadInput("SGD needs 0 <= momentum < 1 and weight_decay >= 0")

    def state(self, name: str) -> tuple[str, ...]:
        """Names of the state tensors (each of the parameter's shape) that belong to parameter `name`."""
        return (f"momentum.{name}",) if self.momentum else ()

    def update(
        self, parameter: Tensor, gradient: Tensor, state: tuple[Tensor, ...], step: Tensor, rate: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Next parameter and next state, all of the parameter's shape; `step` (int64) and `rate` are scalars."""
        del step  # plain SGD does not depend on it
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameter
        if not self.momentum:
            return parameter - rate * gradient, ()
        velocity = self.momentum * state[0] + gradient
        return parameter - rate * velocity, (velocity,)
