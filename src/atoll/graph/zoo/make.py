"""Regenerate the zoo's files from PyTorch (needs the extra `torch`).

`python -m atoll.graph.zoo.make [--to FOLDER] [NAME ...]` writes all of them, or those named.

The same versions of torch and onnx give the same bytes; a test compares them with the files that are shipped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atoll.graph.archive import pack
from atoll.graph.tracing.job import Job, job
from atoll.graph.tracing.metrics import accuracy
from atoll.graph.tracing.optimizers import SGD, Adam
from atoll.graph.zoo.measures import Logistic, Motion, Table
from atoll.graph.zoo.pictures import CNN, MLP, Depthwise, Softmax
from atoll.graph.zoo.texts import GPT, GRU, WINDOW

Example = tuple[Tensor, Tensor]
PICTURE: Example = (torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
TEXT: Example = (torch.zeros(1, WINDOW, dtype=torch.int64), torch.zeros(1, WINDOW, dtype=torch.int64))
MOVEMENT: Example = (torch.zeros(1, 6, 100), torch.zeros(1, dtype=torch.int64))
ROW: Example = (torch.zeros(1, 30), torch.zeros(1, dtype=torch.int64))


@dataclass(frozen=True)
class Recipe:
    """A model of the zoo and the hyper-parameters that it learns well with; the gradient's norm is clipped at 1."""

    model: Callable[[], nn.Module]
    example: Example
    optimizer: SGD | Adam
    batch: int = 32

    @property
    def learning_rate(self) -> float:
        """The optimizer's."""
        return self.optimizer.lr

    def torch_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """The same optimizer in torch."""
        one = self.optimizer
        if isinstance(one, SGD):
            return torch.optim.SGD(
                parameters, one.lr, one.momentum, weight_decay=one.weight_decay, nesterov=one.nesterov
            )
        return torch.optim.Adam(parameters, one.lr, one.betas, one.eps, one.weight_decay)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """The loss as plain torch: mean cross-entropy over all targets, classes last in `scores`."""
        found: Tensor = nn.functional.cross_entropy(scores.flatten(0, -2), y.flatten())
        return found


# Adam's eps is larger than usual: it divides what is rounding error in a tiny gradient by something that is no smaller,
# so that honest devices stay close to one another (2e-7 after 100 steps where eps 1e-8 gives 1e-5).
RECIPES = {
    "cnn": Recipe(CNN, PICTURE, SGD(lr=0.05, momentum=0.9)),
    "depthwise": Recipe(Depthwise, PICTURE, SGD(lr=0.05, momentum=0.9)),
    "gpt": Recipe(GPT, TEXT, Adam(lr=0.001, eps=1e-5), batch=16),
    "gru": Recipe(GRU, TEXT, SGD(lr=1.0, momentum=0.9), batch=16),
    "logistic": Recipe(Logistic, ROW, SGD(lr=0.05, momentum=0.9)),
    "mlp": Recipe(MLP, PICTURE, SGD(lr=0.05, momentum=0.9)),
    "motion": Recipe(Motion, MOVEMENT, SGD(lr=0.02, momentum=0.9)),
    "softmax": Recipe(Softmax, PICTURE, SGD(lr=0.02, momentum=0.9)),
    "table": Recipe(Table, ROW, SGD(lr=0.05, momentum=0.9)),
}


def build(name: str) -> nn.Module:
    """The model with its first weights, always the same ones."""
    torch.manual_seed(0)
    return RECIPES[name].model()


def make_job(name: str) -> Job:
    """The job of a model, with its first weights."""
    recipe = RECIPES[name]
    return job(
        build(name),
        nn.CrossEntropyLoss(),
        recipe.optimizer,
        example=recipe.example,
        metrics=[accuracy],
        name=name,
        batch=recipe.batch,
    )


def make(name: str) -> bytes:
    """The job file of a model."""
    return pack(make_job(name).file)


def main() -> None:
    """Write job files into a folder (default: this package)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, metavar="FOLDER")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(RECIPES)
    if unknown:
        parser.error(f"{sorted(unknown)[0]} is no model of the zoo: {', '.join(RECIPES)}")
    for name in chosen.names or RECIPES:
        content = make(name)
        (chosen.to / f"{name}.atoll").write_bytes(content)
        sys.stdout.write(f"{name}.atoll: {len(content)} bytes\n")


if __name__ == "__main__":
    main()
