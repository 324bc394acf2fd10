"""Regenerate the zoo's files from PyTorch: `python -m atoll.graph.zoo.make [FOLDER]` (needs the extra `torch`).

The same versions of torch and onnx give the same bytes; a test compares them with the files that are shipped.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from atoll.graph.archive import pack
from atoll.graph.tracing.job import job
from atoll.graph.tracing.metrics import accuracy
from atoll.graph.tracing.optimizers import SGD

# Mean and standard deviation of MNIST's pixels, 0 to 255.
PIXEL_MEAN = 33.3184
PIXEL_SCALE = 78.5675


class Pixels(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """uint8 pixels to float32 of mean 0 and deviation 1; part of the graph, so every node does the same."""

    def forward(self, x: Tensor) -> Tensor:
        """[batch, ...] uint8 -> the same shape, float32."""
        return (x.float() - PIXEL_MEAN) * (1 / PIXEL_SCALE)


class Softmax(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Logistic regression over 784 pixels: the smallest job that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.linear = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 28, 28] uint8 -> scores [batch, 10]."""
        scores: Tensor = self.linear(self.pixels(x).flatten(1))
        return scores


class MLP(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """One hidden layer of 64."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.hidden = nn.Linear(784, 64)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 28, 28] uint8 -> scores [batch, 10]."""
        scores: Tensor = self.linear(self.hidden(self.pixels(x).flatten(1)).relu())
        return scores


class CNN(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Two 3x3 convolutions of 16 and 32 channels with max-pools, and a linear layer: 20,490 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.linear = nn.Linear(32 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 28, 28] uint8 -> scores [batch, 10]."""
        x = functional.max_pool2d(self.conv1(self.pixels(x)).relu(), 2)
        x = functional.max_pool2d(self.conv2(x).relu(), 2)
        scores: Tensor = self.linear(x.flatten(1))
        return scores


@dataclass(frozen=True)
class Recipe:
    """A model of the zoo and the hyper-parameters that it learns well with."""

    model: type[nn.Module]
    learning_rate: float
    momentum: float
    batch: int = 32


RECIPES = {
    "cnn": Recipe(CNN, learning_rate=0.05, momentum=0.9),
    "mlp": Recipe(MLP, learning_rate=0.05, momentum=0.9),
    "softmax": Recipe(Softmax, learning_rate=0.02, momentum=0.9),
}


def build(name: str) -> nn.Module:
    """The model with its first weights, always the same ones."""
    torch.manual_seed(0)
    return RECIPES[name].model()


def make(name: str) -> bytes:
    """The job file of a model."""
    recipe = RECIPES[name]
    made = job(
        build(name),
        nn.CrossEntropyLoss(),
        SGD(lr=recipe.learning_rate, momentum=recipe.momentum),
        example=(torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)),
        metrics=[accuracy],
        name=name,
        batch=recipe.batch,
    )
    return pack(made.file)


def main() -> None:
    """Write every job file into FOLDER (default: this package)."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name in RECIPES:
        content = make(name)
        (target / f"{name}.atoll").write_bytes(content)
        sys.stdout.write(f"{name}.atoll: {len(content)} bytes\n")


if __name__ == "__main__":
    main()
