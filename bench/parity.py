"""The same federated training under Flower's simulation and under Atoll: accuracy by round, time, bytes, memory.

    python bench/parity.py [--flower-venv DIR] [--rounds N] [--json FILE]

The CNN of the zoo on the bundled 10,000 images of MNIST, dealt to ten clients whose labels are in proportions from a
Dirichlet distribution (0.5); 1,000 samples each. Equal on both sides: samples, first parameters, 20 steps of 32 samples
in a round, SGD 0.05 with momentum 0.9 that starts at zero in each round, gradient norm at most 1, all clients in each
round, the mean of their parameters (FedAvg), 2,000 held-out images to grade each model. Not equal: the order of the
batches (Atoll draws it from a beacon that nobody knows before), so Flower runs with several seeds: their spread is what
the order alone makes.

Flower 1.41.0 with Ray in an environment of its own, made if it is not there (torch as well): clients are function calls
in worker processes. Atoll is `atoll up`: a chain and ten node processes that speak QUIC, with commitments, audits,
certificates and payments, updates as int8; a second time with the rule that it uses unless told otherwise (robust).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flower
import numpy as np
import parity_atoll
import parity_data
import proc
import torch

from atoll.graph.archive import JobFile
from atoll.graph.zoo import load_zoo
from atoll.graph.zoo.make import RECIPES, build
from atoll.training.data.named import bundled_mnist

APP = Path(__file__).parent / "flower_parity"
MODEL, CLIENTS, SAMPLES, CONCENTRATION, CLIP = "cnn", 10, 1_000, 0.5, 1.0
LAST = 3  # rounds that are averaged at the end


def flower_run(programs: Path, data: Path, rounds: int, seed: int) -> dict[str, Any]:
    """Flower's simulation on the written data, with this seed for its batches."""
    with flower.running(programs) as running, proc.Watch(str(running.home)) as memory:
        begin = time.time()
        port, options = flower.start_simulation(running, CLIENTS)
        ready = time.time() - begin
        config = {"clients": CLIENTS, "rounds": rounds, "seed": seed, "data": f'"{data}"'}
        found = flower.run_app(running, port, config, options, 180 + 30 * rounds, APP)
        wall = time.time() - begin
    if set(found["replies"]) != {CLIENTS}:
        raise RuntimeError(f"Flower's rounds had {found['replies']} replies, expected {CLIENTS} each")
    began, scores = found["began"], found["scores"]
    later = [late - early for early, late in zip(began, [*began[1:], found["finished"]], strict=True)][1:]
    return {
        "seed": seed,
        "first": scores[0],
        "accuracy": [one["accuracy"] for one in scores[1:]],
        "loss": [one["loss"] for one in scores[1:]],
        "accepted": found["replies"],
        "start_up": ready + began[0] - found["asked"],
        "training": found["finished"] - began[0],
        "first_round": found["ended"][0] - began[0],
        "round_seconds": statistics.median(later) if later else found["finished"] - began[0],
        "wall": wall,
        "up": found["up"],
        "down": found["down"],
        "round_up": found["up"] // rounds,
        "round_down": found["down"] // rounds,
        "late_up": found["up"] // rounds,
        "late_down": found["down"] // rounds,
        **memory.facts(),
    }


def first_scores(job: JobFile) -> dict[str, float]:
    """Loss and accuracy of the zoo's torch model before any training; raises RuntimeError if it is not the job's."""
    model = build(MODEL)
    for name, value in model.named_parameters():
        if not np.array_equal(value.detach().numpy(), job.values[name]):
            raise RuntimeError(f"{name} of the torch model is not that of the job file")
    held_out = bundled_mnist()[1]
    with torch.no_grad():
        scores = model(torch.from_numpy(held_out.x.reshape(-1, *job.spec.input.shape).copy()))
    y = torch.from_numpy(held_out.y)
    loss = torch.nn.functional.cross_entropy(scores, y)
    return {"loss": float(loss), "accuracy": float((scores.argmax(1) == y).float().mean())}


def check_first(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Both sides start from one model, so they grade it alike."""
    if abs(ours["loss"] - theirs["loss"]) > 1e-5 or abs(ours["accuracy"] - theirs["accuracy"]) > 1e-6:
        raise RuntimeError(f"the first models differ: {ours} here, {theirs} under Flower")


def measure(options: argparse.Namespace, programs: Path) -> dict[str, Any]:
    """Everything, one after the other."""
    job, recipe = load_zoo(MODEL), RECIPES[MODEL]
    settings = {
        "steps": job.spec.steps,
        "batch": job.spec.batch,
        "learning_rate": job.spec.hyper.learning_rate,
        "momentum": recipe.optimizer.momentum,
        "clip": CLIP,
    }
    with tempfile.TemporaryDirectory(prefix="parity-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        homes = [place / f"home-{number}" for number in range(len(options.rules))]
        facts: Any = None
        for number, home in enumerate(homes):
            home.mkdir()
            written = place / f"data-{number}"
            facts = parity_data.write(home, written, job, CLIENTS, SAMPLES, CONCENTRATION, options.seed)
        data = place / "data-0"
        parity_data.write_settings(data, settings)
        first, load, theirs = first_scores(job), [proc.load()], []
        for seed in range(options.flower_runs):
            theirs.append(flower_run(programs, data, options.rounds, seed))
            check_first(first, theirs[-1]["first"])
            print(f"Flower, seed {seed}: {_percent(theirs[-1]['accuracy'][-1])}", flush=True)
        load.append(proc.load())
        ours = []
        for rule, home in zip(options.rules, homes, strict=True):
            run = parity_atoll.run(home, parity_data.NAME, CLIENTS, options.rounds, rule)
            ours.append({"rule": rule, **run})
            print(f"Atoll, {rule}: {_percent(run['accuracy'][-1])}", flush=True)
            load.append(proc.load())
    return {"settings": settings, "data": facts, "first": first, "load": load, "flower": theirs, "atoll": ours}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Accuracy at the end, mean over the runs of each kind, and its differences to Flower's in points."""
    kinds = {"flower": [run["accuracy"] for run in found["flower"]]}
    for run in found["atoll"]:
        kinds.setdefault(run["rule"], []).append(run["accuracy"])
    means = {
        name: {what: statistics.mean(end[what] for end in map(_end, runs)) for what in ("end", "last")}
        for name, runs in kinds.items()
    }
    theirs = means["flower"]
    points = {
        name: {what: 100 * (value - theirs[what]) for what, value in ours.items()}
        for name, ours in means.items()
        if name != "flower"
    }
    return {"means": means, "points_from_flower": points}


def _end(accuracy: Sequence[float]) -> dict[str, float]:
    """Accuracy after the last round, and the mean of the last few."""
    return {"end": accuracy[-1], "last": statistics.mean(accuracy[-LAST:])}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def show(found: dict[str, Any], ends: dict[str, Any]) -> None:
    """The tables, in Markdown."""
    theirs, ours = found["flower"], found["atoll"]
    names = [*(f"Flower, seed {run['seed']}" for run in theirs), *(f"Atoll, {run['rule']}" for run in ours)]
    runs = [*theirs, *ours]
    _row("accuracy in %, after round", *names)
    _row("---", *(["---"] * len(names)))
    for number in range(len(theirs[0]["accuracy"])):
        _row(str(number + 1), *(_percent(run["accuracy"][number]) for run in runs))
    _row(f"mean of the last {LAST}", *(_percent(_end(run["accuracy"])["last"]) for run in runs))
    print()
    for rule, points in ends["points_from_flower"].items():
        print(
            f"Atoll ({rule}) less Flower, means of the runs: {points['end']:+.2f} points at the end, "
            f"{points['last']:+.2f} over the last {LAST} rounds"
        )
    print()
    _row("", *names)
    _row("---", *(["---"] * len(names)))
    for what, tell in FIGURES.items():
        _row(what, *(tell(run) for run in runs))


def _row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |")


def _mega(value: int) -> str:
    return f"{value / 1e6:.2f}"


FIGURES = {
    "start-up, s": lambda run: f"{run['start_up']:.1f}",
    "all rounds, s": lambda run: f"{run['training']:.1f}",
    "settling and a test question, s": lambda run: f"{run['settling']:.1f}" if "settling" in run else "-",
    "from the command to its end, s": lambda run: f"{run['wall']:.1f}",
    "first round, s": lambda run: f"{run['first_round']:.1f}",
    "a round (median, without the first), s": lambda run: f"{run['round_seconds']:.2f}",
    "updates used, a round": lambda run: f"{statistics.mean(run['accepted']):.1f}",
    "bytes up, MB": lambda run: _mega(run["up"]),
    "bytes down, MB": lambda run: _mega(run["down"]),
    "bytes up, a round (without the first), MB": lambda run: _mega(run["round_up"]),
    "bytes up, a round (the last five), MB": lambda run: _mega(run["late_up"]),
    "CPU seconds of all processes": lambda run: f"{run['cpu_seconds']:.0f}",
    "peak memory of all processes (PSS), MB": lambda run: f"{run['peak_memory'] / 1e6:.0f}",
    "processes": lambda run: str(run["processes"]),
}


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flower-venv", type=Path, default=Path(".venv-flower"), help="made if it is not there")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of training (default 20)")
    parser.add_argument("--flower-runs", type=int, default=3, help="runs of Flower, each with its seed (default 3)")
    parser.add_argument(
        "--rules",
        nargs="+",
        choices=("mean", "robust"),
        default=["mean", "mean", "robust"],
        help="how Atoll aggregates: one run for each (default: mean mean robust)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the clients' samples")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args()
    found = measure(options, flower.environment(options.flower_venv, torch=True))
    found |= {"summary": summary(found), "rounds": options.rounds, "python": platform.python_version()}
    found |= {"flower_version": flower.FLOWER, "machine": proc.machine()}
    show(found, found["summary"])
    for run in found["atoll"]:
        print(f"\nAtoll, {run['rule']}: {len(run['rejected'])} refused units; payments recomputed: {run['explain']}")
    print(f"\nload before, between and after: {found['load']}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
