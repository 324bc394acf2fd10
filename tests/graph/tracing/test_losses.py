# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Losses: means, sums and counts, against torch and by hand."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="losses need the extra `torch`")

from torch import nn
from torch.nn import functional

from atoll.errors import BadInput
from atoll.graph.tracing.losses import contrastive, cross_entropy, fitted, objective


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


CROSS = [
    nn.CrossEntropyLoss(),
    nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=2),
    nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5, 3.0]), ignore_index=2),
]


@pytest.mark.parametrize("loss", CROSS)
@pytest.mark.parametrize("last", [False, True])
def test_cross_entropy_of_sequences_is_torchs_in_both_layouts(loss: nn.CrossEntropyLoss, last: bool) -> None:
    scores, y = torch.randn(6, 4, 5), torch.randint(0, 4, (6, 5))  # classes second, as torch has it
    given = scores.transpose(1, 2) if last else scores
    found = objective(loss)
    assert float(found.mean(given, y)) == pytest.approx(float(loss(scores, y)), rel=1e-5)
    total, count = found.total(given, y)
    assert int(count) == int((y != loss.ignore_index).sum())
    assert float(total) == pytest.approx(float(loss(scores, y)) * int(count), rel=1e-5)
    answer = found.answer(given, y, probabilities=True)
    np.testing.assert_allclose(answer, scores.softmax(1).transpose(1, 2), atol=1e-6)


def test_cross_entropy_of_plain_labels_and_of_probabilities() -> None:
    scores, y = torch.randn(6, 4), torch.randint(0, 4, (6,))
    for loss in (nn.CrossEntropyLoss(), functional.cross_entropy, functools.partial(functional.cross_entropy)):
        total, count = objective(loss).total(scores, y)
        assert int(count) == 6
        assert float(total) == pytest.approx(float(functional.cross_entropy(scores, y, reduction="sum")), rel=1e-5)
    soft = torch.rand(6, 4).softmax(1)
    assert float(objective(nn.CrossEntropyLoss()).mean(scores, soft)) == pytest.approx(
        float(functional.cross_entropy(scores, soft)), rel=1e-5
    )


def test_settings_of_a_partial_function_count() -> None:
    found = objective(functools.partial(functional.cross_entropy, ignore_index=1, label_smoothing=0.2))
    scores, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 0])
    expected = functional.cross_entropy(scores, y, ignore_index=1, label_smoothing=0.2)
    assert float(found.mean(scores, y)) == pytest.approx(float(expected), rel=1e-5)
    assert int(found.count(scores, y)) == 4


def test_a_batch_without_counted_targets_costs_nothing() -> None:
    scores = torch.randn(3, 4, requires_grad=True)
    for loss in (cross_entropy(ignore_index=0), nn.CrossEntropyLoss(torch.ones(4), ignore_index=0)):
        total, count = objective(loss).total(scores, torch.zeros(3, dtype=torch.int64))
        assert (float(total.detach()), int(count)) == (0.0, 0)
        (gradient,) = torch.autograd.grad(total, scores)
        assert not gradient.any()


def test_equal_lengths_need_to_be_told_apart() -> None:
    scores, y = torch.randn(6, 4, 4), torch.randint(0, 4, (6, 4))
    with pytest.raises(BadInput, match=r"atoll.cross_entropy\(classes=-1\)"):
        objective(nn.CrossEntropyLoss()).mean(scores, y)
    second = objective(cross_entropy(classes=1)).mean(scores, y)
    assert float(second) == pytest.approx(float(functional.cross_entropy(scores, y)), rel=1e-5)
    last = objective(cross_entropy(classes=-1)).mean(scores, y)
    assert float(last) == pytest.approx(float(functional.cross_entropy(scores.transpose(1, 2), y)), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (nn.MSELoss(), "values"),
        (nn.L1Loss(), "values"),
        (nn.SmoothL1Loss(beta=0.5), "values"),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), "logits"),
        (nn.BCELoss(), "chances"),
    ],
)
def test_losses_between_equal_shapes_count_samples(loss: Any, kind: str) -> None:
    scores = torch.rand(6, 3) * 0.8 + 0.1
    y = (torch.rand(6, 3) > 0.5).float()
    found = objective(loss)
    total, count = found.total(scores, y)
    assert found.kind == kind
    assert int(count) == 6
    assert float(total) == pytest.approx(6 * float(loss(scores, y)), rel=1e-5)
    answer = found.answer(scores, y, probabilities=False)
    torch.testing.assert_close(answer, scores.sigmoid() if kind == "logits" else scores)


def test_functions_are_read_as_their_modules() -> None:
    assert objective(functional.binary_cross_entropy_with_logits).kind == "logits"
    assert objective(functional.mse_loss).kind == "values"


def test_a_function_of_the_users_counts_labels() -> None:
    def mine(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.nll_loss(scores.log_softmax(1), y)

    scores, y = torch.randn(6, 4, 5), torch.randint(0, 4, (6, 5))
    found = fitted(objective(mine), scores, y)
    total, count = found.total(scores, y)
    assert (found.kind, int(count)) == ("classes", 30)
    assert float(total) == pytest.approx(30 * float(functional.cross_entropy(scores, y)), rel=1e-5)
    assert fitted(objective(mine), torch.randn(6), torch.zeros(6)).kind == "values"


def test_contrastive_by_hand() -> None:
    scores, y = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 2])  # the last has no partner
    unit = (scores / scores.norm(dim=1, keepdim=True)).double().numpy()
    alike = np.exp(unit @ unit.T / 0.5)
    losses = []
    for anchor, partner in ((0, 2), (1, 3), (2, 0), (3, 1)):
        others = sum(alike[anchor, other] for other in range(5) if other != anchor)
        losses.append(-np.log(alike[anchor, partner] / others))
    found = objective(contrastive(0.5))
    assert float(found.mean(scores, y)) == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert int(found.count(scores, y)) == 5


@pytest.mark.parametrize(
    ("loss", "word"),
    [
        (nn.CrossEntropyLoss(reduction="sum"), "reduction"),
        ("cross_entropy", "str"),
        (nn.CrossEntropyLoss, "type"),
    ],
)
def test_what_is_no_loss_is_refused(loss: Any, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        objective(loss)


@pytest.mark.parametrize(
    ("loss", "scores", "y", "word"),
    [
        (nn.MSELoss(), torch.zeros(6, 1), torch.zeros(6), "squeeze"),
        (nn.BCEWithLogitsLoss(), torch.zeros(6), torch.zeros(6, dtype=torch.int64), "float32"),
        (nn.CrossEntropyLoss(), torch.zeros(6, 4, 5), torch.zeros(6, 7, dtype=torch.int64), "do not fit"),
        (contrastive(), torch.zeros(6, 4, 5), torch.zeros(6, dtype=torch.int64), "contrastive"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(loss: Any, scores: torch.Tensor, y: torch.Tensor, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        objective(loss).mean(scores, y)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(BadInput):
        contrastive(0.0)
    with pytest.raises(BadInput):
        cross_entropy(classes=2)
