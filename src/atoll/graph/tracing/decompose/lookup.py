"""Tables of vectors, choices by index, and their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def embedding_dense_backward(
    grad: Tensor, indices: Tensor, rows: int, padding_idx: int, scale_grad_by_freq: bool
) -> Tensor:
    """Gradient of an embedding: `grad` [..., d] is added up by row of the table, [rows, d]; row `padding_idx` stays 0.

    A scatter with addition, which ONNX Runtime does many times faster than a product with one-hot vectors.
    """
    places = indices.reshape(-1)
    moved = grad.reshape(-1, grad.shape[-1])
    if scale_grad_by_freq:
        counts = torch.zeros(rows, dtype=grad.dtype).index_put([places], torch.ones_like(moved[:, 0]), True)
        moved = moved / aten.embedding(counts.unsqueeze(1), places)
    if padding_idx >= 0:
        moved = moved * (places != padding_idx).to(moved.dtype).unsqueeze(1)
    found: Tensor = torch.zeros(rows, grad.shape[-1], dtype=grad.dtype).index_put([places], moved, True)
    return found


def index(x: Tensor, indices: list[Tensor | None]) -> Any:
    """`x[...]` with tables of whole numbers that each choose along a dimension of their own, one after another."""
    found = _separate(x, indices)
    if found is None:
        return NotImplemented
    for dim, places in found:
        x = aten.index_select(x, dim, places)
    return x


def index_put(x: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False) -> Any:
    """The gradient of `index`: `values` added to `x` where `indices` say, one dimension after another."""
    found = _separate(x, indices)
    first = indices[0]
    plain = first is not None and first.dtype == torch.int64 and len(indices) == 1
    if found is None or not accumulate or plain:
        return NotImplemented  # ONNX has it as it is
    for dim, places in found:
        moved = values.transpose(0, dim)
        room = torch.zeros([x.shape[dim], *moved.shape[1:]], dtype=values.dtype)
        values = aten.index_put(room, [places], moved, True).transpose(0, dim)
    return x + values


def _separate(x: Tensor, indices: list[Tensor | None]) -> list[tuple[int, Tensor]] | None:
    """(dimension, numbers [n]) if every table stands for one dimension of the result, in order; else None."""
    given = [(dim, table) for dim, table in enumerate(indices) if table is not None]
    dims = [dim for dim, _ in given]
    if dims != list(range(dims[0], dims[0] + len(dims))) or any(table.dtype == torch.bool for _, table in given):
        return None
    rank = len(given)
    shapes = [[1] * (rank - table.dim()) + list(table.shape) for _, table in given]
    for own, shape in enumerate(shapes):
        if len(shape) != rank or any(length != 1 for axis, length in enumerate(shape) if axis != own):
            return None
    whole = [(dim, table.to(torch.int64).reshape(-1)) for dim, table in given]
    return [(dim, torch.where(table < 0, table + x.shape[dim], table)) for dim, table in whole]
