"""Convolutions and pools: their attributes, against the shapes that they slide over.

ONNX's shape rules divide by strides and multiply by kernels as they come, and ONNX Runtime trusts that groups divide
channels; so every length is bounded here before either sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import NodeProto

from atoll.errors import Refused
from atoll.wire.reasons import Reason

Shape = tuple[int, ...]

SLIDING = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool"})
MAX_LENGTH = 1 << 16  # of a kernel, stride, dilation or pad
_MAX_SPATIAL = 3
_PADDING = frozenset({b"NOTSET", b"VALID", b"SAME_UPPER", b"SAME_LOWER"})
# Least value, and how many there are for each spatial dimension.
_LISTS = {"kernel_shape": (1, 1), "strides": (1, 1), "dilations": (1, 1), "pads": (0, 2), "output_padding": (0, 1)}


def check_window(node: NodeProto, found: Mapping[str, Any], shapes: Sequence[Shape]) -> None:
    """Check a node of `SLIDING` with attributes `found` against its inputs' shapes.

    Raises Refused(BAD_ATTRIBUTE or BAD_SHAPE).
    """
    image = shapes[0]
    spatial = len(image) - 2
    if not 1 <= spatial <= _MAX_SPATIAL:
        raise Refused(Reason.BAD_SHAPE, f"{node.op_type} over {len(image)} dimensions")
    for name, (least, times) in _LISTS.items():
        if name in found:
            _check_list(f"{node.op_type}.{name}", found[name], least, times * spatial)
    if "output_shape" in found:
        raise Refused(Reason.BAD_ATTRIBUTE, f"{node.op_type}.output_shape: say it by pads")
    if found.get("auto_pad", b"NOTSET") not in _PADDING:
        raise Refused(Reason.BAD_ATTRIBUTE, f"{node.op_type}.auto_pad {found['auto_pad']!r}")
    if node.op_type in ("Conv", "ConvTranspose"):
        _check_weight(node.op_type, found, *shapes)


def _check_list(where: str, values: list[int], least: int, count: int) -> None:
    if len(values) != count:
        raise Refused(Reason.BAD_ATTRIBUTE, f"{where} has {len(values)} values, expected {count}")
    if not all(least <= value <= MAX_LENGTH for value in values):
        raise Refused(Reason.BAD_ATTRIBUTE, f"{where} is {values}, expected {least} to {MAX_LENGTH}")


def _check_weight(op: str, found: Mapping[str, Any], image: Shape, weight: Shape, *bias: Shape) -> None:
    groups = found.get("group", 1)
    if not 1 <= groups <= image[1]:
        raise Refused(Reason.BAD_ATTRIBUTE, f"{op}.group is {groups} for {image[1]} channels")
    fits = len(weight) == len(image) and list(weight[2:]) == found.get("kernel_shape", list(weight[2:]))
    if not fits or weight[0] % groups or image[1] != (weight[1] * groups if op == "Conv" else weight[0]):
        raise Refused(Reason.BAD_SHAPE, f"{op}: weight {weight} in {groups} groups for an image {image}")
    if bias and bias[0] != ((weight[0],) if op == "Conv" else (weight[1] * groups,)):
        raise Refused(Reason.BAD_SHAPE, f"{op}: bias {bias[0]} for a weight {weight}")
