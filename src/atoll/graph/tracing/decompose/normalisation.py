"""Batch and group normalisation as means and products; both passes share mean and deviation."""

from __future__ import annotations

import torch
from torch import Tensor

aten = torch.ops.aten


def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, count: int, channels: int, area: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`aten::native_group_norm` of `x` [n, channels, ...]: the result, and mean and 1 / deviation [n, groups]."""
    del area
    grouped = x.reshape(count, groups, -1)
    mean = grouped.mean(2, keepdim=True)
    centred = grouped - mean
    rate = torch.rsqrt((centred * centred).mean(2, keepdim=True) + eps)
    out = (centred * rate).reshape(x.shape)
    shape = [1, channels] + [1] * (x.dim() - 2)
    if weight is not None:
        out = out * weight.reshape(shape)
    if bias is not None:
        out = out + bias.reshape(shape)
    return out, mean.squeeze(2), rate.squeeze(2)


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`aten::native_batch_norm` of `x` [n, channels, ...]; running statistics are changed in place when training.

    Returns the result, and mean and 1 / deviation of the batch [channels] (empty when not training).
    """
    shape = [1, -1] + [1] * (x.dim() - 2)
    dims = [0, *range(2, x.dim())]
    if training:
        mean = x.mean(dims)
        centred = x - mean.reshape(shape)
        var = (centred * centred).mean(dims)
        if running_mean is not None and running_var is not None:
            cells = x.numel() // x.shape[1]
            running_mean.copy_(running_mean + momentum * (mean - running_mean))
            running_var.copy_(running_var + momentum * (var * (cells / (cells - 1)) - running_var))
    else:
        if running_mean is None or running_var is None:
            raise ValueError("running statistics are needed outside of training")
        mean, var = running_mean, running_var
        centred = x - mean.reshape(shape)
    rate = torch.rsqrt(var + eps)
    scale = rate if weight is None else rate * weight
    out = centred * scale.reshape(shape)
    if bias is not None:
        out = out + bias.reshape(shape)
    return (out, mean, rate) if training else (out, x.new_zeros(0), x.new_zeros(0))


def batch_norm_fixed(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`aten::_native_batch_norm_legit_no_training`: `batch_norm` with the running statistics."""
    return batch_norm(x, weight, bias, running_mean, running_var, False, momentum, eps)


def batch_norm_bare(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`aten::_native_batch_norm_legit.no_stats`: `batch_norm` without running statistics."""
    del training  # without statistics there is only the batch
    return batch_norm(x, weight, bias, None, None, True, momentum, eps)
