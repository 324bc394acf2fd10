"""Operators that the exporter would write inexactly, written as they are meant (needs torch and onnxscript)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op

aten = torch.ops.aten


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For `torch.onnx.export`: how to write operators of ATen in ONNX, by operator."""
    return {aten.div.Tensor_mode: rounded_division, aten.div.Scalar_mode: rounded_division}


def rounded_division(self: Any, other: Any, rounding_mode: str | None = None) -> Any:
    """Division with rounding. Whole numbers stay whole: the exporter would take them through float32."""
    if not self.dtype.is_integer():
        quotient = op.Div(self, other)
        if rounding_mode == "floor":
            return op.Floor(quotient)
        return op.Mul(op.Floor(op.Abs(quotient)), op.Sign(quotient)) if rounding_mode == "trunc" else quotient
    other = op.CastLike(other, self)
    quotient = op.Div(self, other)  # towards zero
    if rounding_mode == "trunc":
        return quotient
    rest = op.Sub(self, op.Mul(quotient, other))
    below = op.Less(op.Mul(op.Sign(rest), op.Sign(other)), op.CastLike(0, self))
    return op.Sub(quotient, op.CastLike(below, self))
