"""What open pages are told: which topics changed, and which points their charts should add."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import httpx
import msgspec
import pytest

from atoll.gateway.pages.facts import Snapshot
from atoll.gateway.pages.live import MAX_PER_ADDRESS, Marks, marks_of, news
from tests.gateway.pages.town import NOW, Town, app_of, served


def test_no_news_is_nothing() -> None:
    town = Town(nodes=3, rounds=2, liar="")
    assert news(marks_of(town.snapshot()), marks_of(town.snapshot())) is None


def test_a_round_is_news_for_its_job_and_comes_with_its_point() -> None:
    town = Town(nodes=3, rounds=2, liar="")
    town.step(0.2)
    before, job = marks_of(town.snapshot()), f"0x{town.job.hex()}"
    while not town.network.history:
        town.step(0.2)
    told = news(before, marks_of(town.snapshot()))
    assert {"jobs", f"job/{job}", "blobs"} <= set(told["topics"])
    assert "network" not in told["topics"]
    assert told["points"] == {job: [{"round": 0, **town.scores[0]}]}


def test_a_phase_is_news_for_its_job_only_and_uptime_for_nobody() -> None:
    town = Town(nodes=3, rounds=2, liar="")
    town.step(0.01)
    facts = town.snapshot()
    [job] = facts.jobs.values()
    assert job.followed is not None
    later = replace(facts, jobs={job.id: replace(job, followed=replace(job.followed, phase="audit"))})
    told = news(marks_of(facts), marks_of(later))
    assert told["topics"] == [f"job/0x{job.id.hex()}", "jobs"]
    assert news(marks_of(facts), marks_of(replace(facts, now=facts.now + 1))) is None


def test_a_node_that_falls_silent_is_news() -> None:
    town = Town(nodes=3, rounds=2, liar="")
    facts = town.snapshot()
    told = news(marks_of(facts), marks_of(replace(facts, now=facts.now + 60)))
    assert told["topics"] == ["network"]


def test_what_changes_all_the_time_is_news_once_in_ten_seconds() -> None:
    """However many nodes there are, and whatever each of them has counted."""
    town = Town(nodes=3, rounds=2, liar="")
    facts = town.snapshot()
    grown = {
        account: msgspec.structs.replace(about, uptime=about.uptime + 9, up=about.up + 9**9)
        for account, about in facts.about.items()
    }
    assert grown
    assert news(marks_of(facts), marks_of(replace(facts, now=NOW + 9, about=grown))) is None
    told = news(marks_of(facts), marks_of(replace(facts, now=NOW + 10)))
    assert told["topics"] == ["network"]


def test_topics_that_end_are_news_too() -> None:
    assert news(Marks({"a": 1}), Marks()) == {"topics": ["a"], "points": {}}


def messages(lines: Iterator[str]) -> Iterator[str]:
    return (line.removeprefix("data: ") for line in lines if line.startswith("data: "))


class Playing(Town):
    """A town that plays on each time somebody looks."""

    def snapshot(self) -> Snapshot:
        if len(self.network.history) < self.network.terms.rounds:
            self.step(1.0)
        return super().snapshot()


@pytest.mark.timeout(60)
def test_the_stream_tells_what_happened_while_it_was_open() -> None:
    town = Playing(nodes=3, rounds=2, liar="")
    with served(app_of(town)) as url, httpx.stream("GET", url + "/events", timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        told = messages(answer.iter_lines())
        assert json.loads(next(told)) == {}  # hello
        topics: set[str] = set()
        points: set[int] = set()
        while not ({0, 1} <= points and "models" in topics):
            found = json.loads(next(told))
            topics |= set(found["topics"])
            points |= {point["round"] for job in found["points"].values() for point in job}
        assert {"jobs", f"job/0x{town.job.hex()}", "settlement"} <= topics


@pytest.mark.timeout(60)
def test_one_address_cannot_take_all_places() -> None:
    town = Town(nodes=3, rounds=2, liar="")
    with served(app_of(town)) as url, httpx.Client(timeout=30) as client, ExitStack() as held:
        for _ in range(MAX_PER_ADDRESS):
            lines = held.enter_context(client.stream("GET", url + "/events")).iter_lines()
            held.callback(lines.close)  # kept until then: a stream ends with its iterator
            next(lines)
        with client.stream("GET", url + "/events") as refused:
            assert refused.status_code == 503
        assert client.get(url + "/jobs").status_code == 200
