"""Pools and their gradients without scatters: maxima and comparisons of slices, one dimension after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from atoll.errors import BadInput
from atoll.graph.tracing.decompose.windows import Windows, cut, put_back

aten = torch.ops.aten
LOWEST = torch.finfo(torch.float32).min


def max_pool2d(
    x: Tensor,
    kernel: list[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Largest value of every window of `x` [..., h, w], and where it stands in h * w (the first one if several do)."""
    wide, high = _windows(x, [kernel, stride, padding, dilation], ceil_mode)
    columns = cut(x, wide, LOWEST)
    best_column = _largest(columns)
    rows = cut(best_column, high, LOWEST)
    best = _largest(rows)
    return best, _places(columns, best_column, rows, best, (wide, high))


def max_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor | None = None,
) -> Tensor:
    """Gradient of `max_pool2d`: it goes to the first largest value of each window, row by row.

    The maxima are found as in `max_pool2d`, so that the graph computes them once.
    """
    del indices
    wide, high = _windows(x, [kernel, stride, padding, dilation], ceil_mode)
    columns = cut(x, wide, LOWEST)
    best_column = _largest(columns)
    rows = cut(best_column, high, LOWEST)
    along = put_back(_to_first(rows, _largest(rows), grad), high) if not high.trivial else grad
    return put_back(_to_first(columns, best_column, along), wide) if not wide.trivial else along


def avg_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Gradient of an average pool of `x` [..., h, w]: each window's share goes to all of its cells."""
    both = _windows(x, [kernel, stride, padding, (1, 1)], ceil_mode)
    for windows in both:
        if not divisor_override:
            grad = _shared(grad, windows, windows.padding if count_include_pad else 0)
        grad = put_back([grad] * windows.size, windows)
    return grad / divisor_override if divisor_override else grad


def adaptive_avg_pool2d(x: Tensor, size: list[int]) -> Tensor:
    """Averages over `size` windows of `x` [..., h, w] that divide it as evenly as can be."""
    for dim, windows in zip((x.dim() - 2, x.dim() - 1), size, strict=True):
        if x.shape[dim] % windows:
            x = _along(x, dim, _averages(x.shape[dim], windows, x))
        elif windows != x.shape[dim]:
            shape = list(x.shape)
            x = x.reshape([*shape[:dim], windows, -1, *shape[dim + 1 :]]).mean(dim + 1)
    return x


def adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of `adaptive_avg_pool2d`."""
    for dim in (x.dim() - 2, x.dim() - 1):
        length, windows = x.shape[dim], grad.shape[dim]
        shape = list(grad.shape)
        if length % windows:
            grad = _along(grad, dim, _averages(length, windows, x).transpose(0, 1))
        elif windows != length:
            each = length // windows
            wide = (grad / each).unsqueeze(dim + 1).expand([*shape[: dim + 1], each, *shape[dim + 1 :]])
            grad = wide.reshape([*shape[:dim], length, *shape[dim + 1 :]])
    return grad


def adaptive_max_pool2d(x: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
    """Maxima over `size` windows of `x` [..., h, w] that divide it evenly, and where they stand."""
    kernel = _even(x, size)
    return max_pool2d(x, kernel, kernel)


def adaptive_max_pool2d_backward(grad: Tensor, x: Tensor, indices: Tensor) -> Tensor:
    """Gradient of `adaptive_max_pool2d`."""
    kernel = _even(x, list(grad.shape[-2:]))
    return max_pool2d_backward(grad, x, kernel, kernel, (0, 0), (1, 1), False, indices)


def _even(x: Tensor, size: list[int]) -> list[int]:
    if x.shape[-2] % size[0] or x.shape[-1] % size[1]:
        raise BadInput(
            f"adaptive max-pool of {x.shape[-2]}x{x.shape[-1]} to {size[0]}x{size[1]} has uneven windows; "
            "choose sizes that divide the image, or use MaxPool2d or AdaptiveAvgPool2d"
        )
    return [x.shape[-2] // size[0], x.shape[-1] // size[1]]


def _windows(x: Tensor, settings: Sequence[Sequence[int]], ceil_mode: bool) -> tuple[Windows, Windows]:
    """Windows along the last dimension and along the one before; `settings`: kernel, stride, padding, dilation."""
    found = []
    for back in (1, 2):
        size, stride, padding, dilation = (
            part[-back] if len(part) > 1 else part[0] if part else settings[0][-back if len(settings[0]) > 1 else 0]
            for part in settings
        )
        length = x.shape[-back]
        room = length + 2 * padding - dilation * (size - 1) - 1
        count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
        if ceil_mode and (count - 1) * stride >= length + padding:
            count -= 1  # no window may begin beyond the image
        found.append(Windows(x.dim() - back, length, size, stride, padding, dilation, count))
    return found[0], found[1]


def _largest(cells: Sequence[Tensor]) -> Tensor:
    return reduce(torch.maximum, cells)


def _to_first(cells: Sequence[Tensor], best: Tensor, grad: Tensor) -> list[Tensor]:
    """Split `grad` over the cells: all of it to the first cell that equals `best`, element by element."""
    shares = []
    rest = grad
    for cell in cells[:-1]:
        share = rest * (cell >= best).to(rest.dtype)
        shares.append(share)
        rest = rest - share
    return [*shares, rest]


def _places(
    columns: list[Tensor], best_column: Tensor, rows: list[Tensor], best: Tensor, windows: tuple[Windows, Windows]
) -> Tensor:
    """Index h * w of the first largest value. Nothing of it stays in a graph that does not ask for indices."""
    wide, high = windows
    column = _first(columns, best_column, wide)
    row = _first(rows, best, high)
    found = cut(column, high, 0)
    place = found[-1]
    for cell, value in zip(reversed(found[:-1]), reversed(rows[:-1]), strict=True):
        place = torch.where(value >= best, cell, place)
    return row * wide.length + place


def _first(cells: Sequence[Tensor], best: Tensor, windows: Windows) -> Tensor:
    """Position along the dimension of the first cell that equals `best`."""
    place = torch.full_like(best, windows.size - 1, dtype=torch.int64)
    for index in range(windows.size - 2, -1, -1):
        place = torch.where(cells[index] >= best, index, place)
    start = torch.ones(windows.count, dtype=torch.int64).cumsum(0) - 1
    behind = best.dim() - 1 - windows.dim
    return place * windows.dilation + (start * windows.stride - windows.padding).reshape([-1] + [1] * behind)


def _shared(grad: Tensor, windows: Windows, border: int) -> Tensor:
    """`grad` divided by the number of cells that count in each window, up to `border` cells beyond the edges."""
    starts = [index * windows.stride - windows.padding for index in range(windows.count)]
    ends = [min(start + windows.size, windows.length + border) for start in starts]
    counts = [end - max(start, -border) for start, end in zip(starts, ends, strict=True)]
    if len(set(counts)) == 1:
        return grad / counts[0] if counts[0] > 1 else grad
    behind = grad.dim() - 1 - windows.dim
    return grad / torch.tensor(counts, dtype=grad.dtype).reshape([-1] + [1] * behind)


def _averages(length: int, windows: int, like: Tensor) -> Tensor:
    """The matrix [windows, length] that averages: window i covers floor(i n / w) to ceil((i + 1) n / w)."""
    index = torch.ones(windows, 1, dtype=torch.int64).cumsum(0) - 1
    place = torch.ones(1, length, dtype=torch.int64).cumsum(1) - 1
    start = torch.div(index * length, windows, rounding_mode="trunc")
    end = torch.div((index + 1) * length + windows - 1, windows, rounding_mode="trunc")
    inside = ((place >= start) & (place < end)).to(like.dtype)
    return inside / (end - start).to(like.dtype)


def _along(x: Tensor, dim: int, matrix: Tensor) -> Tensor:
    """Multiply dimension `dim` (the last or the one before) of `x` by `matrix` [out, in]."""
    return matrix @ x if dim == x.dim() - 2 else x @ matrix.transpose(0, 1)
