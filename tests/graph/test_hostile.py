"""Every hostile thing of the corpus is refused for its reason, in little time and memory, and reaches for nothing.

Each runs in a sealed child (tests/graph/sealed.py): opening a file or a socket there is the end of it.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from atoll.errors import EngineFailed, Refused
from atoll.graph.check import check_graph
from atoll.graph.engine import Engine, EngineLimits
from atoll.graph.fixed import encode_state
from atoll.graph.session import Pace
from atoll.wire.reasons import Reason

from . import hostile, hostile_numbers  # noqa: F401 - the second adds to the first's corpus
from .graphs import graph
from .hostile_files import FILES, Case, admit, admit_model
from .sealed import sealed
from .test_archive import job, pack, pack_model, trained
from .test_engine import X, run, works
from .test_manifest import example

SECONDS, MEMORY = 2.0, 96 << 20


def graph_case(name: str) -> Case:
    make, reason = hostile.CORPUS[name]

    def data() -> bytes:
        made = make()
        return made if isinstance(made, bytes) else made.SerializeToString()

    return Case(data, lambda found: check_graph(found, hostile.EXPECTED), reason)


CASES = {**{name: graph_case(name) for name in hostile.CORPUS}, **FILES}


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What libraries load when they are first used is loaded before anything is sealed."""
    admit(pack(job()))
    admit_model(pack_model(trained()))
    with pytest.raises(Refused):
        admit(b"")


def test_what_is_good_passes_in_a_sealed_process() -> None:
    for read, data in ((admit, pack(job())), (admit_model, pack_model(trained()))):
        assert sealed(lambda read=read, data=data: read(data)).reason == -1  # type: ignore[misc]


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("name", sorted(CASES))
def test_refused(name: str) -> None:
    case = CASES[name]
    data = case.make()
    seen = sealed(lambda: case.read(data))
    assert seen.reason >= 0, "it was accepted"
    assert Reason(seen.reason) == case.reason, seen.detail
    assert seen.seconds < SECONDS
    assert seen.memory < MEMORY + 4 * len(data)
    assert seen.detail.isprintable()
    assert len(seen.detail) < 500


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(CASES) >= 100
    assert not set(hostile.CORPUS) & set(FILES)


# What only shows while a graph runs: it passes the gate, and the child that runs it bears the harm.
POISON = "(float[batch,4] x) => (float[batch,4] scores)"
RUNNING = {
    "integer_division_by_zero": (
        "i = Cast<to = 7>(x) d = Div(i, i) scores = Cast<to = 1>(d)", ""
    ),
    "integer_remainder_by_zero": ("i = Cast<to = 7>(x) d = Mod(i, i) scores = Cast<to = 1>(d)", ""),
    "an_index_out_of_range": (
        "i = Cast<to = 7>(x) g = GatherElements<axis = 0>(x, i) b = Add(i, far)"
        " scores = GatherElements<axis = 0>(g, b)",
        "<int64 far = {9223372036854775000}>",
    ),
    "an_axis_out_of_range": (
        "i = Cast<to = 7>(x) m = ReduceMax<keepdims = 0>(i) a = Add(m, far) scores = CumSum(x, a)",
        "<int64 far = {1000000}>",
    ),
    "a_diagonal_out_of_range": ("i = Cast<to = 7>(x) m = ReduceMax<keepdims = 0>(i) a = Add(m, far) "
                                "scores = Trilu(x, a)", "<int64 far = {9223372036854775807}>"),
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
@pytest.mark.parametrize("name", sorted(RUNNING))
def test_a_graph_that_does_harm_while_it_runs_is_borne_by_the_child(name: str) -> None:
    body, constants = RUNNING[name]
    data = graph(body, constants, POISON)

    async def ask(engine: Engine) -> None:
        try:
            found = await engine.predict(data, {}, X, 1)
            assert found.shape == (1, 4)  # some are defined after all
        except EngineFailed as error:
            assert str(error).isprintable()
        assert await works(engine)

    run(EngineLimits(memory_bytes=256 << 20, cpu_seconds=5, wall_seconds=10), ask)


NAN_BOMB = graph(
    "z = ReduceSum<keepdims = 0>(w) n = Sub(z, z) q = Div(n, n) next_w = Add(w, q) next_m = Identity(m)"
    " next_v = Identity(v) loss = Identity(q)",
    "",
    "(float[batch,4] x, int64[batch] y, int64 step, int64 seed, float learning_rate, float[3,200] w, float m,"
    " float[3,200] v) => (float loss, float[3,200] next_w, float next_m, float[3,200] next_v)",
)


def test_a_unit_that_gives_no_numbers_is_refused_and_the_node_goes_on() -> None:
    manifest = example()
    data = NAN_BOMB
    for name in ("w", "m", "v"):
        data = data.replace(f"next_{name}".encode(), f"next.{name}".encode())
    tensors = {"w": np.ones((3, 200), np.float32), "m": np.zeros((), np.float32), "v": np.ones((3, 200), np.float32)}

    async def ask(engine: Engine) -> None:
        pid = engine.pid
        steps = (np.ones((2, 1, 4), np.float32), np.zeros((2, 1), np.int64))
        result = await engine.train(data, tensors, *steps, Pace())
        named = {"w": result.tensors["w"], "mean": result.tensors["m"], "momentum.w": result.tensors["v"]}
        with pytest.raises(Refused) as caught:
            encode_state(manifest, named)
        assert caught.value.reason == Reason.DIVERGED
        assert await works(engine)
        assert engine.pid == pid

    run(EngineLimits(), ask)
