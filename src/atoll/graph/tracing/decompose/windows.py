"""Windows that slide along one dimension, and sums where they overlap, from slices and padding alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

aten = torch.ops.aten


@dataclass(frozen=True)
class Windows:
    """`count` windows of `size` cells along dimension `dim` of length `length`; `padding` cells stand before it."""

    dim: int
    length: int
    size: int
    stride: int
    padding: int
    dilation: int
    count: int

    @property
    def trivial(self) -> bool:
        """Every window is one element, and every element one window."""
        return (self.size, self.stride, self.padding, self.count) == (1, 1, 0, self.length)

    @property
    def tiles(self) -> bool:
        """The windows lie side by side and cover everything."""
        plain = (self.stride, self.padding, self.dilation) == (self.size, 0, 1)
        return plain and self.size > 1 and self.count * self.size == self.length

    @property
    def covered(self) -> int:
        """Length from the first cell of the first window to the last cell of the last one."""
        return (self.count - 1) * self.stride + (self.size - 1) * self.dilation + 1


def pad(x: Tensor, dim: int, before: int, after: int, value: float) -> Tensor:
    """Put cells of `value` before and after; negative numbers take cells away."""
    if not before and not after:
        return x
    behind = x.dim() - 1 - dim
    padded: Tensor = aten.constant_pad_nd(x, [0, 0] * behind + [before, after], value)
    return padded


def cut(x: Tensor, windows: Windows, value: float) -> list[Tensor]:
    """The first cell of all windows, the second cell of all windows, and so on; beyond the edges stands `value`."""
    if windows.tiles:  # a split takes a third of the time of slices with steps
        shape = list(x.shape)
        split = x.reshape([*shape[: windows.dim], windows.count, windows.size, *shape[windows.dim + 1 :]])
        return [cell.squeeze(windows.dim + 1) for cell in split.split(1, windows.dim + 1)]
    after = max(0, windows.covered - windows.length - windows.padding)
    x = pad(x, windows.dim, windows.padding, after, value)
    reach = (windows.count - 1) * windows.stride + 1
    starts = [place * windows.dilation for place in range(windows.size)]
    return [aten.slice(x, windows.dim, start, start + reach, windows.stride) for start in starts]


def put_back(cells: Sequence[Tensor], windows: Windows) -> Tensor:
    """The reverse of `cut` for gradients: what belongs to one element of `x` is added up, in order of the cells."""
    stride, dim = windows.stride, windows.dim
    rows = max(-(-(windows.length + windows.padding) // stride), -(-windows.covered // stride))
    phases: list[list[Tensor]] = [[] for _ in range(stride)]
    for place, cell in enumerate(cells):
        row, phase = divmod(place * windows.dilation, stride)
        phases[phase].append(pad(cell, dim, row, rows - windows.count - row, 0.0))
    empty = None if all(phases) else torch.zeros_like(next(part for parts in phases for part in parts[:1]))
    sums = [reduce(torch.add, parts) if parts else empty for parts in phases]
    whole = sums[0] if stride == 1 else _interleaved([part for part in sums if part is not None], dim)
    return pad(whole, dim, -windows.padding, windows.length + windows.padding - rows * stride, 0.0)


def _interleaved(parts: list[Tensor], dim: int) -> Tensor:
    """First element of each part, second element of each part, and so on."""
    shape = list(parts[0].shape)
    return torch.stack(parts, dim + 1).reshape([*shape[:dim], shape[dim] * len(parts), *shape[dim + 1 :]])
