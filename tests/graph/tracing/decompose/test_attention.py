# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Attention and normalisation, against torch's own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="decompositions are of torch's operators")

from torch.nn import functional

from atoll.graph.tracing.decompose import attention, normalisation


@pytest.mark.parametrize("kind", ["plain", "causal", "bool mask", "float mask", "scale"])
def test_attention(kind: str) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    key = torch.randn(2, 3, 7, 4, dtype=torch.float64, requires_grad=True)
    value = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    mask = {"bool mask": torch.ones(5, 7).tril(2).bool(), "float mask": torch.randn(5, 7).double()}.get(kind)
    options = {"attn_mask": mask, "scale": 0.3 if kind == "scale" else None}
    causal = kind == "causal"
    out = functional.scaled_dot_product_attention(query, key, value, is_causal=causal, **options)
    grad = torch.randn_like(out)
    expected = torch.autograd.grad(out, (query, key, value), grad)
    bare = [part.detach() for part in (query, key, value)]
    found, weights = attention.attention(*bare, 0.0, causal, **options)
    torch.testing.assert_close(found, out.detach())
    gradients = attention.attention_backward(grad, *bare, found, weights, 0.0, causal, **options)
    torch.testing.assert_close(gradients, expected)
    torch.testing.assert_close(attention.attention_math(*bare, mask, 0.0, causal, scale=options["scale"])[0], found)


def test_attention_with_shared_heads() -> None:
    query, key = torch.randn(2, 6, 5, 4), torch.randn(2, 3, 5, 4)
    expected = functional.scaled_dot_product_attention(query, key, key, enable_gqa=True)
    torch.testing.assert_close(attention.attention_math(query, key, key, enable_gqa=True)[0], expected)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training: bool) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(5, 3, 4) * 3 + 1, torch.randn(3), torch.randn(3)
    ours, theirs = ([torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 0.5])] for _ in range(2))
    expected = functional.batch_norm(x, *theirs, weight, bias, training, 0.1, 1e-5)
    found = normalisation.batch_norm(x, weight, bias, *ours, training, 0.1, 1e-5)[0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours, theirs)


def test_group_norm() -> None:
    x, weight, bias = torch.randn(5, 6, 4, 3) * 3 + 1, torch.randn(6), torch.randn(6)
    found = normalisation.group_norm(x, weight, bias, 5, 6, 12, 2, 1e-5)
    expected = torch.ops.aten.native_group_norm(x, weight, bias, 5, 6, 12, 2, 1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
