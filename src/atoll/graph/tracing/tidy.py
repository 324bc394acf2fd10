"""Make an exported ONNX model canonical: simplified, no leftovers of the exporter, short names, named ports.

Pure work on the protobuf; the same model in gives the same bytes out.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto, ValueInfoProto, helper

from atoll.graph.signatures import Signature
from atoll.graph.tracing.passes import RULES
from atoll.graph.tracing.rewrite import Net, apply, net_of

PRODUCER = "atoll"
IR_VERSION = 9


def tidy(model: ModelProto, ports: Signature) -> bytes:
    """Serialise `model` with its inputs and outputs renamed to those of `ports` (in order, one for one).

    What the rules of `passes` simplify is simplified, equal constants and equal nodes are merged, unused ones
    dropped; values are numbered in order. Raises onnx.checker.ValidationError when the result is not valid ONNX.
    """
    opset = max(entry.version for entry in model.opset_import if entry.domain == "")
    net = net_of(model, [port[0] for port in ports.inputs])
    apply(net, RULES, opset)
    _rename(net, ports)
    clean = helper.make_graph(
        net.nodes,
        "graph",
        [_port(*port) for port in ports.inputs],
        [_port(*port) for port in ports.outputs],
        list(net.constants.values()),
    )
    done = helper.make_model(clean, opset_imports=[helper.make_opsetid("", opset)], producer_name=PRODUCER)
    done.ir_version = IR_VERSION
    onnx.checker.check_model(done, full_check=True)
    return bytes(done.SerializeToString(deterministic=True))


def _port(name: str, element: int, shape: tuple[int | str, ...]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def _rename(net: Net, ports: Signature) -> None:
    """Short names: constants c0.., values v0.., results by their ports (copied by Identity where two share a value)."""
    names: dict[str, str] = {port[0]: port[0] for port in ports.inputs}
    for index, name in enumerate(net.constants):
        names[name] = f"c{index}"
    extra: list[tuple[str, str]] = []
    for old, port in zip(net.results, ports.outputs, strict=True):
        if old in names:
            extra.append((old, port[0]))
        else:
            names[old] = port[0]
    names[""] = ""  # an optional input or output that is left out
    values = (name for node in net.nodes for name in node.output if name not in names)
    names |= {name: f"v{index}" for index, name in enumerate(values)}
    for node in net.nodes:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        node.ClearField("name")
    net.nodes += [helper.make_node("Identity", [names[old]], [new]) for old, new in extra]
    for name, tensor in net.constants.items():
        tensor.name = names[name]
