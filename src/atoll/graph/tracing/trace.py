"""Trace a PyTorch model, its loss and its optimizer into the three graphs of a job (needs torch).

Loss, `torch.autograd.grad`, clip and optimizer run once on shapes without values; `recording` writes the operations
down as plain ONNX, so a node needs no torch to run them. The user's model is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.func import functional_call

from atoll.errors import BadInput
from atoll.graph.signatures import Kind, Ports, signature
from atoll.graph.spec import DType, Input, Output, Target
from atoll.graph.spec import Tensor as TensorSpec
from atoll.graph.tracing import blame, inventory, optimizers, random
from atoll.graph.tracing.inventory import Holding
from atoll.graph.tracing.losses import Objective, fitted
from atoll.graph.tracing.metrics import Metric
from atoll.graph.tracing.optimizers import Optimizer
from atoll.graph.tracing.recording import Shadows, batch_for, export

_INPUTS: dict[torch.dtype, DType] = {torch.float32: "float32", torch.uint8: "uint8", torch.int64: "int64"}


@dataclass(frozen=True)
class Plan:
    """What is traced: model, loss, metrics, optimizer, limit of the gradient's norm, example batch.

    `probabilities`: whether predict gives them; None: where the loss is a cross-entropy.
    """

    model: nn.Module
    objective: Objective
    optimizer: Optimizer
    example: tuple[Tensor, Tensor]
    metrics: tuple[Metric, ...] = ()
    clip: float | None = 1.0
    probabilities: bool | None = None


@dataclass(frozen=True)
class TracedJob:
    """The graphs of a job as ONNX bytes, its tensors and shapes, and the first values of the tensors (float32)."""

    step: bytes
    evaluate: bytes
    predict: bytes
    ports: Ports
    values: dict[str, npt.NDArray[np.float32]]


def trace(plan: Plan) -> TracedJob:
    """Trace one training step, the evaluation and the prediction.

    Raises BadInput, with the line of the user's model that is the cause, when something cannot be traced.
    """
    with torch.random.fork_rng(devices=[]):
        survey = _survey(plan)
        held = inventory.holdings(plan.model, survey.changed)
        _check_used(held, survey)
        graphs = _Graphs(plan, survey.objective, survey.probabilities, held)
        ports = _ports(plan, survey, graphs)
        return TracedJob(
            step=graphs.export("step", ports),
            evaluate=graphs.export("evaluate", ports),
            predict=graphs.export("predict", ports),
            ports=ports,
            values={one.name: one.value.to(torch.float32).numpy().copy() for one in graphs.inside},
        )


@dataclass(frozen=True)
class _Survey:
    """What one run on shapes shows: changed buffers, parameters without a gradient, the answer's shape."""

    changed: set[str]
    unused: tuple[str, ...]
    objective: Objective
    probabilities: bool
    answer: tuple[int, ...]


def _survey(plan: Plan) -> _Survey:
    """Run the model once for training and once for answers on shadows; raises BadInput as `trace` does."""
    model = plan.model
    inventory.holdings(model, set())  # what cannot be traced at all is said first
    shadows = Shadows()
    size = batch_for([*plan.example, *model.parameters(), *model.buffers()])
    x, y = (shadows.of(value, batched=True) for value in _example(*plan.example, size))
    own = {name: shadows.of(value.detach()) for name, value in (*model.named_parameters(), *model.named_buffers())}
    trained = {name: own[name].requires_grad_() for name, value in model.named_parameters() if value.requires_grad}
    if not trained:
        raise BadInput("no parameter of the model is to be trained; set requires_grad_(True) on what should learn")
    bound = {name: value if name in trained else value.clone() for name, value in own.items()}
    before = dict(bound)
    watch = shadows.watch(tuple(trained.values()))
    with enable_python_dispatcher(), shadows.mode:
        with inventory.training(model), blame.explained(model):
            scores = _scores(blame.watched(watch, functional_call, model, bound, (x.clone(),)), model, x)
        changed = {name for name, value in before.items() if bound[name] is not value or watch.wrote(value)}
        objective = fitted(plan.objective, scores, y)
        with blame.explained(objective.mean):
            loss = _scalar("loss", blame.watched(watch, objective.mean, scores, y), objective.mean)
        with blame.explained(model):
            found = blame.watched(watch, _gradients, loss, trained)
        with torch.no_grad():
            answer = _survey_answers(plan, objective, own, (x, y), shadows.watch())
    shadows.check()
    unused = tuple(name for name, value in found.items() if value is None)
    probabilities = objective.kind == "classes" if plan.probabilities is None else plan.probabilities
    return _Survey(changed - set(trained), unused, objective, probabilities, answer)


def _survey_answers(
    plan: Plan, objective: Objective, own: dict[str, Tensor], example: tuple[Tensor, Tensor], watch: blame.Watch
) -> tuple[int, ...]:
    """The shape of one answer, from a run in evaluation mode; the metrics are tried too."""
    x, y = example
    with inventory.evaluating(plan.model), blame.explained(plan.model):
        made = blame.watched(watch, functional_call, plan.model, dict(own), (x.clone(),))
        scores = _scores(made, plan.model, x)
    for metric in plan.metrics:
        with blame.explained(metric.source):
            _scalar(f"metric {metric.name}", blame.watched(watch, metric.total, scores, y, objective), None)
    probabilities = objective.kind == "classes" if plan.probabilities is None else plan.probabilities
    answer = objective.answer(scores, y, probabilities=probabilities)
    return tuple(int(length) for length in answer.shape[1:])


def _scores(made: Any, model: nn.Module, x: Tensor) -> Tensor:
    """Check what the model gave: one float32 tensor with the samples first."""
    place = blame.of_function(model)
    if not isinstance(made, Tensor):
        raise blame.bad(place, f"the model gives a {type(made).__name__}, expected one tensor of scores; return that")
    if made.is_complex():
        raise blame.bad(place, blame.COMPLEX)
    if made.dtype != torch.float32:
        raise blame.bad(place, f"the model gives {made.dtype}, expected torch.float32; end it with .float()")
    if not made.dim() or str(made.shape[0]) != str(x.shape[0]):
        text = f"the model gives shape {_shape(made)}, expected {_shape(x[:, :0])[:-4]}, ...]: one answer a sample"
        raise blame.bad(place, text)
    return made


def _scalar(what: str, made: Any, function: Any) -> Tensor:
    if isinstance(made, Tensor) and made.dim() == 0 and made.is_floating_point():
        return made
    shape = _shape(made) if isinstance(made, Tensor) else type(made).__name__
    place = blame.of_function(function) if function is not None else None
    raise blame.bad(
        place, f"the {what} is {shape}, expected one float number for the batch: end with .mean() or .sum()"
    )


def _shape(value: Tensor) -> str:
    return "[" + ", ".join(str(length) if isinstance(length, int) else "batch" for length in value.shape) + "]"


def _gradients(loss: Tensor, trained: dict[str, Tensor]) -> dict[str, Tensor | None]:
    if not loss.requires_grad:
        return dict.fromkeys(trained)
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values()), allow_unused=True), strict=True))


def _check_used(held: Sequence[Holding], survey: _Survey) -> None:
    if survey.unused:
        names = ", ".join(survey.unused[:6]) + (" ..." if len(survey.unused) > 6 else "")
        raise BadInput(
            f"the loss does not depend on {names}; remove what is not used, or freeze it with requires_grad_(False)"
        )
    large = [one for one in held if one.fate == "constant" and one.value.nbytes > inventory.CONSTANT_BYTES]
    if large:
        raise BadInput(
            f"buffer {large[0].source} of {large[0].value.nbytes} bytes can be no constant of the graph: it holds "
            "infinite values, or training changes it. Keep a mask as bool and use masked_fill."
        )


def _example(x: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The example's first sample, as often as the batch is large while tracing."""
    return x[:1].expand(size, *x.shape[1:]).clone(), y[:1].expand(size, *y.shape[1:]).clone()


def _ports(plan: Plan, survey: _Survey, graphs: _Graphs) -> Ports:
    x, y = plan.example
    certified = [one.spec for one in graphs.inside if one.fate != "frozen"]
    frozen = [one.spec for one in graphs.inside if one.fate == "frozen"]
    shapes = {one.name: tuple(one.value.shape) for one in graphs.inside}
    resets = [
        TensorSpec(name=state, shape=shapes[owner] if owner else (), role="reset")
        for state, owner in graphs.states.items()
    ]
    return Ports(
        (*certified, *resets, *frozen),
        Input(shape=tuple(x.shape[1:]), dtype=_INPUTS[x.dtype]),
        Target(shape=tuple(y.shape[1:]), dtype="int64" if y.dtype == torch.int64 else "float32"),
        Output(shape=survey.answer, meaning="probabilities" if survey.probabilities else "values"),
        tuple(metric.name for metric in plan.metrics),
    )


@dataclass(frozen=True)
class _Graphs:
    """The three computations as functions of flat lists of tensors, in the order of the graphs' inputs."""

    plan: Plan
    objective: Objective
    probabilities: bool
    held: tuple[Holding, ...]

    @property
    def inside(self) -> tuple[Holding, ...]:
        """What the graphs take as inputs, in order: parameters, aggregates, frozen tensors."""
        return tuple(one for one in self.held if one.fate != "constant")

    @property
    def certified(self) -> int:
        """How many parameters and aggregates there are."""
        return sum(one.fate in ("parameter", "aggregate") for one in self.held)

    @property
    def states(self) -> dict[str, str]:
        """The optimizer's state tensors, and the parameter that each belongs to ("" for the shared scalars)."""
        found = dict.fromkeys(self.plan.optimizer.shared, "")
        for one in self.held:
            if one.fate == "parameter":
                found |= dict.fromkeys(self.plan.optimizer.state(one.name), one.name)
        return found

    def export(self, kind: Kind, ports: Ports) -> bytes:
        """One of the graphs as ONNX."""
        size = batch_for([*self.plan.example, *(one.value for one in self.held)])
        x, y = _example(*self.plan.example, size)
        values = [one.value.to(torch.float32) for one in self.inside]
        wanted = signature(kind, ports)
        if kind == "predict":
            with inventory.evaluating(self.plan.model), torch.no_grad():
                return export(self.predict, [x, *values], wanted, slice(1, None))
        if kind == "evaluate":
            with inventory.evaluating(self.plan.model), torch.no_grad():
                return export(self.evaluate, [x, y, *values], wanted, slice(2, None))
        scalars = [torch.tensor(0), torch.tensor(0), torch.tensor(0.1)]
        resets = [torch.zeros(one.shape) for one in ports.tensors if one.role == "reset"]
        flat = [*values[: self.certified], *resets, *values[self.certified :]]
        with inventory.training(self.plan.model):
            return export(self.step, [x, y, *scalars, *flat], wanted, slice(5, None))

    def step(self, x: Tensor, y: Tensor, step: Tensor, seed: Tensor, rate: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        """loss, next parameters and aggregates, next states"""
        states = dict(zip(self.states, flat[self.certified :], strict=False))
        values = [*flat[: self.certified], *flat[self.certified + len(states) :]]
        bound = inventory.bind(self.held, values)
        sources = {one.name: one.source for one in self.held if one.fate == "parameter"}
        parameters = {name: bound[source].detach().requires_grad_() for name, source in sources.items()}
        bound |= {source: parameters[name] for name, source in sources.items()}
        aggregates = [one.source for one in self.held if one.fate == "aggregate"]
        with random.stream(seed, step):
            scores = functional_call(self.plan.model, bound, (x.clone(),))
        loss = self.objective.mean(scores, y)
        found = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        with torch.no_grad():
            following, after = self._updated(parameters, found, states, (step, rate))
        statistics = [bound[source].detach() for source in aggregates]
        return (loss.detach(), *following, *statistics, *after)

    def _updated(
        self,
        parameters: dict[str, Tensor],
        gradients: dict[str, Tensor],
        states: dict[str, Tensor],
        pace: tuple[Tensor, Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Next parameters and next states, both in order."""
        optimizer = self.plan.optimizer
        step, rate = pace
        if self.plan.clip is not None:
            gradients = optimizers.clip(gradients, self.plan.clip)
        if optimizer.schedule is not None:
            rate = rate * optimizer.schedule(step)
        shared = optimizer.advance(tuple(states[name] for name in optimizer.shared))
        after = dict(zip(optimizer.shared, shared, strict=True))
        following = []
        for name, value in parameters.items():
            own = optimizer.state(name)
            moved, kept = optimizer.update(
                value.detach(), gradients[name], tuple(states[key] for key in own), shared, rate
            )
            following.append(moved)
            after |= zip(own, kept, strict=True)
        return following, [after[name] for name in self.states]

    def evaluate(self, x: Tensor, y: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        """sum of the losses, number of counted targets, sums of the metrics"""
        scores = self._scores(x, flat)
        total, count = self.objective.total(scores, y)
        return (total, count, *(metric.total(scores, y, self.objective) for metric in self.plan.metrics))

    def predict(self, x: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        """probabilities or values"""
        y = self.plan.example[1]
        scores = self._scores(x, flat)
        return (self.objective.answer(scores, y, probabilities=self.probabilities),)

    def _scores(self, x: Tensor, flat: Sequence[Tensor]) -> Tensor:
        scores: Tensor = functional_call(self.plan.model, inventory.bind(self.held, flat), (x.clone(),))
        return scores
