# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Pools and their gradients, against torch's own, ties included."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="decompositions are of torch's operators")

from torch.nn import functional

from atoll.errors import BadInput
from atoll.graph.tracing.decompose import pooling

# kernel, stride, padding, dilation, ceil_mode
MAXIMA = [
    ([2, 2], [], [0, 0], [1, 1], False),
    ([3, 2], [], [0, 0], [1, 1], False),
    ([3, 3], [2, 2], [1, 1], [1, 1], False),
    ([3, 3], [1, 1], [1, 1], [1, 1], False),
    ([3, 2], [2, 3], [1, 0], [2, 1], False),
    ([2, 2], [3, 3], [0, 0], [1, 1], False),
    ([3, 3], [2, 2], [0, 0], [1, 1], True),
    ([1, 4], [1, 2], [0, 1], [1, 1], False),
    ([5], [2], [2], [1], True),
]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("case", MAXIMA, ids=str)
def test_max_pool(case: tuple, ties: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 11)
    x = (x.round() if ties else x).requires_grad_()
    out, places = functional.max_pool2d(x, *case, return_indices=True)
    values, found = pooling.max_pool2d(x.detach(), *case)
    assert torch.equal(values, out)
    assert torch.equal(found, places)
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, grad)
    torch.testing.assert_close(pooling.max_pool2d_backward(grad, x.detach(), *case), expected)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil_mode"),
    [([2, 2], [2, 2], [0, 0], False), ([3, 2], [2, 1], [1, 1], False), ([3, 3], [2, 2], [1, 1], True)],
)
def test_average_pool(kernel: list[int], stride: list[int], padding: list[int], ceil_mode: bool, counted: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 11, requires_grad=True)
    for divisor in (None, 7):
        out = functional.avg_pool2d(x, kernel, stride, padding, ceil_mode, counted, divisor)
        grad = torch.randn_like(out)
        (expected,) = torch.autograd.grad(out, x, grad)
        found = pooling.avg_pool2d_backward(grad, x.detach(), kernel, stride, padding, ceil_mode, counted, divisor)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (5, 7), (12, 11), (12, 1)])
def test_adaptive_average(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 11, requires_grad=True)
    out = functional.adaptive_avg_pool2d(x, size)
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, grad)
    torch.testing.assert_close(pooling.adaptive_avg_pool2d(x.detach(), list(size)), out.detach())
    torch.testing.assert_close(pooling.adaptive_avg_pool2d_backward(grad, x.detach()), expected)


def test_adaptive_maximum() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 10, requires_grad=True)
    out = functional.adaptive_max_pool2d(x, (4, 5))
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, grad)
    values, places = pooling.adaptive_max_pool2d(x.detach(), [4, 5])
    assert torch.equal(values, out)
    assert torch.equal(pooling.adaptive_max_pool2d_backward(grad, x.detach(), places), expected)
    with pytest.raises(BadInput, match="uneven"):
        pooling.adaptive_max_pool2d(x.detach(), [5, 5])
