"""The gate, against a corpus of hostile graphs made by hand: each is refused, for exactly the right reason."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from onnx import AttributeProto, helper, numpy_helper

from atoll.errors import Refused
from atoll.graph.check import Limits, check_graph, check_job
from atoll.graph.shapes import Shaped, Walk
from atoll.graph.signatures import Signature, signature_of
from atoll.graph.zoo import load_zoo
from atoll.wire.reasons import Reason

from .hostile import CORPUS, EXPECTED, model
from .test_archive import job


def test_a_good_graph_and_what_it_costs() -> None:
    facts = check_graph(model().SerializeToString(), EXPECTED)
    assert facts.ops == {"MatMul": 1}
    assert facts.parameters == 12
    assert facts.flops == 2 * 8 * 4 * 3
    assert facts.memory_bytes == 4 * (8 * 4 + 4 * 3 + 8 * 3)


def test_shapes_that_are_computed_from_shapes_are_followed() -> None:
    body = """
        s = Shape<start = 0, end = 1>(x)  d = Concat<axis = 0>(s, three)
        z = Expand(zero, d)  p = MatMul(x, w)  scores = Add(p, z)
    """
    check_graph(model(body, constants="<int64[1] three = {3}, float zero = {0}>").SerializeToString(), EXPECTED)


def test_the_zoo_passes() -> None:
    one = job()
    facts = check_job(one.spec, one.step, one.evaluate, one.predict)
    assert facts["predict"].parameters == 7850
    assert set(facts) == {"step", "evaluate", "predict"}


def test_a_job_whose_graph_is_another_is_refused() -> None:
    one = job()
    with pytest.raises(Refused) as caught:
        check_job(one.spec, one.evaluate, one.evaluate, one.predict)
    assert caught.value.reason == Reason.WRONG_HASH


def test_cnn_flops_are_those_counted_by_hand() -> None:
    cnn = load_zoo("cnn")
    signature = signature_for("cnn")
    conv1 = 2 * 28 * 28 * 16 * 9
    conv2 = 2 * 14 * 14 * 32 * 16 * 9
    linear = 2 * 1568 * 10
    products = 32 * (2 * conv1 + 3 * conv2 + 3 * linear)  # the first layer needs no gradient of its input
    found = check_graph(cnn.step, signature).flops
    assert products < found < 1.1 * products


def signature_for(name: str) -> Signature:
    return signature_of(load_zoo(name).spec, "step")


@pytest.mark.parametrize("name", sorted(CORPUS))
def test_hostile(name: str) -> None:
    make, reason = CORPUS[name]
    made = make()
    data = made if isinstance(made, bytes) else made.SerializeToString()
    tracemalloc.start()
    with pytest.raises(Refused) as caught:
        check_graph(data, EXPECTED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert Reason(caught.value.reason) == reason, caught.value.detail
    assert peak < 64 << 20
    assert len(str(caught.value)) < 500


def test_limits_are_the_nodes_own() -> None:
    data = model().SerializeToString()
    for limits, reason in (
        (Limits(graph_bytes=10), Reason.GRAPH_TOO_LARGE),
        (Limits(tensor_elements=20), Reason.TENSOR_TOO_LARGE),
        (Limits(memory_bytes=200), Reason.TOO_MUCH_MEMORY),
        (Limits(flops=191), Reason.TOO_MUCH_COMPUTE),
    ):
        with pytest.raises(Refused) as caught:
            check_graph(data, EXPECTED, limits)
        assert Reason(caught.value.reason) == reason
    check_graph(data, EXPECTED, Limits(flops=192, memory_bytes=272, tensor_elements=24))


def test_every_truncation_and_many_flipped_bytes_are_refused_or_harmless() -> None:
    data = model("a = Softmax<axis = 1>(x) scores = MatMul(a, w)").SerializeToString()
    rng = np.random.default_rng(0)
    variants = [data[:length] for length in range(len(data))]
    for _ in range(500):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        variants.append(bytes(flipped))
    for variant in variants:
        try:
            facts = check_graph(variant, EXPECTED)
        except Refused:
            continue
        assert facts.flops < 1_000


def test_the_attribute_types_that_hold_graphs_are_those_of_onnx() -> None:
    kinds = {name for name, _ in AttributeProto.AttributeType.items() if "GRAPH" in name}
    assert kinds == {"GRAPH", "GRAPHS"}


def test_values_that_do_not_fit_the_inferred_shape_are_refused() -> None:
    """onnx infers [1] for an empty tensor reshaped to [1]; there is no such value."""
    walk = Walk(18, 1_000)
    for name, values in (("none", []), ("one", [1])):
        walk.constant(name, numpy_helper.from_array(np.array(values, np.int64), name))
    with pytest.raises(Refused) as caught:
        walk.step(helper.make_node("Reshape", ["none", "one"], ["out"]))
    assert caught.value.reason == Reason.BAD_SHAPE


@pytest.mark.parametrize("axis", [2**31, 3, -3, -(2**31)])
def test_an_axis_that_is_not_there_is_refused_before_onnx_sees_it(axis: int) -> None:
    """onnx reads beyond its memory for a LayerNormalization whose axis does not fit 32 bits."""
    walk = Walk(20, 1_000, {"x": Shaped(1, (4, 3)), "scale": Shaped(1, (3,))})
    node = helper.make_node("LayerNormalization", ["x", "scale"], ["y"], axis=axis)
    with pytest.raises(Refused) as caught:
        walk.step(node)
    assert caught.value.reason == Reason.BAD_ATTRIBUTE
    walk.step(helper.make_node("LayerNormalization", ["x", "scale"], ["y"], axis=-1))
    assert walk.shapes["y"] == Shaped(1, (4, 3))
