"""The control channel: answers, errors that keep their class, watching, strangers, and nodes that are gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from atoll import errors
from atoll.node import control
from atoll.node.control import ControlClient, ControlServer
from atoll.wire.reasons import Reason

PROCESS = Path(__file__).with_name("control_process.py")


async def echo(params: dict[str, Any]) -> Any:
    return params


async def raising(params: dict[str, Any]) -> Any:
    if params["name"] == "Refused":
        raise errors.Refused(Reason.OVER_BUDGET, "0 left")
    raise getattr(errors, params["name"])("a sentence")


async def mistake(_params: dict[str, Any]) -> Any:
    raise ZeroDivisionError


async def unspeakable(_params: dict[str, Any]) -> Any:
    return {1, 2}


HANDLERS = {"echo": echo, "raise": raising, "mistake": mistake, "unspeakable": unspeakable}


def run(home: Path, work: Callable[[ControlServer, ControlClient], Awaitable[None]]) -> None:
    async def inside() -> None:
        server = await ControlServer.start(home, HANDLERS)
        try:
            async with asyncio.timeout(60):
                await work(server, ControlClient(home))
        finally:
            await server.close()

    asyncio.run(inside())


async def say(port: int, data: bytes) -> list[Any]:
    """Everything that the server answers to raw bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return [json.loads(line) for line in answer.splitlines()]


def test_calls_and_their_answers(tmp_path: Path) -> None:
    async def work(_: ControlServer, client: ControlClient) -> None:
        assert await client.call("echo") == {}
        assert await client.call("echo", job="0x12", amount="1000000000000000000", deep=[{"a": None}]) == {
            "job": "0x12", "amount": "1000000000000000000", "deep": [{"a": None}],
        }  # fmt: skip
        big = "é" * 400_000  # more than one line may hold of a request as JSON escapes it, less than an answer may
        with pytest.raises(errors.BadInput, match="at most"):
            await client.call("echo", text=big)
        answers = await asyncio.gather(*(client.call("echo", i=i) for i in range(40)))
        assert answers == [{"i": i} for i in range(40)]

    run(tmp_path, work)


def test_errors_keep_their_class_message_and_exit_code(tmp_path: Path) -> None:
    async def work(_: ControlServer, client: ControlClient) -> None:
        for kind in (errors.EmptyBudget, errors.ChainDown, errors.Corrupt, errors.AtollError):
            with pytest.raises(errors.AtollError, match=r"^a sentence$") as raised:
                await client.call("raise", name=kind.__name__)
            assert type(raised.value) is kind
        with pytest.raises(errors.Refused, match="OVER_BUDGET: 0 left") as refused:
            await client.call("raise", name="Refused")
        assert refused.value.reason is Reason.OVER_BUDGET
        for method in ("mistake", "unspeakable"):
            with pytest.raises(errors.InternalError, match=f"{method} failed"):
                await client.call(method)
        with pytest.raises(errors.BadInput, match="expected one of echo, mistake, raise, unspeakable, watch"):
            await client.call("no such method")
        assert await client.call("echo") == {}

    run(tmp_path, work)


def test_watching(tmp_path: Path) -> None:
    async def work(server: ControlServer, client: ControlClient) -> None:
        server.publish({"before": "nobody watches"})
        one, two = client.watch(), client.watch()
        first = [asyncio.ensure_future(anext(watch)) for watch in (one, two)]
        while len(server._watchers) < 2:  # until both have arrived
            await client.call("echo")
        server.publish({"round": 1})
        assert await asyncio.gather(*first) == [{"round": 1}, {"round": 1}]
        await one.aclose()  # type: ignore[attr-defined]
        while len(server._watchers) > 1:
            await client.call("echo")
        for i in range(2, 5):
            server.publish({"round": i})
        assert [await anext(two) for _ in range(3)] == [{"round": i} for i in (2, 3, 4)]
        await server.close()
        with pytest.raises(StopAsyncIteration):
            await anext(two)

    run(tmp_path, work)


def test_a_slow_watcher_misses_the_oldest_and_is_told(tmp_path: Path) -> None:
    async def work(server: ControlServer, client: ControlClient) -> None:
        watch: AsyncIterator[Any] = client.watch()
        first = asyncio.ensure_future(anext(watch))
        while not server._watchers:
            await client.call("echo")
        for i in range(control.MAX_WAITING_LINES + 7):  # all before the watcher's task runs once
            server.publish(i)
        assert await first == {"missed": 7}
        assert [await anext(watch) for _ in range(control.MAX_WAITING_LINES)] == list(
            range(7, control.MAX_WAITING_LINES + 7)
        )

    run(tmp_path, work)


def test_strangers_learn_nothing(tmp_path: Path) -> None:
    async def work(server: ControlServer, client: ControlClient) -> None:
        token = json.loads((tmp_path / "control.json").read_bytes())["token"]
        good = json.dumps({"token": token, "method": "echo"}).encode() + b"\n"
        assert await say(server.port, good + good) == [{"result": {}}, {"result": {}}]
        bad: list[Any] = [
            {"method": "echo"},
            {"token": None, "method": "echo"},
            {"token": "", "method": "echo"},
            {"token": token[:-1], "method": "echo"},
            {"token": "0" * 64, "method": "echo"},
            {"token": "\u00e9\ud800", "method": "watch"},
            [token, "echo"],
            "echo",
        ]
        for request in bad:  # the second request of the same connection is not looked at
            (answer,) = await say(server.port, json.dumps(request).encode() + b"\n" + good)
            assert answer["error"]["code"] == "bad_input"
            assert token not in json.dumps(answer)
        for raw in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\xff\xfe\n",
            b"[" * 100_000 + b"\n",
            good[:-1],
        ):
            (answer,) = await say(server.port, raw)
            assert answer["error"]["exit_code"] == 2
        for wrong in ({"method": 1}, {"method": "echo", "params": []}):
            (answer,) = await say(server.port, json.dumps({"token": token} | wrong).encode() + b"\n")
            assert "params" in answer["error"]["message"]
        assert await say(server.port, b"") == []
        with contextlib.suppress(ConnectionError):  # cut off while it still speaks: the answer may not reach it
            (answer,) = await say(server.port, b"x" * (4 << 20) + b"\n")
            assert answer["error"]["exit_code"] == 2
        assert await client.call("echo") == {}

    run(tmp_path, work)


def test_deep_nesting_does_not_end_the_process(tmp_path: Path) -> None:
    """With the recursion limit that web3's py_ecc sets, json.loads alone would overflow the C stack here."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:

        async def work(server: ControlServer, client: ControlClient) -> None:
            for deep in (b"[" * 500_000, b'{"a":' * 100_000, b'"\\"[' + b"[" * 500_000):
                (answer,) = await say(server.port, deep + b"\n")
                assert answer["error"]["code"] == "bad_input"
            nested: Any = 1
            for _ in range(control.MAX_DEPTH - 2):
                nested = [nested]
            assert await client.call("echo", deep=nested, text='[' * 1000 + '\\"[{') == {
                "deep": nested, "text": '[' * 1000 + '\\"[{',
            }  # fmt: skip
            with pytest.raises(errors.BadInput):
                await client.call("echo", deep=[nested])

        run(tmp_path, work)
    finally:
        sys.setrecursionlimit(usual)


def test_the_notice_is_private_and_goes_with_the_node(tmp_path: Path) -> None:
    async def work(server: ControlServer, client: ControlClient) -> None:
        path = tmp_path / "control.json"
        notice = json.loads(path.read_bytes())
        assert (notice["port"], notice["pid"]) == (server.port, os.getpid())
        assert len(notice["token"]) == 64
        if os.name == "posix":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await server.close()
        assert not path.exists()
        with pytest.raises(errors.NotRunning):
            await client.call("echo")
        second = await ControlServer.start(tmp_path, HANDLERS)
        third = await ControlServer.start(tmp_path, HANDLERS)
        assert json.loads(path.read_bytes())["token"] != notice["token"]
        await second.close()
        assert path.exists()  # it is the third's by now
        await third.close()

    run(tmp_path, work)


def test_a_port_in_use_and_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    async def work(server: ControlServer, _: ControlClient) -> None:
        (tmp_path / "other").mkdir()
        with pytest.raises(errors.PortInUse, match=f"{server.port}.*control_port"):
            await ControlServer.start(tmp_path / "other", {}, server.port)
        with pytest.raises(errors.MachineError, match="cannot be written"):
            await ControlServer.start(tmp_path / "missing", {})

    run(tmp_path, work)


@pytest.mark.parametrize("notice", [None, b"", b"{}", b'{"port":1,"token":"x","pid":-5}', b'{"port":"a","token":1}'])
def test_no_node(tmp_path: Path, notice: bytes | None) -> None:
    if notice is not None:
        (tmp_path / "control.json").write_bytes(notice)
    with pytest.raises(errors.NotRunning, match=f"No node runs in {tmp_path}: start one with `atoll node --home"):
        asyncio.run(ControlClient(tmp_path).call("status"))


def test_a_killed_node_is_not_running(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, str(PROCESS), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    async def while_it_runs() -> None:
        client = ControlClient(tmp_path)
        assert await client.call("status") == {"pid": process.pid}
        waiting = asyncio.create_task(client.call("hang"))
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "asked\n"
        with pytest.raises(errors.Unreachable, match=r"within 0\.2 s"):
            await client.call("hang", timeout=0.2)
        process.kill()
        with pytest.raises(errors.NotRunning):
            await waiting

    asyncio.run(while_it_runs())
    process.communicate()
    assert (tmp_path / "control.json").exists()  # stale: it was killed
    with pytest.raises(errors.NotRunning):
        asyncio.run(ControlClient(tmp_path).call("status"))


def test_another_program_on_the_port_of_a_dead_node(tmp_path: Path) -> None:
    async def web(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(web, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        (tmp_path / "control.json").write_text(json.dumps({"port": port, "token": "x", "pid": os.getpid()}))
        with pytest.raises(errors.NotRunning):
            await ControlClient(tmp_path).call("status")
        server.close()

    asyncio.run(work())
