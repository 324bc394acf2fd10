"""The contestants of graphs.py: the same training by torch, by torch.compile, by our engine, by ONNX Runtime Web."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from atoll.graph.archive import JobFile
from atoll.graph.engine import Engine
from atoll.graph.params import frozen_of
from atoll.graph.session import LocalEngine, Pace, TrainResult
from atoll.graph.zoo.make import RECIPES, build

Array = npt.NDArray[Any]
Tensors = dict[str, Array]
WEB = Path(__file__).parent / "web"
SEED = 1


class Missing(Exception):
    """A contestant cannot take part; says why."""


@dataclass(frozen=True)
class Task:
    """A model of the zoo, its job, and the batches of all steps."""

    name: str
    job: JobFile
    x: Array
    y: Array

    def first(self) -> Tensors:
        """The tensors that change, before the first step."""
        values = {tensor.name: self.job.values[tensor.name] for tensor in self.job.spec.vector_tensors}
        return values | {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in self.job.spec.reset_tensors}


class Contestant(Protocol):
    """Trains in blocks of steps."""

    def block(self, first: int, last: int, number: int) -> float:
        """Do the steps from `first` to before `last` of the batches, `number` done before; milliseconds they took."""
        ...

    def tensors(self) -> Tensors:
        """Parameters as they are now, by name."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class Torch:
    """The usual loop; `compiled`: the model by torch.compile."""

    def __init__(self, task: Task, *, compiled: bool = False) -> None:
        self.recipe = RECIPES[task.name]
        self.model = build(task.name).train()
        self.optimizer = self.recipe.torch_optimizer(self.model.parameters())
        self.run: Callable[..., Any] = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.batches = [(torch.tensor(x), torch.tensor(y)) for x, y in zip(task.x, task.y, strict=True)]
        if compiled:
            self._warm_up()

    def _warm_up(self) -> None:
        x, y = self.batches[0]
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        try:
            self.recipe.loss(self.run(x), y).backward()
        except Exception as error:  # the compiler's errors have no common base; whatever it is, it does not work here
            raise Missing(f"torch.compile: {' '.join(str(error).split())[:160]}") from error
        self.model.load_state_dict(state)  # running statistics have moved
        self.optimizer.zero_grad(set_to_none=True)

    def block(self, first: int, last: int, number: int) -> float:
        """CPU time."""
        del number  # an optimizer in torch counts for itself
        start = time.process_time()
        for x, y in self.batches[first:last]:
            self.optimizer.zero_grad(set_to_none=True)
            self.recipe.loss(self.run(x), y).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return (time.process_time() - start) * 1e3

    def tensors(self) -> Tensors:
        """Copies of the parameters."""
        return {name: value.detach().numpy().copy() for name, value in self.model.named_parameters()}

    def close(self) -> None:
        """Nothing to end."""


@dataclass
class _Graph:
    """What both ways to run a graph natively have in common."""

    task: Task
    state: Tensors = field(init=False)

    def __post_init__(self) -> None:
        self.state = self.task.first()
        self.frozen = frozen_of(self.task.job.params, self.task.job.spec.tensors)

    def arguments(self, first: int, last: int, number: int) -> tuple[Any, ...]:
        job, task = self.task.job, self.task
        pace = Pace(number, SEED, job.spec.hyper.learning_rate)
        return job.step, self.state, task.x[first:last], task.y[first:last], pace, self.frozen

    def tensors(self) -> Tensors:
        """What the graph made of the parameters."""
        return self.state


class Native(_Graph):
    """Our engine's loop in this process: what the child process does between its pipes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.engine = LocalEngine()

    def block(self, first: int, last: int, number: int) -> float:
        """CPU time, the copies of the model in and out included."""
        arguments = self.arguments(first, last, number)
        start = time.process_time()
        found: TrainResult = self.engine.train(*arguments)
        took = (time.process_time() - start) * 1e3
        self.state = found.tensors
        return took

    def close(self) -> None:
        """Nothing to end."""


class Piped(_Graph):
    """The engine as a node uses it: a child process with limits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.runner = asyncio.Runner()
        self.engine = Engine()
        self.runner.run(self.engine.start())

    def block(self, first: int, last: int, number: int) -> float:
        """CPU time of both processes, the way through the pipes included; wall time where there is no /proc."""
        arguments = self.arguments(first, last, number)
        start = self._seconds()
        found = self.runner.run(self.engine.train(*arguments))
        took = (self._seconds() - start) * 1e3
        self.state = found.tensors
        return took

    def _seconds(self) -> float:
        counted = Path(f"/proc/{self.engine.pid}/schedstat")  # nanoseconds on a CPU, nanoseconds waited, turns
        if not counted.exists():
            return time.perf_counter()
        return time.process_time() + int(counted.read_text().split()[0]) / 1e9

    def close(self) -> None:
        """End the child."""
        self.runner.run(self.engine.close())
        self.runner.close()


class Web:
    """ONNX Runtime Web (WASM, one thread) under Node: web/train.mjs in a process of its own."""

    def __init__(self, task: Task) -> None:
        node = shutil.which("node")
        if node is None:
            raise Missing("ONNX Runtime Web: there is no Node here")
        if not (WEB / "node_modules").is_dir():
            raise Missing("ONNX Runtime Web is not installed: npm ci --ignore-scripts, in bench/web")
        self.spec = task.job.spec
        self.folder = tempfile.TemporaryDirectory()
        self._write(task, Path(self.folder.name))
        command = [node, str(WEB / "train.mjs"), self.folder.name]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def _write(self, task: Task, folder: Path) -> None:
        values = task.first() | {tensor.name: task.job.values[tensor.name] for tensor in self.spec.frozen_tensors}
        plan = {
            **{name: {"type": str(a.dtype), "shape": a.shape[1:]} for name, a in (("x", task.x), ("y", task.y))},
            "tensors": [{"name": name, "shape": value.shape} for name, value in values.items()],
            "changing": list(task.first()),
            "seed": SEED,
            "learning_rate": self.spec.hyper.learning_rate,
        }
        (folder / "plan.json").write_text(json.dumps(plan))
        (folder / "step.onnx").write_bytes(task.job.step)
        (folder / "x.bin").write_bytes(np.ascontiguousarray(task.x).tobytes())
        (folder / "y.bin").write_bytes(np.ascontiguousarray(task.y).tobytes())
        (folder / "tensors.bin").write_bytes(b"".join(np.float32(value).tobytes() for value in values.values()))
        self.layout = [(name, value.shape) for name, value in values.items()]

    def _answer(self) -> dict[str, float]:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            raise Missing(f"ONNX Runtime Web ended with code {self.child.wait()}")
        found: dict[str, float] = json.loads(line)
        return found

    def _ask(self, line: str) -> dict[str, float]:
        assert self.child.stdin is not None
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        return self._answer()

    def block(self, first: int, last: int, number: int) -> float:
        """CPU time of the Node process."""
        del number  # the script counts by the batches, and no schedule of the zoo's depends on it
        return self._ask(f"{first} {last}")["ms"]

    def tensors(self) -> Tensors:
        """The parameters; the process ends."""
        self._ask("end")
        raw = np.fromfile(Path(self.folder.name) / "out.bin", np.float32)
        found, start = {}, 0
        for name, shape in self.layout:
            size = int(np.prod(shape))
            found[name] = raw[start : start + size].reshape(shape)
            start += size
        return found

    def close(self) -> None:
        """End the process and drop its files."""
        self.child.kill()
        self.child.communicate()
        self.folder.cleanup()
