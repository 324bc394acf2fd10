"""Which digit, or which piece of clothing? Four models of 28 x 28 pixels, from a linear one to a small MobileNet.

MNIST comes with Atoll (10,000 + 2,000 digits). Fashion-MNIST in full: examples/data/fashion_mnist.py; 1,000 + 200
pictures of it are here:

    atoll data add clothes examples/data/extracts/clothes.npz --licence MIT

Make a job file, look at it, train it on the network at hand:

    atoll job make examples/digits.py:cnn --out digits.atoll
    atoll job show digits.atoll
    atoll train digits.atoll --data mnist --rounds 20
"""

from __future__ import annotations

import torch
from torch import nn

import atoll
from atoll.graph.zoo.pictures import CNN, MLP, Depthwise, Softmax

# Shapes and types of a batch; pixels become floats inside the models, so that devices keep and send single bytes.
EXAMPLE = (torch.zeros(32, 1, 28, 28, dtype=torch.uint8), torch.zeros(32, dtype=torch.int64))


def softmax() -> atoll.Job:
    """A linear model: 7,850 parameters."""
    return picture_job(Softmax(), 0.02, "softmax")


def mlp() -> atoll.Job:
    """One hidden layer: 50,890 parameters."""
    return picture_job(MLP(), 0.05, "mlp")


def cnn() -> atoll.Job:
    """Two convolutions: 20,490 parameters."""
    return picture_job(CNN(), 0.05, "cnn")


def depthwise() -> atoll.Job:
    """Depthwise-separable convolutions with batch normalisation: 18,314 numbers, 256 of them running statistics."""
    return picture_job(Depthwise(), 0.02, "depthwise")


def picture_job(model: nn.Module, rate: float, name: str) -> atoll.Job:
    """The job that trains `model`."""
    optimizer = atoll.SGD(lr=rate, momentum=0.9)
    return atoll.job(model, nn.CrossEntropyLoss(), optimizer, EXAMPLE, metrics=[atoll.accuracy], name=name)
