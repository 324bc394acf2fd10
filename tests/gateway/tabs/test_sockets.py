"""Who gets in, what a socket may do, and what happens to those that break a rule."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from atoll.gateway.tabs.limits import (
    CERTIFICATES_AT_ONCE,
    CERTIFICATES_BYTES,
    FRAME_BYTES,
    HELLO_SECONDS,
    SOCKETS_PER_ADDRESS,
)
from atoll.gateway.tabs.telling import certificates
from atoll.node.job import Job
from atoll.sim.network import JOBS_CONTRACT
from atoll.training.committee import CertifyPayload, Place, verify_quorum
from atoll.wire.hashing import keccak
from atoll.wire.identity import AccountKey
from atoll.wire.messages import Phase, Quorum, unseal
from tests.gateway.tabs.house import House
from tests.gateway.tabs.tab import Tab

Story = Callable[[House, str], Awaitable[None]]


def serve(folder: Path, story: Story, **options: Any) -> House:
    """Run a story against a gateway on loopback."""
    house = House(folder, **options)

    async def run() -> None:
        async with asyncio.timeout(60), house.open() as where:
            await story(house, where)

    asyncio.run(run())
    return house


def key(number: int) -> AccountKey:
    return AccountKey(keccak(b"somebody %d" % number))


async def ended(socket: Any) -> tuple[int, list[dict[str, Any]]]:
    """The close code of a socket, and what it was told before."""
    told = []
    try:
        while True:
            told.append(json.loads(await socket.recv()))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code, told


def test_a_hello_proves_the_account(tmp_path: Path) -> None:
    async def story(house: House, where: str) -> None:
        async with Tab(key(1), where).open() as tab:
            told = tab.states["account"]
            assert (told["registered"], told["nonce"], told["roles"]) == (False, 0, 0)
            assert (told["earned"], told["claimed"], told["balance"]) == ("0", "0", "0")
            assert len(bytes.fromhex(told["token"])) == 32
        # A signature that was made for another socket says nothing here.
        async with connect(f"ws://{where}/join/socket") as socket:
            await socket.recv()
            stale = {"account": key(1).address.hex(), "signature": tab.hello().hex()}
            await socket.send(json.dumps({"type": "hello", "id": "a", **stale}))
            code, told_last = await ended(socket)
            assert code == 1008
            assert [(one["type"], one["id"], one["reason"]) for one in told_last] == [("refused", "a", "BAD_SIGNATURE")]

    serve(tmp_path, story)


@pytest.mark.parametrize("first", ['{"type":"claim","id":"a"}', "[]", "nonsense", '{"type":"hello","id":"a"}', b"\x00"])
def test_nothing_comes_before_a_hello(tmp_path: Path, first: str | bytes) -> None:
    async def story(house: House, where: str) -> None:
        async with connect(f"ws://{where}/join/socket") as socket:
            await socket.recv()
            await socket.send(first)
            assert (await ended(socket))[0] == 1008
        assert len(house.relay.places) == 0

    serve(tmp_path, story)


def test_a_silent_socket_gives_its_place_back(tmp_path: Path) -> None:
    async def story(house: House, where: str) -> None:
        began = time.monotonic()
        async with connect(f"ws://{where}/join/socket") as socket:
            await socket.recv()
            assert (await ended(socket))[0] == 1008
        assert HELLO_SECONDS - 1 < time.monotonic() - began < HELLO_SECONDS + 10
        await house.until(lambda: len(house.relay.places) == 0)

    serve(tmp_path, story)


def test_a_page_of_another_site_gets_no_socket_and_no_upload(tmp_path: Path) -> None:
    async def story(house: House, where: str) -> None:
        for origin in ("http://evil.example", "null", f"http://{where}0", f"ftp://{where}"):
            with pytest.raises(InvalidStatus):
                async with connect(f"ws://{where}/join/socket", origin=origin):  # type: ignore[arg-type]
                    pass
        async with Tab(key(1), where).open(origin=f"http://{where}") as tab:
            headers = {"Authorization": f"Bearer {tab.token}", "Origin": "http://evil.example"}
            answer = await tab.web.put("/join/blob", content=b"bytes", headers=headers)
            assert answer.status_code == 403

    serve(tmp_path, story)


def test_one_address_does_not_take_all_places(tmp_path: Path) -> None:
    async def story(house: House, where: str) -> None:
        sockets = [await connect(f"ws://{where}/join/socket") for _ in range(SOCKETS_PER_ADDRESS)]
        async with connect(f"ws://{where}/join/socket") as one_more:
            code, told = await ended(one_more)
            assert code == 1013
            assert [one["type"] for one in told] == ["full"]
            assert "this address" in told[0]["detail"]
        await sockets[0].close()
        await house.until(lambda: len(house.relay.places) < SOCKETS_PER_ADDRESS)
        async with Tab(key(1), where).open():
            pass
        for socket in sockets[1:]:
            await socket.close()

    serve(tmp_path, story)


def test_when_all_places_are_taken_newcomers_are_told(tmp_path: Path) -> None:
    async def story(house: House, where: str) -> None:
        third = connect(f"ws://{where}/join/socket")
        async with Tab(key(1), where).open(), Tab(key(2), where).open(), third as socket:
            code, told = await ended(socket)
            assert (code, told[0]["type"]) == (1013, "full")
            assert "2 tabs" in told[0]["detail"]

    serve(tmp_path, story, max_tabs=2)


def test_an_idle_tab_gives_way_to_a_newcomer(tmp_path: Path) -> None:
    """One that never enlisted and was silent for a minute; the one with work to do stays."""

    async def story(house: House, where: str) -> None:
        async with Tab(house.observer.key, where).open(), Tab(key(1), where).open() as idle:
            for tab in house.relay.tabs.values():
                tab.heard -= 61
            async with connect(f"ws://{where}/join/socket") as socket:
                assert (await ended(socket))[0] == 1013
            assert (await ended(idle.socket))[0] == 1000
            await house.until(lambda: len(house.relay.places) == 1)
            assert list(house.relay.tabs) == [house.observer.account]
            async with Tab(key(2), where).open():
                pass

    serve(tmp_path, story, max_tabs=2)


def test_a_thousand_sockets_neither_starve_nor_fill_the_gateway(tmp_path: Path) -> None:
    """All at once from one address: a few get in, the rest is told or closed, and the tab that works goes on."""

    async def flood(where: str, count: Counter[str]) -> None:
        try:
            async with connect(f"ws://{where}/join/socket", open_timeout=50, close_timeout=1) as socket:
                first = json.loads(await socket.recv())
                count[first["type"]] += 1
                if first["type"] == "full":
                    assert (await ended(socket))[0] == 1013
        except InvalidStatus as refused:
            count[f"status {refused.response.status_code}"] += 1
        except (ConnectionClosed, OSError):
            count["closed"] += 1

    async def story(house: House, where: str) -> None:
        async with Tab(house.observer.key, where).open() as tab:
            before = resident()
            count: Counter[str] = Counter()
            crowd = asyncio.gather(*(flood(where, count) for _ in range(1000)))
            slowest, rounds = 0.0, 0
            while not crowd.done():
                began = time.monotonic()
                assert (await tab.ask("pause", paused=bool(rounds % 2)))["type"] == "taken"
                slowest, rounds = max(slowest, time.monotonic() - began), rounds + 1
                await asyncio.sleep(0.1)
            await crowd
            assert count.total() == 1000
            assert 1 <= count["welcome"] <= 40  # places that were given back in between are given to others
            assert count["full"] >= 1
            assert set(count) <= {"welcome", "full", "status 403", "closed"}
            assert slowest < 60, slowest  # it is answered all along, however busy this machine is
            assert resident() - before < 200 << 20  # the thousand clients in this process included
            assert len(house.relay.tabs) == 1

    serve(tmp_path, story)


def resident() -> int:
    """Bytes of memory that this process uses."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * 4096 if pages.exists() else 0


def test_frames_that_are_wrong_are_refused_by_their_id(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"type": "say", "raw": "zz"}, "MALFORMED"),
        ({"type": "say", "raw": "0"}, "MALFORMED"),
        ({"type": "say", "raw": "00\n"}, "MALFORMED"),
        ({"type": "say"}, "MALFORMED"),
        ({"type": "say", "raw": "00", "more": 1}, "MALFORMED"),
        ({"type": "unheard of"}, "MALFORMED"),
        ({"type": "register", "roles": 2, "signature": "00" * 65}, "MALFORMED"),
        ({"type": "enlist", "job": "00" * 32, "tip": "11" * 32, "signature": "00" * 65}, "NOT_FOUND"),
        ({"type": "hello", "account": "00" * 20, "signature": "00" * 65}, "MALFORMED"),
        ({"type": "claim"}, "NOT_FOUND"),
    ]

    async def story(house: House, where: str) -> None:
        async with Tab(key(1), where).open() as tab:
            for number, (frame, reason) in enumerate(wrong):
                await tab.socket.send(json.dumps({**frame, "id": str(number)}))
                answer = await tab.receive_kind("refused")
                assert (answer["id"], answer["reason"]) == (str(number), reason), frame
            await tab.socket.send("{")
            assert (await tab.receive_kind("refused"))["id"] == ""
            await tab.socket.send(json.dumps({"type": "bye", "id": "z"}))
            assert (await ended(tab.socket))[0] == 1000

    serve(tmp_path, story)


def test_too_large_and_too_many_frames_end_a_socket(tmp_path: Path) -> None:
    async def story(house: House, where: str) -> None:
        async with Tab(key(1), where).open() as tab:
            await tab.socket.send(json.dumps({"type": "say", "id": "a", "raw": "00" * FRAME_BYTES}))
            assert (await ended(tab.socket))[0] == 1009
        async with Tab(key(2), where).open() as tab:
            for _ in range(300):
                await tab.socket.send('{"type":"pause","id":"a"}')
            code, told = await ended(tab.socket)
            assert code == 1008
            assert len(told) < 300
        await house.until(lambda: not house.relay.tabs)

    serve(tmp_path, story)


def test_a_tab_that_does_not_listen_is_given_up(tmp_path: Path) -> None:
    """What waits for it stays bounded, and its place is free again."""

    async def story(house: House, where: str) -> None:
        async with Tab(key(1), where).open(max_queue=1, compression=None) as deaf:
            outbox = house.relay.tabs[deaf.key.address].outbox
            while not outbox.overflowed:  # megabytes fit into the kernel's buffers before anybody has to wait
                outbox.event(json.dumps({"type": "verdict", "filling": "x" * 100_000}))
                await asyncio.sleep(0)
            await house.until(lambda: not house.relay.tabs)
            await house.until(lambda: len(house.relay.places) == 0)
            deaf.socket.transport.abort()

    serve(tmp_path, story)


def test_a_second_tab_with_the_same_account_takes_over(tmp_path: Path) -> None:
    async def story(house: House, where: str) -> None:
        async with Tab(key(1), where).open() as first, Tab(key(1), where).open() as second:
            assert (await ended(first.socket))[0] == 1000
            assert (await second.ask("pause"))["type"] == "taken"
            assert house.relay.tab_of(first.token) is None
            assert house.relay.tab_of(second.token) is not None

    serve(tmp_path, story)


def test_uploads_are_for_those_with_work(tmp_path: Path) -> None:
    async def story(house: House, where: str) -> None:
        limit = house.manifest.state_bytes
        async with Tab(key(1), where).open() as idle, Tab(house.observer.key, where).open() as tab:
            assert (await idle.put(b"x")).status_code == 404  # nothing is asked of it
            assert (await tab.put(b"x", token="00" * 32)).status_code == 401
            assert (await tab.web.put("/join/blob", content=b"x")).status_code == 401
            assert (await tab.put(b"")).status_code == 400
            assert (await tab.put(bytes(limit + 1))).status_code == 413

            async def pieces() -> Any:
                yield b"x"

            headers = {"Authorization": f"Bearer {tab.token}"}
            chunked = await tab.web.put("/join/blob", content=pieces(), headers=headers)
            assert chunked.status_code == 400  # says no length
            assert (await tab.put(bytes(limit))).status_code == 200
            units = 2 + 2  # two segments, a state too many for the model, an update; nothing is audited yet
            codes = [(await tab.put(b"%d" % number)).status_code for number in range(units)]
            assert codes == [200, 200, 200, 429]
            assert (await tab.put(b"0")).status_code in (200, 429)  # the same again is no more, if it is taken at all

    serve(tmp_path, story)


def test_certificates_lead_from_round_to_round(tmp_path: Path) -> None:
    async def story(house: House, where: str) -> None:
        async with Tab(key(1), where).open() as tab:
            job = house.runner.id.hex()
            told = await tab.receive_kind("job") if "job" not in tab.states else tab.states["job"]
            place = Place(house.domain, JOBS_CONTRACT, house.runner.id, 0, house.network.terms.committee)
            assert told["first_committee"] == [member.hex() for member in place.committee]
            assert msgspec.msgpack.decode((await tab.web.get(f"/join/certificates/{job}?from=0")).content) == []
            house.go()
            await house.until(lambda: house.observer.job is not None and house.observer.job.standing.done)
            answer = await tab.web.get(f"/join/certificates/{job}?from=0")
            assert answer.headers["content-type"] == "application/msgpack"
            shown = msgspec.msgpack.decode(answer.content, type=list[bytes])
            assert len(shown) == 3
            for number, raw in enumerate(shown):
                body = unseal(house.domain, raw).body
                assert isinstance(body, Quorum)
                assert (body.round, body.phase) == (number, Phase.CERTIFY)
                payload = verify_quorum(place, body)
                assert isinstance(payload, CertifyPayload)
                place = Place(house.domain, JOBS_CONTRACT, house.runner.id, number + 1, payload.committee)
            for first, found in (("2", shown[2:]), ("3", []), ("9999999999", [])):
                answer = await tab.web.get(f"/join/certificates/{job}?from={first}")
                assert msgspec.msgpack.decode(answer.content) == found
            for query in ("", "?from=", "?from=-1", "?from=1e3", "?from=12345678901", "?from=\u0661"):
                assert (await tab.web.get(f"/join/certificates/{job}{query}")).status_code == 400, query
            for name in ("00" * 32, "zz", job.upper()):
                assert (await tab.web.get(f"/join/certificates/{name}?from=0")).status_code == 404, name

    serve(tmp_path, story, rounds=3)


def test_an_answer_holds_as_many_certificates_as_fit() -> None:
    """One that is larger than all together may be is shown alone."""

    def shown(sizes: list[int], first: int = 0) -> list[int]:
        job = SimpleNamespace(certificates=sizes, sign=lambda size: SimpleNamespace(raw=bytes(size)))
        return [len(raw) for raw in certificates(cast(Job, job), first)]

    assert shown([1] * 100) == [1] * CERTIFICATES_AT_ONCE
    half = CERTIFICATES_BYTES // 2
    assert shown([half, half, 1]) == [half, half]
    assert shown([2 * CERTIFICATES_BYTES, 1]) == [2 * CERTIFICATES_BYTES]
    assert shown([1, 2, 3], 1) == [2, 3]


def test_blobs_and_samples(tmp_path: Path) -> None:
    async def story(house: House, where: str) -> None:
        secret = house.blobs.put(b"something of the node's own")
        async with Tab(house.observer.key, where).open() as tab:
            await tab.open_job()
            answer = await tab.web.get(f"/join/blob/{house.manifest_id.hex()}")
            assert answer.content == house.manifest.to_bytes()
            assert answer.headers["content-type"] == "application/octet-stream"
            assert "immutable" in answer.headers["cache-control"]
            for name in (secret.hex(), "01" * 32, "../secret", "zz", house.manifest_id.hex().upper()):
                assert (await tab.web.get(f"/join/blob/{name}")).status_code == 404, name
            job = house.runner.id.hex()
            for rows, status in (
                ("0,1,5", 200),
                ("", 400),
                ("1,", 400),
                ("-1", 400),
                (str(house.manifest.data.count), 404),
                (",".join(["1"] * 1025), 413),
            ):
                assert (await tab.web.get(f"/join/samples/{job}?rows={rows}")).status_code == status, rows
            assert (await tab.web.get(f"/join/samples/{'00' * 32}?rows=1")).status_code == 404

    serve(tmp_path, story)
