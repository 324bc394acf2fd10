"""The chart's geometry, worked out by hand."""

from __future__ import annotations

from atoll.gateway.views import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart


def test_the_corners_of_the_chart() -> None:
    found = chart({0: 0.0, 10: 1.0, 5: 0.5}, rounds=11)
    assert [(point.round, point.x, point.y) for point in found.points] == [
        (0, LEFT, HEIGHT - BOTTOM),
        (5, (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2),
        (10, WIDTH - RIGHT, TOP),
    ]
    assert found.line == "44.0,172.0 336.0,92.0 628.0,12.0"
    assert [label for _, label in found.grid] == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    assert [label for _, label in found.labels] == [str(number) for number in range(11)]


def test_values_out_of_range_and_rounds_beyond_the_plan_stay_inside() -> None:
    found = chart({0: -3.0, 40: 7.5}, rounds=2)
    assert all(LEFT <= point.x <= WIDTH - RIGHT and TOP <= point.y <= HEIGHT - BOTTOM for point in found.points)


def test_many_rounds_keep_few_labels() -> None:
    labels = chart({0: 0.1}, rounds=1000).labels
    assert len(labels) <= 12
    assert labels[0][1] == "0"


def test_a_single_round() -> None:
    assert chart({0: 0.5}, rounds=1).line == f"{float(LEFT)},92.0"
