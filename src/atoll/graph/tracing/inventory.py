"""What a model holds and what becomes of it: trained, aggregated, frozen, or a constant of the graphs. Needs torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from atoll.errors import BadInput
from atoll.graph.spec import RESERVED_NAMES, RESERVED_PREFIXES, ROLES, TENSOR_NAME
from atoll.graph.spec import Tensor as TensorSpec

BITS = 24  # fractional bits of a parameter: a range of +-128
STATISTICS_BITS = 16  # of running statistics, so that they do not outweigh the weights when states are compared
LEAST_BITS = 8
CONSTANT_BYTES = 64 * 1024  # a constant of the graphs, at most
_ROOM = 8  # a parameter may grow to so many times its largest first value
SMALL_BYTES = 1024  # whole-numbered buffers up to this size are constants of the graphs

Fate = Literal["parameter", "aggregate", "frozen", "constant"]


@dataclass(frozen=True)
class Holding:
    """One tensor of the model: its name there, its name in the graphs, what becomes of it, its first value."""

    source: str
    name: str
    fate: Fate
    value: Tensor

    @property
    def spec(self) -> TensorSpec:
        """The tensor as the manifest describes it."""
        if self.fate == "parameter":
            return TensorSpec(name=self.name, shape=tuple(self.value.shape), role="parameter", bits=bits(self, BITS))
        if self.fate == "aggregate":
            shape = tuple(self.value.shape)
            return TensorSpec(name=self.name, shape=shape, role="aggregate", bits=bits(self, STATISTICS_BITS))
        return TensorSpec(name=self.name, shape=tuple(self.value.shape), role="frozen")


def bits(holding: Holding, most: int) -> int:
    """Fractional bits with which the first value fits an int32 grid with room to grow; at most `most`."""
    value = holding.value
    largest = float(value.abs().max()) if value.numel() else 0.0
    if not math.isfinite(largest):
        raise BadInput(f"{holding.source} holds values that are not finite numbers; initialise it again")
    found = min(most, 31 - math.ceil(math.log2(max(largest * _ROOM, 1.0))))
    if found < LEAST_BITS:
        raise BadInput(f"{holding.source} holds values up to {largest:.3g}, too large to train; scale it down")
    return found


def holdings(model: nn.Module, changed: set[str]) -> tuple[Holding, ...]:
    """Everything the model holds, sorted by role and then in the model's order; tied tensors stand once.

    `changed` names the buffers that training changes. Raises BadInput for dtypes and devices that cannot be traced.
    """
    found = []
    for source, value in model.named_parameters():
        _check_parameter(source, value)
        fate: Fate = "parameter" if value.requires_grad else "frozen"
        found.append(Holding(source, graph_name(source), fate, value.detach()))
    for source, value in model.named_buffers():
        _check_device(source, value)
        found.append(Holding(source, graph_name(source), _fate_of_buffer(source, value, changed), value.detach()))
    inside = [one for one in found if one.fate != "constant"]
    names = [one.name for one in inside]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"two tensors of the model would be called {twice[0]!r}; rename one of the modules")
    inside.sort(key=lambda one: ROLES.index(one.fate))  # constants are left out
    return (*inside, *(one for one in found if one.fate == "constant"))


def graph_name(source: str) -> str:
    """A tensor's name in the graphs: its name in the model, or `layer.` before it where that one cannot be used."""
    clean = re.sub(r"[^A-Za-z0-9_.]", "_", source)
    if clean in RESERVED_NAMES or clean.startswith(RESERVED_PREFIXES) or not TENSOR_NAME.fullmatch(clean):
        clean = f"layer.{clean}"
    if not TENSOR_NAME.fullmatch(clean):
        raise BadInput(f"the name {source[:60]!r}... is longer than 128 letters; give the modules shorter names")
    return clean


def _check_device(source: str, value: Tensor) -> None:
    if value.device.type != "cpu":
        raise BadInput(f"{source} is on {value.device}; call model.cpu() first")


def _check_parameter(source: str, value: Tensor) -> None:
    _check_device(source, value)
    if not bool(value.isfinite().all()):
        raise BadInput(f"{source} holds values that are not finite numbers; initialise it again")
    if value.dtype != torch.float32:
        raise BadInput(f"parameter {source} is {_short(value.dtype)}, expected float32; call model.float() first")
    if not value.numel():
        raise BadInput(f"parameter {source} has no elements; remove it")


def _fate_of_buffer(source: str, value: Tensor, changed: set[str]) -> Fate:
    if value.is_complex() or value.dtype == torch.float64:
        raise BadInput(f"buffer {source} is {_short(value.dtype)}, expected float32; call model.float() first")
    if value.is_floating_point():
        if value.dtype != torch.float32 and source in changed:
            raise BadInput(f"buffer {source} is {_short(value.dtype)}, expected float32; call model.float() first")
        if source in changed:
            return "aggregate"
        return "frozen" if value.numel() and bool(value.isfinite().all()) else "constant"  # such as a mask of -inf
    if source in changed or value.numel() * value.element_size() <= SMALL_BYTES:
        return "constant"
    if value.dtype != torch.bool and float(value.abs().max()) > 1 << 24:
        raise BadInput(f"buffer {source} holds whole numbers beyond 2^24; make it smaller than 1 kB, or float32")
    return "frozen"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def bind(held: Sequence[Holding], values: Sequence[Tensor]) -> dict[str, Tensor]:
    """The tensors that the model should work with, by its own names: `values` for what is no constant, in order."""
    bound = {}
    rest = iter(values)
    for one in held:
        if one.fate == "constant":
            bound[one.source] = one.value.clone()
        else:
            value = next(rest)
            if one.fate == "aggregate":
                value = value.clone()  # training changes it in place
            bound[one.source] = value if one.value.dtype == torch.float32 else value.to(one.value.dtype)
    return bound


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """The model as its owner trains it: parts that she put into evaluation mode stay so, unless that is all of it."""
    with _modes_kept(model):
        if not model.training:
            model.train()
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode."""
    with _modes_kept(model):
        model.eval()
        yield


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
