"""What the zoo's step graphs must be: small, without tables of indices, without duplicates, in canonical form."""

from __future__ import annotations

import onnx
import pytest

from atoll.graph.signatures import signature_of
from atoll.graph.tracing.tidy import tidy
from atoll.graph.zoo import NAMES, load_zoo

FIXED_BYTES, BYTES_PER_OP = 60_000, 200
LARGEST_CONSTANT = 1_024  # bytes: lists of axes and shapes, statistics of thirty columns


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small(name: str) -> None:
    data = load_zoo(name).step
    graph = onnx.load_from_string(data).graph
    assert len(data) <= FIXED_BYTES + BYTES_PER_OP * len(graph.node)
    assert max(len(tensor.raw_data) for tensor in graph.initializer) <= LARGEST_CONSTANT


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_computed_twice_and_nothing_for_nothing(name: str) -> None:
    graph = onnx.load_from_string(load_zoo(name).step).graph
    done = [(node.op_type, *node.input, *map(str, node.attribute)) for node in graph.node]
    assert len(set(done)) == len(done)
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    assert all(used.intersection(node.output) for node in graph.node)
    contents = [(tensor.data_type, *tensor.dims, tensor.raw_data) for tensor in graph.initializer]
    assert len(set(contents)) == len(contents)


@pytest.mark.parametrize("name", NAMES)
def test_there_is_nothing_left_to_tidy(name: str) -> None:
    job = load_zoo(name)
    for data, kind in ((job.step, "step"), (job.evaluate, "evaluate"), (job.predict, "predict")):
        assert tidy(onnx.load_from_string(data), signature_of(job.spec, kind)) == data
