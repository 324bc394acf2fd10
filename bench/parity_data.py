"""The data of bench/parity.py: MNIST dealt to clients with label skew, for both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from atoll.graph.archive import JobFile
from atoll.training.data.card import About, Source, make_source
from atoll.training.data.kept import keep
from atoll.training.data.named import bundled_mnist
from atoll.training.data.samples import DataSet

CLASSES = 10
NAME = "mnist-clients"


def deal(labels: np.ndarray, clients: int, size: int, concentration: float, seed: int) -> list[np.ndarray]:
    """Indices of each client's samples: `size` each, their labels in proportions drawn from a Dirichlet distribution.

    A sample is dealt once. Only when all samples of a class are dealt, more of that class are drawn from all of them,
    so that the proportions stay those that were drawn.
    """
    generator = np.random.default_rng(seed)
    stock = [list(generator.permutation(np.flatnonzero(labels == label))) for label in range(CLASSES)]
    dealt = []
    for _ in range(clients):
        counts = _whole(generator.dirichlet([concentration] * CLASSES), size)
        chosen: list[int] = []
        for label, count in enumerate(counts):
            fresh = [stock[label].pop() for _ in range(min(count, len(stock[label])))]
            again = generator.choice(np.flatnonzero(labels == label), count - len(fresh))
            chosen += [*fresh, *again.tolist()]
        dealt.append(np.array(chosen, dtype=np.int64))
    return dealt


def _whole(shares: np.ndarray, total: int) -> list[int]:
    """Whole numbers of this total, as near to the shares as can be (largest remainders)."""
    exact = shares * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def write(home: Path, folder: Path, job: JobFile, clients: int, size: int, concentration: float, seed: int) -> Any:
    """The same samples for both: a kept data set in Atoll's `home`, arrays in `folder` for Flower. Returns facts."""
    train, held_out = bundled_mnist()
    dealt = deal(train.y, clients, size, concentration, seed)
    source = _source(train.take(np.concatenate(dealt)), held_out, clients, size)
    keep(home, source)
    shape = job.spec.input.shape
    folder.mkdir()
    parts = {f"client-{number}": train.take(rows) for number, rows in enumerate(dealt)} | {"held_out": held_out}
    for name, part in parts.items():
        np.savez(folder / f"{name}.npz", x=part.x.reshape(-1, *shape), y=part.y)
    np.savez(folder / "first.npz", **{one.name: job.values[one.name] for one in job.spec.vector_tensors})
    return {
        "clients": clients,
        "samples": size,
        "different_samples": len(np.unique(np.concatenate(dealt))),
        "labels": [np.bincount(train.y[rows], minlength=CLASSES).tolist() for rows in dealt],
    }


def _source(train: DataSet, held_out: DataSet, clients: int, size: int) -> Source:
    groups = [f"client-{number}" for number in range(clients) for _ in range(size)]
    about = About(
        licence="CC-BY-SA-3.0",
        origin="the bundled MNIST, dealt to clients with label skew",
        names=tuple(map(str, range(CLASSES))),
        by="client",
        groups=groups,
        group_count=clients,
    )
    return make_source(NAME, train, held_out, about)


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Hyper-parameters for Flower's app."""
    (folder / "job.json").write_text(json.dumps(settings))
