"""`atoll.job`: a PyTorch model, its loss and its optimizer become a job file for any device (needs torch)."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from atoll.errors import BadInput, MachineError, Refused
from atoll.graph.archive import JobFile, pack
from atoll.graph.check import check_job
from atoll.graph.params import first_model, write_params
from atoll.graph.spec import JOB_NAME, Hyper, JobSpec
from atoll.graph.tracing import losses, metrics
from atoll.graph.tracing.optimizers import Optimizer
from atoll.graph.tracing.trace import Plan, TracedJob, trace
from atoll.wire.hashing import blob_id

_TARGETS = (torch.int64, torch.float32)
_INPUTS = (torch.uint8, torch.float32, torch.int64)


class JobOptions(TypedDict, total=False):
    """The keyword options of `job`; see there."""

    name: str | None
    batch: int | None
    steps: int
    segment: int
    clip: float | None
    output: Literal["probabilities", "values"] | None
    store: Literal["float32", "float16"]


@dataclass(frozen=True)
class _Options:
    name: str | None = None
    batch: int | None = None
    steps: int = 20
    segment: int = 10
    clip: float | None = 1.0
    output: str | None = None
    store: str = "float32"

    def __post_init__(self) -> None:
        if self.output not in (None, "probabilities", "values"):
            raise BadInput(f"output is {self.output!r}, expected 'probabilities' or 'values'")
        if self.store not in ("float32", "float16"):
            raise BadInput(f"store is {self.store!r}, expected 'float32' or 'float16'")
        if self.clip is not None and not self.clip > 0:
            raise BadInput(f"clip is {self.clip}, expected a positive number, or None to switch it off")


@dataclass(frozen=True)
class Job:
    """A job that can be saved and posted."""

    file: JobFile

    @property
    def id(self) -> bytes:
        """BLAKE3 of the job's document, which names all its parts by their hashes."""
        return self.file.id

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the job file. It appears whole or not at all; raises MachineError when it cannot be written."""
        target = Path(path)
        content = pack(self.file)
        try:
            handle, aside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(aside, 0o644)
                os.replace(aside, target)
            except BaseException:
                os.unlink(aside)
                raise
        except OSError as error:
            raise MachineError(
                f"{target} could not be written: {error.strerror or error}. Expected a folder that exists, on a disk "
                "with space left."
            ) from error


def job(
    model: nn.Module,
    loss: Any,
    optimizer: Optimizer,
    example: tuple[Tensor, Tensor],
    metrics: Sequence[Any] = (),
    **options: Unpack[JobOptions],
) -> Job:
    """Make a job of a model and how it is trained.

    `model(x)` gives scores for a batch; it is not changed. `loss` is one of torch's loss modules or functions,
    `atoll.contrastive(...)`, or a function `(scores, y) -> mean`. `optimizer` is `atoll.SGD`, `Adam` or `AdamW`.
    `example` is a batch `(x, y)` whose shapes and dtypes count: x uint8, float32 or int64 [batch, ...]; y int64 labels
    or float32 values [batch, ...]. `metrics` are `atoll.accuracy` and the like, or functions `(scores, y) -> sum`.

    Options: `name` of the job (default: the model's class); `batch` samples a step (default: as many as the example
    has, 32 if it has one); `steps` of a unit of work and of a `segment` of it; `clip`, the largest norm of the
    gradient, or None; `output`, whether predictions are "probabilities" of classes (default with a cross-entropy) or
    "values"; `store`, "float16" to keep frozen tensors in half the space.

    Raises BadInput, with the line of the model that is the cause, when something cannot be traced.
    """
    unknown = set(options) - {field.name for field in fields(_Options)}
    if unknown:
        known = ", ".join(field.name for field in fields(_Options))
        raise BadInput(f"atoll.job has no option {sorted(unknown)[0]!r}; it has {known}")
    chosen = _Options(**options)
    if not isinstance(model, nn.Module):
        raise BadInput(f"the model is a {type(model).__name__}, expected a torch.nn.Module")
    plan = Plan(
        model=model,
        objective=losses.objective(loss),
        optimizer=optimizer,
        example=_example(example),
        metrics=_metrics(metrics),
        clip=chosen.clip,
        probabilities=None if chosen.output is None else chosen.output == "probabilities",
    )
    found = trace(plan)
    file = _file(found, plan, chosen)
    _gate(file)
    return Job(file)


_metrics = metrics.read  # the parameter of the same name hides the module


def _example(example: Any) -> tuple[Tensor, Tensor]:
    wrong = not isinstance(example, tuple | list) or len(example) != 2
    if wrong or not all(isinstance(one, Tensor) and one.dim() for one in example):
        raise BadInput("the example must be a batch (x, y) of two tensors, samples along the first dimension")
    x, y = example
    if x.dtype not in _INPUTS:
        raise BadInput(
            f"the example's x is {x.dtype}, expected uint8, float32 or int64; convert it, e.g. with .float()"
        )
    if y.dtype not in _TARGETS:
        raise BadInput(f"the example's y is {y.dtype}, expected int64 labels (.long()) or float32 values (.float())")
    if len(x) != len(y) or not len(x):
        raise BadInput(f"the example has {len(x)} samples in x and {len(y)} in y, expected as many, at least one")
    return x.detach(), y.detach()


def _file(found: TracedJob, plan: Plan, chosen: _Options) -> JobFile:
    frozen = {tensor.name for tensor in found.ports.tensors if tensor.role == "frozen"}
    stored: dict[str, Any] = dict(found.values)
    if chosen.store == "float16":
        stored |= {name: _halved(name, found.values[name]) for name in frozen}
    params = write_params(stored)
    samples = len(plan.example[0])
    spec = JobSpec(
        name=_name(plan.model) if chosen.name is None else chosen.name,
        step=blob_id(found.step).hex(),
        evaluate=blob_id(found.evaluate).hex(),
        predict=blob_id(found.predict).hex(),
        params=blob_id(params).hex(),
        initial=blob_id(first_model(found.values, found.ports.tensors)).hex(),
        tensors=found.ports.tensors,
        input=found.ports.input,
        target=found.ports.target,
        output=found.ports.output,
        metrics=found.ports.metrics,
        hyper=Hyper(learning_rate=float(plan.optimizer.lr)),
        batch=chosen.batch if chosen.batch is not None else samples if samples > 1 else 32,
        steps=chosen.steps,
        segment=min(chosen.segment, chosen.steps),
    )
    try:
        spec.check()
    except Refused as refused:
        raise BadInput(f"this cannot be a job: {refused.detail}") from refused
    return JobFile(spec, found.step, found.evaluate, found.predict, params)


def _halved(name: str, value: Any) -> Any:
    half = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise BadInput(f"{name} holds values beyond float16's 65504; use store='float32'")
    return half


def _name(model: nn.Module) -> str:
    name = re.sub(r"[^a-z0-9._-]", "", type(model).__name__.lower())
    return name if JOB_NAME.fullmatch(name) else "job"


def _gate(file: JobFile) -> None:
    """Every node checks a job before it runs: say now what they would refuse."""
    try:
        check_job(file.spec, file.step, file.evaluate, file.predict)
    except Refused as refused:
        raise BadInput(f"nodes would refuse this job: {refused}. docs/jobs.md says what a graph may hold.") from refused
