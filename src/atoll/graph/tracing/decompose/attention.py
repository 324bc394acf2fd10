# ruff: noqa: PLR0913  # the signatures are torch's
"""Scaled dot-product attention and its gradient as products of matrices and a softmax."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
MASKED = -1e30  # far below any score, and no infinity, so that nothing becomes infinity - infinity


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of `query` [..., l, e] on `key` [..., s, e] and `value` [..., s, v]: the result and the weights.

    torch keeps the second result for the gradient: here it is the softmax itself, [..., l, s].
    """
    del dropout_p  # torch takes this road only without dropout
    weights = _weights(query, key, is_causal, attn_mask, scale)
    return weights @ value, weights


def attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    weights: Tensor,
    *rest: Any,
    scale: float | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for query, key and value; `weights` is the second result of `attention`."""
    del rest, others  # dropout and masks: the weights hold them
    grad_value = weights.transpose(-2, -1) @ grad
    grad_weights = grad @ value.transpose(-2, -1)
    inner = (grad * out).sum(-1, keepdim=True)
    scores = weights * (grad_weights - inner) * _scale(query, scale)
    return scores @ key, scores.transpose(-2, -1) @ query, grad_value


def attention_math(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    dropout_mask: Tensor | None = None,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """The same with dropout on the weights; torch differentiates it piece by piece."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    weights = _weights(query, key, is_causal, attn_mask, scale)
    if dropout_mask is not None:
        weights = weights.masked_fill(dropout_mask.logical_not(), 0.0) / (1.0 - dropout_p)
    elif dropout_p > 0:
        weights = aten.dropout(weights, dropout_p, True)
    return weights @ value, weights


def _weights(query: Tensor, key: Tensor, is_causal: bool, attn_mask: Tensor | None, scale: float | None) -> Tensor:
    scores = (query * _scale(query, scale)) @ key.transpose(-2, -1)
    if is_causal:
        rows = torch.ones(query.shape[-2], 1, dtype=torch.int64).cumsum(0)
        columns = torch.ones(1, key.shape[-2], dtype=torch.int64).cumsum(1)
        scores = scores.masked_fill(columns > rows, MASKED)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, MASKED) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1)


def _scale(query: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(query.shape[-1]) if scale is None else scale
