"""The worker in headless Chromium, on a page that is no secure context: units, audits, replays, refusals, pace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import parser

from atoll.graph.archive import JobFile
from atoll.graph.manifest import Manifest
from atoll.graph.params import write_params
from atoll.graph.spec import Hyper, Input, Tensor
from atoll.graph.zoo import load_zoo
from atoll.training.compare import within
from atoll.training.data.samples import DataSet
from atoll.training.quantize import update_of
from atoll.training.unit import UnitSpec, states_root
from atoll.training.workbench import Bench, Workbench
from atoll.wire.hashing import Domain, blob_id, keccak
from tests.graph.batches import batches
from tests.training.bench import Here

from .modules import NotTaken
from .page import Page, give_samples, packed_samples, posted, unit_fields

pytestmark = pytest.mark.processes

DOMAIN = Domain(31337, b"\x11" * 20)
SHARDS = 2


@pytest.fixture(scope="module")
def page(runtime: Path, chromium: str) -> Iterator[Page]:
    with Page(chromium) as found:
        yield found


@dataclass
class Work:
    """A job on made-up data, and a unit of it."""

    job: JobFile
    data: DataSet
    manifest: Manifest
    unit: UnitSpec

    def fields(self, **changes: Any) -> dict[str, Any]:
        return {**unit_fields(self.unit, SHARDS), **changes}

    def native(self) -> list[bytes]:
        """States after each segment, as a node makes them."""
        blobs = {blob_id(self.job.model): self.job.model}

        async def fetch(name: bytes, sources: Sequence[bytes]) -> bytes:
            return blobs[name]

        def keep(data: bytes) -> bytes:
            blobs[blob_id(data)] = data
            return blob_id(data)

        async def gather(rows: Any) -> tuple[Any, Any]:
            return self.data.x[rows], self.data.y[rows]

        bench = Workbench(Bench(self.manifest, self.job.step, Here(), fetch, keep, gather, SHARDS))
        done = asyncio.run(bench.train(self.unit, blob_id(self.job.model), []))
        return [blobs[name] for name in done.states[1:]]


def work(name: str, segments: int = 0, number: int = 3) -> Work:
    job = load_zoo(name)
    x, y = batches(job.spec, 20)
    data = DataSet(x.reshape(-1, *x.shape[2:]), y.reshape(-1, *y.shape[2:]))
    count = segments or job.spec.segments
    unit = UnitSpec(DOMAIN, keccak(b"job"), number, 1, keccak(b"account")[:20], 1, keccak(b"beacon"), count)
    return Work(job, data, posted(job, data), unit)


def opened(page: Page, given: Work) -> str:
    """Open the job and give the worker the samples of the unit."""
    name: str = page.ask(op="open", manifest=given.manifest.to_bytes(), step=given.job.step)["job"]
    give_samples(page, name, given.data, given.fields())
    return name


def done(page: Page, given: Work) -> dict[str, Any]:
    return page.ask(op="unit", job=opened(page, given), unit=given.fields(), model=given.job.model)


def refusal(page: Page, **question: Any) -> str:
    with pytest.raises(NotTaken) as caught:
        page.ask(**question)
    return caught.value.reason


def test_the_page_is_no_secure_context_and_has_no_threads(page: Page) -> None:
    assert page.facts == {"secure": False, "isolated": False}


@pytest.mark.parametrize("name", ["logistic", "softmax", "table", "cnn"])
def test_a_unit_in_the_browser_and_natively(name: str, page: Page) -> None:
    given = work(name)
    found, model = done(page, given), given.job.model
    for mine, theirs in zip(found["states"], given.native(), strict=True):
        assert within(mine, theirs, model, given.job.spec.vector_length, 1, 1_000).within
    assert found["unit"] == given.unit.id
    assert found["ids"] == [blob_id(model), *map(blob_id, found["states"])]
    assert found["root"] == states_root(found["ids"])
    assert found["update"] == update_of(found["states"][-1], model, given.job.spec.vector_length)
    assert found["updateId"] == blob_id(found["update"])
    assert len(found["losses"]) == given.job.spec.steps
    assert np.isfinite(found["losses"]).all()
    again = done(page, given)
    assert (again["states"], again["update"]) == (found["states"], found["update"])


def test_a_light_unit_is_the_first_segment(page: Page) -> None:
    light, full = done(page, work("softmax", segments=1)), done(page, work("softmax"))
    assert light["states"] == full["states"][:1]
    assert light["unit"] == full["unit"]
    assert len(light["ids"]) == 2
    rows = page.ask(op="plan", job=opened(page, work("softmax")), unit=work("softmax", 1).fields())["rows"]
    assert len(rows) == 10 * 32


FROZEN = """<ir_version: 9, opset_import: ["" : 18]>
step (float[batch,2] x, int64[batch] y, int64 step, int64 seed, float learning_rate, float[2] w, float[2] f)
  => (float loss, float[2] next.w)
{ moved = Mul(f, learning_rate) "next.w" = Add(w, moved) loss = ReduceSum<keepdims = 0>(x) }"""


def with_frozen() -> Work:
    """A job that adds learning rate times a frozen float16 tensor to its parameter in each step."""
    text = FROZEN.replace('"next.w"', "next_w").replace("next.w", "next_w")
    model = parser.parse_model(text)
    for value in (model.graph.node[1].output, [model.graph.output[1]]):
        if isinstance(value[0], str):
            value[0] = "next.w"
        else:
            value[0].name = "next.w"
    step, zoo = model.SerializeToString(), load_zoo("logistic")
    values = {"w": np.array([1, -1], np.float32), "f": np.array([0.5, 4], np.float16)}
    tensors = (Tensor(name="w", shape=(2,), role="parameter"), Tensor(name="f", shape=(2,), role="frozen"))
    params = write_params(values)
    spec = msgspec.structs.replace(
        zoo.spec, tensors=tensors, input=Input(shape=(2,), dtype="float32"), hyper=Hyper(learning_rate=0.25),
        step=blob_id(step).hex(), params=blob_id(params).hex(),
    )  # fmt: skip
    given = work("logistic")
    data = DataSet(given.data.x[:, :2], given.data.y)
    job = JobFile(spec, step, zoo.evaluate, zoo.predict, params)
    return Work(job, data, posted(job, data), given.unit)


def test_frozen_tensors_enter_the_graph(page: Page) -> None:
    """20 steps of a quarter of (0.5, 4) from (1, -1): 3.5 and 19, on a grid of 2^-24."""
    given = with_frozen()
    manifest = {"op": "open", "manifest": given.manifest.to_bytes(), "step": given.job.step}
    assert refusal(page, **manifest) == "WRONG_HASH"
    opening = page.ask(**manifest, params=given.job.params)
    assert opening["facts"]["frozen"] == 1
    give_samples(page, opening["job"], given.data, given.fields())
    found = page.ask(op="unit", job=opening["job"], unit=given.fields(), model=given.job.model)
    assert found["states"][-1] == np.array([3.5 * 2**24, 19 * 2**24], "<i4").tobytes()


def test_a_replay_finds_what_was_altered_and_where(page: Page) -> None:
    given = work("softmax")
    name, found = opened(page, given), done(page, given)
    first, last = found["states"]
    moved = (np.frombuffer(last, "<i4") + np.int32(1 << 20)).astype("<i4").tobytes()
    for states, update, segment in (
        ([first, last], found["update"], 0),
        ([moved, last], found["update"], 1),
        ([first, moved], found["update"], 2),
        ([first, last], bytes([0]) + found["update"][1:], 3),
        ([None, last], found["update"], 255),
        ([first, last[:-4]], found["update"], 255),
        ([first, last], None, 255),
    ):
        question = {"op": "replay", "job": name, "unit": given.fields(), "model": given.job.model}
        answer = page.ask(**question, states=states, update=update)
        assert answer["segment"] == segment
        assert answer["stateId"] == (blob_id(answer["state"]) if answer["state"] else bytes(32))
        assert (answer["state"] is not None) == (segment in (1, 2))


def test_comparing_states_of_others(page: Page) -> None:
    given = work("softmax")
    name, (first, last) = opened(page, given), given.native()
    same = page.ask(op="compare", job=name, state=last, reference=last, start=given.job.model, kind="unit")
    assert (same["within"], same["distance"]) == (True, "0")
    other = page.ask(op="compare", job=name, state=first, reference=last, start=first, kind="segment")
    expected = within(first, last, first[: len(given.job.model)], given.job.spec.vector_length, 1, 1_000)
    assert (other["within"], int(other["distance"])) == (False, expected.distance_squared)


def test_what_is_refused(page: Page) -> None:
    given = work("table")
    manifest, step = given.manifest.to_bytes(), given.job.step
    assert refusal(page, op="open", manifest=manifest, step=step + b"\x00") == "WRONG_HASH"
    assert refusal(page, op="open", manifest=manifest, step=step, manifestId=bytes(32)) == "WRONG_HASH"
    assert refusal(page, op="open", manifest=b"{}", step=step) == "BAD_MANIFEST"
    assert refusal(page, op="open", manifest=manifest) == "BAD_QUESTION"
    name = page.ask(op="open", manifest=manifest, step=step, manifestId=given.manifest.id)["job"]
    question = {"op": "unit", "job": name, "model": given.job.model}
    assert refusal(page, **question, unit=given.fields()) == "NOT_FOUND"  # no samples yet
    wanted = page.ask(op="plan", job=name, unit=given.fields())["wanted"].tolist()
    foreign = packed_samples(given.data, [*wanted[1:], wanted[0]])
    assert refusal(page, op="samples", job=name, indices=wanted, packed=foreign) == "BAD_PROOF"
    assert refusal(page, op="samples", job=name, indices=wanted, packed=foreign[:-1]) == "MALFORMED"
    give_samples(page, name, given.data, given.fields())
    assert refusal(page, **question, unit=given.fields(id=bytes(32))) == "MALFORMED"
    assert refusal(page, **question, unit=given.fields(segments=3)) == "MALFORMED"
    assert refusal(page, **question, unit=given.fields(shard=2, id=None)) == "MALFORMED"
    short = {**question, "model": given.job.model[:-4]}
    assert refusal(page, **short, unit=given.fields()) == "MALFORMED"
    assert refusal(page, op="unit", job="00", unit=given.fields(), model=b"") == "BAD_QUESTION"
    assert refusal(page, op="nothing") == "BAD_QUESTION"
    assert refusal(page, op="pace", share=2) == "BAD_QUESTION"
    assert page.ask(**question, unit=given.fields())["unit"] == given.unit.id  # none of it did any harm
    assert page.ask(op="forget", job=name)
    assert page.ask(op="close", job=name)
    assert refusal(page, **question, unit=given.fields()) == "BAD_QUESTION"


def test_work_that_diverges_is_told(page: Page) -> None:
    """A model at the end of the grid: nothing finite comes out, or at least nothing is lied about."""
    given = work("logistic")
    huge = np.full(len(given.job.model) // 4, 2**31 - 1, "<i4").tobytes()
    try:
        found = page.ask(op="unit", job=opened(page, given), unit=given.fields(), model=huge)
    except NotTaken as error:
        assert error.reason == "DIVERGED"
    else:
        assert found["update"] == update_of(found["states"][-1], huge, len(huge) // 4)


def test_stop_pause_and_pace(page: Page) -> None:
    given = work("cnn")
    question = {"op": "unit", "job": opened(page, given), "unit": given.fields(), "model": given.job.model}
    try:
        stopped, said = page.ask_all([{**question, "id": 10_001}, {"op": "stop", "what": 10_001}])
        assert (stopped["answer"]["error"]["reason"], said["answer"]["stopped"]) == ("STOPPED", True)
        assert page.ask(op="stop", what=99)["stopped"] is False
        # Paused: nothing but a stop ends it.
        page.ask(op="pace", share=0)
        paused, _ = page.ask_all([{**question, "id": 10_002}, {"op": "stop", "what": 10_002}])
        assert paused["answer"]["error"]["reason"] == "STOPPED"
        page.ask(op="pace", share=0.5)
        half, faster = page.ask_all([{**question, "id": 10_003}, {"op": "pace", "share": 0.9}])
        assert faster["answer"]["share"] == 0.9
        assert half["progress"] == sorted(half["progress"])
        assert half["progress"], "a unit at a slow pace tells how far it is"
        assert all(0 < each <= 1 for each in half["progress"])
        assert half["answer"]["unit"] == given.unit.id
    finally:
        page.ask(op="pace", share=1)
