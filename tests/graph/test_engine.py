"""The engine in its child process: same results as in this one, and every way of failing leaves it usable."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from atoll.errors import EngineFailed
from atoll.graph.engine import Engine, EngineLimits
from atoll.graph.fixed import encode_state
from atoll.graph.session import Frozen, LocalEngine, Pace
from atoll.graph.zoo import NAMES, load_zoo

from .batches import batches
from .graphs import FROZEN, FROZEN_STEP, by_hand, graph
from .test_session import frozen, samples, start

T = TypeVar("T")
X = np.zeros((1, 4), np.float32)
ZOO = load_zoo("softmax")


# 800 products of 1200 x 1200: 2.8e12 operations, minutes on any one thread.
ENDLESS = graph(
    "a0 = Expand(one, n) "
    + " ".join(f"a{i + 1} = MatMul(a{i}, a0)" for i in range(800))
    + " r = ReduceMax<keepdims = 0>(a800) scores = Add(x, r)",
    "<float[1,1] one = {1}, int64[2] n = {1200, 1200}>",
)
# One tensor of 800 MB, whose values depend on the input, so that it cannot be folded away beforehand.
HUGE = graph(
    "s = ReduceMax<keepdims = 0>(x) a = Expand(s, n) b = Exp(a) r = ReduceMax<keepdims = 0>(b) scores = Add(x, r)",
    "<int64[2] n = {20000, 10000}>",
)


def run(limits: EngineLimits, body: Callable[[Engine], Awaitable[T]]) -> T:
    async def main() -> T:
        async with Engine(limits) as engine:
            return await body(engine)

    return asyncio.run(main())


async def works(engine: Engine) -> bool:
    scores = await engine.predict(ZOO.predict, ZOO.values, samples()[0][0], 500)
    return scores.shape == (32, 10)


def test_results_are_those_of_the_local_engine() -> None:
    x, y = samples()
    local = LocalEngine()
    expected = local.train(ZOO.step, start(ZOO), x, y, Pace(3, 7, 0.02))

    async def body(engine: Engine) -> None:
        found = await engine.train(ZOO.step, start(ZOO), x, y, Pace(3, 7, 0.02))
        assert found.tensors.keys() == expected.tensors.keys()
        assert all(np.array_equal(found.tensors[key], expected.tensors[key]) for key in expected.tensors)
        assert np.array_equal(found.losses, expected.losses)
        flat = (x.reshape(-1, 1, 28, 28), y.reshape(-1))
        found_there = await engine.evaluate(ZOO.evaluate, ZOO.values, *flat, 100)
        assert found_there == local.evaluate(ZOO.evaluate, ZOO.values, *flat, 100)
        scores = await engine.predict(ZOO.predict, ZOO.values, flat[0], 100)
        assert np.array_equal(scores, local.predict(ZOO.predict, ZOO.values, flat[0], 100))

    run(EngineLimits(), body)


def test_one_child_serves_many_requests_at_once() -> None:
    async def body(engine: Engine) -> None:
        pid = engine.pid
        assert all(await asyncio.gather(*(works(engine) for _ in range(5))))
        assert engine.pid == pid

    run(EngineLimits(), body)


def test_wall_clock_limit() -> None:
    async def body(engine: Engine) -> None:
        pid = engine.pid
        with pytest.raises(EngineFailed, match=r"longer than 0\.5 s"):
            await engine.predict(ENDLESS, {}, X, 1)
        assert engine.pid is None
        assert await works(engine)
        assert engine.pid != pid

    run(EngineLimits(wall_seconds=0.5), body)


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_cpu_limit() -> None:
    async def body(engine: Engine) -> None:
        with pytest.raises(EngineFailed, match="more than 1 s of CPU"):
            await engine.predict(ENDLESS, {}, X, 1)
        assert await works(engine)

    run(EngineLimits(cpu_seconds=1), body)


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_memory_limit() -> None:
    async def body(engine: Engine) -> None:
        with pytest.raises(EngineFailed, match="could not be run"):
            await engine.predict(HUGE, {}, X, 1)
        assert await works(engine)

    run(EngineLimits(memory_bytes=256 << 20), body)


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_graphs_that_fit_one_by_one_do_not_add_up() -> None:
    async def body(engine: Engine) -> None:
        pid = engine.pid
        for rows in range(20_000, 20_006):  # 80 MB a value, two values at a time
            large = graph(
                "s = ReduceMax<keepdims = 0>(x) a = Expand(s, n) b = Exp(a) r = ReduceMax<keepdims = 0>(b) "
                "scores = Add(x, r)",
                f"<int64[2] n = {{{rows}, 1000}}>",
            )
            assert (await engine.predict(large, {}, X, 1)).tolist() == [[1.0] * 4]
        assert engine.pid == pid

    run(EngineLimits(memory_bytes=256 << 20), body)


def test_a_killed_child_is_replaced() -> None:
    async def body(engine: Engine) -> None:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGTERM)
        with pytest.raises(EngineFailed, match="ended with code"):
            await engine.predict(ENDLESS, {}, X, 1)  # the child dies at once, or at the latest while it computes
        assert await works(engine)

    run(EngineLimits(), body)


def test_after_a_loss_a_spare_child_is_ready() -> None:
    async def lose(engine: Engine) -> None:
        with pytest.raises(EngineFailed):
            await engine.predict(b"no graph", {}, X, 1)

    async def body(engine: Engine) -> None:
        await lose(engine)
        assert engine.pid is None
        assert await works(engine)  # a new child; from here on another one is started beside it
        while len(engine.pids) < 2:  # until the spare one has started
            await works(engine)
        first, spare = engine.pids
        await lose(engine)
        assert await works(engine)
        assert engine.pid == spare != first

    run(EngineLimits(), body)


def test_a_cancelled_request_leaves_no_half_answer_behind() -> None:
    async def body(engine: Engine) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.predict(ENDLESS, {}, X, 1), 0.2)
        assert await works(engine)

    run(EngineLimits(), body)


def test_a_graph_that_fails_is_told_in_a_sentence() -> None:
    async def body(engine: Engine) -> None:
        with pytest.raises(EngineFailed, match="could not be run"):
            await engine.predict(b"no graph", {}, X, 1)
        with pytest.raises(EngineFailed, match="dtype"):
            await engine.predict(ZOO.predict, {}, np.zeros((1, 4), np.float64), 1)
        assert await works(engine)

    run(EngineLimits(), body)


def test_closing_ends_the_child_and_asking_starts_another() -> None:
    async def main() -> None:
        engine = Engine()
        assert await works(engine)
        await engine.close()
        assert engine.pid is None
        assert await works(engine)
        await engine.close()

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_child_knows_nothing_of_our_environment() -> None:
    async def body(engine: Engine) -> None:
        entries = Path(f"/proc/{engine.pid}/environ").read_bytes().decode().split("\0")
        names = {entry.split("=")[0] for entry in entries if entry}
        assert names <= {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "TMPDIR", "OMP_NUM_THREADS"}

    run(EngineLimits(), body)


NO_TORCH = """
import asyncio, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnxscript", "onnx_ir"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from atoll.graph import archive, check, engine, fixed, manifest, zoo
from atoll.graph.engine import Engine
from atoll.graph.session import Pace
async def main():
    model = zoo.load_zoo("cnn")
    async with Engine() as runner:
        x = np.zeros((2, 32, 1, 28, 28), np.uint8)
        tensors = fixed.decode_state(model.spec, fixed.first_state(model.spec, model.model))
        result = await runner.train(model.step, tensors, x, np.zeros((2, 32), np.int64), Pace(learning_rate=0.05))
    assert result.losses[1] < result.losses[0]
asyncio.run(main())
assert "onnxruntime" not in sys.modules and "torch" not in sys.modules
print("trained")
"""


def test_a_zoo_model_trains_without_torch_and_without_onnxruntime_in_this_process() -> None:
    done = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "trained\n", done.stderr


def test_frozen_tensors_cross_the_pipe_once() -> None:
    w, scale = np.array([1.0, 2.0], np.float32), np.array([0.5, 3.0], np.float32)
    x, y = np.ones((3, 2, 2), np.float32), np.ones((3, 2), np.float32)
    here, other = Frozen(b"a" * 32, {FROZEN: scale}), Frozen(b"b" * 32, {FROZEN: 2 * scale})

    async def body(engine: Engine) -> None:
        for fixed in (here, other, here):
            found = await engine.train(FROZEN_STEP, {"w": w}, x, y, Pace(), fixed)
            expected, _ = by_hand(w, fixed.tensors[FROZEN], x, y, Pace())
            np.testing.assert_allclose(found.tensors["w"], expected, rtol=1e-6)
        by_id_alone = Frozen(here.id, {})  # had they to be sent again, there would be none
        again = await engine.train(FROZEN_STEP, {"w": w}, x, y, Pace(), by_id_alone)
        assert np.array_equal(again.tensors["w"], found.tensors["w"])
        with pytest.raises(EngineFailed):
            await engine.predict(b"no graph", {}, X, 1)  # ends the child
        found = await engine.train(FROZEN_STEP, {"w": w}, x, y, Pace(), here)  # the new child gets them
        assert np.array_equal(again.tensors["w"], found.tensors["w"])

    run(EngineLimits(), body)


@pytest.mark.parametrize("name", NAMES)
def test_fresh_processes_give_the_same_bytes(name: str) -> None:
    zoo = load_zoo(name)
    x, y = batches(zoo.spec, 3)

    async def body(engine: Engine) -> bytes:
        return encode_state(zoo.spec, (await engine.train(zoo.step, start(zoo), x, y, Pace(), frozen(zoo))).tensors)

    assert run(EngineLimits(), body) == run(EngineLimits(), body)
