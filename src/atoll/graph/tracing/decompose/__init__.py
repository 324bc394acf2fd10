"""How operators that ONNX lacks, or does slowly, are written with operators that it has (needs torch).

The exporter knows core ATen only, and no gradients. `table` is all that tracing needs; the families are in the files
of this package. What they have in common: no tables of indices, nothing that depends on the size of the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions

from atoll.graph.tracing.decompose import (
    attention,
    borders,
    chance,
    convolution,
    lookup,
    normalisation,
    pooling,
    slicing,
    smooth,
)
from atoll.graph.tracing.decompose.translation import translations

__all__ = ["table", "translations"]

aten = torch.ops.aten


def table() -> dict[Any, Any]:
    """Decompositions for `make_fx`: core ATen and ours."""
    found = dict(core_aten_decompositions())
    for kept in (aten.tril.default, aten.triu.default):
        del found[kept]  # ONNX has them
    return found | {
        aten.convolution_backward.default: convolution.backward,
        aten.max_pool2d_with_indices.default: pooling.max_pool2d,
        aten.max_pool2d_with_indices_backward.default: pooling.max_pool2d_backward,
        aten.avg_pool2d_backward.default: pooling.avg_pool2d_backward,
        aten._adaptive_avg_pool2d.default: pooling.adaptive_avg_pool2d,
        aten._adaptive_avg_pool2d_backward.default: pooling.adaptive_avg_pool2d_backward,
        aten.adaptive_max_pool2d.default: pooling.adaptive_max_pool2d,
        aten.adaptive_max_pool2d_backward.default: pooling.adaptive_max_pool2d_backward,
        aten.native_group_norm.default: normalisation.group_norm,
        aten.native_batch_norm.default: normalisation.batch_norm,
        aten._native_batch_norm_legit.default: normalisation.batch_norm,
        aten._native_batch_norm_legit.no_stats: normalisation.batch_norm_bare,
        aten._native_batch_norm_legit_no_training.default: normalisation.batch_norm_fixed,
        aten._scaled_dot_product_flash_attention_for_cpu.default: attention.attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward.default: attention.attention_backward,
        aten._scaled_dot_product_attention_math.default: attention.attention_math,
        aten.gelu.default: smooth.gelu,
        aten.gelu_backward.default: smooth.gelu_backward,
        aten.native_layer_norm_backward.default: smooth.layer_norm_backward,
        aten.embedding_dense_backward.default: lookup.embedding_dense_backward,
        aten.native_dropout.default: chance.native_dropout,
        aten.native_dropout_backward.default: chance.native_dropout_backward,
        aten.bernoulli_.float: chance.bernoulli_,
        aten.bernoulli.p: chance.bernoulli_p,
        aten.slice_backward.default: slicing.slice_backward,
        aten.select_backward.default: slicing.select_backward,
        aten.slice_scatter.default: slicing.slice_scatter,
        aten.select_scatter.default: slicing.select_scatter,
        aten.arange.default: slicing.arange,
        aten.arange.start: slicing.arange_start,
        aten.arange.start_step: slicing.arange_step,
        aten.threshold_backward.default: threshold_backward,
        aten.reflection_pad1d.default: borders.reflection_pad,
        aten.reflection_pad1d_backward.default: borders.reflection_pad_backward,
        aten.reflection_pad2d.default: borders.reflection_pad,
        aten.reflection_pad2d_backward.default: borders.reflection_pad_backward,
        aten.replication_pad1d.default: borders.replication_pad,
        aten.replication_pad1d_backward.default: borders.replication_pad_backward,
        aten.replication_pad2d.default: borders.replication_pad,
        aten.replication_pad2d_backward.default: borders.replication_pad_backward,
        aten.upsample_nearest1d.default: borders.upsample_nearest,
        aten.upsample_nearest1d_backward.default: borders.upsample_nearest_backward,
        aten.upsample_nearest2d.default: borders.upsample_nearest,
        aten.upsample_nearest2d_backward.default: borders.upsample_nearest_backward,
        aten.xlogy.Tensor: xlogy,
        aten.index.Tensor: lookup.index,
        aten._unsafe_index.Tensor: lookup.index,
        aten.index_put.default: lookup.index_put,
        aten._unsafe_index_put.default: lookup.index_put,
    }


def threshold_backward(grad: Tensor, x: Tensor, threshold: float) -> Tensor:
    """Gradient of relu (`threshold` 0): a product with a mask, which runs several times faster than a selection."""
    return grad * (x > threshold).to(grad.dtype)


def xlogy(x: Tensor, y: Tensor) -> Tensor:
    """x log(y), and 0 where x is 0."""
    nothing = x == 0
    return torch.where(nothing, 0.0, x * torch.where(nothing, 1.0, y).log())
