"""Walk a graph node by node with a concrete batch: every shape must be known and bounded before the next node counts.

ONNX's own inference rules are used one node at a time, with the values of small integer tensors (shapes, axes) that
are known so far. A tensor too large is refused at the node that makes it, without allocating anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper

from atoll.errors import Refused
from atoll.graph.windows import SLIDING, check_window
from atoll.wire.reasons import Reason

ITEM_BYTES = {
    TensorProto.FLOAT: 4,
    TensorProto.UINT8: 1,
    TensorProto.INT8: 1,
    TensorProto.INT32: 4,
    TensorProto.INT64: 8,
    TensorProto.BOOL: 1,
}
MAX_KNOWN = 64  # elements of an integer tensor whose values are followed
MAX_RANK = 16

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shaped:
    """Element type and concrete shape of a value."""

    element: int
    shape: tuple[int, ...]

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes that the value takes."""
        return self.size * ITEM_BYTES[self.element]

    @cached_property
    def proto(self) -> TypeProto:
        """The same as ONNX writes it."""
        return helper.make_tensor_type_proto(self.element, list(self.shape))


@dataclass
class Walk:
    """What is known so far: shapes of all values, contents of small integer tensors."""

    opset: int
    tensor_elements: int  # bound on every value
    shapes: dict[str, Shaped] = field(default_factory=dict)
    known: dict[str, Ints] = field(default_factory=dict)

    def constant(self, name: str, tensor: TensorProto) -> None:
        """Take note of an initialiser (already checked for size and completeness)."""
        self.shapes[name] = Shaped(tensor.data_type, tuple(tensor.dims))
        if tensor.data_type == TensorProto.INT64 and self.shapes[name].size <= MAX_KNOWN and len(tensor.dims) <= 1:
            self.known[name] = numpy_helper.to_array(tensor)

    def step(self, node: NodeProto) -> None:
        """Infer the outputs of `node`; raises Refused(BAD_SHAPE, TENSOR_TOO_LARGE or BAD_GRAPH)."""
        schema = onnx.defs.get_schema(node.op_type, self.opset, "")
        self._check_sizes(node)
        self._check_axis(node)
        types = {name: self.shapes[name].proto for name in node.input if name}
        data = {name: numpy_helper.from_array(self.known[name]) for name in node.input if name in self.known}
        try:
            inferred = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=[helper.make_opsetid("", self.opset)]
            )
        except onnx.checker.ValidationError as error:
            raise Refused(Reason.BAD_GRAPH, " ".join(str(error).split())[:300]) from error
        except (onnx.shape_inference.InferenceError, ValueError, RuntimeError, OverflowError) as error:
            detail = " ".join(str(error).split())[:300]
            raise Refused(Reason.BAD_SHAPE, f"{node.op_type} {node.output[0]}: {detail}") from error
        for name in node.output:
            if name:
                self.shapes[name] = self._bounded(node, name, inferred.get(name))
        self._follow(node)

    def _check_axis(self, node: NodeProto) -> None:
        """Refuse an axis that the first input does not have: some of onnx's rules go beyond their own memory for it."""
        axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
        rank = max(1, len(self.shapes[node.input[0]].shape)) if node.input and node.input[0] else 1
        if not -rank <= axis <= rank:
            raise Refused(Reason.BAD_ATTRIBUTE, f"{node.op_type}.axis is {axis} for {rank} dimensions")

    def _check_sizes(self, node: NodeProto) -> None:
        """What the inference rules would take at its word."""
        if node.op_type in SLIDING:
            check_window(node, attributes(node), [self.shapes[name].shape for name in node.input if name])
        if node.op_type in ("ArgMax", "ArgMin") and not self.shapes[node.input[0]].size:
            # ONNX foretells one place, ONNX Runtime gives none: sizes worked out from that would not be the real ones.
            raise Refused(Reason.BAD_SHAPE, f"{node.op_type} of nothing")
        parts = attributes(node).get("num_outputs") if node.op_type == "Split" else None
        if parts is not None and parts != len(node.output):
            raise Refused(Reason.BAD_ATTRIBUTE, f"Split.num_outputs is {parts} for {len(node.output)} outputs")

    def _bounded(self, node: NodeProto, name: str, kind: TypeProto | None) -> Shaped:
        where = f"{node.op_type} {name}"
        if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
            raise Refused(Reason.BAD_SHAPE, f"{where}: the shape does not follow from the inputs")
        dims = kind.tensor_type.shape.dim
        if not all(dim.HasField("dim_value") for dim in dims):
            raise Refused(Reason.BAD_SHAPE, f"{where}: a dimension does not follow from the inputs")
        found = Shaped(kind.tensor_type.elem_type, tuple(dim.dim_value for dim in dims))
        if found.element not in ITEM_BYTES:
            raise Refused(Reason.BAD_SHAPE, f"{where}: element type {found.element} is not allowed")
        if any(length < 0 for length in found.shape):
            raise Refused(Reason.BAD_SHAPE, f"{where}: shape {found.shape}")
        if len(found.shape) > MAX_RANK:
            raise Refused(Reason.BAD_SHAPE, f"{where}: {len(found.shape)} dimensions, at most {MAX_RANK}")
        # A dimension of 0 makes no other one harmless: what is reduced over it comes back at full size.
        if math.prod(max(1, length) for length in found.shape) > self.tensor_elements:
            raise Refused(Reason.TENSOR_TOO_LARGE, f"{where}: shape {found.shape}")
        return found

    def _follow(self, node: NodeProto) -> None:
        """Compute the values of a small integer output where all that it depends on is known."""
        name = node.output[0]
        shaped = self.shapes[name]
        if shaped.element != TensorProto.INT64 or shaped.size > MAX_KNOWN or len(shaped.shape) > 1:
            return
        if node.op_type == "Shape":
            self.known[name] = _shape_value(node, self.shapes[node.input[0]].shape)
        elif node.op_type in _RULES and all(part in self.known for part in node.input):
            with np.errstate(over="ignore"):  # a sum beyond 64 bits wraps around, as in ONNX Runtime
                value = _RULES[node.op_type](node, [self.known[part] for part in node.input])
            if value is not None:
                found = np.asarray(value, np.int64)
                if found.size != shaped.size:  # onnx and we understand the node differently: neither is to be trusted
                    raise Refused(Reason.BAD_SHAPE, f"{node.op_type} {name}: {found.size} values for {shaped.shape}")
                self.known[name] = found.reshape(shaped.shape)


def attributes(node: NodeProto) -> dict[str, Any]:
    """Attribute values by name (bytes for strings)."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _shape_value(node: NodeProto, shape: tuple[int, ...]) -> Ints:
    found = attributes(node)
    return np.array(shape[found.get("start", 0) : found.get("end")], np.int64)


def _gather(node: NodeProto, values: list[Ints]) -> Any:
    table, index = values
    inside = bool(((index >= -len(table)) & (index < len(table))).all()) if table.ndim else False
    return table[index] if inside else None


def _divide(node: NodeProto, values: list[Ints]) -> Any:
    """Integer division towards zero, as ONNX defines it."""
    above, below = values
    if not below.all():
        return None
    return np.sign(above) * np.sign(below) * (np.abs(above) // np.abs(below))


def _first(node: NodeProto, values: list[Ints]) -> Ints:
    return values[0]


# The few operators from which exporters build shapes.
_RULES: Mapping[str, Callable[[NodeProto, list[Ints]], Any]] = {
    "Identity": _first,
    "Cast": _first,
    "Unsqueeze": _first,
    "Squeeze": _first,
    "Reshape": _first,
    "Concat": lambda _, values: np.concatenate([np.atleast_1d(value) for value in values]),
    "Gather": _gather,
    "Add": lambda _, values: values[0] + values[1],
    "Sub": lambda _, values: values[0] - values[1],
    "Mul": lambda _, values: values[0] * values[1],
    "Div": _divide,
}
