"""GRU and LSTM over a fixed number of steps, with as few operators a step as the recurrence needs.

Cho et al. 2014, https://arxiv.org/abs/1406.1078; Hochreiter and Schmidhuber 1997. What does not depend on the step
before (products with the input, gradients of weights, derivatives of gates) is done for all steps at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode


class Rewriting(TorchFunctionMode):  # type: ignore[misc]  # torch is untyped here
    """Within this context `torch.gru` and `torch.lstm` are ours; packed sequences and projections stay torch's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, or ours in its place."""
        if func is torch.gru and not isinstance(args[2], Tensor):
            return gru(*args, **(kwargs or {}))
        if func is torch.lstm and not isinstance(args[1], Tensor) and args[1][0].shape[2] == args[1][1].shape[2]:
            return lstm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class Settings(NamedTuple):
    """What torch's recurrent functions take besides tensors, in their order."""

    biased: bool
    layers: int
    dropout: float
    train: bool
    bidirectional: bool
    batch_first: bool


def gru(x: Tensor, first: Tensor, weights: Sequence[Tensor], *settings: Any) -> tuple[Tensor, Tensor]:
    """As `torch.gru`: all outputs, in the layout of `x`, and the last states [layers * directions, batch, h].

    `settings` are those of `Settings`, in order.
    """
    chosen = Settings(*settings)

    def run(x: Tensor, index: int, own: Sequence[Tensor], reverse: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        size = first.shape[2]
        inputs = x @ own[0].transpose(0, 1)
        inner = own[1].new_zeros(size)
        if chosen.biased:
            inputs = inputs + torch.cat([own[2][: 2 * size] + own[3][: 2 * size], own[2][2 * size :]])
            inner = own[3][2 * size :]
        states = _Gru.apply(inputs, first[index : index + 1], own[1], inner, reverse)
        return states, (states[:1] if reverse else states[-1:],)

    out, (last,) = _stacked(run, x, weights, chosen)
    return out, last


def lstm(
    x: Tensor, first: Sequence[Tensor], weights: Sequence[Tensor], *settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """As `torch.lstm`: all outputs, in the layout of `x`, and the last states and cells; `settings` as in `gru`."""
    chosen = Settings(*settings)

    def run(x: Tensor, index: int, own: Sequence[Tensor], reverse: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        into, inner = _gates_last(own[0]), _gates_last(own[1])
        inputs = x @ into.transpose(0, 1)
        if chosen.biased:
            inputs = inputs + _gates_last(own[2] + own[3])
        start = (first[0][index : index + 1], first[1][index : index + 1])
        states, cells = _Lstm.apply(inputs, *start, inner, reverse)
        return states, tuple(part[:1] if reverse else part[-1:] for part in (states, cells))

    out, (last, cells) = _stacked(run, x, weights, chosen)
    return out, last, cells


def _gates_last(weights: Tensor) -> Tensor:
    """torch's order of gates (input, forget, cell, output) -> (input, forget, output, cell)."""
    one, two, three, four = weights.chunk(4)
    return torch.cat([one, two, four, three])


def _stacked(
    run: Callable[..., tuple[Tensor, tuple[Tensor, ...]]],
    x: Tensor,
    weights: Sequence[Tensor],
    chosen: Settings,
) -> tuple[Tensor, list[Tensor]]:
    """All layers and directions; returns the outputs and, joined, the last states of each."""
    each, directions = 4 if chosen.biased else 2, 2 if chosen.bidirectional else 1
    x = x.transpose(0, 1) if chosen.batch_first else x
    lasts = []
    for layer in range(chosen.layers):
        outs = []
        for direction in range(directions):
            index = layer * directions + direction
            out, last = run(x, index, weights[index * each : (index + 1) * each], direction == 1)
            outs.append(out)
            lasts.append(last)
        x = torch.cat(outs, 2) if chosen.bidirectional else outs[0]
        if chosen.dropout and chosen.train and layer < chosen.layers - 1:
            x = torch.dropout(x, chosen.dropout, True)
    joined = [torch.cat(parts, 0) if len(parts) > 1 else parts[0] for parts in zip(*lasts, strict=True)]
    return x.transpose(0, 1) if chosen.batch_first else x, joined


def _before(states: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """The state before each step."""
    return torch.cat([states[1:], first] if reverse else [first, states[:-1]])


class _Gru(Function):  # type: ignore[misc]  # torch is untyped here
    """All states [t, b, h] from `inputs` [t, b, 3h] (reset, update, new), the first state, weights and the new bias."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, first: Tensor, weights: Tensor, bias: Tensor, reverse: bool) -> Tensor:
        size, turned = first.shape[2], weights.transpose(0, 1).unsqueeze(0)
        gate_inputs = inputs[:, :, : 2 * size].split(1)
        new_inputs = inputs[:, :, 2 * size :].split(1)
        kept: list[tuple[Tensor, ...]] = []
        state = first
        for step in _order(len(inputs), reverse):
            for_gates, for_new = torch.bmm(state, turned).split([2 * size, size], 2)
            gates = torch.sigmoid(gate_inputs[step] + for_gates)
            reset, update = gates.split(size, 2)
            inner = for_new + bias
            new = torch.tanh(new_inputs[step] + reset * inner)
            state = new + update * (state - new)
            kept.append((state, gates, inner, new))
        states, *rest = (torch.cat(parts[::-1] if reverse else parts) for parts in zip(*kept, strict=True))
        ctx.save_for_backward(states, *rest, first, weights)
        ctx.reverse = reverse
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, gates, inner, new, first, weights = ctx.saved_tensors
        reset, update = gates.chunk(2, 2)
        before = _before(states, first, ctx.reverse)
        to_new = (1 - update) * (1 - new * new)
        to_update = (before - new) * (update - update * update)
        to_reset = to_new * inner * (reset - reset * reset)
        through = torch.cat([to_reset, to_update, to_new * reset], 2)
        slopes, carried, arriving = through.split(1), update.split(1), grad.split(1)
        collected: list[Tensor] = []
        back = torch.zeros_like(first)
        for step in _order(len(states), not ctx.reverse):
            back = back + arriving[step] if collected else arriving[step]
            collected.append(back)
            on_hidden = torch.cat([back, back, back], 2) * slopes[step]
            back = back * carried[step] + torch.bmm(on_hidden, weights.unsqueeze(0))
        whole = torch.cat(collected if ctx.reverse else collected[::-1])
        on_hidden = torch.cat([whole, whole, whole], 2) * through
        on_new = whole * to_new
        size = first.shape[2]
        on_inputs = torch.cat([on_hidden[:, :, : 2 * size], on_new], 2)
        on_weights = on_hidden.flatten(0, 1).transpose(0, 1) @ before.flatten(0, 1)
        return on_inputs, back, on_weights, on_hidden[:, :, 2 * size :].sum((0, 1)), None


class _Lstm(Function):  # type: ignore[misc]  # torch is untyped here
    """All states and cells [t, b, h] from `inputs` [t, b, 4h] (input, forget, output, cell), first ones and weights."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, first: Tensor, first_cell: Tensor, weights: Tensor, reverse: bool
    ) -> tuple[Tensor, Tensor]:
        size, turned = first.shape[2], weights.transpose(0, 1).unsqueeze(0)
        given = inputs.split(1)
        kept: list[tuple[Tensor, ...]] = []
        state, cell = first, first_cell
        for step in _order(len(inputs), reverse):
            for_gates, for_new = (given[step] + torch.bmm(state, turned)).split([3 * size, size], 2)
            gates, new = torch.sigmoid(for_gates), torch.tanh(for_new)
            taken, forgotten, shown = gates.split(size, 2)
            cell = forgotten * cell + taken * new
            bent = torch.tanh(cell)
            state = shown * bent
            kept.append((state, cell, gates, new, bent))
        states, cells, *rest = (torch.cat(parts[::-1] if reverse else parts) for parts in zip(*kept, strict=True))
        ctx.save_for_backward(states, cells, *rest, first, first_cell, weights)
        ctx.reverse = reverse
        return states, cells

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_cells: Tensor) -> tuple[Tensor | None, ...]:
        states, cells, gates, new, bent, first, first_cell, weights = ctx.saved_tensors
        taken, forgotten, shown = gates.chunk(3, 2)
        slope = gates - gates * gates
        factors = torch.cat([new, _before(cells, first_cell, ctx.reverse), bent], 2) * slope
        through = torch.cat([factors, taken * (1 - new * new)], 2)
        to_cell = (shown * (1 - bent * bent)).split(1)
        slopes, kept, arriving, arriving_cells = (
            through.split(1),
            forgotten.split(1),
            grad.split(1),
            grad_cells.split(1),
        )
        collected: list[Tensor] = []
        back = back_cell = torch.zeros_like(first)
        for step in _order(len(states), not ctx.reverse):
            back = back + arriving[step] if collected else arriving[step]
            at_cell = back * to_cell[step] + arriving_cells[step]
            at_cell = at_cell + back_cell if collected else at_cell
            collected.append(torch.cat([at_cell, at_cell, back, at_cell], 2) * slopes[step])
            back, back_cell = torch.bmm(collected[-1], weights.unsqueeze(0)), at_cell * kept[step]
        whole = torch.cat(collected if ctx.reverse else collected[::-1])
        before = _before(states, first, ctx.reverse)
        return whole, back, back_cell, whole.flatten(0, 1).transpose(0, 1) @ before.flatten(0, 1), None


def _order(length: int, reverse: bool) -> range:
    return range(length - 1, -1, -1) if reverse else range(length)
