# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Metrics: sums over the counted targets, worked out by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="metrics need the extra `torch`")

from torch import Tensor, nn

from atoll.errors import BadInput
from atoll.graph.tracing.losses import objective
from atoll.graph.tracing.metrics import accuracy, mean_absolute_error, metric, read, top5

CLASSES = objective(nn.CrossEntropyLoss(ignore_index=1))
SCORES = torch.tensor([[6.0, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1], [1, 5, 4, 3, 2, 9]])
LABELS = torch.tensor([0, 1, 5, 5])  # right, not counted, sixth, right


def test_accuracy_and_top5_count_what_counts() -> None:
    assert float(accuracy.total(SCORES, LABELS, CLASSES)) == 2
    assert float(top5.total(SCORES, LABELS, CLASSES)) == 2
    assert float(top5.total(SCORES, torch.tensor([4, 4, 4, 0]), CLASSES)) == 3


def test_sequences_in_both_layouts() -> None:
    scores, labels = SCORES[None].repeat(3, 1, 1), LABELS[None].repeat(3, 1)  # [3, 4, 6], labels [3, 4]
    for given in (scores, scores.transpose(1, 2)):
        assert float(accuracy.total(given, labels, CLASSES)) == 6


def test_scores_that_are_no_numbers_are_not_right() -> None:
    assert float(top5.total(SCORES * float("nan"), LABELS, CLASSES)) == 0


def test_accuracy_of_yes_and_no() -> None:
    y = torch.tensor([[1.0, 0], [1, 1]])
    assert float(accuracy.total(torch.tensor([[2.0, -1], [-1, 3]]), y, objective(nn.BCEWithLogitsLoss()))) == 1.5
    assert float(accuracy.total(torch.tensor([[0.9, 0.4], [0.3, 0.6]]), y, objective(nn.BCELoss()))) == 1.5


def test_mean_absolute_error_is_by_sample() -> None:
    scores, y = torch.tensor([[1.0, 3], [5, 5]]), torch.tensor([[0.0, 0], [5, 3]])
    assert float(mean_absolute_error.total(scores, y, objective(nn.MSELoss()))) == 3.0


def test_metrics_that_do_not_fit_are_refused() -> None:
    values = objective(nn.MSELoss())
    for one in (accuracy, top5):
        with pytest.raises(BadInput, match="classes"):
            one.total(torch.zeros(3), torch.zeros(3), values)
    with pytest.raises(BadInput, match="float32"):
        mean_absolute_error.total(SCORES, LABELS, CLASSES)


def within_one(scores: Tensor, y: Tensor) -> Tensor:
    return ((scores - y).abs() <= 1).float().sum()


def test_functions_of_the_users_go_by_their_names() -> None:
    found = read([accuracy, within_one, metric(within_one, "close")])
    assert [one.name for one in found] == ["accuracy", "within_one", "close"]
    assert float(found[1].total(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0]), objective(nn.MSELoss()))) == 1


@pytest.mark.parametrize("metrics", [[accuracy, accuracy], [lambda scores, y: scores.sum()], ["accuracy"]])
def test_names_and_kinds_are_checked(metrics: list[object]) -> None:
    with pytest.raises(BadInput):
        read(metrics)
    with pytest.raises(BadInput):
        metric(within_one, "Within One")
