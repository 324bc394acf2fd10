# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Optimizers and clipping, against torch's own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="optimizers for tracing need the extra `torch`")

from atoll.errors import BadInput
from atoll.graph.tracing.optimizers import SGD, clip


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.5, 0.01)])
def test_sgd_is_torchs(momentum: float, decay: float) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Parameter(torch.randn(5))
    ours, velocity = theirs.detach().clone(), torch.zeros(5)
    reference = torch.optim.SGD([theirs], lr=0.3, momentum=momentum, weight_decay=decay)
    optimizer = SGD(momentum, decay)
    for step in range(6):
        theirs.grad = torch.randn(5)
        state = (velocity,) if momentum else ()
        ours, state = optimizer.update(ours, theirs.grad, state, torch.tensor(step), torch.tensor(0.3))
        velocity = state[0] if state else velocity
        reference.step()
    torch.testing.assert_close(ours, theirs.detach())
    assert optimizer.state("w") == (("momentum.w",) if momentum else ())


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


@pytest.mark.parametrize(("momentum", "decay"), [(1.0, 0.0), (-0.1, 0.0), (0.5, -1.0)])
def test_settings_out_of_range_are_refused(momentum: float, decay: float) -> None:
    with pytest.raises(BadInput):
        SGD(momentum, decay)
