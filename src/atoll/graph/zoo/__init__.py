"""Ready jobs: traced graphs, first weights and proven hyper-parameters, shipped as files.

`python -m atoll.graph.zoo.make` (with the extra `torch`) regenerates the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors.numpy

from atoll.errors import BadInput
from atoll.graph.fixed import encode_vector
from atoll.graph.manifest import Data, Hyper, Input, Manifest, Policy, Tensor
from atoll.wire.hashing import blob_id

NAMES = ("cnn", "mlp", "softmax")


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`model.json`: what the graphs expect, and hyper-parameters that work."""

    tensors: tuple[Tensor, ...]
    input: Input
    classes: int
    learning_rate: float
    momentum: float
    batch: int
    steps: int
    segment: int


@dataclass(frozen=True)
class ZooModel:
    """A ready job without its data: three graphs (ONNX bytes), first values of the parameters, and its card."""

    name: str
    step: bytes
    evaluate: bytes
    predict: bytes
    initial: dict[str, npt.NDArray[np.float32]]
    card: Card

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors of the step graph, in manifest order."""
        return self.card.tensors

    @property
    def initial_model(self) -> bytes:
        """The first model as MODEL BYTES."""
        certified = tuple(tensor for tensor in self.tensors if tensor.role != "reset")
        return encode_vector(certified, self.initial)

    def first_tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Values for all inputs of the step graph: the first model as float32, zeros for the reset tensors."""
        zeros = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in self.tensors if tensor.role == "reset"}
        return {**self.initial, **zeros}

    def manifest(self, data: Data, rounds: int, policy: Policy) -> Manifest:
        """The manifest of a job that trains this model on `data` with the card's hyper-parameters."""
        card = self.card
        return Manifest(
            name=self.name,
            step=blob_id(self.step).hex(),
            evaluate=blob_id(self.evaluate).hex(),
            predict=blob_id(self.predict).hex(),
            initial=blob_id(self.initial_model).hex(),
            tensors=card.tensors,
            input=card.input,
            classes=card.classes,
            data=data,
            hyper=Hyper(learning_rate=card.learning_rate),
            batch=card.batch,
            steps=card.steps,
            segment=card.segment,
            rounds=rounds,
            policy=policy,
        )


@cache
def load_zoo(name: str) -> ZooModel:
    """Load a model of the zoo by name (one of `NAMES`); raises BadInput for another name."""
    if name not in NAMES:
        raise BadInput(f"no model is called {name!r}; the zoo has {', '.join(NAMES)}")
    folder = resources.files(__name__) / name
    return ZooModel(
        name=name,
        step=(folder / "step.onnx").read_bytes(),
        evaluate=(folder / "evaluate.onnx").read_bytes(),
        predict=(folder / "predict.onnx").read_bytes(),
        initial=safetensors.numpy.load((folder / "initial.safetensors").read_bytes()),
        card=msgspec.json.decode((folder / "model.json").read_bytes(), type=Card),
    )
