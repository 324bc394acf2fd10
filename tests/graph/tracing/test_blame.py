# ruff: noqa: E402  # whether torch is there decides before the other imports
"""What cannot be traced is told with the user's line and with what to write instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="tracing needs the extra `torch`")

from torch import Tensor, nn

import atoll
from atoll.errors import BadInput
from atoll.graph.tracing import blame

from . import untraceable

EXAMPLE = (torch.zeros(8, 6), torch.zeros(8, dtype=torch.int64))
SOURCE = Path(untraceable.__file__)
MARKS = {
    name: (number, word)
    for number, line in enumerate(SOURCE.read_text("utf-8").splitlines(), 1)
    for name, word in re.findall(r"# <- (\w+): (.+)$", line)
}


def test_there_are_many() -> None:
    assert len(MARKS) >= 20


@pytest.mark.parametrize("name", MARKS)
def test_the_line_is_named_and_what_to_write_instead(name: str) -> None:
    line, word = MARKS[name]
    culprit = getattr(untraceable, name)
    model, loss = (culprit(), nn.CrossEntropyLoss()) if isinstance(culprit, type) else (nn.Linear(6, 4), culprit)
    with pytest.raises(BadInput) as caught:
        atoll.job(model, loss, atoll.SGD(lr=0.1), EXAMPLE)
    text = str(caught.value)
    assert text.startswith(f"{SOURCE}:{line} (in "), text
    assert word in text


class Doubled(torch.autograd.Function):
    """The identity, whose gradient is twice as large."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return 2 * grad


def test_gradients_of_the_users_own_can_be_traced() -> None:
    from .training import by_graph

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            x.mul_(3)  # the batch may be changed in place
            return Doubled.apply(self.linear(x))

    model = Model()
    file = atoll.job(model, nn.CrossEntropyLoss(), atoll.SGD(lr=0.1), EXAMPLE, clip=None).file
    x, y = torch.randn(1, 5, 6), torch.randint(0, 4, (1, 5))
    nn.functional.cross_entropy(model.linear(3 * x[0]), y[0]).backward()
    expected = (model.linear.weight - 0.2 * model.linear.weight.grad).detach()
    found = by_graph(file, x.numpy(), y.numpy()).tensors["linear.weight"]
    torch.testing.assert_close(torch.tensor(found), expected)


def test_only_the_users_files_are_named() -> None:
    assert blame.is_users(__file__)
    assert not blame.is_users(str(torch.__file__))
    assert not blame.is_users(re.__file__)
    assert not blame.is_users(str(blame.__file__))
