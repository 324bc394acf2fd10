"""The inputs and outputs that each of a job's three graphs must have, by name, element type, shape and order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atoll.graph.spec import Input, JobSpec, Output, Target, Tensor

BATCH = "batch"
FLOAT, UINT8, INT64 = 1, 2, 7  # ONNX element types
ELEMENT = {"float32": FLOAT, "uint8": UINT8, "int64": INT64}
EVALUATE_BATCH = 64  # samples that evaluation and prediction take at once, at most
EVALUATE_BYTES = 1 << 20  # and no more than so many bytes of inputs

Kind = Literal["step", "evaluate", "predict"]
Port = tuple[str, int, tuple[int | str, ...]]  # name, element type, shape; the string is the symbolic dimension


@dataclass(frozen=True)
class Ports:
    """What the graphs of a job have in common: tensors in manifest order, one sample's shapes, metrics."""

    tensors: tuple[Tensor, ...]
    input: Input
    target: Target
    output: Output
    metrics: tuple[str, ...] = ()

    @property
    def evaluate_batch(self) -> int:
        """Samples that evaluation and prediction take at once."""
        return max(1, min(EVALUATE_BATCH, EVALUATE_BYTES // self.input.sample_bytes))


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a graph in order, the batch size with which it will be run, and the vector's length."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batch: int
    parameters: int


def signature(kind: Kind, ports: Ports, batch: int = 0) -> Signature:
    """The signature of a graph of this kind; `batch` is the size to plan for (0: that of evaluation)."""
    batch = batch or ports.evaluate_batch
    x: Port = ("x", ELEMENT[ports.input.dtype], (BATCH, *ports.input.shape))
    y: Port = ("y", ELEMENT[ports.target.dtype], (BATCH, *ports.target.shape))
    certified, reset, frozen = (_ports(ports.tensors, *roles) for roles in _GROUPS)
    length = sum(tensor.size for tensor in ports.tensors if tensor.role in _GROUPS[0])
    if kind == "predict":
        scores: Port = ("scores", FLOAT, (BATCH, *ports.output.shape))
        return Signature((x, *certified, *frozen), (scores,), batch, length)
    loss: Port = ("loss", FLOAT, ())
    if kind == "evaluate":
        sums: list[Port] = [(f"metric.{name}", FLOAT, ()) for name in ports.metrics]
        return Signature((x, y, *certified, *frozen), (loss, ("count", INT64, ()), *sums), batch, length)
    changing = [*certified, *reset]
    following: list[Port] = [(f"next.{name}", element, shape) for name, element, shape in changing]
    counters: list[Port] = [("step", INT64, ()), ("seed", INT64, ()), ("learning_rate", FLOAT, ())]
    return Signature((x, y, *counters, *changing, *frozen), (loss, *following), batch, length)


_GROUPS = (("parameter", "aggregate"), ("reset",), ("frozen",))


def _ports(tensors: tuple[Tensor, ...], *roles: str) -> list[Port]:
    return [(tensor.name, FLOAT, tensor.shape) for tensor in tensors if tensor.role in roles]


def ports_of(spec: JobSpec) -> Ports:
    """The ports that a job announces."""
    return Ports(spec.tensors, spec.input, spec.target, spec.output, spec.metrics)


def signature_of(spec: JobSpec, kind: Kind) -> Signature:
    """The signature that a job announces for one of its graphs."""
    return signature(kind, ports_of(spec), spec.batch if kind == "step" else 0)
