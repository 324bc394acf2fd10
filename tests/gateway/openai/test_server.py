"""The API on a real server: streams come as they are made, clients that go away stop the model, limits hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from atoll.gateway.guard import Guard
from atoll.gateway.openai import keys
from atoll.gateway.openai.api import Limits
from atoll.inference.answers import Embedded
from tests.gateway.openai.serving import PAID, Echo, Quiet, listening, make_app

NOWHERE = Path("nowhere-at-all")
CHAT = "/v1/chat/completions"
SLOW = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}], "stream": True}


@contextlib.asynccontextmanager
async def server(
    echo: Echo, limits: Limits | None = None, guarded: bool = False, home: Path = NOWHERE
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a real server in the same loop."""
    listener = listening()
    app = make_app(echo, home, limits)
    config = uvicorn.Config(Guard(app) if guarded else app, log_config=None, lifespan="off")
    running = Quiet(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
        yield client
    running.should_exit = True
    await task


async def running(client: httpx.AsyncClient) -> tuple[int, int]:
    health = (await client.get("/health")).json()
    return health["running"], health["waiting"]


def test_a_piece_is_sent_as_soon_as_it_is_there() -> None:
    async def story() -> list[str]:
        echo = Echo(asyncio.Semaphore(0))
        async with server(echo) as client, client.stream("POST", CHAT, json=SLOW) as response:
            lines = response.aiter_lines()
            early = [await anext(lines) for _ in range(4)]  # while the second word is held back
            assert echo.gate is not None
            echo.gate.release()
            echo.gate.release()
            return [*early, *[line async for line in lines]]

    lines = asyncio.run(story())
    assert '"content":"one"' in lines[2]
    assert lines[-2:] == ["data: [DONE]", ""]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_stops_the_model(stream: bool) -> None:
    async def story() -> None:
        echo = Echo(asyncio.Semaphore(0))
        async with server(echo) as client:
            asking = asyncio.create_task(client.post(CHAT, json=SLOW | {"stream": stream}))
            said = await echo.streams.get()
            await said.held.wait()
            assert not said.closed.is_set()
            asking.cancel()
            await said.closed.wait()
            while await running(client) != (0, 0):
                pass
            metrics = (await client.get("/metrics")).text
            assert f'atoll_requests_total{{endpoint="{CHAT}",status="499"}} 1' in metrics
            assert 'atoll_model_tokens_total{model="echo",kind="answer"} 1' in metrics  # what was made is counted

    asyncio.run(story())


def test_a_client_that_goes_away_pays_for_what_was_made(tmp_path: Path) -> None:
    text = keys.add_key(tmp_path, "laptop", None)

    async def story() -> None:
        echo = Echo(asyncio.Semaphore(0))
        async with server(echo, home=tmp_path) as client:
            headers = {"authorization": f"Bearer {text}"}
            asking = asyncio.create_task(client.post(CHAT, json=SLOW | {"model": "paid"}, headers=headers))
            said = await echo.streams.get()
            await said.held.wait()
            asking.cancel()
            while await running(client) != (0, 0):
                pass

    asyncio.run(story())
    assert keys.Keys(tmp_path).spent(keys.read_keys(tmp_path)[0]) == PAID.cost


class Slow(Echo):
    """Vectors for money: they are made when the gate opens."""

    async def embed(self, model: str, texts: Sequence[str]) -> Embedded:
        assert self.gate is not None
        await self.gate.acquire()
        found = await super().embed(model, texts)
        return found._replace(served=PAID)


def test_vectors_that_are_made_for_a_key_are_paid_when_nobody_waits_for_them_any_more(tmp_path: Path) -> None:
    text = keys.add_key(tmp_path, "laptop", None)

    async def story() -> None:
        echo = Slow(asyncio.Semaphore(0))
        async with server(echo, home=tmp_path) as client:
            headers = {"authorization": f"Bearer {text}"}
            asked = {"model": "counts", "input": "one two"}
            asking = asyncio.create_task(client.post("/v1/embeddings", json=asked, headers=headers))
            while await running(client) != (1, 0):
                pass
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            for _ in range(20):  # long enough for the server to notice
                assert await running(client) == (1, 0)
            assert echo.gate is not None
            echo.gate.release()
            while await running(client) != (0, 0):
                pass

    asyncio.run(story())
    assert keys.Keys(tmp_path).spent(keys.read_keys(tmp_path)[0]) == PAID.cost


def test_who_waits_while_the_last_of_a_key_is_spent_is_402(tmp_path: Path) -> None:
    text = keys.add_key(tmp_path, "laptop", 1)

    async def story() -> list[int]:
        echo = Echo(asyncio.Semaphore(0))
        async with server(echo, Limits(running=1), home=tmp_path) as client:
            headers = {"authorization": f"Bearer {text}"}
            paid = SLOW | {"model": "paid"}
            asking = [asyncio.create_task(client.post(CHAT, json=paid, headers=headers)) for _ in range(4)]
            while await running(client) != (1, 3):
                pass
            assert echo.gate is not None
            for _ in range(8):
                echo.gate.release()
            return sorted([(await one).status_code for one in asking])

    assert asyncio.run(story()) == [200, 402, 402, 402]
    assert keys.Keys(tmp_path).spent(keys.read_keys(tmp_path)[0]) == PAID.cost


def test_a_client_that_goes_away_while_it_waits_leaves_the_queue() -> None:
    async def story() -> None:
        echo = Echo(asyncio.Semaphore(0))
        async with server(echo, Limits(running=1)) as client:
            first = asyncio.create_task(client.post(CHAT, json=SLOW))
            await echo.streams.get()
            second = asyncio.create_task(client.post(CHAT, json=SLOW))
            while await running(client) != (1, 1):
                pass
            second.cancel()
            while await running(client) != (1, 0):
                pass
            assert echo.streams.empty()
            assert echo.gate is not None
            echo.gate.release()
            echo.gate.release()
            assert "[DONE]" in (await first).text

    asyncio.run(story())


def test_too_many_requests_are_told_to_come_back() -> None:
    async def story() -> tuple[httpx.Response, list[Any]]:
        echo = Echo(asyncio.Semaphore(0))
        async with server(echo, Limits(running=1, waiting=1)) as client:
            asking = [asyncio.create_task(client.post(CHAT, json=SLOW)) for _ in range(2)]
            while await running(client) != (1, 1):
                pass
            refused = await client.post(CHAT, json=SLOW)
            assert echo.gate is not None
            for _ in range(4):
                echo.gate.release()
            return refused, await asyncio.gather(*asking)

    refused, answered = asyncio.run(story())
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert [one.status_code for one in answered] == [200, 200]


def test_a_turn_that_does_not_come_in_time_is_503() -> None:
    async def story() -> httpx.Response:
        echo = Echo(asyncio.Semaphore(0))
        async with server(echo, Limits(running=1, wait_seconds=0.05)) as client:
            first = asyncio.create_task(client.post(CHAT, json=SLOW))
            await echo.streams.get()
            refused = await client.post(CHAT, json=SLOW)
            first.cancel()
            return refused

    refused = asyncio.run(story())
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0


def test_bodies_that_are_read_together_have_a_bound() -> None:
    async def story() -> httpx.Response:
        async with server(Echo(), Limits(body_bytes=1000)) as client:
            large = await client.post(CHAT, json=SLOW | {"user": "x" * 400, "safety_identifier": "x" * 500})
            assert (await client.post(CHAT, json=SLOW)).status_code == 200  # what was held is free again
            return large

    assert asyncio.run(story()).status_code == 429


def test_behind_the_gateways_guard_streams_flow_and_other_sites_are_refused() -> None:
    async def story() -> tuple[str, int]:
        echo = Echo(asyncio.Semaphore(0))
        async with server(echo, guarded=True) as client:
            async with client.stream("POST", CHAT, json=SLOW) as response:
                lines = response.aiter_lines()
                early = [await anext(lines) for _ in range(4)]
            await (await echo.streams.get()).closed.wait()  # the client has left
            foreign = await client.post(CHAT, json=SLOW, headers={"origin": "https://evil.example"})
            return early[2], foreign.status_code

    line, status = asyncio.run(story())
    assert '"content":"one"' in line
    assert status == 403
