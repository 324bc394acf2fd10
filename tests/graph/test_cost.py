"""Estimates of memory and compute: against what a run really takes, and against counts by hand."""

from __future__ import annotations

import json
import os
import resource
import sys

import numpy as np
import pytest

from atoll.graph.check import Limits, check_graph
from atoll.graph.session import open_session
from atoll.graph.signatures import FLOAT, Signature

from .graphs import graph

BATCH = 8
SLACK = 12 << 20  # bytes: what a session takes besides its values
LIMITS = Limits(memory_bytes=1 << 40, flops=1 << 60)

# Constants, the shape of x without the batch, and the operators that make o from x: each takes tens of megabytes.
GRAPHS: dict[str, tuple[str, tuple[int, ...], str]] = {
    "elementwise": ("", (1 << 20,), "a = Exp(x) b = Tanh(a) o = Mul(a, b)"),
    "gelu": ("", (1 << 20,), "a = Gelu(x) o = Mul(a, a)"),
    "softmax": ("", (1024, 512), "o = Softmax<axis = 1>(x)"),
    "softmax_of_rows": ("", (1024, 512), "o = Softmax<axis = 2>(x)"),
    "log_softmax": ("", (1024, 512), "o = LogSoftmax<axis = 1>(x)"),
    "pad": ("<int64[6] n = {0, 64, 64, 0, 64, 64}>", (512, 512), "o = Pad(x, n)"),
    "reflecting_pad": ("<int64[6] n = {0, 64, 64, 0, 64, 64}>", (512, 512), 'o = Pad<mode = "reflect">(x, n)'),
    "tile": ("<int64[3] n = {1, 3, 1}>", (512, 512), "o = Tile(x, n)"),
    "transpose": ("", (512, 1024), "a = Transpose<perm = [2, 0, 1]>(x) o = Relu(a)"),
    "mean_of_the_middle": ("<int64[1] n = {1}>", (1024, 512), "a = ReduceMean<keepdims = 1>(x, n) o = Sub(x, a)"),
    "mean_of_two": ("<int64[2] n = {0, 2}>", (1024, 512), "a = ReduceMean<keepdims = 1>(x, n) o = Sub(x, a)"),
    "norm_of_two": ("<int64[2] n = {0, 2}>", (1024, 512), "a = ReduceL2<keepdims = 1>(x, n) o = Sub(x, a)"),
    "greatest": ("", (1024, 512), "a = ArgMax<axis = 1>(x) o = Cast<to = 1>(a)"),
    "running_sum": ("<int64 n = {1}>", (1024, 512), "o = CumSum(x, n)"),
    "triangle": ("", (1024, 512), "o = Trilu(x)"),
    "choice": ("", (1 << 20,), "a = Greater(x, x) b = Abs(x) o = Where(a, x, b)"),
    "power": ("<float n = {3}>", (1 << 20,), "o = Pow(x, n)"),
    "split": ("", (1024, 512), "a, b = Split<axis = 1, num_outputs = 2>(x) o = Mul(a, b)"),
    "concatenation": ("", (1024, 512), "o = Concat<axis = 1>(x, x)"),
    "slices": (
        "<int64[1] s = {1}, int64[1] e = {900}, int64[1] n = {2}>", (1024, 512), "o = Slice(x, s, e, n)",
    ),
    "product": ("", (512, 512), "a = Transpose<perm = [0, 2, 1]>(x) o = MatMul(x, a)"),
    "rows": ("<int64[3] n = {0, 2, 1}>", (2048, 512), "a = Gather<axis = 2>(x, n) o = Exp(a)"),
    "elements": ("", (1024, 512), "i = Cast<to = 7>(x) d = Mul(i, z) o = GatherElements<axis = 1>(x, d)"),
    "scatter": ("", (1024, 512), "i = Cast<to = 7>(x) d = Mul(i, z) o = ScatterElements<axis = 1>(x, d, x)"),
    "scatter_sum": (
        "", (1024, 512), 'i = Cast<to = 7>(x) d = Mul(i, z) o = ScatterElements<axis = 1, reduction = "add">(x, d, x)',
    ),
    "layer_norm": ("", (1024, 512), "s = ReduceMax(x) e = Expand(s, row) o = LayerNormalization<axis = -1>(x, e)"),
    "convolution": ("", (16, 256, 256), "o = Conv<pads = [1, 1, 1, 1]>(x, k)"),
    "strides": ("", (16, 256, 256), "o = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, k)"),
    "dilations": ("", (16, 256, 256), "o = Conv<pads = [4, 4, 4, 4], dilations = [4, 4]>(x, k)"),
    "groups": ("", (16, 256, 256), "o = Conv<group = 4, pads = [1, 1, 1, 1]>(x, g)"),
    "depthwise": ("", (16, 256, 256), "o = Conv<group = 16, pads = [1, 1, 1, 1]>(x, deep)"),
    "transposed_convolution": ("", (16, 256, 256), "o = ConvTranspose<pads = [1, 1, 1, 1]>(x, k)"),
    "transposed_groups": ("", (16, 256, 256), "o = ConvTranspose<group = 4, strides = [2, 2]>(x, g)"),
    "pools": ("", (16, 256, 256), "a = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) o = Relu(a)"),
    "constants": ("", (64,), "c = ConstantOfShape(big) d = ConstantOfShape(big) a = ReduceMax<keepdims = 0>(c)"
                  " b = ReduceMax<keepdims = 0>(d) e = Add(x, a) o = Add(e, b)"),
}  # fmt: skip
# Constants that the graphs above may use.
KERNELS = {"k": (16, 16, 3, 3), "g": (16, 4, 3, 3), "deep": (16, 1, 3, 3)}


def built(name: str) -> tuple[bytes, tuple[int, ...]]:
    constants, shape, text = GRAPHS[name]
    made = constants.strip("<>")
    more = ["int64 z = {0}", "int64[1] row = {512}", "int64[2] big = {3000, 2000}"]
    kernels = [f"{key} = Expand(unit, shape_{key})" for key in KERNELS]
    more += ["float[1,1,1,1] unit = {0.5}"]
    more += [f"int64[4] shape_{key} = {{{', '.join(map(str, lengths))}}}" for key, lengths in KERNELS.items()]
    ports = f"(float[batch,{','.join(map(str, shape))}] x) => (float[batch] scores)"
    axes = ", ".join(str(axis + 1) for axis in range(len(shape)))
    more.append(f"int64[{len(shape)}] rest = {{{axes}}}")
    end = "m = ReduceMax<keepdims = 0>(o) l = ReduceMax<keepdims = 0>(x, rest) scores = Add(l, m)"
    every = ", ".join([part for part in (made, *more) if part])
    data = graph(f"{' '.join(kernels)} {text} {end}", f"<{every}>", ports, opset=20)
    return data, shape


def estimate(data: bytes, shape: tuple[int, ...]) -> int:
    expected = Signature((("x", FLOAT, ("batch", *shape)),), (("scores", FLOAT, ("batch",)),), BATCH, 0)
    return check_graph(data, expected, LIMITS).memory_bytes


def taken(data: bytes, shape: tuple[int, ...]) -> int:
    """Bytes by which a fork grows that makes the input, opens the graph and runs it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        x = np.random.default_rng(0).random((BATCH, *shape), np.float32)
        open_session(data, 1).run(None, {"x": x})
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(write, json.dumps(1024 * (after - before)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return int(json.loads(told))


@pytest.mark.skipif(sys.platform != "linux", reason="measures as Linux does")
@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_memory_is_never_more_than_twice_the_estimate(name: str) -> None:
    open_session(graph("scores = Relu(x)", ""), 1)  # what is loaded once is loaded here
    data, shape = built(name)
    guess, truth = estimate(data, shape), taken(data, shape)
    assert truth <= 2 * guess + SLACK
    assert guess <= 4 * truth + SLACK  # nor is what would fit turned away
