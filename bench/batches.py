"""Batches for the zoo's models: handwritten digits where the model takes pictures, else data with something to learn.

Deterministic. What is made up: text from a random Markov chain, movements of a frequency by class, and table rows
around a mean by class, with the means and deviations that the zoo's tables expect.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atoll.graph.spec import JobSpec
from atoll.training.data.named import bundled_mnist

Batches = tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]


def batches(spec: JobSpec, steps: int) -> Batches:
    """`x` [steps, batch, ...] and `y` [steps, batch, ...] for a job of the zoo."""
    rng = np.random.default_rng(0)
    shape, count = spec.input.shape, steps * spec.batch
    if spec.input.dtype == "uint8":
        digits, _ = bundled_mnist()
        chosen = rng.permutation(len(digits))[np.arange(count) % len(digits)]
        x, y = digits.x[chosen].reshape(count, *shape), digits.y[chosen]
    elif spec.input.dtype == "int64":
        x, y = _text(rng, count, shape[-1], spec.output.shape[-1])
    elif len(shape) > 1:
        x, y = _movements(rng, count, shape, spec.output.shape[-1])
    else:
        x, y = _rows(rng, count, shape[0], spec.output.shape[-1])
    return x.reshape(steps, spec.batch, *shape), y.astype(np.int64).reshape(steps, spec.batch, *spec.target.shape)


def _text(rng: np.random.Generator, count: int, length: int, characters: int) -> Batches:
    likely = rng.integers(0, characters, (characters, 4))  # each character has four that may follow it
    text = np.empty((count, length + 1), np.int64)
    text[:, 0] = rng.integers(0, characters, count)
    for place in range(length):
        text[:, place + 1] = likely[text[:, place], rng.integers(0, 4, count)]
    return text[:, :-1], text[:, 1:]


def _movements(rng: np.random.Generator, count: int, shape: tuple[int, ...], classes: int) -> Batches:
    y = rng.integers(0, classes, count)
    time = np.arange(shape[-1]) / shape[-1]
    phase = rng.uniform(0, 2 * np.pi, (count, shape[0], 1))
    wave = np.sin(2 * np.pi * (1 + y)[:, None, None] * time + phase)
    return (wave + rng.normal(0, 0.3, (count, *shape))).astype(np.float32), y


def _rows(rng: np.random.Generator, count: int, columns: int, classes: int) -> Batches:
    from atoll.graph.zoo.measures import DEVIATIONS, MEANS

    y = rng.integers(0, classes, count)
    centres = rng.normal(0, 0.5, (classes, columns))
    normal = centres[y] + rng.normal(size=(count, columns))
    return (np.array(MEANS) + np.array(DEVIATIONS) * normal).astype(np.float32), y
