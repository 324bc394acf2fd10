"""What the owner can do, and that nobody else can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from atoll.errors import BadInput, TransactionFailed
from tests.gateway.pages.looking import ask
from tests.gateway.pages.town import GATEWAY, OWNER, Town, app_of

TOKEN = {"authorization": f"Bearer {OWNER}"}


class Node:
    """What actions need of a node; `done` lists what was sent to the chain."""

    def __init__(self, town: Town, waiting: int = 5 * 10**18, final: bool = True) -> None:
        self.view, self.account, self.done = town.view, GATEWAY, []  # type: ignore[var-annotated]
        self.waiting, self.is_final, self.fails = waiting, final, False
        self.settler = SimpleNamespace(collect=self._collect)
        self.chain = SimpleNamespace(shorten="shorten")

    async def _collect(self, account: bytes) -> int:
        if not self.is_final:
            raise BadInput("The newest epoch can still be challenged")
        if self.waiting:
            self.done.append(("collect", account))
        return self.waiting

    async def send(self, work: Any, *arguments: Any) -> None:
        if self.fails:
            raise TransactionFailed("the contract reverted: CannotShorten")
        self.done.append((work, *arguments))


def act(node: Node, town: Town, path: str, body: Any = None, **options: Any) -> Any:
    sent = {"json": {} if body is None else body, "headers": TOKEN, **options}
    return ask(app_of(town, node), path, "POST", **sent)


def test_claim(done: Town) -> None:
    node = Node(done)
    answer = act(node, done, "/actions/claim")
    assert answer.status_code == 200
    assert str(5 * 10**18) in answer.json()["done"]
    assert node.done == [("collect", GATEWAY)]
    assert "Nothing is waiting" in act(Node(done, waiting=0), done, "/actions/claim").json()["done"]
    early = act(Node(done, final=False), done, "/actions/claim")
    assert (early.status_code, early.json()["error"].startswith("The newest epoch")) == (409, True)


def test_stop_ends_an_own_job_after_the_rounds_under_way() -> None:
    town = Town(nodes=3, rounds=6, liar="")
    node, job = Node(town), f"0x{town.job.hex()}"
    assert "round 1" in act(node, town, "/actions/stop", {"job": job}).json()["done"]
    assert node.done == [("shorten", town.job, 2)]
    node.account = b"\x01" * 20
    foreign = act(node, town, "/actions/stop", {"job": job})
    assert (foreign.status_code, "belongs to" in foreign.json()["error"]) == (409, True)
    assert act(node, town, "/actions/stop", {"job": "0x" + "ab" * 32}).status_code == 409
    node.account, node.fails = GATEWAY, True
    assert act(node, town, "/actions/stop", {"job": job}).status_code == 502
    assert len(node.done) == 1


def test_a_job_that_is_over_cannot_be_stopped(done: Town) -> None:
    answer = act(Node(done), done, "/actions/stop", {"job": f"0x{done.job.hex()}"})
    assert answer.status_code == 409
    assert "nearly over" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/actions/claim", "/actions/stop"])
@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {}}, 401),
        ({"headers": {"authorization": "Bearer wrong"}}, 401),
        ({"headers": {"authorization": f"Basic {OWNER}"}}, 401),
        ({"headers": {**TOKEN, "origin": "http://evil.example"}}, 403),
        ({"headers": {**TOKEN, "sec-fetch-site": "cross-site"}}, 403),
        ({"headers": {**TOKEN, "host": "evil.example"}}, 421),
        ({"headers": {**TOKEN, "content-type": "text/plain"}, "content": b"{}", "json": None}, 415),
        ({"content": b"{", "headers": {**TOKEN, "content-type": "application/json"}, "json": None}, 400),
        (
            {
                "content": b'"' + b"x" * 5000 + b'"',
                "headers": {**TOKEN, "content-type": "application/json"},
                "json": None,
            },
            413,
        ),
        ({"json": {"unknown": 1}}, 400),
        ({"json": {"job": "0x12"}}, 400),
        ({"json": []}, 400),
    ],
)
def test_who_may_not_and_what_is_not_understood(done: Town, path: str, options: dict[str, Any], status: int) -> None:
    node = Node(done)
    assert act(node, done, path, **options).status_code == status
    assert node.done == []


def test_actions_are_posted_only(done: Town) -> None:
    assert ask(app_of(done, Node(done)), "/actions/claim", headers=TOKEN).status_code == 405
