"""Run graphs in a child process with limits on memory, CPU time and wall-clock time.

The child is started once and kept warm; sessions are cached in it by the graph's hash. A request that fails, runs
out of time or kills the child raises EngineFailed, and the next request gets a fresh child; from the first loss on, a
spare one is kept warm, so that no later loss makes a request wait for a start. This process never
loads ONNX Runtime.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from msgspec.structs import replace

from atoll.errors import EngineFailed
from atoll.graph import frames
from atoll.graph.frames import Array, Header
from atoll.graph.session import NEXT, Evaluation, Frozen, Pace, TrainResult

# What the child may know of our environment: where to find Python and its packages, nothing else.
ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV", "LANG", "TMPDIR", "TEMP")
_STREAM_BUFFER = 1 << 20
_START_SECONDS = 60
_STDERR_TAIL = 2_000


@dataclass(frozen=True)
class EngineLimits:
    """What one request may use: bytes of memory beyond the idle process, CPU seconds, wall-clock seconds, threads."""

    memory_bytes: int = 1 << 30
    cpu_seconds: int = 120
    wall_seconds: float = 180.0
    threads: int = 1


class Engine:
    """The parent's side: one child process, one request at a time (others wait their turn)."""

    def __init__(self, limits: EngineLimits | None = None) -> None:
        self.limits = limits or EngineLimits()
        self._turn = asyncio.Lock()
        self._child: _Child | None = None
        self._spare: asyncio.Task[_Child] | None = None  # kept warm from the first time that a child was lost
        self._lost = False
        self._kept = b""  # id of the frozen tensors that the child holds

    async def __aenter__(self) -> Engine:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return self._child.process.pid if self._child else None

    @property
    def pids(self) -> list[int]:
        """Process ids of the child and of the spare one, of those that are there and have started."""
        spare = [self._spare.result()] if self._spare and self._spare.done() and not self._spare.exception() else []
        return [child.process.pid for child in (self._child, *spare) if child]

    async def start(self) -> None:
        """Start the child and wait until it has loaded ONNX Runtime; raises EngineFailed if it cannot start."""
        async with self._turn:
            await self._living()

    async def close(self) -> None:
        """End the child."""
        async with self._turn:
            await self._end()
            if self._spare:
                spare, self._spare = self._spare, None
                await asyncio.gather(_end_later(spare), return_exceptions=True)

    async def train(
        self,
        graph: bytes,
        tensors: Mapping[str, Array],
        x: Array,
        y: Array,
        pace: Pace,
        frozen: Frozen | None = None,
    ) -> TrainResult:
        """Run `len(x)` steps of a step graph; see `LocalEngine.train` for shapes and dtypes."""
        header = Header("train", graph, b"", pace.first_step, pace.seed, pace.learning_rate)
        _, arrays = await self._ask(header, {"x": x, "y": y, **tensors}, frozen)
        losses = arrays.pop("losses")
        return TrainResult({name.removeprefix(NEXT): value for name, value in arrays.items()}, losses)

    async def evaluate(
        self, graph: bytes, tensors: Mapping[str, Array], x: Array, y: Array, batch: int, frozen: Frozen | None = None
    ) -> Evaluation:
        """Loss and metrics over all samples; see `LocalEngine.evaluate`."""
        header = Header(method="evaluate", graph=graph, batch=batch)
        found, _ = await self._ask(header, {"x": x, "y": y, **tensors}, frozen)
        return Evaluation(found.loss_sum, found.count, found.sums)

    async def predict(
        self, graph: bytes, tensors: Mapping[str, Array], x: Array, batch: int, frozen: Frozen | None = None
    ) -> Array:
        """Scores float32 [n, ...] of all samples; see `LocalEngine.predict`."""
        _, arrays = await self._ask(Header(method="predict", graph=graph, batch=batch), {"x": x, **tensors}, frozen)
        return arrays["scores"]

    async def _ask(
        self, header: Header, arrays: Mapping[str, Array], frozen: Frozen | None
    ) -> tuple[Header, dict[str, Array]]:
        """One request; frozen tensors cross the pipe only when the child does not hold them yet."""
        name = frozen.id if frozen else b""
        parts = frames.encode(replace(header, frozen=name), arrays)
        async with self._turn:
            child = await self._living()
            if frozen and self._kept != name:
                keep = frames.encode(Header(method="keep", frozen=name), frozen.tensors)
                await self._exchange(child, keep, self.limits.wall_seconds)
                self._kept = name
            return await self._exchange(child, parts, self.limits.wall_seconds)

    async def _living(self) -> _Child:
        """The child, warm; where there is none or it has died, the spare one or a new one."""
        if self._child and self._child.process.returncode is None:
            return self._child
        await self._end()
        spare, self._spare = self._spare, None
        ready = await spare if spare else None
        self._child = ready if ready and ready.process.returncode is None else await _start(self.limits)
        if self._lost:
            self._spare = asyncio.create_task(_start(self.limits))
        return self._child

    async def _exchange(
        self, child: _Child, parts: list[bytes | memoryview], seconds: float
    ) -> tuple[Header, dict[str, Array]]:
        """One request, one answer; whatever goes wrong ends the child, for its pipes may hold half a frame."""
        done = False
        try:
            header, arrays = await child.exchange(parts, seconds)
            done = not header.error
        finally:
            if not done:
                self._lost = True
                await self._end()
        if header.error:
            raise EngineFailed(header.error)
        return header, arrays

    async def _end(self) -> None:
        child, self._child, self._kept = self._child, None, b""
        if child:
            await child.end()


@dataclass(frozen=True)
class _Child:
    """A process that runs graphs, and the task that reads what it prints to its standard error."""

    process: Process
    stderr: asyncio.Task[bytes]
    limits: EngineLimits

    async def exchange(self, parts: list[bytes | memoryview], seconds: float) -> tuple[Header, dict[str, Array]]:
        """One request, one answer; raises EngineFailed when it dies or takes longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await _write_and_read(self.process, parts)
        except TimeoutError as error:
            raise EngineFailed(f"the graph ran longer than {seconds:g} s and was stopped") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EngineFailed(await self._epitaph()) from error

    async def _epitaph(self) -> str:
        """Why the child died, in a sentence."""
        code = await self.process.wait()
        if code == -getattr(signal, "SIGXCPU", 0):
            return f"the graph used more than {self.limits.cpu_seconds} s of CPU time and was stopped"
        if code == -getattr(signal, "SIGKILL", 0):
            return "the process that runs graphs was killed, most likely because the machine ran out of memory"
        last = (await self.stderr).decode(errors="replace").strip().splitlines()[-1:]
        return " ".join([f"the process that runs graphs ended with code {code}", *last])

    async def end(self) -> None:
        """Kill the process, if it lives, and close its pipes."""
        if self.process.returncode is None:
            self.process.kill()
        if self.process.stdin and self.process.stdout:
            self.process.stdin.close()
            await self.process.stdout.read()  # to the end, so that no pipe stays open
            await self.stderr
        await self.process.wait()


async def _start(limits: EngineLimits) -> _Child:
    """A child that has loaded ONNX Runtime; raises EngineFailed if it cannot start."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    arguments = (limits.memory_bytes, limits.cpu_seconds, limits.threads)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "atoll.graph.session", *map(str, arguments)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        limit=_STREAM_BUFFER,
        env={**environment, "OMP_NUM_THREADS": str(limits.threads)},
    )
    child = _Child(process, asyncio.create_task(tail(process)), limits)
    started = False
    try:
        await child.exchange(frames.encode(Header(method="start"), {}), _START_SECONDS)
        started = True
    finally:
        if not started:
            await child.end()
    return child


async def _end_later(spare: asyncio.Task[_Child]) -> None:
    """End a child that may still be starting."""
    await (await spare).end()


async def _write_and_read(child: Process, parts: list[bytes | memoryview]) -> tuple[Header, dict[str, Array]]:
    if child.stdin is None or child.stdout is None:
        raise ConnectionError("the engine's pipes are closed")
    for part in parts:
        child.stdin.write(part)
        await child.stdin.drain()
    header_length, body_length = frames.lengths(await child.stdout.readexactly(frames.PREFIX.size))
    packed = await child.stdout.readexactly(header_length)
    return frames.decode(packed, await child.stdout.readexactly(body_length))


async def tail(child: Process) -> bytes:
    """The end of what the child prints to its standard error, read until it closes."""
    found = b""
    while child.stderr and (chunk := await child.stderr.read(4096)):
        found = (found + chunk)[-_STDERR_TAIL:]
    return found
