# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Our gradient decompositions, against torch's own backward operators."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="decompositions are of torch's operators")

from torch.nn import functional

from atoll.graph.tracing.decompose import convolution_backward, max_pool2d_backward


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 2)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_convolution(stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2, 11, 9, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    out = functional.conv2d(x, weight, bias, stride, padding, dilation)
    grad = torch.randn_like(out)
    expected = torch.autograd.grad(out, (x, weight, bias), grad)
    shape = (list(stride), list(padding), list(dilation))
    found = convolution_backward(grad, x.detach(), weight.detach(), [4], *shape, False, [0, 0], 1, [True, True, True])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_that_nobody_wants_are_not_computed() -> None:
    grad, x, weight = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 2, 2)
    found = convolution_backward(grad, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False] * 3)
    assert found == (None, None, None)


@pytest.mark.parametrize("kernel", [[2, 2], [3, 3], [2, 3], [1, 2]])
def test_max_pool(kernel: list[int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 12, requires_grad=True)
    out = functional.max_pool2d(x, kernel)
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, grad)
    found = max_pool2d_backward(grad, x.detach(), kernel, [], [0, 0], [1, 1], False, torch.empty(0))
    assert torch.equal(found, expected)


def test_a_constant_window_gives_its_gradient_to_one_cell() -> None:
    found = max_pool2d_backward(
        torch.ones(1, 1, 1, 1), torch.ones(1, 1, 2, 2), [2, 2], [2, 2], [0, 0], [1, 1], False, torch.empty(0)
    )
    assert found.tolist() == [[[[1.0, 0.0], [0.0, 0.0]]]]
