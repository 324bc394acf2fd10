"""Optimizers as tensor arithmetic that can be traced into the step graph (needs torch).

An optimizer names its state tensors and computes the next parameter and state from the gradient. All state is
`reset`: zero at the start of every unit of work, as if the optimizer had just been made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from atoll.errors import BadInput
from atoll.graph.tracing.schedules import Schedule

CLIP_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_
State = tuple[Tensor, ...]


def clip(gradients: Mapping[str, Tensor], limit: float) -> dict[str, Tensor]:
    """Scale all gradients together so that their common L2 norm is at most `limit`.

    The norm is taken over all of them as one vector; the rule is that of `torch.nn.utils.clip_grad_norm_`.
    """
    squares = torch.stack([gradient.square().sum() for gradient in gradients.values()])
    scale = torch.clamp(limit / (squares.sum().sqrt() + CLIP_EPSILON), max=1.0)
    return {name: gradient * scale for name, gradient in gradients.items()}


class Optimizer(Protocol):
    """What the tracer needs from an optimizer."""

    @property
    def lr(self) -> float:
        """Base learning rate, an input of the graph."""
        ...

    @property
    def schedule(self) -> Schedule | None:
        """Factor of the rate as a function of the global step; None: always 1."""
        ...

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of the scalar state tensors that all parameters share."""
        ...

    def state(self, name: str) -> tuple[str, ...]:
        """Names of the state tensors (each of the parameter's shape) that belong to parameter `name`."""
        ...

    def advance(self, shared: State) -> State:
        """The shared scalars of this step, from those of the step before (zeros before the first)."""
        ...

    def update(
        self, parameter: Tensor, gradient: Tensor, state: State, shared: State, rate: Tensor
    ) -> tuple[Tensor, State]:
        """Next parameter and next state, all of the parameter's shape; `shared` is that of this step."""
        ...


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum and weight decay, as `torch.optim.SGD` defines it (no dampening).

    `lr` is an input of the graph; the other settings become constants of it.
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        _check_rate(self.lr)
        if not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise BadInput("SGD needs 0 <= momentum < 1 and weight_decay >= 0")
        if self.nesterov and not self.momentum:
            raise BadInput("SGD needs a momentum for nesterov=True")

    @property
    def shared(self) -> tuple[str, ...]:
        """None."""
        return ()

    def state(self, name: str) -> tuple[str, ...]:
        """The velocity, where there is momentum."""
        return (f"momentum.{name}",) if self.momentum else ()

    def advance(self, shared: State) -> State:
        """Nothing to advance."""
        return shared

    def update(
        self, parameter: Tensor, gradient: Tensor, state: State, shared: State, rate: Tensor
    ) -> tuple[Tensor, State]:
        """Next parameter and velocity."""
        del shared  # SGD has none
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameter
        if not self.momentum:
            return parameter - rate * gradient, ()
        velocity = self.momentum * state[0] + gradient
        direction = gradient + self.momentum * velocity if self.nesterov else velocity
        return parameter - rate * direction, (velocity,)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2014, https://arxiv.org/abs/1412.6980) as `torch.optim.Adam` defines it.

    The moments are zero at the start of each unit of work, so their bias is corrected by the steps since then. The
    corrections 1 - beta^t are kept as two scalars that move like the moments of a gradient that is always 1: exact,
    where a power of beta would lose digits.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        _check_rate(self.lr)
        if not all(0 <= beta < 1 for beta in self.betas) or not self.eps > 0 or self.weight_decay < 0:
            raise BadInput("Adam needs 0 <= beta < 1 for both betas, eps > 0 and weight_decay >= 0")

    @property
    def shared(self) -> tuple[str, ...]:
        """The corrections of both moments."""
        return ("adam.correction1", "adam.correction2")

    def state(self, name: str) -> tuple[str, ...]:
        """Both moments."""
        return (f"moment1.{name}", f"moment2.{name}")

    def advance(self, shared: State) -> State:
        """1 - beta^t for both betas."""
        return tuple(beta * value + (1 - beta) for beta, value in zip(self.betas, shared, strict=True))

    def update(
        self, parameter: Tensor, gradient: Tensor, state: State, shared: State, rate: Tensor
    ) -> tuple[Tensor, State]:
        """Next parameter and moments."""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameter
        return self._move(parameter, gradient, state, shared, rate)

    def _move(
        self, parameter: Tensor, gradient: Tensor, state: State, shared: State, rate: Tensor
    ) -> tuple[Tensor, State]:
        beta1, beta2 = self.betas
        first = beta1 * state[0] + (1 - beta1) * gradient
        second = beta2 * state[1] + (1 - beta2) * (gradient * gradient)
        scale = second.sqrt() / shared[1].sqrt() + self.eps
        return parameter - (rate / shared[0]) * (first / scale), (first, second)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101)."""

    weight_decay: float = 0.01

    def update(
        self, parameter: Tensor, gradient: Tensor, state: State, shared: State, rate: Tensor
    ) -> tuple[Tensor, State]:
        """Next parameter and moments."""
        if self.weight_decay:
            parameter = parameter * (1 - rate * self.weight_decay)
        return self._move(parameter, gradient, state, shared, rate)


def _check_rate(rate: float) -> None:
    if not 0 < rate <= 1_000:
        raise BadInput(f"lr is {rate}, expected a positive number of at most 1000")
