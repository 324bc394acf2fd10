"""Where a gateway listens, and how it says that it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from atoll.errors import BadSetting, PortInUse
from atoll.gateway.server import HEAD_SECONDS, HEAD_SECONDS_IN_A_CROWD, _Server, listen, page_url


def test_a_free_port_is_taken_and_a_used_one_is_named() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert port > 0
        with pytest.raises(PortInUse, match=f"Port {port} on 127.0.0.1 is used by another program"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.77", "no such host", "x" * 70])
def test_an_address_that_is_none_of_this_device(host: str) -> None:
    with pytest.raises(BadSetting, match="listen"):
        listen(host, 0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "http://127.0.0.1:8470/"),  # noqa: S104 - everywhere: so also here
        ("::", "http://[::1]:8470/"),
        ("192.168.1.5", "http://192.168.1.5:8470/"),
        ("fd00::7", "http://[fd00::7]:8470/"),
    ],
)
def test_where_a_browser_finds_it(host: str, expected: str) -> None:
    assert page_url(host, 8470) == expected


async def _drip() -> AsyncIterator[str]:
    yield "first"
    await asyncio.Event().wait()


PAGES = Starlette(
    routes=[Route("/", lambda _: PlainTextResponse("here")), Route("/live", lambda _: StreamingResponse(_drip()))]
)


class Visitor:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def leave(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    def send(self, text: str) -> None:
        self._writer.write(text.encode())

    async def hears(self, text: str) -> None:
        await self._reader.readuntil(text.encode())

    async def is_turned_away(self) -> bool:
        return await self._reader.read(1) == b""


class House:
    """A server with places for eight, whose time goes on by hand, and its visitors."""

    def __init__(self) -> None:
        self.now = 0.0
        self._visitors: list[Visitor] = []
        config = uvicorn.Config(
            PAGES, log_config=None, lifespan="off", limit_concurrency=8, timeout_graceful_shutdown=1
        )
        self.server = _Server(config, lambda: self.now)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[House]:
        with listen("127.0.0.1", 0) as listener:
            self._port = listener.getsockname()[1]
            serving = asyncio.create_task(self.server.serve(sockets=[listener]))
            yield self
            for one in self._visitors:
                await one.leave()
            self.server.should_exit = True
            await serving

    async def visitor(self, text: str) -> Visitor:
        found = Visitor(*await asyncio.open_connection("127.0.0.1", self._port))
        found.send(text)
        self._visitors.append(found)
        return found

    async def notices(self, connections: int) -> None:
        """Until the server has seen so many connections that ask for nothing."""
        while len(self.server._silent) != connections:
            await asyncio.sleep(0)


def test_who_takes_a_place_and_asks_for_nothing_is_turned_away() -> None:
    async def story() -> None:
        async with House().open() as house:
            halves = [await house.visitor("GET / HTTP/1.1\r\nHost: here\r\nX-So-"), await house.visitor("")]
            reader = await house.visitor("GET /live HTTP/1.1\r\nHost: here\r\n\r\n")
            await reader.hears("first")
            await house.notices(2)
            house.now = HEAD_SECONDS - 0.1
            halves[0].send("Far: 1\r\n\r\n")
            await halves[0].hears("here")  # it took its time, but not too much
            house.now = HEAD_SECONDS
            assert await halves[1].is_turned_away()
            halves[0].send("GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            await halves[0].hears("here")
            assert len(house.server.server_state.connections) == 2  # and who reads slowly is no thief

    asyncio.run(story())


def test_in_a_crowd_there_is_less_patience() -> None:
    async def story() -> None:
        async with House().open() as house:
            crowd = [await house.visitor("GET / HTTP/1.1\r\n") for _ in range(4)]
            await house.notices(4)
            house.now = HEAD_SECONDS_IN_A_CROWD
            assert all([await one.is_turned_away() for one in crowd])
            newcomer = await house.visitor("GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            await newcomer.hears("here")

    asyncio.run(story())
