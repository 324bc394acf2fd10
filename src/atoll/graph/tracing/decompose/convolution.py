"""Gradients of convolutions of any number of dimensions, as convolutions, products of matrices and sums.

The input's gradient is the other kind of convolution with the same weights. The weights' gradient is written in the
way that was fastest in ONNX Runtime on one thread for that kind of layer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

FEW_CHANNELS = 8  # below this many input channels a group, products of small matrices are slower than a convolution
MANY_CHANNELS = 48  # from here on patches, which repeat every pixel, cost more than they save
FEW_PLACES = 32  # channels times cells up to which all patches are laid out before one product
MANY_CELLS = 25  # kernels with more cells would make graphs of hundreds of operators


@dataclass(frozen=True)
class Layout:
    """A convolution's stride, padding and dilation, one number each dimension, and its groups."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    *form: Any,
) -> Gradients:
    """Gradients for input, weight and bias: `aten::convolution_backward`.

    `grad` [n, out, ...], `x` [n, in, ...], `weight` [out, in / groups, ...], or [in, out / groups, ...] if transposed.
    `form`: stride, padding, dilation, transposed, output padding, groups, and which of the three are wanted.
    """
    stride, padding, dilation, transposed, _, groups, wanted = form
    del bias_sizes  # it follows from the shapes, as the output padding does
    dims = x.dim() - 2
    wide = [list(part) * (dims if len(part) == 1 else 1) for part in (stride, padding, dilation)]
    layout = Layout(wide[0], wide[1], wide[2], groups)
    grad_x = grad_weight = grad_bias = None
    if wanted[0]:
        grad_x = _input_gradient(grad, x, weight, layout, transposed)
    if wanted[1]:
        small, large = (x, grad) if transposed else (grad, x)
        grad_weight = weight_gradient(small, large, list(weight.shape[2:]), layout)
    if wanted[2]:
        grad_bias = grad.sum([0, *range(2, grad.dim())])
    return grad_x, grad_weight, grad_bias


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, layout: Layout, transposed: bool) -> Tensor:
    plain = (layout.stride, layout.padding, layout.dilation)
    if transposed:
        found: Tensor = aten.convolution(grad, weight, None, *plain, False, [0] * len(layout.stride), layout.groups)
        return found
    reach = [
        (length - 1) * stride - 2 * padding + dilation * (cells - 1) + 1
        for length, cells, stride, padding, dilation in zip(grad.shape[2:], weight.shape[2:], *plain, strict=True)
    ]
    extra = [length - covered for length, covered in zip(x.shape[2:], reach, strict=True)]
    found = aten.convolution(grad, weight, None, *plain, True, extra, layout.groups)
    return found


def weight_gradient(small: Tensor, large: Tensor, kernel: list[int], layout: Layout) -> Tensor:
    """Correlation of two images: [channels of small, channels of large / groups, *kernel].

    `small` [n, c, ...] is the side where one position stands for one window, `large` [n, d, ...] the side of the cells.
    """
    cells, per_group = math.prod(kernel), large.shape[1] // layout.groups
    if cells == 1:
        return _pointwise(small, large, kernel, layout)
    if per_group == 1 and small.shape[1] == layout.groups and cells <= MANY_CELLS:
        return _depthwise(small, large, kernel, layout)
    if layout.groups == 1 and per_group < MANY_CHANNELS and cells <= MANY_CELLS:
        return _by_patches(small, large, kernel, layout)
    if all(step == 1 for step in layout.stride) and per_group >= FEW_CHANNELS and cells <= MANY_CELLS:
        return _by_products(small, large, kernel, layout)
    return _by_convolution(small, large, kernel, layout)


def _padded(large: Tensor, layout: Layout) -> Tensor:
    if not any(layout.padding):
        return large
    sides = [side for padding in reversed(layout.padding) for side in (padding, padding)]
    padded: Tensor = aten.constant_pad_nd(large, sides, 0.0)
    return padded


def _cells(kernel: Iterable[int]) -> Iterable[tuple[int, ...]]:
    return itertools.product(*(range(length) for length in kernel))


def _cell(padded: Tensor, cell: tuple[int, ...], lengths: Sequence[int], layout: Layout) -> Tensor:
    """What one cell of the kernel sees, window by window: [n, d, *lengths]."""
    for axis, place in enumerate(cell):
        padded = _along_axis(padded, axis, place, lengths, layout)
    return padded


def _along_axis(padded: Tensor, axis: int, place: int, lengths: Sequence[int], layout: Layout) -> Tensor:
    """What the cells at `place` of one dimension of the kernel see."""
    start, stride, length = place * layout.dilation[axis], layout.stride[axis], lengths[axis]
    if (start, stride, length) == (0, 1, padded.shape[2 + axis]):
        return padded
    seen: Tensor = aten.slice(padded, 2 + axis, start, start + (length - 1) * stride + 1, stride)
    return seen


def _pointwise(small: Tensor, large: Tensor, kernel: list[int], layout: Layout) -> Tensor:
    """One cell: a product of matrices for each sample, then their sum."""
    count = large.shape[0]
    seen = _cell(_padded(large, layout), (0,) * len(kernel), small.shape[2:], layout)
    area = math.prod(small.shape[2:])
    left = small.reshape(count, layout.groups, -1, area)
    right = seen.reshape(count, layout.groups, -1, area)
    return (left @ right.transpose(2, 3)).sum(0).reshape(small.shape[1], -1, *kernel)


def _depthwise(small: Tensor, large: Tensor, kernel: list[int], layout: Layout) -> Tensor:
    """One channel a group: for each cell the sum of products over samples and windows."""
    padded = _padded(large, layout)
    dims = [0, *range(2, small.dim())]
    sums = [(small * _cell(padded, cell, small.shape[2:], layout)).sum(dims) for cell in _cells(kernel)]
    return torch.stack(sums, 1).reshape(small.shape[1], 1, *kernel)


def _by_patches(small: Tensor, large: Tensor, kernel: list[int], layout: Layout) -> Tensor:
    """Few channels: the cells of a kernel's row stand side by side as channels, and a product takes a whole row.

    One product for each sample and row, then their sum. Very few channels: all rows in one product.
    """
    count, channels = large.shape[:2]
    lengths = small.shape[2:]
    parts = [_padded(large, layout)]
    for axis in range(1, len(kernel)):
        parts = [_along_axis(part, axis, place, lengths, layout) for part in parts for place in range(kernel[axis])]
    wide = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
    rows = [_along_axis(wide, 0, place, lengths, layout) for place in range(kernel[0])]
    if channels * math.prod(kernel) <= FEW_PLACES:
        rows = [torch.cat(rows, 1)]
    area = math.prod(lengths)
    left = small.reshape(count, -1, area)
    products = [left @ row.reshape(count, -1, area).transpose(1, 2) for row in rows]
    whole = torch.cat(products, 2) if len(products) > 1 else products[0]
    return whole.sum(0).reshape(small.shape[1], *kernel, channels).movedim(-1, 1)


def _by_products(small: Tensor, large: Tensor, kernel: list[int], layout: Layout) -> Tensor:
    """Stride 1: one product of matrices a cell, over samples and positions at once.

    Both images get rows of the same length (zeros after those of `small`) and are laid out flat with the channels
    first; a cell of the kernel is then a shift of the flat rows, one contiguous slice.
    """
    padded = _padded(large, layout)
    full = padded.shape[2:]
    gaps = [whole - part for whole, part in zip(full, small.shape[2:], strict=True)]
    spread = aten.constant_pad_nd(small, [side for gap in reversed(gaps) for side in (0, gap)], 0.0)
    strides = [math.prod(full[axis + 1 :]) for axis in range(len(full))]
    shifts = [
        sum(place * dilation * step for place, dilation, step in zip(cell, layout.dilation, strides, strict=True))
        for cell in _cells(kernel)
    ]
    left, right = _flat(spread, layout.groups), _flat(padded, layout.groups)
    length = left.shape[-1] - shifts[-1]  # the rest of `left` is zeros
    left = aten.slice(left, -1, 0, length)
    parts = [left @ aten.slice(right, -1, shift, length + shift).transpose(-1, -2) for shift in shifts]
    return torch.stack(parts, -1).reshape(small.shape[1], -1, *kernel)


def _flat(image: Tensor, groups: int) -> Tensor:
    """[n, c, ...] -> [c, n * ...], or [groups, c / groups, n * ...] if there are groups."""
    channels = image.shape[1]
    shape = (channels, -1) if groups == 1 else (groups, channels // groups, -1)
    return image.transpose(0, 1).reshape(shape)


def _by_convolution(small: Tensor, large: Tensor, kernel: list[int], layout: Layout) -> Tensor:
    """A convolution in which channels and samples change places, and so do stride and dilation."""
    count, channels = large.shape[:2]
    rest = list(large.shape[2:])
    groups = layout.groups
    if groups == 1:
        swapped = large.transpose(0, 1)
    else:
        order = (2, 1, 0, *range(3, large.dim() + 1))
        split = large.reshape(count, groups, channels // groups, *rest).permute(order)
        swapped = split.reshape(channels // groups, -1, *rest)
    nothing = [0] * len(rest)
    found = aten.convolution(
        swapped, small.transpose(0, 1), None, layout.dilation, layout.padding, layout.stride, False, nothing, groups
    )
    for axis, length in enumerate(kernel):
        if found.shape[2 + axis] != length:
            found = aten.slice(found, 2 + axis, 0, length)
    weights: Tensor = found.transpose(0, 1)
    return weights
