# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Slices, ranges, borders and choices by index, against torch's own."""

from __future__ import annotations

import sys

import pytest

torch = pytest.importorskip("torch", reason="decompositions are of torch's operators")

from torch.nn import functional

from atoll.errors import BadInput
from atoll.graph.tracing.decompose import borders, lookup, slicing

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("start", "end", "step"), [(0, sys.maxsize, 1), (2, 5, 1), (1, 7, 2), (0, 8, 3), (-3, sys.maxsize, 1), (4, 4, 1)]
)
def test_slices(start: int, end: int, step: int) -> None:
    x = torch.randn(3, 8, 2, requires_grad=True)
    out = x[:, start:end:step]
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, grad)
    assert torch.equal(slicing.slice_backward(grad, [3, 8, 2], 1, start, end, step), expected)
    changed = x.detach().clone()
    changed[:, start:end:step] = grad
    assert torch.equal(slicing.slice_scatter(x.detach(), grad, 1, start, end, step), changed)


@pytest.mark.parametrize("index", [0, 2, -1])
def test_selections(index: int) -> None:
    x, part = torch.randn(3, 4, 2), torch.randn(3, 2)
    changed = x.clone()
    changed[:, index] = part
    assert torch.equal(slicing.select_scatter(x, part, 1, index), changed)
    alone = torch.zeros(3, 4, 2)
    alone[:, index] = part
    assert torch.equal(slicing.select_backward(part, [3, 4, 2], 1, index), alone)


@pytest.mark.parametrize("arguments", [(5,), (2, 9), (1, 10, 3), (7, 0, -2), (0.0, 1.0, 0.25), (3, 3)])
def test_ranges(arguments: tuple[float, ...]) -> None:
    make = {1: slicing.arange, 2: slicing.arange_start, 3: slicing.arange_step}[len(arguments)]
    expected = torch.arange(*arguments)
    found = make(*arguments)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected)
    assert make(*arguments, dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize("sides", [(1, 2, 3, 1), (0, 2, 0, 0), (2, 0, 0, 3)])
@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_borders(mode: str, sides: tuple[int, ...]) -> None:
    pad, backward = {
        "reflect": (borders.reflection_pad, borders.reflection_pad_backward),
        "replicate": (borders.replication_pad, borders.replication_pad_backward),
    }[mode]
    x = torch.randn(2, 3, 6, 5, requires_grad=True)
    out = functional.pad(x, sides, mode=mode)
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, grad)
    assert torch.equal(pad(x.detach(), sides), out)
    torch.testing.assert_close(backward(grad, x.detach(), sides), expected)
    with pytest.raises(BadInput, match="negative"):
        pad(x.detach(), [-1, 1])


def test_enlarging() -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    out = functional.interpolate(x, size=(12, 5))
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, grad)
    assert torch.equal(borders.upsample_nearest(x.detach(), [12, 5]), out)
    torch.testing.assert_close(borders.upsample_nearest_backward(grad, [12, 5], [2, 3, 4, 5]), expected)
    with pytest.raises(BadInput, match="multiple of 4"):
        borders.upsample_nearest(x.detach(), [10, 5])


def test_choices_by_index() -> None:
    x = torch.randn(4, 5, 6)
    rows, columns = torch.tensor([[3], [-1], [3]]), torch.tensor([0, 2])
    given = [None, rows, columns]
    assert torch.equal(lookup.index(x, given), x[:, rows, columns])
    values = torch.randn(4, 3, 2)
    expected = x.clone()
    for i in range(3):
        for j in range(2):
            expected[:, rows[i, 0], columns[j]] += values[:, i, j]
    torch.testing.assert_close(lookup.index_put(x, given, values, True), expected)
    assert lookup.index(x, [torch.tensor([0, 1]), torch.tensor([2, 3])]) is NotImplemented
    assert lookup.index_put(x, [torch.tensor([0, 1])], x[:2], True) is NotImplemented  # ONNX has it


@pytest.mark.parametrize("padding", [-1, 2])
@pytest.mark.parametrize("by_frequency", [False, True])
def test_embedding(padding: int, by_frequency: bool) -> None:
    table = torch.randn(7, 3, requires_grad=True)
    places = torch.randint(0, 7, (4, 6))
    out = aten.embedding(table, places, padding, by_frequency)
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, table, grad)
    found = lookup.embedding_dense_backward(grad, places, 7, padding, by_frequency)
    torch.testing.assert_close(found, expected)
