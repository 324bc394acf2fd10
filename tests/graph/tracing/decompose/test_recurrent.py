# ruff: noqa: E402  # whether torch is there decides before the other imports
"""GRU and LSTM, against torch's own: outputs, last states and all gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="decompositions are of torch's operators")

from torch import Tensor, nn

from atoll.graph.tracing.decompose.recurrent import Rewriting

LAYERS = {
    "gru": lambda: nn.GRU(4, 3),
    "gru, two layers": lambda: nn.GRU(4, 3, 2, batch_first=True),
    "gru, both ways": lambda: nn.GRU(4, 3, 2, bidirectional=True, bias=False),
    "lstm": lambda: nn.LSTM(4, 3),
    "lstm, two layers": lambda: nn.LSTM(4, 3, 2, batch_first=True, bias=False),
    "lstm, both ways": lambda: nn.LSTM(4, 3, 2, bidirectional=True),
}


def results(layer: nn.Module, x: Tensor, given: bool) -> list[Tensor]:
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    batch = x.shape[0 if layer.batch_first else 1]
    torch.manual_seed(3)
    first = torch.randn(count, batch, 3, dtype=x.dtype, requires_grad=True)
    cell = torch.randn(count, batch, 3, dtype=x.dtype, requires_grad=True)
    start = (first, cell) if isinstance(layer, nn.LSTM) else first
    out, last = layer(x, start) if given else layer(x)
    parts = [out, *(last if isinstance(last, tuple) else [last])]
    total = sum((part * torch.linspace(-1, 2, part.numel(), dtype=x.dtype).view_as(part)).sum() for part in parts)
    used = [first, cell] if isinstance(layer, nn.LSTM) else [first]
    return [*parts, *torch.autograd.grad(total, [x, *layer.parameters(), *(used if given else [])])]


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_as_torch(name: str, given: bool) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    x = torch.randn(5, 6, 4, dtype=torch.float64, requires_grad=True)
    expected = results(layer, x, given)
    with Rewriting():
        found = results(layer, x, given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_ours_is_used() -> None:
    layers, x = [nn.GRU(4, 3), nn.LSTM(4, 3)], torch.randn(5, 6, 4)
    with Rewriting():
        assert [layer(x)[0].grad_fn.name() for layer in layers] == ["_GruBackward", "_LstmBackward"]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_what_is_not_ours_stays_torchs() -> None:
    layer, x = nn.LSTM(4, 5, proj_size=3), torch.randn(2, 3, 4)
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(4, 2, 4), [4, 2])
    expected = [layer(x)[0], layer(packed)[0].data]
    with Rewriting():
        found = [layer(x)[0], layer(packed)[0].data]
    torch.testing.assert_close(found, expected)
