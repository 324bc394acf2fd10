"""The status page: what it shows, whom it answers, and what can never run in it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from atoll.errors import BadSetting, PortInUse
from atoll.gateway.app import StatusPage, is_allowed, make_app
from atoll.gateway.facts import Facts, NodeFacts

EVIL = "<script>alert(1)</script>"
ACCOUNT = "0x" + "6" * 40
STATUS: dict[str, Any] = {
    "account": ACCOUNT, "roles": ["worker"], "registered": True, "balance": "1500000000000000000", "earned": "0",
    "bytes": {"up": 2_000_000, "down": 10}, "epochs": 3, "jobs": [],
}  # fmt: skip
FACTS = Facts(
    phase="training",
    started=0.0,
    seconds={"starting": 12.5},
    network={"rpc": "http://127.0.0.1:8545", "chain_id": 31337, "registry": "0x5F", "join": f"atoll node {EVIL}"},
    nodes=[NodeFacts(1, EVIL, 11, True, True, STATUS), NodeFacts(2, "node-2", None, False, False, None)],
    job={"round": 3, "rounds": 12, "phase": f"audit{EVIL}", "done": False, "certified": 3, "model": EVIL},
    accuracy={10: 0.75, 9: 0.5},
    rejected=[{"node": ACCOUNT, "round": 2, "reason": EVIL}],
    lines=[EVIL],
)


def ask(path: str, method: str = "GET", facts: Facts = FACTS, headers: dict[str, str] | None = None) -> httpx.Response:
    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(lambda: facts, {"my-server"}))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(request())


class Page(HTMLParser):
    """Which elements and attributes a browser would find."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_what_comes_from_the_network_is_only_text() -> None:
    text = ask("/").text
    page = Page(text)
    assert "script" not in page.tags
    assert EVIL in page.words  # the node's name, whole, as text
    assert text.count("&lt;script&gt;") >= 5


def test_the_page_needs_nothing_from_elsewhere_and_has_no_inline_style() -> None:
    page = Page(ask("/").text)
    links = [value for name, value in page.attributes if name in ("href", "src", "action")]
    assert links
    assert all(link.startswith("/") and not link.startswith("//") for link in links)
    assert not [name for name, _ in page.attributes if name == "style" or name.startswith("on")]
    assert "style" not in page.tags
    assert all(ask(link).status_code == 200 for link in links)


def test_the_page_shows_the_facts() -> None:
    words = " ".join(" ".join(Page(ask("/").text).words).split())
    assert "75.00% accuracy on held-out data" in words
    assert "3 of 12 rounds certified" in words
    assert "1 of 2 nodes up" in words
    assert "round 10: 75.00%" in words
    assert "2.0 MB" in words


@pytest.mark.parametrize("path", ["/", "/index.json", "/static/style.css", "/nowhere"])
def test_headers_on_every_answer(path: str) -> None:
    headers = ask(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == policy["img-src"] == "'self'"
    assert "script-src" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_twin_is_the_facts() -> None:
    found = ask("/index.json").json()
    assert set(found) == set(Facts.__dataclass_fields__)
    assert found["accuracy"] == {"9": 0.5, "10": 0.75}
    assert list(found["accuracy"]) == ["9", "10"]
    assert found["nodes"][0] == {
        "index": 1, "name": EVIL, "pid": 11, "alive": True, "dishonest": True, "status": STATUS,
    }  # fmt: skip
    plain = ("phase", "started", "seconds", "network", "job", "page", "lines", "rejected")
    expected = {name: getattr(FACTS, name) for name in plain}
    assert {name: found[name] for name in plain} == json.loads(json.dumps(expected))


def test_a_network_that_has_just_begun_has_a_page() -> None:
    answer = ask("/", facts=Facts("starting", 0.0))
    assert answer.status_code == 200
    assert "No node yet." in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/index.json", "/static/style.css"])
def test_it_can_only_be_read(method: str, path: str) -> None:
    answer = ask(path, method)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_has_no_body() -> None:
    answer = ask("/", "HEAD")
    assert (answer.status_code, answer.content) == (200, b"")


OURS = ("localhost", "localhost:8470", "LOCALHOST", "127.0.0.1:8470", "127.8.9.1", "[::1]:8470", "192.168.1.7:8470",
        "10.0.0.1", "172.16.0.9", "[fd00::7]", "my-server:8470")  # fmt: skip
OTHERS = ("evil.example", "evil.example:8470", "8.8.8.8", "", "0" + ".0.0.0", "172.32.0.1", "localhost.evil.example",
          "127.0.0.1.evil.example", "[2001:4860::8888]", "my-server.evil.example")  # fmt: skip


@pytest.mark.parametrize(("host", "allowed"), [(host, True) for host in OURS] + [(host, False) for host in OTHERS])
def test_hosts(host: str, allowed: bool) -> None:
    assert is_allowed(host, {"my-server"}) is allowed
    assert ask("/", headers={"host": host}).status_code == (200 if allowed else 421)


def test_nothing_outside_the_static_folder_is_served() -> None:
    with StatusPageAt() as page, socket.create_connection(("127.0.0.1", page.port)) as raw:
        raw.sendall(b"GET /static/../app.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := raw.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 404")


class StatusPageAt:
    """A page over a real socket."""

    def __enter__(self) -> StatusPage:
        self.page = StatusPage.start(lambda: FACTS, "127.0.0.1", 0)
        return self.page

    def __exit__(self, *_: object) -> None:
        self.page.stop()


def test_it_answers_over_a_socket_and_ends() -> None:
    with StatusPageAt() as page:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", page.url)
        assert httpx.get(page.url + "index.json", timeout=10).json()["phase"] == "training"
    assert threading.active_count() == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(page.url)
    page.stop()  # twice does no harm


def test_a_page_that_ends_at_once_frees_its_port() -> None:
    first = StatusPage.start(lambda: FACTS, "127.0.0.1", 0)
    first.stop()
    second = StatusPage.start(lambda: FACTS, "127.0.0.1", first.port)
    second.stop()


def test_a_port_in_use_and_a_foreign_address_are_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"Port {port} .* --port"):
            StatusPage.start(lambda: FACTS, "127.0.0.1", port)
    with pytest.raises(BadSetting, match="--host"):
        StatusPage.start(lambda: FACTS, "192.0.2.1", 0)
    with pytest.raises(BadSetting, match="address"):
        StatusPage.start(lambda: FACTS, "no such host", 0)
