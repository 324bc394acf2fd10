"""Run graphs with ONNX Runtime: `LocalEngine` in this process, and the child process of `atoll.graph.engine`.

`python -m atoll.graph.session MEMORY_BYTES CPU_SECONDS THREADS` limits itself, reads frames from its standard input
and writes one answer for each to its standard output, until the input ends.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from atoll.errors import EngineFailed
from atoll.graph import frames, pages, rlimits
from atoll.graph.frames import Array, Header
from atoll.wire.hashing import blob_id

CACHED_SESSIONS = 8
NEXT, METRIC = "next.", "metric."


@dataclass(frozen=True)
class Pace:
    """Where a run of steps stands: the global number of its first step, the unit's seed, the base learning rate."""

    first_step: int = 0
    seed: int = 0
    learning_rate: float = 0.1


@dataclass(frozen=True)
class TrainResult:
    """Tensors after the last step (float32, by name) and the loss before each step (float32 [steps])."""

    tensors: dict[str, Array]
    losses: Array


@dataclass(frozen=True)
class Frozen:
    """Tensors that never change, float32 by name, and the blob id of the file that they come from (kept by it)."""

    id: bytes
    tensors: Mapping[str, Array]


@dataclass(frozen=True)
class Evaluation:
    """Sums over all samples: the losses, the metrics by name; and how many targets they are sums over."""

    loss_sum: float
    count: int
    sums: dict[str, float]

    @property
    def loss(self) -> float:
        """Mean loss."""
        return self.loss_sum / max(1, self.count)

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of each metric."""
        return {name: value / max(1, self.count) for name, value in self.sums.items()}


class LocalEngine:
    """Runs graphs in this process, one at a time: for the simulator and for trusted graphs. Same results as `Engine`.

    Every method raises EngineFailed when ONNX Runtime refuses the graph or its inputs, or runs out of memory.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._sessions: OrderedDict[bytes, Any] = OrderedDict()
        self._frozen: Frozen | None = None

    def train(
        self,
        graph: bytes,
        tensors: Mapping[str, Array],
        x: Array,
        y: Array,
        pace: Pace,
        frozen: Frozen | None = None,
    ) -> TrainResult:
        """Run `len(x)` steps of a step graph.

        `x` [steps, batch, ...], `y` [steps, batch, ...]; `tensors` float32, all that the graph changes; `frozen` what
        it takes besides. The arrays given are not changed.
        """
        try:
            return _train(self._session(graph), tensors, x, y, pace, frozen.tensors if frozen else {})
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise _failure(error) from error

    def evaluate(
        self, graph: bytes, tensors: Mapping[str, Array], x: Array, y: Array, batch: int, frozen: Frozen | None = None
    ) -> Evaluation:
        """Loss and metrics over all samples, `x` [n, ...] and `y` [n, ...], in batches of `batch`."""
        try:
            session = self._session(graph)
            names = [port.name for port in session.get_outputs()]
            totals = dict.fromkeys(names, 0.0)
            given = {**tensors, **(frozen.tensors if frozen else {})}
            for start in range(0, len(x), batch):
                feed = {"x": x[start : start + batch], "y": y[start : start + batch], **given}
                for name, value in zip(names, session.run(names, feed), strict=True):
                    totals[name] += float(value)
            sums = {name.removeprefix(METRIC): total for name, total in totals.items() if name.startswith(METRIC)}
            return Evaluation(totals["loss"], int(totals["count"]), sums)
        except Exception as error:  # as in train
            raise _failure(error) from error

    def predict(
        self, graph: bytes, tensors: Mapping[str, Array], x: Array, batch: int, frozen: Frozen | None = None
    ) -> Array:
        """Scores float32 [n, ...] of all samples `x` [n, ...], in batches of `batch`."""
        try:
            session = self._session(graph)
            given = {**tensors, **(frozen.tensors if frozen else {})}
            parts = [session.run(["scores"], {"x": x[i : i + batch], **given})[0] for i in range(0, len(x), batch)]
            return np.concatenate(parts)
        except Exception as error:  # as in train
            raise _failure(error) from error

    def keep(self, frozen: Frozen) -> None:
        """Keep these tensors until others are kept, so that a request can name them by their id alone."""
        self._frozen = frozen

    def kept(self, name: bytes) -> Frozen | None:
        """The tensors kept under this id, None for no id; raises EngineFailed if they are not here."""
        if not name:
            return None
        if self._frozen is None or self._frozen.id != name:
            raise EngineFailed("the frozen tensors were not handed over before they were used")
        return self._frozen

    def _session(self, graph: bytes) -> Any:
        """The session of a graph: the most recently used ones are kept."""
        key = blob_id(graph)
        if key in self._sessions:
            self._sessions.move_to_end(key)
            return self._sessions[key]
        while len(self._sessions) >= CACHED_SESSIONS:
            self._sessions.popitem(last=False)
        session = open_session(graph, self._threads)
        self._sessions[key] = session
        return session


def open_session(graph: bytes, threads: int) -> Any:
    """An ONNX Runtime session on the CPU that gives the same bits every time on one kind of CPU."""
    import onnxruntime

    pages.keep()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.enable_cpu_mem_arena = False  # the system's allocator is as fast once it keeps its pages, and wastes less
    options.log_severity_level = 4  # what fails comes as an exception
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _train(
    session: Any, tensors: Mapping[str, Array], x: Array, y: Array, pace: Pace, fixed: Mapping[str, Array]
) -> TrainResult:
    """Two sets of buffers take turns as input and output, so the model is copied neither in nor out between steps."""
    steps = len(x)
    here = {name: np.array(value, np.float32) for name, value in tensors.items()}
    there = {name: np.empty_like(value) for name, value in here.items()}
    counter = np.zeros((), np.int64)
    scalars = {
        "step": counter,
        "seed": np.array(pace.seed, np.int64),
        "learning_rate": np.array(pace.learning_rate, np.float32),
    }
    loss = np.zeros((), np.float32)
    losses = np.zeros(steps, np.float32)
    turns = []
    for source, target in ((here, there), (there, here)):
        binding = session.io_binding()
        for name, value in (*scalars.items(), *source.items(), *fixed.items()):
            binding.bind_cpu_input(name, value)
        _bind_output(binding, "loss", loss)
        for name, value in target.items():
            _bind_output(binding, NEXT + name, value)
        turns.append(binding)
    for index in range(steps):
        binding = turns[index % 2]
        counter[...] = pace.first_step + index
        binding.bind_cpu_input("x", np.ascontiguousarray(x[index]))
        binding.bind_cpu_input("y", np.ascontiguousarray(y[index]))
        session.run_with_iobinding(binding)
        losses[index] = loss
    return TrainResult(there if steps % 2 else here, losses)


def _bind_output(binding: Any, name: str, target: Array) -> None:
    binding.bind_output(name, "cpu", 0, target.dtype, list(target.shape), target.ctypes.data)


def _failure(error: Exception) -> EngineFailed:
    if isinstance(error, EngineFailed):
        return error
    text = " ".join(str(error).split()) or type(error).__name__
    return EngineFailed(f"the graph could not be run: {text[:500]}")


def answer(engine: LocalEngine, header: Header, arrays: dict[str, Array]) -> tuple[Header, dict[str, Array]]:
    """Carry out one request of the parent; a failure becomes an answer with `error`."""
    try:
        if header.method == "start":
            return Header(), {}
        if header.method == "keep":
            engine.keep(Frozen(header.frozen, arrays))
            return Header(), {}
        x = arrays.pop("x", np.empty(0, np.float32))
        y = arrays.pop("y", np.empty(0, np.int64))
        frozen = engine.kept(header.frozen)
        match header.method:
            case "train":
                pace = Pace(header.first_step, header.seed, header.learning_rate)
                result = engine.train(header.graph, arrays, x, y, pace, frozen)
                return Header(), {"losses": result.losses, **{NEXT + k: v for k, v in result.tensors.items()}}
            case "evaluate":
                found = engine.evaluate(header.graph, arrays, x, y, header.batch, frozen)
                return Header(loss_sum=found.loss_sum, count=found.count, sums=found.sums), {}
            case "predict":
                return Header(), {"scores": engine.predict(header.graph, arrays, x, header.batch, frozen)}
        return Header(error=f"unknown method {header.method}"), {}
    except EngineFailed as error:
        return Header(error=str(error)), {}


def serve(source: BinaryIO, sink: BinaryIO, engine: LocalEngine, cpu_seconds: int) -> None:
    """Answer frames from `source` on `sink` until `source` ends; each request may use `cpu_seconds` of CPU."""
    while prefix := source.read(frames.PREFIX.size):
        header_length, body_length = frames.lengths(prefix)
        packed = source.read(header_length)
        body = bytearray(body_length)
        source.readinto(body)  # type: ignore[attr-defined]  # a buffered reader fills the whole buffer
        rlimits.allow_cpu(cpu_seconds)
        header, arrays = answer(engine, *frames.decode(packed, body))
        for part in frames.encode(header, arrays):
            sink.write(part)
        sink.flush()
        del header, arrays
        pages.give_back()


def main() -> None:
    """Entry point of the child process."""
    memory_bytes, cpu_seconds, threads = (int(argument) for argument in sys.argv[1:4])
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the frames
    engine = LocalEngine(threads)
    open_session(rlimits.WARM_GRAPH, threads)
    rlimits.lock_down(memory_bytes)
    serve(sys.stdin.buffer, sink, engine, cpu_seconds)


if __name__ == "__main__":
    main()
