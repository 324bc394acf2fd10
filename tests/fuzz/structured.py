"""Inputs that look right from afar, by hypothesis: graphs that mostly fit together, documents with wild values."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from atoll.errors import Refused
from atoll.graph.check import ALLOWED
from atoll.graph.shapes import Shaped, Walk

from .targets import BATCH, INPUTS, TARGETS, joined, seeds

INTS = (0, 1, 2, 3, 4, -1, -2, 5, 7, 63, 64, 1 << 16, (1 << 31) - 1, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63))
FLOATS = (0.0, 1.0, -1.0, 0.5, 1e-30, 3e38, -3e38)

small = st.one_of(st.integers(-2, 4), st.sampled_from(INTS))


def attribute(draw: Any, kind: int, name: str) -> onnx.AttributeProto | None:
    """A value for an attribute of the schema's kind."""
    match kind:
        case onnx.AttributeProto.INT:
            return helper.make_attribute(name, draw(small))
        case onnx.AttributeProto.INTS:
            return helper.make_attribute(name, draw(st.lists(small, min_size=1, max_size=5)))
        case onnx.AttributeProto.FLOAT:
            return helper.make_attribute(name, draw(st.sampled_from(FLOATS)))
        case onnx.AttributeProto.STRING:
            words = (
                "NOTSET",
                "VALID",
                "SAME_UPPER",
                "none",
                "add",
                "mul",
                "max",
                "constant",
                "reflect",
                "edge",
                "tanh",
            )
            return helper.make_attribute(name, draw(st.sampled_from(words)))
        case onnx.AttributeProto.TENSOR:
            return helper.make_attribute(
                name, numpy_helper.from_array(np.array([draw(st.integers(-3, 3))], np.float32))
            )
    return None


def node(draw: Any, opset: int, names: list[str], index: int) -> NodeProto:
    op = draw(st.sampled_from(sorted(name for name in ALLOWED if onnx.defs.has(name, opset, ""))))
    schema = onnx.defs.get_schema(op, opset, "")
    most = min(schema.max_input, schema.min_input + 2)
    count = draw(st.integers(schema.min_input, most))
    inputs = [draw(st.sampled_from(names)) for _ in range(count)]
    outputs = draw(st.integers(schema.min_output, min(schema.max_output, 3)))
    made = helper.make_node(op, inputs, [f"v{index}_{position}" for position in range(outputs)])
    for name, what in schema.attributes.items():
        if what.required or draw(st.booleans()):
            found = attribute(draw, what.type.value, name)
            if found is not None:
                made.attribute.append(found)
    return made


@st.composite
def graphs(draw: Any) -> bytes:
    """A graph with the inputs of `BUILT`; most nodes fit their inputs, so that later ones are reached."""
    opset = draw(st.integers(18, 20))
    walk = Walk(opset, 1 << 20)
    constants = []
    for name, element, shape in INPUTS:
        walk.shapes[name] = Shaped(element, tuple(BATCH if isinstance(length, str) else length for length in shape))
    for index in range(draw(st.integers(0, 4))):
        values = draw(st.one_of(small, st.lists(small, max_size=4)))
        constants.append(numpy_helper.from_array(np.array(values, np.int64), f"c{index}"))
        walk.constant(f"c{index}", constants[-1])
    nodes = []
    for index in range(draw(st.integers(1, 12))):
        made = node(draw, opset, sorted(walk.shapes), index)
        try:
            walk.step(made)
        except Refused:
            if draw(st.integers(0, 9)):
                continue
        nodes.append(made)
    last = nodes[-1].output[0] if nodes else "x"
    nodes += [
        helper.make_node("Cast", [last], ["last"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["last"], ["most"], keepdims=0),
        helper.make_node("Add", ["x", "most"], ["scores"]),
    ]
    made = GraphProto(name="g", node=nodes, initializer=constants)
    made.input.extend(helper.make_tensor_value_info(*port) for port in INPUTS)
    made.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("batch", 4)))
    model = ModelProto(ir_version=9, graph=made, opset_import=[helper.make_opsetid("", opset)])
    return bytes(model.SerializeToString())


WILD: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(INTS),
        st.sampled_from(["x", "next.w", "float32", "frozen", "a" * 64, "0x" + "1" * 64]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=6,
)  # fmt: skip


@st.composite
def documents(draw: Any, target: str) -> bytes:
    """A good document with some of its values replaced by wild ones, in canonical form."""
    plain = json.loads(seeds()[target][0])
    for _ in range(draw(st.integers(1, 3))):
        _replace(draw, plain)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=draw(st.booleans())).encode(
        errors="surrogatepass"
    )


def _replace(draw: Any, place: Any) -> None:
    while isinstance(place, (dict, list)) and place:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and draw(st.integers(0, 3)):
            place = inner
        else:
            place[key] = draw(WILD)
            return


@st.composite
def mutations(draw: Any, target: str) -> bytes:
    """A known input with bytes changed, cut out, doubled, or with numbers of two, four or eight bytes written over."""
    data = bytearray(draw(st.sampled_from(seeds()[target])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                data[at : at + 1] = draw(st.binary(max_size=2))
            case 1:
                del data[at : at + draw(st.integers(1, 64))]
            case 2:
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case 3:
                width = draw(st.sampled_from([2, 4, 8]))
                data[at : at + width] = (draw(st.sampled_from(INTS)) & (1 << 8 * width) - 1).to_bytes(width, "little")
            case 4:
                data[at:] = b""
    return bytes(data)


@st.composite
def headers(draw: Any) -> bytes:
    """A file of first values whose header is wild."""
    tensor = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL", "F64", "F8_E4M3", "X"]),
            "shape": st.lists(st.sampled_from([0, 1, 10, 784, *INTS]), max_size=3),
            "data_offsets": st.lists(st.sampled_from([0, 4, 40, 31360, 31400, *INTS]), min_size=2, max_size=2),
        }
    )
    names = st.one_of(st.sampled_from(["linear.weight", "linear.bias", "__metadata__"]), st.text(max_size=4))
    text = json.dumps(draw(st.dictionaries(names, st.one_of(tensor, WILD), max_size=3))).encode()
    return len(text).to_bytes(8, "little") + text + bytes(draw(st.sampled_from([0, 40, 31360, 31400])))


@st.composite
def archives(draw: Any) -> bytes:
    """Parts of a well-formed archive: documents and graphs that may not belong together."""
    good = seeds()
    spec = draw(st.one_of(documents("spec"), st.sampled_from(good["spec"])))
    graph = st.one_of(st.sampled_from(good["graph"]), graphs())
    return joined([spec, draw(graph), draw(graph), draw(graph), draw(st.sampled_from(good["params"]))])


def strategy(target: str) -> st.SearchStrategy[bytes]:
    """Inputs for a target."""
    special = {"built-graph": graphs(), "params": headers(), "job-parts": archives()}
    found = [mutations(target)] if seeds()[target] else []
    if target in special:
        found.append(special[target])
    if target in ("spec", "manifest", "card"):
        found.append(documents(target))
    return st.one_of(*found)


STRATEGIES = {name: strategy(name) for name in TARGETS}
