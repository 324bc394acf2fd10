"""`atoll job`: make a job file from a PyTorch model, look at one, put one through the gate."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import statistics
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from atoll.cli import homes
from atoll.cli.commands import AsJson, Home, Json, readable, tell, waiting
from atoll.cli.plan import COMMITTEE, POLICY, worst_case
from atoll.errors import AtollError, BadInput, NotRunning
from atoll.gateway import figures
from atoll.graph.archive import MAX_ARCHIVE_BYTES, JobFile, unpack
from atoll.graph.check import GraphFacts, check_job
from atoll.graph.engine import Engine
from atoll.graph.params import frozen_of
from atoll.graph.session import Pace
from atoll.graph.spec import JobSpec
from atoll.graph.zoo import NAMES, load_zoo
from atoll.ledger.receipts import TOKEN, amount_text

OVERHEAD_SECONDS = 1.0  # of a round on one machine beside its training: bench/README.md, "A round"
TIMED_STEPS = 5
ASSUMED_NODES = 6  # where no network is at hand


class Rule(StrEnum):
    """How accepted updates become one."""

    robust = "robust"
    mean = "mean"


JobArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A job file (.atoll).")]


def open_job(file: Path) -> JobFile:
    """Read a job file; raises BadInput when it cannot be read, Refused when it is not a good one."""
    path = Path(readable(file))
    if path.stat().st_size > MAX_ARCHIVE_BYTES:
        raise BadInput(f"{path} holds {path.stat().st_size} bytes: a job file has at most {MAX_ARCHIVE_BYTES}.")
    return unpack(path.read_bytes())


def find_job(name: str) -> JobFile:
    """A job of the zoo by its name, or a job file by its path; raises BadInput with what there is."""
    if name in NAMES:
        return load_zoo(name)
    if not Path(name).expanduser().is_file():
        raise BadInput(f"--model {name}: expected {', '.join(NAMES)}, or the path of a job file.")
    return open_job(Path(name))


# atoll job make
def make(
    source: Annotated[str, typer.Argument(metavar="FILE.py:NAME", help="Your file, and the name of the job in it.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Default: NAME.atoll.")] = None,
    as_json: AsJson = False,
) -> int:
    """Make a job file from a Python file that calls `atoll.job(...)`. Runs that file: use it for your own only."""
    path, name = _split(source)
    with waiting("Tracing the model"):
        job = _load(path, name)
    target = (out or Path(f"{name}.atoll")).expanduser().absolute()
    job.save(target)
    file = open_job(target)
    size = target.stat().st_size
    found = {"file": str(target), "id": file.id.hex(), "bytes": size}
    text = f"{target} ({figures.size(size)}), id {file.id.hex()}\nLook at it: atoll job show {target.name}"
    tell(as_json, found, text)
    return 0


def _split(source: str) -> tuple[Path, str]:
    text, colon, name = source.rpartition(":")
    path = Path(text).expanduser()
    if not colon or not name.isidentifier() or path.suffix != ".py" or not path.is_file():
        raise BadInput(f"{source}: expected a Python file that exists and the name of a job in it, as model.py:job.")
    return path.absolute(), name


def _load(path: Path, name: str) -> Any:
    """The job `name` of the user's own file, or what the function of that name gives; the file is run as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path} cannot be loaded as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
        found = getattr(module, name, None)
        job = found() if inspect.isfunction(found) else found
    except AtollError:
        raise
    except Exception as error:  # whatever the user's file raises is the user's to read, in one sentence
        raise BadInput(f"{path}: {_where(error, path)}{type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    if not hasattr(job, "save"):
        raise BadInput(
            f"{path} has no job called {name}: expected a line such as {name} = atoll.job(model, loss, ...), "
            "or a function that gives one."
        )
    return job


def _where(error: Exception, path: Path) -> str:
    """ "line 12: " for the innermost line of the user's file that an error came through."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"line {line}: " if line else ""


# atoll job check
def check(file: JobArgument, as_json: AsJson = False) -> int:
    """Put a job file through the gate that every node has: nothing is run; ends with an error if a node refused it."""
    job = open_job(file)
    facts = check_job(job.spec, job.step, job.evaluate, job.predict)
    found = {"file": str(file), "id": job.id.hex(), "accepted": True, "graphs": _graphs(job, facts)}
    tell(as_json, found, Group(Text(f"{file}: accepted, id {job.id.hex()}", style="green"), _graph_table(found)))
    return 0


def _graphs(job: JobFile, facts: Mapping[Any, GraphFacts]) -> dict[str, Json]:
    sizes = {"step": len(job.step), "evaluate": len(job.evaluate), "predict": len(job.predict)}
    return {
        kind: {"bytes": sizes[kind], "ops": found.ops, "flops": found.flops, "memory": found.memory_bytes}
        for kind, found in facts.items()
    }


def _graph_table(found: Json) -> Table:
    table = Table("graph", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("size", "operators", "operations", "memory"):
        table.add_column(heading, justify="right")
    for kind, one in found["graphs"].items():
        nodes = sum(one["ops"].values())
        table.add_row(kind, figures.size(one["bytes"]), str(nodes), _count(one["flops"]), figures.size(one["memory"]))
    return table


def _count(value: float) -> str:
    """1234567 -> "1.2 M"."""
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000 or unit == "T":
            return f"{value:.0f}" if not unit else f"{value:.1f} {unit}"
        value /= 1000
    return ""


# atoll job show
def show(
    file: JobArgument,
    rounds: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rounds to price.")] = 12,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Nodes to price for. Default: those of the running network.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> int:
    """Show what a job computes, what travels, and what it would cost and take on the network at hand."""
    job = open_job(file)
    facts = check_job(job.spec, job.step, job.evaluate, job.predict)
    with waiting("Timing a few steps on this device"):
        seconds = asyncio.run(_time_step(job))
    count, where = _nodes(nodes, home)
    found = {
        "file": str(file),
        "id": job.id.hex(),
        "name": job.spec.name,
        "tensors": [{"name": one.name, "shape": list(one.shape), "role": one.role} for one in job.spec.tensors],
        "parameters": _parameters(job.spec),
        "graphs": _graphs(job, facts),
        "step_seconds": round(seconds, 6),
        "update_bytes": _update_bytes(job.spec),
        "estimate": _estimate(job.spec, seconds, count, rounds),
        "nodes": where,
    }
    tell(as_json, found, _show_view(job.spec, found))
    return 0


async def _time_step(job: JobFile) -> float:
    """Median seconds of a training step on this device, with zeros for data, in the engine that nodes use."""
    spec = job.spec
    x = np.zeros((TIMED_STEPS, spec.batch, *spec.input.shape), spec.input.dtype)
    y = np.zeros((TIMED_STEPS, spec.batch, *spec.target.shape), spec.target.dtype)
    tensors = {one.name: job.values[one.name] for one in spec.vector_tensors}
    tensors |= {one.name: np.zeros(one.shape, np.float32) for one in spec.reset_tensors}
    frozen, pace, times = frozen_of(job.params, spec.tensors), Pace(0, 0, spec.hyper.learning_rate), []
    async with Engine() as engine:
        await engine.train(job.step, tensors, x[:1], y[:1], pace, frozen)
        for _ in range(3):
            began = time.perf_counter()
            await engine.train(job.step, tensors, x, y, pace, frozen)
            times.append((time.perf_counter() - began) / TIMED_STEPS)
    return statistics.median(times)


def _nodes(given: int | None, home: Path | None) -> tuple[int, str]:
    """How many nodes to price for, and where the number is from."""
    if given is not None:
        return given, f"{given} nodes, as asked"
    try:
        count = int(homes.ask(homes.base(home), "status")["peers"]) + 1
    except NotRunning:
        return ASSUMED_NODES, f"{ASSUMED_NODES} nodes, assumed: no network runs here"
    return count, f"{count} nodes of the running network"


def _parameters(spec: JobSpec) -> dict[str, int]:
    sums = {role: sum(one.size for one in spec.tensors if one.role == role) for role in ("parameter", "aggregate")}
    frozen = sum(one.size for one in spec.frozen_tensors)
    return {"trained": sums["parameter"], "statistics": sums["aggregate"], "frozen": frozen}


def _update_bytes(spec: JobSpec) -> dict[str, int]:
    """Bytes of one worker's update: int8 in blocks is what travels, the others are for comparison."""
    length = spec.vector_length
    blocks = -(-length // spec.update.block)
    return {"float32": 4 * length, "float16": 2 * length, "int8": spec.update_bytes, "int4": blocks + -(-length // 2)}


def _estimate(spec: JobSpec, step_seconds: float, nodes: int, rounds: int) -> dict[str, Json]:
    """Price: all units paid and, as a rule, half of them audited; at most, every unit disputed."""
    cores = os.cpu_count() or 1
    work = spec.steps * step_seconds
    usual = nodes * POLICY.unit_price + nodes * POLICY.audit_price // 2 + min(nodes, COMMITTEE) * POLICY.validator_price
    return {
        "rounds": rounds,
        "price": str(usual * rounds),
        "price_at_most": str(worst_case(nodes) * rounds),
        "seconds_own_devices": round(rounds * (2 * work + OVERHEAD_SECONDS), 1),
        "seconds_one_device": round(rounds * (1.5 * work * nodes / cores + OVERHEAD_SECONDS), 1),
    }


def _show_view(spec: JobSpec, found: Json) -> RenderableType:
    layers = Table("layer", "role", box=None, header_style="dim", padding=(0, 2, 0, 0))
    layers.add_column("shapes")
    layers.add_column("values", justify="right")
    for name, role, shapes, values in _layers(spec):
        layers.add_row(name, role, shapes, f"{values:,}")
    numbers, estimate = found["parameters"], found["estimate"]
    everything = sum(numbers.values())
    share = numbers["trained"] / everything
    facts = Table.grid(padding=(0, 2))
    facts.add_row(Text("job", style="dim"), f"{spec.name}, id {found['id']}")
    facts.add_row(
        Text("parameters", style="dim"), f"{everything:,}, of which {numbers['trained']:,} ({share:.1%}) are trained"
    )
    facts.add_row(Text("a unit", style="dim"), f"{spec.steps} steps of {spec.batch} samples")
    facts.add_row(Text("a step", style="dim"), f"{1000 * found['step_seconds']:.2f} ms on this device, one thread")
    sizes = found["update_bytes"]
    update = ", ".join(f"{kind} {figures.size(size)}" for kind, size in sizes.items())
    facts.add_row(Text("an update", style="dim"), f"{update}; int8 is what travels")
    usual, most = (amount_text(int(estimate[key])) for key in ("price", "price_at_most"))
    price = f"{usual} {TOKEN} as a rule, {most} at most"
    facts.add_row(Text("price", style="dim"), f"{price} ({estimate['rounds']} rounds, {found['nodes']})")
    facts.add_row(
        Text("time", style="dim"),
        f"about {figures.duration(estimate['seconds_own_devices'])} on devices like this one, "
        f"{figures.duration(estimate['seconds_one_device'])} with all nodes on this one",
    )
    return Group(facts, Text(), layers, Text(), _graph_table(found))


def _layers(spec: JobSpec) -> list[tuple[str, str, str, int]]:
    """Tensors of one module and role together: name, role, shapes, number of values. Optimizer state is left out."""
    found: dict[tuple[str, str], list[Any]] = {}
    for tensor in spec.tensors:
        if tensor.role != "reset":
            found.setdefault((tensor.name.rpartition(".")[0] or tensor.name, tensor.role), []).append(tensor)
    words = {"parameter": "trained", "aggregate": "statistics", "frozen": "frozen"}
    return [
        (
            name,
            words[role],
            " ".join("x".join(map(str, one.shape)) or "1" for one in tensors),
            sum(one.size for one in tensors),
        )
        for (name, role), tensors in found.items()
    ]
