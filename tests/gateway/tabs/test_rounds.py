"""Whole rounds with browser tabs in them, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.errors import Refused
from atoll.gateway.tabs.memory import Memory
from atoll.training.committee import UNIT
from atoll.training.context import LIGHT, WORKER
from atoll.transfer.blobs import BlobStore
from atoll.transfer.client import fetch_blob
from atoll.transfer.messages import Chunk
from atoll.transfer.service import TransferService
from atoll.wire.hashing import ZERO_HASH, keccak
from atoll.wire.identity import AccountKey
from atoll.wire.messages import (
    AuditReveal,
    Body,
    Commit,
    HistoryAsk,
    Phase,
    Present,
    Replay,
    Reveal,
    Signed,
    seal,
    unseal,
)
from atoll.wire.reasons import Reason
from atoll.wire.rpc import decode_body, decode_response, encode_body, encode_ok
from tests.gateway.tabs.house import House
from tests.gateway.tabs.tab import Tab

SECONDS = 90


@asynccontextmanager
async def working(house: House) -> AsyncIterator[Tab]:
    """A tab that has everything it needs, and a network that has just begun."""
    async with house.open() as where, Tab(house.observer.key, where).open() as tab:
        await tab.open_job()
        house.go()
        yield tab


def play(house: House, story: Callable[[Tab], Awaitable[None]]) -> Tab:
    """Run a story of one tab."""

    async def run() -> Tab:
        async with asyncio.timeout(SECONDS), working(house) as tab:
            await story(tab)
            return tab

    return asyncio.run(run())


def own(tab: Tab) -> list[tuple[int, str, str]]:
    return [(one["round"], one["reason"], one["amount"]) for one in tab.verdicts if one["kind"] == "unit"]


def verdict_on(house: House, account: bytes) -> list[int]:
    """What the first certificate says about an account's unit."""
    rows = house.network.history[0].certificate.verdicts
    return [row.reason for row in rows if row.kind == UNIT and row.account == account]


def test_a_tab_does_verified_units_and_audits(tmp_path: Path) -> None:
    house = House(tmp_path, rounds=3)
    tab = play(house, lambda tab: tab.work(3))
    price = str(house.manifest.policy.unit_price)
    assert own(tab) == [(number, "OK", price) for number in range(3)]
    audits = [one for one in tab.verdicts if one["kind"] == "audit"]
    assert audits and all(one["reason"] == "OK" for one in audits)
    assert len(tab.uploaded) >= 9  # two states and an update for each unit
    assert not any(house.blobs.pinned(blob) for blob in tab.uploaded)  # let go of with the last certificate


def test_a_light_tab_trains_one_segment_for_its_share_of_the_price(tmp_path: Path) -> None:
    house = House(tmp_path, rounds=1)
    account = house.observer.account
    house.network.enlisted[account] = replace(house.network.enlisted[account], roles=WORKER | LIGHT)
    tab = play(house, lambda tab: tab.work(1))
    assert house.manifest.segments == 2
    assert own(tab) == [(0, "OK", str(house.manifest.policy.unit_price // 2))]


def test_a_tab_that_leaves_after_its_reveal_loses_nothing(tmp_path: Path) -> None:
    """What it revealed did not even arrive while it was there: the gateway says it again and serves the blobs."""
    house = House(tmp_path, rounds=1)

    async def run() -> None:
        async with asyncio.timeout(SECONDS), house.open() as where:
            async with Tab(house.observer.key, where).open() as tab:
                await tab.open_job()
                house.go()
                await tab.work_until("AuditCommit")
                house.deaf = True
                await tab.work_until("Reveal")
                await tab.work_until("AuditReveal")
            house.deaf = False
            await house.until(lambda: house.network.history)

    asyncio.run(run())
    assert verdict_on(house, house.observer.account) == [Reason.OK]


def test_a_tab_comes_back_and_goes_on(tmp_path: Path) -> None:
    """Gone between commit and reveal, with nothing but its key: it trains again and opens what it had committed."""
    house = House(tmp_path, rounds=1)

    async def run() -> Tab:
        async with asyncio.timeout(SECONDS), house.open() as where:
            async with Tab(house.observer.key, where).open() as tab:
                await tab.open_job()
                house.go()
                await tab.work_until("Commit")
            async with Tab(house.observer.key, where).open() as again:
                await again.open_job()
                told = again.states["round"]
                said = [unseal(house.domain, bytes.fromhex(raw)).body for raw in told["said"]]
                assert isinstance(said[0], Commit)
                await again.train(told, told["unit"], Commit)
                await again.work(1)
                return again

    assert own(asyncio.run(run()))[0][1] == "OK"


def test_a_restarted_gateway_goes_on_for_tabs_that_left(tmp_path: Path) -> None:
    """The second house has the disk of the first, and another network that begins the same round."""
    first = House(tmp_path, rounds=1)

    async def before(tab: Tab) -> None:
        await tab.work_until("AuditCommit")
        first.deaf = True
        await tab.work_until("Reveal")
        await tab.work_until("AuditReveal")

    tab = play(first, before)
    assert not first.network.history
    second = House(tmp_path, rounds=1)
    assert all(second.blobs.pinned(blob) for blob in tab.uploaded)

    async def after() -> None:
        async with asyncio.timeout(SECONDS), second.open():
            second.go()
            await second.until(lambda: second.network.history)
            await second.until(lambda: not any(second.blobs.pinned(blob) for blob in tab.uploaded))

    asyncio.run(after())
    assert verdict_on(second, second.observer.account) == [Reason.OK]


def test_what_was_taken_is_on_disk_before_the_tab_hears_so(tmp_path: Path) -> None:
    """A gateway that is killed at once finds it again, though the tab is gone and no other node has heard of it."""
    house = House(tmp_path, rounds=1)

    async def story(tab: Tab) -> None:
        for said in ("Commit", "AuditCommit", "Reveal"):
            house.deaf = said == "Reveal"
            await tab.work_until(said)
            kept = house.journal.get_snapshot(f"tabs/{tab.states['round']['job']}")
            assert kept is not None
            [(_, account, envelopes)] = Memory().unpack(kept)
            assert account == tab.key.address
            assert {type(unseal(house.domain, raw).body).__name__ for raw in envelopes} == tab.progress

    play(house, story)


def altered(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_a_gateway_that_alters_what_it_serves_is_noticed_by_the_validators(tmp_path: Path) -> None:
    """Blobs are asked for by their hash: other bytes are refused, and nobody takes them for the tab's work."""
    store = BlobStore(tmp_path / "relay", 1 << 20)
    update = store.put(b"what the tab uploaded")
    honest = TransferService(store)

    async def lying(account: bytes, alpn: bytes, payload: bytes) -> bytes:
        chunk = decode_body(Chunk, decode_response(honest.handle(payload)))
        return encode_ok(encode_body(Chunk(chunk.size, altered(chunk.data))))

    with pytest.raises(Refused) as caught:
        asyncio.run(fetch_blob(update, [b"gateway"], lying, 1 << 20))
    assert caught.value.reason is Reason.WRONG_HASH


def test_an_envelope_that_a_gateway_alters_speaks_for_nobody(tmp_path: Path) -> None:
    """The signature covers every byte: another digest is another signer, who is not enlisted."""
    house = House(tmp_path, rounds=1)
    key, job = house.observer.key, house.runner.id
    commit = seal(house.domain, Commit(job, 0, ZERO_HASH, keccak(b"work")), key.address, key.sign_digest)
    forged = unseal(house.domain, commit.raw.replace(keccak(b"work"), keccak(b"other work")))
    assert forged.account != key.address
    node = house.network.by_index[0]
    node.start()
    node.receive(forged.raw)
    house.journal.close()
    assert node.notes == ["UNKNOWN_ACCOUNT: the sender is not enlisted in this job"]


def test_only_the_present_phase_is_spoken_for(tmp_path: Path) -> None:
    """Each envelope at the wrong time, about the wrong unit, of the wrong kind, by the wrong account."""
    house = House(tmp_path, rounds=1)
    refusals: list[str] = []

    async def story(tab: Tab) -> None:
        told = tab.states["round"]
        job, unit = bytes.fromhex(told["job"]), bytes.fromhex(told["unit"]["id"])
        other = next(one.id for one in house.observer.round.units.values() if one.id != unit)  # type: ignore[union-attr]
        digest = keccak(b"digest")
        opening = ((ZERO_HASH,) * 3, digest, digest)

        async def refused(body: Body, key: AccountKey = tab.key) -> str:
            signed: Signed = seal(house.domain, body, key.address, key.sign_digest)
            answer = await tab.ask("say", raw=signed.raw.hex())
            refusals.append(answer["type"])
            return str(answer.get("reason"))

        assert told["phase"] == "lock"
        assert await refused(Reveal(job, 0, unit, *opening)) == "NOT_FOUND"  # before the audits are locked
        assert await refused(AuditReveal(job, 0, unit, *opening)) == "NOT_FOUND"
        assert await refused(Replay(job, 0, other, 0, ZERO_HASH)) == "NOT_FOUND"
        assert await refused(Commit(job, 0, other, digest)) == "NOT_FOUND"
        assert await refused(Commit(job, 1, unit, digest)) == "NOT_FOUND"
        assert await refused(Commit(keccak(b"job"), 0, unit, digest)) == "NOT_FOUND"
        assert await refused(Present(job, 0)) == "NOT_FOUND"  # it is on the roster
        assert await refused(HistoryAsk(job, 0, Phase.LOCK)) == "UNKNOWN_MESSAGE"
        assert await refused(Commit(job, 0, unit, digest), AccountKey(keccak(b"other"))) == "BAD_SIGNATURE"
        assert (await tab.ask("say", raw="00"))["reason"] == "MALFORMED"
        assert not house.said
        await tab.work_until("Commit")
        assert await refused(Commit(job, 0, unit, digest)) == "EQUIVOCATION"
        while tab.states["round"]["phase"] == "lock":
            await tab.receive()
        assert await refused(Commit(job, 0, unit, digest)) == "STALE"
        await tab.work_until("AuditCommit")
        while tab.states["round"]["phase"] != "open":
            await tab.receive()
        assert await refused(Reveal(job, 0, unit, *opening)) == "NOT_FOUND"  # it names what was not uploaded

    play(house, story)
    assert set(refusals) == {"refused"}
