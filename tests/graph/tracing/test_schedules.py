# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Schedules, against torch's own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="schedules need the extra `torch`")

from atoll.errors import BadInput
from atoll.graph.tracing.schedules import Schedule, cosine, linear, step_decay


def factors(schedule: Schedule, steps: int) -> list[float]:
    return [float(schedule(torch.tensor(step))) for step in range(steps)]


def torchs(make: object, steps: int, **settings: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer, **settings)  # type: ignore[operator]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_cosine_is_torchs() -> None:
    theirs = torchs(torch.optim.lr_scheduler.CosineAnnealingLR, 40, T_max=40, eta_min=0.1)
    assert factors(cosine(40, floor=0.1), 40) == pytest.approx(theirs, abs=1e-6)


def test_linear_is_torchs() -> None:
    theirs = torchs(torch.optim.lr_scheduler.LinearLR, 45, start_factor=1.0, end_factor=0.2, total_iters=30)
    assert factors(linear(30, floor=0.2), 45) == pytest.approx(theirs, abs=1e-6)


def test_step_decay_is_torchs() -> None:
    theirs = torchs(torch.optim.lr_scheduler.StepLR, 60, step_size=7, gamma=0.5)
    assert factors(step_decay(7, 0.5), 60) == pytest.approx(theirs, rel=1e-5)


def test_warmup_rises_in_a_line_and_the_end_stays() -> None:
    assert factors(linear(20, warmup=4), 6) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 15 / 16])
    assert factors(cosine(20, warmup=4), 12)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert factors(cosine(20, warmup=4), 13)[12] == pytest.approx(0.5)  # half way down
    assert factors(cosine(20, floor=0.3), 30)[20:] == pytest.approx([0.3] * 10)


@pytest.mark.parametrize("settings", [(5, 5, 0.0), (5, -1, 0.0), (5, 0, 1.5)])
def test_settings_out_of_range_are_refused(settings: tuple[int, int, float]) -> None:
    for make in (cosine, linear):
        with pytest.raises(BadInput):
            make(*settings)
    with pytest.raises(BadInput):
        step_decay(0)
