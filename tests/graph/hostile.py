"""Hostile graphs made by hand, each with the reason for which it must be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from atoll.graph.signatures import Signature
from atoll.wire.reasons import Reason

EXPECTED = Signature(
    inputs=(("x", TensorProto.FLOAT, ("batch", 4)), ("w", TensorProto.FLOAT, (4, 3))),
    outputs=(("scores", TensorProto.FLOAT, ("batch", 3)),),
    batch=8,
    parameters=12,
)
PORTS = "(float[batch,4] x, float[4,3] w) => (float[batch,3] scores)"
GOOD = "scores = MatMul(x, w)"


def model(body: str = GOOD, *, ports: str = PORTS, constants: str = "", opset: int = 18) -> ModelProto:
    text = f'<ir_version: 9, opset_import: ["" : {opset}]> g {ports} {constants} {{ {body} }}'
    return parser.parse_model(text)


def tensor(name: str, values: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


CORPUS: dict[str, tuple[Callable[[], ModelProto | bytes], Reason]] = {}


def hostile(reason: Reason) -> Callable[[Callable[[], ModelProto | bytes]], Callable[[], ModelProto | bytes]]:
    def add(function: Callable[[], ModelProto | bytes]) -> Callable[[], ModelProto | bytes]:
        CORPUS[function.__name__] = (function, reason)
        return function

    return add


def body(reason: Reason, name: str, text: str, **more: Any) -> None:
    CORPUS[name] = (lambda: model(text, **more), reason)


TO_SCORES = "p = MatMul(x, w) m = ReduceMax<keepdims = 0>(big) scores = Add(p, m)"
body(
    Reason.TENSOR_TOO_LARGE,
    "ten_gigabytes_by_constant_of_shape",
    f"big = ConstantOfShape(n) {TO_SCORES}",
    constants="<int64[2] n = {50000, 50000}>",
)
body(
    Reason.TENSOR_TOO_LARGE,
    "ten_gigabytes_by_expand",
    f"big = Expand(x, n) {TO_SCORES}",
    constants="<int64[4] n = {10000, 10000, 8, 4}>",
)
body(
    Reason.TENSOR_TOO_LARGE,
    "ten_gigabytes_by_tile",
    f"big = Tile(w, n) {TO_SCORES}",
    constants="<int64[2] n = {30000, 30000}>",
)
body(
    Reason.TENSOR_TOO_LARGE,
    "ten_gigabytes_by_pad",
    f"big = Pad(w, n) {TO_SCORES}",
    constants="<int64[4] n = {0, 0, 2000000000, 2}>",
)
body(
    Reason.TENSOR_TOO_LARGE,
    "ten_gigabytes_by_broadcast",
    f"a = Expand(one, n) b = Expand(one, l) big = Mul(a, b) {TO_SCORES}",
    constants="<float one = {1}, int64[2] n = {50000, 1}, int64[2] l = {1, 50000}>",
)
body(
    Reason.TENSOR_TOO_LARGE,
    "dimensions_that_overflow_64_bits",
    f"big = ConstantOfShape(n) {TO_SCORES}",
    constants="<int64[3] n = {4611686018427387904, 4611686018427387904, 16}>",
)
body(Reason.BAD_SHAPE, "negative_dimension", f"big = ConstantOfShape(n) {TO_SCORES}", constants="<int64[1] n = {-5}>")
body(
    Reason.BAD_SHAPE,
    "shape_from_data",
    f"i = Cast<to = 7>(x) f = Flatten<axis = 0>(i) n = Squeeze(f) big = ConstantOfShape(n) {TO_SCORES}",
)
body(Reason.BAD_SHAPE, "shapes_that_contradict", "scores = MatMul(w, x)")
body(Reason.BAD_SHAPE, "permutation_out_of_range", "t = Transpose<perm = [5, 7]>(x) scores = MatMul(t, w)")
body(
    Reason.BAD_SHAPE,
    "split_that_does_not_add_up",
    "a, b = Split<axis = 1>(x, n) scores = MatMul(x, w)",
    constants="<int64[2] n = {1, 1}>",
)
body(Reason.FORBIDDEN_OP, "randomness", "r = RandomNormalLike(x) scores = MatMul(r, w)")
body(Reason.FORBIDDEN_OP, "size_from_values", "i = NonZero(x) scores = MatMul(x, w)")
body(Reason.FORBIDDEN_OP, "operator_of_a_later_opset", "g = Gelu(x) scores = MatMul(g, w)")
body(Reason.FORBIDDEN_OP, "operator_that_does_not_exist", "g = RunShell(x) scores = MatMul(g, w)")
body(Reason.BAD_ATTRIBUTE, "attribute_that_does_not_exist", "s = Softmax<command = 1>(x) scores = MatMul(s, w)")
body(Reason.BAD_ATTRIBUTE, "attribute_that_is_huge", "s = Softmax<axis = 99999999999>(x) scores = MatMul(s, w)")
body(
    Reason.BAD_ATTRIBUTE,
    "attribute_that_is_long",
    f"t = Transpose<perm = [{', '.join(['0'] * 100)}]>(x) scores = MatMul(t, w)",
)
body(Reason.BAD_OPSET, "opset_too_old", GOOD, opset=9)
body(Reason.BAD_OPSET, "opset_too_new", GOOD, opset=99)
body(Reason.BAD_GRAPH, "types_that_do_not_match", "i = Cast<to = 7>(x) scores = MatMul(i, w)")
body(Reason.BAD_GRAPH, "name_made_twice", "a = Relu(x) a = Abs(x) scores = MatMul(a, w)")
body(Reason.BAD_GRAPH, "name_shadows_an_input", "x = Relu(w) scores = MatMul(x, w)")
body(Reason.BAD_GRAPH, "use_before_it_is_made", "b = Relu(a) a = Relu(x) scores = MatMul(b, w)")
body(Reason.BAD_GRAPH, "cycle", "a = Relu(b) b = Relu(a) scores = MatMul(x, w)")
body(Reason.BAD_GRAPH, "output_never_made", "other = MatMul(x, w)")
body(Reason.BAD_GRAPH, "too_many_inputs", "r = Relu(x, w) scores = MatMul(r, w)")
body(Reason.BAD_SIGNATURE_OF_GRAPH, "missing_output", GOOD, ports="(float[batch,4] x, float[4,3] w) => ()")
body(
    Reason.BAD_SIGNATURE_OF_GRAPH,
    "missing_input",
    "scores = MatMul(x, x)",
    ports="(float[batch,4] x) => (float[batch,3] scores)",
)
body(
    Reason.BAD_SIGNATURE_OF_GRAPH,
    "inputs_in_another_order",
    GOOD,
    ports="(float[4,3] w, float[batch,4] x) => (float[batch,3] scores)",
)
body(
    Reason.BAD_SIGNATURE_OF_GRAPH,
    "wrong_input_type",
    GOOD,
    ports="(double[batch,4] x, float[4,3] w) => (float[batch,3] scores)",
)
body(Reason.BAD_SIGNATURE_OF_GRAPH, "fixed_batch", GOOD, ports="(float[8,4] x, float[4,3] w) => (float[8,3] scores)")
body(Reason.BAD_SIGNATURE_OF_GRAPH, "output_that_lies_about_its_shape", "scores = Identity(x)")
body(Reason.BAD_SIGNATURE_OF_GRAPH, "output_that_lies_about_its_type", "p = MatMul(x, w) scores = Cast<to = 7>(p)")
body(
    Reason.BAD_SIGNATURE_OF_GRAPH,
    "batch_that_is_another_size",
    "scores = ConstantOfShape(n)",
    constants="<int64[2] n = {9, 3}>",
)
body(
    Reason.TOO_MUCH_MEMORY,
    "many_large_tensors",
    " ".join(
        [
            "a0 = Expand(x, n)",
            *(f"a{i + 1} = Exp(a{i})" for i in range(20)),
            "big = Sum0(a0)".replace("Sum0", "Abs"),
            *(f"b{i} = Add(a{i}, big)" for i in range(20)),
            "p = MatMul(x, w) m = ReduceMax<keepdims = 0>(b0) scores = Add(p, m)",
        ]
    ),
    constants="<int64[4] n = {1000, 1000, 8, 4}>",
)
body(
    Reason.TOO_MUCH_COMPUTE,
    "a_day_of_products",
    " ".join(
        [
            "v = ReduceMax(x) a0 = Expand(v, n)",
            *(f"a{i + 1} = MatMul(a{i}, a{i})" for i in range(200)),
            "p = MatMul(x, w) m = ReduceMax<keepdims = 0>(a200) scores = Add(p, m)",
        ]
    ),
    constants="<int64[2] n = {2000, 2000}>",
)


@hostile(Reason.GRAPH_TOO_LARGE)
def too_many_bytes() -> bytes:
    return bytes(2 << 20)


@hostile(Reason.GRAPH_TOO_LARGE)
def too_many_nodes() -> ModelProto:
    lines = [f"v{i} = Relu({f'v{i - 1}' if i else 'x'})" for i in range(5_000)]
    return model(" ".join([*lines, "scores = MatMul(v4999, w)"]))


@hostile(Reason.GRAPH_TOO_LARGE)
def no_nodes() -> ModelProto:
    graph = model()
    del graph.graph.node[:]
    return graph


@hostile(Reason.GRAPH_TOO_LARGE)
def too_many_constants() -> ModelProto:
    graph = model()
    graph.graph.initializer.extend([tensor(f"c{i}", np.zeros(20_000, np.float32)) for i in range(8)])
    return graph


@hostile(Reason.BAD_GRAPH)
def truncated() -> bytes:
    return model().SerializeToString()[:-7]


@hostile(Reason.BAD_GRAPH)
def not_a_protobuf() -> bytes:
    return b"import os\n" * 20


@hostile(Reason.BAD_GRAPH)
def deeply_nested_protobuf() -> bytes:
    inner = b""
    for _ in range(2_000):  # a graph in an attribute (6) of a node (5) of a graph (1)
        for tag in (0x32, 0x2A, 0x0A):
            inner = bytes([tag]) + varint(len(inner)) + inner
    return bytes([0x3A]) + varint(len(inner)) + inner


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@hostile(Reason.BAD_OPSET)
def empty() -> bytes:
    return b""


def with_subgraph(op: str, attribute: str) -> ModelProto:
    graph = model()
    node = helper.make_node(op, ["x"], ["loop"])
    node.attribute.append(helper.make_attribute(attribute, model().graph))
    graph.graph.node.insert(0, node)
    return graph


@hostile(Reason.NESTED_GRAPH)
def endless_loop() -> ModelProto:
    return with_subgraph("Loop", "body")


@hostile(Reason.NESTED_GRAPH)
def branch() -> ModelProto:
    return with_subgraph("If", "then_branch")


@hostile(Reason.NESTED_GRAPH)
def subgraph_in_an_allowed_operator() -> ModelProto:
    return with_subgraph("Relu", "body")


@hostile(Reason.NESTED_GRAPH)
def scan_without_a_graph() -> ModelProto:
    return model("a = Scan(x) scores = MatMul(a, w)")


@hostile(Reason.NESTED_GRAPH)
def local_function() -> ModelProto:
    graph = model()
    graph.functions.append(
        helper.make_function(
            "", "Mine", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 18)]
        )
    )
    return graph


@hostile(Reason.NESTED_GRAPH)
def graph_hidden_under_another_attribute_type() -> ModelProto:
    graph = model("s = Softmax<axis = 1>(x) scores = MatMul(s, w)")
    graph.graph.node[0].attribute[0].g.CopyFrom(model().graph)
    return graph


@hostile(Reason.BAD_ATTRIBUTE)
def attribute_twice() -> ModelProto:
    graph = model("s = Softmax<axis = 1>(x) scores = MatMul(s, w)")
    graph.graph.node[0].attribute.append(helper.make_attribute("axis", 0))
    return graph


@hostile(Reason.BAD_ATTRIBUTE)
def attribute_by_reference() -> ModelProto:
    graph = model("s = Softmax<axis = 1>(x) scores = MatMul(s, w)")
    graph.graph.node[0].attribute[0].ref_attr_name = "outer"
    return graph


@hostile(Reason.BAD_ATTRIBUTE)
def attribute_not_a_number() -> ModelProto:
    graph = model("s = LeakyRelu<alpha = 0.1>(x) scores = MatMul(s, w)")
    graph.graph.node[0].attribute[0].f = float("nan")
    return graph


@hostile(Reason.BAD_ATTRIBUTE)
def attribute_tensor_too_large() -> ModelProto:
    graph = model("scores = MatMul(x, w)")
    graph.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=tensor("", np.zeros(1_000, np.float32))))
    return graph


@hostile(Reason.CUSTOM_DOMAIN)
def custom_domain_imported() -> ModelProto:
    graph = model()
    graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return graph


@hostile(Reason.CUSTOM_DOMAIN)
def custom_domain_used() -> ModelProto:
    graph = model()
    graph.graph.node[0].domain = "com.microsoft"
    return graph


@hostile(Reason.CUSTOM_DOMAIN)
def python_operator() -> ModelProto:
    graph = model()
    graph.graph.node[0].op_type = "PyOp"
    graph.graph.node[0].domain = "ai.onnx.contrib"
    return graph


@hostile(Reason.BAD_OPSET)
def no_opset() -> ModelProto:
    graph = model()
    del graph.opset_import[:]
    return graph


@hostile(Reason.EXTERNAL_DATA)
def external_path() -> ModelProto:
    graph = model()
    outside = TensorProto(name="k", dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="../../etc/passwd")
    graph.graph.initializer.append(outside)
    return graph


@hostile(Reason.EXTERNAL_DATA)
def external_path_in_an_attribute() -> ModelProto:
    graph = model()
    outside = TensorProto(dims=[4], data_type=TensorProto.FLOAT)
    outside.external_data.add(key="location", value="/etc/passwd")
    graph.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=outside))
    return graph


@hostile(Reason.BAD_GRAPH)
def constant_without_its_data() -> ModelProto:
    graph = model()
    graph.graph.initializer.append(TensorProto(name="k", dims=[100_000, 100_000], data_type=TensorProto.FLOAT))
    return graph


@hostile(Reason.BAD_GRAPH)
def constant_longer_than_its_shape() -> ModelProto:
    graph = model()
    graph.graph.initializer.append(TensorProto(name="k", dims=[2], data_type=TensorProto.FLOAT, raw_data=bytes(800)))
    return graph


@hostile(Reason.BAD_GRAPH)
def constant_of_strings() -> ModelProto:
    graph = model()
    graph.graph.initializer.append(TensorProto(name="k", dims=[1], data_type=TensorProto.STRING, string_data=[b"a"]))
    return graph


@hostile(Reason.BAD_SHAPE)
def constant_of_negative_shape() -> ModelProto:
    graph = model()
    graph.graph.initializer.append(TensorProto(name="k", dims=[-1], data_type=TensorProto.FLOAT))
    return graph


@hostile(Reason.BAD_GRAPH)
def constant_that_overrides_an_input() -> ModelProto:
    graph = model()
    graph.graph.initializer.append(tensor("w", np.zeros((4, 3), np.float32)))
    return graph


@hostile(Reason.BAD_GRAPH)
def sparse_constant() -> ModelProto:
    graph = model()
    graph.graph.sparse_initializer.add(dims=[1 << 40])
    return graph


@hostile(Reason.BAD_GRAPH)
def declared_inner_shapes() -> ModelProto:
    graph = model("a = Relu(x) scores = MatMul(a, w)")
    graph.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [1]))
    return graph


@hostile(Reason.BAD_SIGNATURE_OF_GRAPH)
def input_that_is_a_sequence() -> ModelProto:
    graph = model()
    graph.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, ["batch", 4]))
    return graph
