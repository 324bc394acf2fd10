"""Dropout and its like, drawn from the generator of `atoll.graph.tracing.random`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from atoll.graph.tracing import random

aten = torch.ops.aten


def native_dropout(x: Tensor, probability: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """`x` with elements set to zero with `probability`, the others scaled by 1 / (1 - probability); and the mask."""
    if train is False or probability == 0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    if probability == 1:
        return torch.zeros_like(x), torch.zeros_like(x, dtype=torch.bool)
    mask = random.keep(tuple(x.shape), 1 - probability)
    return x * (mask.to(x.dtype) * (1 / (1 - probability))), mask


def native_dropout_backward(grad: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Gradient of `native_dropout`."""
    return grad * (mask.to(grad.dtype) * scale)


def bernoulli_(x: Tensor, probability: float = 0.5, *, generator: Any = None) -> Tensor:
    """Fill `x` with ones, with `probability`, and zeros."""
    del generator
    return x.copy_(random.keep(tuple(x.shape), probability).to(x.dtype))


def bernoulli_p(x: Tensor, probability: float, *, generator: Any = None) -> Tensor:
    """Ones with `probability`, and zeros, in the shape of `x`."""
    del generator
    return random.keep(tuple(x.shape), probability).to(x.dtype)
