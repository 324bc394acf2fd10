"""Trace a PyTorch model, its loss and its optimizer into the three graphs of a job (needs torch).

`make_fx` runs loss, `torch.autograd.grad` and the optimizer on fake tensors with a symbolic batch and records core
ATen; the ONNX exporter writes that down; `tidy` makes it canonical. The graphs hold plain ONNX operators only, so a
node needs no torch to run them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import LocalSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from atoll.errors import BadInput
from atoll.graph import decompose, manifest, optimizers
from atoll.graph.signatures import BATCH, Signature, signature
from atoll.graph.tidy import tidy

OPSET = 18
GRADIENT_NORM = 1.0
_DTYPES: dict[torch.dtype, manifest.DType] = {torch.float32: "float32", torch.uint8: "uint8", torch.int64: "int64"}
_TRACE_BATCH = 6  # any size that no other dimension is likely to have: torch gives equal sizes one symbol

Loss = Callable[..., Tensor]


class Optimizer(Protocol):
    """What `trace` needs from an optimizer; see `atoll.graph.optimizers.SGD`."""

    def state(self, name: str) -> tuple[str, ...]:
        """Names of the state tensors of parameter `name`."""
        ...

    def update(
        self, parameter: Tensor, gradient: Tensor, state: tuple[Tensor, ...], step: Tensor, rate: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Next parameter and next state."""
        ...


@dataclass(frozen=True)
class TracedJob:
    """The graphs of a job as ONNX bytes, its tensors in manifest order, and their first values (float32)."""

    step: bytes
    evaluate: bytes
    predict: bytes
    tensors: tuple[manifest.Tensor, ...]
    input: manifest.Input
    classes: int
    initial: dict[str, npt.NDArray[np.float32]]


def trace(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    example: tuple[Tensor, Tensor],
    *,
    gradient_norm: float = GRADIENT_NORM,
) -> TracedJob:
    """Trace one training step, the evaluation and the prediction of a classifier.

    `model(x)` returns scores [batch, classes] before the softmax; `loss(scores, y, reduction="mean" | "sum")` is a
    function like `torch.nn.functional.cross_entropy`; `example` is a batch (x uint8, float32 or int64, y int64) whose
    contents do not matter. Raises BadInput when something cannot be traced.
    """
    x, y = _example(*example)
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    if any(True for _ in model.buffers()):
        raise BadInput("models with buffers (running statistics) cannot be traced; use layers without them")
    owners = {state: name for name in parameters for state in optimizer.state(name)}
    tensors = tuple(
        [manifest.Tensor(name=name, shape=tuple(value.shape), role="parameter") for name, value in parameters.items()]
        + [
            manifest.Tensor(name=state, shape=tuple(parameters[name].shape), role="reset")
            for state, name in owners.items()
        ]
    )
    graphs = _Graphs(model, loss, optimizer, tuple(parameters), tuple(owners), gradient_norm)
    values = list(parameters.values())
    zeros = [torch.zeros_like(parameters[name]) for name in owners.values()]
    scalars = [torch.tensor(0), torch.tensor(0.1)]
    with torch.no_grad():
        classes = int(model(x).shape[1])
    sample = manifest.Input(shape=tuple(x.shape[1:]), dtype=_DTYPES[x.dtype])
    return TracedJob(
        step=_export(graphs.step, [x, y, *scalars, *values, *zeros], signature("step", tensors, sample, classes)),
        evaluate=_export(graphs.evaluate, [x, y, *values], signature("evaluate", tensors, sample, classes)),
        predict=_export(graphs.predict, [x, *values], signature("predict", tensors, sample, classes)),
        tensors=tensors,
        input=sample,
        classes=classes,
        initial={name: value.numpy().copy() for name, value in parameters.items()},
    )


def _example(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.dtype not in _DTYPES or y.dtype != torch.int64 or y.dim() != 1 or len(x) != len(y) or not len(x):
        raise BadInput("the example must be x (uint8, float32 or int64) and y (int64, one label a sample)")
    return x[:1].expand(_TRACE_BATCH, *x.shape[1:]).clone(), y[:1].expand(_TRACE_BATCH).clone()


@dataclass(frozen=True)
class _Graphs:
    """The three computations as functions of flat lists of tensors, in the order of the graphs' inputs."""

    model: nn.Module
    loss: Loss
    optimizer: Optimizer
    parameters: tuple[str, ...]
    states: tuple[str, ...]
    gradient_norm: float

    def step(self, x: Tensor, y: Tensor, step: Tensor, rate: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        """loss, next parameters, next states"""
        count = len(self.parameters)
        values = {
            name: value.detach().requires_grad_() for name, value in zip(self.parameters, flat[:count], strict=True)
        }
        states = dict(zip(self.states, flat[count:], strict=True))
        loss = self.loss(functional_call(self.model, values, (x,)), y, reduction="mean")
        found = dict(zip(values, torch.autograd.grad(loss, list(values.values())), strict=True))
        found = optimizers.clip(found, self.gradient_norm)
        following: dict[str, Tensor] = {}
        for name, value in values.items():
            own = self.optimizer.state(name)
            following[name], after = self.optimizer.update(
                value.detach(), found[name], tuple(states[key] for key in own), step, rate
            )
            following.update(zip(own, after, strict=True))
        return (loss.detach(), *(following[name] for name in (*self.parameters, *self.states)))

    def evaluate(self, x: Tensor, y: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        """sum of the losses, number of correct answers"""
        scores = self._scores(x, flat)
        return self.loss(scores, y, reduction="sum"), (scores.argmax(1) == y).sum()

    def predict(self, x: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        """probabilities"""
        return (self._scores(x, flat).softmax(1),)

    def _scores(self, x: Tensor, flat: Sequence[Tensor]) -> Tensor:
        scores: Tensor = functional_call(self.model, dict(zip(self.parameters, flat, strict=True)), (x,))
        return scores


class _Wrapped(nn.Module):  # type: ignore[misc]  # torch is untyped here
    def __init__(self, recorded: GraphModule) -> None:
        super().__init__()
        self.recorded = recorded

    def forward(self, *flat: Tensor) -> Any:
        return self.recorded(*flat)


def _record(function: Callable[..., Any], arguments: Sequence[Tensor], batched: int) -> GraphModule:
    """Core ATen of `function`; the first `batched` arguments share one symbolic first dimension."""
    mode = FakeTensorMode(shape_env=ShapeEnv(duck_shape=True), allow_non_fake_inputs=True)
    fakes = []
    for index, value in enumerate(arguments):
        sizes = [DimDynamic.STATIC] * value.dim()
        if index < batched:
            sizes[0] = DimDynamic.DUCK
        context = StatelessSymbolicContext(dynamic_sizes=sizes)
        fakes.append(mode.from_tensor(value, symbolic_context=context, source=LocalSource(f"a{index}")))
    with enable_python_dispatcher():
        recorded = make_fx(function, decomposition_table=decompose.table())(*fakes)
    recorded.graph.eliminate_dead_code()
    recorded.recompile()
    return recorded


def _export(function: Callable[..., Any], arguments: Sequence[Tensor], ports: Signature) -> bytes:
    batched = sum(BATCH in shape for _, _, shape in ports.inputs)
    recorded = _record(function, arguments, batched)
    batch = torch.export.Dim(BATCH, min=1, max=65_536)
    dynamic = tuple({0: batch} if index < batched else None for index in range(len(arguments)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.export.export(_Wrapped(recorded), tuple(arguments), dynamic_shapes=(dynamic,))
        exported = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=OPSET)
    if exported is None:
        raise BadInput("the exporter returned nothing")
    return tidy(exported.model_proto, ports)
