"""The browser's gate: the zoo passes, the hostile corpus is refused as natively, and what is left is listed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from onnx import ModelProto, TensorProto, defs, helper

from atoll.graph.check import ALLOWED, CONTROL_FLOW, OPSETS, Limits
from atoll.graph.spec import Input, JobSpec, Output, Tensor
from atoll.graph.zoo import NAMES, load_zoo
from atoll.wire.hashing import blob_id
from tests.graph import hostile, hostile_numbers  # noqa: F401 - the second adds to the first's corpus

from .modules import Modules, NotTaken

SPEC = msgspec.structs.replace(
    load_zoo("mlp").spec,
    tensors=(Tensor(name="w", shape=(4, 3), role="parameter"),),
    input=Input(shape=(4,), dtype="float32"),
    output=Output(shape=(3,), meaning="values"),
)
"""A job whose predict graph has the ports of the hostile corpus."""

# Found only by working out shapes, or what follows from them: left to native nodes.
_LEFT = """
    a_convolution_of_everything_with_everything a_day_of_products a_kernel_larger_than_its_image
    a_million_elements_four_thousand_times a_rank_that_doubles a_thousand_dimensions
    batch_that_is_another_size constant_in_the_wrong_field constants_that_stay
    dimensions_that_overflow_64_bits division_by_zero_in_a_shape doubling_by_concatenation
    emptiness_that_hides_a_huge_dimension expand_by_values least_integer_divided_by_minus_one
    many_large_tensors negative_dimension one_length_too_many output_that_lies_about_its_shape
    output_that_lies_about_its_type pad_by_values pads_of_an_odd_number permutation_out_of_range
    products_that_grow reshape_by_values shape_arithmetic_that_wraps_around shape_from_data
    shapes_that_contradict slice_by_values split_by_values split_into_a_billion split_into_none
    split_that_does_not_add_up ten_gigabytes_by_broadcast ten_gigabytes_by_constant_of_shape
    ten_gigabytes_by_expand ten_gigabytes_by_pad ten_gigabytes_by_tile the_greatest_of_nothing tile_by_values
    transposed_strides_of_ten_thousand types_that_do_not_match windows_of_a_billion
"""
LEFT_TO_NODES = frozenset(_LEFT.split())


def reason(modules: Modules, graph: bytes, spec: JobSpec = SPEC, kind: str = "predict") -> str:
    try:
        modules.call("gate.check", graph, spec.to_bytes(), kind)
    except NotTaken as error:
        return error.reason
    return "OK"


@pytest.mark.parametrize("name", NAMES)
def test_the_zoo_passes(name: str, modules: Modules) -> None:
    job = load_zoo(name)
    for kind, graph in (("step", job.step), ("evaluate", job.evaluate), ("predict", job.predict)):
        found = modules.call("gate.check", graph, job.spec.to_bytes(), kind)
        model = ModelProto.FromString(graph)
        assert found["nodes"] == len(model.graph.node) == sum(found["ops"].values())
    assert reason(modules, job.step, job.spec, "predict") == "BAD_SIGNATURE_OF_GRAPH"


def test_what_is_good_passes(modules: Modules) -> None:
    assert reason(modules, hostile.model().SerializeToString()) == "OK"


@pytest.mark.parametrize("name", sorted(hostile.CORPUS))
def test_hostile_graphs(name: str, modules: Modules) -> None:
    make, expected = hostile.CORPUS[name]
    made = make()
    found = reason(modules, made if isinstance(made, bytes) else made.SerializeToString())
    # A strict reader of protobuf, or the order of checks, may find something else wrong first.
    assert found in (("OK",) if name in LEFT_TO_NODES else (expected.name, "BAD_GRAPH", "BAD_OPSET")), expected


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def test_bytes_that_two_readers_could_take_differently_are_refused(modules: Modules) -> None:
    """A second graph (protobuf merges the two), unknown fields, other wire types, what ends too early."""
    good = hostile.model().SerializeToString()
    graph = hostile.model().graph.SerializeToString()
    again = good + b"\x3a" + varint(len(graph)) + graph
    odd = [
        again,
        good + b"\x08\x09",
        good + b"\xfa\x07\x01x",
        good + b"\x0a\x01x",
        good[:-1],
        good + b"\x3a",
        b"\xff" * 11,
        good + b"\x3b",
        good + b"\x08" + b"\x80" * 10 + b"\x01",
        b"\x3a\xff\xff\xff\xff\x0f",
    ]
    for each in odd:
        assert reason(modules, each) == "BAD_GRAPH"


def test_sizes_are_bounded(modules: Modules) -> None:
    assert reason(modules, bytes((1 << 20) + 1)) == "GRAPH_TOO_LARGE"
    large = hostile.model()
    values = bytes(4 * 140_000)
    large.graph.initializer.append(helper.make_tensor("c", TensorProto.FLOAT, [140_000], values, raw=True))
    assert reason(modules, large.SerializeToString()) == "GRAPH_TOO_LARGE"


FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}


@pytest.mark.parametrize("opset", OPSETS)
def test_operators_are_those_of_a_node_and_of_onnx(opset: int, modules: Modules) -> None:
    table = modules.call("gate.OPERATORS")
    assert set(table) == ALLOWED
    for name, known in table.items():
        assert (known["since"] <= opset) == defs.has(name, opset, "")
        if known["since"] > opset:
            continue
        schema = defs.get_schema(name, opset, "")
        assert known["inputs"] == [schema.min_input, min(schema.max_input, 1024)]
        assert known["outputs"] == [schema.min_output, min(schema.max_output, 1024)]
        expected = {key: FIELDS.get(each.type.value) for key, each in schema.attributes.items()}
        found = {key: each["field"] for key, each in known["attributes"].items() if each["since"] <= opset}
        assert found == {key: field for key, field in expected.items() if field}


def test_limits_are_those_of_a_node() -> None:
    source = (Path(__file__).parents[2] / "src/atoll/gateway/static/atoll/gate.js").read_text("utf-8")
    assert all(f'"{name}"' in source for name in CONTROL_FLOW)
    assert (Limits().graph_bytes, Limits().nodes, Limits().constant_bytes) == (1 << 20, 4096, 1 << 19)
    assert "graphBytes: 1 << 20, nodes: 4096, constantBytes: 1 << 19" in source


def test_a_graph_is_named_by_its_hash(modules: Modules) -> None:
    job = load_zoo("softmax")
    assert modules.call("hashing.blobId", job.step) == blob_id(job.step)
    assert blob_id(job.step).hex() == job.spec.step
