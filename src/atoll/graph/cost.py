"""What a checked graph costs to run once: floating-point operations and bytes of memory, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from onnx import NodeProto

from atoll.graph.shapes import Shaped, attributes

# Operators whose result is a view of their input, or a few integers.
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
# Operators that take more than 2 ns for an element, and what that is in operations of a product.
_DEAR_OPS = """
    Abs ArgMax ArgMin Cast Concat Cos CumSum Div Elu Gather GatherElements Log Mod Pow ReduceL2 ScatterElements Sin
    Softmax Softplus Tile Where
"""
_DEAR = frozenset(_DEAR_OPS.split())
_SLOW, _PLAIN = 200, 20
_FREE = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Shape", "Constant"})


def flops(node: NodeProto, shapes: Mapping[str, Shaped]) -> int:
    """Floating-point operations of one node: twice the multiply-adds of products, else elements touched."""
    if node.op_type in _FREE:
        return 0
    inputs = [shapes[name] for name in node.input if name]
    out = max(shapes[name].size for name in node.output if name)
    match node.op_type:
        case "MatMul":
            return 2 * out * (inputs[0].shape[-1] if inputs[0].shape else 1)
        case "Gemm":
            rows = inputs[0].shape
            return 2 * out * rows[0 if attributes(node).get("transA", 0) else 1]
        case "Conv":
            return 2 * out * math.prod(inputs[1].shape[1:])
        case "ConvTranspose":
            return 2 * inputs[0].size * math.prod(inputs[1].shape[1:])
        case "MaxPool" | "AveragePool":
            return out * int(math.prod(attributes(node).get("kernel_shape", [1])))
    return max([out, *(value.size for value in inputs)])


def work(node: NodeProto, shapes: Mapping[str, Shaped]) -> int:
    """Time that one node takes, as the operations of a matrix product that takes as long.

    Products run at tens of operations a nanosecond; what goes through memory once or calls a function for each
    element is slower by the factors below (measured on one thread, rounded up).
    """
    if node.op_type in _PRODUCTS or node.op_type in _FREE:
        return flops(node, shapes)
    return flops(node, shapes) * (_SLOW if node.op_type in _DEAR else _PLAIN)


def workspace(node: NodeProto, shapes: Mapping[str, Shaped]) -> int:
    """Bytes that a node needs besides its inputs and outputs, as ONNX Runtime's kernels take them (measured).

    A convolution's patches, one image at a time; what a choice keeps of both sides; a softmax over another dimension
    than the last turns its input round and back.
    """
    if node.op_type == "Conv":
        out, weight = shapes[node.output[0]], shapes[node.input[1]]
        return 4 * math.prod(weight.shape[1:]) * math.prod(out.shape[2:])
    if node.op_type == "ConvTranspose":
        image, weight = shapes[node.input[0]], shapes[node.input[1]]
        return 4 * math.prod(weight.shape[1:]) * math.prod(image.shape[2:])
    out = shapes[node.output[0]]
    if node.op_type == "Where":
        return 2 * out.bytes
    if node.op_type in ("Softmax", "LogSoftmax"):
        last = attributes(node).get("axis", -1) in (-1, len(out.shape) - 1)
        return 0 if last else 2 * out.bytes
    return 0


def memory(
    nodes: Sequence[NodeProto],
    shapes: Mapping[str, Shaped],
    inputs: Sequence[str],
    constants: Sequence[str],
    outputs: Sequence[str],
) -> int:
    """Peak bytes: `inputs`, `constants` and `outputs` for the whole run, other values until their last use.

    A value that follows from constants alone is worked out when the graph is opened, and stays.
    """
    kept = {*inputs, *constants, *outputs, *_foldable(nodes, constants)}
    last_use = {name: index for index, node in enumerate(nodes) for name in (*node.output, *node.input) if name}
    standing = sum(shapes[name].bytes for name in kept)
    live = peak = 0
    ends: dict[int, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and name not in kept:
                live += shapes[name].bytes
                ends[last_use[name]] = ends.get(last_use[name], 0) + shapes[name].bytes
        peak = max(peak, live + workspace(node, shapes))
        live -= ends.pop(index, 0)
    return standing + peak


def _foldable(nodes: Sequence[NodeProto], constants: Sequence[str]) -> set[str]:
    """Values that follow from constants alone."""
    found = set(constants)
    for node in nodes:
        if all(name in found for name in node.input if name):
            found.update(name for name in node.output if name)
    return found
