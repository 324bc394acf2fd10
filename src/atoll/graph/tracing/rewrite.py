"""Rewriting an ONNX graph node by node: the graph as tables, and a driver that applies rules until none fits.

Pure work on the protobuf. A rule looks at one node, whose inputs are already rewritten, and may answer with the name
of a value that is the same, or with nodes that compute it instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Shape = tuple[int | str | None, ...]
Array = npt.NDArray[Any]
COMMUTATIVE = frozenset({"Add", "Mul", "And", "Or", "Xor", "Equal", "Max", "Min"})
_ROUNDS = 12  # more than any chain of rewrites seen needs; each round goes over the whole graph


@dataclass
class Net:
    """A graph: nodes in order, constants by name, names of the results, shapes as far as they are known.

    A shape's entry is a length, the name of a symbol, or None where nothing is known; `floats` are the float32 values
    of the graph as it was given. While rules are applied,
    `makers` has the node that makes each value, and `uses` how often each was an input or result before this sweep.
    """

    nodes: list[NodeProto]
    constants: dict[str, TensorProto]
    results: list[str]
    shapes: dict[str, Shape]
    floats: frozenset[str]
    makers: dict[str, NodeProto] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)
    _count: int = 0

    def maker(self, name: str, *ops: str) -> NodeProto | None:
        """The node that makes this value, if it is one of these operators."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type in ops else None

    def value(self, name: str) -> Array | None:
        """The contents of a constant, None for other values."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def number(self, name: str) -> float | None:
        """The value of a float32 constant of one element and at most one dimension."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or list(tensor.dims) not in ([], [1]):
            return None
        return float(numpy_helper.to_array(tensor).reshape(()))

    def constant(self, value: Array) -> str:
        """Name of a new constant."""
        name = self.fresh()
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        self.shapes[name] = tuple(np.shape(value))
        return name

    def fresh(self) -> str:
        """A name that nothing has."""
        self._count += 1
        return f"new.{self._count}"

    def node(
        self, op: str, inputs: Sequence[str], shape: Shape | None, output: str = "", **attributes: Any
    ) -> NodeProto:
        """A new node with one output; `shape` is that of the output, None if it is not known."""
        name = output or self.fresh()
        if shape is not None:
            self.shapes[name] = shape
        return helper.make_node(op, list(inputs), [name], **attributes)


Rule = Callable[[NodeProto, Net], str | list[NodeProto] | None]


def net_of(model: ModelProto, inputs: Sequence[str]) -> Net:
    """The graph of `model` with its inputs renamed to `inputs` (in order). Overlong doc strings and notes stay out."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    names = {old.name: new for old, new in zip(model.graph.input, inputs, strict=True)}
    shapes: dict[str, Shape] = {}
    floats = set()
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            floats.add(names.get(value.name, value.name))
        if value.type.tensor_type.HasField("shape"):
            shape = tuple(_length(dim) for dim in value.type.tensor_type.shape.dim)
            shapes[names.get(value.name, value.name)] = shape
    constants = {}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        constants[tensor.name] = numpy_helper.from_array(array, tensor.name)
        shapes[tensor.name] = array.shape
    nodes = []
    for old in model.graph.node:
        node = NodeProto(op_type=old.op_type, attribute=old.attribute)
        if old.domain:
            node.domain = old.domain
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
        node.input.extend(names.get(name, name) for name in old.input)
        node.output.extend(old.output)
        nodes.append(node)
    results = [names.get(value.name, value.name) for value in model.graph.output]
    return Net(nodes, constants, results, shapes, frozenset(floats))


def _length(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def apply(net: Net, rules: Sequence[Rule], opset: int) -> None:
    """Apply the rules to all nodes, again and again, until nothing changes; equal values are merged on the way."""
    for _ in range(_ROUNDS):
        merge(net, opset)
        if not _sweep(net, rules):
            break
    merge(net, opset)


def _sweep(net: Net, rules: Sequence[Rule]) -> bool:
    """One pass over the nodes; True if something was rewritten."""
    old, net.nodes, net.makers = net.nodes, [], {}
    net.uses = Counter([*net.results, *(name for node in old for name in node.input)])
    same: dict[str, str] = {}
    changed = False
    for node in old:
        node.input[:] = [same.get(name, name) for name in node.input]
        for rule in rules:
            found = rule(node, net)
            if found is None:
                continue
            changed = True
            if isinstance(found, str):
                same[node.output[0]] = found
            else:
                for made in found:
                    _append(net, made)
            break
        else:
            _append(net, node)
    net.results = [same.get(name, name) for name in net.results]
    return changed


def _append(net: Net, node: NodeProto) -> None:
    net.nodes.append(node)
    net.makers.update((name, node) for name in node.output if name)


def merge(net: Net, opset: int) -> None:
    """Merge equal constants and equal nodes, drop Identity, default attributes, and what no result needs."""
    same: dict[str, str] = {}
    seen: dict[bytes, list[str]] = {}
    constants: dict[str, TensorProto] = {}
    for name, tensor in net.constants.items():
        bare = TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=tensor.raw_data)
        first = seen.setdefault(bare.SerializeToString(deterministic=True), [name])[0]
        same[name] = first
        if first == name:
            constants[name] = tensor
    nodes: list[NodeProto] = []
    for node in net.nodes:
        node.input[:] = [same.get(name, name) for name in node.input]
        while node.input and not node.input[-1]:
            del node.input[-1]
        if node.op_type == "Identity":
            same[node.output[0]] = node.input[0]
            continue
        _bare(node, opset)
        outputs = seen.setdefault(_key(node), list(node.output))
        same.update(zip(node.output, outputs, strict=True))
        if outputs == list(node.output):
            nodes.append(node)
    net.results = [same.get(name, name) for name in net.results]
    net.nodes = _needed(nodes, net.results)
    used = {name for node in net.nodes for name in node.input} | set(net.results)
    net.constants = {name: tensor for name, tensor in constants.items() if name in used}


def _key(node: NodeProto) -> bytes:
    inputs = sorted(node.input) if node.op_type in COMMUTATIVE else list(node.input)
    bare = NodeProto(op_type=node.op_type, domain=node.domain, input=inputs, attribute=node.attribute)
    return bytes(bare.SerializeToString(deterministic=True)) + bytes([len(node.output)])


def _bare(node: NodeProto, opset: int) -> None:
    """Attributes in order of their names, without those that say what goes without saying."""
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    kept = []
    for item in sorted(node.attribute, key=lambda item: str(item.name)):
        standard = schema.attributes[item.name].default_value if item.name in schema.attributes else None
        if standard is None or not standard.name or not _equal(item, standard):
            kept.append(item)
    del node.attribute[:]
    node.attribute.extend(kept)


def _equal(one: onnx.AttributeProto, other: onnx.AttributeProto) -> bool:
    return bool(helper.get_attribute_value(one) == helper.get_attribute_value(other))


def _needed(nodes: list[NodeProto], results: Sequence[str]) -> list[NodeProto]:
    wanted = set(results)
    kept = []
    for node in reversed(nodes):
        if any(name in wanted for name in node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def attributes(node: NodeProto) -> dict[str, Any]:
    """Attribute values by name (bytes for strings)."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}
