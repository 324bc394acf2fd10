"""Slices, their gradients, and ranges, without scatters and without tables of indices."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from atoll.graph.tracing.decompose.windows import Windows, pad, put_back

aten = torch.ops.aten
_FOR_EVER = 1 << 40  # an end beyond any length, as torch writes it for `x[:]`


def slice_backward(grad: Tensor, sizes: list[int], dim: int, start: int, end: int, step: int) -> Tensor:
    """Gradient of `x[start:end:step]` along `dim`, where x has the shape `sizes`: zeros around and between."""
    dim %= len(sizes)
    length = sizes[dim]
    if _whole(start, end, step, length):
        return grad
    first, _ = _bounds(start, end, length)
    if step != 1:
        grad = put_back([grad], Windows(dim, length - first, 1, step, 0, 1, grad.shape[dim]))
    return pad(grad, dim, first, length - first - grad.shape[dim], 0.0)


def select_backward(grad: Tensor, sizes: list[int], dim: int, index: int) -> Tensor:
    """Gradient of `x[index]` along `dim`: zeros before and after."""
    dim %= len(sizes)
    index = index + sizes[dim] if index < 0 else index
    return pad(grad.unsqueeze(dim), dim, index, sizes[dim] - index - 1, 0.0)


def slice_scatter(
    x: Tensor, part: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """`x` with `x[start:end:step]` along `dim` replaced by `part`."""
    dim %= x.dim()
    length = x.shape[dim]
    if _whole(start, end, step, length):
        return part.clone()
    first, last = _bounds(start, end, length)
    if step == 1:
        return _joined([aten.slice(x, dim, 0, first), part, aten.slice(x, dim, max(first, last), length)], dim)
    inside = slice_backward(torch.ones_like(part), list(x.shape), dim, first, last, step)
    spread = slice_backward(part, list(x.shape), dim, first, last, step)
    return torch.where(inside > 0, spread, x)


def select_scatter(x: Tensor, part: Tensor, dim: int, index: int) -> Tensor:
    """`x` with `x[index]` along `dim` replaced by `part`."""
    dim %= x.dim()
    index = index + x.shape[dim] if index < 0 else index
    return slice_scatter(x, part.unsqueeze(dim), dim, index, index + 1)


def arange(end: Any, **options: Any) -> Tensor:
    """0, 1, 2, ... below `end`."""
    return arange_step(0, end, 1, **options)


def arange_start(start: Any, end: Any, **options: Any) -> Tensor:
    """start, start + 1, ... below `end`."""
    return arange_step(start, end, 1, **options)


def arange_step(start: Any, end: Any, step: Any = 1, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    """start, start + step, ... below `end`: a running sum of ones, so that the graph holds no table."""
    del options  # layout, device and the like
    whole = not any(isinstance(part, float) for part in (start, end, step))
    dtype = dtype or (torch.int64 if whole else torch.get_default_dtype())
    count = end if (start, step) == (0, 1) and whole else math.ceil((end - start) / step)
    index = torch.ones(max(count, 0) if isinstance(count, int) else count, dtype=torch.int64).cumsum(0) - 1
    if (start, step) != (0, 1):
        index = index.to(dtype) * step + start
    return index.to(dtype)


def _whole(start: int | None, end: int | None, step: int, length: int) -> bool:
    """Whether a slice takes everything; said without looking at a length that is a symbol."""
    if step != 1 or (start is not None and start != 0):
        return False
    return end is None or end is length or (isinstance(end, int) and end >= _FOR_EVER)


def _bounds(start: int | None, end: int | None, length: int) -> tuple[int, int]:
    """Start and end within 0..length, as Python's slices have them."""
    first, last, _ = slice(start, end).indices(length)
    return first, last


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    filled = [part for part in parts if part.shape[dim] != 0]
    return torch.cat(filled, dim) if len(filled) > 1 else filled[0].clone()
