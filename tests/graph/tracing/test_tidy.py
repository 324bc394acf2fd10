"""Tidying a model: duplicates merged, leftovers gone, names short, results the same."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import parser

from atoll.graph.session import LocalEngine
from atoll.graph.signatures import Signature
from atoll.graph.tracing.tidy import tidy

PORTS = Signature(
    inputs=(("x", 1, ("batch", 2)), ("unused", 7, ())),
    outputs=(("scores", 1, ("batch", 2)), ("same", 1, ("batch", 2))),
    batch=4,
    parameters=0,
)
MESSY = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[N,2] in0, int64 in1) => (float[N,2] out0, float[N,2] out1)
<float two = {2}, float zwei = {2}, float nine = {9}> {
    a = Mul(in0, two)
    b = Mul(in0, zwei)
    dead = Mul(in0, nine)
    c = Identity(b)
    out0 = Add(a, c)
    out1 = Identity(out0)
}
"""


def messy() -> onnx.ModelProto:
    model = parser.parse_model(MESSY)
    model.producer_name = "some exporter"
    model.graph.doc_string = "/home/someone/model.py"
    for node in model.graph.node:
        node.metadata_props.add(key="stack", value="/home/someone/model.py")
    return model


def test_what_remains() -> None:
    data = tidy(messy(), PORTS)
    model = onnx.load_from_string(data)
    assert [node.op_type for node in model.graph.node] == ["Mul", "Add", "Identity"]
    assert [tensor.name for tensor in model.graph.initializer] == ["c0"]
    assert [value.name for value in model.graph.input] == ["x", "unused"]
    assert [value.name for value in model.graph.output] == ["scores", "same"]
    assert b"someone" not in data and b"exporter" not in data
    onnx.checker.check_model(model, full_check=True)


def test_the_result_is_the_same() -> None:
    x = np.array([[1, 2], [3, 4]], np.float32)
    data = tidy(messy(), PORTS)
    only_x = onnx.load_from_string(data)
    del only_x.graph.input[1]
    scores = LocalEngine().predict(bytes(only_x.SerializeToString()), {}, x, 2)
    assert scores.tolist() == [[4.0, 8.0], [12.0, 16.0]]


def test_the_same_model_gives_the_same_bytes() -> None:
    assert tidy(messy(), PORTS) == tidy(messy(), PORTS)
