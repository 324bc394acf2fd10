"""What nodes tell of themselves is shown, bounded, and never more than there can be."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from atoll.errors import Refused
from atoll.node.survey import ASKED_AT_ONCE, About, Survey
from atoll.wire import rpc

JOB, STRANGER = b"\x01" * 32, b"\x02" * 20
ABOUT = About("n", "0.4", 1, 2, 1024, 512, 0, 0, 0, 5, 6, 7, False, {}, {})
TRUE = {"loss": 0.5, "accuracy": 0.9}


class Talker:
    """A gateway that follows JOB, of which `over` rounds are certified, and one node that says what it likes."""

    def __init__(self, over: int, graded: dict[bytes, int], scores: Any) -> None:
        self.jobs = SimpleNamespace(scores={JOB: {}}, finished={JOB: [None] * over})
        self.network = SimpleNamespace(ask=self._ask)
        self._graded, self._scores = graded, scores
        self.asked: list[bytes] = []

    async def _ask(self, account: bytes, alpn: bytes, payload: bytes) -> bytes:
        self.asked.append(payload)
        if len(self.asked) % 2:
            return rpc.encode_ok(rpc.encode_body(msgspec.structs.replace(ABOUT, graded=self._graded)))
        return rpc.encode_ok(rpc.encode_body(self._scores))

    def survey(self) -> Survey:
        found = Survey(self)  # type: ignore[arg-type]
        asyncio.run(found._ask(STRANGER))
        return found


def test_scores_of_rounds_that_are_over_are_taken() -> None:
    talker = Talker(3, {JOB: 2}, {0: TRUE, 2: TRUE})
    assert talker.survey().about[STRANGER].name == "n"
    assert talker.jobs.scores == {JOB: {0: TRUE, 2: TRUE}}


def test_scores_of_rounds_that_have_not_been_are_left_out() -> None:
    talker = Talker(3, {JOB: 2}, {2: TRUE} | {number: TRUE for number in range(3, 1000)})
    talker.survey()
    assert talker.jobs.scores == {JOB: {2: TRUE}}


@pytest.mark.parametrize("graded", [{JOB: 3}, {JOB: 2**61}, {b"\x07" * 32: 0}])
def test_nobody_is_asked_for_what_cannot_be(graded: dict[bytes, int]) -> None:
    talker = Talker(3, graded, {2**61: TRUE})
    talker.survey()
    assert len(talker.asked) == 1
    assert talker.jobs.scores == {JOB: {}}


def test_a_score_that_is_no_number_is_refused() -> None:
    talker = Talker(3, {JOB: 2}, {2: {"loss": float("nan")}})
    with pytest.raises(Refused):
        talker.survey()
    assert talker.jobs.scores == {JOB: {}}


def test_nodes_that_are_gone_do_not_hide_those_that_answer() -> None:
    """Three times as many as are asked at once never answer; the one that does is heard of again and again."""
    gone = [bytes([number]) * 20 for number in range(100, 100 + 3 * ASKED_AT_ONCE)]
    answers = 0

    async def story() -> None:
        heard_thrice, never = asyncio.Event(), asyncio.Event()

        async def ask(account: bytes, alpn: bytes, payload: bytes) -> bytes:
            nonlocal answers
            if account != STRANGER:
                await never.wait()
            answers += 1
            if answers == 3:
                heard_thrice.set()
            return rpc.encode_ok(rpc.encode_body(ABOUT))

        node = SimpleNamespace(
            network=SimpleNamespace(ask=ask), directory=SimpleNamespace(reached=lambda: [STRANGER, *gone])
        )
        survey = Survey(node, every_seconds=0.0)  # type: ignore[arg-type]
        running = asyncio.create_task(survey.run())
        async with asyncio.timeout(10):
            await heard_thrice.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert set(survey.about) == {STRANGER}

    asyncio.run(story())
