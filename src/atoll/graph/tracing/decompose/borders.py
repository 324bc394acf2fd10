"""Padding with what stands at the edge, and enlarging by whole factors, and their gradients: slices, joins and sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from atoll.errors import BadInput
from atoll.graph.tracing.decompose.windows import pad

aten = torch.ops.aten


def reflection_pad(x: Tensor, sides: Sequence[int]) -> Tensor:
    """Pad the last dimensions by their mirror image; `sides` (before, after), the last dimension first."""
    for dim, before, after in _dims(x, sides):
        length = x.shape[dim]
        parts = [aten.slice(x, dim, 1, before + 1).flip(dim)] if before else []
        parts += [x, *([aten.slice(x, dim, length - 1 - after, length - 1).flip(dim)] if after else [])]
        x = torch.cat(parts, dim)
    return x


def reflection_pad_backward(grad: Tensor, x: Tensor, sides: Sequence[int]) -> Tensor:
    """Gradient of `reflection_pad`."""
    for dim, before, after in _dims(x, sides):
        length, (left, middle, right) = x.shape[dim], _split(grad, dim, before, after)
        if before:
            middle = middle + pad(left.flip(dim), dim, 1, length - 1 - before, 0.0)
        grad = middle + pad(right.flip(dim), dim, length - 1 - after, 1, 0.0) if after else middle
    return grad


def replication_pad(x: Tensor, sides: Sequence[int]) -> Tensor:
    """Pad the last dimensions by their first and last element."""
    for dim, before, after in _dims(x, sides):
        length = x.shape[dim]
        parts = [aten.slice(x, dim, 0, 1)] * before + [x] + [aten.slice(x, dim, length - 1, length)] * after
        x = torch.cat(parts, dim)
    return x


def replication_pad_backward(grad: Tensor, x: Tensor, sides: Sequence[int]) -> Tensor:
    """Gradient of `replication_pad`."""
    for dim, before, after in _dims(x, sides):
        length, (left, middle, right) = x.shape[dim], _split(grad, dim, before, after)
        if before:
            middle = middle + pad(left.sum(dim, keepdim=True), dim, 0, length - 1, 0.0)
        grad = middle + pad(right.sum(dim, keepdim=True), dim, length - 1, 0, 0.0) if after else middle
    return grad


def upsample_nearest(x: Tensor, size: Sequence[int], *scales: Any) -> Tensor:
    """Each element of `x` [n, c, ...] as often as `size` is larger, along each dimension."""
    del scales
    for dim, length in enumerate(size, 2):
        shape, factor = list(x.shape), _factor(x.shape[dim], length)
        if factor > 1:
            wide = x.unsqueeze(dim + 1).expand([*shape[: dim + 1], factor, *shape[dim + 1 :]])
            x = wide.reshape([*shape[:dim], length, *shape[dim + 1 :]])
    return x


def upsample_nearest_backward(grad: Tensor, size: Sequence[int], sizes: Sequence[int], *scales: Any) -> Tensor:
    """Gradient of `upsample_nearest` of an `x` of shape `sizes`: sums over the copies."""
    del scales
    for dim, length in enumerate(size, 2):
        shape, factor = list(grad.shape), _factor(sizes[dim], length)
        if factor > 1:
            grad = grad.reshape([*shape[:dim], sizes[dim], factor, *shape[dim + 1 :]]).sum(dim + 1)
    return grad


def _factor(length: int, enlarged: int) -> int:
    if enlarged % length:
        raise BadInput(
            f"enlarging {length} to {enlarged} by nearest needs a whole factor; choose a multiple of {length}"
        )
    return enlarged // length


def _dims(x: Tensor, sides: Sequence[int]) -> list[tuple[int, int, int]]:
    """(dimension, before, after), the last dimension first. Raises BadInput for negative sides."""
    if any(side < 0 for side in sides):
        raise BadInput("padding by reflection or replication cannot be negative; slice the tensor instead")
    return [(x.dim() - 1 - i // 2, sides[i], sides[i + 1]) for i in range(0, len(sides), 2)]


def _split(grad: Tensor, dim: int, before: int, after: int) -> tuple[Tensor, Tensor, Tensor]:
    length = grad.shape[dim]
    left, middle, right = grad.split([before, length - before - after, after], dim)
    return left, middle, right
