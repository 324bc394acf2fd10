"""GELU and LayerNorm and their gradients with few passes over memory, sharing what both directions need.

ONNX Runtime does one operator after another, so that each one reads and writes whole tensors: their number counts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from atoll.errors import BadInput

aten = torch.ops.aten
_HALF_ROOT = math.sqrt(0.5)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415)."""
    if approximate != "none":
        return x * _gate(x)[0]
    return x * _below(x)


def gelu_backward(grad: Tensor, x: Tensor, *, approximate: str = "none") -> Tensor:
    """Gradient of `gelu`; the distribution function is the same as there, so the graph computes it once."""
    if approximate != "none":
        gate, slope = _gate(x)
        return grad * (gate + x * gate * (1 - gate) * slope)
    root = x * _HALF_ROOT
    density = root / torch.exp(root * root) * (1 / math.sqrt(math.pi))  # x times the normal density
    return grad * (_below(x) + density)


def _below(x: Tensor) -> Tensor:
    """The normal distribution function."""
    return torch.erf(x * _HALF_ROOT) * 0.5 + 0.5


def _gate(x: Tensor) -> tuple[Tensor, Tensor]:
    """The approximation by tanh, written as a sigmoid, and the slope of what the sigmoid is taken of."""
    factor = 2 * math.sqrt(2 / math.pi)
    square = x * x
    gate = torch.sigmoid(x * (square * (factor * 0.044715) + factor))
    return gate, square * (3 * factor * 0.044715) + factor


def layer_norm_backward(
    grad: Tensor,
    x: Tensor,
    shape: list[int],
    mean: Tensor,
    scale: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    wanted: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients for input, weight and bias; `mean` and `scale` (1 / deviation) are those of the forward pass."""
    del bias
    if x.dim() < len(shape):
        raise BadInput(f"LayerNorm over {shape} of a tensor with {x.dim()} dimensions")
    outer = list(range(x.dim() - len(shape)))
    inner = list(range(len(outer), x.dim()))
    normal = (x - mean) * scale
    grad_x = grad_weight = grad_bias = None
    if wanted[0]:
        along = grad if weight is None else grad * weight
        pull = (along * normal).mean(inner, keepdim=True)
        grad_x = (along - along.mean(inner, keepdim=True) - normal * pull) * scale
    if wanted[1]:
        grad_weight = (grad * normal).sum(outer)
    if wanted[2]:
        grad_bias = grad.sum(outer)
    return grad_x, grad_weight, grad_bias
