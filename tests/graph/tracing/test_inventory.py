# ruff: noqa: E402  # whether torch is there decides before the other imports
"""What becomes of a model's tensors."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="tracing needs the extra `torch`")

from torch import nn

from atoll.errors import BadInput
from atoll.graph.tracing import inventory
from atoll.graph.tracing.inventory import Holding, bind, bits, graph_name, holdings


def held(value: torch.Tensor) -> Holding:
    return Holding("w", "w", "parameter", value)


@pytest.mark.parametrize(
    ("largest", "most", "expected"),
    [(0.0, 24, 24), (16.0, 24, 24), (16.1, 24, 23), (100.0, 24, 21), (3000.0, 16, 16), (5000.0, 16, 15)],
)
def test_bits_leave_room_to_grow_eightfold(largest: float, most: int, expected: int) -> None:
    assert bits(held(torch.tensor([0.5 * largest, -largest])), most) == expected
    assert 8 * largest * 2**expected <= 2**31


def test_values_that_fit_no_grid_are_refused() -> None:
    with pytest.raises(BadInput, match="too large"):
        bits(held(torch.tensor(1e9)), 24)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("conv.weight", "conv.weight"),
        ("0.weight", "layer.0.weight"),
        ("scores", "layer.scores"),
        ("next.weight", "layer.next.weight"),
        ("net-a.weight", "net_a.weight"),
    ],
)
def test_names_in_the_graphs(source: str, name: str) -> None:
    assert graph_name(source) == name


def test_long_names_are_refused() -> None:
    with pytest.raises(BadInput, match="128"):
        graph_name("a" * 129)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("mask", torch.eye(64, dtype=torch.bool))
        self.register_buffer("places", torch.arange(8))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("bars", torch.full((2, 2), float("-inf")))
        self.fixed = nn.Linear(3, 3).requires_grad_(False)
        self.free = nn.Linear(3, 3)


def test_fates_are_sorted_by_role() -> None:
    found = {one.source: one.fate for one in holdings(Model(), {"mean", "count"})}
    assert list(found.items()) == [
        ("free.weight", "parameter"),
        ("free.bias", "parameter"),
        ("mean", "aggregate"),
        ("fixed.weight", "frozen"),
        ("fixed.bias", "frozen"),
        ("scale", "frozen"),
        ("mask", "frozen"),  # 4 kB: too large for a constant
        ("places", "constant"),
        ("count", "constant"),
        ("bars", "constant"),  # files of first values hold finite numbers only
    ]


def test_binding_gives_each_tensor_its_own_type_back() -> None:
    model = Model()
    found = holdings(model, {"mean"})
    bound = bind(found, [one.value.float() for one in found if one.fate != "constant"])
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        assert bound[name].dtype == value.dtype
        assert torch.equal(bound[name], value)


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (nn.Linear(2, 2).double(), r"weight is float64.*model.float\(\)"),
        (nn.Linear(2, 2).half(), "float16"),
        (nn.Linear(2, 2, device="meta"), "meta"),
    ],
)
def test_what_cannot_be_traced_is_refused(model: nn.Module, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        holdings(model, set())


def test_values_that_are_no_numbers_are_refused() -> None:
    model = nn.Linear(2, 2)
    model.weight.data[0, 0] = float("nan")
    with pytest.raises(BadInput, match="finite"):
        holdings(model, set())


def test_equal_names_are_refused() -> None:
    model = nn.Module()
    for name in ("a-b", "a_b"):
        model.register_parameter(name, nn.Parameter(torch.zeros(1)))
    with pytest.raises(BadInput, match="a_b"):
        holdings(model, set())


def test_modes_come_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    with inventory.evaluating(model):
        assert not any(module.training for module in model.modules())
    with inventory.training(model):
        assert [module.training for module in model.modules()] == [True, True, False, False]
    model.eval()
    with inventory.training(model):
        assert all(module.training for module in model.modules())
    assert not any(module.training for module in model.modules())
