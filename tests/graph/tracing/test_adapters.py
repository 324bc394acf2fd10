# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Freezing and low-rank adapters."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="adapters need the extra `torch`")

from torch import nn

from atoll.errors import BadInput
from atoll.graph.tracing.adapters import LowRank, freeze, low_rank

from .models import MLP, TinyGPT


def test_freeze_stops_gradients_and_leaves_training_mode() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    assert freeze(model[0]) is model[0]
    assert [value.requires_grad for value in model.parameters()] == [False, False, True, True]
    assert (model.training, model[0].training, model[1].training) == (True, False, True)


def test_adapters_change_nothing_at_first_and_then_add_a_product() -> None:
    model, x = MLP(), torch.randn(6, 4, 5)
    adapted = low_rank(model, rank=3, alpha=6)
    torch.testing.assert_close(adapted(x), model(x))
    assert all(value.requires_grad for value in model.parameters())  # the model itself is left alone
    layer = adapted.second
    nn.init.normal_(layer.up)
    weight = layer.base.weight + 2 * layer.up @ layer.down
    h = torch.randn(5, 16)
    torch.testing.assert_close(layer(h), h @ weight.t() + layer.base.bias)
    trained = {name for name, value in adapted.named_parameters() if value.requires_grad}
    assert trained == {"first.down", "first.up", "second.down", "second.up"}


def test_targets_choose_layers() -> None:
    adapted = low_rank(TinyGPT(), rank=2, targets=["attend"])
    assert [name for name, layer in adapted.named_modules() if isinstance(layer, LowRank)] == ["attend"]
    with pytest.raises(BadInput, match=r"query.*attend, up, down, head"):
        low_rank(TinyGPT(), targets=["query"])


def test_a_layer_used_twice_gets_one_adapter() -> None:
    layer = nn.Linear(3, 3)
    adapted = low_rank(nn.Sequential(layer, nn.ReLU(), layer), rank=1)
    assert adapted[0] is adapted[2]


def test_bad_settings_are_refused() -> None:
    for settings in ({"rank": 0}, {"alpha": 0.0}):
        with pytest.raises(BadInput):
            low_rank(MLP(), **settings)
    with pytest.raises(BadInput, match=r"no nn\.Linear"):
        low_rank(nn.Sequential(nn.Conv2d(1, 1, 1)))
