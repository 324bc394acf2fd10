"""Who is answered, under which names, how often; and that no other site's page can act here."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket

from atoll.errors import MachineError
from atoll.gateway.guard import (
    HEADERS,
    Buckets,
    Guard,
    Limits,
    address_of,
    is_allowed,
    is_loopback,
    is_owner,
    is_same_origin,
    owner_token,
)

OURS = ("localhost", "localhost:8470", "LOCALHOST", "127.0.0.1:8470", "127.8.9.1", "[::1]:8470", "192.168.1.7:8470",
        "10.0.0.1", "172.16.0.9", "[fd00::7]", "my-server:8470", "laptop.local:8470")  # fmt: skip
OTHERS = ("evil.example", "evil.example:8470", "8.8.8.8", "", "0" + ".0.0.0", "172.32.0.1", "localhost.evil.example",
          "127.0.0.1.evil.example", "[2001:4860::8888]", "my-server.evil.example", ".local", "local",
          "laptop.local.evil.example", "evil.example#.local", "evil.example/.local", "[::1].evil.example",
          "[::1%evil.example]", "evil@127.0.0.1", "127.0.0.1@evil.example", "127.0.0.1:80:90", "localhost:x",
          "[::1", "localhost.", "::1]")  # fmt: skip


async def answer(_: Request) -> Response:
    return PlainTextResponse("done")


async def socket(connection: WebSocket) -> None:
    await connection.accept()
    await connection.close()


def guarded(**options: Any) -> Guard:
    inner = Starlette(routes=[
        Route("/", answer, methods=["GET", "POST", "PUT"]),
        Route("/static/x.js", answer),
        WebSocketRoute("/ws", socket),
    ])  # fmt: skip
    return Guard(inner, {"My-Server"}, **options)


def ask(
    guard: Guard, method: str = "GET", path: str = "/", client: str = "127.0.0.1", **headers: str
) -> httpx.Response:
    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(guard, client=(client, 4000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8470") as asker:
            return await asker.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return asyncio.run(request())


@pytest.mark.parametrize(("host", "allowed"), [(host, True) for host in OURS] + [(host, False) for host in OTHERS])
def test_hosts(host: str, allowed: bool) -> None:
    assert is_allowed(host, {"my-server"}) is allowed
    assert ask(guarded(), host=host).status_code == (200 if allowed else 421)


def test_headers_on_every_answer() -> None:
    for found in (ask(guarded()), ask(guarded(), path="/nowhere"), ask(guarded(), host="evil.example")):
        assert {name: found.headers[name] for name in HEADERS} == HEADERS
        assert found.headers["cache-control"] == "no-store"
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"  # no inline script, no eval
    assert policy["style-src"] == policy["connect-src"] == policy["worker-src"] == "'self'"
    assert policy["form-action"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        ({"origin": "http://localhost:8470", "sec_fetch_site": "same-origin"}, 200),
        ({"origin": "http://LOCALHOST:8470"}, 200),
        ({"origin": "http://localhost:3000"}, 403),  # another program's page on this very device
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
    ],
)
def test_a_page_of_another_site_cannot_act(headers: dict[str, str], status: int) -> None:
    for method in ("POST", "PUT"):
        assert ask(guarded(), method, **headers).status_code == status
    assert ask(guarded(), **headers).status_code == 200  # following a link is no action


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_may_link_here_and_load_nothing(site: str) -> None:
    for mode in ("no-cors", "cors", "websocket"):
        assert ask(guarded(), sec_fetch_site=site, sec_fetch_mode=mode).status_code == 403
        assert ask(guarded(), sec_fetch_site="same-origin", sec_fetch_mode=mode).status_code == 200
    assert ask(guarded(), sec_fetch_site=site, sec_fetch_mode="navigate").status_code == 200


def test_a_page_of_another_site_cannot_open_a_socket() -> None:
    def first_answer(**headers: str) -> Message:
        sent: list[Message] = []
        scope = {
            "type": "websocket", "path": "/ws", "raw_path": b"/ws", "query_string": b"", "subprotocols": [],
            "scheme": "ws", "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8470),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip

        async def receive() -> Message:
            return {"type": "websocket.connect"}

        async def send(message: Message) -> None:
            sent.append(message)

        asyncio.run(guarded()(scope, receive, send))
        return sent[0]

    assert first_answer(host="localhost:8470", origin="http://localhost:8470")["type"] == "websocket.accept"
    assert first_answer(host="localhost:8470")["type"] == "websocket.accept"  # a program
    assert first_answer(host="localhost:8470", origin="http://evil.example")["type"] == "websocket.close"
    assert first_answer(host="evil.example", origin="http://evil.example")["type"] == "websocket.close"


def test_an_address_that_asks_too_often_waits() -> None:
    now = [100.0]
    guard = guarded(limits=Limits(burst=3, per_second=0.5), clock=lambda: now[0])
    assert [ask(guard, client="192.168.1.9").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = ask(guard, client="192.168.1.9")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    assert ask(guard, client="192.168.1.10").status_code == 200  # somebody else
    assert all(ask(guard).status_code == 200 for _ in range(9))  # this device itself
    now[0] += 2.0
    assert [ask(guard, client="192.168.1.9").status_code for _ in range(2)] == [200, 429]


def test_a_static_file_costs_a_tenth() -> None:
    guard = guarded(limits=Limits(burst=1, per_second=0.001), clock=lambda: 0.0)
    codes = [ask(guard, path="/static/x.js", client="10.0.0.9").status_code for _ in range(11)]
    assert codes == [200] * 10 + [429]


def test_buckets_take_one_network_of_ipv6_as_one_and_forget_the_quiet() -> None:
    buckets = Buckets(Limits(burst=1, per_second=1, addresses=2))
    assert buckets.take("fd00::1", 1, 0.0) == 0
    assert buckets.take("fd00::2", 1, 0.0) == 1.0  # the same /64
    assert buckets.take("fd00:0:0:1::1", 1, 0.0) == 0
    assert buckets.take("10.0.0.1", 1, 0.0) == 0  # a third: the first is forgotten
    assert buckets.take("fd00::2", 1, 0.0) == 0


def test_the_token_is_made_once_and_only_the_owner_can_read_it(tmp_path: Path) -> None:
    token = owner_token(tmp_path)
    assert len(token) >= 32
    assert owner_token(tmp_path) == token
    assert stat.S_IMODE((tmp_path / "gateway.token").stat().st_mode) == 0o600
    assert is_owner(Headers({"authorization": f"Bearer {token}"}), token)
    for wrong in ({}, {"authorization": token}, {"authorization": f"Bearer {token}x"}, {"authorization": "Bearer é"}):
        assert not is_owner(Headers(wrong), token)
    assert not is_owner(Headers({"authorization": "Bearer "}), "")


def test_a_token_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "gateway.token").write_text("short\n")
    with pytest.raises(MachineError, match="remove it"):
        owner_token(tmp_path)
    with pytest.raises(MachineError, match="folder"):
        owner_token(tmp_path / "nowhere")


def test_same_origin_by_itself() -> None:
    assert is_same_origin(Headers({"host": "a:1", "origin": "https://a:1"}))
    assert not is_same_origin(Headers({"host": "a:1", "origin": "http://a:1.evil.example"}))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        (None, "?"),
    ],
)
def test_what_counts_as_one_address(host: str | None, address: str) -> None:
    assert address_of(host) == address


def test_two_clients_of_ipv4_are_two_on_a_socket_of_both_kinds() -> None:
    buckets = Buckets(Limits(burst=1, per_second=1))
    assert [buckets.take(f"::ffff:10.0.0.{last}", 1.0, 0.0) for last in (1, 2, 1)] == [0.0, 0.0, 1.0]
    assert is_loopback("127.0.0.1") and is_loopback("::ffff:127.0.0.1") and is_loopback("::1")
    assert not is_loopback("::ffff:10.0.0.1") and not is_loopback("testclient")
