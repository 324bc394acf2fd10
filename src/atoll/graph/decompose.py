"""How gradients that ONNX has no operator for are written with operators that it has (needs torch).

The exporter knows core ATen only. Three backward operators are ours: convolution (as convolutions), non-overlapping
max-pool (as comparisons in place of index constants and scatters) and relu (as a product).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions

from atoll.errors import BadInput

aten = torch.ops.aten


def table() -> dict[Any, Any]:
    """Decompositions for `make_fx`: core ATen and ours."""
    found = dict(core_aten_decompositions())
    found[aten.convolution_backward.default] = convolution_backward
    found[aten.max_pool2d_with_indices_backward.default] = max_pool2d_backward
    found[aten.threshold_backward.default] = threshold_backward
    return found


def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    *rest: Any,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of a 2-d convolution. `grad` [n, out, h', w'], `x` [n, in, h, w], `weight` [out, in, kh, kw].

    The input's gradient is a transposed convolution with the same weights; the weights' gradient is a convolution
    of `x` with `grad` in which batch and channels change places and stride and dilation change places.
    """
    _output_padding, groups, wanted = rest
    if transposed or groups != 1 or x.dim() != 4:
        raise BadInput("only 2-d convolutions with groups=1 can be traced; write the layer with nn.Conv2d(groups=1)")
    kernel = weight.shape[2:]
    grad_x = grad_weight = grad_bias = None
    if wanted[0]:
        extra = [
            x.shape[2 + i] - ((grad.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + 1)
            for i in range(2)
        ]
        grad_x = aten.convolution(grad, weight, None, stride, padding, dilation, True, extra, 1)
    if wanted[1]:
        swapped = aten.convolution(
            x.transpose(0, 1), grad.transpose(0, 1), None, dilation, padding, stride, False, [0, 0], 1
        )
        grad_weight = swapped.transpose(0, 1)[:, :, : kernel[0], : kernel[1]]
    if wanted[2]:
        grad_bias = grad.sum((0, 2, 3))
    return grad_x, grad_weight, grad_bias


def max_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Gradient of a max-pool whose windows do not overlap and cover `x` [n, c, h, w]; `grad` [n, c, h/kh, w/kw].

    The gradient goes to the first maximum, found row by row and then column by column, from comparisons alone:
    no indices, no scatter.
    """
    kh, kw = kernel[0], kernel[-1]
    n, c, h, w = x.shape
    plain = not any(padding) and all(step == 1 for step in dilation) and list(stride or kernel) == list(kernel)
    if not plain or h % kh or w % kw:
        raise BadInput("only max-pools with stride = kernel that divide the image can be traced; change the kernel")
    high, wide = h // kh, w // kw
    rows = [row.view(n, c, high, w) for row in x.view(n, c, high, kh, w).split(1, dim=3)]
    best_row = _largest(rows)
    columns = [cell.view(n, c, high, wide) for cell in best_row.view(n, c, high, wide, kw).split(1, dim=4)]
    by_column = _to_first(columns, _largest(columns), grad)
    along_row = torch.cat([part.view(n, c, high, wide, 1) for part in by_column], dim=4).view(n, c, high, w)
    by_row = _to_first(rows, best_row, along_row)
    return torch.cat([part.view(n, c, high, 1, w) for part in by_row], dim=3).view(n, c, h, w)


def threshold_backward(grad: Tensor, x: Tensor, threshold: float) -> Tensor:
    """Gradient of relu (`threshold` 0): a product with a mask, which runs several times faster than a selection."""
    return grad * (x > threshold).to(grad.dtype)


def _largest(cells: Any) -> Tensor:
    best: Tensor = cells[0]
    for cell in cells[1:]:
        best = torch.maximum(best, cell)
    return best


def _to_first(cells: Any, best: Tensor, grad: Tensor) -> list[Tensor]:
    """Split `grad` over the cells: all of it to the first cell that equals `best`, element by element."""
    shares = []
    rest = grad
    for cell in cells[:-1]:
        share = rest * (cell >= best).to(rest.dtype)
        shares.append(share)
        rest = rest - share
    return [*shares, rest]
