"""Rules that make a step graph smaller and faster without changing what it computes, up to rounding.

Each takes one node and answers what stands for it (see `rewrite`). ONNX Runtime has many of these itself, but only
some of them, only on some platforms, and the file is read by other runtimes too.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto

from atoll.graph.tracing.rewrite import Net, Rule, Shape, attributes

Found = str | list[NodeProto] | None
_FEW = 2  # uses of a transposed matrix up to which each product transposes it for itself
_RESHAPES = ("Reshape", "Unsqueeze", "Squeeze", "Flatten")
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Where", "Equal", "Greater", "Less"})


def transposes(node: NodeProto, net: Net) -> Found:
    """Two transpositions become one, one that does nothing becomes none."""
    if node.op_type != "Transpose":
        return None
    perm = list(attributes(node).get("perm", ()))
    if perm and perm == list(range(len(perm))):
        return str(node.input[0])
    inner = net.maker(node.input[0], "Transpose")
    first = list(attributes(inner).get("perm", ())) if inner else []
    if not perm or not first or inner is None:
        return None
    both = [first[axis] for axis in perm]
    if both == sorted(both):
        return str(inner.input[0])
    return [net.node("Transpose", [inner.input[0]], None, node.output[0], perm=both)]


def products(node: NodeProto, net: Net) -> Found:
    """A product of matrices takes its operands transposed: MatMul or Gemm of a Transpose becomes Gemm with a flag.

    Not where many products share the Transpose, as the steps of a GRU do: doing it once is faster then.
    """
    if node.op_type not in ("MatMul", "Gemm") or any(_rank(net, name) != 2 for name in node.input[:2]):
        return None
    given = attributes(node)
    flags = {"transA": given.get("transA", 0), "transB": given.get("transB", 0)}
    inputs = list(node.input)
    for index, flag in enumerate(flags):
        inner = net.maker(inputs[index], "Transpose")
        if inner is not None and attributes(inner).get("perm") == [1, 0] and net.uses[inputs[index]] <= _FEW:
            inputs[index], flags[flag] = inner.input[0], 1 - flags[flag]
    if inputs == list(node.input):
        return None
    scales = {key: given[key] for key in ("alpha", "beta") if key in given}
    return [net.node("Gemm", inputs, net.shapes.get(node.output[0]), node.output[0], **flags, **scales)]


def sums(node: NodeProto, net: Net) -> Found:
    """A product of matrices to which something of its shape is added does so itself."""
    if node.op_type != "Add":
        return None
    shape = net.shapes.get(node.output[0])
    for product, added in (tuple(node.input), tuple(node.input)[::-1]):
        inner = net.maker(product, "Gemm")
        alone = inner is not None and len(inner.input) == 2 and net.uses[product] == 1
        if inner is None or not alone or shape is None or net.shapes.get(added) != shape or len(shape) != 2:
            continue
        return [net.node("Gemm", [*inner.input, added], shape, node.output[0], **attributes(inner))]
    return None


def powers(node: NodeProto, net: Net) -> Found:
    """A square is a product, a power of 1/2 a square root, a power of -1 a reciprocal."""
    if node.op_type != "Pow":
        return None
    shape = net.shapes.get(node.output[0])
    base = node.input[0]
    match net.number(node.input[1]):
        case 2.0:
            return [net.node("Mul", [base, base], shape, node.output[0])]
        case 0.5:
            return [net.node("Sqrt", [base], shape, node.output[0])]
        case -1.0:
            return [net.node("Reciprocal", [base], shape, node.output[0])]
        case 1.0:
            return str(base)
    return None


def scalars(node: NodeProto, net: Net) -> Found:
    """Products with constants: a quotient becomes one, two become one, one with 1 becomes none."""
    if node.op_type == "Div":
        return _quotient(node, net)
    scaled = _scaled(node, net)
    if scaled is None:
        return None
    value, factor = scaled
    if factor == 1 and net.shapes.get(value, 0) == net.shapes.get(node.output[0], 1):
        return value
    inner = net.makers.get(value)
    deeper = _scaled(inner, net) if inner is not None else None
    if deeper is None:
        return None
    both = net.constant(np.array(deeper[1] * factor, np.float32))
    return [net.node("Mul", [deeper[0], both], net.shapes.get(node.output[0]), node.output[0])]


def _quotient(node: NodeProto, net: Net) -> Found:
    """Many numbers by one number: its reciprocal, once, and products."""
    below, shape = net.number(node.input[1]), net.shapes.get(node.output[0])
    if node.output[0] not in net.floats:
        return None
    if net.shapes.get(node.input[1]) != () or shape is None or math.prod(_lengths(shape)) == 1:
        return None
    if below is None and node.input[1] in net.constants:
        return None  # a whole number: its quotients are whole too
    if below is None:
        factor = net.node("Reciprocal", [node.input[1]], ())
        return [factor, net.node("Mul", [node.input[0], factor.output[0]], shape, node.output[0])]
    if not below or not math.isfinite(1 / below):
        return None
    return [net.node("Mul", [node.input[0], net.constant(np.array(1 / below, np.float32))], shape, node.output[0])]


def _lengths(shape: Shape) -> list[int]:
    """The lengths of a shape, 2 for each that is not known."""
    return [length if isinstance(length, int) else 2 for length in shape]


def _scaled(node: NodeProto, net: Net) -> tuple[str, float] | None:
    """What is multiplied and by which constant, for a product with a constant of no dimensions."""
    if node.op_type != "Mul":
        return None
    for value, factor in (tuple(node.input), tuple(node.input)[::-1]):
        number = net.number(factor)
        if number is not None and net.shapes.get(factor) == () and net.number(value) is None:
            return value, number
    return None


def reductions(node: NodeProto, net: Net) -> Found:
    """The sum of squares has an operator of its own; empty lists of axes mean what no list means."""
    if not node.op_type.startswith("Reduce"):
        return None
    given = attributes(node)
    if len(node.input) == 2 and not given.get("noop_with_empty_axes"):
        axes = net.value(node.input[1])
        if axes is not None and not axes.size:
            return [net.node(node.op_type, node.input[:1], net.shapes.get(node.output[0]), node.output[0], **given)]
    square = net.maker(node.input[0], "Mul") if node.op_type == "ReduceSum" else None
    if square is None or square.input[0] != square.input[1] or len(node.input) == 2:
        return None
    inputs = [square.input[0], *node.input[1:]]
    return [net.node("ReduceSumSquare", inputs, net.shapes.get(node.output[0]), node.output[0], **given)]


def reshapes(node: NodeProto, net: Net) -> Found:
    """Of several changes of shape in a row the last one counts; one to the same shape does nothing."""
    if node.op_type not in _RESHAPES:
        return None
    shape = net.shapes.get(node.output[0])
    target = _static(shape)
    if target is None or shape is None:
        return None
    if shape == net.shapes.get(node.input[0]):
        return str(node.input[0])
    summed = net.maker(node.input[0], "ReduceSum")
    if summed is not None and attributes(summed).get("keepdims", 1) and _without_ones(net, summed) == shape:
        kept = {**attributes(summed), "keepdims": 0}
        return [net.node("ReduceSum", summed.input, shape, node.output[0], **kept)]
    inner = net.maker(node.input[0], *_RESHAPES)
    source = node.input[0] if inner is None else inner.input[0]
    if inner is None and node.op_type == "Reshape" and _wanted(net, node) == target:
        return None
    return [net.node("Reshape", [source, net.constant(np.array(target, np.int64))], shape, node.output[0])]


def _wanted(net: Net, node: NodeProto) -> list[int] | None:
    value = net.value(node.input[1])
    return None if value is None or attributes(node).get("allowzero") else [int(length) for length in value]


def _without_ones(net: Net, node: NodeProto) -> Shape | None:
    """Shape of a reduction if it did not keep the dimensions that it reduces."""
    before = net.shapes.get(node.input[0])
    axes = net.value(node.input[1]) if len(node.input) == 2 else None
    if before is None or axes is None or not axes.size:
        return None
    gone = {int(axis) % len(before) for axis in axes}
    return tuple(length for axis, length in enumerate(before) if axis not in gone)


def broadcasts(node: NodeProto, net: Net) -> Found:
    """Operators that broadcast need no Expand before them."""
    if node.op_type not in _ELEMENTWISE:
        return None
    shape = net.shapes.get(node.output[0])
    inputs = list(node.input)
    for index, name in enumerate(inputs):
        inner = net.maker(name, "Expand")
        others = [net.shapes.get(other) for place, other in enumerate(inputs) if place != index]
        if inner is not None and shape is not None and None not in shape and shape in others:
            inputs[index] = inner.input[0]
    if inputs == list(node.input):
        return None
    return [net.node(node.op_type, inputs, shape, node.output[0], **attributes(node))]


def choices(node: NodeProto, net: Net) -> Found:
    """A choice by the contrary is the choice with its sides exchanged."""
    if node.op_type != "Where":
        return None
    contrary = net.maker(node.input[0], "Not")
    if contrary is None:
        return None
    inputs = [contrary.input[0], node.input[2], node.input[1]]
    return [net.node("Where", inputs, net.shapes.get(node.output[0]), node.output[0])]


def slices(node: NodeProto, net: Net) -> Found:
    """Steps of 1 go without saying."""
    if node.op_type != "Slice" or len(node.input) != 5:
        return None
    steps = net.value(node.input[4])
    if steps is None or (steps != 1).any():
        return None
    return [net.node("Slice", node.input[:4], net.shapes.get(node.output[0]), node.output[0])]


def _rank(net: Net, name: str) -> int | None:
    shape = net.shapes.get(name)
    return None if shape is None else len(shape)


def _static(shape: Shape | None) -> list[int] | None:
    """The shape as Reshape takes it, -1 for its one length that is not a number; None if there are more."""
    if shape is None or sum(not isinstance(length, int) for length in shape) > 1 or 0 in shape:
        return None
    return [length if isinstance(length, int) else -1 for length in shape]


RULES: tuple[Rule, ...] = (
    transposes,
    products,
    sums,
    powers,
    scalars,
    reductions,
    reshapes,
    broadcasts,
    choices,
    slices,
)
