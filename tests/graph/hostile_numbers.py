"""Hostile graphs whose poison is a number: attributes, sizes that follow from them, sizes that depend on values."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from atoll.wire.reasons import Reason

from .hostile import TO_SCORES, body, hostile, model, tensor

# A picture beside the matrix, for operators that slide windows.
IMAGE = "i = Reshape(x, image)"
IMAGE_SHAPE = "<int64[4] image = {2, 4, 2, 2}, float[4,4,1,1] k = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}>"
END = "m = ReduceMax<keepdims = 0>(o) p = MatMul(x, w) scores = Add(p, m)"
HUGE = 2_000_000_000


def window(reason: Reason, name: str, text: str) -> None:
    body(reason, name, f"{IMAGE} o = {text} {END}", constants=IMAGE_SHAPE)


# Operators whose work or whose result's size depends on values, or that read from somewhere else.
_WORDS = {
    "resize": "Resize(x, none, ten)",
    "range_of_values": "Range(ten, ten, ten)",
    "one_hot": "OneHot(ten, ten, ten)",
    "top_values": "TopK(x, ten)",
    "unique_values": "Unique(x)",
    "compress": "Compress(x, ten)",
    "bernoulli": "Bernoulli(x)",
    "multinomial": "Multinomial(x)",
    "random_uniform": "RandomUniform<shape = [100000, 100000]>()",
    "dropout_of_the_runtime": "Dropout(x)",
    "fourier": "DFT(x)",
    "einstein": 'Einsum<equation = "ij->i">(x)',
    "non_max_suppression": "NonMaxSuppression(x, x)",
    "sequence": "SequenceConstruct(x)",
    "optional": "Optional(x)",
    "strings": "StringNormalizer(x)",
    "reverse_sequence": "ReverseSequence(x, ten)",
    "quantised": "DynamicQuantizeLinear(x)",
}
for _name, _text in _WORDS.items():
    body(Reason.FORBIDDEN_OP, _name, f"o = {_text} scores = MatMul(x, w)", constants="<float[1] ten = {10}>")

for _name, _op in {
    "tile_by_values": "Tile(x, n)",
    "pad_by_values": "Pad(x, n4)",
    "expand_by_values": "Expand(v1, n)",
    "reshape_by_values": "Reshape(x, n)",
    "slice_by_values": "Slice(x, one, n1)",
    "split_by_values": "Split(x, n)",
}.items():
    _values = (
        "v = Cast<to = 7>(x) f = Flatten<axis = 0>(v) s = Slice(f, zero, two, one) n = Squeeze(s, zero)"
        " n4 = Concat<axis = 0>(n, n) n1 = Slice(n, zero, one) v1 = Slice(n, zero, one)"
    )
    body(
        Reason.BAD_SHAPE,
        _name,
        f"{_values} o = {_op} {END}",
        constants="<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}>",
    )

window(Reason.BAD_ATTRIBUTE, "strides_of_zero", "MaxPool<kernel_shape = [1, 1], strides = [0, 0]>(i)")
window(Reason.BAD_ATTRIBUTE, "negative_strides", "AveragePool<kernel_shape = [1, 1], strides = [-1, -1]>(i)")
window(Reason.BAD_ATTRIBUTE, "dilations_of_zero", "Conv<dilations = [0, 0]>(i, k)")
window(Reason.BAD_ATTRIBUTE, "negative_pads", "Conv<pads = [-1, -1, -1, -1]>(i, k)")
window(Reason.BAD_ATTRIBUTE, "kernel_of_zero", "MaxPool<kernel_shape = [0, 0]>(i)")
window(Reason.BAD_ATTRIBUTE, "negative_kernel", "MaxPool<kernel_shape = [-5, 1]>(i)")
window(Reason.BAD_ATTRIBUTE, "no_groups", "Conv<group = 0>(i, k)")
window(Reason.BAD_ATTRIBUTE, "negative_groups", "Conv<group = -4>(i, k)")
window(Reason.BAD_ATTRIBUTE, "too_many_groups", f"Conv<group = {HUGE}>(i, k)")
window(Reason.BAD_ATTRIBUTE, "transposed_strides_of_zero", "ConvTranspose<strides = [0, 0]>(i, k)")
window(Reason.BAD_ATTRIBUTE, "negative_output_padding", "ConvTranspose<output_padding = [-3, -3]>(i, k)")
window(Reason.BAD_ATTRIBUTE, "pads_as_large_as_memory", f"Conv<pads = [{HUGE}, {HUGE}, {HUGE}, {HUGE}]>(i, k)")
window(Reason.BAD_ATTRIBUTE, "output_shape_on_order", f"ConvTranspose<output_shape = [{HUGE}, {HUGE}]>(i, k)")
window(Reason.BAD_ATTRIBUTE, "kernel_as_large_as_memory", f"MaxPool<kernel_shape = [{HUGE}, {HUGE}]>(i)")
window(Reason.BAD_ATTRIBUTE, "one_length_too_many", "MaxPool<kernel_shape = [1, 1, 1]>(i)")
window(Reason.BAD_ATTRIBUTE, "pads_of_an_odd_number", "MaxPool<kernel_shape = [1, 1], pads = [1, 1, 1]>(i)")
window(Reason.BAD_ATTRIBUTE, "padding_by_an_unknown_rule", 'MaxPool<kernel_shape = [1, 1], auto_pad = "EVERY">(i)')
window(Reason.TENSOR_TOO_LARGE, "transposed_strides_of_ten_thousand",
       "ConvTranspose<strides = [10000, 10000]>(i, k)")  # fmt: skip
window(Reason.BAD_SHAPE, "a_kernel_larger_than_its_image", "MaxPool<kernel_shape = [9, 9]>(i)")
window(
    Reason.TOO_MUCH_COMPUTE,
    "windows_of_a_billion",
    "MaxPool<kernel_shape = [30000, 30000], pads = [29999, 29999, 29999, 29999], strides = [100, 100]>(i)",
)

body(Reason.BAD_ATTRIBUTE, "split_into_none", "o = Split<axis = 1, num_outputs = 0>(x) scores = MatMul(x, w)")
body(
    Reason.BAD_ATTRIBUTE, "split_into_a_billion", f"o = Split<axis = 1, num_outputs = {HUGE}>(x) scores = MatMul(x, w)"
)
body(
    Reason.BAD_ATTRIBUTE,
    "yes_or_no_that_is_neither",  # ONNX says that nothing is reduced, ONNX Runtime reduces everything
    f"big = ReduceL2<noop_with_empty_axes = -1>(x) {TO_SCORES}",
)
body(
    Reason.BAD_SHAPE,
    "the_greatest_of_nothing",  # foretold as one, found to be none: the size that follows would be 0 or 10^9
    "e = ConstantOfShape(none) a = ArgMax<axis = 0>(e) s = Shape(a) d = Sub(one, s) m = Mul(d, billion)"
    " big = ConstantOfShape(m) p = MatMul(x, w) r = ReduceMax<keepdims = 0>(big) scores = Add(p, r)",
    constants="<int64[1] none = {0}, int64[1] one = {1}, int64[1] billion = {1000000000}>",
)
body(
    Reason.BAD_SHAPE,
    "division_by_zero_in_a_shape",
    f"s = Shape(x) d = Div(s, n) big = ConstantOfShape(d) {TO_SCORES}",
    constants="<int64[2] n = {0, 0}>",
)
body(
    Reason.TENSOR_TOO_LARGE,
    "shape_arithmetic_that_wraps_around",
    f"a = Mul(n, n) b = Mul(a, n) c = Add(b, b) big = ConstantOfShape(c) {TO_SCORES}",
    constants="<int64[1] n = {3037000500}>",
)
body(
    Reason.BAD_SHAPE,
    "least_integer_divided_by_minus_one",
    f"a = Div(n, l) big = ConstantOfShape(a) {TO_SCORES}",
    constants="<int64[1] n = {-9223372036854775808}, int64[1] l = {-1}>",
)
body(
    Reason.TENSOR_TOO_LARGE,
    "emptiness_that_hides_a_huge_dimension",
    f"big = ConstantOfShape(n) {TO_SCORES}",
    constants="<int64[3] n = {0, 100000, 100000}>",
)
body(
    Reason.BAD_SHAPE,
    "a_thousand_dimensions",
    f"big = ConstantOfShape(n) {TO_SCORES}",
    constants=f"<int64[60] n = {{{', '.join(['1'] * 60)}}}>",
)
body(
    Reason.BAD_SHAPE,
    "a_rank_that_doubles",
    " ".join(
        [
            "a0 = Unsqueeze(x, n)",
            *(f"a{i + 1} = Unsqueeze(a{i}, n)" for i in range(12)),
            f"big = Identity(a12) {TO_SCORES}",
        ]
    ),
    constants="<int64[4] n = {0, 1, 2, 3}>",
)
body(
    Reason.TENSOR_TOO_LARGE,
    "doubling_by_concatenation",
    " ".join(["a0 = Identity(x)", *(f"a{i + 1} = Concat<axis = 0>(a{i}, a{i})" for i in range(40)),
              f"big = Identity(a40) {TO_SCORES}"]),
)  # fmt: skip
body(
    Reason.TENSOR_TOO_LARGE,
    "products_that_grow",
    f"a = Expand(x, n) t = Transpose<perm = [1, 0]>(a2) big = MatMul(t, a2) {TO_SCORES}".replace(
        "t =", "a2 = Reshape(a, flat) t ="
    ),
    constants="<int64[3] n = {2500, 8, 4}, int64[2] flat = {1, 80000}>",
)
body(
    Reason.TOO_MUCH_MEMORY,
    "constants_that_stay",
    " ".join(
        [
            *(f"c{i} = ConstantOfShape(n) r{i} = ReduceMax<keepdims = 0>(c{i})" for i in range(12)),
            "big = Max(" + ", ".join(f"r{i}" for i in range(12)) + ")",
            TO_SCORES,
        ]
    ),
    constants="<int64[2] n = {6000, 5000}>",
)
body(
    Reason.TOO_MUCH_COMPUTE,
    "a_convolution_of_everything_with_everything",
    f"i = Expand(v, n) k = Expand(v, l) o = Conv(i, k) {END}",
    constants="<float[1,1,1,1] v = {1}, int64[4] n = {8, 1024, 64, 64}, int64[4] l = {1024, 1024, 5, 5}>",
)
body(
    Reason.TOO_MUCH_COMPUTE,
    "a_million_elements_four_thousand_times",
    " ".join(
        [
            "a0 = Expand(x, n)",
            *(f"a{i + 1} = Pow(a{i}, two)" for i in range(2_000)),
            "m = ReduceMax<keepdims = 0>(a2000) p = MatMul(x, w) scores = Add(p, m)",
        ]
    ),
    constants="<float two = {2}, int64[3] n = {1000000, 8, 4}>",
)


@hostile(Reason.BAD_GRAPH)
def name_with_control_characters() -> ModelProto:
    graph = model("a = Relu(x) scores = MatMul(a, w)")
    graph.graph.node[0].output[0] = graph.graph.node[1].input[0] = "\x1b[2J\x1b]0;owned\x07"
    return graph


@hostile(Reason.BAD_GRAPH)
def name_that_is_written_backwards() -> ModelProto:
    graph = model("a = Relu(x) scores = MatMul(a, w)")
    graph.graph.node[0].output[0] = graph.graph.node[1].input[0] = "\u202egpj.exe"
    return graph


@hostile(Reason.FORBIDDEN_OP)
def operator_with_control_characters() -> ModelProto:
    graph = model("a = Relu(x) scores = MatMul(a, w)")
    graph.graph.node[0].op_type = "\x1b]8;;http://x\x1b\\Relu"
    return graph


@hostile(Reason.BAD_ATTRIBUTE)
def attribute_of_four_billion_integers() -> bytes:
    graph = model("t = Transpose<perm = [1, 0]>(x) scores = MatMul(x, w)")
    graph.graph.node[0].attribute[0].ints.extend([1] * 500_000)
    return bytes(graph.SerializeToString())


@hostile(Reason.BAD_ATTRIBUTE)
def attribute_beyond_every_integer() -> ModelProto:
    graph = model("t = Transpose<perm = [1, 0]>(x) scores = MatMul(x, w)")
    graph.graph.node[0].attribute[0].ints[:] = [-(2**63), 2**63 - 1]
    return graph


@hostile(Reason.BAD_ATTRIBUTE)
def attribute_of_another_type() -> ModelProto:
    graph = model("s = Softmax(x) scores = MatMul(s, w)")
    graph.graph.node[0].attribute.append(helper.make_attribute("axis", "one"))
    return graph


@hostile(Reason.BAD_ATTRIBUTE)
def attribute_of_an_endless_number() -> ModelProto:
    graph = model("s = LeakyRelu<alpha = 0.1>(x) scores = MatMul(s, w)")
    graph.graph.node[0].attribute[0].f = float("inf")
    return graph


@hostile(Reason.BAD_GRAPH)
def constant_of_an_unknown_type() -> ModelProto:
    graph = model()
    graph.graph.initializer.append(
        TensorProto(name="k", dims=[1], data_type=TensorProto.COMPLEX128, raw_data=bytes(16))
    )
    return graph


@hostile(Reason.BAD_SHAPE)
def constant_whose_dimensions_overflow() -> ModelProto:
    graph = model()
    dims = [1 << 62, 1 << 62, 0]
    graph.graph.initializer.append(TensorProto(name="k", dims=dims, data_type=TensorProto.FLOAT))
    return graph


@hostile(Reason.BAD_GRAPH)
def constant_in_the_wrong_field() -> ModelProto:
    graph = model()
    graph.graph.initializer.append(TensorProto(name="k", dims=[4], data_type=TensorProto.FLOAT, int64_data=[1] * 4))
    return graph


@hostile(Reason.GRAPH_TOO_LARGE)
def constant_that_nobody_uses() -> ModelProto:
    graph = model()
    graph.graph.initializer.append(tensor("unused", np.zeros(200_000, np.float32)))
    return graph


@hostile(Reason.GRAPH_TOO_LARGE)
def a_hundred_thousand_constants() -> ModelProto:
    graph = model()
    graph.graph.initializer.extend([TensorProto(name=f"k{i}", dims=[0], data_type=1) for i in range(50_000)])
    return graph


@hostile(Reason.BAD_SIGNATURE_OF_GRAPH)
def input_of_a_negative_dimension() -> ModelProto:
    graph = model()
    graph.graph.input[1].type.tensor_type.shape.dim[0].dim_value = -4
    return graph


@hostile(Reason.BAD_SIGNATURE_OF_GRAPH)
def input_that_is_a_sparse_tensor() -> ModelProto:
    graph = model()
    graph.graph.input[0].type.sparse_tensor_type.elem_type = TensorProto.FLOAT
    return graph


@hostile(Reason.GRAPH_TOO_LARGE)
def a_thousand_inputs_for_each_of_four_thousand_nodes() -> ModelProto:
    graph = model()
    graph.graph.node.extend(helper.make_node("Max", ["x"] * 256, [f"a{i}"]) for i in range(4_000))
    return graph
