"""The inputs and outputs that each of a job's three graphs must have, by name, element type, shape and order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atoll.graph.manifest import Input, Manifest, Tensor

BATCH = "batch"
FLOAT, UINT8, INT64 = 1, 2, 7  # ONNX element types
ELEMENT = {"float32": FLOAT, "uint8": UINT8, "int64": INT64}
EVALUATE_BATCH = 500  # samples that evaluation and prediction take at once

Kind = Literal["step", "evaluate", "predict"]
Port = tuple[str, int, tuple[int | str, ...]]  # name, element type, shape; the string is the symbolic dimension


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a graph in order, the batch size with which it will be run, and the vector's length."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batch: int
    parameters: int


def signature(
    kind: Kind, tensors: tuple[Tensor, ...], sample: Input, classes: int, batch: int = EVALUATE_BATCH
) -> Signature:
    """The signature of a graph of this kind; `batch` is the size to plan for (memory, compute)."""
    x: Port = ("x", ELEMENT[sample.dtype], (BATCH, *sample.shape))
    y: Port = ("y", INT64, (BATCH,))
    length = sum(tensor.size for tensor in tensors if tensor.role != "reset")
    certified: list[Port] = [(tensor.name, FLOAT, tensor.shape) for tensor in tensors if tensor.role != "reset"]
    if kind == "predict":
        return Signature((x, *certified), (("scores", FLOAT, (BATCH, classes)),), batch, length)
    if kind == "evaluate":
        return Signature((x, y, *certified), (("loss", FLOAT, ()), ("correct", INT64, ())), batch, length)
    everything: list[Port] = [(tensor.name, FLOAT, tensor.shape) for tensor in tensors]
    following: list[Port] = [(f"next.{name}", element, shape) for name, element, shape in everything]
    counters: list[Port] = [("step", INT64, ()), ("learning_rate", FLOAT, ())]
    return Signature((x, y, *counters, *everything), (("loss", FLOAT, ()), *following), batch, length)


def signature_of(manifest: Manifest, kind: Kind) -> Signature:
    """The signature that a manifest announces."""
    batch = manifest.batch if kind == "step" else EVALUATE_BATCH
    return signature(kind, manifest.tensors, manifest.input, manifest.classes, batch)
