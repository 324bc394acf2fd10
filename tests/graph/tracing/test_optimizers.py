# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Optimizers and clipping, against torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="optimizers for tracing need the extra `torch`")

from atoll.errors import BadInput
from atoll.graph.tracing.optimizers import SGD, Adam, AdamW, Optimizer, clip

Theirs = Callable[[list[Any]], Any]
CASES: list[tuple[Optimizer, Theirs]] = [
    (SGD(0.3), lambda p: torch.optim.SGD(p, lr=0.3)),
    (SGD(0.3, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9)),
    (SGD(0.3, weight_decay=0.1), lambda p: torch.optim.SGD(p, lr=0.3, weight_decay=0.1)),
    (SGD(0.3, 0.5, 0.01, nesterov=True), lambda p: torch.optim.SGD(p, 0.3, 0.5, weight_decay=0.01, nesterov=True)),
    (Adam(0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    (Adam(0.01, (0.8, 0.95), 1e-3, 0.1), lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.95), 1e-3, 0.1)),
    (AdamW(3e-3), lambda p: torch.optim.AdamW(p, lr=3e-3)),
    (AdamW(3e-3, (0.5, 0.9), 1e-6, 0.3), lambda p: torch.optim.AdamW(p, 3e-3, (0.5, 0.9), 1e-6, 0.3)),
]


@pytest.mark.parametrize(("ours", "theirs"), CASES)
def test_thirty_steps_are_torchs(ours: Optimizer, theirs: Theirs) -> None:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(40))
    reference = theirs([parameter])
    value = parameter.detach().clone()
    state = tuple(torch.zeros(40) for _ in ours.state("w"))
    shared = tuple(torch.zeros(()) for _ in ours.shared)
    for _ in range(30):
        parameter.grad = torch.randn(40)
        shared = ours.advance(shared)
        value, state = ours.update(value, parameter.grad, state, shared, torch.tensor(ours.lr))
        reference.step()
    assert float((value - parameter.detach()).norm() / parameter.detach().norm()) <= 1e-6


def test_states_have_names() -> None:
    assert SGD(0.1).state("w") == SGD(0.1).shared == ()
    assert SGD(0.1, 0.9).state("w") == ("momentum.w",)
    assert Adam(0.1).state("w") == ("moment1.w", "moment2.w")
    assert AdamW().shared == ("adam.correction1", "adam.correction2")


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_clip_is_torchs(scale: float) -> None:
    torch.manual_seed(0)
    gradients = {"a": scale * torch.randn(3, 4), "b": scale * torch.randn(7)}
    holders = [torch.nn.Parameter(torch.zeros_like(value)) for value in gradients.values()]
    for holder, value in zip(holders, gradients.values(), strict=True):
        holder.grad = value.clone()
    torch.nn.utils.clip_grad_norm_(holders, 1.0)
    for holder, value in zip(holders, clip(gradients, 1.0).values(), strict=True):
        torch.testing.assert_close(holder.grad, value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(0.1, momentum=1.0),
        lambda: SGD(0.1, momentum=-0.1),
        lambda: SGD(0.1, weight_decay=-1.0),
        lambda: SGD(0.0),
        lambda: SGD(0.1, nesterov=True),
        lambda: Adam(0.1, betas=(0.9, 1.0)),
        lambda: AdamW(0.1, eps=0.0),
        lambda: AdamW(float("nan")),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(BadInput):
        make()
