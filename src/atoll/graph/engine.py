"""Run graphs in a child process with limits on memory, CPU time and wall-clock time.

The child is started once and kept warm; sessions are cached in it by the graph's hash. A request that fails, runs
out of time or kills the child raises EngineFailed, and the next request gets a fresh child. This process never
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
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV", "LANG", "TMPDIR", "TEMP")
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
        self._child: Process | None = None
        self._stderr: asyncio.Task[bytes] | None = None
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
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Start the child and wait until it has loaded ONNX Runtime; raises EngineFailed if it cannot start."""
        async with self._turn:
            await self._living()

    async def close(self) -> None:
        """End the child."""
        async with self._turn:
            await self._end()

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

    async def _living(self) -> Process:
        """The child, warm; a new one where there is none or it has died."""
        if self._child and self._child.returncode is None:
            return self._child
        await self._end()
        limits = (self.limits.memory_bytes, self.limits.cpu_seconds, self.limits.threads)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "atoll.graph.session", *map(str, limits)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=_STREAM_BUFFER,
            env={**environment, "OMP_NUM_THREADS": str(self.limits.threads)},
        )
        self._child = child
        self._stderr = asyncio.create_task(_tail(child))
        await self._exchange(child, frames.encode(Header(method="start"), {}), _START_SECONDS)
        return child

    async def _exchange(
        self, child: Process, parts: list[bytes | memoryview], seconds: float
    ) -> tuple[Header, dict[str, Array]]:
        """One request, one answer; whatever goes wrong ends the child, for its pipes may hold half a frame."""
        done = False
        try:
            async with asyncio.timeout(seconds):
                header, arrays = await _write_and_read(child, parts)
            done = not header.error
        except TimeoutError as error:
            raise EngineFailed(f"the graph ran longer than {seconds:g} s and was stopped") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EngineFailed(await self._epitaph(child)) from error
        finally:
            if not done:
                await self._end()
        if header.error:
            raise EngineFailed(header.error)
        return header, arrays

    async def _epitaph(self, child: Process) -> str:
        """Why the child died, in a sentence."""
        code = await child.wait()
        if code == -getattr(signal, "SIGXCPU", 0):
            return f"the graph used more than {self.limits.cpu_seconds} s of CPU time and was stopped"
        if code == -getattr(signal, "SIGKILL", 0):
            return "the process that runs graphs was killed, most likely because the machine ran out of memory"
        last = (await self._stderr).decode(errors="replace").strip().splitlines()[-1:] if self._stderr else []
        return " ".join([f"the process that runs graphs ended with code {code}", *last])

    async def _end(self) -> None:
        child, self._child, self._kept = self._child, None, b""
        if child is None:
            return
        if child.returncode is None:
            child.kill()
        if child.stdin and child.stdout and self._stderr:
            child.stdin.close()
            await child.stdout.read()  # to the end, so that no pipe stays open
            await self._stderr
        await child.wait()


async def _write_and_read(child: Process, parts: list[bytes | memoryview]) -> tuple[Header, dict[str, Array]]:
    if child.stdin is None or child.stdout is None:
        raise ConnectionError("the engine's pipes are closed")
    for part in parts:
        child.stdin.write(part)
        await child.stdin.drain()
    header_length, body_length = frames.lengths(await child.stdout.readexactly(frames.PREFIX.size))
    packed = await child.stdout.readexactly(header_length)
    return frames.decode(packed, await child.stdout.readexactly(body_length))


async def _tail(child: Process) -> bytes:
    """The end of what the child prints to its standard error, read until it closes."""
    tail = b""
    while child.stderr and (chunk := await child.stderr.read(4096)):
        tail = (tail + chunk)[-_STDERR_TAIL:]
    return tail
