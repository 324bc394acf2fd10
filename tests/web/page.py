"""A page in headless Chromium that holds one worker, asked from Python; see page.mjs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from atoll.graph.archive import JobFile
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.training.data.samples import DataSet
from atoll.training.unit import UnitSpec

from .modules import NotTaken, read, write

HERE = Path(__file__).parent


class Page:
    """`ask(op=..., ...)` asks the worker one question and waits for its answer; `ask_all` asks several at once."""

    def __init__(self, chromium: str) -> None:
        self._numbers = count(1)
        self._node = subprocess.Popen(
            ["node", str(HERE / "page.mjs"), chromium], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts = self._line()

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._node.communicate(timeout=30)

    def _line(self) -> Any:
        assert self._node.stdout
        line = self._node.stdout.readline()
        assert line, f"the page ended with code {self._node.wait()}"
        return read(json.loads(line))

    def ask_all(self, questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """`{"answer": ..., "progress": [...]}` for each question, once all are answered."""
        assert self._node.stdin
        numbered = [{"id": next(self._numbers), **question} for question in questions]
        self._node.stdin.write(json.dumps(write(numbered)) + "\n")
        self._node.stdin.flush()
        found: list[dict[str, Any]] = self._line()
        return found

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer to one question; raises NotTaken when it is an error."""
        answer: dict[str, Any] = self.ask_all([question])[0]["answer"]
        if "error" in answer:
            raise NotTaken(answer["error"]["reason"], answer["error"]["detail"])
        return answer


def posted(job: JobFile, data: DataSet) -> Manifest:
    """The job on this data, as it is posted."""
    root = "0x" + data.root.hex()
    about = Data(root=root, count=len(data), held_out_root=root, held_out_count=len(data), card="00" * 32)
    return Manifest.post(job.spec, about, 3, Policy(unit_price=10**18, audit_price=10**17, validator_price=0))


def unit_fields(unit: UnitSpec, shards: int) -> dict[str, Any]:
    """A unit as the worker takes it."""
    domain = {"chainId": unit.domain.chain_id, "registry": unit.domain.registry}
    names = ("job", "round", "index", "account", "shard", "beacon", "segments", "id")
    return {"domain": domain, "shards": shards, **{name: getattr(unit, name) for name in names}}


def packed_samples(data: DataSet, indices: Sequence[int]) -> bytes:
    """The answer of a gateway to a question for samples."""
    import msgspec

    return msgspec.msgpack.encode([(data.sample(index), data.prove(index)) for index in indices])


def give_samples(page: Page, job: str, data: DataSet, unit: dict[str, Any]) -> None:
    """Let the worker have the samples of a unit that it does not keep yet."""
    wanted = page.ask(op="missing", job=job, unit=unit)["wanted"].astype(np.int64).tolist()
    if wanted:
        page.ask(op="samples", job=job, indices=wanted, packed=packed_samples(data, wanted))
