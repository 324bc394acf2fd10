# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Gradients of convolutions, against torch's own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="decompositions are of torch's operators")

from atoll.graph.tracing.decompose.convolution import backward

# x, weight, stride, padding, dilation, groups
PLAIN = {
    "plain": ((3, 2, 11, 9), (4, 2, 3, 2), (1, 1), (1, 2), (1, 1), 1),
    "many channels": ((3, 16, 7, 9), (5, 16, 3, 2), (1, 1), (1, 0), (2, 1), 1),
    "strides": ((3, 2, 11, 9), (4, 2, 3, 2), (3, 2), (1, 1), (1, 1), 1),
    "strides, many channels": ((2, 9, 8, 8), (4, 9, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    "groups": ((3, 4, 8, 7), (6, 2, 3, 3), (1, 1), (1, 1), (1, 1), 2),
    "groups, many channels": ((2, 18, 6, 7), (4, 9, 3, 3), (1, 1), (1, 1), (1, 1), 2),
    "groups and strides": ((2, 4, 8, 7), (6, 2, 3, 3), (2, 3), (1, 0), (1, 1), 2),
    "depthwise": ((2, 5, 8, 7), (5, 1, 3, 3), (2, 1), (1, 1), (1, 2), 5),
    "depthwise, two each": ((2, 3, 8, 7), (6, 1, 3, 3), (1, 1), (1, 1), (1, 1), 3),
    "one cell": ((2, 4, 5, 5), (6, 4, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "one cell, strides": ((2, 4, 6, 5), (6, 2, 1, 1), (2, 2), (0, 0), (1, 1), 2),
    "signal": ((3, 8, 13), (4, 8, 4), (1,), (2,), (1,), 1),
    "volume": ((2, 2, 5, 4, 6), (3, 2, 2, 3, 2), (1, 2, 1), (0, 1, 1), (1, 1, 2), 1),
}
TRANSPOSED = {
    "plain": ((2, 4, 5, 6), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, (0, 0)),
    "strides": ((2, 4, 5, 6), (4, 3, 3, 4), (2, 3), (1, 0), (1, 1), 1, (1, 2)),
    "groups": ((2, 4, 5, 6), (4, 3, 3, 3), (2, 2), (1, 1), (1, 1), 2, (1, 1)),
    "depthwise": ((2, 4, 5, 6), (4, 1, 3, 3), (2, 2), (1, 1), (1, 1), 4, (1, 0)),
    "signal": ((2, 8, 7), (8, 9, 3), (1,), (0,), (2,), 1, (0,)),
}


def compare(case: tuple, transposed: bool) -> None:
    shape, weights, stride, padding, dilation, groups, *extra = case
    output_padding = list(extra[0]) if extra else [0] * len(stride)
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(weights, dtype=torch.float64, requires_grad=True)
    channels = weights[1] * groups if transposed else weights[0]
    bias = torch.randn(channels, dtype=torch.float64, requires_grad=True)
    settings = (list(stride), list(padding), list(dilation), transposed, output_padding, groups)
    out = torch.ops.aten.convolution(x, weight, bias, *settings)
    grad = torch.randn_like(out)
    expected = torch.autograd.grad(out, (x, weight, bias), grad)
    found = backward(grad, x.detach(), weight.detach(), [channels], *settings, [True] * 3)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", PLAIN)
def test_convolution(name: str) -> None:
    compare(PLAIN[name], transposed=False)


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolution(name: str) -> None:
    compare(TRANSPOSED[name], transposed=True)


def test_gradients_that_nobody_wants_are_not_computed() -> None:
    grad, x, weight = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 2, 2)
    found = backward(grad, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False] * 3)
    assert found == (None, None, None)
