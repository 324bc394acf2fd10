"""Rules that simplify a graph: the result has fewer or cheaper nodes and computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from atoll.graph.signatures import FLOAT, Signature
from atoll.graph.tracing.tidy import tidy

FOUR = np.arange(4, dtype=np.float32)


def simplified(inputs: str, body: str, outputs: str, constants: str = "") -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A graph as written and as tidied, under the same names."""
    constants = f"<{constants}>" if constants else ""
    model = parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 18]> g ({inputs}) => ({outputs}) {constants} {{ {body} }}'
    )
    ports = [
        tuple((value.name, value.type.tensor_type.elem_type, _shape(value)) for value in values)
        for values in (model.graph.input, model.graph.output)
    ]
    return model, onnx.load_from_string(tidy(model, Signature(ports[0], ports[1], batch=4, parameters=0)))


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)


def same(before: onnx.ModelProto, after: onnx.ModelProto) -> list[str]:
    """The operators of `after`, once it is clear that both compute the same on random inputs."""
    rng = np.random.default_rng(0)
    feed = {
        value.name: rng.normal(size=[3 if isinstance(length, str) else length for length in _shape(value)]).astype("f")
        for value in before.graph.input
        if value.type.tensor_type.elem_type == FLOAT
    }
    runs = [ReferenceEvaluator(model).run(None, feed) for model in (before, after)]
    for expected, found in zip(*runs, strict=True):
        assert expected.shape == found.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    return sorted(node.op_type for node in after.graph.node)


@pytest.mark.parametrize(
    ("inputs", "body", "outputs", "constants", "expected"),
    [
        (
            "float[n,2,3] x",
            "a = Transpose<perm=[0,2,1]>(x) b = Transpose<perm=[0,2,1]>(a) y = Neg(b)",
            "float[n,2,3] y",
            "",
            ["Neg"],
        ),
        (
            "float[n,2,3] x",
            "a = Transpose<perm=[1,2,0]>(x) y = Transpose<perm=[1,2,0]>(a)",
            "float[3,n,2] y",
            "",
            ["Transpose"],
        ),
        (
            "float[5,n] x, float[4,5] w",
            "a = Transpose<perm=[1,0]>(x) b = Transpose<perm=[1,0]>(w) y = MatMul(a, b)",
            "float[n,4] y",
            "",
            ["Gemm"],
        ),
        (
            "float[n,5] x, float[5,4] w, float[n,4] z",
            "a = Gemm<alpha = 0.5>(x, w) y = Add(z, a)",
            "float[n,4] y",
            "",
            ["Gemm"],
        ),
        ("float[n,5] x", "y = Pow(x, c)", "float[n,5] y", "float c = {2.0}", ["Mul"]),
        (
            "float[n,5] x",
            "a = Pow(x, c) y = ReduceSum<keepdims=0>(a, e)",
            "float y",
            "float c = {2.0}, int64[0] e = {}",
            ["ReduceSumSquare"],
        ),
        ("float[n,5] x", "a = Div(x, c) y = Mul(d, a)", "float[n,5] y", "float c = {4.0}, float d = {3.0}", ["Mul"]),
        (
            "float[n,5] x, float z",
            "a = Div(x, z) b = Add(x, z) c = Div(b, z) y = Sub(a, c)",
            "float[n,5] y",
            "",
            ["Add", "Mul", "Mul", "Reciprocal", "Sub"],
        ),
        (
            "float[n,6] x",
            "a = Reshape(x, s) b = Unsqueeze(a, u) y = Reshape(b, t)",
            "float[n,3,2] y",
            "int64[3] s = {-1, 2, 3}, int64[1] u = {1}, int64[3] t = {-1, 3, 2}",
            ["Reshape"],
        ),
        (
            "float[n,6] x",
            "a = ReduceSum<keepdims=1>(x, u) y = Reshape(a, s)",
            "float[6] y",
            "int64[1] u = {0}, int64[1] s = {6}",
            ["ReduceSum"],
        ),
        (
            "float[n,6] x, float[n,1] z",
            "s = Shape(x) a = Expand(z, s) y = Mul(x, a)",
            "float[n,6] y",
            "",
            ["Mul"],
        ),
        (
            "float[n,6] x, float[n,6] z",
            "a = Greater(x, z) b = Not(a) y = Where(b, x, z)",
            "float[n,6] y",
            "",
            ["Greater", "Where"],
        ),
        (
            "float[n,6] x",
            "y = Slice(x, s, e, a, d)",
            "float[n,2] y",
            "int64[1] s = {1}, int64[1] e = {3}, int64[1] a = {1}, int64[1] d = {1}",
            ["Slice"],
        ),
        (
            "float[n,6] x, float[n,6] z",
            "a = Mul(x, z) b = Mul(z, x) y = Sub(a, b)",
            "float[n,6] y",
            "",
            ["Mul", "Sub"],
        ),
    ],
)
def test_it_becomes_less_and_stays_the_same(
    inputs: str, body: str, outputs: str, constants: str, expected: list[str]
) -> None:
    assert same(*simplified(inputs, body, outputs, constants)) == expected


def test_what_many_products_share_is_transposed_once() -> None:
    body = "t = Transpose<perm=[1,0]>(w) a = MatMul(x, t) b = MatMul(a, t) c = MatMul(b, t) y = MatMul(c, t)"
    assert same(*simplified("float[n,5] x, float[5,5] w", body, "float[n,5] y")) == ["MatMul"] * 4 + ["Transpose"]


def test_a_quotient_by_zero_stays() -> None:
    _, after = simplified("float[n,5] x", "y = Div(x, c)", "float[n,5] y", "float c = {0.0}")
    assert [node.op_type for node in after.graph.node] == ["Div"]


def test_what_goes_without_saying_is_not_said() -> None:
    body = 'y = Conv<dilations = [1, 1], group = 1, auto_pad = "NOTSET", pads = [1, 1, 1, 1]>(x, w)'
    _, after = simplified("float[n,1,4,4] x, float[2,1,3,3] w", body, "float[n,2,4,4] y")
    kept = {item.name for item in after.graph.node[0].attribute}
    assert "pads" in kept and not kept & {"group", "auto_pad"}
