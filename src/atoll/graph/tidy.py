"""Make an exported ONNX model canonical: no leftovers of the exporter, short names, named inputs and outputs.

Pure work on the protobuf; the same model in gives the same bytes out.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from atoll.graph.signatures import Signature

PRODUCER = "atoll"
IR_VERSION = 9


def tidy(model: ModelProto, ports: Signature) -> bytes:
    """Serialise `model` with its inputs and outputs renamed to those of `ports` (in order, one for one).

    Equal initialisers and equal nodes are merged, unused ones dropped; values are numbered in order. Raises
    onnx.checker.ValidationError when the result is not valid ONNX.
    """
    inputs, outputs = ports.inputs, ports.outputs
    graph = model.graph
    names = {old.name: port[0] for old, port in zip(graph.input, inputs, strict=True)}
    nodes, constants, final = _merge(graph, names)
    results = [final.get(old.name, old.name) for old in graph.output]
    nodes = _needed(nodes, results)
    used = {name for node in nodes for name in node.input} | set(results)
    constants = {name: tensor for name, tensor in constants.items() if name in used}
    nodes, constants = _rename(nodes, constants, results, [port[0] for port in outputs], {port[0] for port in inputs})
    clean = helper.make_graph(
        nodes, "graph", [_port(*port) for port in inputs], [_port(*port) for port in outputs], list(constants.values())
    )
    opset = max(entry.version for entry in model.opset_import if entry.domain == "")
    done = helper.make_model(clean, opset_imports=[helper.make_opsetid("", opset)], producer_name=PRODUCER)
    done.ir_version = IR_VERSION
    onnx.checker.check_model(done, full_check=True)
    return bytes(done.SerializeToString(deterministic=True))


def _port(name: str, element: int, shape: tuple[int | str, ...]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def _merge(graph: GraphProto, names: dict[str, str]) -> tuple[list[NodeProto], dict[str, TensorProto], dict[str, str]]:
    """Drop duplicates of constants and of nodes; returns nodes, constants by name, and where each old name went."""
    final = dict(names)
    constants: dict[str, TensorProto] = {}
    seen: dict[bytes, list[str]] = {}
    for tensor in graph.initializer:
        content = onnx.numpy_helper.to_array(tensor).tobytes()
        bare = TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=content)
        first = seen.setdefault(bare.SerializeToString(deterministic=True), [tensor.name])
        final[tensor.name] = first[0]
        if first[0] == tensor.name:
            bare.name = tensor.name
            constants[tensor.name] = bare
    nodes: list[NodeProto] = []
    for node in graph.node:
        attributes = sorted(node.attribute, key=lambda item: str(item.name))
        bare_node = NodeProto(op_type=node.op_type, domain=node.domain, attribute=attributes)
        for attribute in bare_node.attribute:
            attribute.doc_string = ""
        bare_node.input.extend(final.get(name, name) for name in node.input)
        if node.op_type == "Identity":
            final[node.output[0]] = bare_node.input[0]
            continue
        key = bare_node.SerializeToString(deterministic=True) + bytes([len(node.output)])
        outputs = seen.setdefault(key, list(node.output))
        final.update(zip(node.output, outputs, strict=True))
        if outputs == list(node.output):
            bare_node.output.extend(node.output)
            nodes.append(bare_node)
    return nodes, constants, final


def _needed(nodes: list[NodeProto], results: Sequence[str]) -> list[NodeProto]:
    wanted = set(results)
    kept = []
    for node in reversed(nodes):
        if any(name in wanted for name in node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _rename(
    nodes: list[NodeProto],
    constants: dict[str, TensorProto],
    results: list[str],
    outputs: list[str],
    inputs: set[str],
) -> tuple[list[NodeProto], dict[str, TensorProto]]:
    """Short names: constants c0.., values v0.., results by their ports (copied by Identity where two share a value)."""
    names: dict[str, str] = {name: name for name in inputs}
    for index, name in enumerate(constants):
        names[name] = f"c{index}"
    extra: list[tuple[str, str]] = []
    for old, new in zip(results, outputs, strict=True):
        if old in names:
            extra.append((old, new))
        else:
            names[old] = new
    names[""] = ""  # an optional input or output that is left out
    values = (name for node in nodes for name in node.output if name not in names)
    names |= {name: f"v{index}" for index, name in enumerate(values)}
    for node in nodes:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    nodes += [helper.make_node("Identity", [names[old]], [new]) for old, new in extra]
    for name, tensor in constants.items():
        tensor.name = names[name]
    return nodes, {names[name]: tensor for name, tensor in constants.items()}
